"""Classification sets that the mini world draws, one for each of the paper's."""

from __future__ import annotations

from uwmlib.mini.zero_shot_sets import NAMES, draw_set
from uwmlib.zero_shot.sets import ZeroShotSet

DRAWN = NAMES  #: in the order of the paper's Table 2


def zero_shot_set(name: str) -> ZeroShotSet:
    """Draw a set; the same bytes on every machine.

    Parameters
    ----------
    name : str
        One of `DRAWN`.

    Raises
    ------
    UwmError
        If there is no set of that name.
    """
    return ZeroShotSet(name, **draw_set(name))
