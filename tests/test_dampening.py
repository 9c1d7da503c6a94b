"""SSD: its factors by hand, its Fisher diagonals against autograd written out, its edit undone bit for bit."""

from __future__ import annotations

import pytest
import torch
from tiny_models import TINY, bits, tiny_clip, tiny_tuples
from torch.nn import functional as F

from uwmlib.editing import WeightEdit, dampening_factor, fit_dampening
from uwmlib.errors import UwmError
from uwmlib.models.sites import KINDS

N = 6


def test_factors_by_hand():
    safe, unsafe = torch.tensor([1.0, 1.0, 4.0, 0.0, 0.0]), torch.tensor([20.0, 10.0, 1.0, 3.0, 0.0])
    # alpha = 10: the first has 20 > 10, the second not 10 > 10; the fourth matters to unsafe pairs alone.
    assert dampening_factor(safe, unsafe, 0.1).tolist() == pytest.approx([1 / 20, 1, 1, 0, 1])
    assert dampening_factor(safe, unsafe, 0.2).tolist() == pytest.approx([1 / 20, 1 / 10, 1, 0, 1])
    assert dampening_factor(safe, unsafe, 0.1, 5.0).tolist() == pytest.approx([1 / 4, 1, 1, 0, 1])
    # alpha = 1/8 selects the third too, where lambda F_s / F_u = 4 would make it grow.
    assert dampening_factor(safe, unsafe, 8.0).tolist() == pytest.approx([1 / 20, 1 / 10, 1, 0, 1])
    assert dampening_factor(safe, unsafe, 0.0).tolist() == [1] * 5


@pytest.mark.parametrize("side", ["safe", "unsafe"])
def test_fisher_is_the_mean_over_batches_of_squared_gradients(side):
    vlm, tuples = tiny_clip(), tiny_tuples(N)
    found = getattr(fit_dampening(vlm, tuples, batch_size=4, progress=False), side)
    expected = dict.fromkeys(found, 0.0)
    for part in (tuples[:4], tuples[4:]):
        texts, images = getattr(part, f"{side}_texts"), getattr(part, f"{side}_images")
        logits = (
            vlm.model.logit_scale.exp()
            * vlm.encode_text(vlm.tokenize(texts))
            @ vlm.encode_image(vlm.preprocess(images)).T
        )
        labels = torch.arange(len(part))
        vlm.model.zero_grad()
        ((F.cross_entropy(logits, labels) + F.cross_entropy(logits.T, labels)) / 2).backward()
        for name in expected:
            expected[name] = expected[name] + vlm.model.get_parameter(name).grad ** 2 / 2
    vlm.model.zero_grad()
    for name, fisher in found.items():
        assert torch.allclose(fisher, expected[name], rtol=1e-3, atol=1e-9), name
        assert fisher.any()


def test_every_matrix_of_the_blocks_is_taken_and_no_other():
    vlm = tiny_clip()
    found = fit_dampening(vlm, tiny_tuples(4), progress=False)
    wanted = {name for name, p in vlm.model.named_parameters() if ".resblocks." in name and p.ndim == 2}
    assert set(found.encoders) == wanted and len(wanted) == 2 * 2 * 4
    assert {
        name.startswith("visual.") for name, encoder in found.encoders.items() if encoder == "vision"
    } == {True}


@pytest.mark.parametrize("family", TINY)
def test_weights_are_dampened_and_put_back(family):
    vlm = TINY[family]()
    found, before = fit_dampening(vlm, tiny_tuples(N), batch_size=3, progress=False), bits(vlm)
    assert all(parameter.requires_grad and parameter.grad is None for parameter in vlm.model.parameters())
    weights = {name: vlm.model.get_parameter(name).detach().clone() for name in found.encoders}
    with found.edit(0.5).applied(vlm):
        for name, weight in weights.items():
            selected = found.unsafe[name] > 2 * found.safe[name]
            now = vlm.model.get_parameter(name).detach()
            expected = weight * found.safe[name] / found.unsafe[name]
            assert selected.any() and torch.equal(now[~selected], weight[~selected])
            assert torch.allclose(now[selected], expected[selected], rtol=1e-3, atol=1e-7)
    assert bits(vlm) == before
    with found.edit(0.0).applied(vlm):
        assert bits(vlm) == before


def test_behind_strength_1_lambda_is_alpha():
    vlm = tiny_clip()
    found = fit_dampening(vlm, tiny_tuples(4), sites=vlm.sites(text="out"), progress=False)
    assert found.edit(0.3).description["lambda"] == found.edit(1.0).description["lambda"] == 1.0
    edit = found.edit(4.0)
    assert edit.description["lambda"] == 0.25
    name = next(iter(found.encoders))
    weight, delta = vlm.model.get_parameter(name).detach(), edit.changes[name].delta
    selected = 4 * found.unsafe[name] > found.safe[name]
    expected = weight * (0.25 * found.safe[name] / found.unsafe[name] - 1)
    assert (
        torch.allclose(delta[selected], expected[selected], rtol=1e-4, atol=1e-8)
        and not delta[~selected].any()
    )


def test_sites_alone_are_dampened_and_of_a_stacked_weight_their_rows():
    vlm = tiny_clip()
    sites = vlm.sites(text="value", vision="fc2")
    found = fit_dampening(vlm, tiny_tuples(4), sites=sites, progress=False)
    edit = found.edit(10.0)
    assert list(edit.changes) == [site.parameter for site in sites]
    for site in sites[:2]:
        delta = edit.changes[site.parameter].delta
        assert not delta[: site.rows[0]].any() and delta[slice(*site.rows)].any()


def test_it_is_saved_and_refused_on_other_weights(tmp_path):
    vlm = tiny_clip()
    found = fit_dampening(vlm, tiny_tuples(4), sites=vlm.sites(text=KINDS), progress=False)
    edit = found.edit(0.3)
    edit.save(tmp_path / "edit.safetensors")
    assert WeightEdit.load(tmp_path / "edit.safetensors").description == edit.description
    assert (edit.description["strength"], edit.description["lambda"]) == (0.3, 1.0)
    with torch.no_grad():
        vlm.weight(vlm.sites(text="out")[0]).add_(1.0)
    with pytest.raises(UwmError, match="not those that were scored"):
        found.edit(0.3)


def test_what_cannot_be_fitted_is_refused():
    vlm, tuples = tiny_clip(), tiny_tuples(4)
    with pytest.raises(UwmError, match="sites"):
        fit_dampening(vlm, tuples, sites="fc2", progress=False)
    with pytest.raises(UwmError, match="no site"):
        fit_dampening(vlm, tuples, sites=[], progress=False)
    found = fit_dampening(vlm, tuples, sites=vlm.sites(text="out"), progress=False)
    for strength in (-1, float("nan"), "strong"):
        with pytest.raises(UwmError, match="strength"):
            found.edit(strength)
