"""SNIP and Wanda set differences: the sets by hand, the importances written out, the edit undone bit for bit."""

from __future__ import annotations

import pytest
import torch
from tiny_models import TINY, bits, indices_of, site_inputs, tiny_clip, tiny_tuples
from torch.nn import functional as F

from uwmlib.editing import WeightEdit, fit_set_difference, set_difference
from uwmlib.errors import UwmError

N = 6


def test_the_sets_by_hand():
    unsafe = torch.tensor([[5.0, 4.0, 3.0], [2.0, 1.0, 0.0], [9.0, 8.0, 7.0], [6.0, 6.0, 0.0]])
    safe = torch.tensor([[0.0, 9.0, 0.0], [0.0, 0.0, 0.0], [8.0, 0.0, 0.0], [0.0, 7.0, 0.0]])
    # The top half on unsafe pairs is 9 8 7 6 6 5 at 6 7 8 9 10 0; the top quarter on safe pairs 1, 6 and 10.
    assert set_difference(safe, unsafe, p=0.25, q=0.5).tolist() == [0, 7, 8, 9]
    assert set_difference(safe, unsafe, p=0.0, q=0.25).tolist() == [6, 7, 8]
    assert set_difference(safe, unsafe, p=1.0, q=1.0).tolist() == []
    assert set_difference(safe, unsafe, p=0.25, q=0.0).tolist() == []
    equal = torch.ones(4)
    assert set_difference(torch.zeros(4), equal, p=0.0, q=0.5).tolist() == [0, 1]


@pytest.mark.parametrize("side", ["safe", "unsafe"])
def test_snip_is_the_mean_of_weight_times_gradient(side):
    vlm, tuples = tiny_clip(), tiny_tuples(N)
    found = fit_set_difference(vlm, tuples, batch_size=4, progress=False)
    expected = {site.name: 0.0 for site in found.sites}
    for part, share in ((tuples[:4], 4 / N), (tuples[4:], 2 / N)):
        texts, images = getattr(part, f"{side}_texts"), getattr(part, f"{side}_images")
        rows = vlm.encode_text(vlm.tokenize(texts)) @ vlm.encode_image(vlm.preprocess(images)).T
        logits, labels = vlm.model.logit_scale.exp() * rows, torch.arange(len(part))
        vlm.model.zero_grad()
        ((F.cross_entropy(logits, labels) + F.cross_entropy(logits.T, labels)) / 2).backward()
        for site in found.sites:
            gradient = vlm.model.get_parameter(site.parameter).grad[slice(*(site.rows or (None,)))]
            expected[site.name] = expected[site.name] + share * (vlm.weight(site) * gradient).abs().detach()
    vlm.model.zero_grad()
    for name, importance in getattr(found, side).items():
        assert torch.allclose(importance, expected[name], rtol=1e-3, atol=1e-8), name


@pytest.mark.parametrize("family", TINY)
@pytest.mark.parametrize("side", ["safe", "unsafe"])
def test_wanda_is_weight_times_the_norm_of_its_input(family, side):
    vlm, tuples = TINY[family](), tiny_tuples(N)
    found = fit_set_difference(vlm, tuples, score="wanda", text="fc2", vision="out", progress=False)
    for site in (found.sites[0], found.sites[-1]):
        z = torch.cat(site_inputs(vlm, site, tuples, side))  # [tokens, in], padding left out
        expected = vlm.weight(site).detach().double().abs() * z.norm(dim=0)
        assert torch.allclose(getattr(found, side)[site.name].double(), expected, rtol=1e-4)


@pytest.mark.parametrize("score", ["snip", "wanda"])
@pytest.mark.parametrize("alpha", [0.0, -1.0])
def test_weights_are_scaled_and_put_back(score, alpha):
    vlm = tiny_clip()
    found, before = fit_set_difference(vlm, tiny_tuples(N), score=score, progress=False), bits(vlm)
    assert all(parameter.requires_grad and parameter.grad is None for parameter in vlm.model.parameters())
    weights = {site: vlm.weight(site).detach().clone() for site in found.sites}
    with found.edit(0.3, p=0.2, alpha=alpha).applied(vlm):
        for site, weight in weights.items():
            chosen = set_difference(found.safe[site.name], found.unsafe[site.name], p=0.2, q=0.3)
            expected = weight.flatten().clone()
            expected[chosen] *= alpha
            assert len(chosen) and torch.equal(vlm.weight(site).detach().flatten(), expected)
    assert bits(vlm) == before
    with found.edit(0.0).applied(vlm):
        assert bits(vlm) == before


def test_weak_edits_are_part_of_strong_ones():
    found = fit_set_difference(tiny_clip(), tiny_tuples(N), progress=False)
    weak, strong = (indices_of(found.edit(q)) for q in (0.2, 0.5))
    assert all(set(weak[name].tolist()) < set(strong[name].tolist()) for name in weak)


def test_it_is_saved_and_refused_on_other_weights(tmp_path):
    vlm = tiny_clip()
    found = fit_set_difference(vlm, tiny_tuples(4), text=None, progress=False)
    edit = found.edit(0.2, alpha=-1)
    edit.save(tmp_path / "edit.safetensors")
    assert WeightEdit.load(tmp_path / "edit.safetensors").description == edit.description
    assert (edit.description["method"], edit.description["p"], edit.description["q"]) == ("snip", 0.1, 0.2)
    with torch.no_grad():
        vlm.weight(found.sites[0]).add_(1.0)
    with pytest.raises(UwmError, match="not those that were scored"):
        found.edit(0.2)


def test_what_cannot_be_used_is_refused():
    vlm, tuples = tiny_clip(), tiny_tuples(4)
    with pytest.raises(UwmError, match="'snip'"):
        fit_set_difference(vlm, tuples, score="snap", progress=False)
    found = fit_set_difference(vlm, tuples, score="wanda", vision=None, progress=False)
    for options in ({"q": 1.1}, {"q": -0.1}, {"q": 0.1, "p": 2}, {"q": 0.1, "alpha": float("inf")}):
        with pytest.raises(UwmError):
            found.edit(**options)
