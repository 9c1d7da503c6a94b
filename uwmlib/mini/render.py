"""Pictures of scenes, in 16-bit integer arithmetic: the same bytes on every machine."""

from __future__ import annotations

from functools import lru_cache

import numpy as np

from uwmlib.mini.scenes import NONE, STYLES, Scenes
from uwmlib.mini.sprites import CANVAS, OPAQUE, SIZE, background_tile, hazard_sprite, shape_sprite
from uwmlib.mini.vocabulary import COLORS, HAZARDS

COLOR_TABLE = np.array(list(COLORS.values()), dtype=np.int16)
HAZARD_COLORS = np.array([color for _, color in HAZARDS.values()], dtype=np.int16)
INK = np.array((25, 25, 25), dtype=np.int16)
PAPER = np.array((244, 242, 236), dtype=np.int16)

#: Centre of the main shape for each place, and the corners that a second shape may stand in for it.
CENTERS = np.array(((24, 24), (16, 24), (32, 24), (24, 16), (24, 32)))
CORNERS = np.array(((8, 8), (39, 8), (8, 39), (39, 39)))
FREE_CORNERS = np.array(((0, 3), (1, 3), (0, 2), (2, 3), (0, 1)))
SECOND_RADIUS = 6
NOISE = 10  #: largest change of a pixel by noise, in grey levels


@lru_cache(maxsize=1)
def _noise_tiles() -> np.ndarray:
    raw = np.random.Philox(key=20).random_raw(256 * SIZE * SIZE * 3)
    return ((raw % (2 * NOISE + 1)).astype(np.int16) - NOISE).reshape(256, SIZE, SIZE, 3)


def _window(sprite: np.ndarray, x: int, y: int) -> np.ndarray:
    """Cut the picture's window out of a sprite whose centre lies at pixel (x, y)."""
    top, left = CANVAS // 2 - y, CANVAS // 2 - x
    return sprite[top : top + SIZE, left : left + SIZE]


def _blend(picture: np.ndarray, color: np.ndarray, coverage: np.ndarray) -> np.ndarray:
    """Lay colours [B, 3] over pictures [B, H, W, 3] where coverage [B, H, W] (0..64) says so."""
    return picture + ((color[:, None, None, :] - picture) * coverage[..., None]) // OPAQUE


def _stack(rows: list[np.ndarray]) -> np.ndarray:
    return np.stack(rows) if rows else np.zeros((0, SIZE, SIZE), dtype=np.int16)


def _shape_layers(
    shape: np.ndarray, radius: np.ndarray, x: np.ndarray, y: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Return coverage [B, H, W] of the outline (the shape one pixel larger) and of the fill."""
    empty = np.zeros((SIZE, SIZE), dtype=np.int16)
    outline, fill = [], []
    for s, r, cx, cy in zip(shape.tolist(), radius.tolist(), x.tolist(), y.tolist(), strict=True):
        outline.append(empty if s == NONE else _window(shape_sprite(s, r + 1), cx, cy))
        fill.append(empty if s == NONE else _window(shape_sprite(s, r), cx, cy))
    return _stack(outline), _stack(fill)


def _hazard_layer(scenes: Scenes, x: np.ndarray, y: np.ndarray) -> np.ndarray:
    empty = np.zeros((SIZE, SIZE), dtype=np.int16)
    rows = zip(
        scenes.hazard.tolist(),
        scenes.radius.tolist(),
        scenes.variant.tolist(),
        x.tolist(),
        y.tolist(),
        strict=True,
    )
    return _stack(
        [empty if h == NONE else _window(hazard_sprite(h, r, v), cx, cy) for h, r, v, cx, cy in rows]
    )


def _ground(scenes: Scenes) -> np.ndarray:
    """Return backgrounds [B, H, W, 3]: the tile, or plain paper for sketches and cartoons."""
    tiles = np.stack(
        [
            background_tile(b, p)
            for b, p in zip(scenes.background.tolist(), scenes.phase.tolist(), strict=True)
        ]
    )
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


def _render_batch(scenes: Scenes) -> np.ndarray:
    x = CENTERS[scenes.place, 0] + scenes.shift_x
    y = CENTERS[scenes.place, 1] + scenes.shift_y
    corner = CORNERS[FREE_CORNERS[scenes.place, scenes.noise % 2]]
    sketch = scenes.style == STYLES.index("sketch")
    picture = _ground(scenes)
    picture = _blend(picture, HAZARD_COLORS[scenes.hazard], _hazard_layer(scenes, x, y))
    main = (scenes.shape, scenes.radius, x, y, scenes.color)
    second = (scenes.shape2, np.full(len(scenes), SECOND_RADIUS), corner[:, 0], corner[:, 1], scenes.color2)
    for shape, radius, cx, cy, color in (second, main):
        outline, fill = _shape_layers(shape, radius, cx, cy)
        ink = np.broadcast_to(INK, (len(scenes), 3))
        picture = _blend(picture, ink, outline)
        picture = _blend(picture, np.where(sketch[:, None], PAPER, COLOR_TABLE[color]), fill)
    pixels = scenes.style == STYLES.index("pixels")
    if pixels.any():
        picture[pixels] = _pixelate(picture[pixels])
    picture = picture + scenes.brightness[:, None, None, None].astype(np.int16) + _noise_tiles()[scenes.noise]
    return np.clip(picture, 0, 255).astype(np.uint8)


def render(scenes: Scenes, *, batch_size: int = 256) -> np.ndarray:
    """Draw scenes.

    Parameters
    ----------
    scenes : Scenes
    batch_size : int
        Scenes drawn at a time; it changes memory, never a pixel.

    Returns
    -------
    numpy.ndarray, shape (N, 48, 48, 3), uint8
    """
    pictures = np.empty((len(scenes), SIZE, SIZE, 3), dtype=np.uint8)
    for start in range(0, len(scenes), batch_size):
        part = slice(start, start + batch_size)
        pictures[part] = _render_batch(scenes[part])
    return pictures
