"""Verdicts: the rule itself, the paired differences behind it, and the claims on the paper's own numbers."""

from __future__ import annotations

import math
from collections import Counter
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from uwmlib.errors import UwmError
from uwmlib.metrics.intervals import paired_difference
from uwmlib.paper import verdicts as V
from uwmlib.paper.trends import change_along, trend_table
from uwmlib.paper.values import paper_digits, paper_value
from uwmlib.reporting.measured import item_scores, measured

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


@pytest.mark.parametrize("table", TABLES)
def test_claims_on_the_papers_own_numbers_agree_with_the_audit(table):
    judged = V.judge_claims(table)
    for claim_id, words in judged["on the paper's numbers"].items():
        want = V.FAILS if claim_id in CONTRADICTED else V.HOLDS
        want = f"holds, by {WITHIN_NOISE[claim_id]} or less" if claim_id in WITHIN_NOISE else want
        assert words == want, claim_id
    assert set(judged["here"]) == {"? not measured here"}


def test_every_table_has_its_claims():
    claims = V.load_claims()
    assert len(claims) == len({claim.id for claim in claims})
    assert Counter(claim.table for claim in claims) == CLAIMS_PER_TABLE
    early = {claim.id for claim in claims if claim.reading == "strict" and claim.table <= 3}
    assert early == {"C006", "C007", "C008", "C025", "C111"}
    assert V.judge_claims(3).at["C111", "reading"] == "strict"
    assert {claim.id for claim in claims if not claim.holds_on_paper} == CONTRADICTED
    # The audit counts 7 sentences that the paper's tables contradict as they are said.
    said = {claim.id for claim in claims if claim.reading == "said" and not claim.holds_on_paper}
    assert said == {"C067", "C070", "C108", "C113", "C114", "C117", "C152"}
    with pytest.raises(UwmError, match="Table 10"):
        V.judge_claims(10)


def test_a_claim_compares_two_printed_numbers_of_one_unit():
    for claim in V.load_claims():
        assert claim.table in TABLES and claim.kind in {"difference", "ranking", "trend"}
        for comparison in claim.comparisons:
            assert comparison.left != comparison.right
            assert math.isfinite(comparison.paper_difference), (claim.id, str(comparison))
            assert comparison.digits == paper_digits(comparison.table, comparison.right[1])


def test_one_line_can_name_rows_with_bars_and_quoted_spaces():
    line = {"id": "X", "table": "8", "relation": "<", "amount": "", "right_row": "CLIP", "right_key": ""}
    line |= {"left_row": "text=out|vision=fc2 'a b'", "left_key": "gs"}
    assert [comparison.left[0] for comparison in V._comparisons(line)] == ["text=out|vision=fc2", "a b"]


@pytest.mark.parametrize("table", TABLES)
def test_a_run_that_repeats_the_paper_bears_out_what_the_paper_bears_out(table):
    def repeat(*pair):
        return paper_as_ours(*pair, table=table, half=0.005 if table == 5 else 0.05)

    judged = V.judge_claims(table, repeat)
    for claim_id, here in judged["here"].items():
        if claim_id in WITHIN_NOISE or claim_id in BY_A_DIGIT:
            assert here == "– no direction in the paper", claim_id
        else:
            assert here == ("▼ does not hold" if claim_id in WRONG_SIGN else "▲ holds"), claim_id


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


def test_difference_of_scores_per_item_is_the_paired_normal_one():
    rng = np.random.default_rng(5)
    base = rng.random(400)
    better = np.clip(base + 0.02 + 0.05 * rng.standard_normal(400), 0, 1)
    got = V.difference_between({"bleu": torch.from_numpy(better)}, "bleu", [{"bleu": base}], "bleu")
    paired = better - base
    assert got.difference == pytest.approx(paired.mean()) and got.n == 400
    half = 1.959964 * paired.std(ddof=1) / math.sqrt(400)
    assert (got.lo, got.hi) == (pytest.approx(paired.mean() - half), pytest.approx(paired.mean() + half))
    # Unpaired, the interval would be more than four times as wide: pairing is what makes 0.02 visible.
    assert math.sqrt(better.var() + base.var()) > 4 * paired.std()


