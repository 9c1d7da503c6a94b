"""Figures of what is retrieved first hide what must not be shown."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from matplotlib import pyplot as plt

import uwmlib as uwm
from uwmlib.metrics import Retrieved
from uwmlib.reporting import qualitative
from uwmlib.reporting.qualitative import choose_examples, show_retrieved


@pytest.fixture(autouse=True)
def close():
    yield
    plt.close("all")


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


def hits(index, safe):
    return Retrieved(np.array(index), np.array(safe))


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
