"""What changed between two models, and along a sweep, on the same items."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from uwmlib.errors import UwmError
from uwmlib.metrics import (
    Difference,
    Score,
    change_along,
    difference_between,
    mean_accuracy,
    mean_of,
    paired_difference,
    share_of,
)


def booleans(n, share, seed):
    return np.random.default_rng(seed).random(n) < share


def accuracies(sizes, shares, seed):
    """Items by data set, and the mean score over the sets."""
    items = {
        name: booleans(n, share, seed + i)
        for i, (name, n, share) in enumerate(zip("xyz", sizes, shares, strict=False))
    }
    return items, {"zs_mean": mean_accuracy({name: share_of(hits) for name, hits in items.items()})}


def test_difference_over_one_data_set_is_the_paired_one():
    a, b = booleans(300, 0.6, 0), booleans(300, 0.4, 1)
    got = difference_between({"gs": share_of(a)}, "gs", {"gs": share_of(b)}, "gs")
    want = paired_difference(torch.from_numpy(b), torch.from_numpy(a))
    assert got.difference == pytest.approx(100 * (a.mean() - b.mean()))
    assert (got.lo, got.hi, got.n) == (pytest.approx(want.lo), pytest.approx(want.hi), 300)


def test_difference_of_means_over_data_sets_counts_them_alike():
    a, ours = accuracies((100, 1000), (0.9, 0.5), 0)
    b, theirs = accuracies((100, 1000), (0.5, 0.5), 2)
    got = difference_between(ours, "zs_mean", theirs, "zs_mean")
    points = [100 * (a[name].mean() - b[name].mean()) for name in a]
    assert got.difference == pytest.approx(np.mean(points)) and got.n == 1100
    # Independent data sets: the width of the mean is close to that of a normal approximation.
    variances = [np.var(100 * (a[name].astype(float) - b[name])) / len(a[name]) for name in a]
    assert got.hi - got.lo == pytest.approx(2 * 1.96 * math.sqrt(sum(variances)) / 2, rel=0.05)


def test_difference_needs_the_same_items():
    nine, eight = ({"gs": share_of(booleans(n, 0.5, 0))} for n in (9, 8))
    with pytest.raises(UwmError, match="8 and 9"):
        difference_between(nine, "gs", eight, "gs")
    means = [{"zs_mean": mean_accuracy({name: nine["gs"]})} for name in "xy"]
    with pytest.raises(UwmError, match="same data sets"):
        difference_between(means[0], "zs_mean", means[1], "zs_mean")
    with pytest.raises(UwmError, match="same data sets"):
        difference_between(means[0], "zs_mean", nine, "gs")
    unknown = {"gs": Score(4.5)}, {"gs": mean_accuracy({"x": Score(4.5, (4.0, 5.0), 9), "y": nine["gs"]})}, {}
    for other in unknown:
        assert difference_between(nine, "gs", other, "gs") is None
        assert difference_between(other, "gs", nine, "gs") is None


def test_difference_of_scores_per_item_is_the_paired_normal_one():
    rng = np.random.default_rng(5)
    base = rng.random(400)
    better = np.clip(base + 0.02 + 0.05 * rng.standard_normal(400), 0, 1)
    got = difference_between({"bleu": mean_of(better)}, "bleu", {"bleu": mean_of(base)}, "bleu")
    paired = better - base
    assert got.difference == pytest.approx(paired.mean()) and got.n == 400
    half = 1.959964 * paired.std(ddof=1) / math.sqrt(400)
    assert (got.lo, got.hi) == (pytest.approx(paired.mean() - half), pytest.approx(paired.mean() + half))
    # Unpaired, the interval would be more than four times as wide: pairing is what makes 0.02 visible.
    assert math.sqrt(better.var() + base.var()) > 4 * paired.std()


def test_scores_that_cannot_be_paired_are_refused():
    two, three = ({"bleu": mean_of(np.linspace(0.1, 0.3, n))} for n in (2, 3))
    with pytest.raises(UwmError, match="3 and 2 items"):
        difference_between(two, "bleu", three, "bleu")


def test_scores_and_successes_are_not_compared_with_each_other():
    assert difference_between({"gs": mean_of(np.ones(3))}, "gs", {"gs": share_of([True] * 3)}, "gs") is None


def test_one_item_has_a_difference_whose_interval_excludes_nothing():
    one, other = ({"bleu": mean_of(np.array([value]))} for value in (0.5, 0.2))
    found = difference_between(one, "bleu", other, "bleu")
    assert found == Difference(pytest.approx(0.3), -math.inf, math.inf, 1)


def test_change_along_a_sweep_is_the_mean_of_the_items_lines():
    held = np.random.default_rng(6).random((5, 300)) < np.array([0.2, 0.3, 0.35, 0.5, 0.7])[:, None]
    points = [{"gs": share_of(row)} for row in held]
    slopes = 4 * np.polyfit(np.arange(5), 100.0 * held, 1)[0]
    got = change_along(points, "gs")
    half = 1.959964 * slopes.std(ddof=1) / math.sqrt(300)
    assert got.difference == pytest.approx(slopes.mean()) and got.n == 300
    assert got.hi - got.difference == pytest.approx(half) == got.difference - got.lo
    # With two points it is their difference, and backwards it has the other sign.
    ends = change_along([points[0], points[-1]], "gs")
    assert ends.difference == pytest.approx(100 * (held[-1].mean() - held[0].mean()))
    assert change_along(points[::-1], "gs").difference == pytest.approx(-got.difference)


@pytest.mark.parametrize(
    ("points", "sentence"),
    [
        ([share_of([True] * 3)], "at least two"),
        ([share_of([True] * 3), share_of([True] * 4)], "equally many"),
        ([share_of([True] * 3), Score(4.5)], "one outcome per item"),
        ([mean_of(np.ones(3))] * 2, "one outcome per item"),
    ],
)
def test_a_sweep_without_a_direction_is_refused(points, sentence):
    with pytest.raises(UwmError, match=sentence):
        change_along([{"gs": point} for point in points], "gs")


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        ({"interval": (1, 2, 3)}, "its two limits"), ({"interval": 5}, "its two limits"),
        ({"n": -1}, "number of items"),
        ({"n": "3"}, "number of items"), ({"unit": "in seconds"}, "give a Unit"),
    ],
)  # fmt: skip
def test_what_makes_no_score_is_refused(wrong, words):
    with pytest.raises(UwmError, match=words):
        Score(1.0, **wrong)
