"""Zero-shot classification against a plain arg max, and the mean's interval against repeated test sets."""

from __future__ import annotations

import math
import random

import pytest
import torch
from embedding_sets import random_lengths
from hypothesis import given, settings
from hypothesis import strategies as st

from uwmlib.errors import UwmError
from uwmlib.metrics import Score, accuracy, classify, mean_accuracy, share_of, wilson


@settings(max_examples=60, deadline=None)
@given(n=st.integers(1, 12), c=st.integers(1, 12), d=st.integers(1, 7), seed=st.integers(0, 10**6))
def test_classify_equals_exact_arg_max_with_ties(n, c, d, seed):
    generator = torch.Generator().manual_seed(seed)
    images = torch.randint(-3, 4, (n, d), generator=generator) * 2 + 1  # odd, so no zero rows
    classes = torch.randint(0, 2, (c, d), generator=generator) * 2 - 1  # one length: whole numbers compare
    predicted = classify(images * random_lengths(n, generator), classes * random_lengths(c, generator))
    for image, answer in zip(images.tolist(), predicted.tolist(), strict=True):
        dots = [sum(a * b for a, b in zip(image, each, strict=True)) for each in classes.tolist()]
        assert answer == dots.index(max(dots))


def test_equal_classes_give_the_lowest_index_in_every_block():
    generator = torch.Generator().manual_seed(0)
    distinct = torch.randn(5, 41, generator=generator)
    classes = distinct[torch.arange(29) % 5]
    answers = torch.randint(0, 5, (2100,), generator=generator)
    images = 3 * distinct[answers] + 0.1 * torch.randn(2100, 41, generator=generator)
    assert torch.equal(classify(images, classes), answers)


def test_lengths_do_not_matter():
    generator = torch.Generator().manual_seed(0)
    images, classes = torch.randn(50, 8, generator=generator), torch.randn(6, 8, generator=generator)
    scaled = classes * torch.tensor([[0.01], [100.0], [1.0], [7.0], [0.3], [50.0]])
    assert torch.equal(classify(images, classes), classify(5 * images, scaled))


def test_classes_a_billionth_apart_are_told_apart():
    image = torch.tensor([[1.0, 0.0]])
    angles = torch.tensor([math.pi / 4, math.pi / 4 - 1e-9], dtype=torch.float64)
    classes = torch.stack([angles.cos(), angles.sin()], dim=1)
    assert classify(image, classes).item() == 1 and classify(image, classes.flip(0)).item() == 0


def correct(k, n):
    """The accuracy of k of n."""
    return share_of(torch.arange(n) < k)


def test_accuracy_by_hand():
    found = accuracy(torch.tensor([0, 1, 2, 2]), torch.tensor([0, 1, 1, 2]))
    assert (found.value, found.n, found.items.tolist()) == (75.0, 4, [True, True, False, True])
    lo, hi = wilson(3, 4)
    assert found.interval == pytest.approx((100 * lo, 100 * hi))
    assert str(found) == f"75.0 [{100 * lo:.1f}, {100 * hi:.1f}]"


def test_the_mean_is_unweighted_and_one_set_keeps_wilsons_interval():
    one = correct(30, 40)
    assert mean_accuracy({"a": one}).interval == pytest.approx(one.interval)
    mean = mean_accuracy({"a": one, "b": correct(1, 10)})
    assert mean.value == pytest.approx((75 + 10) / 2)
    assert mean.n == 50 and mean.items is None and list(dict(mean.parts)) == ["a", "b"]
    (lo_a, hi_a), (lo_b, hi_b) = one.interval, correct(1, 10).interval
    assert mean.interval[0] == pytest.approx(42.5 - math.sqrt((75 - lo_a) ** 2 + (10 - lo_b) ** 2) / 2)
    assert mean.interval[1] == pytest.approx(42.5 + math.sqrt((hi_a - 75) ** 2 + (hi_b - 10) ** 2) / 2)


def test_the_means_interval_covers_at_its_level():
    draw = random.Random(0)
    rates, sizes = [0.05, 0.3, 0.6, 0.75, 0.9, 0.98], [40, 200, 60, 100, 150, 80]
    truth, covered, trials = 100 * sum(rates) / 6, 0, 800
    accuracies = {n: [correct(k, n) for k in range(n + 1)] for n in sizes}
    for _ in range(trials):
        sets = {
            str(i): accuracies[n][sum(draw.random() < rate for _ in range(n))]
            for i, (rate, n) in enumerate(zip(rates, sizes, strict=True))
        }
        lo, hi = mean_accuracy(sets).interval
        covered += lo <= truth <= hi
    assert covered / trials == pytest.approx(0.95, abs=0.02)


def test_bad_input_is_refused():
    rows = torch.ones(2, 3)
    for ask, message in (
        (lambda: classify(rows, torch.ones(2, 4)), "widths 3 and 4"),
        (lambda: classify(rows[:0], rows), "image_embeddings must be"),
        (lambda: classify(rows, torch.zeros(2, 3)), "Row 0 of class_embeddings"),
        (lambda: classify(rows * float("nan"), rows), "Row 0 of image_embeddings"),
        (lambda: accuracy(torch.tensor([1]), torch.tensor([1, 2])), "one prediction per label"),
        (lambda: accuracy(torch.tensor([]), torch.tensor([])), "one prediction per label"),
        (lambda: mean_accuracy({}), "no accuracy to average"),
        (lambda: mean_accuracy({"set": 50.0}), "mapping of data-set name to Score"),
        (lambda: mean_accuracy({"set": Score(50.0)}), "mapping of data-set name to Score"),
        (lambda: mean_accuracy([correct(1, 2)]), "mapping of data-set name to Score"),
        (lambda: classify("ab", rows), "image_embeddings is no dense tensor"),
        (lambda: accuracy(torch.tensor([0.5]), torch.tensor([1])), "index of a class"),
        (lambda: accuracy(["cat"], ["cat"]), "pred is no dense tensor"),
    ):
        with pytest.raises(UwmError, match=message):
            ask()
