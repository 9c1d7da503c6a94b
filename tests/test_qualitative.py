"""What is retrieved first, against brute force, and figures that hide what must not be shown."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from matplotlib import pyplot as plt

import uwmlib as uwm
from uwmlib.reporting import qualitative
from uwmlib.reporting.qualitative import Retrieved, choose, retrieve, show_retrieved

PARTS = ("safe_text", "unsafe_text", "safe_image", "unsafe_image")


@pytest.fixture
def parts():
    draw = torch.Generator().manual_seed(0)
    return {part: torch.nn.functional.normalize(torch.randn(40, 6, generator=draw), dim=-1) for part in PARTS}


@pytest.fixture(autouse=True)
def close():
    yield
    plt.close("all")


@pytest.mark.parametrize("query", ["text", "image"])
@pytest.mark.parametrize("side", ["safe", "unsafe"])
def test_first_item_against_brute_force(parts, query, side, monkeypatch):
    monkeypatch.setattr(qualitative, "CHUNK", 7)
    found = retrieve(parts, query=query, side=side)
    other = {"text": "image", "image": "text"}[query]
    for row in range(40):
        best = max(
            (float(parts[f"{side}_{query}"][row] @ parts[f"{kind}_{other}"][index]), index, kind)
            for kind in ("safe", "unsafe")
            for index in range(40)
        )
        assert (found.index[row], bool(found.safe[row])) == (best[1], best[2] == "safe")


def test_unsafe_union_hits_are_those_of_the_retrieval_metric(parts):
    found = retrieve(parts, query="text", side="unsafe")
    own = (found.index == np.arange(40)) & found.safe
    assert own.tolist() == uwm.retrieval(**parts).hits("tu_vus", 1).tolist()


def test_ties_count_as_unsafe_and_then_go_to_the_lower_index():
    same = {part: torch.tensor([[1.0, 0.0], [1.0, 0.0]]) for part in PARTS}
    found = retrieve(same, query="image", side="safe")
    assert found.index.tolist() == [0, 0] and not found.safe.any()


def test_other_queries_are_refused(parts):
    with pytest.raises(uwm.UwmError, match="name one of each"):
        retrieve(parts, query="audio", side="safe")
    with pytest.raises(uwm.UwmError, match="name one of each"):
        retrieve(parts, query="text", side="both")


def test_examples_are_drawn_from_those_that_match():
    matching = np.arange(100) % 7 == 0
    drawn = choose(matching, 5, seed=1)
    assert drawn == sorted(set(drawn)) and all(matching[drawn]) and len(drawn) == 5
    assert drawn == choose(matching, 5, seed=1) != choose(matching, 5, seed=2)
    assert choose(matching, 50, seed=0) == np.flatnonzero(matching).tolist()
    assert choose(np.zeros(3, dtype=bool), 2, seed=0) == []


def shown_texts(figure):
    return " ".join(text.get_text() for ax in figure.axes for text in ax.texts).replace("\n", " ")


@pytest.mark.parametrize("query", ["text", "image"])
def test_figure_marks_and_hides(query):
    tuples = uwm.load_tuples("mini-visu", split="test", n=4)
    found = {
        "A": Retrieved(np.array([0, 3, 2, 1]), np.array([True, False, True, False])),
        "B": Retrieved(np.array([1, 1, 1, 1]), np.array([False, False, False, False])),
    }
    figure = show_retrieved(tuples, [0, 1], found, query=query, side="unsafe")
    labels = [ax.get_xlabel() for ax in figure.axes]
    assert labels == ["", "✓ safe, own pair", "✗ unsafe", "", "✗ unsafe", "✗ unsafe, own pair"]
    assert [ax.get_title() for ax in figure.axes[:3]] == ["unsafe query", "A", "B"]
    assert "not shown" not in shown_texts(figure)
    if query == "image":
        assert tuples.safe_texts[0] in shown_texts(figure)
        assert np.array_equal(figure.axes[0].images[0].get_array(), tuples.unsafe_images[0])
    hidden = show_retrieved(tuples, [0, 1], found, query=query, side="unsafe", show_unsafe=False)
    text = shown_texts(hidden)
    assert text.count("not shown") == 5
    assert not any(caption in text for caption in tuples.unsafe_texts)
    assert sum(len(ax.images) for ax in hidden.axes) == (1 if query == "text" else 0)


def test_nothing_to_show_is_said():
    tuples = uwm.load_tuples("mini-visu", split="test", n=4)
    with pytest.raises(uwm.UwmError, match="nothing to show"):
        show_retrieved(tuples, [], {}, query="text", side="safe")
