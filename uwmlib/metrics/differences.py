"""What changed between models that were measured on the same items, and along a sweep of settings."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from uwmlib.errors import UwmError
from uwmlib.metrics.intervals import mcnemar_exact, mean_of_estimates, tango
from uwmlib.metrics.score import Score, mean_of, measured
from uwmlib.metrics.tensors import as_successes


@dataclass(frozen=True)
class Difference:
    """A difference and its paired 95% interval over `n` shared items, in points or the score's unit.

    Examples
    --------
    >>> from uwmlib.metrics import Difference
    >>> print(Difference(1.5, -0.5, 3.5, n=100))
    +1.5 [-0.5, +3.5]
    """

    difference: float
    lo: float
    hi: float
    n: int | None = None

    def __str__(self) -> str:
        return f"{self.difference:+.1f} [{self.lo:+.1f}, {self.hi:+.1f}]"


@dataclass(frozen=True, kw_only=True)
class PairedDifference(Difference):
    """How a rate changed between two models that answered the same questions.

    Attributes
    ----------
    difference : float
        After minus before, in points (percent).
    lo, hi : float
        Tango's 95% score interval of the difference, in points.
    n : int
        Number of pairs.
    p_value : float
        Exact two-sided McNemar test of "no difference".
    gained, lost : int
        Pairs that only the second, respectively only the first, model gets right.

    Examples
    --------
    >>> from uwmlib.metrics import paired_difference
    >>> before = [False, False, False, True]
    >>> after = [True, True, True, True]
    >>> change = paired_difference(before, after)
    >>> change.difference, change.gained, change.lost, change.p_value
    (75.0, 3, 0, 0.25)
    """

    p_value: float
    gained: int
    lost: int

    def __str__(self) -> str:
        return (
            f"{self.difference:+.1f} points [{self.lo:+.1f}, {self.hi:+.1f}], "
            f"McNemar p = {self.p_value:.2g}, n = {self.n}"
        )


def paired_difference(before: Any, after: Any) -> PairedDifference:
    """Compare two models' successes on the same questions.

    Parameters
    ----------
    before, after : bool array or Tensor [N]
        Success per question; row i of both must belong to the same question.

    Returns
    -------
    PairedDifference

    Raises
    ------
    UwmError
        If they are not boolean [N] of one length N >= 1.

    Examples
    --------
    Six of eight answers change, five of them for the better. A fair coin
    splits six throws at least as unevenly in 14 of 64 cases:

    >>> from uwmlib.metrics import paired_difference
    >>> before = [False, False, False, False, False, True, True, False]
    >>> after = [True, True, True, True, True, False, True, False]
    >>> print(paired_difference(before, after))
    +50.0 points [-10.3, +82.1], McNemar p = 0.22, n = 8
    """
    before, after = as_successes("before", before), as_successes("after", after)
    if len(before) != len(after):
        raise UwmError(
            f"The models answered {len(before)} and {len(after)} tuples: compare on the same ones."
        )
    gained, lost, n = int((after & ~before).sum()), int((before & ~after).sum()), len(before)
    lo, hi = tango(gained, lost, n)
    return PairedDifference(
        difference=100 * (gained - lost) / n,
        lo=100 * lo,
        hi=100 * hi,
        n=n,
        p_value=mcnemar_exact(gained, lost),
        gained=gained,
        lost=lost,
    )


def difference_between(
    left: Mapping[str, Score], left_key: str, right: Mapping[str, Score], right_key: str
) -> Difference | None:
    """Return left minus right, two scores of the same items, with the paired 95% interval.

    Success rates, in points: Tango's score interval. Scores per item, in their own unit: the normal interval of
    the mean of the items' differences. Means over data sets: the differences of the data sets, combined as
    `mean_of_estimates` says.

    Parameters
    ----------
    left, right : mapping of name to Score
        What was measured for the two rows, on the same items in the same order.
    left_key, right_key : str

    Returns
    -------
    Difference or None
        None if either side was not measured, or without its items.

    Raises
    ------
    UwmError
        If the two sides were not measured on equally many items or on the same data sets, or an item's score is
        not finite.

    Examples
    --------
    >>> from uwmlib.metrics import difference_between, share_of
    >>> base = {"gs": share_of([False, False, False, True])}
    >>> edited = {"gs": share_of([True, True, False, True])}
    >>> print(difference_between(edited, "gs", base, "gs"))
    +50.0 [-23.5, +85.0]

    What was not measured has no difference:

    >>> print(difference_between(edited, "ps", base, "ps"))
    None
    """
    a, b = (_items(measured(*side)) for side in ((left, left_key), (right, right_key)))
    if not a or not b:
        return None
    if a.keys() != b.keys():
        raise UwmError(
            f"{left_key} and {right_key} were not measured on the same data sets: compare like with like."
        )
    if len({items.dtype for items in (*a.values(), *b.values())}) > 1:  # successes against scores
        return None
    found = [_paired(b[name], a[name]) for name in a]
    mean, (lo, hi) = mean_of_estimates([(part.difference, (part.lo, part.hi)) for part in found])
    return Difference(mean, lo, hi, sum(part.n for part in found))


def change_along(points: Sequence[Mapping[str, Score]], key: str) -> Difference:
    """Return how much a rate changes from the first point of a sweep to the last, by a straight line through all.

    Every item has its own least-squares line through its outcomes, the points equally far apart; the change is
    the mean over items and its interval is the normal one over items. So it is paired, and it uses all points
    where a difference of the two ends would use two.

    Parameters
    ----------
    points : sequence of mappings of name to Score
        What was measured along the sweep, on the same items in the same order.
    key : str

    Returns
    -------
    Difference
        In points.

    Raises
    ------
    UwmError
        If there are fewer than two points, or the items of one are unknown or not as many as the others'.

    Examples
    --------
    Two of four items come to succeed, one sooner and one later. The line of
    each rises by 1 from end to end, so the mean change is 50 points:

    >>> from uwmlib.metrics import change_along, share_of
    >>> sweep = [
    ...     {"gs": share_of([False, False, False, False])},
    ...     {"gs": share_of([True, False, False, False])},
    ...     {"gs": share_of([True, True, False, False])},
    ... ]
    >>> print(change_along(sweep, "gs"))
    +50.0 [-6.6, +106.6]
    """
    if len(points) < 2:
        raise UwmError(f"A sweep of {len(points)} points has no direction: give at least two.")
    scores = [measured(point, key) for point in points]
    if any(score is None or score.items is None or score.items.dtype != bool for score in scores):
        raise UwmError(f"{key} lacks one outcome per item somewhere on the sweep: measure it at every point.")
    rows = [score.items for score in scores]
    if len({len(row) for row in rows}) > 1:
        raise UwmError(f"{key} was not measured on equally many items along the sweep: use the same items.")
    along = np.arange(len(rows)) - (len(rows) - 1) / 2
    weights = along * (len(rows) - 1) / (along**2).sum()
    return _mean_change(100 * weights @ np.stack(rows).astype(float))


def _items(score: Score | None) -> dict[str, np.ndarray]:
    """Return the items by data set, one nameless set for a score that is no mean over sets; empty if unknown."""
    parts = {} if score is None else dict(score.parts) or {"": score}
    known = {name: part.items for name, part in parts.items() if part.items is not None}
    return known if len(known) == len(parts) else {}


def _paired(before: np.ndarray, after: np.ndarray) -> Difference:
    if before.dtype == bool:
        return paired_difference(before, after)
    if len(before) != len(after):
        raise UwmError(
            f"Scores of {len(before)} and {len(after)} items cannot be paired: measure both on the same items."
        )
    return _mean_change(after - before)


def _mean_change(changes: np.ndarray) -> Difference:
    """Return the mean of the items' changes; one item has no spread, so its interval excludes nothing."""
    mean = mean_of(changes)
    lo, hi = mean.interval or (-math.inf, math.inf)
    return Difference(mean.value, lo, hi, mean.n)
