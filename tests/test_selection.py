"""Which weights are selected, against a plain loop over sorted scores."""

from __future__ import annotations

from fractions import Fraction

import pytest
import torch

from uwmlib.editing import select_adaptive, select_fixed, select_positive
from uwmlib.editing.selection import select
from uwmlib.errors import UwmError


def loop_adaptive(score: list[int], tau: Fraction) -> list[int]:
    """The released rule in exact arithmetic: ascending, keep where the cumulative share exceeds 1 - tau."""
    total = sum(score)
    # Of equal shares the lower index shall be taken first, so it stands last.
    order = sorted(range(len(score)), key=lambda index: (Fraction(score[index], total), -index))
    share, kept = Fraction(0), []
    for index in order:
        share += Fraction(score[index], total)
        if share > 1 - tau:
            kept.append(index)
    return sorted(kept)


@pytest.mark.parametrize(
    "tau", [Fraction(1, 64), Fraction(1, 50), Fraction(1, 10), Fraction(1, 2), Fraction(15, 16)]
)
@pytest.mark.parametrize("low", [0, -3, -60])
def test_adaptive_equals_the_loop(tau, low):
    generator = torch.Generator().manual_seed(0)
    for _ in range(20):
        score = torch.randint(low, 20, (7, 9), generator=generator).float()  # many ties
        if score.sum() == 0:
            continue
        expected = loop_adaptive([int(value) for value in score.flatten()], tau)
        assert select_adaptive(score, float(tau)).tolist() == expected


def test_adaptive_is_the_smallest_set_that_holds_tau():
    score = torch.rand(40, 30, generator=torch.Generator().manual_seed(1)) ** 8
    for tau in (0.001, 0.02, 0.3, 0.99):
        chosen = select_adaptive(score, tau)
        flat = score.flatten().double()
        assert flat[chosen].sum() >= tau * flat.sum()
        assert flat[chosen].sum() - flat[chosen].min() < tau * flat.sum()
        others = torch.ones(flat.numel(), dtype=torch.bool).index_fill_(0, chosen, False)
        assert flat[others].max() <= flat[chosen].min()


def test_adaptive_by_hand():
    score = torch.tensor([[1.0, 4.0], [2.0, 1.0]])  # total 8; the 4 alone holds exactly half
    assert select_adaptive(score, 0.5).tolist() == [1]
    assert select_adaptive(score, 0.5001).tolist() == [1, 2]
    assert select_adaptive(score, 0.76).tolist() == [0, 1, 2]  # of the two ones the lower index


def test_adaptive_sums_in_float64():
    # 2^24 + 1 is no float32: there, the ones would add nothing to what the large score holds.
    score = torch.cat([torch.tensor([2.0**24]), torch.ones(1000)])
    assert len(select_adaptive(score, (2**24 + 500) / (2**24 + 1000))) == 501


def test_adaptive_takes_the_other_end_when_the_total_is_negative():
    assert select_adaptive(torch.tensor([5.0, -9.0, 1.0]), 0.1).tolist() == [1]


def test_fixed_by_hand():
    score = torch.tensor([[5.0, 1.0, 3.0, 2.0, 4.0]])
    assert select_fixed(score, 0.4).tolist() == [0, 4]  # k = 3, threshold 3
    assert select_fixed(score, 0.39).tolist() == [0, 4]  # k = int(3.05)
    assert select_fixed(score, 0.9).tolist() == []  # k = 0 edits nothing, as released
    tied = torch.tensor([1.0, 2.0, 2.0, 2.0])
    assert select_fixed(tied, 0.5).tolist() == []  # strictly above the threshold


def test_fixed_share_of_many_weights():
    score = torch.randperm(10_000, generator=torch.Generator().manual_seed(0)).float().view(100, 100)
    for tau in (0.035, 0.005, 0.02):
        chosen = select_fixed(score, tau)
        assert len(chosen) == round(tau * 10_000)
        assert score.flatten()[chosen].min() == 10_000 - len(chosen)
        assert (chosen.diff() > 0).all()


def test_rule_by_name():
    score = torch.tensor([5.0, 1.0, 1.0, 1.0])
    assert select(score, 0.5, rule="adaptive").tolist() == [0]
    assert select(score, 0.5, rule="fixed").tolist() == [0]
    with pytest.raises(UwmError, match="'adaptive'"):
        select(score, 0.5, rule="adaptve")


@pytest.mark.parametrize("rule", ["adaptive", "fixed"])
def test_bad_input_is_refused(rule):
    for tau in (0, 1, -0.1, 1.5, float("nan")):
        with pytest.raises(UwmError, match="tau"):
            select(torch.ones(3), tau, rule=rule)
    for bad in (float("nan"), float("inf")):
        with pytest.raises(UwmError, match="NaN or infinite"):
            select(torch.tensor([1.0, bad]), 0.5, rule=rule)
    for wrong in (
        torch.ones(0, 3),
        torch.ones(3, dtype=torch.bool),
        torch.ones(3, dtype=torch.int64),
        None,
        "ab",
    ):
        with pytest.raises(UwmError, match="[Tt]he score"):
            select(wrong, 0.5, rule=rule)
    assert select([0.5, 2.0], 0.4, rule=rule).tolist() == [1]


def test_no_mass_is_refused():
    with pytest.raises(UwmError, match="sum to zero"):
        select_adaptive(torch.zeros(2, 2), 0.5)


@pytest.mark.parametrize("rule", ["adaptive", "fixed"])
@pytest.mark.parametrize("tau", ["0.02", None, [0.1], 1j])
def test_a_tau_that_is_no_number_is_refused(rule, tau):
    with pytest.raises(UwmError, match="tau is .*: give a number"):
        select(torch.ones(3, 3), tau, rule=rule)


def loop_positive(score: list[int], tau: Fraction) -> list[int]:
    """Take positive scores from the highest on until they hold tau of their sum; of equal ones the lower index."""
    order = sorted((i for i, value in enumerate(score) if value > 0), key=lambda i: (-score[i], i))
    mass, kept = sum(value for value in score if value > 0), []
    while order and sum(score[i] for i in kept) < tau * mass:
        kept.append(order.pop(0))
    return sorted(kept)


@pytest.mark.parametrize("low", [0, -3, -60])
def test_positive_takes_the_top_whatever_the_sign_of_the_total(low):
    generator = torch.Generator().manual_seed(2)
    for tau in (Fraction(1, 50), Fraction(1, 4), Fraction(15, 16)):
        score = torch.randint(low, 20, (7, 9), generator=generator).float()
        expected = loop_positive([int(value) for value in score.flatten()], tau)
        assert select_positive(score, float(tau)).tolist() == expected
        assert select(score, float(tau), rule="positive").tolist() == expected
        if low == 0:
            assert select_adaptive(score, float(tau)).tolist() == expected


def test_a_negative_total_turns_the_released_rule_round_and_not_the_repaired_one():
    score = torch.tensor([3.0, -1.0, -9.0, 2.0])
    assert select_adaptive(score, 0.5).tolist() == [2]
    assert select_positive(score, 0.5).tolist() == [0]
    assert select_positive(-score.abs(), 0.5).tolist() == []
