"""What changed between models that were measured on the same items, and along a sweep of settings."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from statistics import fmean, variance
from typing import Any

import numpy as np

from uwmlib.errors import UwmError
from uwmlib.metrics.intervals import Z95, mcnemar_exact, mean_of_estimates, tango
from uwmlib.metrics.score import Score, mean_of, measured
from uwmlib.metrics.tensors import as_successes
from uwmlib.options import is_whole


@dataclass(frozen=True)
class Difference:
    """A difference and its paired 95% interval over `n` shared items, in points or the score's unit.

    Two are equal where difference, limits and `n` are.

    Attributes
    ----------
    difference : float
        Left minus right, or after minus before.
    lo, hi : float
        95% limits.
    n : int or None
        Number of shared items.
    base : float or None
        The score on the right side, from which the difference is counted; None where it is not known.
    p_value : float
        Two-sided test of "no difference", in [0, 1]. Where none is given, the normal one that the limit on the side
        of zero stands for: z is 1.96 times the difference over its distance from that limit.

    Examples
    --------
    >>> from uwmlib.metrics import Difference
    >>> found = Difference(1.5, -0.5, 3.5, n=100)
    >>> print(found, f"p = {found.p_value:.2f}")
    +1.5 [-0.5, +3.5] p = 0.14
    """

    difference: float
    lo: float
    hi: float
    n: int | None = None
    base: float | None = field(default=None, compare=False)
    p_value: float | None = field(default=None, compare=False)

    def __post_init__(self) -> None:
        if self.p_value is None:
            towards_zero = self.difference - self.lo if self.difference > 0 else self.hi - self.difference
            z = Z95 * _ratio(abs(self.difference), towards_zero)
            object.__setattr__(self, "p_value", math.erfc(z / math.sqrt(2)))

    def __str__(self) -> str:
        return self.shown(1)

    def shown(self, decimals: int) -> str:
        """Return it with its interval, signs written, as in "+1.2 [-0.3, +2.7]"."""
        value, lo, hi = (f"{x:+.{decimals}f}" for x in (self.difference, self.lo, self.hi))
        return f"{value} [{lo}, {hi}]"


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

    p_value: float = field(compare=False)
    gained: int
    lost: int

    def __str__(self) -> str:
        return (
            f"{self.difference:+.1f} points [{self.lo:+.1f}, {self.hi:+.1f}], "
            f"McNemar p = {self.p_value:.2g}, n = {self.n}"
        )


@dataclass(frozen=True)
class SeedDifference(Difference):
    """The mean of one difference over several seeds (see `mean_over_seeds`).

    Attributes
    ----------
    difference, lo, hi, n, base, p_value
        As in `Difference`, of the mean.
    by_seed : tuple of Difference
        That of each seed.

    Examples
    --------
    >>> from uwmlib.metrics import Difference, mean_over_seeds
    >>> found = mean_over_seeds([Difference(x, x - 1, x + 1) for x in (4.0, 6.0)])
    >>> for one in found.by_seed:
    ...     print(one)
    +4.0 [+3.0, +5.0]
    +6.0 [+5.0, +7.0]
    """

    by_seed: tuple[Difference, ...] = field(default=(), kw_only=True)


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
        base=100 * int(before.sum()) / n,
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
    p_value = found[0].p_value if len(found) == 1 else None
    return Difference(mean, lo, hi, sum(part.n for part in found), measured(right, right_key).value, p_value)


def mean_over_seeds(differences: Sequence[Difference]) -> Difference:
    """Return the mean of one difference over several seeds, with an interval for a new seed *and* new items.

    The seeds (of training, of calibration) were measured on the *same* items, so what the draw of items does to all
    of them does not average out over seeds. With k seeds, S^2 the variance of their differences and W the mean square
    of their own standard errors over items (the distance from a limit, over 1.96, for each side by itself), the
    squared standard error of the mean is

        S^2 / k + W,

    in which the items' part is counted in full, as if it were common to all seeds. That is never too little; where it
    is not common at all and the seeds do not differ, the interval is sqrt(1 + k) times as wide as it need be. (W / k,
    for items drawn anew for every seed, would be too little.) The limits are t quantiles with the degrees of freedom
    of Satterthwaite, (k - 1) (1 + k W / S^2)^2: k - 1 where seeds make all of the spread, without end where items do.

    Parameters
    ----------
    differences : sequence of Difference, at least one
        The same comparison, one a seed, on the same items.

    Returns
    -------
    Difference
        Of one seed its own, whose interval is for new items only; else a `SeedDifference`.

    Raises
    ------
    UwmError
        If there is none, or they were not measured on equally many items.

    Examples
    --------
    Three seeds agree on a gain that each knows to one point; the interval of
    their mean has to allow for a fourth seed as well:

    >>> from uwmlib.metrics import Difference, mean_over_seeds
    >>> seeds = [Difference(x, x - 1, x + 1) for x in (4.0, 5.0, 6.0)]
    >>> found = mean_over_seeds(seeds)
    >>> print(found, f"p = {found.p_value:.4f}")
    +5.0 [+3.1, +6.9] p = 0.0005
    """
    if not differences:
        raise UwmError("No seed was measured: give the difference of at least one.")
    if len({one.n for one in differences}) > 1:
        raise UwmError(
            "The seeds were not measured on equally many items: use the same items for all of them."
        )
    if len(differences) == 1:
        return differences[0]
    values, bases = [one.difference for one in differences], [one.base for one in differences]
    mean, between = fmean(values), variance(values) / len(values)
    below = _with_items([one.difference - one.lo for one in differences], between)
    above = _with_items([one.hi - one.difference for one in differences], between)
    return SeedDifference(
        mean,
        mean - below.half_width(),
        mean + above.half_width(),
        differences[0].n,
        None if None in bases else fmean(bases),
        (below if mean > 0 else above).p_value(mean),
        by_seed=tuple(differences),
    )


def of_each_seed(rows: Mapping[Any, Any]) -> list[Mapping[str, Any]]:
    """Return the rows of every seed of a mapping of seed to rows; rows alone are those of one.

    Raises
    ------
    UwmError
        If only some of the keys are seeds.
    """
    seeds = [key for key in rows if is_whole(key)]
    if seeds and len(seeds) < len(rows):
        raise UwmError(
            f"{seeds[0]} is a seed among rows: give rows by name, or a mapping of rows for every seed."
        )
    return list(rows.values()) if seeds else [rows]


@dataclass(frozen=True)
class SeedError:
    """A standard error over seeds and items, and its degrees of freedom."""

    error: float
    freedom: float

    @classmethod
    def of(cls, between: float, items: float, k: int) -> SeedError:
        """Add the squared error that comes from items to that of the mean of k seeds (Satterthwaite)."""
        freedom = (k - 1) * ((between + items) / between) ** 2 if between else math.inf
        return cls(math.sqrt(between + items), freedom)

    def half_width(self) -> float:
        """Return half the width of the 95% interval."""
        if math.isinf(self.freedom):
            return self.error * Z95
        from scipy.stats import t  # here, because it takes a second to load

        return self.error * float(t.ppf(0.975, self.freedom))

    def p_value(self, mean: float) -> float:
        from scipy.stats import t

        return 2 * float(t.sf(_ratio(abs(mean), self.error), self.freedom))


def _with_items(distances: Sequence[float], between: float) -> SeedError:
    """Add what the draw of items does, from the seeds' distances to one of their limits, to what seeds do."""
    return SeedError.of(between, fmean((distance / Z95) ** 2 for distance in distances), len(distances))


def _ratio(size: float, error: float) -> float:
    """Return size over error; nothing is no times anything, and something endlessly often nothing."""
    if size == 0:
        return 0.0
    return size / error if error else math.inf


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
