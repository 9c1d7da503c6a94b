"""Contrasts against the four margins, and the forced choice between two pairings."""

from __future__ import annotations

import pytest
import torch
from embedding_sets import random_embeddings
from hypothesis import given, settings
from hypothesis import strategies as st

from uwmlib.errors import UwmError
from uwmlib.metrics import contrasts, safeground


@settings(max_examples=40, deadline=None)
@given(n=st.integers(1, 40), d=st.integers(2, 6), seed=st.integers(0, 10**6))
def test_safeground_is_a_comparison_of_leans_with_the_match(n, d, seed):
    embeddings = random_embeddings(n, d, seed)
    found, scores = contrasts(**embeddings), safeground(**embeddings)
    lean = torch.minimum(found.image_lean, found.text_lean)
    assert torch.equal(found.image_lean > found.match.abs(), scores.img_s)
    assert torch.equal(found.text_lean > found.match.abs(), scores.txt_s)
    assert torch.equal(lean > found.match.abs(), scores.gs)
    assert torch.equal(lean > -found.match, scores.ps) and torch.equal(lean > found.match, scores.pu)


def test_match_is_the_forced_choice_between_two_pairings():
    embeddings = random_embeddings(300, 5)
    ts, tu, vs, vu = (torch.nn.functional.normalize(rows.double(), dim=1) for rows in embeddings.values())
    right, wrong = (ts * vs + tu * vu).sum(dim=1), (ts * vu + tu * vs).sum(dim=1)
    found = contrasts(**embeddings)["match"]
    assert found.items.tolist() == (right > wrong).tolist() and found.n == 300
    assert 40 < found.value < 60


def test_equal_items_match_nothing():
    embeddings = random_embeddings(20, 4)
    embeddings["unsafe_text"] = 4 * embeddings["safe_text"]
    assert contrasts(**embeddings)["match"].value == 0.0
    with pytest.raises(UwmError, match="give one row per tuple"):
        contrasts(**embeddings | {"safe_text": torch.ones(3, 4)})
