"""Many comparisons at once: p-values corrected for their number."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from uwmlib.errors import UwmError
from uwmlib.options import known, number

#: What a correction keeps at its level, as a caption says it.
CORRECTIONS = {
    "none": "uncorrected tests",
    "holm": "Holm's family-wise error rate",
    "bh": "Benjamini and Hochberg's false discovery rate",
}


def adjusted(p_values: Sequence[float], *, correction: str = "bh") -> np.ndarray:
    """Return p-values corrected for the number of comparisons: each is rejected where its own is at most the level.

    With the p-values sorted, p_(1) <= ... <= p_(m):

    - "none": as they are.
    - "holm": max over j <= i of (m - j + 1) p_(j). Keeps the chance of *any* false direction below the level,
      whatever the dependence (Holm, Scandinavian Journal of Statistics 6, 1979, 65-70).
    - "bh": min over j >= i of m p_(j) / j. Keeps the expected *share* of false directions below the level, for
      independent or positively dependent comparisons (Benjamini and Hochberg, JRSS B 57, 1995, 289-300).

    Parameters
    ----------
    p_values : sequence of float [m]
        In [0, 1], m >= 0.
    correction : "none", "holm" or "bh"

    Returns
    -------
    float64 array [m]
        In [0, 1], in the order of `p_values`.

    Raises
    ------
    UwmError
        If a p-value lies outside [0, 1], or for another correction.

    Examples
    --------
    Of three comparisons at 5% only the first survives Holm, and all survive
    Benjamini and Hochberg:

    >>> from uwmlib.metrics import adjusted
    >>> print(adjusted([0.01, 0.03, 0.04], correction="holm"))
    [0.03 0.06 0.06]
    >>> print(adjusted([0.01, 0.03, 0.04], correction="bh"))
    [0.03 0.04 0.04]
    """
    from scipy.stats import false_discovery_control  # here, because it takes a second to load

    known(correction, CORRECTIONS, "correction")
    p = np.array([number(value, "A p-value") for value in p_values], dtype=float)
    outside = p[~((p >= 0) & (p <= 1))]  # NaN too
    if len(outside):
        raise UwmError(f"{outside[0]:g} is no p-value: give numbers from 0 to 1.")
    if correction == "none" or len(p) == 0:
        return p
    if correction == "bh":
        return false_discovery_control(p, method="bh")
    order = np.argsort(p)
    stepwise = np.maximum.accumulate(p[order] * np.arange(len(p), 0, -1))
    result = np.empty(len(p))
    result[order] = np.minimum(stepwise, 1.0)
    return result
