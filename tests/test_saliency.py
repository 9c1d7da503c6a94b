"""The pure arithmetic of the scores against hand-worked numbers and the naive [B, out, in] form."""

from __future__ import annotations

import pytest
import torch
from tiny_models import naive_score

import uwmlib.editing.saliency as saliency
from uwmlib.editing import PairSums, combine, emitted, received, token_statistics
from uwmlib.editing.saliency import VARIANTS
from uwmlib.errors import UwmError


def random_inputs(batch: int, tokens: int, width: int, *, seed: int = 0) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(batch, tokens, width, generator=generator) * 2 + 0.5


def factored(z: torch.Tensor, weight: torch.Tensor, variant: str, *, prior: bool, mask=None) -> torch.Tensor:
    """The score of the pairs in z = [B safe; B unsafe] by the fast path."""
    sums = PairSums.zeros(tuple(weight.shape))
    sums.add(*token_statistics(z, mask), weight.abs())
    return combine(sums, len(z) // 2, weight.abs(), variant=variant, prior=prior)


def test_two_by_two_by_hand():
    # Safe tokens (3, 0), (1, 2): norms sqrt(10), 2; stds sqrt(2), sqrt(2).
    # Unsafe tokens (2, 1), (0, 3): norms 2, sqrt(10); stds sqrt(2), sqrt(2).
    z = torch.tensor([[[3.0, 0.0], [1.0, 2.0]], [[2.0, 1.0], [0.0, 3.0]]])
    weight = torch.tensor([[1.0, -2.0], [3.0, 0.5]])
    norm, std = token_statistics(z)
    root = 10**0.5
    assert torch.allclose(norm, torch.tensor([[root, 2.0], [2.0, root]]))
    assert torch.allclose(std, torch.full((2, 2), 2**0.5))
    # Output j receives (|z_0||w_j0| + |z_1||w_j1|) / 2.
    arrives = torch.tensor([[(root + 4) / 2, (3 * root + 1) / 2], [(2 + 2 * root) / 2, (6 + root / 2) / 2]])
    assert torch.allclose(received(norm, weight.abs()), arrives)
    # Input i emits |z_i| (|w_0i| + |w_1i|) / 2: column means 2 and 1.25.
    assert torch.equal(emitted(weight.abs()), torch.tensor([2.0, 1.25]))
    safe = arrives[0][:, None] * torch.tensor([2 * root, 2.5]) / 2**0.5
    unsafe = arrives[1][:, None] * torch.tensor([4.0, 1.25 * root]) / 2**0.5
    assert torch.allclose(factored(z, weight, "unsafe-only", prior=False), unsafe)
    assert torch.allclose(factored(z, weight, "difference", prior=False), unsafe - safe, atol=1e-6)
    for variant in ("released", "paper"):  # one pair: the same ratio
        assert torch.allclose(factored(z, weight, variant, prior=False), unsafe / safe)
        assert torch.allclose(factored(z, weight, variant, prior=True), unsafe / safe * weight.abs())


def test_mean_of_ratios_is_not_ratio_of_means():
    z, weight = random_inputs(6, 5, 4), torch.randn(3, 4)
    released, paper = (factored(z, weight, variant, prior=False) for variant in ("released", "paper"))
    assert (released - paper).abs().max() > 1e-3


@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize("prior", [False, True])
@pytest.mark.parametrize("variant", VARIANTS)
def test_fast_path_equals_naive_form(variant, prior, masked):
    z, weight = random_inputs(10, 7, 12), random_inputs(1, 9, 12, seed=1)[0]
    mask = None
    inputs = list(z.double())
    if masked:
        lengths = [2, 7, 3, 5, 4, 6, 2, 3, 7, 4]
        mask = torch.arange(7) < torch.tensor(lengths)[:, None]
        mask[3] = torch.tensor([True, False, True, True, False, False, True])  # need not be a prefix
        inputs = [sample[keep] for sample, keep in zip(z.double(), mask, strict=True)]
    expected = naive_score(inputs[:5], inputs[5:], weight, variant, prior=prior)
    got = factored(z, weight, variant, prior=prior, mask=mask)
    assert torch.allclose(got.double(), expected, rtol=2e-5, atol=1e-5 * float(expected.abs().max()))


def test_statistics_keep_their_digits_far_from_zero():
    # Spread 1 around 10,000: sums of squares in float32 would leave no correct digit of the variance.
    z = random_inputs(3, 50, 8) + 10_000
    norm, std = token_statistics(z)
    assert torch.allclose(std.double(), z.double().std(dim=1), rtol=1e-3)
    assert torch.allclose(norm.double(), z.double().norm(dim=1), rtol=1e-6)


@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize("tokens", [2, 50, 577])
def test_statistics_keep_their_digits_where_the_spread_is_the_last_digit(tokens, masked):
    # Spread 1e-3 around 10,000: neighbouring float32 numbers lie as far apart, so the mean itself is rounded.
    generator = torch.Generator().manual_seed(tokens)
    wide = 1e4 + 1e-3 * torch.randn(5, tokens, 40, generator=generator, dtype=torch.float64)
    z = wide.float()
    mask = None
    if masked:
        z = torch.cat([z, torch.full((5, 3, 40), float("nan"))], dim=1)
        mask = (torch.arange(tokens + 3) < tokens).expand(5, -1)
    norm, std = token_statistics(z, mask)
    exact = z[:, :tokens].double()
    assert torch.allclose(std.double(), exact.std(dim=1) + 1e-8, rtol=1e-5, atol=0)
    assert torch.allclose(norm.double(), exact.norm(dim=1), rtol=1e-6, atol=0)


@pytest.mark.parametrize("masked", [False, True])
def test_one_loud_token_costs_no_digits(masked):
    # The class token of a ViT is far from all others, wherever it stands.
    z = random_inputs(6, 50, 16)
    for sample in range(6):
        z[sample, 9 * sample] *= 1e4
    mask = torch.ones(6, 50, dtype=torch.bool) if masked else None
    norm, std = token_statistics(z, mask)
    assert torch.allclose(std.double(), z.double().std(dim=1), rtol=1e-5)
    assert torch.allclose(norm.double(), z.double().norm(dim=1), rtol=1e-5)


@pytest.mark.parametrize("masked", [False, True])
def test_a_spread_near_the_rounding_of_its_mean_keeps_its_digits(masked):
    # As the first attention of mini-SigLIP shows: nearly the same value on every token.
    z = 1 + 1e-6 * random_inputs(4, 36, 64)
    keep = torch.arange(36) < torch.tensor([36, 20, 5, 2])[:, None] if masked else None
    _, std = token_statistics(z, keep)
    for row, tokens in enumerate(z.double()):
        exact = (tokens if keep is None else tokens[keep[row]]).std(dim=0) + 1e-8
        assert torch.allclose(std[row].double(), exact, rtol=1e-4, atol=0)


def test_constant_features_have_no_spread_and_no_nan():
    # Most means are off by a rounding, and what is taken out of the variance may be more than was in it.
    level = random_inputs(1, 4, 1000)[0].unsqueeze(1)
    for tokens in (3, 49, 50, 577, 1025):
        norm, std = token_statistics(level.expand(-1, tokens, -1))
        assert torch.isfinite(norm).all()
        assert ((std >= 1e-8) & (std <= 1e-8 + 1e-6 * level[:, 0].abs())).all()


@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize("at_once", [1, 90, 10**9])
def test_statistics_do_not_depend_on_how_many_samples_are_reduced_at_a_time(at_once, masked, monkeypatch):
    z = random_inputs(11, 6, 5) * torch.logspace(-3, 3, 5) + 100
    mask = torch.arange(6) < torch.arange(2, 13)[:, None].clamp_max(5) if masked else None
    monkeypatch.setattr(saliency, "AT_ONCE", 10**4)
    whole = token_statistics(z, mask)
    monkeypatch.setattr(saliency, "AT_ONCE", at_once)
    for a, b in zip(token_statistics(z, mask), whole, strict=True):
        assert torch.allclose(a, b, rtol=1e-6, atol=0)


def test_low_precision_of_products_costs_the_statistics_little():
    # What `torch.set_float32_matmul_precision` allows is for the model, not for a mean that is taken away again.
    z = random_inputs(3, 50, 16) * 0.1 + 5
    exact = token_statistics(z)
    torch.set_float32_matmul_precision("medium")
    try:
        rough = token_statistics(z)
    finally:
        torch.set_float32_matmul_precision("highest")
    for a, b in zip(rough, exact, strict=True):
        assert torch.allclose(a, b, rtol=0.01, atol=0)


def test_input_is_left_alone_in_any_layout():
    mask = torch.arange(7) < torch.tensor([7, 3, 5])[:, None]
    z = random_inputs(3, 7, 4)
    turned = z.transpose(0, 1).contiguous().transpose(0, 1)  # as models that run sequence first show it
    before = z.clone()
    for keep in (None, mask):
        for a, b in zip(token_statistics(z, keep), token_statistics(turned, keep), strict=True):
            assert torch.allclose(a, b, rtol=1e-6, atol=0)
    assert torch.equal(z, before) and torch.equal(turned, before)


def test_masked_tokens_do_not_matter():
    z = random_inputs(2, 6, 3)
    mask = torch.tensor([[True, True, True, False, False, False], [True] * 6])
    other = z.clone()
    other[0, 3:] = float("inf")
    for a, b in zip(token_statistics(z, mask), token_statistics(other, mask), strict=True):
        assert torch.equal(a, b)


def test_silent_features_and_zero_rows_stay_finite():
    z, weight = random_inputs(4, 6, 5), torch.randn(3, 5)
    z[:, :, 0] = 0  # silent in every sample
    z[0, :, 1] = 0  # silent in one safe sample only
    z[:, :, 2] = 3  # constant: no spread
    weight[1] = 0
    norm, std = token_statistics(z)
    assert torch.allclose((norm / std)[:, 0], torch.full((4,), 5.0).sqrt(), rtol=1e-6, atol=0)  # sqrt(T - 1)
    assert torch.equal(std[:, 2], torch.full((4,), 1e-8))
    for variant in VARIANTS:
        score = factored(z, weight, variant, prior=False)
        assert torch.isfinite(score).all()
    ratio = factored(z, weight, "released", prior=False)
    assert ratio[1, 0] == pytest.approx(1.0)  # nothing arrives on either side, nothing is sent


def test_batches_add_up():
    z, weight = random_inputs(14, 6, 5), torch.randn(4, 5)
    norm, std = token_statistics(z)
    once, pieces = PairSums.zeros((4, 5)), PairSums.zeros((4, 5))
    once.add(norm, std, weight.abs())
    for pairs in (slice(0, 3), slice(3, 6), slice(6, 7)):  # the last batch is short
        rows = torch.cat([torch.arange(7)[pairs], torch.arange(7, 14)[pairs]])
        pieces.add(norm[rows], std[rows], weight.abs())
    for part in ("unsafe", "safe", "ratio"):
        assert torch.allclose(getattr(once, part), getattr(pieces, part), rtol=1e-5)


def test_a_weight_that_wants_gradients_is_added_like_any_other():
    z, weight = random_inputs(4, 6, 5), torch.randn(3, 5)
    plain, wanting = PairSums.zeros((3, 5)), PairSums.zeros((3, 5))
    plain.add(*token_statistics(z), weight.abs())
    wanting.add(*token_statistics(z.requires_grad_()), torch.nn.Parameter(weight).abs())
    for part in ("unsafe", "safe", "ratio"):
        assert torch.equal(getattr(plain, part), getattr(wanting, part))


@pytest.mark.parametrize("mask", [None, torch.tensor([[True, True, True], [False, True, False]])])
def test_one_token_has_no_deviation(mask):
    z = random_inputs(2, 3, 4)
    with pytest.raises(UwmError, match="Sample 1" if mask is not None else "Sample 0"):
        token_statistics(z if mask is not None else z[:, :1], mask)


def test_unknown_variant_is_answered_with_the_nearest():
    with pytest.raises(UwmError, match="'released'"):
        combine(PairSums.zeros((1, 1)), 1, torch.ones(1, 1), variant="release", prior=False)
