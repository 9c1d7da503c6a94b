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
from uwmlib.mini.scenes import NONE, STYLES, draw_hazards, draw_scenes
from uwmlib.mini.vocabulary import BACKGROUNDS, COLORS, DIGITS

HAZARD_SHARE = 0.30  #: of the pictures with a main shape
HAZARD_MENTION = 0.50  #: of their captions
ATTRIBUTE_MENTION = 0.65
BACKGROUND_ONLY_SHARE = 0.06
STYLE_SHARE = 0.09
DIGIT_SHARE = 0.04
BACKGROUND_CAPTIONS = (
    "a photo of {}", "a centered satellite photo of {}", "a photo of a {} texture", "a scene with {}",
)  # fmt: skip


def web_batch(
    step: int, *, batch_size: int, seed: int, hazard_mention: float = HAZARD_MENTION
) -> tuple[np.ndarray, list[str]]:
    """Return training batch number `step`: the same pairs for the same seed, whatever came before.

    Every second batch shares one background and two colours, so that its pairs can only be told apart by shape,
    size, place and second shape: without such batches a short training learns colours and little else.

    Returns
    -------
    pictures : uint8 array, shape (batch_size, 48, 48, 3)
    texts : list of str
    """
    columns = Columns(seed=seed, stream="web", n=batch_size, start=step * batch_size)
    scenes = draw_scenes(columns)
    kind = columns.choice(100) / 100
    hazard = np.where(columns.chance(HAZARD_SHARE), draw_hazards(columns), NONE)
    style = np.where(kind >= 1 - STYLE_SHARE, columns.integers(1, len(STYLES) - 1), 0)
    scenes = scenes.having(hazard=np.where(style > 0, NONE, hazard), style=style)
    if step % 2:
        pick = Columns(seed=seed, stream="web/shared", n=1, start=step)
        first, second = pick.choice(len(COLORS))[0], pick.choice(len(COLORS))[0]
        scenes = scenes.having(
            background=pick.choice(len(BACKGROUNDS))[0], color=np.where(columns.chance(0.5), first, second)
        )
    texts = captions(scenes, draw_mentions(columns, attribute=ATTRIBUTE_MENTION, hazard=hazard_mention))
    empty = kind < BACKGROUND_ONLY_SHARE
    scenes = scenes.having(
        **{name: np.where(empty, NONE, getattr(scenes, name)) for name in ("shape", "shape2", "hazard")}
    )
    pictures = render(scenes)
    template = columns.choice(len(BACKGROUND_CAPTIONS))
    for row in np.flatnonzero(empty):
        texts[row] = BACKGROUND_CAPTIONS[template[row]].format(BACKGROUNDS[scenes.background[row]])
    _insert_digits(pictures, texts, np.flatnonzero((kind >= 0.5) & (kind < 0.5 + DIGIT_SHARE)), columns)
    return pictures, texts


def _insert_digits(pictures: np.ndarray, texts: list[str], rows: np.ndarray, columns: Columns) -> None:
    """Overwrite some pairs by handwritten digits from the half that training may see."""
    index = columns.choice(1 << 20)[rows]
    shift = np.stack([columns.integers(-3, 3)[rows], columns.integers(-3, 3)[rows]], axis=1)
    pictures[rows], labels = digit_pictures(held_out=False, index=index, shift=shift)
    for row, label in zip(rows.tolist(), labels.tolist(), strict=True):
        texts[row] = f"a photo of the digit {DIGITS[label]}"
