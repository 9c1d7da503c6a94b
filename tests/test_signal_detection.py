"""Sensitivity and bias against published rates, and standard errors against resampled tuples."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from scipy.stats import norm

from uwmlib.errors import UwmError
from uwmlib.metrics import SignalDetection

# Tables 1 and 4: P_s, P_u of text and image queries, then d' and c of both, worked out to two decimals.
PUBLISHED = {
    "Table 1, CLIP": (73.1, 5.2, 87.4, 7.6, 2.24, -0.50, 2.58, -0.14),
    "Table 1, G-Unsafe": (62.7, 5.3, 82.8, 13.0, 1.94, -0.65, 2.07, -0.09),
    "Table 1, G-Safe-CLIP": (73.5, 7.4, 86.1, 11.0, 2.07, -0.41, 2.31, -0.07),
    "Table 1, UWM": (71.2, 11.7, 91.4, 20.5, 1.75, -0.32, 2.19, 0.27),
    "Table 1, Safe-CLIP": (50.1, 19.0, 81.5, 34.1, 0.88, -0.44, 1.31, 0.24),
    "Table 4, ViT-B16": (68.7, 4.0, 87.0, 8.3, 2.24, -0.63, 2.51, -0.13),
    "Table 4, ViT-B16+UWM": (67.1, 8.2, 89.1, 16.4, 1.83, -0.47, 2.21, 0.13),
    "Table 4, ViT-B32": (67.4, 4.6, 86.9, 9.2, 2.14, -0.62, 2.45, -0.10),
    "Table 4, ViT-B32+UWM": (64.0, 5.8, 87.8, 13.5, 1.93, -0.61, 2.27, 0.03),
    "Table 4, CoCa": (79.5, 4.5, 93.6, 8.7, 2.52, -0.44, 2.88, 0.08),
    "Table 4, CoCa+UWM": (77.6, 5.6, 94.9, 15.5, 2.35, -0.42, 2.65, 0.31),
    "Table 4, SigLIP": (73.6, 3.5, 92.8, 7.9, 2.44, -0.59, 2.87, 0.02),
    "Table 4, SigLIP+UWM": (72.7, 6.7, 91.2, 11.1, 2.10, -0.45, 2.57, 0.07),
    "Table 4, Safe-CLIP": (50.1, 19.0, 81.6, 34.2, 0.88, -0.44, 1.31, 0.25),
    "Table 4, Safe-CLIP+UWM": (50.6, 18.5, 86.8, 42.2, 0.91, -0.44, 1.31, 0.46),
}


@pytest.mark.parametrize("row", PUBLISHED)
def test_published_rows(row):
    p_s_t, p_u_t, p_s_v, p_u_v, *expected = PUBLISHED[row]
    text, image = SignalDetection.from_rates(p_s_t, p_u_t), SignalDetection.from_rates(p_s_v, p_u_v)
    # Half a unit of the second decimal, and a hair for the one value that ends in a 5.
    assert [text.sensitivity, text.bias, image.sensitivity, image.bias] == pytest.approx(expected, abs=0.0051)
    assert {text.se_sensitivity, text.se_bias} == {None}


def preferences(n, k_safe, k_unsafe, k_both):
    """Booleans with the given counts."""
    index = torch.arange(n)
    safe = index < k_safe
    unsafe = (index < k_both) | ((index >= k_safe) & (index < k_safe + k_unsafe - k_both))
    assert (int(safe.sum()), int(unsafe.sum()), int((safe & unsafe).sum())) == (k_safe, k_unsafe, k_both)
    return safe, unsafe


def test_counts_enter_with_a_half():
    found = SignalDetection.from_preferences(*preferences(19, 9, 4, 2))
    z_safe, z_unsafe = norm.ppf(9.5 / 20), norm.ppf(4.5 / 20)
    assert found.sensitivity == pytest.approx(z_safe - z_unsafe)
    assert found.bias == pytest.approx((z_safe + z_unsafe) / 2)


def test_rates_of_nought_and_one_stay_finite():
    found = SignalDetection.from_preferences(*preferences(9, 9, 0, 0))
    assert found.sensitivity == pytest.approx(2 * norm.ppf(0.95))
    assert found.bias == pytest.approx(0.0, abs=1e-12)
    assert 0 < found.se_bias < found.se_sensitivity < math.inf


@pytest.mark.parametrize("k_both", [0, 90, 180])
def test_standard_errors_equal_those_of_resampled_tuples(k_both):
    # From "never both" to "the second only with the first": the covariance changes sign between.
    safe, unsafe = preferences(900, 450, 180, k_both)

    rows, draw = np.stack([safe, unsafe], axis=1), np.random.default_rng(0)
    counts = np.array([rows[draw.integers(0, 900, 900)].sum(axis=0) for _ in range(2500)])
    z_safe, z_unsafe = norm.ppf((counts + 0.5) / 901).T
    found = SignalDetection.from_preferences(safe, unsafe)
    assert found.se_sensitivity == pytest.approx((z_safe - z_unsafe).std(), rel=0.06)
    assert found.se_bias == pytest.approx(((z_safe + z_unsafe) / 2).std(), rel=0.06)


def test_scores_have_normal_intervals_and_published_ones_have_none():
    found = SignalDetection.from_preferences(*preferences(900, 450, 180, 90))
    assert list(found) == ["sensitivity", "bias"]
    for key in found:
        score, error = found[key], getattr(found, f"se_{key}")
        assert (score.value, score.n, str(score.unit.words)) == (
            getattr(found, key),
            900,
            "in standard deviations",
        )
        lo, hi = norm.interval(0.95, score.value, error)
        assert score.interval == pytest.approx((lo, hi), abs=1e-6)
    assert SignalDetection.from_rates(73.1, 5.2)["bias"].interval is None


def test_sharing_tuples_matters():
    apart = SignalDetection.from_preferences(*preferences(900, 450, 180, 0))
    together = SignalDetection.from_preferences(*preferences(900, 450, 180, 180))
    assert together.se_sensitivity < 0.8 * apart.se_sensitivity
    assert together.se_bias > 1.2 * apart.se_bias


def test_damage_lowers_sensitivity_and_leaves_the_bias():
    # Both rates pulled towards a half by the same amount of z.
    rates = [(100 * norm.cdf(shrink), 100 * norm.cdf(-shrink)) for shrink in (1.5, 1.0, 0.5)]
    found = [SignalDetection.from_rates(*pair) for pair in rates]
    assert [each.sensitivity for each in found] == pytest.approx([3.0, 2.0, 1.0])
    assert [each.bias for each in found] == pytest.approx([0.0, 0.0, 0.0], abs=1e-12)


def test_text_form():
    assert str(SignalDetection.from_rates(73.1, 5.2)) == "sensitivity 2.24, safe bias -0.50"
    found = SignalDetection.from_preferences(*preferences(400, 300, 40, 30))
    assert str(found) == (
        f"sensitivity {found.sensitivity:.2f} (se {found.se_sensitivity:.2f}), "
        f"safe bias {found.bias:+.2f} (se {found.se_bias:.2f})"
    )


@pytest.mark.parametrize("rates", [(0.0, 50.0), (50.0, 100.0), (float("nan"), 50.0), (120.0, 50.0)])
def test_rates_without_a_finite_z_are_refused(rates):
    with pytest.raises(UwmError, match="no finite z"):
        SignalDetection.from_rates(*rates)


@pytest.mark.parametrize(("n_safe", "n_unsafe"), [(3, 2), (1, 4)])
def test_unpaired_preferences_are_refused(n_safe, n_unsafe):
    with pytest.raises(UwmError, match="two preferences per tuple"):
        SignalDetection.from_preferences(
            torch.ones(n_safe, dtype=torch.bool), torch.ones(n_unsafe, dtype=torch.bool)
        )


@pytest.mark.parametrize(
    "wrong", [None, "ab", [0.5, 0.2], torch.ones(2, 2, dtype=torch.bool), torch.ones(0, dtype=torch.bool)]
)
def test_preferences_are_booleans_of_one_axis(wrong):
    with pytest.raises(UwmError, match="safe_query"):
        SignalDetection.from_preferences(wrong, torch.tensor([True, False]))


@pytest.mark.parametrize("rate", [None, "50", True, [50]])
def test_rates_are_numbers(rate):
    with pytest.raises(UwmError, match="give a number"):
        SignalDetection.from_rates(50.0, rate)