@pytest.mark.parametrize(
    ("left", "right", "sentence"),
    [
        (np.array([0.1, 0.2]), np.array([0.1, 0.2, 0.3]), "3 and 2 items"),
        (np.array([0.1, np.nan]), np.array([0.1, 0.2]), "1 of 2 items have no finite score"),
    ],
)
def test_scores_that_cannot_be_paired_are_refused(left, right, sentence):
    with pytest.raises(UwmError, match=sentence):
        V.difference_between({"bleu": left}, "bleu", {"bleu": right}, "bleu")


def test_scores_and_successes_are_not_compared_with_each_other():
    assert V.difference_between({"gs": np.ones(3)}, "gs", {"gs": np.ones(3, dtype=bool)}, "gs") is None


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


def test_change_along_a_sweep_is_the_mean_of_the_items_lines():
    held = np.random.default_rng(6).random((5, 300)) < np.array([0.2, 0.3, 0.35, 0.5, 0.7])[:, None]
    points = [{"gs": row} for row in held]
    slopes = 4 * np.polyfit(np.arange(5), 100.0 * held, 1)[0]
    got = change_along(points, "gs")
    half = 1.959964 * slopes.std(ddof=1) / math.sqrt(300)
    assert got.difference == pytest.approx(slopes.mean()) and got.n == 300
    assert got.hi - got.difference == pytest.approx(half) == got.difference - got.lo
    # With two points it is their difference, and backwards it has the other sign.
    ends = change_along([points[0], points[-1]], "gs")
    assert ends.difference == pytest.approx(100 * (held[-1].mean() - held[0].mean()))
    assert change_along(points[::-1], "gs").difference == pytest.approx(-got.difference)


def test_one_item_has_a_difference_whose_interval_excludes_nothing():
    found = V.difference_between({"bleu": np.array([0.5])}, "bleu", {"bleu": np.array([0.2])}, "bleu")
    assert found.difference == pytest.approx(0.3) and (found.lo, found.hi) == (-math.inf, math.inf)
    assert V.verdict(1.0, found.difference, (found.lo, found.hi)) == V.LEANS_SAME
    sweep = [{"gs": np.zeros(1, dtype=bool)}, {"gs": np.ones(1, dtype=bool)}]
    table = trend_table({"one": sweep}, {"gs": "falls"})
    assert table["verdict"].item() == "▽ leans the other way"


def test_trend_table():
    rises = [{"gs": np.arange(100) < share} for share in (10, 30, 20, 40)]
    flat = [{"gs": np.arange(100) < 10}] * 3
    table = trend_table({"up": rises, "flat": flat}, {"gs": "rises"}, paper_ends={"gs": 3.3})
    assert list(table.index) == ["up, GS", "flat, GS"]
    assert list(table["verdict"]) == ["▲ holds", "= no direction here"]
    assert list(table["steps against"]) == ["1 of 3", "0 of 2"]
    assert list(table["paper, ends"]) == ["+3.3", "+3.3"]
    assert trend_table({"up": rises}, {"gs": "falls"})["verdict"].item() == "▼ does not hold"


@pytest.mark.parametrize(
    ("points", "sentence"),
    [
        ([{"gs": np.ones(3, dtype=bool)}], "at least two"),
        ([{"gs": np.ones(3, dtype=bool)}, {"gs": np.ones(4, dtype=bool)}], "equally many"),
        ([{"gs": np.ones(3, dtype=bool)}, {"gs": 4.5}], "one outcome per item"),
    ],
)
def test_a_sweep_without_a_direction_is_refused(points, sentence):
    with pytest.raises(UwmError, match=sentence):
        change_along(points, "gs")


def test_a_trend_rises_or_falls():
    points = [{"gs": np.ones(3, dtype=bool)}] * 2
    with pytest.raises(UwmError, match="did you mean 'rises'"):
        trend_table({"sweep": points}, {"gs": "rise"})


def test_scores_per_item_are_read_as_their_mean_with_its_interval():
    scores = np.random.default_rng(7).random(250)
    found = measured([{"gs": 1.0}, {"bleu": torch.from_numpy(scores)}], "bleu")
    half = 1.959964 * scores.std(ddof=1) / math.sqrt(250)
    assert found.value == pytest.approx(scores.mean()) and found.n == 250
    assert (found.lo, found.hi) == (pytest.approx(scores.mean() - half), pytest.approx(scores.mean() + half))
    assert not measured({"bleu": np.array([0.25])}, "bleu").has_interval
    assert item_scores({"bleu": scores, "gs": scores > 0.5}, "gs") is None
