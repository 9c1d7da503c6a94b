"""Orderings of a tuple's four similarities: what SafeGround (Eqs. 3-7) gives for each, and what it can never give."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import permutations

import numpy as np
import torch

from uwmlib.errors import UwmError
from uwmlib.metrics.safeground import SAFEGROUND_KEYS, SafeGround
from uwmlib.options import known, number

#: The similarities as chapter 2 names them: of text and image.
SIMILARITIES = {"a": ("t_s", "v_s"), "b": ("t_u", "v_s"), "c": ("t_s", "v_u"), "d": ("t_u", "v_u")}
#: The 24 orders without ties, from the largest: "abcd" is a > b > c > d.
ORDERINGS = tuple(map("".join, permutations(SIMILARITIES)))

Given = Mapping[str, float | tuple[float, float]]


def safeground_of_orderings() -> SafeGround:
    """Return what SafeGround gives for each of the 24 orders, as if each were a tuple.

    An order decides the four preferences, and these decide all nine scores. The scores of the whole are those of a
    model whose orders are all equally likely.

    Returns
    -------
    SafeGround
        Of 24 tuples, in the order of `ORDERINGS`.

    Examples
    --------
    A model that tells nothing apart has GS in 2 of 24 tuples:

    >>> from uwmlib.metrics import ORDERINGS, safeground_of_orderings
    >>> found = safeground_of_orderings()
    >>> [ORDERINGS[i] for i in found.gs.nonzero().flatten()]
    ['abcd', 'acbd']
    >>> found["gs"].value, found["ps"].value, found["txt_s"].value
    (8.333333333333334, 33.333333333333336, 25.0)
    """
    height = {one: torch.tensor([-order.index(one) for order in ORDERINGS]) for one in SIMILARITIES}
    a, b, c, d = height.values()
    return SafeGround(p_s_t=a > c, p_u_t=b > d, p_s_v=a > b, p_u_v=c > d)


def score_range(key: str, given: Given) -> tuple[float, float]:
    """Return the smallest and the largest value of a score that some model can have, given others.

    A model is a mix of orders: shares of the tuples that sum to one. Every score is linear in them, so both ends are
    linear programmes over the simplex of the orders. They are sharp, where bounds that treat the preferences as four
    events of their own are not: the preferences share similarities, and two of their sixteen patterns cannot occur.

    Parameters
    ----------
    key : str
        One of `SAFEGROUND_KEYS`.
    given : mapping of str to float, or to (float, float)
        Scores in percent, or the limits between which they are known to lie, such as those of a rounded number.

    Returns
    -------
    lo, hi : float
        In percent.

    Raises
    ------
    UwmError
        If a name is no score of SafeGround, a value no number, or no mix of orders has the given scores.

    Examples
    --------
    Four events of their own with these rates may all happen in half of the
    tuples. Four preferences of a model never do:

    >>> from uwmlib.metrics import score_range
    >>> sure = {"p_s_t": 100.0, "p_u_v": 100.0}
    >>> lo, hi = score_range("gs", {**sure, "p_u_t": 50.0, "p_s_v": 50.0})
    >>> print(f"{lo:.1f} to {hi:.1f}")
    0.0 to 0.0
    """
    found = _extremes(known(key, SAFEGROUND_KEYS, "SafeGround score"), given)
    if found is None:
        raise UwmError("No model has these scores: no mix of the 24 orders of four similarities earns them.")
    return found


def attainable(given: Given) -> bool:
    """Say whether some model has these scores: a mix of orders that earns all of them.

    Parameters
    ----------
    given
        As `score_range` takes them.

    Raises
    ------
    UwmError
        If a name is no score of SafeGround, or a value no number.

    Examples
    --------
    Of four tuples one has all four preferences, so one has two of them:

    >>> from uwmlib.metrics import attainable
    >>> attainable({"gs": 25.0, "ps": 25.0}), attainable({"gs": 25.0, "ps": 20.0})
    (True, False)
    """
    return _extremes("gs", given) is not None


def _extremes(key: str, given: Given) -> tuple[float, float] | None:
    """Return both ends of a score over all mixes that have the given ones; None if there is no such mix."""
    from scipy.optimize import linprog  # here, because it takes a second to load

    orders = safeground_of_orderings()
    gains = {name: 100.0 * getattr(orders, name).numpy() for name in SAFEGROUND_KEYS}
    rows, limits = [np.zeros(len(ORDERINGS))], [0.0]
    for name, value in given.items():
        lo, hi = _limits(known(name, SAFEGROUND_KEYS, "SafeGround score"), value)
        rows += [gains[name], -gains[name]]
        limits += [hi, -lo]
    total = {"A_eq": np.ones((1, len(ORDERINGS))), "b_eq": [1.0]}
    ends = [linprog(sign * gains[key], A_ub=np.stack(rows), b_ub=limits, **total) for sign in (1, -1)]
    if not all(end.success for end in ends):
        return None
    return max(float(ends[0].fun), 0.0), min(
        0.0 - float(ends[1].fun), 100.0
    )  # rounding must not leave the scale


def _limits(name: str, value: float | tuple[float, float]) -> tuple[float, float]:
    pair = value if isinstance(value, tuple) else (value, value)
    if len(pair) != 2:
        raise UwmError(f"{name} is {value}: give a number in percent, or its two limits.")
    return number(pair[0], name), number(pair[1], name)
