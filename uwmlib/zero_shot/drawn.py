"""Classification sets that the mini world draws, one for each of the paper's."""

from __future__ import annotations

from uwmlib.mini.worlds import world_of
from uwmlib.mini.zero_shot_sets import NAMES, draw_set
from uwmlib.zero_shot.sets import ZeroShotSet

DRAWN = NAMES  #: in the order of the paper's Table 2


def zero_shot_set(name: str, *, world: str = "mini-visu") -> ZeroShotSet:
    """Draw a set; the same bytes on every machine.

    Parameters
    ----------
    name : str
        One of `DRAWN`.

    Raises
    ------
    UwmError
        If there is no set of that name.

    Examples
    --------
    >>> import uwmlib as uwm
    >>> dtd = uwm.zero_shot_set("dtd")
    >>> dtd.images.shape
    (480, 60, 60, 3)
    >>> dtd.classes
    ('brick', 'checker', 'stripes', 'dots')
    >>> dtd.prompts[0]
    'a photo of a brick texture.'
    """
    return ZeroShotSet(name, **draw_set(name, world=world_of(world)))
