"""What is retrieved first, against brute force."""

from __future__ import annotations

import math

import pytest
import torch

import uwmlib as uwm
from uwmlib.metrics import retrieve, retrieved

PARTS = ("safe_text", "unsafe_text", "safe_image", "unsafe_image")


@pytest.fixture
def parts():
    draw = torch.Generator().manual_seed(0)
    return {part: torch.nn.functional.normalize(torch.randn(40, 6, generator=draw), dim=-1) for part in PARTS}


def ranked(parts, query, side, row):
    """All items for one query, sorted in plain Python: (index, is safe), ties as stated."""
    other = {"text": "image", "image": "text"}[query]
    asking = parts[f"{side}_{query}"][row].double()
    items = []
    for safe in (False, True):
        for index, item in enumerate(parts[f"{'safe' if safe else 'unsafe'}_{other}"].double()):
            cosine = float(asking @ item / (asking.norm() * item.norm()))
            items.append((-round(cosine, 9), safe, index))
    return [(index, safe) for _, safe, index in sorted(items)]


@pytest.mark.parametrize("query", ["text", "image"])
@pytest.mark.parametrize("side", ["safe", "unsafe"])
def test_ranked_items_against_brute_force(parts, query, side, monkeypatch):
    monkeypatch.setattr(retrieved, "CHUNK", 7)
    # Ties for the first place across the sides, at another length, and within one side.
    parts["safe_image"][9] = parts["unsafe_text"][3]
    parts["unsafe_image"][5] = 2 * parts["safe_image"][9]
    parts["safe_text"][2] = parts["safe_text"][30] = parts["safe_image"][7]
    found = retrieve(parts, query=query, side=side)
    for row in range(40):
        assert (found.index[row], found.safe[row]) == ranked(parts, query, side, row)[0]
    assert found.partner.tolist() == [index == row for row, index in enumerate(found.index)]


@pytest.mark.parametrize(("query", "direction"), [("text", "tu_vus"), ("image", "vu_tus")])
def test_unsafe_hits_are_those_of_the_retrieval_metric(parts, query, direction):
    parts["unsafe_image"][7], parts["unsafe_text"][8] = parts["safe_image"][7], parts["safe_text"][8]
    parts["safe_text"] = parts["safe_text"] + 2 * parts["unsafe_image"]  # so that own items are found at all
    parts["safe_image"] = parts["safe_image"] + 2 * parts["unsafe_text"]
    found = retrieve(parts, query=query, side="unsafe")
    hits = uwm.retrieval(**parts)[direction].items
    assert 0 < hits.sum() < 40 and (found.partner & found.safe).tolist() == hits.tolist()


def test_ties_count_as_unsafe_and_then_go_to_the_lower_index():
    same = {part: torch.tensor([[1.0, 0.0], [1.0, 0.0]]) for part in PARTS}
    found = retrieve(same, query="image", side="safe")
    assert found.index.tolist() == [0, 0] and found.safe.tolist() == [False, False]


def test_rounding_parts_no_tie(parts):
    parts = {part: rows.double() for part, rows in parts.items()}
    parts["unsafe_image"], parts["unsafe_text"] = parts["safe_image"] / 3, parts["safe_text"] / 7
    for query in ("text", "image"):
        for side in ("safe", "unsafe"):
            assert not retrieve(parts, query=query, side=side).safe.any()


@pytest.mark.parametrize(
    ("asked", "message"),
    [
        ({"query": "audio"}, "name one of each"),
        ({"side": "both"}, "name one of each"),
        ({"query": ["text"]}, "name one of each"),
    ],
)
def test_what_is_not_there_is_refused(parts, asked, message):
    with pytest.raises(uwm.UwmError, match=message):
        retrieve(parts, **({"query": "text", "side": "safe"} | asked))


def test_embeddings_that_are_not_all_there_are_refused(parts):
    for wrong in (None, {"safe_text": parts["safe_text"]}):
        with pytest.raises(uwm.UwmError, match="embed_tuples"):
            retrieve(wrong, query="text", side="safe")


def test_items_a_billionth_apart_are_no_tie():
    far, near = (torch.tensor([[math.cos(a), math.sin(a)]], dtype=torch.float64) for a in (0.8, 0.8 - 1e-9))
    query = torch.tensor([[1.0, 0.0]], dtype=torch.float64)
    found = retrieve({"safe_text": query, "safe_image": near, "unsafe_image": far}, query="text", side="safe")
    assert found.safe.tolist() == [True]


def test_an_embedding_without_a_cosine_is_refused(parts):
    parts["unsafe_image"][3] = torch.nan
    with pytest.raises(uwm.UwmError, match="unsafe_image"):
        retrieve(parts, query="text", side="safe")
