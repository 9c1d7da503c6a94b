"""Gated neuron negation: its slopes against finite differences, its order by hand, its edit undone bit for bit."""

from __future__ import annotations

import pytest
import torch
from tiny_models import TINY, bits, tiny_clip, tiny_tuples

from uwmlib.editing import WeightEdit, fit_gated_negation, gate_edit
from uwmlib.errors import UwmError

N = 7


def margins_of(vlm, tuples):
    """Both parts of B, and the cross-entropy of the safe pairs, written out."""
    with torch.no_grad():
        t_s, t_u = (vlm.encode_text(vlm.tokenize(x)) for x in (tuples.safe_texts, tuples.unsafe_texts))
        v_s, v_u = (vlm.encode_image(vlm.preprocess(x)) for x in (tuples.safe_images, tuples.unsafe_images))
        logits = vlm.model.logit_scale.exp() * t_s @ v_s.T
    text = sum(float(t @ (a - b)) for x in (t_s, t_u) for t, a, b in zip(x, v_s, v_u, strict=True)) / len(t_s)
    image = sum(float(v @ (a - b)) for x in (v_s, v_u) for v, a, b in zip(x, t_s, t_u, strict=True)) / len(
        t_s
    )
    rows, columns = logits.log_softmax(dim=1).diagonal(), logits.log_softmax(dim=0).diagonal()
    return text, image, -float((rows + columns).mean()) / 2


@pytest.mark.parametrize(("balance", "weights"), [(0.5, (1, 1)), (1.0, (2, 0)), (0.25, (0.5, 1.5))])
def test_slopes_are_finite_differences_of_a_gate(balance, weights):
    vlm, tuples, step = tiny_clip(), tiny_tuples(N), 1e-4
    vlm.model.double()
    found = fit_gated_negation(vlm, tuples, balance=balance, batch_size=4, progress=False)
    parts = [tuples[:4], tuples[4:]]
    for site, place in ((found.sites[1], 5), (found.sites[-1], 100)):
        of_encoder = [each for each in found.sites if each.encoder == site.encoder]
        number = sum(vlm.weight(each).shape[1] for each in of_encoder[: of_encoder.index(site)]) + place
        moved = []
        for sign in (1, -1):
            gates = torch.ones(vlm.weight(site).shape[1], dtype=torch.float64)
            gates[place] += sign * step
            with gate_edit(vlm, {site: gates}).applied(vlm):
                moved.append([margins_of(vlm, part) for part in parts])
        there, back = torch.tensor(moved, dtype=torch.float64)
        slopes = (there - back) / (2 * step)  # [2 batches, 3]
        mean = (slopes * torch.tensor([[4 / N], [3 / N]])).sum(dim=0)
        b = weights[0] * mean[0] + weights[1] * mean[1]
        assert float(found.b[site.encoder][number]) == pytest.approx(float(b), rel=1e-4, abs=1e-7)
        assert float(found.k[site.encoder][number]) == pytest.approx(
            float(slopes[:, 2].norm()), rel=1e-4, abs=1e-7
        )


@pytest.mark.parametrize("ridge", [0.0, 1.0, 10.0])
def test_the_order_is_by_lean_over_knowledge(ridge):
    found = fit_gated_negation(tiny_clip(), tiny_tuples(N), ridge=ridge, progress=False)
    for encoder, order in found.order.items():
        b, k = found.b[encoder].tolist(), found.k[encoder].tolist()
        mean = sum(k) / len(k)
        score = [-x / (y + ridge * mean) for x, y in zip(b, k, strict=True)]
        assert sorted(order.tolist()) == list(range(len(b)))
        ordered = [score[i] for i in order]
        assert all(x >= y - 1e-4 * abs(y) for x, y in zip(ordered, ordered[1:], strict=False))


@pytest.mark.parametrize("family", TINY)
def test_a_share_of_the_neurons_is_negated_and_put_back(family):
    vlm = TINY[family]()
    found, before = fit_gated_negation(vlm, tiny_tuples(N), progress=False), bits(vlm)
    assert all(parameter.requires_grad and parameter.grad is None for parameter in vlm.model.parameters())
    weights = {site: vlm.weight(site).detach().clone() for site in found.sites}
    with found.edit({"vision": 0.1}).applied(vlm):
        after = {site: vlm.weight(site).detach().clone() for site in found.sites}
    turned = 0
    for site, weight in weights.items():
        columns = (after[site] == -weight).all(dim=0)
        assert torch.equal(after[site][:, ~columns], weight[:, ~columns])
        assert site.encoder == "vision" or not columns.any()
        turned += int(columns.sum())
    assert turned == round(0.1 * len(found.order["vision"]))
    assert bits(vlm) == before
    with found.edit(0.0).applied(vlm):
        assert bits(vlm) == before


def test_weak_edits_are_part_of_strong_ones_and_steps_order_the_rest_anew():
    vlm, tuples = tiny_clip(), tiny_tuples(N)
    one = fit_gated_negation(vlm, tuples, progress=False)
    two = fit_gated_negation(vlm, tuples, steps=2, largest=0.2, progress=False)
    for encoder, order in two.order.items():
        size = len(order)
        assert sorted(order.tolist()) == list(range(size))
        assert torch.equal(order[: round(0.1 * size)], one.order[encoder][: round(0.1 * size)])
        assert not torch.equal(order, one.order[encoder])
    # The second pass is the first one of the model whose first neurons are negated.
    first = {encoder: round(0.1 * len(order)) / len(order) for encoder, order in one.order.items()}
    with one.edit(first).applied(vlm):
        again = fit_gated_negation(vlm, tuples, progress=False)
    for encoder, order in two.order.items():
        done = set(one.order[encoder][: round(0.1 * len(order))].tolist())
        rest = [neuron for neuron in again.order[encoder].tolist() if neuron not in done]
        assert order[len(done) :].tolist() == rest


def test_it_is_saved_and_says_how_it_was_fitted(tmp_path):
    edit = fit_gated_negation(tiny_clip(), tiny_tuples(N), text=None, progress=False).edit(0.05)
    edit.save(tmp_path / "edit.safetensors")
    again = WeightEdit.load(tmp_path / "edit.safetensors")
    assert again.description == edit.description and again.description["share"] == {"vision": 0.05}
    assert again.description["method"] == "gated-negation" and again.description["n"] == N


def test_what_cannot_be_fitted_is_refused():
    vlm, tuples = tiny_clip(), tiny_tuples(4)
    found = fit_gated_negation(vlm, tuples, text=None, progress=False)
    for share, words in ((1.1, "share"), (-0.1, "share"), ({"text": 0.1}, "fitted encoder"), ({}, "nothing")):
        with pytest.raises(UwmError, match=words):
            found.edit(share)
    for option, value in (("ridge", -1), ("balance", 2), ("steps", 0), ("largest", 1.5), ("batch_size", 0)):
        with pytest.raises(UwmError, match=option):
            fit_gated_negation(vlm, tuples, progress=False, **{option: value})
