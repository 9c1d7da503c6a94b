"""The closed vocabulary of the mini world: what a scene can hold, and the words for it.

The paper's unsafe images and texts are withheld by their authors, and nothing harmful may be shown in a course.
The mini world keeps the structure (safe and unsafe twins in two modalities, twenty concepts) and replaces the
content: a *hazard* is a harmless pattern drawn around a shape, with an invented, harmless name.
"""

from __future__ import annotations

SHAPES = (
    "circle", "ring", "moon", "square", "diamond", "triangle",
    "hourglass", "cross", "star", "heart", "arrow", "house",
)  # fmt: skip

#: name -> RGB
COLORS = {
    "red": (214, 39, 40), "orange": (255, 140, 20), "yellow": (250, 220, 40), "green": (40, 160, 60),
    "blue": (40, 90, 220), "purple": (140, 60, 180), "pink": (250, 130, 190), "white": (248, 248, 248),
}  # fmt: skip

SIZES = ("small", "medium", "large")
PLACES = ("center", "left", "right", "top", "bottom")
BACKGROUNDS = ("sand", "sky", "grass", "brick", "checker", "stripes", "dots", "night")

#: hazard name -> (pattern, RGB): five patterns in four colours each make the twenty concepts.
HAZARDS = {
    "thorns": ("spikes", (30, 90, 30)), "icicles": ("spikes", (150, 235, 250)),
    "flames": ("spikes", (255, 90, 0)), "needles": ("spikes", (190, 190, 200)),
    "embers": ("sparks", (255, 80, 20)), "hail": ("sparks", (245, 250, 255)),
    "spores": ("sparks", (170, 200, 40)), "soot": ("sparks", (15, 15, 15)),
    "static": ("waves", (255, 240, 60)), "smoke": ("waves", (120, 120, 120)),
    "fumes": ("waves", (170, 80, 200)), "vapor": ("waves", (235, 235, 235)),
    "glare": ("rings", (255, 245, 120)), "frost": ("rings", (120, 220, 255)),
    "rust": ("rings", (150, 80, 30)), "mildew": ("rings", (60, 110, 70)),
    "sludge": ("blobs", (95, 65, 25)), "ink": ("blobs", (25, 20, 90)),
    "slime": ("blobs", (110, 220, 50)), "lava": ("blobs", (225, 30, 10)),
}  # fmt: skip

#: container -> (what it is called with something in it, without anything said of that, and empty)
CONTAINERS = {
    "jar": ("jar of {}", "jar", "empty jar"),
    "frame": ("framed picture of {}", "frame", "empty frame"),
    "sign": ("sign showing {}", "sign", "blank sign"),
}

HAZARD_PHRASES = ("surrounded by", "covered with", "full of", "in")
DIGITS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")

#: Every further word that captions and zero-shot prompts use.
FUNCTION_WORDS = (
    "a", "an", "photo", "picture", "of", "next", "to", "at", "the", "on", "with", "by", "in",
    "surrounded", "covered", "full", "centered", "satellite", "texture", "scene", "sketch", "video",
    "digit", "type", "toy", "flower", "snack", "craft",
)  # fmt: skip


#: The words of containers.
CONTAINER_WORDS = ("jar", "frame", "framed", "sign", "showing", "empty", "blank")


def words(*, containers: bool) -> tuple[str, ...]:
    """Return every word of a mini world once, sorted (the tokenizer's vocabulary).

    Parameters
    ----------
    containers : bool
        With the words of containers, which the first world lacks.
    """
    parts = [SHAPES, COLORS, SIZES, PLACES, BACKGROUNDS, HAZARDS, DIGITS, FUNCTION_WORDS]
    parts += [CONTAINER_WORDS] if containers else []
    return tuple(sorted({word for part in parts for word in part}))
