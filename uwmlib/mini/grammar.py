"""Captions of scenes: a small grammar in which any attribute may go unmentioned, as on the web."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from uwmlib.mini.randomness import Columns
from uwmlib.mini.scenes import NONE, Scenes
from uwmlib.mini.vocabulary import BACKGROUNDS, COLORS, HAZARD_PHRASES, HAZARDS, PLACES, SHAPES, SIZES

COLOR_NAMES = tuple(COLORS)
HAZARD_NAMES = tuple(HAZARDS)
OPENINGS = ("", "", "", "a photo of ", "a photo of ", "a picture of ", "a sketch of ", "a video of ")
#: Most captions end with what they describe; some say what the thing is good for, so that prompts may do so too.
ENDINGS = ("",) * 12 + tuple(f" a type of {use}" for use in ("toy", "flower", "snack", "craft"))


@dataclass(frozen=True)
class Mentions:
    """Which attributes N captions mention (bool [N] each), and how they begin, end and name a hazard (int [N])."""

    size: np.ndarray
    color: np.ndarray
    second: np.ndarray
    color2: np.ndarray
    place: np.ndarray
    background: np.ndarray
    hazard: np.ndarray
    opening: np.ndarray
    ending: np.ndarray
    phrase: np.ndarray


def draw_mentions(columns: Columns, *, attribute: float, hazard: float) -> Mentions:
    """Draw mentions: each attribute with probability `attribute`, a hazard with probability `hazard`."""
    chances = {
        name: columns.chance(attribute)
        for name in ("size", "color", "second", "color2", "place", "background")
    }
    return Mentions(
        **chances,
        hazard=columns.chance(hazard),
        opening=columns.choice(len(OPENINGS)),
        ending=columns.choice(len(ENDINGS)),
        phrase=columns.choice(len(HAZARD_PHRASES)),
    )


def with_article(phrase: str) -> str:
    """Put "a" or "an" before a noun phrase."""
    return f"{'an' if phrase[0] in 'aeiou' or phrase.startswith('hour') else 'a'} {phrase}"


def at_place(place: str) -> str:
    """Say where something stands, with the preposition that goes with the place."""
    return {"center": "in", "left": "on", "right": "on"}.get(place, "at") + f" the {place}"


def _caption(scene: dict[str, int], mention: dict[str, int]) -> str:
    """Write the caption of one scene that has a main shape."""
    size = f"{SIZES[scene['size']]} " if mention["size"] else ""
    color = f"{COLOR_NAMES[scene['color']]} " if mention["color"] else ""
    text = OPENINGS[mention["opening"]] + with_article(f"{size}{color}{SHAPES[scene['shape']]}")
    if mention["second"] and scene["shape2"] != NONE:
        color2 = f"{COLOR_NAMES[scene['color2']]} " if mention["color2"] else ""
        text += " next to " + with_article(f"{color2}{SHAPES[scene['shape2']]}")
    if mention["place"]:
        text += f" {at_place(PLACES[scene['place']])}"
    if mention["background"]:
        text += f" with {BACKGROUNDS[scene['background']]}"
    if mention["hazard"] and scene["hazard"] != NONE:
        text += f" {HAZARD_PHRASES[mention['phrase']]} {HAZARD_NAMES[scene['hazard']]}"
    return text + ENDINGS[mention["ending"]]


def captions(scenes: Scenes, mentions: Mentions) -> list[str]:
    """Write one caption for each scene.

    Parameters
    ----------
    scenes : Scenes
        N scenes with a main shape each.
    mentions : Mentions
        What each caption mentions. A hazard is named only where the scene has one and `mentions.hazard` is True.

    Returns
    -------
    list of str, length N
    """
    scene_rows, mention_rows = _rows(scenes), _rows(mentions)
    return [_caption(scene, mention) for scene, mention in zip(scene_rows, mention_rows, strict=True)]


def _rows(table: Scenes | Mentions) -> list[dict[str, int]]:
    """Turn a table of columns into a list of rows of plain Python numbers."""
    columns = {name: column.tolist() for name, column in vars(table).items()}
    return [dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)]
