"""Coverage masks of shapes, hazards and backgrounds, computed once from exact arithmetic.

Only additions, products, comparisons and integer operations are used on pixels: no sine, no exponential, no fused
multiply-add. Those differ in the last bit between machines, and one such bit would change the world's hash.
"""

from __future__ import annotations

from functools import cache

import numpy as np

from uwmlib.mini.vocabulary import BACKGROUNDS, CONTAINERS, HAZARDS, SHAPES

CANVAS = (
    120  #: pixels on a side of a sprite: twice the largest picture's, so that it can be pasted at any centre
)
REACH = 34  #: no sprite covers a pixel farther than this from its centre, along either axis
OPAQUE_BITS = 6
OPAQUE = (
    1 << OPAQUE_BITS
)  #: coverage runs from 0 to OPAQUE, so that (colour difference) * coverage fits 16 bits
SUBSAMPLES = 4  #: sub-pixels on a side for anti-aliasing
VARIANTS = 4  #: drawings of each hazard pattern

STAR = (
    (0.0, -1.0), (0.2351, -0.3236), (0.9511, -0.309), (0.3804, 0.1236), (0.5878, 0.809),
    (0.0, 0.4), (-0.5878, 0.809), (-0.3804, 0.1236), (-0.9511, -0.309), (-0.2351, -0.3236),
)  # fmt: skip

#: Sixteen directions on the unit circle, rounded (a table, not math.cos: see the module's docstring).
DIRECTIONS = tuple(
    (x * sx, y * sy)
    for sx, sy in ((1, 1), (-1, 1), (-1, -1), (1, -1))
    for x, y in ((1.0, 0.0), (0.9239, 0.3827), (0.7071, 0.7071), (0.3827, 0.9239))
)


def _polygon(x: np.ndarray, y: np.ndarray, corners: tuple[tuple[float, float], ...]) -> np.ndarray:
    """Tell which points lie inside a polygon (even-odd rule)."""
    inside = np.zeros(np.broadcast_shapes(x.shape, y.shape), dtype=bool)
    for (x0, y0), (x1, y1) in zip(corners, corners[1:] + corners[:1], strict=True):
        if y0 == y1:
            continue
        crosses = (y0 > y) != (y1 > y)
        inside ^= crosses & (x < (x1 - x0) * ((y - y0) / (y1 - y0)) + x0)
    return inside


def _disc(x: np.ndarray, y: np.ndarray, cx: float, cy: float, radius: float) -> np.ndarray:
    return (x - cx) * (x - cx) + (y - cy) * (y - cy) <= radius * radius


