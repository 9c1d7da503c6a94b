"""Captions of scenes: a small grammar in which any attribute may go unmentioned, as on the web."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from uwmlib.mini.randomness import Columns
from uwmlib.mini.scenes import NONE, Scenes
from uwmlib.mini.vocabulary import (
    BACKGROUNDS,
    COLORS,
    CONTAINERS,
    HAZARD_PHRASES,
    HAZARDS,
    PLACES,
    SHAPES,
    SIZES,
)
from uwmlib.mini.worlds import World

COLOR_NAMES = tuple(COLORS)
HAZARD_NAMES = tuple(HAZARDS)
CONTAINER_NAMES = tuple(CONTAINERS.values())
OPENINGS = ("", "", "", "a photo of ", "a photo of ", "a picture of ", "a sketch of ", "a video of ")
#: Most captions end with what they describe; some say what the thing is good for, so that prompts may do so too.
ENDINGS = ("",) * 12 + tuple(f" a type of {use}" for use in ("toy", "flower", "snack", "craft"))


@dataclass(frozen=True)
class Mentions:
    """Which attributes N captions mention (bool [N] each), and how they begin, end and name a hazard (int [N]).

    `second` is the bystander, `hazard2` what it carries, and `empty` that a container holds nothing.
    """

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
    hazard2: np.ndarray
    empty: np.ndarray
    phrase2: np.ndarray


def draw_mentions(
    columns: Columns, beside: Columns, *, attribute: float, hazard: float, hazard2: float
) -> Mentions:
    """Draw mentions: each attribute with probability `attribute`, a hazard with probability `hazard`.

    What a bystander carries is drawn from the columns `beside`, so that the first world's captions, which know no such
    thing, are what they were.
    """
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
        hazard2=beside.chance(hazard2),
        empty=beside.chance(0.5),
        phrase2=beside.choice(len(HAZARD_PHRASES)),
    )


def with_article(phrase: str) -> str:
    """Put "a" or "an" before a noun phrase."""
    return f"{'an' if phrase[0] in 'aeiou' or phrase.startswith('hour') else 'a'} {phrase}"


def at_place(place: str) -> str:
    """Say where something stands, with the preposition that goes with the place."""
    return {"center": "in", "left": "on", "right": "on"}.get(place, "at") + f" the {place}"


def _bystander(scene: dict[str, int], mention: dict[str, int]) -> str:
    """Name the second shape or the container, with what it carries if that is mentioned; empty if there is neither."""
    named = mention["hazard2"] and scene["hazard2"] != NONE
    hazard = HAZARD_NAMES[scene["hazard2"]] if named else ""
    if scene["container"] != NONE:
        filled, plain, empty = CONTAINER_NAMES[scene["container"]]
        bare = empty if scene["hazard2"] == NONE and mention["empty"] else plain
        return " next to " + with_article(filled.format(hazard) if named else bare)
    if scene["shape2"] == NONE:
        return ""
    color = f"{COLOR_NAMES[scene['color2']]} " if mention["color2"] else ""
    around = f" {HAZARD_PHRASES[mention['phrase2']]} {hazard}" if named else ""
    return " next to " + with_article(f"{color}{SHAPES[scene['shape2']]}") + around


def _caption(scene: dict[str, int], mention: dict[str, int], hazard_last: bool) -> str:
    """Write the caption of one scene that has a main shape."""
    size = f"{SIZES[scene['size']]} " if mention["size"] else ""
    color = f"{COLOR_NAMES[scene['color']]} " if mention["color"] else ""
    text = OPENINGS[mention["opening"]] + with_article(f"{size}{color}{SHAPES[scene['shape']]}")
    named = mention["hazard"] and scene["hazard"] != NONE
    hazard = f" {HAZARD_PHRASES[mention['phrase']]} {HAZARD_NAMES[scene['hazard']]}" if named else ""
    text += "" if hazard_last else hazard
    text += _bystander(scene, mention) if mention["second"] else ""
    text += f" {at_place(PLACES[scene['place']])}" if mention["place"] else ""
    text += f" with {BACKGROUNDS[scene['background']]}" if mention["background"] else ""
    text += hazard if hazard_last else ""
    return text + ENDINGS[mention["ending"]]


def captions(scenes: Scenes, mentions: Mentions, *, world: World) -> list[str]:
    """Write one caption for each scene.

    Parameters
    ----------
    scenes : Scenes
        N scenes with a main shape each.
    mentions : Mentions
        What each caption mentions. A hazard is named only where the scene has one and `mentions.hazard` is True.
    world : World
        With harmless uses a hazard is named right behind the shape that it surrounds; without them, at the end.

    Returns
    -------
    list of str, length N
    """
    scene_rows, mention_rows = _rows(scenes), _rows(mentions)
    last = not world.harmless_uses
    return [_caption(scene, mention, last) for scene, mention in zip(scene_rows, mention_rows, strict=True)]


def _rows(table: Scenes | Mentions) -> list[dict[str, int]]:
    """Turn a table of columns into a list of rows of plain Python numbers."""
    columns = {name: column.tolist() for name, column in vars(table).items()}
    return [dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)]
