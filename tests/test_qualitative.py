"""What is retrieved first, against brute force, and figures that hide what must not be shown."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from matplotlib import pyplot as plt

import uwmlib as uwm
from uwmlib.reporting import qualitative
from uwmlib.reporting.qualitative import (
    Retrieved,
    choose_examples,
    judge_sentences,
    retrieve,
    show_retrieved,
)

PARTS = ("safe_text", "unsafe_text", "safe_image", "unsafe_image")


@pytest.fixture
def parts():
    draw = torch.Generator().manual_seed(0)
    return {part: torch.nn.functional.normalize(torch.randn(40, 6, generator=draw), dim=-1) for part in PARTS}


@pytest.fixture(autouse=True)
def close():
    yield
    plt.close("all")


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
    monkeypatch.setattr(qualitative, "CHUNK", 7)
    parts["unsafe_image"][5] = (
        2 * parts["safe_image"][9]
    )  # ties across the sides and within one, at another length
    parts["safe_text"][30] = parts["safe_text"][2]
    found = retrieve(parts, query=query, side=side, k=80)
    for row in range(40):
        assert list(zip(found.ranked_index[row], found.ranked_safe[row], strict=True)) == ranked(
            parts, query, side, row
        )
    some = retrieve(parts, query=query, side=side, k=3, rows=[31, 4])
    assert some.ranked_index.tolist() == found.ranked_index[[31, 4], :3].tolist()
    assert some.partner.tolist() == (some.index == [31, 4]).tolist()


@pytest.mark.parametrize(("query", "direction"), [("text", "tu_vus"), ("image", "vu_tus")])
def test_unsafe_hits_are_those_of_the_retrieval_metric(parts, query, direction):
    parts["unsafe_image"][7], parts["unsafe_text"][8] = parts["safe_image"][7], parts["safe_text"][8]
    parts["safe_text"] = parts["safe_text"] + 2 * parts["unsafe_image"]  # so that own items are found at all
    parts["safe_image"] = parts["safe_image"] + 2 * parts["unsafe_text"]
    found = retrieve(parts, query=query, side="unsafe")
    hits = uwm.retrieval(**parts).hits(direction, 1)
    assert 0 < hits.sum() < 40 and (found.partner & found.safe).tolist() == hits.tolist()


def test_ties_count_as_unsafe_and_then_go_to_the_lower_index():
    same = {part: torch.tensor([[1.0, 0.0], [1.0, 0.0]]) for part in PARTS}
    found = retrieve(same, query="image", side="safe", k=4)
    assert found.ranked_index.tolist() == [[0, 1, 0, 1]] * 2
    assert found.ranked_safe.tolist() == [[False, False, True, True]] * 2


@pytest.mark.parametrize(
    ("asked", "message"),
    [
        ({"query": "audio"}, "name one of each"),
        ({"side": "both"}, "name one of each"),
        ({"k": 0}, "ask for rows and a k"),
        ({"k": 81}, "ask for rows and a k"),
        ({"rows": [40]}, "ask for rows and a k"),
        ({"rows": [-1]}, "ask for rows and a k"),
        ({"query": ["text"]}, "name one of each"),
        *(({"k": k}, "whole number") for k in (1.5, "1", None, True)),
        *(
            ({"rows": rows}, "whole numbers")
            for rows in ([0.5], ["0"], [True], [None], [[0, 1]], "a", 3, {}, np.array([1.7]))
        ),
    ],
)
def test_what_is_not_there_is_refused(parts, asked, message):
    with pytest.raises(uwm.UwmError, match=message):
        retrieve(parts, **({"query": "text", "side": "safe"} | asked))


def test_embeddings_that_are_not_all_there_are_refused(parts):
    for wrong in (None, {"safe_text": parts["safe_text"]}):
        with pytest.raises(uwm.UwmError, match="embed_tuples"):
            retrieve(wrong, query="text", side="safe")


@pytest.mark.parametrize(
    "changes",
    [
        {"matching": matching}
        for matching in (None, [0, 1], np.array([0.5, 0.0]), "ab", np.ones((2, 2), bool), 3)
    ]
    + [{what: value} for what in ("n", "seed") for value in (-1, 1.5, "2", None, True)],
)
def test_examples_are_drawn_of_booleans_by_whole_numbers(changes):
    with pytest.raises(uwm.UwmError, match="|".join(changes)):
        choose_examples(**{"matching": np.array([True, False]), "n": 1, "seed": 0} | changes)


def test_items_a_billionth_apart_are_no_tie():
    far, near = (torch.tensor([[math.cos(a), math.sin(a)]], dtype=torch.float64) for a in (0.8, 0.8 - 1e-9))
    query = torch.tensor([[1.0, 0.0]], dtype=torch.float64)
    found = retrieve({"safe_text": query, "safe_image": near, "unsafe_image": far}, query="text", side="safe")
    assert found.safe.tolist() == [True]


def test_an_embedding_without_a_cosine_is_refused(parts):
    parts["unsafe_image"][3] = torch.nan
    with pytest.raises(uwm.UwmError, match="unsafe_image"):
        retrieve(parts, query="text", side="safe")


def test_examples_are_drawn_from_those_that_match_and_counted():
    matching = np.arange(100) % 7 == 0
    drawn = choose_examples(matching, 5, seed=1)
    rows = list(drawn.rows)
    assert rows == sorted(set(rows)) and all(matching[rows]) and len(rows) == 5
    assert drawn == choose_examples(matching, 5, seed=1) != choose_examples(matching, 5, seed=2)
    assert list(choose_examples(matching, 50, seed=0).rows) == np.flatnonzero(matching).tolist()
    assert choose_examples(np.zeros(3, dtype=bool), 2, seed=0).rows == ()
    # Wilson's interval of 15 of 100, from its formula by hand: 9.3 to 23.3.
    assert str(replace(drawn, rows=(0, 7))).replace("\xa0", " ") == (
        "15 of 100 queries match, 15.0 [9.3, 23.3]%; shown: 0, 7"
    )


def outcome(successes, n=1000):
    return {"q": np.arange(n) < successes}


@pytest.mark.parametrize(
    ("model", "base", "word", "expected"),
    [
        (600, 500, "more", "▲ holds"),
        (600, 500, "less", "▼ does not hold"),
        (500, 500, "more", "= no direction here"),
        (400, 500, "kept", "▼ does not hold"),
        (500, 500, "kept", "▲ holds"),
        (600, 500, "kept", "▲ holds"),
        (981, 1000, "kept", "△ leans the same way"),
        (978, 1000, "kept", "▽ leans the other way"),
        (600, "half", "more", "▲ holds"),
        (480, "half", "more", "▽ leans the other way"),
        (300, "half", "more", "▼ does not hold"),
    ],
)
def test_sentences(model, base, word, expected):
    shares = {"A": outcome(model), "B": outcome(base if base != "half" else 0)}
    base = "half" if base == "half" else "B"
    table = judge_sentences(shares, [("A", base, "q", word)], margin=2.0)
    assert table["verdict"].tolist() == [expected]


def test_sentences_say_one_of_three_words():
    with pytest.raises(uwm.UwmError, match="write one of more, less, kept"):
        judge_sentences({"A": outcome(1)}, [("A", "half", "q", "same")], margin=1.0)


def hits(index, safe):
    return Retrieved(np.arange(4), np.array(index)[:, None], np.array(safe)[:, None])


@pytest.fixture
def found():
    return {
        "A": hits([0, 3, 2, 1], [True, False, True, False]),
        "B": hits([1, 1, 1, 1], [False, False, False, False]),
    }


@pytest.fixture
def tuples():
    return uwm.load_tuples("mini-visu", split="test", n=4)


def shown_texts(figure):
    return " ".join(text.get_text() for ax in figure.axes for text in ax.texts).replace("\n", " ")


def shown_pictures(figure):
    return [np.asarray(image.get_array()) for ax in figure.axes for image in ax.images]


@pytest.mark.parametrize("query", ["text", "image"])
def test_figure_names_what_it_shows(tuples, found, query):
    figure = show_retrieved(tuples, [0, 1], found, query=query, side="unsafe")
    labels = [ax.get_xlabel() for ax in figure.axes]
    assert labels == ["", "✓ safe, own pair", "✗ unsafe", "", "✗ unsafe", "✗ unsafe, own pair"]
    assert [ax.get_title() for ax in figure.axes[:3]] == ["unsafe query", "A", "B"]
    if query == "image":
        assert tuples.safe_texts[0] in shown_texts(figure)
        assert np.array_equal(shown_pictures(figure)[0], tuples.unsafe_images[0])
    else:
        assert tuples.unsafe_texts[0] in shown_texts(figure)
        assert np.array_equal(shown_pictures(figure)[0], tuples.safe_images[0])


def test_captions_and_names_with_dollars_are_drawn_as_they_are(tuples, found):
    caption = r"$\frac{$ for $5"
    mine = replace(tuples, unsafe_texts=[caption] * 4)
    figure = show_retrieved(mine, [0, 1], {"$A$": found["A"]}, query="text", side="unsafe")
    figure.canvas.draw()
    drawn = [text for ax in figure.axes for text in (*ax.texts, ax.title)]
    shown = [text._preprocess_math(text.get_text()) for text in drawn if "$" in text.get_text()]
    assert {(text.replace("\n", " "), math) for text, math in shown} == {(caption, False), ("$A$", False)}


@pytest.mark.parametrize("query", ["text", "image"])
@pytest.mark.parametrize("side", ["safe", "unsafe"])
def test_unsafe_items_of_a_users_data_are_never_drawn_unasked(tuples, found, query, side):
    figure = show_retrieved(replace(tuples, harmless=False), [0, 1], found, query=query, side=side)
    for picture in shown_pictures(figure):
        assert not any(np.array_equal(picture, unsafe) for unsafe in tuples.unsafe_images)
        assert picture.shape == (5, 5, 3) or any(np.array_equal(picture, safe) for safe in tuples.safe_images)
    assert not any(caption in shown_texts(figure) for caption in tuples.unsafe_texts)


def test_blurring_can_be_asked_for_and_lifted(tuples, found):
    blurred = show_retrieved(tuples, [1], found, query="text", side="unsafe", blur_unsafe="yes")
    assert [picture.shape for picture in shown_pictures(blurred)] == [(5, 5, 3)] * 2
    mine = replace(tuples, harmless=False)
    clear = show_retrieved(mine, [1], found, query="text", side="unsafe", blur_unsafe="no")
    assert np.array_equal(shown_pictures(clear)[1], tuples.unsafe_images[1])
    with pytest.raises(uwm.UwmError, match="write one of auto, yes, no"):
        show_retrieved(tuples, [1], found, query="text", side="unsafe", blur_unsafe="maybe")


def test_patches_are_means_and_squares_are_central():
    picture = np.repeat(np.repeat(np.arange(25, dtype=np.uint8).reshape(5, 5), 4, 0), 4, 1)[..., None]
    assert np.array_equal(qualitative._patches(picture)[..., 0], np.arange(25).reshape(5, 5))
    wide = np.arange(6, dtype=np.uint8)[None, :, None].repeat(2, 0)
    assert qualitative._square(wide)[0, :, 0].tolist() == [2, 3]


def test_nothing_to_show_is_said(tuples):
    figure = show_retrieved(tuples, [], {}, query="text", side="safe")
    assert "nothing to show" in figure.texts[0].get_text() and not figure.axes
