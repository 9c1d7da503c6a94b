"""Intervals against their defining equations and brute force."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import minimize_scalar
from scipy.stats import norm

from uwmlib.errors import UwmError
from uwmlib.metrics import mcnemar_exact, paired_difference, tango, wilson
from uwmlib.metrics.intervals import mean_of_estimates


@pytest.mark.parametrize(("k", "n"), [(0, 1), (1, 1), (0, 40), (40, 40), (5, 10), (60, 5000), (3655, 5000)])
@pytest.mark.parametrize("level", [0.5, 0.9, 0.95, 0.99])
def test_wilson_equals_its_formula(k, n, level):
    z, rate = norm.ppf((1 + level) / 2), k / n
    centre = (rate + z * z / (2 * n)) / (1 + z * z / n)
    half = z * math.sqrt(rate * (1 - rate) / n + z * z / (4 * n * n)) / (1 + z * z / n)
    assert wilson(k, n, level) == pytest.approx((centre - half, centre + half), abs=1e-12)


@settings(deadline=None)
@given(n=st.integers(1, 10**6), share=st.floats(0, 1))
def test_wilson_limits_are_the_rates_just_not_rejected(n, share):
    k = round(share * n)
    lo, hi = wilson(k, n)
    assert 0 <= lo <= k / n <= hi <= 1
    for limit in {lo, hi} - {0.0, 1.0}:
        assert abs(k / n - limit) == pytest.approx(1.959964 * math.sqrt(limit * (1 - limit) / n), rel=1e-5)


def test_wilson_ends_are_exact():
    assert {wilson(0, n)[0] for n in range(1, 500)} == {0.0}
    assert {wilson(n, n)[1] for n in range(1, 500)} == {1.0}
    z = norm.ppf(0.975)
    assert wilson(0, 7)[1] == pytest.approx(z * z / (7 + z * z))


@settings(deadline=None)
@given(n01=st.integers(0, 300), n10=st.integers(0, 300))
def test_mcnemar_counts_the_splits_that_are_at_least_as_uneven(n01, n10):
    throws = n01 + n10
    splits = 2 * sum(math.comb(throws, k) for k in range(min(n01, n10) + 1))
    assert mcnemar_exact(n01, n10) == pytest.approx(min(1.0, splits / 2**throws), rel=1e-12, abs=1e-300)


def test_mcnemar_by_hand():
    # 1 against 5: (1 + 6) of 64 splits on one side, doubled.
    assert mcnemar_exact(1, 5) == mcnemar_exact(5, 1) == 14 / 64
    assert mcnemar_exact(3, 3) == 1.0
    assert mcnemar_exact(0, 0) == 1.0
    assert 0 <= mcnemar_exact(100, 5000) < 1e-300


def score_statistic(n01, n10, n, difference):
    """Tango's statistic with the restricted maximum of the likelihood found numerically."""

    def negative_log_likelihood(q):
        rates = (q + difference, q, 1 - 2 * q - difference)
        counts = (n01, n10, n - n01 - n10)
        return -sum(count * math.log(rate) for count, rate in zip(counts, rates, strict=True) if count)

    bounds = (max(0.0, -difference) + 1e-12, (1 - difference) / 2 - 1e-12)
    q = minimize_scalar(negative_log_likelihood, bounds=bounds, method="bounded", options={"xatol": 1e-12}).x
    return (n01 - n10 - n * difference) / math.sqrt(n * (2 * q + difference * (1 - difference)))


@pytest.mark.parametrize(
    ("n01", "n10", "n"),
    [(12, 2, 50), (2, 12, 50), (5, 5, 20), (1, 0, 30), (0, 4, 9), (7, 3, 10), (325, 140, 5000)],
)
@pytest.mark.parametrize("level", [0.8, 0.95])
def test_tango_limits_score_exactly_z(n01, n10, n, level):
    lo, hi = tango(n01, n10, n, level)
    z = norm.ppf((1 + level) / 2)
    assert score_statistic(n01, n10, n, lo) == pytest.approx(z, abs=1e-4)
    assert score_statistic(n01, n10, n, hi) == pytest.approx(-z, abs=1e-4)
    assert -1 <= lo < (n01 - n10) / n < hi <= 1


