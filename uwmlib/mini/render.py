"""Pictures of scenes, in 16-bit integer arithmetic: the same bytes on every machine."""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache

import numpy as np

from uwmlib.mini.scenes import NONE, STYLES, Scenes, radii
from uwmlib.mini.sprites import (
    CANVAS,
    OPAQUE_BITS,
    background_tile,
    container_sprite,
    hazard_sprite,
    shape_sprite,
)
from uwmlib.mini.vocabulary import COLORS, HAZARDS
from uwmlib.mini.worlds import World

COLOR_TABLE = np.array(list(COLORS.values()), dtype=np.int16)
HAZARD_COLORS = np.array([color for _, color in HAZARDS.values()], dtype=np.int16)
INK = np.array((25, 25, 25), dtype=np.int16)
PAPER = np.array((244, 242, 236), dtype=np.int16)
#: Of jars, frames and signs: the container, and the room within it.
CONTAINER_COLORS = np.array(((60, 85, 120), (120, 72, 30), (70, 70, 75)), dtype=np.int16)
ROOM_COLORS = np.array(((198, 176, 208), (178, 164, 136), (150, 182, 208)), dtype=np.int16)

#: Directions of the centre for each place, and of the corners that a bystander may stand in for it.
TOWARDS = np.array(((0, 0), (-1, 0), (1, 0), (0, -1), (0, 1)))
FREE_CORNERS = np.array(((0, 3), (1, 3), (0, 2), (2, 3), (0, 1)))
CONTENT_RADIUS = 1  #: of the shape that a pattern within a container would leave room for
CONTAINER_EXTRA = 3  #: pixels by which a container is larger than a shape in its place
NOISE = 10  #: largest change of a pixel by noise, in grey levels


@lru_cache(maxsize=2)
def _noise_tiles(size: int) -> np.ndarray:
    raw = np.random.Philox(key=20).random_raw(256 * size * size * 3)
    return ((raw % (2 * NOISE + 1)).astype(np.int16) - NOISE).reshape(256, size, size, 3)


def _blend(picture: np.ndarray, color: np.ndarray, coverage: np.ndarray) -> np.ndarray:
    """Lay colours [B, 3] over pictures [B, H, W, 3] where coverage [B, H, W] (0..64) says so."""
    if not coverage.any():
        return picture
    # A shift by log2(OPAQUE) rounds down as a floor division does, and takes a fifth of its time.
    return picture + (((color[:, None, None, :] - picture) * coverage[..., None]) >> OPAQUE_BITS)


def _layer(
    sprite: Callable[..., np.ndarray], keys: tuple[np.ndarray, ...], at: np.ndarray, size: int
) -> np.ndarray:
    """Cut pictures' windows out of sprites with their centres at pixels `at` [B, 2]: int16 [B, size, size].

    The first key tells which sprite; where it is NONE the layer is empty.
    """
    layer = np.zeros((len(at), size, size), dtype=np.int16)
    for row, (x, y) in enumerate(at.tolist()):
        key = [int(column[row]) for column in keys]
        if key[0] != NONE:
            top, left = CANVAS // 2 - y, CANVAS // 2 - x
            layer[row] = sprite(*key)[top : top + size, left : left + size]
    return layer


def _hazards(
    hazard: np.ndarray, radius: np.ndarray, scenes: Scenes, at: np.ndarray, world: World
) -> np.ndarray:
    """Return the coverage [B, H, W] of hazards around shapes of these radii."""

    def sprite(kind: int, room: int, variant: int) -> np.ndarray:
        return hazard_sprite(kind, room, variant, world.reach)

    layer = _layer(sprite, (hazard, radius, scenes.variant), at, world.size)
    return (layer * np.int16(world.contrast)) >> OPAQUE_BITS


def _shapes(
    picture: np.ndarray, shape: np.ndarray, radius: np.ndarray, at: np.ndarray, color: np.ndarray
) -> np.ndarray:
    """Draw shapes, each with an outline of one pixel; `color` is the fill's [B, 3]."""
    size = picture.shape[1]
    ink = np.broadcast_to(INK, (len(picture), 3))
    picture = _blend(picture, ink, _layer(shape_sprite, (shape, radius + 1), at, size))
    return _blend(picture, color, _layer(shape_sprite, (shape, radius), at, size))


