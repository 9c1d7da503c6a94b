"""Concentration of activations and weights against brute force in numpy, planted outliers and invariances."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from scipy.stats import kurtosis

from uwmlib.errors import UwmError
from uwmlib.metrics import ActivationSums, top_share, weight_concentration
from uwmlib.metrics import concentration as module


def noise(samples=7, tokens=9, channels=20, *, seed=0):
    rng = np.random.default_rng(seed)
    x = rng.normal(0.2, 1, (samples, tokens, channels)) * rng.uniform(0.5, 2, channels)
    lengths = rng.integers(2, tokens + 1, samples)
    return torch.tensor(x), torch.tensor(np.arange(tokens) < lengths[:, None])


def summed(x, mask=None, *, batches=1):
    sums = ActivationSums.zeros(x.shape[2])
    masks = [None] * batches if mask is None else mask.tensor_split(batches)
    for some, kept in zip(x.tensor_split(batches), masks, strict=True):
        sums.add(some, kept)
    return sums.concentration()


def brute_force(x, mask):
    """The docstring's definitions on all activations at once, sample by sample."""
    samples = [some[kept] for some, kept in zip(x.numpy(), mask.numpy(), strict=True)]
    tokens = np.concatenate(samples)
    energy = (tokens**2).sum(axis=0)
    norms = np.concatenate([np.sqrt((some[1:] ** 2).sum(axis=1)) for some in samples])
    of_tokens = np.sort((tokens**2).sum(axis=1))[::-1]
    peaks = np.array([np.abs(some).max() for some in samples])
    medians = np.array([np.quantile(np.abs(some), 0.5, method="lower") for some in samples])
    rms = np.sqrt((tokens**2).mean(axis=0))
    return {
        "top_channel": energy.max() / energy.sum(),
        "top_channels": np.sort(energy)[::-1][: math.ceil(len(energy) / 100)].sum() / energy.sum(),
        "channel_ratio": rms.max() / np.quantile(rms, 0.5, method="lower"),
        "channel_kurtosis": (rms**4).mean() / (rms**2).mean() ** 2,
        "kurtosis": kurtosis(tokens, axis=None),
        "first_token": sum((some[0] ** 2).sum() for some in samples) / energy.sum(),
        "last_token": sum((some[-1] ** 2).sum() for some in samples) / energy.sum(),
        "top_tokens": of_tokens[: math.ceil(len(of_tokens) / 100)].sum() / energy.sum(),
        "token_ratio": norms.max() / np.quantile(norms, 0.5, method="lower"),
        "outlier_tokens": (norms > norms.mean() + 3 * norms.std()).mean(),
        "peak": peaks.mean(),
        "median": medians.mean(),
        "peak_to_median": (peaks / medians).mean(),
        "massive": ((peaks > 100) & (peaks >= 1000 * medians)).mean(),
    }


@pytest.mark.parametrize("batches", [1, 3])
@pytest.mark.parametrize("outlier", [1.0, 400.0])
def test_sums_of_batches_say_what_all_activations_say(batches, outlier, monkeypatch):
    monkeypatch.setattr(module, "AT_ONCE", 400)  # two samples at a time
    x, mask = noise(samples=40)
    x[3, 1, 5] *= 10 * outlier
    x[:, :, 7] *= outlier
    found, expected = summed(x, mask, batches=batches), brute_force(x, mask)
    assert found.keys() == expected.keys()
    assert found == pytest.approx(expected, rel=1e-9)


def test_what_padding_holds_does_not_count():
    x, mask = noise()
    expected = summed(x, mask)
    x[~mask] = math.nan
    assert summed(x, mask) == expected


def test_the_caller_keeps_his_activations():
    x, mask = noise()
    before = x.clone()
    summed(x, mask)
    assert torch.equal(x, before)


def test_the_order_of_channels_and_their_common_scale_do_not_matter():
    x, mask = noise()
    base = summed(x, mask)
    assert summed(x[:, :, torch.randperm(20)], mask) == pytest.approx(base, rel=1e-12)
    scaled = summed(3 * x, mask)
    for name in ("peak", "median"):
        assert scaled.pop(name) == pytest.approx(3 * base.pop(name))
    assert scaled == pytest.approx(base, rel=1e-9)


def test_equal_channels_are_spread_and_one_alone_has_everything():
    x, _ = noise()
    alike = summed(x.abs().clamp(1, 1))
    assert (alike["top_channel"], alike["channel_ratio"], alike["channel_kurtosis"]) == (0.05, 1, 1)
    assert math.isnan(alike["kurtosis"])
    x[:, :, 1:] = 0
    alone = summed(x)
    assert alone["top_channel"] == 1 and alone["channel_kurtosis"] == pytest.approx(20)
    assert alone["channel_ratio"] == math.inf


