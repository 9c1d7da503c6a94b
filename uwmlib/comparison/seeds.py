"""One score of several runs that differ in their seed alone."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from uwmlib.errors import UwmError
from uwmlib.metrics import Score
from uwmlib.metrics.differences import SeedError
from uwmlib.metrics.intervals import Z95


def score_over_seeds(scores: Sequence[Score]) -> Score:
    """Return the mean of one score over seeds, with a 95% interval that carries the seeds and the tuples.

    With K seeds and N tuples, m_k the score of seed k and m_i the mean over seeds of tuple i,
    var = s^2(m_k) / K + s^2(m_i) / N. Noise that belongs to a seed and a tuple together is in both terms, so the
    interval is a little too wide, never too narrow. The quantile is Student's with Satterthwaite's degrees of
    freedom, of which few seeds leave few. Limits of a share of successes stay within 0 and 100.

    Parameters
    ----------
    scores : sequence of Score
        One of each seed, of the same tuples. Where their items are not known (sensitivity, a share of knowledge), the
        second term is the mean of their own squared errors, as their intervals give them.

    Returns
    -------
    Score
        The score itself if there is one seed. Else without items: what a tuple scored is not one number. Without an
        interval where one of them has none.

    Raises
    ------
    UwmError
        If there is no score, or they differ in their unit or number of items.

    Examples
    --------
    >>> from uwmlib.comparison import score_over_seeds
    >>> from uwmlib.metrics import share_of
    >>> runs = [share_of([True] * k + [False] * (100 - k)) for k in (48, 50, 52)]
    >>> print(score_over_seeds(runs))
    50.0 [40.1, 59.9]
    """
    scores = list(scores)
    if len({(score.unit, score.n) for score in scores}) != 1:
        raise UwmError("The runs of several seeds need one score each, of the same unit and tuples.")
    if len(scores) == 1:
        return scores[0]
    values = np.array([score.value for score in scores])
    mean, seeds = float(values.mean()), float(values.var(ddof=1)) / len(scores)
    tuples = _error_of_tuples(scores)
    interval = None
    if tuples is not None:
        half = SeedError.of(seeds, tuples**2, len(scores)).half_width()
        interval = (mean - half, mean + half)
        if all(score.items is not None and score.items.dtype == bool for score in scores):
            interval = (max(0.0, mean - half), min(100.0, mean + half))
    return Score(mean, interval, scores[0].n, scores[0].unit)


def _error_of_tuples(scores: Sequence[Score]) -> float | None:
    """Return the standard error that comes from the choice of tuples; None where it is not known."""
    if all(score.items is not None and len(score.items) > 1 for score in scores):
        scale = 100.0 if scores[0].items.dtype == bool else 1.0
        by_tuple = scale * np.mean([score.items for score in scores], axis=0)
        return float(by_tuple.std(ddof=1)) / math.sqrt(len(by_tuple))
    if any(score.interval is None for score in scores):
        return None
    halves = [(high - low) / 2 for low, high in (score.interval for score in scores)]
    return math.sqrt(np.mean(np.square(halves))) / Z95