def _shape(name: str, x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Tell which points of the unit square [-1, 1]^2 (y downwards) belong to a shape."""
    match name:
        case "circle":
            return _disc(x, y, 0, 0, 0.92)
        case "ring":
            return _disc(x, y, 0, 0, 0.98) & ~_disc(x, y, 0, 0, 0.52)
        case "moon":
            return _disc(x, y, -0.1, 0, 0.95) & ~_disc(x, y, 0.42, -0.12, 0.78)
        case "square":
            return (abs(x) <= 0.8) & (abs(y) <= 0.8)
        case "diamond":
            return abs(x) * 1.3 + abs(y) <= 1.0
        case "triangle":
            return _polygon(x, y, ((0.0, -0.95), (1.0, 0.8), (-1.0, 0.8)))
        case "hourglass":
            return _polygon(x, y, ((-0.75, -0.95), (0.75, -0.95), (-0.75, 0.95), (0.75, 0.95)))
        case "cross":
            return ((abs(x) <= 0.3) & (abs(y) <= 0.95)) | ((abs(y) <= 0.3) & (abs(x) <= 0.95))
        case "star":
            return _polygon(x, y, STAR)
        case "heart":
            lobes = _disc(x, y, -0.46, -0.35, 0.52) | _disc(x, y, 0.46, -0.35, 0.52)
            return lobes | _polygon(x, y, ((-0.93, -0.12), (0.93, -0.12), (0.0, 0.98)))
        case "arrow":
            head = _polygon(x, y, ((0.1, -0.9), (1.0, 0.0), (0.1, 0.9)))
            return head | ((abs(y) <= 0.33) & (x >= -0.98) & (x <= 0.15))
        case "house":
            roof = _polygon(x, y, ((0.0, -1.0), (1.0, -0.1), (-1.0, -0.1)))
            return roof | ((abs(x) <= 0.65) & (y >= -0.12) & (y <= 0.9))
    raise KeyError(name)


def _grid() -> tuple[np.ndarray, np.ndarray]:
    """Return sub-pixel coordinates (x, y) in pixels from the centre of a sprite, within its reach."""
    steps = (np.arange(2 * REACH * SUBSAMPLES, dtype=np.float64) + 0.5) / SUBSAMPLES - REACH
    return steps[None, :], steps[:, None]


def _coverage(inside: np.ndarray) -> np.ndarray:
    """Count covered sub-pixels within reach and pad: bool -> int16 [CANVAS, CANVAS] in 0..OPAQUE."""
    side = 2 * REACH
    inside = np.broadcast_to(inside, (side * SUBSAMPLES, side * SUBSAMPLES))
    blocks = inside.reshape(side, SUBSAMPLES, side, SUBSAMPLES)
    counts = blocks.sum(axis=(1, 3)) * (OPAQUE // SUBSAMPLES**2)
    return np.pad(counts, CANVAS // 2 - REACH).astype(np.int16)


@cache
def shape_sprite(shape: int, radius: int) -> np.ndarray:
    """Return the coverage of a shape of a given radius in pixels, int16 [CANVAS, CANVAS]."""
    x, y = _grid()
    return _coverage(_shape(SHAPES[shape], x / radius, y / radius))


def _triangle_wave(x: np.ndarray, period: float) -> np.ndarray:
    """Return a zigzag of height 1 and the given period, made of exact operations only."""
    phase = x / period - np.floor(x / period)
    return abs(4 * phase - 2) - 1


def _hazard(pattern: str, x: np.ndarray, y: np.ndarray, radius: float, rng: np.random.Philox) -> np.ndarray:
    """Tell which points belong to a hazard pattern drawn around a shape of `radius` pixels."""
    inside = np.zeros(np.broadcast_shapes(x.shape, y.shape), dtype=bool)
    raw = [int(value) for value in rng.random_raw(64)]
    if pattern == "spikes":
        base, tip = radius + 0.5, radius + 7.0
        for index, (dx, dy) in enumerate(DIRECTIONS):
            reach = tip - raw[index] % 3
            corners = (
                (dx * base - dy * 2.4, dy * base + dx * 2.4),
                (dx * base + dy * 2.4, dy * base - dx * 2.4),
                (dx * reach, dy * reach),
            )
            inside |= _polygon(x, y, corners)
    elif pattern == "sparks":
        for index, (dx, dy) in enumerate(DIRECTIONS):
            for ring in range(2):
                distance = radius + 2.5 + 4 * ring + raw[2 * index + ring] % 3
                inside |= _disc(x, y, dx * distance + raw[index] % 3 - 1, dy * distance, 1.25)
    elif pattern == "waves":
        near = _disc(x, y, 0, 0, radius + 8)
        offset = raw[0] % 5
        band = (y + 2 * _triangle_wave(x + raw[1] % 8, 8.0) + offset) / 5.0
        inside = near & ((band - np.floor(band)) < 0.36)
    elif pattern == "rings":
        shift = (raw[0] % 3) * 0.5
        for inner, width in ((radius + 1.5 + shift, 2.0), (radius + 5.5 + shift, 1.6)):
            inside |= _disc(x, y, 0, 0, inner + width) & ~_disc(x, y, 0, 0, inner)
    elif pattern == "blobs":
        for index, (dx, dy) in enumerate(DIRECTIONS[::2]):
            size = 3.2 + raw[index] % 3 * 0.7
            inside |= _disc(x, y, dx * (radius + 2), dy * (radius + 2), size)
            drip = raw[index + 16] % 5
            inside |= (abs(x - dx * (radius + 2)) <= 1.0) & (y >= dy * radius) & (y <= dy * radius + 4 + drip)
    else:
        raise KeyError(pattern)
    return inside


@cache
def hazard_sprite(hazard: int, radius: int, variant: int, reach: float = 1.0) -> np.ndarray:
    """Return the coverage of a hazard around a shape of `radius` pixels, int16 [CANVAS, CANVAS].

    `reach` makes the pattern itself larger, not the shape that it leaves room for.
    """
    pattern = list(HAZARDS.values())[hazard][0]
    x, y = _grid()
    key = (hazard << 16) + (radius << 8) + variant
    rng = np.random.Philox(key=key)
    return _coverage(_hazard(pattern, x / reach, y / reach, radius / reach, rng))


@cache
def container_sprite(container: int, radius: int) -> tuple[np.ndarray, np.ndarray]:
    """Return the coverage of a container of `radius` pixels and of the room within it, int16 [CANVAS, CANVAS] each."""
    x, y = _grid()
    whole, room = _container(list(CONTAINERS)[container], x / radius, y / radius)
    return _coverage(whole), _coverage(room)


def _box(x: np.ndarray, y: np.ndarray, left: float, top: float, right: float, bottom: float) -> np.ndarray:
    return (x >= left) & (x <= right) & (y >= top) & (y <= bottom)


def _container(name: str, x: np.ndarray, y: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Tell which points of [-1, 1]^2 belong to a container, and which of those to the room within it."""
    match name:
        case "jar":
            lid = _box(x, y, -0.62, -1.0, 0.62, -0.7)
            return lid | _box(x, y, -0.86, -0.6, 0.86, 1.0), _box(x, y, -0.7, -0.46, 0.7, 0.86)
        case "frame":
            return _box(x, y, -1.0, -1.0, 1.0, 1.0), _box(x, y, -0.68, -0.68, 0.68, 0.68)
        case "sign":
            post = _box(x, y, -0.14, 0.4, 0.14, 1.0)
            return post | _box(x, y, -1.0, -1.0, 1.0, 0.42), _box(x, y, -0.86, -0.86, 0.86, 0.28)
    raise KeyError(name)


def _paint(light: tuple[int, int, int], dark: tuple[int, int, int], where_dark: np.ndarray) -> np.ndarray:
    return np.where(where_dark[..., None], np.array(dark), np.array(light)).astype(np.int16)


@cache
def background_tile(background: int, phase: int, size: int) -> np.ndarray:
    """Return one drawing of a background, int16 [size, size, 3] in 0..255."""
    name = BACKGROUNDS[background]
    rng = np.random.Philox(key=(background << 8) + phase)
    speckle = rng.random_raw(size * size).reshape(size, size)
    offset_x, offset_y = (int(value % 16) for value in rng.random_raw(2))
    y, x = np.mgrid[0:size, 0:size]
    x, y = x + offset_x, y + offset_y
    match name:
        case "sand":
            return _paint((222, 200, 150), (186, 160, 110), speckle % 7 == 0)
        case "sky":
            tile = _paint((150, 200, 240), (150, 200, 240), x < 0)
            return (tile + (np.arange(size)[:, None, None] * np.array([1, 1, 0])).astype(np.int16)).astype(
                np.int16
            )
        case "grass":
            return _paint((120, 180, 90), (80, 140, 60), (x * 5 + (speckle % 3).astype(np.int64)) % 4 == 0)
        case "brick":
            mortar = (y % 8 == 0) | ((x + 8 * (y // 8 % 2)) % 16 == 0)
            return _paint((170, 105, 85), (205, 195, 185), mortar)
        case "checker":
            return _paint((190, 190, 190), (115, 115, 115), (x // 8 + y // 8) % 2 == 0)
        case "stripes":
            return _paint((240, 225, 205), (165, 135, 150), (x + y) // 5 % 2 == 0)
        case "dots":
            dot = (x % 10 - 5) * (x % 10 - 5) + (y % 10 - 5) * (y % 10 - 5) <= 6
            return _paint((225, 215, 235), (110, 150, 150), dot)
        case "night":
            return _paint((28, 30, 62), (230, 230, 200), speckle % 41 == 0)
    raise KeyError(name)
