"""Verdicts: the rule itself, the paired differences behind it, and the claims on the paper's own numbers."""

from __future__ import annotations

import math
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from uwmlib.errors import UwmError
from uwmlib.metrics.intervals import paired_difference
from uwmlib.paper import verdicts as V
from uwmlib.paper.values import paper_value

# What an independent audit of the printed tables found (it evaluated its own formulas, not ours): the claims
# about Tables 1 to 3 that the paper's numbers contradict. All others hold.
CONTRADICTED = {"C007", "C008", "C025", "C067", "C070", "C108"}
WITHIN_NOISE = {"C018", "C065"}


@pytest.mark.parametrize(
    ("paper", "ours", "interval", "word"),
    [
        (12.9, 3.0, (1.0, 5.0), "holds"),
        (-12.9, -3.0, (-5.0, -1.0), "holds"),
        (12.9, 3.0, (-1.0, 7.0), "leans the same way"),
        (12.9, -3.0, (-7.0, 1.0), "leans the other way"),
        (12.9, -3.0, (-5.0, -1.0), "does not hold"),
        (-12.9, 3.0, (1.0, 5.0), "does not hold"),
        (12.9, 3.0, (0.0, 6.0), "leans the same way"),  # an interval that touches 0 includes it
        (12.9, 0.0, (-1.0, 1.0), "no direction here"),
        (0.0, 3.0, (1.0, 5.0), "no direction in the paper"),
        (5.3 - 5.2, 3.0, (1.0, 5.0), "no direction in the paper"),  # 0.0999...: the paper's own repeat noise
        (5.2 - 5.3, 3.0, (1.0, 5.0), "no direction in the paper"),
        (0.2, 3.0, (1.0, 5.0), "holds"),
        (None, 3.0, (1.0, 5.0), "no direction in the paper"),
        (math.nan, 3.0, (1.0, 5.0), "no direction in the paper"),
    ],
)
def test_verdict(paper, ours, interval, word):
    assert V.verdict(paper, ours, interval) == word


@given(st.floats(-90, 90), st.floats(-90, 90), st.floats(0, 50), st.floats(0, 50))
def test_mirroring_both_sides_changes_nothing_and_mirroring_one_swaps_the_verdict(paper, ours, below, above):
    interval = (ours - below, ours + above)
    mirrored = (-ours - above, -ours + below)
    word = V.verdict(paper, ours, interval)
    assert V.verdict(-paper, -ours, mirrored) == word
    swap = {V.HOLDS: V.FAILS, V.FAILS: V.HOLDS, V.LEANS_SAME: V.LEANS_OTHER, V.LEANS_OTHER: V.LEANS_SAME}
    assert V.verdict(-paper, ours, interval) == swap.get(word, word)


@pytest.mark.parametrize("interval", [(4.0, 5.0), (math.nan, 5.0), (1.0, math.inf), (5.0, 1.0)])
def test_an_interval_that_cannot_be_one_is_refused(interval):
    with pytest.raises(UwmError, match="interval"):
        V.verdict(1.0, 3.0, interval)


def test_every_verdict_has_its_own_mark():
    assert len(set(V.MARKS.values())) == len(V.MARKS) == 7
    assert V.marked("holds") == "▲ holds"


def booleans(n, share, seed):
    return np.random.default_rng(seed).random(n) < share


def test_difference_over_one_data_set_is_the_paired_one():
    a, b = booleans(300, 0.6, 0), booleans(300, 0.4, 1)
    got = V.difference_between({"gs": a}, "gs", [{}, {"gs": torch.from_numpy(b)}], "gs")
    want = paired_difference(torch.from_numpy(b), torch.from_numpy(a))
    assert got.difference == pytest.approx(100 * (a.mean() - b.mean()))
    assert (got.lo, got.hi, got.n) == (pytest.approx(want.lo), pytest.approx(want.hi), 300)


def test_difference_of_means_over_data_sets_counts_them_alike():
    a = {"x": booleans(100, 0.9, 0), "y": booleans(1000, 0.5, 1)}
    b = {"x": booleans(100, 0.5, 2), "y": booleans(1000, 0.5, 3)}
    got = V.difference_between({"zs_mean": a}, "zs_mean", {"zs_mean": b}, "zs_mean")
    points = [100 * (a[name].mean() - b[name].mean()) for name in a]
    assert got.difference == pytest.approx(np.mean(points)) and got.n == 1100
    # Independent data sets: the width of the mean is close to that of a normal approximation.
    variances = [np.var(100 * (a[name].astype(float) - b[name])) / len(a[name]) for name in a]
    assert got.hi - got.lo == pytest.approx(2 * 1.96 * math.sqrt(sum(variances)) / 2, rel=0.05)


def test_zero_shot_outcomes_are_found_inside_accuracies():
    a, b = (SimpleNamespace(correct=torch.from_numpy(booleans(60, share, 4))) for share in (0.8, 0.5))
    got = V.difference_between({"dtd": a}, "dtd", {"dtd": b}, "dtd")
    assert got.difference == pytest.approx(100 * (a.correct.double().mean() - b.correct.double().mean()))


