"""Null space: its directions against numpy's SVD, its map by hand, its edit undone bit for bit."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from architectures import hf_siglip
from tiny_models import TINY, bits, tiny_clip, tiny_tuples

from uwmlib.editing import WeightEdit, fit_null_space
from uwmlib.editing.null_space import leading_directions
from uwmlib.errors import UwmError

N = 30


def embeddings(vlm, tuples):
    """Text and image embeddings of the unsafe side before they are made unit vectors, float64."""
    with torch.inference_mode():
        texts = vlm.text_features(vlm.tokenize(tuples.unsafe_texts))
        return {
            "text": texts.double(),
            "vision": vlm.image_features(vlm.preprocess(tuples.unsafe_images)).double(),
        }


@pytest.mark.parametrize("directions", ["difference", "unsafe"])
def test_the_directions_are_those_of_an_svd(directions):
    vlm, tuples = tiny_clip(), tiny_tuples(N)
    found = fit_null_space(vlm, tuples, rank=3, directions=directions, batch_size=8, progress=False)
    with torch.inference_mode():
        rows, safe = (
            vlm.encode_text(vlm.tokenize(side)).double().numpy()
            for side in (tuples.unsafe_texts, tuples.safe_texts)
        )
    axes = np.linalg.svd(rows - safe if directions == "difference" else rows)[2][:3]  # [3, D]
    overlap = np.abs(axes @ found.basis.numpy())
    np.testing.assert_allclose(overlap, np.eye(3), atol=1e-3)
    np.testing.assert_allclose(found.basis.T @ found.basis, np.eye(3), atol=1e-9)


def test_two_directions_by_hand():
    # d = (3, 0, 0), (3, 0, 0), (0, 0, 1): the mean of d d^T is diag(6, 0, 1/3).
    basis = leading_directions(torch.diag(torch.tensor([6.0, 0.0, 1 / 3])), 2)
    assert basis.abs().tolist() == [[1, 0], [0, 0], [0, 1]]
    with pytest.raises(UwmError, match="fewer than 3"):
        leading_directions(torch.diag(torch.tensor([6.0, 0.0, 1 / 3])), 3)


@pytest.mark.parametrize("family", TINY)
@pytest.mark.parametrize("strength", [0.4, 1.0, 2.0])
def test_the_edited_model_loses_its_part_along_them(family, strength):
    vlm, tuples = TINY[family](), tiny_tuples(N)
    found = fit_null_space(vlm, tuples, encoders=["text", "vision"], progress=False)
    before, stored = embeddings(vlm, tuples), bits(vlm)
    with found.edit(strength).applied(vlm):
        after = embeddings(vlm, tuples)
    assert bits(vlm) == stored
    for encoder, x in before.items():
        expected = x - strength * (x @ found.basis) @ found.basis.T
        assert torch.allclose(after[encoder], expected, atol=1e-4 * float(x.norm(dim=1).mean()))
    with found.edit(0.0).applied(vlm):
        assert bits(vlm) == stored


def test_by_encoder_and_saved(tmp_path):
    vlm = tiny_clip()
    edit = fit_null_space(vlm, tiny_tuples(N), progress=False).edit(0.5)
    assert list(edit.changes) == ["visual.proj"]
    edit.save(tmp_path / "edit.safetensors")
    assert WeightEdit.load(tmp_path / "edit.safetensors").description == edit.description
    assert edit.description["strength"] == {"vision": 0.5} and edit.description["rank"] == 4


def test_what_cannot_be_fitted_is_refused():
    vlm, tuples = tiny_clip(), tiny_tuples(10)
    with pytest.raises(UwmError, match="cannot be mapped"):
        fit_null_space(hf_siglip(), tuples, progress=False)
    with pytest.raises(UwmError, match="fewer than 4"):
        fit_null_space(vlm, replace(tuples, unsafe_texts=tuples.safe_texts), progress=False)
    for options, words in (
        ({"rank": 40}, "rank"),
        ({"directions": "safe"}, "directions"),
        ({"encoders": "image"}, "enc"),
    ):
        with pytest.raises(UwmError, match=words):
            fit_null_space(vlm, tuples, progress=False, **options)
    found = fit_null_space(vlm, tuples, progress=False)
    for strength in (2.1, -0.1, {"text": 1}, {}):
        with pytest.raises(UwmError):
            found.edit(strength)
