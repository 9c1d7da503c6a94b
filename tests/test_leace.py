"""LEACE: its formula written out, no probe left at strength 1, and the edited model computes the eraser."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from architectures import hf_siglip
from concept_erasure import LeaceFitter
from sklearn.linear_model import LogisticRegression
from tiny_models import TINY, bits, tiny_clip, tiny_tuples

from uwmlib.editing import WeightEdit, fit_leace
from uwmlib.errors import UwmError

N = 120


def raw(vlm, tuples):
    """Safe and unsafe embeddings [N, D] of each encoder before they are made unit vectors, float64."""
    with torch.inference_mode():
        return {
            "text": [
                vlm.text_features(vlm.tokenize(side)).double()
                for side in (tuples.safe_texts, tuples.unsafe_texts)
            ],
            "vision": [
                vlm.image_features(vlm.preprocess(side)).double()
                for side in (tuples.safe_images, tuples.unsafe_images)
            ],
        }


@pytest.fixture(scope="module", params=TINY)
def fitted(request):
    vlm, tuples = TINY[request.param](), tiny_tuples(N)
    return vlm, tuples, fit_leace(vlm, tuples, batch_size=50, progress=False)


def probe(safe, unsafe):
    """How often a linear probe that is fitted on them tells them apart."""
    x = np.concatenate([safe, unsafe])
    x = (x - x.mean(axis=0)) / x.std(axis=0).clip(1e-6)
    z = np.repeat([0, 1], len(safe))
    return LogisticRegression(C=1e-3, max_iter=2000).fit(x, z).score(x, z)


def test_at_strength_1_no_linear_probe_finds_the_concept(fitted):
    vlm, tuples, leace = fitted
    before = raw(vlm, tuples)
    with leace.edit(1.0).applied(vlm):
        after = raw(vlm, tuples)
    for encoder in ("text", "vision"):
        distance = [
            float((safe.mean(dim=0) - unsafe.mean(dim=0)).norm())
            for safe, unsafe in (before[encoder], after[encoder])
        ]
        assert distance[1] < 1e-4 * distance[0]
    assert probe(*before["vision"]) > 0.9  # the unsafe ones are brighter
    assert probe(*after["vision"]) < 0.6


@pytest.mark.parametrize("strength", [0.3, 1.0, 2.0])
def test_the_edited_model_computes_the_eraser(fitted, strength):
    vlm, tuples, leace = fitted
    before, stored = raw(vlm, tuples), bits(vlm)
    with leace.edit(strength).applied(vlm):
        after = raw(vlm, tuples)
    assert bits(vlm) == stored
    for encoder, eraser in leace.erasers.items():
        for x, found in zip(before[encoder], after[encoder], strict=True):
            expected = x + strength * (eraser(x) - x)
            assert torch.allclose(found, expected, atol=1e-4 * float(x.norm(dim=1).mean()))
    with leace.edit(0.0).applied(vlm):
        nothing = raw(vlm, tuples)
    for encoder, sides in before.items():
        assert all(torch.allclose(a, b, atol=1e-5) for a, b in zip(sides, nothing[encoder], strict=True))


def test_at_strength_2_the_means_change_places(fitted):
    vlm, tuples, leace = fitted
    ((safe, unsafe),) = [[side.mean(dim=0) for side in raw(vlm, tuples)["vision"]]]
    with leace.edit({"vision": 2.0}).applied(vlm):
        turned = [side.mean(dim=0) for side in raw(vlm, tuples)["vision"]]
    scale = float((safe - unsafe).norm())
    assert (
        float((turned[0] - unsafe).norm()) < 1e-3 * scale and float((turned[1] - safe).norm()) < 1e-3 * scale
    )


def test_the_formula_by_hand():
    # x1 is the concept and the coin x2. Written out, W^+ Q W is Sigma_xz Sigma_xz^T Sigma_xx^-1, divided by
    # Sigma_xz^T Sigma_xx^-1 Sigma_xz.
    x = torch.tensor([[2.0, 1.0], [0.0, -1.0], [0.0, 1.0], [-2.0, -1.0]], dtype=torch.float64)
    z = torch.tensor([1.0, 1.0, 0.0, 0.0])
    fitter = LeaceFitter(2, 1, constrain_cov_trace=False, svd_tol=1e-6, dtype=torch.float64, shrinkage=False)
    eraser = fitter.update(x, z).eraser
    # Sigma_xx = [[8, 4], [4, 4]] / 3 and Sigma_xz = (2, 0) / 3, so x loses (x1 - x2) along (1, 0): the coin is left.
    assert torch.allclose(eraser(x), torch.stack([x[:, 1], x[:, 1]], dim=1), atol=1e-9)


def test_by_encoder_and_saved(tmp_path):
    vlm = tiny_clip()
    leace = fit_leace(vlm, tiny_tuples(40), encoders="vision", progress=False)
    edit = leace.edit(0.5)
    assert list(edit.share()) == ["vision"] and list(leace.erasers) == ["vision"]
    edit.save(tmp_path / "edit.safetensors")
    assert WeightEdit.load(tmp_path / "edit.safetensors").description == edit.description
    assert edit.description["strength"] == {"vision": 0.5} and edit.description["method"] == "leace"


def test_what_cannot_be_fitted_is_refused():
    vlm, tuples = tiny_clip(), tiny_tuples(10)
    with pytest.raises(UwmError, match="cannot be mapped"):
        fit_leace(hf_siglip(), tuples, progress=False)
    same = replace(tuples, unsafe_images=tuples.safe_images, unsafe_texts=tuples.safe_texts)
    with pytest.raises(UwmError, match="do not differ"):
        fit_leace(vlm, same, progress=False)
    leace = fit_leace(vlm, tuples, encoders=["text"], progress=False)
    for strength, words in (
        (2.1, "strength"),
        (-0.1, "strength"),
        ({"vision": 1}, "fitted encoder"),
        ({}, "no encoder"),
    ):
        with pytest.raises(UwmError, match=words):
            leace.edit(strength)
