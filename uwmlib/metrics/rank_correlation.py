"""Whether one number orders things as another does, with an interval for few things."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from uwmlib.errors import UwmError
from uwmlib.options import whole_number

LEAST = 4  #: pairs that a rank correlation is asked of
SAMPLE_STREAM = 0x72616E6B  #: keeps the resampling apart from other uses of the same seed


@dataclass(frozen=True)
class RankCorrelation:
    """Spearman's rank correlation of n pairs.

    Attributes
    ----------
    value : float in [-1, 1]
    lo, hi : float
        95% limits by the percentile bootstrap over the pairs.
    p_value : float
        Two-sided, by Student's t with n - 2 degrees of freedom.
    n : int

    Examples
    --------
    >>> from uwmlib.metrics import RankCorrelation
    >>> print(RankCorrelation(0.5, -0.1, 0.8, 0.1, 12))
    +0.50 [-0.10, +0.80]
    """

    value: float
    lo: float
    hi: float
    p_value: float
    n: int

    def __str__(self) -> str:
        return f"{self.value:+.2f} [{self.lo:+.2f}, {self.hi:+.2f}]"


def rank_correlation(
    x: Sequence[float], y: Sequence[float], *, resamples: int = 4000, seed: int = 0
) -> RankCorrelation:
    """Return Spearman's rank correlation: Pearson's of the ranks, where equal numbers share their mean rank.

    The interval holds the middle 95% of the correlations of samples of n pairs drawn with replacement. With few
    pairs it is rough, and a little narrow. Samples in which one side is constant have no correlation and are left out.

    Parameters
    ----------
    x, y : sequence of float [n], n >= 4
        Pair i is (x_i, y_i).
    resamples, seed : int
        Of the bootstrap; the same for the same seed on every machine.

    Returns
    -------
    RankCorrelation

    Raises
    ------
    UwmError
        If the two differ in length, are fewer than 4, hold a number that is not finite, or one side is constant.

    Examples
    --------
    Order is all that counts:

    >>> from uwmlib.metrics import rank_correlation
    >>> x = [1.0, 2.0, 3.0, 4.0, 5.0, 6.0]
    >>> rank_correlation(x, [x_i**3 for x_i in x]).value
    1.0
    >>> print(f"{rank_correlation(x, [2, 1, 4, 3, 6, 5]).value:.3f}")
    0.829
    """
    from scipy.stats import rankdata, spearmanr  # here, because it takes a second to load

    resamples = whole_number(resamples, "resamples")
    pairs = np.array([x, y], dtype=float) if len(x) == len(y) else np.empty((2, 0))
    n = pairs.shape[1]
    if pairs.ndim != 2 or n < LEAST or not np.isfinite(pairs).all():
        raise UwmError(
            f"A rank correlation needs two lists of equal length, of at least {LEAST} finite numbers, "
            f"not {len(x)} and {len(y)}."
        )
    if (np.ptp(pairs, axis=1) == 0).any():
        raise UwmError("One side has the same number everywhere, so it orders nothing: leave it out.")
    found = spearmanr(*pairs)
    words = np.random.Philox(key=(SAMPLE_STREAM << 64) + seed).random_raw(resamples * n)
    drawn = (words % np.uint64(n)).astype(np.int64).reshape(resamples, n)
    ranks = rankdata(pairs[:, drawn], axis=-1)  # [2, resamples, n]
    ranks -= ranks.mean(axis=-1, keepdims=True)
    scale = np.sqrt((ranks**2).sum(axis=-1).prod(axis=0))  # [resamples]
    products = (ranks[0] * ranks[1]).sum(axis=-1)
    lo, hi = np.quantile(products[scale > 0] / scale[scale > 0], (0.025, 0.975))
    # Rounding must not carry a perfect order beyond 1.
    value = float(np.clip(found.statistic, -1, 1))
    return RankCorrelation(value, float(lo), float(hi), float(found.pvalue), n)
