"""What changed between two models, and along a sweep, on the same items."""

from __future__ import annotations

import math

import numpy as np
import pytest
import scipy.stats
import torch

from uwmlib.errors import UwmError
from uwmlib.metrics import (
    Difference,
    Score,
    change_along,
    difference_between,
    mean_accuracy,
    mean_of,
    mean_over_seeds,
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
    assert found.difference == pytest.approx(0.3) and (found.lo, found.hi) == (-math.inf, math.inf)
    assert (found.n, found.base, found.p_value) == (1, pytest.approx(0.2), 1.0)


def test_a_difference_knows_its_base_and_its_p_value():
    a, b = booleans(300, 0.6, 0), booleans(300, 0.4, 1)
    found = difference_between({"gs": share_of(a)}, "gs", {"gs": share_of(b)}, "gs")
    assert found.base == pytest.approx(100 * b.mean())
    gained, lost = (a & ~b).sum(), (b & ~a).sum()
    assert found.p_value == pytest.approx(scipy.stats.binomtest(int(gained), int(gained + lost)).pvalue)
    # Of a mean over sets it is the normal one, of the limit on the side of zero.
    rng = np.random.default_rng(2)
    base, better = rng.random(200), rng.random(200)
    found = difference_between({"bleu": mean_of(better)}, "bleu", {"bleu": mean_of(base)}, "bleu")
    z = (better - base).mean() / ((better - base).std(ddof=1) / math.sqrt(200))
    assert found.p_value == pytest.approx(2 * scipy.stats.norm.sf(abs(z)), rel=1e-5)
    assert Difference(2.0, 0.0, 9.0).p_value == pytest.approx(0.05) == Difference(-2.0, -9.0, 0.0).p_value
    assert [Difference(0.0, 0.0, 0.0).p_value, Difference(1.0, 1.0, 1.0).p_value] == [1.0, 0.0]


def seeds_of(rng, *, k, n, between, shared, own):
    """Differences of k seeds on the same n items: a part of the seed, one of the item, and one of both."""
    parts = between * rng.standard_normal((k, 1)) + shared * rng.standard_normal((1, n))
    items = parts + own * rng.standard_normal((k, n))
    halves = 1.959964 * items.std(axis=1, ddof=1) / math.sqrt(n)
    means = items.mean(axis=1)
    return [Difference(m, m - h, m + h, n) for m, h in zip(means, halves, strict=True)]


@pytest.mark.parametrize(
    ("between", "shared", "own", "least", "most"),
    [
        (1.0, 0.0, 0.01, 0.93, 0.97),  # seeds alone: an ordinary t interval
        (0.0, 10.0, 0.1, 0.93, 0.97),  # items alone, the same for all seeds: as for one seed
        (0.5, 5.0, 5.0, 0.93, 1.0),
        (0.0, 0.0, 10.0, 0.97, 1.0),  # items that every seed answers in its own way: too wide, as said
    ],
)
@pytest.mark.parametrize("k", [3, 5])
def test_the_interval_over_seeds_covers_the_truth(k, between, shared, own, least, most):
    rng = np.random.default_rng(k)
    made = (seeds_of(rng, k=k, n=100, between=between, shared=shared, own=own) for _ in range(600))
    found = [mean_over_seeds(differences) for differences in made]
    assert least <= np.mean([one.lo <= 0 <= one.hi for one in found]) <= most
    assert all((one.lo <= 0 <= one.hi) == (one.p_value >= 0.05 - 1e-6) for one in found)


def test_one_seed_keeps_its_interval_and_equal_seeds_share_it():
    one = Difference(3.0, 1.0, 6.0, 50, base=20.0)
    assert mean_over_seeds([one]) is one
    three = mean_over_seeds([one] * 3)
    assert (three.difference, three.lo, three.hi) == pytest.approx((3.0, 1.0, 6.0))
    assert (three.n, three.base, three.by_seed) == (50, 20.0, (one, one, one))
    unknown = mean_over_seeds([one, Difference(3.0, 1.0, 6.0, 50)])
    assert unknown.base is None


def test_an_interval_over_seeds_by_hand():
    # S^2 / k = 4 / 2, W = 1 below and 4 above: 3 with (3 / 2)^2 degrees of freedom, 6 with (6 / 2)^2.
    z = 1.959964
    found = mean_over_seeds([Difference(x, x - z, x + 2 * z) for x in (10 - 2**0.5, 10 + 2**0.5)])
    below = 3**0.5 * scipy.stats.t.ppf(0.975, 2.25)
    above = 6**0.5 * scipy.stats.t.ppf(0.975, 9.0)
    assert (found.difference, found.lo, found.hi) == pytest.approx((10, 10 - below, 10 + above))
    assert found.p_value == pytest.approx(2 * scipy.stats.t.sf(10 / 3**0.5, 2.25))


def test_seeds_that_know_nothing_exclude_nothing():
    found = mean_over_seeds([Difference(x, -math.inf, math.inf, 1) for x in (1.0, 2.0)])
    assert (found.lo, found.hi, found.p_value) == (-math.inf, math.inf, 1.0)
    exact = mean_over_seeds([Difference(2.0, 2.0, 2.0)] * 3)
    assert (exact.lo, exact.hi, exact.p_value) == (2.0, 2.0, 0.0)


def test_seeds_share_their_items():
    with pytest.raises(UwmError, match="equally many"):
        mean_over_seeds([Difference(1.0, 0.0, 2.0, 10), Difference(1.0, 0.0, 2.0, 11)])
    with pytest.raises(UwmError, match="at least one"):
        mean_over_seeds([])


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
