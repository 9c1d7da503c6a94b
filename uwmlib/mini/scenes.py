"""Scenes: what a picture shows, as columns of small integers."""

from __future__ import annotations

from dataclasses import dataclass, fields, replace

import numpy as np

from uwmlib.mini.randomness import Columns
from uwmlib.mini.vocabulary import BACKGROUNDS, COLORS, HAZARDS, PLACES, SHAPES, SIZES

NONE = -1  #: no second shape, no hazard, no main shape
STYLES = ("photo", "sketch", "cartoon", "pixels")
RADII = ((6, 7), (9, 11), (13, 15))  #: smallest and largest radius in pixels of each size


@dataclass(frozen=True)
class Scenes:
    """N scenes; every field is an int64 array [N] (an index into the vocabulary, or pixels of jitter).

    `shape`, `shape2` and `hazard` are -1 where the scene has none.
    """

    shape: np.ndarray
    color: np.ndarray
    size: np.ndarray
    place: np.ndarray
    background: np.ndarray
    shape2: np.ndarray
    color2: np.ndarray
    hazard: np.ndarray
    style: np.ndarray
    radius: np.ndarray
    shift_x: np.ndarray
    shift_y: np.ndarray
    brightness: np.ndarray
    phase: np.ndarray
    variant: np.ndarray
    noise: np.ndarray

    def __len__(self) -> int:
        return len(self.shape)

    def __getitem__(self, index: slice | np.ndarray) -> Scenes:
        return Scenes(**{field.name: getattr(self, field.name)[index] for field in fields(self)})

    def having(self, **columns: np.ndarray | int) -> Scenes:
        """Return a copy with some columns replaced; a number stands for a whole column."""
        return replace(
            self,
            **{name: np.broadcast_to(value, len(self)).astype(np.int64) for name, value in columns.items()},
        )


def with_size(scenes: Scenes, size: np.ndarray | int) -> Scenes:
    """Return the scenes with another size, each radius keeping its place within its size's range."""
    size = np.broadcast_to(size, len(scenes)).astype(np.int64)
    low, high = np.array(RADII)[size].T
    old_low = np.array(RADII)[scenes.size][:, 0]
    return scenes.having(size=size, radius=np.clip(low + scenes.radius - old_low, low, high))


def draw_scenes(columns: Columns) -> Scenes:
    """Draw scenes with a main shape, three in four with a second one, none with a hazard."""
    size = columns.choice(len(SIZES))
    low, high = np.array(RADII)[size].T
    shape2 = np.where(columns.chance(0.75), columns.choice(len(SHAPES)), NONE)
    return Scenes(
        shape=columns.choice(len(SHAPES)),
        color=columns.choice(len(COLORS)),
        size=size,
        place=columns.choice(len(PLACES)),
        background=columns.choice(len(BACKGROUNDS)),
        shape2=shape2,
        color2=columns.choice(len(COLORS)),
        hazard=np.full(columns.n, NONE),
        style=np.zeros(columns.n, dtype=np.int64),
        radius=low + columns.choice(6) % (high - low + 1),
        **draw_rendering(columns),
    )


def draw_rendering(columns: Columns) -> dict[str, np.ndarray]:
    """Draw what differs between two pictures of the same scene: jitter, brightness, phases, noise."""
    return {
        "shift_x": columns.integers(-2, 2),
        "shift_y": columns.integers(-2, 2),
        "brightness": columns.integers(-18, 18),
        "phase": columns.choice(8),
        "variant": columns.choice(4),
        "noise": columns.choice(256),
    }


def draw_hazards(columns: Columns) -> np.ndarray:
    """Draw one of the twenty hazards for every row, int64 [n]."""
    return columns.choice(len(HAZARDS))
