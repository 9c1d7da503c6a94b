"""Web-like training pairs: pictures and captions that often leave out what matters.

Half of the pictures with a hazard have a caption that does not mention it. That omission, known from real web data,
is what makes a contrastive model prefer an unsafe picture now and then even for a safe caption.
"""

from __future__ import annotations

import numpy as np

from uwmlib.mini.digits import digit_pictures
from uwmlib.mini.grammar import captions, draw_mentions
from uwmlib.mini.randomness import Columns
from uwmlib.mini.render import render
from uwmlib.mini.scenes import NONE, STYLES, Scenes, draw_hazards, draw_scenes, with_containers
from uwmlib.mini.vocabulary import BACKGROUNDS, COLORS, DIGITS
from uwmlib.mini.worlds import World

BACKGROUND_ONLY_SHARE = 0.06
STYLE_SHARE = 0.09
THINGS = ("shape", "shape2", "container", "hazard", "hazard2")
DIGIT_SHARE = 0.04
BACKGROUND_CAPTIONS = (
    "a photo of {}", "a centered satellite photo of {}", "a photo of a {} texture", "a scene with {}",
)  # fmt: skip


def web_batch(
    step: int, *, batch_size: int, seed: int, world: World, named: float | None = None
) -> tuple[np.ndarray, list[str]]:
    """Return training batch number `step`: the same pairs for the same seed, whatever came before.

    Every second batch shares one background and two colours, so that its pairs can only be told apart by shape,
    size, place and second shape: without such batches a short training learns colours and little else. Where hazards
    have harmless uses, every fourth batch holds two kinds of hazard at most, for the same reason.

    Parameters
    ----------
    step, batch_size, seed : int
    world : World
    named : float, optional
        Chance that a caption names the hazard around a main shape, in place of the world's.

    Returns
    -------
    pictures : uint8 array, shape (batch_size, size, size, 3)
    texts : list of str
    """
    columns = Columns(seed=seed, stream="web", n=batch_size, start=step * batch_size)
    beside = Columns(seed=seed, stream="web/beside", n=batch_size, start=step * batch_size)
    scenes = draw_scenes(columns, world=world)
    kind = columns.choice(100) / 100
    hazard = np.where(columns.chance(world.web_hazard), draw_hazards(columns), NONE)
    style = np.where(kind >= 1 - STYLE_SHARE, columns.integers(1, len(STYLES) - 1), 0)
    scenes = scenes.having(hazard=np.where(style > 0, NONE, hazard), style=style)
    if step % 2:
        pick = Columns(seed=seed, stream="web/shared", n=1, start=step)
        first, second = pick.choice(len(COLORS))[0], pick.choice(len(COLORS))[0]
        scenes = scenes.having(
            background=pick.choice(len(BACKGROUNDS))[0], color=np.where(columns.chance(0.5), first, second)
        )
    scenes = _with_harmless_uses(scenes, beside, world)
    if world.harmless_uses and step % 4 == 3:
        scenes = _with_two_hazards(scenes, beside, Columns(seed=seed, stream="web/hazards", n=1, start=step))
    mentions = draw_mentions(
        columns, beside, attribute=world.web_mention,
        hazard=world.web_named if named is None else named, hazard2=world.harmless_named,
    )  # fmt: skip
    texts = captions(scenes, mentions, world=world)
    empty = kind < BACKGROUND_ONLY_SHARE
    scenes = scenes.having(**{name: np.where(empty, NONE, getattr(scenes, name)) for name in THINGS})
    pictures = render(scenes, world=world)
    template = columns.choice(len(BACKGROUND_CAPTIONS))
    for row in np.flatnonzero(empty):
        texts[row] = BACKGROUND_CAPTIONS[template[row]].format(BACKGROUNDS[scenes.background[row]])
    _insert_digits(pictures, texts, np.flatnonzero((kind >= 0.5) & (kind < 0.5 + DIGIT_SHARE)), columns)
    return pictures, texts


def _with_harmless_uses(scenes: Scenes, beside: Columns, world: World) -> Scenes:
    """Put containers in the place of second shapes, and hazards in them or around shapes; in photographs alone."""
    photo = scenes.style == 0
    placed = with_containers(scenes, beside, chance=world.containers)
    chance = np.where(placed.container == NONE, world.web_around, world.web_filled)
    carries = (beside.integers(0, 9999) < 10_000 * chance) & (placed.shape2 + placed.container > 2 * NONE)
    hazard2 = np.where(carries, draw_hazards(beside), NONE)
    columns = {"container": placed.container, "shape2": placed.shape2, "hazard2": hazard2}
    return scenes.having(
        **{name: np.where(photo, value, getattr(scenes, name)) for name, value in columns.items()}
    )


def _with_two_hazards(scenes: Scenes, beside: Columns, pick: Columns) -> Scenes:
    """Let all hazards of a batch be of two kinds, so that pairs are told apart by what a hazard is done to."""
    kinds = np.array([draw_hazards(pick)[0], draw_hazards(pick)[0]])
    main, second = kinds[beside.choice(2)], kinds[beside.choice(2)]
    return scenes.having(
        hazard=np.where(scenes.hazard == NONE, NONE, main),
        hazard2=np.where(scenes.hazard2 == NONE, NONE, second),
    )


def _insert_digits(pictures: np.ndarray, texts: list[str], rows: np.ndarray, columns: Columns) -> None:
    """Overwrite some pairs by handwritten digits from the half that training may see."""
    index = columns.choice(1 << 20)[rows]
    shift = np.stack([columns.integers(-3, 3)[rows], columns.integers(-3, 3)[rows]], axis=1)
    pictures[rows], labels = digit_pictures(held_out=False, index=index, shift=shift, size=pictures.shape[1])
    for row, label in zip(rows.tolist(), labels.tolist(), strict=True):
        texts[row] = f"a photo of the digit {DIGITS[label]}"