def test_a_gaussian_has_no_excess_kurtosis_and_few_outlier_tokens():
    found = summed(torch.randn(200, 40, 64, generator=torch.Generator().manual_seed(0)))
    assert abs(found["kurtosis"]) < 0.02
    assert found["outlier_tokens"] < 0.004 and found["token_ratio"] < 1.6
    assert found["first_token"] == pytest.approx(1 / 40, abs=5e-4)


@pytest.mark.parametrize(("value", "massive"), [(99.0, 0.0), (101.0, 0.25)])
def test_a_massive_activation_is_above_100(value, massive):
    x = torch.full((4, 5, 6), 0.05)
    x[2, 3, 1] = -value
    assert summed(x)["massive"] == massive


def test_a_large_activation_among_large_ones_is_not_massive():
    x = torch.full((4, 5, 6), 0.3)
    x[2, 3, 1] = 200  # 667 times the median
    assert summed(x)["massive"] == 0


def test_planted_tokens_are_counted_and_the_first_of_a_sample_is_not():
    x = torch.randn(50, 50, 32, generator=torch.Generator().manual_seed(1))
    x[:, 0] *= 30
    before = summed(x)
    x[:, 10] *= 10
    found = summed(x)
    assert before["outlier_tokens"] < 0.01 and before["first_token"] > 0.9
    assert found["outlier_tokens"] == pytest.approx(1 / 49)
    assert 9 < found["token_ratio"] < 16


def test_samples_of_one_token_have_no_others():
    found = summed(noise()[0][:, :1])
    assert math.isnan(found["token_ratio"]) and math.isnan(found["outlier_tokens"])
    assert found["first_token"] == found["last_token"] == 1


@pytest.mark.parametrize(
    ("x", "mask", "words"),
    [
        (torch.ones(2, 3, 5), None, "must be floats"),
        (torch.ones(2, 3, 4, dtype=torch.long), None, "must be floats"),
        (torch.ones(2, 3, 4), torch.tensor([[True] * 3, [False] * 3]), "a token of every sample"),
        (torch.ones(2, 3, 4), torch.ones(2, 2, dtype=torch.bool), "The mask"),
        (torch.full((2, 3, 4), math.inf), None, "NaN or infinite"),
    ],
)
def test_activations_that_say_nothing_are_refused(x, mask, words):
    with pytest.raises(UwmError, match=words):
        ActivationSums.zeros(4).add(x, mask)


def test_nothing_seen_is_refused():
    with pytest.raises(UwmError, match="no activations"):
        ActivationSums.zeros(4).concentration()


def test_the_largest_parts_hold_their_share():
    parts = torch.arange(1.0, 101).view(10, 10)
    assert top_share(parts) == pytest.approx(100 / 5050)
    assert top_share(parts, share=0.015) == pytest.approx(199 / 5050)  # ceil(1.5) = 2
    assert top_share(parts, share=0.07) == pytest.approx(sum(range(94, 101)) / 5050)
    assert top_share(parts, share=0) == pytest.approx(100 / 5050)
    assert top_share(parts, share=1) == 1
    assert math.isnan(top_share(torch.zeros(3)))


@pytest.mark.parametrize(
    ("parts", "share"), [([], 0.1), ([1.0, -1.0], 0.1), ([1.0, math.nan], 0.1), ([1.0], 1.5), ([1.0], -0.1)]
)
def test_parts_of_no_total_are_refused(parts, share):
    with pytest.raises(UwmError):
        top_share(torch.tensor(parts), share=share)


def test_gaussian_weights_are_as_the_formula_says():
    """The largest p of a half-normal's values hold exp(-q^2 / 2) of its sum, q the quantile that cuts them off."""
    weight = torch.randn(1000, 1000, generator=torch.Generator().manual_seed(0))
    found = weight_concentration(weight)
    assert found["top_entries"] == pytest.approx(math.exp(-(2.5758**2) / 2), abs=2e-4)
    assert abs(found["kurtosis"]) < 0.02
    assert found["top_columns"] == pytest.approx(0.01, abs=1e-3)


def test_weights_against_brute_force():
    weight, _ = noise(samples=1, tokens=30, channels=250)
    weight = weight[0].float()
    magnitude = np.sort(np.abs(weight.double().numpy()), axis=None)[::-1]
    columns = np.sort(np.abs(weight.double().numpy()).sum(axis=0))[::-1]
    assert weight_concentration(weight) == pytest.approx(
        {
            "kurtosis": kurtosis(weight.double().numpy(), axis=None),
            "top_entries": magnitude[:75].sum() / magnitude.sum(),
            "top_columns": columns[:3].sum() / columns.sum(),
        }
    )


@pytest.mark.parametrize("weight", [torch.zeros(2, 2), torch.ones(3), torch.ones(2, 2, dtype=torch.long)])
def test_what_is_no_weight_is_refused(weight):
    with pytest.raises(UwmError, match="The weight must be"):
        weight_concentration(weight)
