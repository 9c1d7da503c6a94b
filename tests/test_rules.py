"""The words of verdicts: every rule by hand-made numbers."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from uwmlib.errors import UwmError
from uwmlib.manifests import manifests_dir
from uwmlib.metrics import Difference, mean_over_seeds
from uwmlib.paper import rules as R
from uwmlib.paper.rules import (
    Margin,
    collapse_verdict,
    direction_verdict,
    judged,
    preservation_verdict,
    verdict,
)


def ours(difference, lo, hi, **more):
    return Difference(difference, lo, hi, **more)


@pytest.mark.parametrize(
    ("paper", "found", "word"),
    [
        # Four pairs that share a sign, and were once all "holds" or "leans the same way":
        (-1.9, ours(-22.8, -24.9, -20.7), "same direction, larger"),
        (-6.2, ours(-39.8, -42.0, -37.6), "same direction, larger"),
        (12.9, ours(0.1, -0.4, 0.7), "no effect here"),
        (-1.9, ours(-1.4, -2.5, -0.4), "agrees in size"),
        # 12.9 has a margin of 4.3: below 8.6 is smaller, above 17.2 is larger, unless the interval holds 12.9.
        (12.9, ours(8.5, 6.0, 11.0), "same direction, smaller"),
        (12.9, ours(8.7, 6.0, 11.0), "agrees in size"),
        (12.9, ours(7.5, 2.0, 13.0), "agrees in size"),
        (12.9, ours(7.5, 2.0, 12.8), "same direction, smaller"),
        (12.9, ours(12.9, 12.8, 13.0), "agrees in size"),
        (12.9, ours(12.9, 0.1, 40.0), "same direction"),  # too wide to tell a size
        (12.9, ours(12.9, 8.5, 17.3), "same direction"),
        (12.9, ours(12.9, 8.7, 17.3), "agrees in size"),
        (-12.9, ours(-12.9, -17.3, -8.5), "same direction"),
        (12.9, ours(17.1, 15.0, 19.2), "agrees in size"),
        (12.9, ours(17.3, 15.0, 19.6), "same direction, larger"),
        (12.9, ours(17.3, 12.8, 22.0), "agrees in size"),
        (-12.9, ours(-8.5, -11.0, -6.0), "same direction, smaller"),
        (-12.9, ours(-8.7, -11.0, -6.0), "agrees in size"),
        (-12.9, ours(-17.3, -19.6, -15.0), "same direction, larger"),
        # A small size has a margin of one point.
        (0.5, ours(1.4, 0.9, 1.9), "agrees in size"),
        (0.5, ours(1.6, 0.9, 2.3), "same direction, larger"),
        (2.0, ours(0.9, 0.2, 1.6), "same direction, smaller"),
        (2.0, ours(1.1, 0.2, 1.6), "agrees in size"),
        (12.9, ours(-3.0, -5.0, -1.0), "opposite"),
        (-12.9, ours(3.0, 1.0, 5.0), "opposite"),
        # Zero and the paper's size, or its mirror image, in one interval: nothing can be said.
        (12.9, ours(5.0, -3.0, 13.0), "cannot tell"),
        (12.9, ours(-6.0, -13.0, 1.0), "cannot tell"),
        (12.9, ours(-6.0, -12.0, 0.5), "no effect here"),
        (12.9, ours(5.0, 0.0, 10.0), "no effect here"),  # an interval that touches 0 holds it
        (12.9, ours(5.0, -2.0, 12.85), "cannot tell"),  # the paper's size is known to 0.1
        (12.9, ours(0.0, 0.0, 0.0), "no effect here"),
        (12.9, ours(0.0, -math.inf, math.inf), "cannot tell"),
        (0.0, ours(3.0, 1.0, 5.0), "no direction in the paper"),
        (
            5.3 - 5.2,
            ours(3.0, 1.0, 5.0),
            "no direction in the paper",
        ),  # 0.0999...: the paper's own repeat noise
        (5.2 - 5.3, ours(3.0, 1.0, 5.0), "no direction in the paper"),
        (0.2, ours(0.8, 0.1, 1.5), "agrees in size"),
        (None, ours(3.0, 1.0, 5.0), "no direction in the paper"),
        (math.nan, ours(3.0, 1.0, 5.0), "no direction in the paper"),
    ],
)
def test_a_difference_is_judged_by_its_size(paper, found, word):
    assert verdict(paper, found) == word


def test_the_margin_is_a_knob():
    wide, narrow = Margin(points=8.0), Margin(points=0.0, share=0.0)
    assert verdict(12.9, ours(5.0, 4.0, 6.0), margin=wide) == "agrees in size"
    assert verdict(12.9, ours(4.8, 4.0, 6.0), margin=wide) == "same direction, smaller"
    assert verdict(12.9, ours(12.0, 11.0, 12.8), margin=narrow) == "same direction, smaller"
    assert verdict(12.9, ours(12.0, 11.0, 12.9), margin=narrow) == "agrees in size"
    assert [Margin().of(size) for size in (-1.9, 3.0, 12.9)] == pytest.approx([1.0, 1.0, 4.3])


@pytest.mark.parametrize(
    ("found", "word"),
    [
        (ours(7.0, 1.0, 13.0), "cannot tell"),  # its interval excludes 0, but not after the correction
        (ours(2.0, 1.0, 3.0), "no effect here"),
        (ours(-2.0, -3.0, -1.0), "no effect here"),
        (ours(2.0, -1.0, 5.0), "no effect here"),
    ],
)
def test_a_direction_that_does_not_survive_the_correction_is_none(found, word):
    assert verdict(12.9, found, counts=False) == word
    assert direction_verdict(1, found, size=12.9, counts=False) == word


@given(st.floats(-90, 90), st.floats(-90, 90), st.floats(0, 50), st.floats(0, 50))
def test_mirroring_both_sides_changes_nothing_and_mirroring_one_no_word_but_of_direction(
    paper, x, below, above
):
    found, mirrored = ours(x, x - below, x + above), ours(-x, -x - above, -x + below)
    word = verdict(paper, found)
    assert verdict(-paper, mirrored) == word
    directed = {R.AGREES, R.SAME, R.SMALLER, R.LARGER}
    other = verdict(-paper, found)
    assert (other == R.OPPOSITE) if word in directed else (other in directed or other == word)


@given(st.floats(0.2, 90), st.floats(-90, 90), st.floats(0, 50), st.floats(0, 50))
def test_the_words_are_what_they_say(paper, x, below, above):
    found = ours(x, x - below, x + above)
    margin = max(1.0, paper / 3)
    inside = found.lo <= paper <= found.hi
    word = verdict(paper, found)
    if word == R.AGREES:
        assert found.lo > 0 and (inside or abs(x - paper) <= margin + 1e-6)
    if word == R.SAME:
        assert 0 < found.lo < paper - margin + 1e-6 and found.hi > paper + margin - 1e-6
    if word in (R.SMALLER, R.LARGER):
        assert (
            found.lo > 0
            and not inside
            and abs(x - paper) > margin - 1e-6
            and (x < paper) == (word == R.SMALLER)
        )
    if word == R.NO_EFFECT:
        assert found.lo <= 0 <= found.hi and not found.lo <= paper <= found.hi
    if word == R.CANNOT_TELL:
        assert found.lo <= 0 <= found.hi


@pytest.mark.parametrize("interval", [(4.0, 5.0), (math.nan, 5.0), (1.0, math.nan), (5.0, 1.0)])
def test_an_interval_that_cannot_be_one_is_refused(interval):
    found = Difference(3.0, *interval)
    for judge in (
        lambda: verdict(1.0, found),
        lambda: verdict(None, found),
        lambda: direction_verdict(1, found),
        lambda: preservation_verdict(found, loss=1.0),
        lambda: collapse_verdict(replace(found, base=5.0)),
    ):
        with pytest.raises(UwmError, match="interval"):
            judge()


@pytest.mark.parametrize(
    ("sign", "found", "word"),
    [
        (1, ours(3.0, 1.0, 5.0), "same direction"),
        (-1, ours(-30.0, -33.0, -27.0), "same direction"),
        (-1, ours(3.0, 1.0, 5.0), "opposite"),
        (1, ours(0.2, -0.5, 0.9), "no effect here"),
        (1, ours(0.2, -0.5, 1.0), "cannot tell"),
        (1, ours(-0.2, -1.1, 0.5), "cannot tell"),
    ],
)
def test_a_ranking_is_judged_by_its_direction(sign, found, word):
    assert direction_verdict(sign, found) == word


@pytest.mark.parametrize(
    ("found", "word", "both"),
    [
        (ours(-1.0, -2.0, 0.0), "preserved", "preserved"),
        (ours(-1.5, -2.5, -0.5), "cannot tell", "cannot tell"),
        (ours(-4.0, -5.9, -2.1), "not preserved", "not preserved"),
        (ours(-4.0, -6.0, -2.0), "cannot tell", "cannot tell"),
        (ours(7.0, 5.0, 9.0), "preserved", "not preserved"),
        (ours(1.5, 0.5, 2.5), "preserved", "cannot tell"),
        (
            ours(0.0, -9.0, 9.0),
            "cannot tell",
            "cannot tell",
        ),  # no difference was found, and none was excluded
    ],
)
def test_what_is_kept_is_judged_by_equivalence(found, word, both):
    assert preservation_verdict(found, loss=2.0) == word
    assert preservation_verdict(found, loss=2.0, both=True) == both


@pytest.mark.parametrize(
    ("found", "word"),
    [
        (ours(-48.0, -49.0, -45.0, base=50.0), "collapsed"),  # at most 5 of 50 are left
        (ours(-46.0, -48.0, -44.0, base=50.0), "cannot tell"),
        (ours(-39.8, -41.0, -38.0, base=50.0), "not collapsed"),
        (ours(-5.8, -7.4, -4.3, base=50.0), "not collapsed"),
        (ours(3.0, 1.0, 5.0, base=50.0), "not collapsed"),
    ],
)
def test_a_collapse_is_judged_by_collapse(found, word):
    assert collapse_verdict(found) == word
    with pytest.raises(UwmError, match="with its base"):
        collapse_verdict(replace(found, base=None))


def test_the_paper_collapses_by_the_same_rule():
    left = ours(3.1 - 39.8, 3.1 - 39.8, 3.1 - 39.8, base=39.8)  # the most that any of its collapses leaves
    assert collapse_verdict(left) == "collapsed" and collapse_verdict(left, share=0.05) == "not collapsed"


def by_size(paper):
    return lambda found, counts: verdict(paper, found, counts=counts)


@pytest.mark.parametrize(
    ("paper", "found", "counts", "shown"),
    [
        (-1.9, ours(-22.8, -24.9, -20.7), True, "↓ same direction, larger"),
        (12.9, ours(12.0, 10.0, 14.0), True, "↑ agrees in size"),
        (12.9, ours(-3.0, -5.0, -1.0), True, "↓ opposite"),
        (-12.9, ours(3.0, 1.0, 5.0), True, "↑ opposite"),
        (12.9, ours(0.1, -0.4, 0.7), False, "↔ no effect here"),
        (0.0, ours(-3.0, -5.0, -1.0), True, "↓ no direction in the paper"),
    ],
)
def test_the_mark_says_what_moved_and_the_word_whether_it_agrees(paper, found, counts, shown):
    assert str(judged(found, (counts,), by_size(paper))) == shown


def test_what_was_not_measured_has_a_mark_of_its_own():
    assert str(judged(None, (), by_size(1.0))) == "? not measured here"


AGREES, SMALL, NONE, WRONG = (
    ours(12.0, 10.0, 14.0), ours(3.0, 1.0, 5.0), ours(0.0, -1.0, 1.0), ours(-3.0, -5.0, -1.0)
)  # fmt: skip


@pytest.mark.parametrize(
    ("seeds", "shown"),
    [
        ([AGREES, AGREES, AGREES], "↑ agrees in size"),
        ([AGREES, SMALL, AGREES], "↑ same direction, smaller (agrees in size on 2 of 3)"),
        ([AGREES, SMALL, NONE], "↔ no effect here (agrees in size on 1 of 3)"),
        ([AGREES, AGREES, WRONG], "↔ opposite (agrees in size on 2 of 3)"),
        ([WRONG, WRONG], "↓ opposite"),
        ([AGREES], "↑ agrees in size"),
    ],
)
def test_a_verdict_holds_if_it_holds_for_every_seed(seeds, shown):
    counts = tuple(R.excludes_zero(one) for one in seeds)
    assert str(judged(mean_over_seeds(seeds), counts, by_size(12.9))) == shown


def test_the_glossary_has_every_mark_and_every_word():
    glossary = (manifests_dir().parent / "book" / "glossary.md").read_text(encoding="utf-8")
    entry = " ".join(glossary.partition("\nverdict\n")[2].split())
    assert [word for word in R.MEANINGS if f"*{word}*" not in entry] == []
    assert [mark for mark in R.MARKS.values() if f" {mark} " not in entry] == []


def test_the_legend_has_every_mark_and_every_word():
    words = {value for name, value in vars(R).items() if name.isupper() and isinstance(value, str)}
    legend = R.legend()
    assert set(legend.index) == words | set(R.MARKS.values()) and legend["means"].str.len().min() > 10
    assert len(set(R.MARKS.values())) == len(R.MARKS) == 4
    assert sorted(R.WORST_FIRST) == sorted(words)
