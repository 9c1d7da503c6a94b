"""Does a direction that the paper reports hold here too?"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from itertools import product

import pandas as pd

from uwmlib.errors import UwmError
from uwmlib.metrics import Difference, Score, difference_between, label
from uwmlib.paper.values import paper_digits, paper_value

# What was measured, by row; or what gives the difference of two rows: (left row, left key, right row, right key).
Ours = Mapping[str, Mapping[str, Score]] | Callable[[str, str, str, str], Difference | None]

# The paper prints percentages with one decimal, and prints some quantities twice with values 0.1 apart: one
# unit of the last digit, which `noise_of` knows for every score.
PAPER_NOISE = 0.1

HOLDS = "holds"
LEANS_SAME = "leans the same way"
NONE_HERE = "no direction here"
LEANS_OTHER = "leans the other way"
FAILS = "does not hold"
NONE_IN_PAPER = "no direction in the paper"
NOT_MEASURED = "not measured here"

# Up is with the paper, down against it; filled where the interval excludes 0. Readable without colour.
MARKS = {
    HOLDS: "▲",
    LEANS_SAME: "△",
    NONE_HERE: "=",
    LEANS_OTHER: "▽",
    FAILS: "▼",
    NONE_IN_PAPER: "–",
    NOT_MEASURED: "?",
}


@dataclass(frozen=True)
class Direction:
    """`row` minus `base` on score `key` of one of the paper's tables."""

    row: str
    base: str
    key: str
    table: int

    @property
    def paper_difference(self) -> float:
        """The printed difference in the table's unit; NaN where a number is not printed."""
        return round(
            paper_value(self.table, self.row, self.key) - paper_value(self.table, self.base, self.key), 6
        )

    @property
    def digits(self) -> int:
        """Decimals of the printed numbers."""
        return paper_digits(self.table, self.key)


def verdict(
    paper_difference: float | None,
    our_difference: float,
    our_interval: tuple[float, float],
    *,
    noise: float = PAPER_NOISE,
) -> str:
    """Say whether the sign of a difference in the paper is found here.

    Parameters
    ----------
    paper_difference : float or None
        Printed difference in points; None or NaN if it is not printed.
    our_difference : float
        Ours, in points.
    our_interval : (float, float)
        Its paired 95% interval.
    noise : float
        Printed differences up to this size have no direction (some quantities are printed twice, 0.1 apart).

    Returns
    -------
    str
        "holds" or "does not hold" if our interval excludes 0; "leans the same way" or "leans the other way"
        if it includes 0; "no direction here" if ours is exactly 0; "no direction in the paper".

    Raises
    ------
    UwmError
        If our numbers are not finite or the interval does not hold the difference.
    """
    lo, hi = our_interval
    if not (math.isfinite(our_difference) and lo <= our_difference <= hi):  # NaN is in no interval
        raise UwmError(
            f"{our_difference} with interval [{lo}, {hi}] is no measurement: the interval must hold it."
        )
    if paper_difference is None or not abs(paper_difference) > noise + 1e-9:
        return NONE_IN_PAPER
    if our_difference == 0:
        return NONE_HERE
    same = (our_difference > 0) == (paper_difference > 0)
    if lo <= 0 <= hi:
        return LEANS_SAME if same else LEANS_OTHER
    return HOLDS if same else FAILS


def marked(word: str) -> str:
    """A verdict with its mark: "▲ holds"."""
    return f"{MARKS[word]} {word}"


def verdict_table(directions: Iterable[Direction], ours: Ours) -> pd.DataFrame:
    """Verdicts on many directions.

    Parameters
    ----------
    directions : iterable of Direction
    ours : mapping or callable
        Row -> what was measured, or a function (left row, left key, right row, right key) that returns a
        Difference or None.

    Returns
    -------
    DataFrame
        Index: comparison. Columns: paper, here, verdict; differences in points, of Table 5's scores of captions
        in their own unit, 0 to 1.

    Examples
    --------
    >>> from uwmlib.metrics import share_of
    >>> from uwmlib.paper import directions, verdict_table
    >>> ours = {
    ...     "CLIP": {"gs": share_of([False] * 9 + [True])},
    ...     "UWM": {"gs": share_of([True] * 9 + [False])},
    ... }
    >>> verdict_table(directions(1, "CLIP", rows=["UWM"], keys=["gs"]), ours).T
    comparison        UWM − CLIP, GS
    paper                       +3.3
    here        +80.0 [+19.2, +96.4]
    verdict                  ▲ holds
    """
    lines = []
    for direction in directions:
        found = ours_between(ours, direction.row, direction.key, direction.base, direction.key)
        paper, digits = direction.paper_difference, direction.digits
        word = judge(paper, found, digits)
        lines.append(
            {
                "comparison": f"{direction.row} − {direction.base}, {label(direction.key)}",
                "paper": "–" if math.isnan(paper) else f"{paper:+.{digits}f}",
                "here": "–" if found is None else shown(found, digits),
                "verdict": marked(word),
            }
        )
    return pd.DataFrame(lines, columns=["comparison", "paper", "here", "verdict"]).set_index("comparison")


def directions(table: int, base: str, *, rows: Iterable[str], keys: Iterable[str]) -> list[Direction]:
    """Every row against one base on every key: the list that `verdict_table` reads.

    Examples
    --------
    >>> from uwmlib.paper import directions
    >>> for each in directions(1, "CLIP", rows=["CLIP", "UWM"], keys=["ps", "gs"]):
    ...     print(each.row, each.key, each.paper_difference)
    UWM ps 0.3
    UWM gs 3.3
    """
    return [Direction(row, base, key, table) for row, key in product(rows, keys) if row != base]


def judge(paper_difference: float, found: Difference | None, digits: int) -> str:
    if found is None:
        return NOT_MEASURED
    return verdict(paper_difference, found.difference, (found.lo, found.hi), noise=noise_of(digits))


def noise_of(digits: int) -> float:
    """One unit of the last printed digit."""
    return PAPER_NOISE * 10.0 ** (1 - digits)


def ours_between(
    ours: Ours | None, left_row: str, left_key: str, right_row: str, right_key: str
) -> Difference | None:
    """Ours for one pair, from a function or from what was measured; None if it was not."""
    if ours is None:
        return None
    if callable(ours):
        return ours(left_row, left_key, right_row, right_key)
    if left_row not in ours or right_row not in ours:
        return None
    return difference_between(ours[left_row], left_key, ours[right_row], right_key)


def shown(found: Difference, digits: int) -> str:
    """Ours with its interval; scores from 0 to 1 with a decimal more than the paper, so that an interval shows."""
    decimals = 1 if digits == 1 else digits + 1
    difference, lo, hi = (f"{x:+.{decimals}f}" for x in (found.difference, found.lo, found.hi))
    return f"{difference} [{lo}, {hi}]"
