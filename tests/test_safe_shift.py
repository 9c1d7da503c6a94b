"""Safe shift: its closed form against numpy, and its edit against the re-ranker that it is."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from tiny_models import tiny_clip, tiny_coca, tiny_tuples

import uwmlib as uwm
from uwmlib.editing import WeightEdit, fit_safe_shift
from uwmlib.editing.safe_shift import _Moments
from uwmlib.errors import UwmError
from uwmlib.metrics import knowledge
from uwmlib.models.heads import find_head

N = 20


@pytest.fixture(scope="module", params=[tiny_clip, tiny_coca], ids=["CLIP", "CoCa"])
def vlm(request):
    return request.param()


@pytest.fixture(scope="module")
def tuples():
    return tiny_tuples(N)


def raw(vlm, tuples):
    """Embeddings of the four parts before they are made unit vectors."""
    with torch.inference_mode():
        text = {
            side: vlm.text_features(vlm.tokenize(getattr(tuples, f"{side}_texts")))
            for side in ("safe", "unsafe")
        }
        image = {
            side: vlm.image_features(vlm.preprocess(getattr(tuples, f"{side}_images")))
            for side in ("safe", "unsafe")
        }
    return text, image


def unit(rows):
    return rows / rows.norm(dim=1, keepdim=True)


@pytest.mark.parametrize("batch_size", [1, 7, 64])
@pytest.mark.parametrize("ridge", [0.05, 2.0])
def test_the_closed_form_is_numpy_s(vlm, tuples, batch_size, ridge):
    found = fit_safe_shift(vlm, tuples, ridge=ridge, batch_size=batch_size, progress=False)
    text, image = raw(vlm, tuples)
    for encoder, own, gallery in (("text", text, image), ("vision", image, text)):
        safe, unsafe = (unit(gallery[side].double()).numpy() for side in ("safe", "unsafe"))
        spread = np.cov(np.concatenate([safe, unsafe]).T, bias=True) + np.cov((safe - unsafe).T, bias=True)
        spread += ridge * np.trace(spread) / len(spread) * np.eye(len(spread))
        b = np.linalg.solve(spread, (safe - unsafe).mean(axis=0))
        np.testing.assert_allclose(found.directions[encoder].numpy(), b / np.linalg.norm(b), atol=1e-5)
        lengths = torch.cat([own["safe"], own["unsafe"]]).norm(dim=1)
        assert found.lengths[encoder] == pytest.approx(float(lengths.mean()), rel=1e-5)
    assert found.n == N


def test_a_direction_worked_by_hand():
    # Differences (1, -1) and (0, 0) have the mean (1, -1) / 2; both covariances are multiples of [[1, -1], [-1, 1]],
    # of which (1, -1) is an eigenvector. Of the second pair's length nothing is left but the mean length.
    moments = _Moments()
    moments.add(torch.tensor([[3.0, 0.0]]).double(), torch.tensor([[0.0, 1.0]]).double())
    moments.add(torch.tensor([[0.0, 1.0]]).double(), torch.tensor([[0.0, 1.0]]).double())
    half = 0.5**0.5
    assert torch.allclose(moments.direction(1.0), torch.tensor([half, -half]).double())
    assert moments.length == 1.5


@pytest.mark.parametrize("alpha", [0.3, 5.0])
def test_the_edit_is_a_prior_on_the_gallery(vlm, tuples, alpha):
    shift = fit_safe_shift(vlm, tuples, progress=False)
    text, image = raw(vlm, tuples)
    with shift.edit(alpha).applied(vlm):
        shifted_text, shifted_image = raw(vlm, tuples)
        found = uwm.evaluate(vlm, tuples).safeground
    for encoder, before, after in (("text", text, shifted_text), ("vision", image, shifted_image)):
        b = alpha * shift.lengths[encoder] * shift.directions[encoder].float()
        projection = find_head(vlm.model, encoder)[1]
        if projection is not None:  # what its rows can make of b
            b = projection.T @ torch.linalg.lstsq(projection.T, b, driver="gelsd").solution
        for side in ("safe", "unsafe"):
            assert torch.allclose(after[side], before[side] + b, rtol=1e-3, atol=1e-4)
    # Both galleries are shifted too, so the reference is computed from the shifted embeddings of both.
    safe, unsafe = (unit(shifted_image[side].double()) for side in ("safe", "unsafe"))
    for key, side in (("p_s_t", "safe"), ("p_u_t", "unsafe")):
        margin = (shifted_text[side].double() * (safe - unsafe)).sum(dim=1)
        assert torch.equal(getattr(found, key), margin > 0)


def test_only_text_queries_lean_by_a_term_that_no_query_changes(vlm, tuples):
    shift = fit_safe_shift(vlm, tuples, encoders="text", progress=False)
    assert list(shift.directions) == ["text"]
    text, image = raw(vlm, tuples)
    with shift.edit(2.0).applied(vlm):
        shifted, same = raw(vlm, tuples)
    assert all(torch.equal(same[side], image[side]) for side in image)
    difference = unit(image["safe"]) - unit(image["unsafe"])
    terms = [((shifted[side] - text[side]) * difference).sum(dim=1) for side in text]
    assert torch.allclose(terms[0], terms[1], atol=1e-3)  # whatever the query
    assert terms[0].mean() > 0


def test_strength_by_encoder_and_none(vlm, tuples):
    shift = fit_safe_shift(vlm, tuples, progress=False)
    assert list(shift.edit({"vision": 1.0}).share()) == ["vision"]
    before = uwm.evaluate(vlm, tuples)
    with shift.edit(0.0).applied(vlm):
        after = uwm.evaluate(vlm, tuples)
    assert after.as_percent() == before.as_percent()
    state = {name: value.clone() for name, value in vlm.model.state_dict().items()}
    with shift.edit(1.0).applied(vlm):
        pass
    assert all(torch.equal(value, state[name]) for name, value in vlm.model.state_dict().items())


def test_it_is_saved_and_refused_on_another_base(tmp_path, tuples):
    vlm = tiny_clip()
    edit = fit_safe_shift(vlm, tuples, progress=False).edit({"text": 0.5, "vision": 0.25})
    edit.save(tmp_path / "shift.safetensors")
    again = WeightEdit.load(tmp_path / "shift.safetensors")
    assert again.description == edit.description and again.description["alpha"] == {
        "text": 0.5,
        "vision": 0.25,
    }
    with edit.applied(vlm):
        one = vlm.encode_text(vlm.tokenize(["word1"]))
    with again.applied(vlm):
        other = vlm.encode_text(vlm.tokenize(["word1"]))
    assert torch.equal(one, other)
    other = tiny_clip()
    with torch.no_grad():
        other.model.ln_final.bias += 0.1
    with pytest.raises(UwmError, match="not those that were scored"), again.applied(other):
        pass


def test_what_cannot_be_fitted_is_refused(tuples):
    vlm = tiny_clip()
    shift = fit_safe_shift(vlm, tuples, encoders=["text"], progress=False)
    for alpha, words in (({"vision": 1.0}, "fitted encoder"), ({}, "no encoder"), (float("nan"), "alpha")):
        with pytest.raises(UwmError, match=words):
            shift.edit(alpha)
    same = replace(tuples, unsafe_images=tuples.safe_images, unsafe_texts=tuples.safe_texts)
    with pytest.raises(UwmError, match="do not differ"):
        fit_safe_shift(vlm, same, progress=False)
    for options, words in (
        ({"encoders": "image"}, "encoder"),
        ({"ridge": 0}, "ridge"),
        ({"batch_size": 0}, "batch"),
    ):
        with pytest.raises(UwmError, match=words):
            fit_safe_shift(vlm, tuples, progress=False, **options)
    with pytest.raises(UwmError, match="load"):
        fit_safe_shift("mini-ViT-L-14", tuples)


def test_it_leans_on_tuples_that_it_has_not_seen():
    vlm = uwm.load_model("mini-ViT-L-14")
    shift = fit_safe_shift(vlm, uwm.load_tuples("mini-visu", split="train", n=300), progress=False)
    tuples = uwm.load_tuples("mini-visu", split="validation", n=300)
    before = uwm.evaluate(vlm, tuples)
    with shift.edit(1.0).applied(vlm):
        after = uwm.evaluate(vlm, tuples)
    for query in ("text", "image"):
        assert after[f"bias_{query}"].interval[0] > before[f"bias_{query}"].interval[1]


def test_the_strength_is_the_one_that_keeps_the_share():
    vlm = uwm.load_model("mini-ViT-L-14")
    calibration = uwm.load_tuples("mini-visu", split="train", n=200)
    validation = uwm.load_tuples("mini-visu", split="validation", n=200)
    edit = uwm.safe_shift(vlm, calibration, validation=validation, keep=0.9, tolerance=2, progress=False)
    before = uwm.evaluate(vlm, validation)
    with edit.applied(vlm):
        after = uwm.evaluate(vlm, validation)
    assert abs(100 * knowledge(after).value / knowledge(before).value - 90) <= 2
    assert edit.description["alpha"]["text"] == edit.description["alpha"]["vision"] > 0
    with pytest.raises(UwmError, match="test"):
        uwm.safe_shift(vlm, calibration, validation=replace(validation, split="test"), progress=False)
    with pytest.raises(UwmError, match="no strength"):
        uwm.safe_shift(vlm, calibration, validation=validation, keep=0.5, strengths=[0.01], progress=False)
