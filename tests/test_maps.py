"""Maps of the embedding: every affine one is what the edited model computes, and is undone bit for bit."""

from __future__ import annotations

import pytest
import torch
from architectures import hf_siglip
from tiny_models import TINY, bits, tiny_clip, tiny_tuples

from uwmlib.editing import map_edit
from uwmlib.errors import UwmError
from uwmlib.models.heads import find_projection


def raw(vlm, encoder, tuples):
    with torch.inference_mode():
        if encoder == "text":
            return vlm.text_features(vlm.tokenize(tuples.safe_texts)).double()
        return vlm.image_features(vlm.preprocess(tuples.safe_images)).double()


@pytest.mark.parametrize("family", TINY)
@pytest.mark.parametrize("encoder", ["text", "vision"])
@pytest.mark.parametrize("rank", [None, 0, 3])
def test_the_edited_model_computes_the_map(family, encoder, rank):
    vlm, tuples = TINY[family](), tiny_tuples(6)
    # Norms fresh from initialisation have weights of 1 and biases of 0, which would hide half of the fold.
    norm = find_projection(vlm.model, encoder).norm
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        norm.weight.copy_(torch.empty_like(norm.weight).uniform_(0.3, 2.0, generator=generator))
        norm.bias.copy_(torch.empty_like(norm.bias).normal_(generator=generator))
    x, before = raw(vlm, encoder, tuples), bits(vlm)
    size = x.shape[1]
    matrix = torch.randn(size, size, generator=generator, dtype=torch.float64) / size**0.5
    if rank is not None:  # what no bias in front of the projection could reach
        matrix = matrix[:, :rank] @ matrix[:rank]
    offset = torch.randn(size, generator=generator, dtype=torch.float64)
    with map_edit(vlm, encoder, matrix, offset=offset).applied(vlm):
        assert torch.allclose(raw(vlm, encoder, tuples), x @ matrix + offset, atol=1e-4)
    with map_edit(vlm, encoder, matrix).applied(vlm):
        assert torch.allclose(raw(vlm, encoder, tuples), x @ matrix, atol=1e-4)
    assert bits(vlm) == before


def test_without_an_offset_the_projection_alone_changes():
    vlm = tiny_clip()
    assert list(map_edit(vlm, "vision", torch.eye(40)).changes) == ["visual.proj"]
    edit = map_edit(vlm, "vision", torch.eye(40), description={"method": "nothing"})
    assert not edit.changes["visual.proj"].delta.any() and edit.description["method"] == "nothing"


def test_what_cannot_be_mapped_is_refused():
    vlm = tiny_clip()
    for matrix, offset in (
        (torch.eye(39), None),
        (torch.eye(40), torch.zeros(39)),
        (torch.eye(40) / 0, None),
    ):
        with pytest.raises(UwmError, match="matrix|offset"):
            map_edit(vlm, "text", matrix, offset=offset)
    for encoder in ("text", "vision"):
        with pytest.raises(UwmError, match="cannot be mapped"):
            map_edit(hf_siglip(), encoder, torch.eye(64))
    with torch.no_grad():
        vlm.model.ln_final.weight[3] = 0.0
    with pytest.raises(UwmError, match="ln_final"):
        map_edit(vlm, "text", torch.eye(40), offset=torch.zeros(40))
