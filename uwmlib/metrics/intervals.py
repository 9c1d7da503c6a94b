"""How far a rate can be trusted: Wilson, Tango and bootstrap intervals, and the exact McNemar test."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from statistics import NormalDist

import torch
from torch import Tensor

from uwmlib.errors import UwmError
from uwmlib.metrics.tensors import as_successes, as_tensor
from uwmlib.options import is_whole, number


@dataclass(frozen=True)
class PairedDifference:
    """How a rate changed between two models that answered the same questions.

    Attributes
    ----------
    difference : float
        After minus before, in points (percent).
    lo, hi : float
        Tango's score interval of the difference, in points.
    p_value : float
        Exact two-sided McNemar test of "no difference".
    n : int
        Number of pairs.
    gained, lost : int
        Pairs that only the second, respectively only the first, model gets right.
    """

    difference: float
    lo: float
    hi: float
    p_value: float
    n: int
    gained: int
    lost: int

    def __str__(self) -> str:
        return (
            f"{self.difference:+.1f} points [{self.lo:+.1f}, {self.hi:+.1f}], "
            f"McNemar p = {self.p_value:.2g}, n = {self.n}"
        )


@dataclass(frozen=True)
class Bootstrap:
    """A statistic with its resampled spread; every field has the shape the statistic returns.

    Attributes
    ----------
    estimate : Tensor
        The statistic of the values as they are.
    lo, hi : Tensor
        Percentile interval.
    se : Tensor
        Standard deviation over the resamples.
    """

    estimate: Tensor
    lo: Tensor
    hi: Tensor
    se: Tensor


def wilson(k: int, n: int, level: float = 0.95) -> tuple[float, float]:
    """Return Wilson's score interval of a binomial rate.

    Unlike "rate plus or minus two standard errors" it keeps its level near 0 and 1, where SafeGround's joint
    scores live, and never leaves [0, 1].

    Parameters
    ----------
    k, n : int
        Successes and trials, 0 <= k <= n, n >= 1.
    level : float
        Coverage, in (0, 1).

    Returns
    -------
    lo, hi : float
        Fractions in [0, 1].

    Raises
    ------
    UwmError
        If the counts or the level are impossible.
    """
    k, n = check_counts(k=k, n=n)
    z = _two_sided_z(level)
    rate = k / n
    centre = (rate + z * z / (2 * n)) / (1 + z * z / n)
    half = z * math.sqrt(rate * (1 - rate) / n + z * z / (4 * n * n)) / (1 + z * z / n)
    # At 0 and n the limits are 0 and 1 exactly; rounding must not move them off.
    return (0.0 if k == 0 else centre - half), (1.0 if k == n else centre + half)


def mcnemar_exact(n01: int, n10: int) -> float:
    """Return the exact two-sided p-value of McNemar's test.

    Parameters
    ----------
    n01, n10 : int
        Pairs on which only the second, respectively only the first, of two models succeeds. Pairs on which
        they agree say nothing about the difference.

    Returns
    -------
    float
        Probability that a fair coin splits `n01 + n10` throws at least as unevenly; 1 without a disagreement.

    Raises
    ------
    UwmError
        If a count is negative or no whole number.
    """
    n01, n10 = _check_disagreements(n01, n10)
    throws = n01 + n10
    ways, tail = 1, 1  # of k heads; of at most k heads, as whole numbers
    for k in range(min(n01, n10)):
        ways = ways * (throws - k) // (k + 1)
        tail += ways
    return min(1.0, 2 * tail / 2**throws)


def tango(n01: int, n10: int, n: int, level: float = 0.95) -> tuple[float, float]:
    """Return Tango's score interval of a paired difference of rates.

    It holds the differences that a score test would not reject (Statistics in Medicine 17, 1998, 891-908), so
    it excludes 0 exactly when McNemar's asymptotic test does, and stays wide enough where few pairs disagree.

    Parameters
    ----------
    n01, n10 : int
        Pairs on which only the second, respectively only the first, model succeeds.
    n : int
        All pairs.
    level : float
        Coverage, in (0, 1).

    Returns
    -------
    lo, hi : float
        Limits of (rate of the second) - (rate of the first), fractions in [-1, 1].

    Raises
    ------
    UwmError
        If the counts or the level are impossible.
    """
    n01, n10 = _check_disagreements(n01, n10)
    _, n = check_counts(k=n01 + n10, n=n)
    z = _two_sided_z(level)
    estimate = (n01 - n10) / n
    return (
        _tango_limit(n01, n10, n, z, inside=estimate, outside=-1.0),
        _tango_limit(n01, n10, n, z, inside=estimate, outside=1.0),
    )


def paired_difference(before: Tensor, after: Tensor, *, level: float = 0.95) -> PairedDifference:
    """Compare two models' successes on the same questions.

    Parameters
    ----------
    before, after : Tensor, shape [N], bool
        Success per question; row i of both must belong to the same question.
    level : float
        Coverage of Tango's interval.

    Returns
    -------
    PairedDifference

    Raises
    ------
    UwmError
        If they are not boolean [N] of one length N >= 1.
    """
    before, after = as_successes("before", before), as_successes("after", after)
    if len(before) != len(after):
        raise UwmError(
            f"The models answered {len(before)} and {len(after)} tuples: compare on the same ones."
        )
    gained, lost, n = int((after & ~before).sum()), int((before & ~after).sum()), len(before)
    lo, hi = tango(gained, lost, n, level)
    return PairedDifference(
        difference=100 * (gained - lost) / n,
        lo=100 * lo,
        hi=100 * hi,
        p_value=mcnemar_exact(gained, lost),
        n=n,
        gained=gained,
        lost=lost,
    )


def bootstrap(
    values: Tensor,
    statistic: Callable[[Tensor], Tensor],
    *,
    generator: torch.Generator,
    n_resamples: int = 2000,
    level: float = 0.95,
) -> Bootstrap:
    """Resample rows with replacement and return the percentile interval of a statistic.

    Parameters
    ----------
    values : Tensor, shape [N, ...]
        One row per independent unit: a tuple's booleans stay together.
    statistic : callable
        Maps values [N, ...] to a tensor of fixed shape.
    generator : torch.Generator
        Source of the resamples (on the CPU).
    n_resamples : int
        At least 2.
    level : float
        Coverage, in (0, 1).

    Returns
    -------
    Bootstrap

    Raises
    ------
    UwmError
        If there is no row, `n_resamples` is below 2, the level is impossible, the generator is none, a value is NaN
        or infinite, or the statistic is so for some resample or changes its shape.
    """
    values = as_tensor("values", values)
    n = len(values) if values.ndim else 0
    if n == 0 or not is_whole(n_resamples) or n_resamples < 2:
        raise UwmError(f"A bootstrap needs rows and at least 2 resamples, not {n} rows and {n_resamples}.")
    _check_level(level)
    if not isinstance(generator, torch.Generator) or not callable(statistic):
        raise UwmError(
            "A bootstrap draws with a torch.Generator and resamples a function of the values: give both."
        )
    _require_finite("values", values)
    estimate = as_tensor("The statistic", statistic(values)).double()
    draws = (torch.randint(n, (n,), generator=generator).to(values.device) for _ in range(n_resamples))
    found = [as_tensor("The statistic", statistic(values[draw])).double() for draw in draws]
    if any(each.shape != estimate.shape for each in found):
        raise UwmError(
            "The statistic changes its shape from resample to resample: return as many numbers each time."
        )
    resampled = torch.stack(found)
    _require_finite("statistic of the resamples", resampled)
    tail = (1 - level) / 2
    return Bootstrap(
        estimate=estimate,
        lo=resampled.quantile(tail, dim=0),
        hi=resampled.quantile(1 - tail, dim=0),
        se=resampled.std(dim=0),
    )


def _tango_limit(n01: int, n10: int, n: int, z: float, *, inside: float, outside: float) -> float:
    """Bisect from the estimate towards an end of [-1, 1] for the first difference that is rejected."""
    for _ in range(60):
        middle = (inside + outside) / 2
        if _tango_rejects(n01, n10, n, z, middle):
            outside = middle
        else:
            inside = middle
    return (inside + outside) / 2


def _tango_rejects(n01: int, n10: int, n: int, z: float, difference: float) -> bool:
    """Return whether the score test puts the counts z or more standard errors from this true difference."""
    excess = n01 - n10 - n * difference
    # q: likeliest rate of "only the first succeeds" if the difference were true, a quadratic's larger root.
    a = 2 * n
    b = (2 * n - n01 + n10) * difference - n01 - n10
    c = -n10 * difference * (1 - difference)
    q = (math.sqrt(max(b * b - 4 * a * c, 0.0)) - b) / (2 * a)
    variance = n * (2 * q + difference * (1 - difference))
    return excess * excess >= z * z * variance


def _two_sided_z(level: float) -> float:
    _check_level(level)
    return NormalDist().inv_cdf((1 + level) / 2)


def _check_level(level: float) -> None:
    if not 0 < number(level, "level") < 1:
        raise UwmError(f"level must lie between 0 and 1, such as 0.95, not {level}.")


def check_counts(*, k: int, n: int) -> tuple[int, int]:
    """Return k successes of n trials as plain ints, which do not overflow; UwmError if they are no such counts."""
    if not is_whole(k) or not is_whole(n) or n < 1 or not 0 <= k <= n:
        raise UwmError(f"{k} of {n} is not a rate: give whole numbers n >= 1 and 0 <= k <= n.")
    return int(k), int(n)


def _check_disagreements(n01: int, n10: int) -> tuple[int, int]:
    if not is_whole(n01) or not is_whole(n10) or min(n01, n10) < 0:
        raise UwmError(f"Counts of disagreements are whole and cannot be negative: n01 = {n01}, n10 = {n10}.")
    return int(n01), int(n10)


def _require_finite(what: str, values: Tensor) -> None:
    if not torch.isfinite(values).all():
        raise UwmError(
            f"The {what} of a bootstrap hold NaN or infinity: leave such rows out, or mend the statistic."
        )
