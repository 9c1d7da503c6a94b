"""Seventeen small classification sets that mirror the paper's seventeen in name and spirit.

Every set uses the prompt template of its namesake in the released code. Sixteen are drawn; the seventeenth
(in CIFAR-10's place: ten classes of tiny real images) is the held-out half of scikit-learn's handwritten digits.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from uwmlib.mini.digits import digit_pictures, n_held_out
from uwmlib.mini.grammar import COLOR_NAMES, at_place, with_article
from uwmlib.mini.randomness import Columns
from uwmlib.mini.render import render
from uwmlib.mini.scenes import NONE, STYLES, Scenes, draw_scenes
from uwmlib.mini.vocabulary import BACKGROUNDS, DIGITS, PLACES, SHAPES, SIZES
from uwmlib.mini.worlds import World
from uwmlib.options import known

IMAGES_PER_SET = 480
SMALL, MEDIUM, LARGE = range(len(SIZES))
TEXTURES = tuple(BACKGROUNDS.index(name) for name in ("brick", "checker", "stripes", "dots"))


@dataclass(frozen=True)
class _Plan:
    """How to make a set: which classes, and how a class and a random scene become a picture."""

    about: str
    classes: tuple[str, ...]
    arrange: Callable[[Scenes, np.ndarray], Scenes]
    template: str = "a photo of a {}."


def _alone(scenes: Scenes) -> Scenes:
    return scenes.having(shape2=NONE)


def _grid(first: tuple[str, ...], second: tuple[str, ...], pattern: str = "{} {}") -> tuple[str, ...]:
    return tuple(pattern.format(a, b) for a in first for b in second)


def _colored(shape: str) -> Callable[[Scenes, np.ndarray], Scenes]:
    """Return the arrangement whose class is size (major) and colour (minor) of one fixed shape."""

    def arrange(scenes: Scenes, label: np.ndarray) -> Scenes:
        sized = _alone(scenes).having(size=label // len(COLOR_NAMES))
        return sized.having(shape=SHAPES.index(shape), color=label % len(COLOR_NAMES))

    return arrange


def _either(shapes: tuple[str, str]) -> Callable[[Scenes, np.ndarray], Scenes]:
    """Return the arrangement whose class is one of two shapes (major) and its colour (minor)."""
    numbers = np.array([SHAPES.index(shape) for shape in shapes])

    def arrange(scenes: Scenes, label: np.ndarray) -> Scenes:
        return _alone(scenes).having(shape=numbers[label // len(COLOR_NAMES)], color=label % len(COLOR_NAMES))

    return arrange


def _objects_or_ground(scenes: Scenes, label: np.ndarray) -> Scenes:
    ground = label >= len(SHAPES)
    arranged = _alone(scenes).having(size=LARGE, place=0, shape=np.where(ground, NONE, label))
    return arranged.having(background=np.where(ground, label - len(SHAPES), scenes.background))


def _neighbours(scenes: Scenes, label: np.ndarray) -> Scenes:
    return scenes.having(
        shape=SHAPES.index("cross"), color2=label // len(SHAPES), shape2=label % len(SHAPES)
    )  # fmt: skip


PAIRS = ("star", "heart", "moon", "cross", "house")
PAIR_NUMBERS = np.array([SHAPES.index(name) for name in PAIRS])

PLANS: dict[str, _Plan] = {
    "imagenet": _Plan("twelve shapes", SHAPES, lambda s, k: _alone(s).having(shape=k)),
    "imagenet_v2": _Plan(
        "the same shapes, drawn anew with more jitter and light", SHAPES,
        lambda s, k: _alone(s).having(
            shape=k, shift_x=s.shift_x * 2, shift_y=s.shift_y * 2, brightness=s.brightness * 2
        ),
    ),
    "imagenet_r": _Plan(
        "the same shapes as cartoons on paper", SHAPES,
        lambda s, k: _alone(s).having(shape=k, style=STYLES.index("cartoon")),
    ),
    "imagenet_a": _Plan(
        "the same shapes, small and next to another one", SHAPES,
        lambda s, k: s.having(size=SMALL, shape=k, shape2=(k + 1 + s.noise % 11) % 12),
    ),
    "imagenet_sketch": _Plan(
        "the same shapes as outlines", SHAPES, lambda s, k: _alone(s).having(shape=k, style=STYLES.index("sketch"))
    ),
    "caltech101": _Plan("large shapes, or ground alone", SHAPES + BACKGROUNDS, _objects_or_ground),
    "oxford_pets": _Plan(
        "hearts and houses by colour", _grid(("heart", "house"), COLOR_NAMES, "{1} {0}"), _either(("heart", "house")),
        "a photo of a {}, a type of toy.",
    ),
    "food101": _Plan(
        "circles and rings by colour",
        tuple(with_article(name) for name in _grid(("circle", "ring"), COLOR_NAMES, "{1} {0}")),
        _either(("circle", "ring")), "a photo of {}, a type of snack.",
    ),
    "flowers102": _Plan(
        "stars by size and colour", _grid(SIZES, COLOR_NAMES, "{} {} star"), _colored("star"),
        "a photo of a {}, a type of flower.",
    ),
    "cifar100": _Plan(
        "coarse pixels: shapes by colour", _grid(SHAPES, COLOR_NAMES, "{1} {0}"),
        lambda s, k: _alone(s).having(
            shape=k // len(COLOR_NAMES), color=k % len(COLOR_NAMES), style=STYLES.index("pixels")
        ),
    ),
    "eurosat": _Plan(
        "ground seen from above", BACKGROUNDS, lambda s, k: _alone(s).having(shape=NONE, background=k),
        "a centered satellite photo of {}.",
    ),
    "stanford_cars": _Plan("arrows by size and colour", _grid(SIZES, COLOR_NAMES, "{} {} arrow"), _colored("arrow")),
    "fgvc_aircraft": _Plan(
        "fine-grained: crosses told apart by a small neighbour's colour and shape",
        tuple(f"cross next to {with_article(name)}" for name in _grid(COLOR_NAMES, SHAPES)), _neighbours,
        "a photo of a {}, a type of craft.",
    ),
    "dtd": _Plan(
        "textures", tuple(BACKGROUNDS[i] for i in TEXTURES),
        lambda s, k: _alone(s).having(shape=NONE, background=np.array(TEXTURES)[k]), "a photo of a {} texture.",
    ),
    "sun397": _Plan(
        "scenes: where a circle stands and on what",
        tuple(f"circle {at_place(place)} with {ground}" for place in PLACES for ground in BACKGROUNDS),
        lambda s, k: _alone(s).having(shape=0, place=k // len(BACKGROUNDS), background=k % len(BACKGROUNDS)),
    ),
    "ucf101": _Plan(
        "who stands next to whom", tuple(f"{a} next to {with_article(b)}" for a in PAIRS for b in PAIRS),
        lambda s, k: s.having(size=LARGE, shape=PAIR_NUMBERS[k // 5], shape2=PAIR_NUMBERS[k % 5]),
        "a video of {}.",
    ),
}  # fmt: skip

#: All seventeen, in the order of the paper's Table 2.
NAMES = (
    "imagenet", "imagenet_v2", "imagenet_r", "imagenet_a", "imagenet_sketch", "caltech101", "oxford_pets",
    "food101", "flowers102", "cifar10", "cifar100", "eurosat", "stanford_cars", "fgvc_aircraft", "dtd", "sun397",
    "ucf101",
)  # fmt: skip


def draw_set(name: str, *, world: World) -> dict[str, Any]:
    """Draw one of the seventeen sets; the same bytes on every machine.

    Returns
    -------
    dict
        `about` (str), `images` (uint8 [N, size, size, 3]), `labels` (int64 [N]), `classes` (tuple of str) and
        `template`.

    Raises
    ------
    UwmError
        If there is no set of that name.
    """
    if name == "cifar10":
        return _held_out_digits(world)
    plan = PLANS[known(name, NAMES, "zero-shot set")]
    columns = Columns(seed=world.seed, stream=f"zero-shot/{name}", n=IMAGES_PER_SET)
    labels = np.arange(IMAGES_PER_SET) % len(plan.classes)  # as balanced as can be
    images = render(plan.arrange(draw_scenes(columns, world=world), labels), world=world)
    return _fields(plan.about, images, labels, plan.classes, plan.template)


def _held_out_digits(world: World) -> dict[str, Any]:
    n = n_held_out()
    columns = Columns(seed=world.seed, stream="zero-shot/cifar10", n=n)
    shift = np.stack([columns.integers(-3, 3), columns.integers(-3, 3)], axis=1)
    images, labels = digit_pictures(held_out=True, index=np.arange(n), shift=shift, size=world.size)
    classes = tuple(f"the digit {name}" for name in DIGITS)
    return _fields("real handwritten digits, held out", images, labels, classes, "a photo of {}.")


def _fields(
    about: str, images: np.ndarray, labels: np.ndarray, classes: tuple[str, ...], template: str
) -> dict[str, Any]:
    return {"about": about, "images": images, "labels": labels, "classes": classes, "template": template}
