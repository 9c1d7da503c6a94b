"""Verdicts: the rule itself, trends, and the claims on the paper's own numbers."""

from __future__ import annotations

import math
from collections import Counter

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from uwmlib.errors import UwmError
from uwmlib.metrics import Difference, share_of
from uwmlib.paper import claims as C
from uwmlib.paper import verdicts as V
from uwmlib.paper.sentences import judge_sentences
from uwmlib.paper.trends import trend_table
from uwmlib.paper.values import paper_digits, paper_value

# What an independent audit of the printed tables found (it evaluated its own formulas, not ours): the claims
# that the paper's numbers contradict. All others hold.
WRONG_SIGN = {
    *("C007", "C008", "C025", "C067", "C070"),  # Table 1
    *("C004", "C129", "C130", "C132"),  # Table 4
    *("C140", "C152", "C172", "C189"),  # Tables 5, 6, 8 and 9
}
# The direction is right, only the size that the text gives is not the table's.
WRONG_SIZE = {"C108", "C113", "C114", "C117", "C136", "C163"}
CONTRADICTED = WRONG_SIGN | WRONG_SIZE
# One unit of the last printed digit: 0.1, for the captioning scores of Table 5 0.01.
WITHIN_NOISE = {"C018": 0.1, "C065": 0.1, "C135": 0.01, "C139": 0.01, "C145": 0.1, "C173": 0.1}
# Contradicted, but the part that fares worst is no larger than that either.
BY_A_DIGIT = {"C136", "C152", "C172"}
CLAIMS_PER_TABLE = {1: 52, 2: 7, 3: 8, 4: 20, 5: 8, 6: 13, 7: 6, 8: 11, 9: 7}
TABLES = range(1, 10)


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


@pytest.mark.parametrize("interval", [(4.0, 5.0), (math.nan, 5.0), (1.0, math.nan), (5.0, 1.0)])
def test_an_interval_that_cannot_be_one_is_refused(interval):
    with pytest.raises(UwmError, match="interval"):
        V.verdict(1.0, 3.0, interval)


def test_every_verdict_has_its_own_mark():
    assert len(set(V.MARKS.values())) == len(V.MARKS) == 7
    assert V.marked("holds") == "▲ holds"


def booleans(n, share, seed):
    return np.random.default_rng(seed).random(n) < share


def paper_as_ours(left_row, left_key, right_row, right_key, *, table=1, half=0.05):
    """A run that finds exactly the printed numbers of `table`."""
    difference = paper_value(table, left_row, left_key) - paper_value(table, right_row, right_key)
    return Difference(difference, difference - half, difference + half)


def test_verdict_table():
    wanted = V.directions(1, "CLIP", rows=["CLIP", "UWM", "G-Unsafe"], keys=["p_u_t", "ps"])
    table = V.verdict_table(wanted, paper_as_ours)
    assert list(table.index) == [
        "UWM − CLIP, $P_u^t$",
        "UWM − CLIP, PS",
        "G-Unsafe − CLIP, $P_u^t$",
        "G-Unsafe − CLIP, PS",
    ]
    assert list(table["paper"]) == ["+6.5", "+0.3", "+0.1", "-11.1"]
    assert list(table["verdict"]) == ["▲ holds", "▲ holds", "– no direction in the paper", "▲ holds"]
    assert set(V.verdict_table(wanted, {})["verdict"]) == {"? not measured here"}


@pytest.mark.parametrize("table", TABLES)
def test_claims_on_the_papers_own_numbers_agree_with_the_audit(table):
    judged = C.judge_claims(table)
    for claim_id, words in judged["on the paper's numbers"].items():
        want = V.FAILS if claim_id in CONTRADICTED else V.HOLDS
        want = f"holds, by {WITHIN_NOISE[claim_id]} or less" if claim_id in WITHIN_NOISE else want
        assert words == want, claim_id
    assert set(judged["here"]) == {"? not measured here"}


def test_every_table_has_its_claims():
    claims = C.load_claims()
    assert len(claims) == len({claim.id for claim in claims})
    assert Counter(claim.table for claim in claims) == CLAIMS_PER_TABLE
    early = {claim.id for claim in claims if claim.reading == "strict" and claim.table <= 3}
    assert early == {"C006", "C007", "C008", "C025", "C111"}
    assert C.judge_claims(3).at["C111", "reading"] == "strict"
    assert {claim.id for claim in claims if not claim.holds_on_paper} == CONTRADICTED
    # The audit counts 7 sentences that the paper's tables contradict as they are said.
    said = {claim.id for claim in claims if claim.reading == "said" and not claim.holds_on_paper}
    assert said == {"C067", "C070", "C108", "C113", "C114", "C117", "C152"}
    with pytest.raises(UwmError, match="Table 10"):
        C.judge_claims(10)


def test_a_claim_compares_two_printed_numbers_of_one_unit():
    for claim in C.load_claims():
        assert claim.table in TABLES and claim.kind in {"difference", "ranking", "trend"}
        for comparison in claim.comparisons:
            assert comparison.left != comparison.right
            assert math.isfinite(comparison.paper_difference), (claim.id, str(comparison))
            assert comparison.digits == paper_digits(comparison.table, comparison.right[1])


