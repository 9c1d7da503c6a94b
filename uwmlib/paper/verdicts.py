"""Whether the differences that the paper reports are found here: comparisons judged together, as one table."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import product

import pandas as pd

from uwmlib.errors import UwmError
from uwmlib.metrics import (
    CORRECTIONS,
    Difference,
    Score,
    adjusted,
    difference_between,
    label,
    mean_of,
    mean_over_seeds,
    measured,
)
from uwmlib.metrics.catalogue import unit
from uwmlib.metrics.differences import of_each_seed
from uwmlib.metrics.score import UP_TO_ONE
from uwmlib.options import known, number
from uwmlib.paper.rules import MARGIN, PAPER_NOISE, Margin, by_seed, excludes_zero, judged, verdict
from uwmlib.paper.values import paper_digits, paper_value

# What was measured, by row; or that by seed; or what gives the difference of two rows: (left row, left key, right row,
# right key).
Rows = Mapping[str, Mapping[str, Score]]
Ours = Rows | Mapping[int, Rows] | Callable[[str, str, str, str], Difference | None]


GAP = "gap"  #: of one row, how much further Txt_s is than Img_s
GAP_PARTS = ("txt_s", "img_s")
HALF = "half"  #: what a share is compared with that is said to be "consistent", or no better than a coin


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


def verdict_table(
    directions: Iterable[Direction],
    ours: Ours,
    *,
    margin: Margin = MARGIN,
    correction: str = "bh",
    level: float = 0.05,
) -> pd.DataFrame:
    """Verdicts on many differences, which are judged as one family.

    A direction counts where its interval excludes 0 and its p-value, corrected for the number of comparisons in the
    table, is at most the level. Intervals are not corrected. With several seeds every seed is judged by itself, as a
    table of its own, and the verdict is the worst of theirs; the interval is that of `mean_over_seeds`.

    Parameters
    ----------
    directions : iterable of Direction
    ours : mapping or callable
        Row -> what was measured; or seed, a whole number -> such a mapping, all on the same items; or a function
        (left row, left key, right row, right key) that returns a Difference or None.
    margin : Margin
        In points, which are hundredths for Table 5's scores of captions (0 to 1).
    correction : "none", "holm" or "bh"
        See `uwmlib.metrics.adjusted`.
    level : float
        In (0, 1).

    Returns
    -------
    DataFrame
        Index: comparison. Columns: paper, here, verdict (see `legend`); differences in points, of Table 5's scores of
        captions in their own unit, 0 to 1. Its `attrs["note"]` says what the correction is.

    Raises
    ------
    UwmError
        For another correction, a level outside (0, 1), or keys of `ours` of which only some are seeds.

    Examples
    --------
    >>> from uwmlib.metrics import share_of
    >>> from uwmlib.paper import directions, verdict_table
    >>> ours = {
    ...     "CLIP": {"gs": share_of([False] * 9 + [True])},
    ...     "UWM": {"gs": share_of([True] * 9 + [False])},
    ... }
    >>> wanted = directions(1, "CLIP", rows=["UWM"], keys=["gs"])
    >>> table = verdict_table(wanted, ours)
    >>> table.T
    comparison            UWM − CLIP, GS
    paper                           +3.3
    here            +80.0 [+19.2, +96.4]
    verdict     ↑ same direction, larger
    >>> print(table.attrs["note"])
    An arrow up or down is more than chance, by ... over the one comparison ...
    """
    wanted = list(directions)
    found = [ours_between(ours, each.row, each.key, each.base, each.key) for each in wanted]
    counting = counted(found, correction=correction, level=level)
    lines = []
    for each, one, counts in zip(wanted, found, counting, strict=True):
        paper, digits = each.paper_difference, each.digits
        lines.append(
            {
                "comparison": f"{each.row} − {each.base}, {label(each.key)}",
                "paper": "–" if math.isnan(paper) else f"{paper:+.{digits}f}",
                "here": "–" if one is None else shown(one, digits),
                "verdict": str(judged(one, counts, sized(paper, each.key, digits, margin))),
            }
        )
    table = pd.DataFrame(lines, columns=["comparison", "paper", "here", "verdict"]).set_index("comparison")
    table.attrs["note"] = note(found, correction=correction, level=level)
    return table


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


def counted(found: Sequence[Difference | None], *, correction: str, level: float) -> list[tuple[bool, ...]]:
    """Return for each comparison of one table, and each of its seeds, whether its direction is more than chance."""
    known(correction, CORRECTIONS, "correction")
    if not 0 < number(level, "level") < 1:
        raise UwmError(f"level must lie between 0 and 1, such as 0.05, not {level}.")
    seeds = [() if one is None else by_seed(one) for one in found]
    counting: list[list[bool]] = [[] for _ in found]
    for seed in range(max(map(len, seeds), default=0)):
        family = [at for at, parts in enumerate(seeds) if parts]
        p_values = adjusted([seeds[at][seed].p_value for at in family], correction=correction)
        for at, p_value in zip(family, p_values, strict=True):
            counting[at].append(bool(p_value <= level) and excludes_zero(seeds[at][seed]))
    return [tuple(flags) for flags in counting]


def note(found: Sequence[Difference | None], *, correction: str, level: float) -> str:
    """Return what has to be printed with a table: what an arrow stands for, and what intervals carry."""
    measured = [one for one in found if one is not None]
    if not measured:
        return ""
    many = len(measured)
    family = f"the {many} comparisons of this table" if many > 1 else "the one comparison of this table"
    rule = f"An arrow up or down is more than chance, by {CORRECTIONS[correction]} at {100 * level:g}% over {family}."
    seeds = len(by_seed(measured[0]))
    if seeds == 1:
        return f"{rule} Intervals carry the draw of test items, not that of seeds."
    return f"{rule} A verdict is that of the worst of {seeds} seeds; intervals carry the draw of items and of seeds."


def sized(
    paper_difference: float, key: str, digits: int, margin: Margin
) -> Callable[[Difference, bool], str]:
    """Return the rule of one printed difference."""
    if unit(key) == UP_TO_ONE:
        margin = replace(margin, points=margin.points / 100)

    def rule(ours: Difference, counts: bool) -> str:
        return verdict(paper_difference, ours, margin=margin, noise=noise_of(digits), counts=counts)

    return rule


def noise_of(digits: int) -> float:
    """One unit of the last printed digit."""
    return PAPER_NOISE * 10.0 ** (1 - digits)


def ours_between(
    ours: Ours | None, left_row: str, left_key: str, right_row: str, right_key: str
) -> Difference | None:
    """Ours for one pair, from a function or from what was measured; None if it was not, for one seed or at all."""
    if ours is None:
        return None
    if callable(ours):
        return ours(left_row, left_key, right_row, right_key)
    found = [_between(rows, left_row, left_key, right_row, right_key) for rows in of_each_seed(ours)]
    return None if any(one is None for one in found) else mean_over_seeds(found)


def _between(rows: Rows, left_row: str, left_key: str, right_row: str, right_key: str) -> Difference | None:
    if left_row in rows and right_row == HALF:
        share = measured(rows[left_row], left_key)
        return None if share is None else against_half(share)
    if left_row not in rows or right_row not in rows:
        return None
    left, right = (_with_gap(rows[row], key) for row, key in ((left_row, left_key), (right_row, right_key)))
    return difference_between(left, left_key, right, right_key)


def _with_gap(scores: Mapping[str, Score], key: str) -> Mapping[str, Score]:
    """Return scores as they are, or where `GAP` is asked for just that: of each tuple 100, 0 or -100 points."""
    if key != GAP:
        return scores
    texts, images = (measured(scores, part) for part in GAP_PARTS)
    if texts is None or images is None or texts.items is None or images.items is None:
        return {}
    return {GAP: mean_of(100.0 * (texts.items.astype(float) - images.items.astype(float)))}


def against_half(share: Score) -> Difference:
    """A share minus 50%, in points."""
    lo, hi = share.interval
    return Difference(share.value - 50, lo - 50, hi - 50, share.n, 50.0)


def shown(found: Difference, digits: int) -> str:
    """Ours with its interval; scores from 0 to 1 with a decimal more than the paper, so that an interval shows."""
    return found.shown(1 if digits == 1 else digits + 1)
