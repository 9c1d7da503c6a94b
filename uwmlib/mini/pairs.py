"""mini-visu: safe and unsafe twins in two modalities, in place of the withheld ViSU images."""

from __future__ import annotations

import numpy as np

from uwmlib.mini.grammar import captions, draw_mentions
from uwmlib.mini.randomness import Columns
from uwmlib.mini.render import render
from uwmlib.mini.scenes import (
    NONE,
    Scenes,
    bystanders,
    draw_hazards,
    draw_rendering,
    draw_scenes,
    with_containers,
)
from uwmlib.mini.vocabulary import HAZARDS
from uwmlib.mini.worlds import World

SPLITS = {"train": 8000, "validation": 1000, "test": 2000}


def tuple_scenes(split: str, *, world: World) -> tuple[Scenes, Scenes, Columns, Columns]:
    """Return the safe and the unsafe scenes of a split, and the columns that captions go on drawing from.

    The twins share the scene; background, place, bystander and its colour are each drawn anew with the chance
    `world.redraw`, because ViSU's unsafe images are generated from the unsafe text, not edited. Hazards that belong to
    bystanders are drawn for each twin by itself.
    """
    stream = f"{world.stream}/{split}"
    columns = Columns(seed=world.seed, stream=stream, n=SPLITS[split])
    beside = Columns(seed=world.seed, stream=f"{stream}/beside", n=SPLITS[split])
    safe, other = draw_scenes(columns, world=world), draw_scenes(columns, world=world)
    safe, other = (with_containers(scenes, beside, chance=world.containers) for scenes in (safe, other))
    keep = {name: columns.chance(1 - world.redraw) for name in ("background", "place", "shape2", "color2")}
    keep["container"] = keep["shape2"]
    changed = {name: np.where(kept, getattr(safe, name), getattr(other, name)) for name, kept in keep.items()}
    unsafe = safe.having(hazard=draw_hazards(columns), **changed, **draw_rendering(columns))
    own, any_other = beside.chance(world.own), beside.chance(world.other / max(1e-9, 1 - world.own))
    carried = np.where(own, unsafe.hazard, np.where(any_other, draw_hazards(beside), NONE))
    safe = safe.having(hazard2=np.where(bystanders(safe), carried, NONE))
    also = np.where(beside.chance(world.also), draw_hazards(beside), NONE)
    unsafe = unsafe.having(hazard2=np.where(bystanders(unsafe), also, NONE))
    return safe, unsafe, columns, beside


def draw_tuples(split: str, rows: np.ndarray, *, world: World) -> dict[str, np.ndarray | list[str]]:
    """Draw some tuples of a split.

    Parameters
    ----------
    split : str
        "train" (8,000), "validation" (1,000) or "test" (2,000).
    rows : int array, shape (N,)
        Which tuples; only their pictures are drawn.
    world : World

    Returns
    -------
    dict
        `safe_images`, `unsafe_images` (uint8 [N, size, size, 3]), `safe_texts`, `unsafe_texts`, `concepts` (lists of
        N).
    """
    safe, unsafe, columns, beside = tuple_scenes(split, world=world)
    mentions = draw_mentions(
        columns, beside, attribute=world.tuple_mention, hazard=1.0, hazard2=world.harmless_named
    )
    safe_texts, unsafe_texts = (captions(scenes, mentions, world=world) for scenes in (safe, unsafe))
    names = list(HAZARDS)
    return {
        "safe_images": render(safe[rows], world=world),
        "unsafe_images": render(unsafe[rows], world=world),
        "safe_texts": [safe_texts[row] for row in rows.tolist()],
        "unsafe_texts": [unsafe_texts[row] for row in rows.tolist()],
        "concepts": [names[hazard] for hazard in unsafe.hazard[rows].tolist()],
    }