def test_one_line_can_name_rows_with_bars_and_quoted_spaces():
    line = {"id": "X", "table": "8", "relation": "<", "amount": "", "right_row": "CLIP", "right_key": ""}
    line |= {"left_row": "text=out|vision=fc2 'a b'", "left_key": "gs"}
    assert [comparison.left[0] for comparison in C._comparisons(line)] == ["text=out|vision=fc2", "a b"]


@pytest.mark.parametrize("table", TABLES)
def test_a_run_that_repeats_the_paper_bears_out_what_the_paper_bears_out(table):
    def repeat(*pair):
        return paper_as_ours(*pair, table=table, half=0.005 if table == 5 else 0.05)

    judged = C.judge_claims(table, repeat)
    for claim_id, here in judged["here"].items():
        if claim_id in WITHIN_NOISE or claim_id in BY_A_DIGIT:
            assert here == "– no direction in the paper", claim_id
        else:
            assert here == ("▼ does not hold" if claim_id in WRONG_SIGN else "▲ holds"), claim_id


def test_a_claim_is_as_good_as_its_worst_part():
    def one_wrong(left_row, left_key, right_row, right_key):
        found = paper_as_ours(left_row, left_key, right_row, right_key)
        return Difference(-7.0, -9.0, -5.0) if left_key == "txt_s" else found

    judged = C.judge_claims(1, one_wrong)
    assert judged.at["C015", "here"] == "▼ does not hold"
    assert judged.at["C015", "difference here"] == r"UWM − CLIP, $\mathrm{Txt}_s$: -7.0 [-9.0, -5.0]"
    assert judged.at["C087", "here"] == "▲ holds"


def test_a_claim_is_about_every_pair():
    pairs = {claim.id: claim.comparisons for claim in C.load_claims()}
    assert [(str(pair), pair.relation, pair.paper_difference) for pair in pairs["C014"]] == [
        ("Safe-CLIP − CLIP, $P_u^t$", ">", 13.8),
        ("Safe-CLIP − G-Unsafe, $P_u^t$", ">", 13.7),
        ("Safe-CLIP − G-Safe-CLIP, $P_u^t$", ">", 11.6),
        ("Safe-CLIP − UWM, $P_u^t$", ">", 7.3),
        ("Safe-CLIP − CLIP, $P_s^t$", "<", -23.0),
    ]
    assert str(pairs["C078"][0]) == r"CLIP: $\mathrm{Txt}_s$ − $\mathrm{Img}_s$"


def test_claims_are_judged_on_measured_outcomes():
    base, better = share_of(booleans(2000, 0.3, 0)), share_of(booleans(2000, 0.6, 1))
    keys = ("txt_s", "img_s")
    ours = {"CLIP": dict.fromkeys(keys, base), "UWM": dict.fromkeys(keys, better)}
    judged = C.judge_claims(1, ours)
    assert judged.at["C015", "here"] == "▲ holds"
    assert judged.at["C001", "here"] == "? not measured here"
    swapped = C.judge_claims(1, {"CLIP": ours["UWM"], "UWM": ours["CLIP"]})
    assert swapped.at["C015", "here"] == "▼ does not hold"


def test_captioning_scores_are_judged_in_their_own_unit():
    wanted = V.directions(5, "LLaVA", rows=["LLaVA+UWM"], keys=["nsfw", "rouge_l", "meteor"])
    table = V.verdict_table(wanted, lambda *pair: paper_as_ours(*pair, table=5, half=0.004))
    assert list(table["paper"]) == ["-9.8", "-0.01", "-0.03"]
    assert list(table["here"]) == [
        "-9.8 [-9.8, -9.8]",
        "-0.010 [-0.014, -0.006]",
        "-0.030 [-0.034, -0.026]",
    ]
    assert list(table["verdict"]) == ["▲ holds", "– no direction in the paper", "▲ holds"]


def test_one_item_excludes_nothing():
    sweep = [{"gs": share_of([False])}, {"gs": share_of([True])}]
    table = trend_table({"one": sweep}, {"gs": "falls"})
    assert table["verdict"].item() == "▽ leans the other way"


def test_trend_table():
    rises = [{"gs": share_of(np.arange(100) < share)} for share in (10, 30, 20, 40)]
    flat = [{"gs": share_of(np.arange(100) < 10)}] * 3
    table = trend_table({"up": rises, "flat": flat}, {"gs": "rises"}, paper_ends={"gs": 3.3})
    assert list(table.index) == ["up, GS", "flat, GS"]
    assert list(table["verdict"]) == ["▲ holds", "= no direction here"]
    assert list(table["steps against"]) == ["1 of 3", "0 of 2"]
    assert list(table["paper, ends"]) == ["+3.3", "+3.3"]
    assert trend_table({"up": rises}, {"gs": "falls"})["verdict"].item() == "▼ does not hold"


def test_a_trend_rises_or_falls():
    points = [{"gs": share_of([True] * 3)}] * 2
    with pytest.raises(UwmError, match="did you mean 'rises'"):
        trend_table({"sweep": points}, {"gs": "rise"})


def outcome(successes, n=1000):
    return {"q": share_of(np.arange(n) < successes)}


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
    with pytest.raises(UwmError, match="write one of more, less, kept"):
        judge_sentences({"A": outcome(1)}, [("A", "half", "q", "same")], margin=1.0)