@settings(max_examples=200, deadline=None)
@given(counts=st.tuples(st.integers(0, 60), st.integers(0, 60), st.integers(0, 60)))
def test_tango_agrees_with_mcnemars_test_about_zero_and_is_antisymmetric(counts):
    n01, n10, agreeing = counts
    n = max(1, sum(counts))
    z = norm.ppf(0.975)
    lo, hi = tango(n01, n10, n)
    assert (lo < 0 < hi) == ((n01 - n10) ** 2 < z * z * (n01 + n10) or n01 + n10 == 0)
    assert tango(n10, n01, n) == pytest.approx((-hi, -lo), abs=1e-12)


def test_tango_without_and_with_only_disagreement():
    z = norm.ppf(0.975)
    assert tango(0, 0, 100) == pytest.approx((-z * z / (100 + z * z), z * z / (100 + z * z)))
    lo, hi = tango(20, 0, 20)
    assert hi == 1.0
    assert lo == pytest.approx((20 - z * z) / (20 + z * z))


def test_paired_difference_is_after_minus_before():
    before = torch.tensor([True, False, False, False, True, True, False, True])
    after = torch.tensor([True, True, True, True, False, True, False, True])
    change = paired_difference(before, after)
    assert (change.gained, change.lost, change.n) == (3, 1, 8)
    assert change.difference == pytest.approx(25.0)
    assert change.p_value == pytest.approx(10 / 16)  # 1 + 4 of 16 splits, doubled
    lo, hi = tango(3, 1, 8)
    assert (change.lo, change.hi) == pytest.approx((100 * lo, 100 * hi))


def test_estimates_are_averaged_with_their_distances_in_quadrature():
    assert mean_of_estimates([(3.0, (1.0, 4.5))]) == (3.0, (1.0, 4.5))
    mean, (lo, hi) = mean_of_estimates([(10.0, (7.0, 11.0)), (20.0, (16.0, 32.0))])
    assert (mean, lo, hi) == (15.0, 15 - 5 / 2, pytest.approx(15 + math.sqrt(1 + 144) / 2))


def test_bad_input_is_refused():
    yes = torch.tensor([True])
    for ask, message in (
        (lambda: wilson(3, 2), "3 of 2 is not a rate"),
        (lambda: wilson(-1, 2), "-1 of 2"),
        (lambda: wilson(0, 0), "0 of 0"),
        (lambda: wilson(1, 2, 95), "level must lie"),
        (lambda: wilson(1, 2, 0.0), "level must lie"),
        (lambda: mcnemar_exact(-1, 4), "cannot be negative"),
        (lambda: tango(4, -1, 9), "cannot be negative"),
        (lambda: tango(6, 5, 10), "11 of 10"),
        (lambda: paired_difference(yes, torch.tensor([True, False])), "1 and 2 tuples"),
        (lambda: paired_difference(yes, torch.tensor([1])), "boolean"),
        (lambda: paired_difference(None, yes), "before is no dense tensor"),
    ):
        with pytest.raises(UwmError, match=message):
            ask()


@pytest.mark.parametrize("wrong", [2.5, 2.0, math.nan, math.inf, "2", None, True])
def test_counts_are_whole_numbers(wrong):
    for ask in (
        lambda: wilson(wrong, 10),
        lambda: wilson(1, wrong),
        lambda: mcnemar_exact(wrong, 1),
        lambda: mcnemar_exact(1, wrong),
        lambda: tango(wrong, 1, 10),
        lambda: tango(1, 1, wrong),
    ):
        with pytest.raises(UwmError, match="whole"):
            ask()


@pytest.mark.parametrize("level", ["0.95", None, [0.9], math.nan, True])
def test_levels_are_numbers_between_0_and_1(level):
    for ask in (lambda: wilson(1, 10, level), lambda: tango(1, 1, 10, level)):
        with pytest.raises(UwmError, match="level"):
            ask()


def test_numpys_whole_numbers_count_as_pythons_do():
    # 2^100 outcomes do not fit NumPy's 64 bits.
    assert mcnemar_exact(np.int64(40), np.int64(60)) == mcnemar_exact(40, 60)
    assert wilson(np.int64(2), np.int32(10)) == wilson(2, 10)