def test_difference_needs_the_same_items():
    with pytest.raises(UwmError, match="8 and 9"):
        V.difference_between({"gs": booleans(9, 0.5, 0)}, "gs", {"gs": booleans(8, 0.5, 0)}, "gs")
    sets = {"zs_mean": {"x": booleans(9, 0.5, 0)}}, {"zs_mean": {"y": booleans(9, 0.5, 0)}}
    with pytest.raises(UwmError, match="same data sets"):
        V.difference_between(sets[0], "zs_mean", sets[1], "zs_mean")
    assert V.difference_between({"gs": booleans(9, 0.5, 0)}, "gs", {"ps": booleans(9, 0.5, 0)}, "gs") is None
    assert V.difference_between({"gs": 4.5}, "gs", {"gs": 1.2}, "gs") is None


def paper_as_ours(left_row, left_key, right_row, right_key, *, table=1, half=0.05):
    """A run that finds exactly the printed numbers of `table`."""
    difference = paper_value(table, left_row, left_key) - paper_value(table, right_row, right_key)
    return V.Difference(difference, difference - half, difference + half)


def test_verdict_table():
    wanted = V.directions(1, "CLIP", rows=["CLIP", "UWM", "G-Unsafe"], keys=["p_u_t", "ps"])
    table = V.verdict_table(wanted, paper_as_ours)
    assert list(table["comparison"]) == [
        "UWM − CLIP, $P_u^t$",
        "UWM − CLIP, PS",
        "G-Unsafe − CLIP, $P_u^t$",
        "G-Unsafe − CLIP, PS",
    ]
    assert list(table["paper"]) == ["+6.5", "+0.3", "+0.1", "-11.1"]
    assert list(table["verdict"]) == ["▲ holds", "▲ holds", "– no direction in the paper", "▲ holds"]
    assert set(V.verdict_table(wanted, {})["verdict"]) == {"? not measured here"}


@pytest.mark.parametrize("table", [1, 2, 3])
def test_claims_on_the_papers_own_numbers_agree_with_the_audit(table):
    judged = V.judge_claims(table)
    for claim_id, words in judged["on the paper's numbers"].items():
        want = V.FAILS if claim_id in CONTRADICTED else V.HOLDS
        want = "holds, by 0.1 or less" if claim_id in WITHIN_NOISE else want
        assert words == want, claim_id
    assert set(judged["here"]) == {"? not measured here"}


def test_the_three_tables_hold_all_claims():
    claims = V.load_claims()
    assert len(claims) == len({claim.id for claim in claims}) == 67
    assert {claim.table for claim in claims} == {1, 2, 3}
    strict = {claim.id for claim in claims if claim.reading == "strict"}
    assert strict == {"C006", "C007", "C008", "C025", "C111"}
    assert V.judge_claims(3).at["C111", "reading"] == "strict"
    assert {claim.id for claim in claims if not claim.holds_on_paper} == CONTRADICTED
    with pytest.raises(UwmError, match="Table 7"):
        V.judge_claims(7)


@pytest.mark.parametrize("table", [1, 2, 3])
def test_a_run_that_repeats_the_paper_bears_out_what_the_paper_bears_out(table):
    def repeat(*pair):
        return paper_as_ours(*pair, table=table)

    judged = V.judge_claims(table, repeat)
    for claim_id, here in judged["here"].items():
        if claim_id in CONTRADICTED - {"C108"}:
            assert here == "▼ does not hold", claim_id
        elif claim_id in WITHIN_NOISE:
            assert here == "– no direction in the paper", claim_id
        else:  # C108's direction is right, only its printed size is not
            assert here == "▲ holds", claim_id


def test_a_claim_is_as_good_as_its_worst_part():
    def one_wrong(left_row, left_key, right_row, right_key):
        found = paper_as_ours(left_row, left_key, right_row, right_key)
        return V.Difference(-7.0, -9.0, -5.0) if left_key == "txt_s" else found

    judged = V.judge_claims(1, one_wrong)
    assert judged.at["C015", "here"] == "▼ does not hold"
    assert judged.at["C015", "difference here"] == r"UWM − CLIP, $\mathrm{Txt}_s$: -7.0 [-9.0, -5.0]"
    assert judged.at["C087", "here"] == "▲ holds"


def test_comparisons_list_every_pair():
    pairs = V.judge_comparisons(1)
    assert list(pairs.loc["C014", "comparison"]) == [
        "Safe-CLIP − CLIP, $P_u^t$",
        "Safe-CLIP − G-Unsafe, $P_u^t$",
        "Safe-CLIP − G-Safe-CLIP, $P_u^t$",
        "Safe-CLIP − UWM, $P_u^t$",
        "Safe-CLIP − CLIP, $P_s^t$",
    ]
    assert list(pairs.loc["C014", "claimed"]) == [">"] * 4 + ["<"]
    assert list(pairs.loc["C014", "paper"]) == ["+13.8", "+13.7", "+11.6", "+7.3", "-23.0"]
    assert pairs.loc["C078", "comparison"] == r"CLIP: $\mathrm{Txt}_s$ − $\mathrm{Img}_s$"


def test_claims_are_judged_on_measured_outcomes():
    base, better = booleans(2000, 0.3, 0), booleans(2000, 0.6, 1)
    keys = ("txt_s", "img_s")
    ours = {"CLIP": dict.fromkeys(keys, base), "UWM": dict.fromkeys(keys, better)}
    judged = V.judge_claims(1, ours)
    assert judged.at["C015", "here"] == "▲ holds"
    assert judged.at["C001", "here"] == "? not measured here"
    swapped = V.judge_claims(1, {"CLIP": ours["UWM"], "UWM": ours["CLIP"]})
    assert swapped.at["C015", "here"] == "▼ does not hold"
