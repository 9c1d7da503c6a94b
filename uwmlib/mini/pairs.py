"""mini-visu: safe and unsafe twins in two modalities, in place of the withheld ViSU images."""

from __future__ import annotations

import numpy as np

from uwmlib.mini.grammar import captions, draw_mentions
from uwmlib.mini.randomness import Columns
from uwmlib.mini.render import render
from uwmlib.mini.scenes import Scenes, draw_hazards, draw_rendering, draw_scenes
from uwmlib.mini.vocabulary import HAZARDS

SPLITS = {"train": 8000, "validation": 1000, "test": 2000}
REDRAW = 0.25  #: chance that the unsafe twin differs in a given part of the scene
ATTRIBUTE_MENTION = 0.75
SEED = 0  #: of the published world; other seeds would be other data sets


def tuple_scenes(split: str) -> tuple[Scenes, Scenes, Columns]:
    """Return the safe and the unsafe scenes of a split, and the columns that captions go on drawing from.

    The twins share the scene; background, place, second shape and its colour are each drawn anew with
    probability 0.25, because ViSU's unsafe images are generated from the unsafe text, not edited.
    """
    columns = Columns(seed=SEED, stream=f"mini-visu/{split}", n=SPLITS[split])
    safe, other = draw_scenes(columns), draw_scenes(columns)
    keep = {name: columns.chance(1 - REDRAW) for name in ("background", "place", "shape2", "color2")}
    changed = {name: np.where(kept, getattr(safe, name), getattr(other, name)) for name, kept in keep.items()}
    unsafe = safe.having(hazard=draw_hazards(columns), **changed, **draw_rendering(columns))
    return safe, unsafe, columns


def draw_tuples(split: str, rows: np.ndarray) -> dict[str, np.ndarray | list[str]]:
    """Draw some tuples of a split.

    Parameters
    ----------
    split : str
        "train" (8,000), "validation" (1,000) or "test" (2,000).
    rows : int array, shape (N,)
        Which tuples; only their pictures are drawn.

    Returns
    -------
    dict
        `safe_images`, `unsafe_images` (uint8 [N, 48, 48, 3]), `safe_texts`, `unsafe_texts`, `concepts` (lists of N).
    """
    safe, unsafe, columns = tuple_scenes(split)
    mentions = draw_mentions(columns, attribute=ATTRIBUTE_MENTION, hazard=1.0)
    safe_texts, unsafe_texts = captions(safe, mentions), captions(unsafe, mentions)
    names = list(HAZARDS)
    return {
        "safe_images": render(safe[rows]),
        "unsafe_images": render(unsafe[rows]),
        "safe_texts": [safe_texts[row] for row in rows.tolist()],
        "unsafe_texts": [unsafe_texts[row] for row in rows.tolist()],
        "concepts": [names[hazard] for hazard in unsafe.hazard[rows].tolist()],
    }
