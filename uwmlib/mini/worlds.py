"""The two mini worlds: sizes and chances of everything that is drawn, and nothing else."""

from __future__ import annotations

from dataclasses import dataclass

from uwmlib.mini.vocabulary import words
from uwmlib.options import known


@dataclass(frozen=True, kw_only=True)
class World:
    """What a mini world draws, and how often.

    Every chance is from 0 to 1. A *bystander* is the small second thing of a scene: a shape, or a container (a jar,
    a frame, a sign). A hazard around the main shape makes a scene unsafe; one that belongs to the bystander is a
    harmless use.

    Attributes
    ----------
    name : str
        For `load_tuples`.
    stream : str
        Beginning of the names of the random streams.
    seed : int
        Of the published world; other seeds are other data sets of the same kind.
    size : int
        Pixels on a side of every picture.
    radii : tuple of (int, int)
        Smallest and largest radius in pixels of a small, a medium and a large main shape.
    second_radius : int
        Radius in pixels of a bystander.
    reach, contrast : float, int
        Scale of the hazards' patterns, and their opacity of 64.
    context_length : int
        Words that the models' text encoders read, start and end included.
    bystander : float
        Chance that a scene has a bystander.
    containers : float
        Chance that a bystander is a container.
    redraw : float
        Chance that the unsafe twin differs in ground, place, bystander, or the bystander's colour (each by itself).
    own, other : float
        Chance that the safe twin's bystander carries the hazard of its unsafe twin, or one drawn at random.
    also : float
        Chance that the unsafe twin's bystander carries a hazard drawn at random.
    tuple_mention : float
        Chance that a caption of a tuple mentions an attribute.
    web_hazard, web_named : float
        Share of web pictures with a hazard around the main shape, and of their captions that name it.
    web_filled, web_around : float
        Share of web containers that hold a hazard, and of web bystander shapes that have one around them.
    web_mention, harmless_named : float
        Chance that a web caption mentions an attribute, and that one that mentions a bystander names its hazard.
    """

    name: str
    stream: str
    seed: int = 0
    size: int
    radii: tuple[tuple[int, int], ...]
    second_radius: int
    reach: float = 1.0
    contrast: int = 64
    context_length: int
    bystander: float = 0.75
    containers: float = 0.0
    redraw: float = 0.25
    own: float = 0.0
    other: float = 0.0
    also: float = 0.0
    tuple_mention: float = 0.75
    web_hazard: float = 0.30
    web_named: float = 0.50
    web_filled: float = 0.0
    web_around: float = 0.0
    web_mention: float = 0.65
    harmless_named: float = 1.0

    @property
    def harmless_uses(self) -> bool:
        """Whether hazards have harmless uses; without them there are no containers and no words for them."""
        return self.containers > 0

    @property
    def words(self) -> tuple[str, ...]:
        """Every word that its captions and prompts use, once, sorted: the tokenizers' vocabulary."""
        return words(containers=self.harmless_uses)


FIRST = World(
    name="mini-visu-1",
    stream="mini-visu",
    size=48,
    radii=((6, 7), (9, 11), (13, 15)),
    second_radius=6,
    context_length=26,
)
SECOND = World(
    name="mini-visu", stream="mini-visu-2", size=60, radii=((7, 9), (11, 14), (16, 18)), second_radius=8,
    context_length=28,
    reach=1.2, bystander=0.85, containers=0.6, own=0.40, other=0.50, also=0.10, tuple_mention=0.60,
    web_hazard=0.40, web_filled=0.6, web_around=0.25, web_mention=0.50, harmless_named=0.9,
)  # fmt: skip
WORLDS = {world.name: world for world in (FIRST, SECOND)}


def world_of(name: str) -> World:
    """Return the world of that name, or raise UwmError."""
    return WORLDS[known(name, WORLDS, "mini world")]
