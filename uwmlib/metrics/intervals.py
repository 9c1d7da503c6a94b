"""How far a number can be trusted: Wilson's, Tango's and normal intervals, and the exact McNemar test."""

from __future__ import annotations

import math
from collections.abc import Sequence
from statistics import NormalDist

import numpy as np

from uwmlib.errors import UwmError
from uwmlib.options import is_whole, number

Z95 = 1.959964  # of the normal intervals


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

    Examples
    --------
    No success in ten trials still allows a rate of more than a quarter:

    >>> from uwmlib.metrics import wilson
    >>> lo, hi = wilson(0, 10)
    >>> print(f"{lo:.3f} to {hi:.3f}")
    0.000 to 0.278
    """
    from scipy.stats import binomtest  # here, because it takes a second to load

    k, n = check_counts(k=k, n=n)
    _check_level(level)
    # With the rate itself as the hypothesis it need not look for a p-value, which takes ten times as long.
    limits = binomtest(k, n, k / n).proportion_ci(level, method="wilson")
    # At 0 and n the limits are 0 and 1 exactly; rounding must not move them off.
    return (0.0 if k == 0 else float(limits.low)), (1.0 if k == n else float(limits.high))


def wilson_of_groups(hits: np.ndarray, size: int) -> tuple[float, float]:
    """Return 95% limits of the rate of success over N groups, each of `size` answers that may hang together.

    Wilson's score interval with an effective number of answers (as for cluster samples: Franco, Little, Louis and
    Slud, Journal of Survey Statistics and Methodology 7, 2019, 334-364): with p the rate and s^2 the variance of the
    groups' rates, n_eff = N p (1 - p) / s^2, kept between N (the answers of a group are all alike) and N size (they
    are independent). Where all answers agree the spread says nothing, and n_eff = N.

    Parameters
    ----------
    hits : int array, shape [N], N >= 1
        Successes of each group, in [0, size].
    size : int

    Returns
    -------
    lo, hi : float
        Fractions in [0, 1].
    """
    rates = np.asarray(hits) / size
    p, n = float(rates.mean()), float(len(rates))
    if 0 < p < 1 and n > 1:
        n /= min(max(float(rates.var(ddof=1)) / (p * (1 - p)), 1 / size), 1.0)
    centre, half = p + Z95**2 / (2 * n), Z95 * math.sqrt(p * (1 - p) / n + (Z95 / (2 * n)) ** 2)
    scale = 1 + Z95**2 / n
    # At 0 and 1 the limits are 0 and 1 exactly; rounding must not move them off.
    return (0.0 if p == 0 else (centre - half) / scale), (1.0 if p == 1 else (centre + half) / scale)


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

    Examples
    --------
    Five disagreements, all one way: twice the chance of five heads, 2 / 32.

    >>> from uwmlib.metrics import mcnemar_exact
    >>> print(f"{mcnemar_exact(5, 0):.4f}")
    0.0625
    """
    from scipy.stats import binomtest

    n01, n10 = _check_disagreements(n01, n10)
    return float(binomtest(n01, n01 + n10).pvalue) if n01 + n10 else 1.0


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

    Examples
    --------
    Of 100 pairs the second model alone wins 12 and the first alone 2; the
    interval of the difference of 0.10 excludes 0:

    >>> from uwmlib.metrics import tango
    >>> lo, hi = tango(12, 2, 100)
    >>> print(f"{lo:.3f} to {hi:.3f}")
    0.031 to 0.182
    """
    n01, n10 = _check_disagreements(n01, n10)
    _, n = check_counts(k=n01 + n10, n=n)
    z = _two_sided_z(level)
    estimate = (n01 - n10) / n
    return (
        _tango_limit(n01, n10, n, z, inside=estimate, outside=-1.0),
        _tango_limit(n01, n10, n, z, inside=estimate, outside=1.0),
    )


def normal_interval(value: float, error: float) -> tuple[float, float]:
    """Return the 95% limits of an estimate with this standard error."""
    return value - Z95 * error, value + Z95 * error


def mean_of_estimates(
    estimates: Sequence[tuple[float, tuple[float, float]]],
) -> tuple[float, tuple[float, float]]:
    """Return the unweighted mean of independent estimates, and its limits.

    The distances of the estimates from their limits add in quadrature (the method of variance estimates recovery,
    Zou and Donner, Statistics in Medicine 27, 2008, 1693-1702), so one estimate keeps its interval.

    Parameters
    ----------
    estimates : sequence of (value, (lo, hi)), at least one
    """
    count = len(estimates)
    mean = sum(value for value, _ in estimates) / count
    below = math.hypot(*(value - lo for value, (lo, _) in estimates)) / count
    above = math.hypot(*(hi - value for value, (_, hi) in estimates)) / count
    return mean, (mean - below, mean + above)


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