def _containers(picture: np.ndarray, scenes: Scenes, at: np.ndarray, world: World) -> np.ndarray:
    """Draw containers and what they hold."""
    radius = np.full(len(scenes), world.second_radius + CONTAINER_EXTRA)
    key = (scenes.container, radius)
    whole = _layer(lambda *k: container_sprite(*k)[0], key, at, world.size)
    room = _layer(lambda *k: container_sprite(*k)[1], key, at, world.size)
    picture = _blend(picture, CONTAINER_COLORS[scenes.container], whole)
    picture = _blend(picture, ROOM_COLORS[scenes.container], room)
    held = np.where(scenes.container == NONE, NONE, scenes.hazard2)
    pattern = _hazards(held, np.full(len(scenes), CONTENT_RADIUS), scenes, at, world)
    return _blend(picture, HAZARD_COLORS[held], np.minimum(pattern, room))


def _ground(scenes: Scenes, size: int) -> np.ndarray:
    """Return backgrounds [B, H, W, 3]: the tile, or plain paper for sketches and cartoons."""
    kinds = zip(scenes.background.tolist(), scenes.phase.tolist(), strict=True)
    tiles = np.stack([background_tile(background, phase, size) for background, phase in kinds])
    plain = np.isin(scenes.style, (STYLES.index("sketch"), STYLES.index("cartoon")))
    return np.where(plain[:, None, None, None], PAPER, tiles)


BLOCK = 3  #: pixels on a side of one coarse pixel


def _pixelate(pictures: np.ndarray) -> np.ndarray:
    """Average blocks of pixels and blow them up again (integer division)."""
    n, height, width, channels = pictures.shape
    small = (
        pictures.reshape(n, height // BLOCK, BLOCK, width // BLOCK, BLOCK, channels).sum(axis=(2, 4))
        // BLOCK**2
    )
    return small.repeat(BLOCK, axis=1).repeat(BLOCK, axis=2).astype(np.int16)


def _positions(scenes: Scenes, size: int) -> tuple[np.ndarray, np.ndarray]:
    """Return the pixels [B, 2] that the main shape and the bystander stand at."""
    step = size // 6
    main = size // 2 + step * TOWARDS[scenes.place] + np.stack([scenes.shift_x, scenes.shift_y], axis=1)
    low, high = step, size - 1 - step
    corners = np.array(((low, low), (high, low), (low, high), (high, high)))
    return main, corners[FREE_CORNERS[scenes.place, scenes.noise % 2]]


def _render_batch(scenes: Scenes, world: World) -> np.ndarray:
    main, corner = _positions(scenes, world.size)
    radius, second = radii(scenes, world=world), np.full(len(scenes), world.second_radius)
    around = np.where(scenes.container == NONE, scenes.hazard2, NONE)
    sketch = (scenes.style == STYLES.index("sketch"))[:, None]
    picture = _ground(scenes, world.size)
    picture = _blend(picture, HAZARD_COLORS[around], _hazards(around, second, scenes, corner, world))
    picture = _blend(
        picture, HAZARD_COLORS[scenes.hazard], _hazards(scenes.hazard, radius, scenes, main, world)
    )
    for shape, extent, at, color in (
        (scenes.shape2, second, corner, scenes.color2),
        (scenes.shape, radius, main, scenes.color),
    ):
        picture = _shapes(picture, shape, extent, at, np.where(sketch, PAPER, COLOR_TABLE[color]))
    picture = _containers(picture, scenes, corner, world)
    pixels = scenes.style == STYLES.index("pixels")
    if pixels.any():
        picture[pixels] = _pixelate(picture[pixels])
    noise = _noise_tiles(world.size)[scenes.noise]
    return np.clip(picture + scenes.brightness[:, None, None, None].astype(np.int16) + noise, 0, 255).astype(
        np.uint8
    )


def render(scenes: Scenes, *, world: World, batch_size: int = 256) -> np.ndarray:
    """Draw scenes.

    Parameters
    ----------
    scenes : Scenes
    world : World
        That they belong to.
    batch_size : int
        Scenes drawn at a time; it changes memory, never a pixel.

    Returns
    -------
    numpy.ndarray, shape (N, size, size, 3), uint8
    """
    pictures = np.empty((len(scenes), world.size, world.size, 3), dtype=np.uint8)
    for start in range(0, len(scenes), batch_size):
        part = slice(start, start + batch_size)
        pictures[part] = _render_batch(scenes[part], world)
    return pictures
