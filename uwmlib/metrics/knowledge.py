"""Knowledge as one number: recall@1 of safe pairs, and how much of the base's a model keeps."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from uwmlib.errors import UwmError
from uwmlib.metrics.intervals import normal_interval
from uwmlib.metrics.score import Score, mean_of, measured

KNOWLEDGE_KEYS = ("ts_vs", "vs_ts")


def knowledge(found: Mapping[str, Score]) -> Score:
    """Return the knowledge of a model: the mean recall@1 of both directions of safe pairs, in percent.

    K = (R@1(T_s -> V_s) + R@1(V_s -> T_s)) / 2. An item is a tuple: it scores 0, 50 or 100 as none, one or both of its
    safe queries find their partner. Zero-shot accuracy is no part of it, as it asks other data: it stands beside.
    The gallery is all tuples: among fewer a partner is easier to find, and an edit costs less. So knowledge, and the
    share of it that is kept, are compared between sets of about one size.

    Parameters
    ----------
    found : mapping of name to Score
        Such as an `Evaluation`; "ts_vs" and "vs_ts" of the same tuples.

    Raises
    ------
    UwmError
        If one of the two was not measured, or without an outcome for each tuple.

    Examples
    --------
    Three of four texts and one of four images find their partner:

    >>> from uwmlib.metrics import knowledge, share_of
    >>> found = {
    ...     "ts_vs": share_of([True, True, True, False]),
    ...     "vs_ts": share_of([True, False, False, False]),
    ... }
    >>> score = knowledge(found)
    >>> score.value, score.items.tolist()
    (50.0, [100.0, 50.0, 50.0, 0.0])
    """
    hits = [measured(found, key) for key in KNOWLEDGE_KEYS]
    if any(score is None or score.items is None or score.items.dtype != bool for score in hits):
        raise UwmError("Knowledge is recall@1 of both directions, tuple by tuple: measure ts_vs and vs_ts.")
    if len(hits[0].items) != len(hits[1].items):
        raise UwmError("ts_vs and vs_ts were not measured on equally many tuples: measure both on the same.")
    return mean_of(50.0 * (hits[0].items.astype(float) + hits[1].items))


def knowledge_kept(found: Mapping[str, Score], base: Mapping[str, Score]) -> Score:
    """Return how much of its base's knowledge a model keeps, in percent: 100 K / K_base.

    Its interval is the normal one of a ratio of two means over the same tuples (delta method):
    var = sum (k_i - r b_i)^2 / (n - 1) / n / K_base^2 with r = K / K_base.

    Parameters
    ----------
    found, base : mapping of name to Score
        As `knowledge` takes them, of the same tuples in the same order.

    Raises
    ------
    UwmError
        As `knowledge`, if the two differ in their number of tuples, or the base finds no partner at all.

    Examples
    --------
    The base finds both partners of each tuple, the edited model both of every
    other one:

    >>> from uwmlib.metrics import knowledge_kept, share_of
    >>> base = dict.fromkeys(["ts_vs", "vs_ts"], share_of([True] * 100))
    >>> edited = dict.fromkeys(["ts_vs", "vs_ts"], share_of([True, False] * 50))
    >>> print(knowledge_kept(edited, base))
    50.0 [40.2, 59.8]
    """
    mine, theirs = knowledge(found).items, knowledge(base).items
    if len(mine) != len(theirs):
        raise UwmError(
            f"Knowledge of {len(mine)} and {len(theirs)} tuples cannot be compared: measure both on the same."
        )
    if not theirs.any():
        raise UwmError("The base finds no safe partner at all: it has no knowledge to keep a share of.")
    ratio, interval = float(mine.mean() / theirs.mean()), None
    if len(mine) > 1:
        error = np.std(mine - ratio * theirs, ddof=1) / len(mine) ** 0.5 / theirs.mean()
        interval = normal_interval(100 * ratio, 100 * float(error))
    return Score(100 * ratio, interval, len(mine))
