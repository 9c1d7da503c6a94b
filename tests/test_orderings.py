"""Orderings against comparisons by hand, random similarities, counted tuples and Fréchet's bounds."""

from __future__ import annotations

from collections import Counter
from math import sqrt

import pytest
import torch
from embedding_sets import random_embeddings
from hypothesis import given, settings
from hypothesis import strategies as st

from uwmlib.errors import UwmError
from uwmlib.metrics import (
    ORDERINGS,
    SAFEGROUND_KEYS,
    SIMILARITIES,
    SafeGround,
    attainable,
    safeground,
    safeground_of_orderings,
    score_range,
)

PREFERENCES = SAFEGROUND_KEYS[:4]


def embeddings_of(order):
    """Embeddings whose four cosines have this order: texts are axes, images carry the numbers."""
    value = {one: 0.6 - 0.1 * place for place, one in enumerate(order)}
    a, b, c, d = (value[one] for one in "abcd")
    images = [[a, b, sqrt(1 - a * a - b * b), 0.0], [c, d, 0.0, sqrt(1 - c * c - d * d)]]
    names, texts = ("safe_text", "unsafe_text", "safe_image", "unsafe_image"), torch.eye(4)[:2].tolist()
    return {name: torch.tensor([row]) for name, row in zip(names, texts + images, strict=True)}


@pytest.mark.parametrize("place", range(24))
def test_each_order_earns_what_safeground_measures_of_it(place):
    measured, listed = safeground(**embeddings_of(ORDERINGS[place])), safeground_of_orderings()
    for key in SAFEGROUND_KEYS:
        assert bool(getattr(measured, key)[0]) == bool(getattr(listed, key)[place])


def test_the_letters_are_text_and_image_of_the_cosines():
    assert SIMILARITIES["b"] == ("t_u", "v_s") and SIMILARITIES["c"] == ("t_s", "v_u")
    assert len(set(ORDERINGS)) == 24


def test_twenty_four_orders_earn_fourteen_patterns_of_one_two_or_four_orders():
    found = safeground_of_orderings()
    patterns = Counter(zip(*(getattr(found, key).tolist() for key in PREFERENCES), strict=True))
    assert len(patterns) == 14 and sorted(patterns.values()) == [1] * 8 + [2] * 4 + [4] * 2
    assert (False, True, True, False) not in patterns and (True, False, False, True) not in patterns


def test_equally_likely_orders_are_what_random_similarities_have():
    generator = torch.Generator().manual_seed(0)
    a, b, c, d = torch.rand(4, 200_000, generator=generator)
    drawn = SafeGround(p_s_t=a > c, p_u_t=b > d, p_s_v=a > b, p_u_v=c > d).as_percent()
    assert safeground_of_orderings().as_percent() == pytest.approx(drawn, abs=0.5)


@settings(max_examples=30, deadline=None)
@given(n=st.integers(1, 40), seed=st.integers(0, 10**6))
def test_what_was_measured_is_attainable_and_inside_its_ranges(n, seed):
    percent = safeground(**random_embeddings(n, 3, seed)).as_percent()
    assert attainable(percent)
    for key in SAFEGROUND_KEYS:
        lo, hi = score_range(key, {name: percent[name] for name in PREFERENCES})
        assert lo - 1e-6 <= percent[key] <= hi + 1e-6


@settings(max_examples=60, deadline=None)
@given(rates=st.lists(st.integers(0, 20), min_size=4, max_size=4))
def test_gs_given_four_preferences_is_what_can_be_worked_out_by_hand(rates):
    t_s, t_u, v_s, v_u = (rate / 20 for rate in rates)
    known = dict(zip(PREFERENCES, (5.0 * rate for rate in rates), strict=True))
    skew = abs(t_s + v_u - t_u - v_s)
    if skew > 1:  # one of the two patterns that do not occur would have to
        assert not attainable(known)
        return
    lo, hi = score_range("gs", known)
    assert lo == pytest.approx(max(0, 100 * (t_s + t_u + v_s + v_u - 3)), abs=1e-6)
    assert hi == pytest.approx(100 * min(t_s, t_u, v_s, v_u, 1 - skew), abs=1e-6)


def test_frechet_bounds_are_not_sharp():
    sure = {"p_s_t": 100.0, "p_u_v": 100.0, "p_u_t": 50.0, "p_s_v": 50.0}
    assert score_range("gs", sure) == pytest.approx((0, 0), abs=1e-6)  # where Fréchet allows up to 50


def test_limits_are_taken_as_limits():
    assert score_range("gs", {"ps": (20.0, 30.0)}) == pytest.approx((0, 30))
    assert score_range("ps", {"gs": (20.0, 30.0)}) == pytest.approx((20, 100))


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: score_range("p_s_x", {}), "p_s_x"),
        (lambda: attainable({"ts_vs": 3.0}), "ts_vs"),
        (lambda: attainable({"gs": (1.0, 2.0, 3.0)}), "two limits"),
        (lambda: attainable({"gs": "much"}), "gs"),
        (lambda: score_range("pu", {"gs": 60.0, "ps": 50.0}), "No model has these scores"),
    ],
)
def test_what_cannot_be_is_said_in_a_sentence(call, message):
    with pytest.raises(UwmError, match=message):
        call()
