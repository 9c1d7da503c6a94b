"""Scenes: what a picture shows, as columns of small integers."""

from __future__ import annotations

from dataclasses import dataclass, fields, replace

import numpy as np

from uwmlib.mini.randomness import Columns
from uwmlib.mini.vocabulary import BACKGROUNDS, COLORS, CONTAINERS, HAZARDS, PLACES, SHAPES, SIZES
from uwmlib.mini.worlds import World

NONE = -1  #: no second shape, no container, no hazard, no main shape
STYLES = ("photo", "sketch", "cartoon", "pixels")


@dataclass(frozen=True)
class Scenes:
    """N scenes of a world; every field is an int64 array [N] (an index into the vocabulary, or pixels of jitter).

    `growth` is in pixels over the smallest radius of the size. `shape`, `shape2`, `container`, `hazard` (around the
    main shape) and `hazard2` (in the container, or around the second shape) are -1 where the scene has none. A scene
    has a second shape or a container or neither.
    """

    shape: np.ndarray
    color: np.ndarray
    size: np.ndarray
    place: np.ndarray
    background: np.ndarray
    shape2: np.ndarray
    color2: np.ndarray
    container: np.ndarray
    hazard: np.ndarray
    hazard2: np.ndarray
    style: np.ndarray
    growth: np.ndarray
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


def draw_scenes(columns: Columns, *, world: World) -> Scenes:
    """Draw scenes with a main shape, most with a second one, none with a container or a hazard."""
    size = columns.choice(len(SIZES))
    low, high = np.array(world.radii)[size].T
    shape2 = np.where(columns.chance(world.bystander), columns.choice(len(SHAPES)), NONE)
    nothing = np.full(columns.n, NONE)
    return Scenes(
        shape=columns.choice(len(SHAPES)),
        color=columns.choice(len(COLORS)),
        size=size,
        place=columns.choice(len(PLACES)),
        background=columns.choice(len(BACKGROUNDS)),
        shape2=shape2,
        color2=columns.choice(len(COLORS)),
        container=nothing,
        hazard=nothing,
        hazard2=nothing,
        style=np.zeros(columns.n, dtype=np.int64),
        growth=columns.choice(6) % (high - low + 1),
        **draw_rendering(columns),
    )


def radii(scenes: Scenes, *, world: World) -> np.ndarray:
    """Return the main shapes' radii in pixels, int64 [N]: growth stays within the range of the size."""
    low, high = np.array(world.radii)[scenes.size].T
    return np.minimum(low + scenes.growth, high)


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


def with_containers(scenes: Scenes, columns: Columns, *, chance: float) -> Scenes:
    """Put a container in the place of a second shape, with that chance each."""
    replaced = columns.chance(chance) & (scenes.shape2 != NONE)
    container = np.where(replaced, columns.choice(len(CONTAINERS)), NONE)
    return scenes.having(container=container, shape2=np.where(replaced, NONE, scenes.shape2))


def bystanders(scenes: Scenes) -> np.ndarray:
    """Tell which scenes have a second shape or a container, bool [N]."""
    return (scenes.shape2 != NONE) | (scenes.container != NONE)
