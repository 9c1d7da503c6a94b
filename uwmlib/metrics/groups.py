"""A mean over several runs that share something: its interval counts what is shared, not the runs."""

from __future__ import annotations

from collections.abc import Hashable, Sequence

import numpy as np

from uwmlib.errors import UwmError
from uwmlib.metrics.score import PERCENT, Score, Unit, mean_of

RANKING = Unit("from 0 to 1", of="rankings", decimals=2)  #: of an AUROC, a precision, a recall


def mean_over_groups(values: Sequence[float], groups: Sequence[Hashable], *, unit: Unit = PERCENT) -> Score:
    """Return the mean of the groups' means, with Student's 95% interval over groups.

    Runs of one base are no independent draws; the bases are. With m groups the interval is that of m numbers, with
    m - 1 degrees of freedom; a single group has none. Of few groups it may reach beyond what can be: in the unit
    `RANKING` its limits are cut at 0 and 1, where no mean of an AUROC, a precision or a recall can lie outside.

    Parameters
    ----------
    values : sequence of float
        One for each run.
    groups : sequence of hashable
        What each run belongs to, such as the seed of its base.
    unit : Unit
        `RANKING` is for numbers from 0 to 1, not for differences of them.

    Returns
    -------
    Score
        Its `n` is the number of groups.

    Raises
    ------
    UwmError
        If there is no value, or not one group for each, or one in the unit `RANKING` is not from 0 to 1.

    Examples
    --------
    Two bases with means of 1 and 3. Student's factor for one degree of freedom
    is 12.71, and the standard error 1:

    >>> from uwmlib.metrics import mean_over_groups
    >>> print(mean_over_groups([0.0, 2.0, 3.0], ["a", "a", "b"]))
    2.0 [-10.7, 14.7]

    An AUROC is at most 1, and so is its interval:

    >>> from uwmlib.metrics import RANKING
    >>> print(mean_over_groups([0.9, 0.94], ["a", "b"], unit=RANKING))
    0.92 [0.67, 1.00]
    """
    from scipy.stats import t

    if len(values) != len(groups) or not len(values):
        raise UwmError(f"There are {len(values)} values for {len(groups)} groups: give one group for each.")
    runs: dict[Hashable, list[float]] = {}
    for value, group in zip(values, groups, strict=True):
        runs.setdefault(group, []).append(float(value))
    means = np.array([np.mean(each) for each in runs.values()])
    mean = mean_of(means, unit=unit)  # which refuses what is not finite
    if unit == RANKING and any(not 0 <= float(value) <= 1 for value in values):
        raise UwmError(
            "An AUROC, a precision or a recall lies from 0 to 1: give another unit for differences."
        )
    if len(means) == 1:
        return mean
    half = float(t.ppf(0.975, len(means) - 1) * means.std(ddof=1) / len(means) ** 0.5)
    lo, hi = mean.value - half, mean.value + half
    if unit == RANKING:
        lo, hi = max(lo, 0.0), min(hi, 1.0)
    return Score(mean.value, (lo, hi), len(means), unit, means)
