"""Task vectors and weights between two models: what they add, by hand, and that nothing of it stays."""

from __future__ import annotations

import pytest
import torch
from tiny_models import TINY, bits, tiny_clip, tiny_coca, tiny_tuples

from uwmlib.editing import WeightEdit, interpolation_edit
from uwmlib.errors import UwmError
from uwmlib.models.trainable import parameters_of
from uwmlib.training import fit_task_vector
from uwmlib.training import task_vector as module

N = 12


def weights_of(vlm):
    return {name: parameter.detach().clone() for name, parameter in vlm.model.named_parameters()}


def test_each_encoder_has_its_parameters_and_the_scale_is_in_neither():
    vlm = tiny_clip()
    text, vision = (set(parameters_of(vlm, encoder)) for encoder in ("text", "vision"))
    assert vision == {name for name, _ in vlm.model.named_parameters() if name.startswith("visual.")}
    assert text | vision | {"logit_scale"} == {name for name, _ in vlm.model.named_parameters()}
    coca = tiny_coca()
    both = {*parameters_of(coca, "text"), *parameters_of(coca, "vision")}
    assert not any(name.startswith("text_decoder.") for name in both)


def test_one_step_of_adamw_by_hand():
    """At step 1 AdamW moves every weight with a gradient by the learning rate, against the gradient's sign."""
    vlm, tuples = tiny_clip(), tiny_tuples(N)
    before = weights_of(vlm)
    vector = fit_task_vector(vlm, tuples, steps=1, learning_rate=0.01, batch_size=N, progress=False)
    logits = (
        vlm.model.logit_scale.exp()
        * vlm.encode_image(vlm.preprocess(tuples.unsafe_images))
        @ vlm.encode_text(vlm.tokenize(tuples.unsafe_texts)).T
    )
    loss = -(logits.log_softmax(dim=1).diagonal() + logits.log_softmax(dim=0).diagonal()).mean() / 2
    loss.backward()
    assert vector.curve[0]["loss"] == pytest.approx(loss.item(), rel=1e-4)
    for name in ("visual.proj", "text_projection"):
        gradient = vlm.model.get_parameter(name).grad
        clear = gradient.abs() > 1e-4 * gradient.abs().max()
        delta = {**vector.deltas["text"], **vector.deltas["vision"]}[name]
        assert torch.allclose(delta[clear], -0.01 * gradient[clear].sign(), rtol=2e-2)
    with vector.edit(2.0).applied(vlm):
        moved = vlm.model.visual.proj.detach()
        assert torch.allclose(
            moved, before["visual.proj"] - 2 * vector.deltas["vision"]["visual.proj"], atol=1e-6
        )


@pytest.mark.parametrize("family", TINY)
def test_the_model_learns_unsafe_pairs_and_is_as_it_was(family):
    vlm, tuples = TINY[family](), tiny_tuples(N)
    before = bits(vlm)
    vector = fit_task_vector(vlm, tuples, steps=60, learning_rate=1e-3, batch_size=N, progress=False)
    assert bits(vlm) == before
    assert all(parameter.requires_grad and parameter.grad is None for parameter in vlm.model.parameters())
    assert vector.curve[-1]["loss"] < vector.curve[0]["loss"]
    again = fit_task_vector(vlm, tuples, steps=60, learning_rate=1e-3, batch_size=N, progress=False)
    assert all(torch.equal(d, again.deltas["text"][name]) for name, d in vector.deltas["text"].items())
    with vector.edit(1.0).applied(vlm):
        assert bits(vlm) != before
    assert bits(vlm) == before
    with vector.edit(0.0).applied(vlm):
        assert bits(vlm) == before


def test_a_training_that_fails_leaves_the_model_as_it_was(monkeypatch):
    vlm, tuples = tiny_clip(), tiny_tuples(N)
    before, calls, real = bits(vlm), [], module.contrast

    def failing(*arguments):
        calls.append(1)
        return real(*arguments) / (0 if len(calls) == 3 else 1)

    monkeypatch.setattr(module, "contrast", failing)
    with pytest.raises(UwmError, match="step 2"):
        fit_task_vector(vlm, tuples, steps=5, batch_size=4, progress=False)
    assert bits(vlm) == before


def test_it_is_saved_and_refused_on_other_weights(tmp_path):
    vlm = tiny_clip()
    vector = fit_task_vector(vlm, tiny_tuples(N), steps=2, batch_size=4, progress=False)
    edit = vector.edit(0.5)
    edit.save(tmp_path / "edit.safetensors")
    assert WeightEdit.load(tmp_path / "edit.safetensors").description == edit.description
    with pytest.raises(UwmError, match="strength"):
        vector.edit(-1)
    with torch.no_grad():
        vlm.model.ln_final.bias += 0.1
    with pytest.raises(UwmError, match="not those that were scored"):
        vector.edit(0.5)


def test_weights_between_two_models():
    vlm, other = tiny_clip(seed=0), tiny_clip(seed=1)
    before, ends = bits(vlm), (weights_of(vlm), weights_of(other))
    with interpolation_edit(vlm, other, 0.25).applied(vlm):
        for name, value in weights_of(vlm).items():
            expected = ends[0][name] if name == "logit_scale" else 0.75 * ends[0][name] + 0.25 * ends[1][name]
            assert torch.allclose(value, expected, atol=1e-6), name
    tuples = tiny_tuples(4)
    with torch.inference_mode(), interpolation_edit(vlm, other, 1.0).applied(vlm):
        there = vlm.encode_text(vlm.tokenize(tuples.safe_texts))
        assert torch.allclose(there, other.encode_text(other.tokenize(tuples.safe_texts)), atol=1e-5)
    assert bits(vlm) == before
    with interpolation_edit(vlm, other, 0.0).applied(vlm):
        assert bits(vlm) == before
    with pytest.raises(UwmError, match="architecture"):
        interpolation_edit(vlm, tiny_coca(), 0.5)
    with pytest.raises(UwmError, match="strength"):
        interpolation_edit(vlm, other, -0.5)
