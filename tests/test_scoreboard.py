"""The scoreboard: every statement of the paper on its printed cells, on recorded differences, and as one word."""

from __future__ import annotations

from itertools import product

import numpy as np
import pandas as pd
import pytest
from bs4 import BeautifulSoup
from build_book import substitutions

import uwmlib as uwm
from uwmlib import paper, studies
from uwmlib.errors import UwmError
from uwmlib.metrics import mean_of, share_of
from uwmlib.paper import audit, scoreboard
from uwmlib.paper.checks import check_printed
from uwmlib.paper.claims import judge_claims, load_claims
from uwmlib.paper.rules import MEANINGS, by_seed
from uwmlib.paper.scoreboard import load_statements, score_statements
from uwmlib.reporting import SearchableTable, flatten, recorded_values, save_results
from uwmlib.reporting.mosaic import LOOKS, mosaic

# What an independent audit found with formulas of its own, in exact fractions: the statements that the printed numbers
# contradict, and those that they cannot decide. All others hold.
NO = [4, 7, 8, 22, 25, 27, 29, 67, 70, 75, 83, 98, 108, 113, 114, 117, 129, 130, 132, 136, 140, 152, 163, 166]
NO += [172, 176, 189, 192, 196, 201, 207, 208]
NA = [11, 30, 31, 32, 84, 102, 103, 121, 124, 127, 177, 178, 179, 180, 181, 186, 213]
NO, NA = ([f"C{number:03d}" for number in numbers] for numbers in (NO, NA))


@pytest.fixture(scope="module")
def board():
    return score_statements({})


def test_all_214_statements_on_paper_agree_with_the_audit(board):
    assert sorted(board.index) == [f"C{number:03d}" for number in range(1, 215)]
    want = dict.fromkeys(board.index, "holds") | dict.fromkeys(NO, "does not hold")
    want |= dict.fromkeys(NA, "cannot be checked")
    assert board["on paper"].str.replace(", by.*", "", regex=True).to_dict() == want


def test_every_statement_has_a_part_a_reading_and_a_reason_where_nothing_can_be_said(board):
    assert set(board["part"]) == set(scoreboard.PARTS) and set(board["reading"]) == set(scoreboard.READINGS)
    silent = board[board["on paper"].eq("cannot be checked") & board["printed"].eq("")]
    assert (silent["why"] != "").all() and (board["statement"].str.len() < 160).all()
    kinds = {claim.id: claim.kind for claim in load_claims()}
    assert not {kinds[name] for name in kinds if name in board.index} & set(scoreboard.ABOUT_THE_PRINT)


# Formulas


@pytest.mark.parametrize(
    ("formula", "holds", "left", "right"),
    [
        ('t1["UWM", "gs"] == 4.5', True, 4.5, 4.5),
        (
            't1["UWM", "gs"] - t1["CLIP", "gs"] == 3.3',
            True,
            3.3,
            3.3,
        ),  # 3.3 is no float difference of the two
        ('t1["CLIP UWM", "p_u_t p_u_v"] < 50', True, 20.5, 50.0),  # the closest of four
        ('t1["CLIP UWM", "p_u_t p_u_v"] < 20', False, 20.5, 20.0),
        ('t1["UWM", "p_s_t"] >= t1["CLIP", "p_s_t"] and t1["UWM", "gs"] > 0', False, 71.2, 73.1),
        ("0.0001 <= 0.02 <= 0.01", False, 0.02, 0.01),
        ('rising(t1["CLIP G-Safe-CLIP UWM", "gs"])', True, 1.8, 1.2),
        ('rising(t1["CLIP UWM G-Safe-CLIP", "gs"])', False, 1.8, 4.5),
        ('count(t1[METHODS, "gs"] > t1["CLIP", "gs"]) == 4', True, 4.0, 4.0),
        ('highest(t1[METHODS, "gs"]) == t1["Safe-CLIP", "gs"]', True, 6.4, 6.4),
        ("rounded(0.25) == 0.3 and rounded(0.349) == 0.3", True, 0.3, 0.3),  # half up
        ("size(t2[METHODS, SETS]) == 4 * 17", True, 68.0, 68.0),
    ],
)
def test_formulas_by_hand(formula, holds, left, right):
    found = check_printed(formula)
    assert found.holds is holds and (found.left, found.right) == (left, right)


def test_what_is_illegible_decides_only_where_nothing_else_fails():
    lost, fails, holds = 't4["CoCa", "gs"] > 0', 't1["UWM", "gs"] > 5', 't1["UWM", "gs"] > 4'
    assert check_printed(lost).holds is None
    assert (
        check_printed(f"{lost} and {holds}").holds is None
        and check_printed(f"{holds} and {lost}").holds is None
    )
    assert (
        check_printed(f"{lost} and {fails}").holds is False
        and check_printed(f"{fails} and {lost}").holds is False
    )
    assert check_printed('5 < 4 < t4["CoCa", "gs"]').holds is False
    assert check_printed('count(t4["CoCa SigLIP", "gs"] > 0) == 2').holds is None


@pytest.mark.parametrize(
    "formula",
    [
        "__import__('os').getcwd() == 1",
        "open('x') == 1",
        "t1.shape == 1",
        "(lambda: 1)() == 1",
        "[x for x in (1, 2)] == 1",
        "2 ** 100000000 == 1",
        "'a' * 5 == 1",
        "True == 1",
        't1["UWM"] == 1',
        "t1[0, 0] == 1",
        't10["UWM", "gs"] == 1',
        'max(t1["UWM", "gs"]) == 1',
        'mean(t1["UWM", "gs"], axis=0) == 1',
        't1["UWM", "gs"] != 1',
        't1["UWM", "gs"] in 1',
        't1["UWM", "gs"] == 1 or 1 == 1',
        'not t1["UWM", "gs"] == 1',
        't1["UWM", "gs"]',
        "1 ==",
        't1["UWN", "gs"] == 1',
        't1["UWM", "sg"] == 1',
    ],
)
def test_anything_else_is_refused(formula):
    with pytest.raises(UwmError):
        check_printed(formula)


# Words


@pytest.mark.parametrize("word", MEANINGS)
def test_a_model_here_neither_verifies_nor_falsifies(word):
    """Of what the models say only toy or inconclusive can follow, whatever it is."""
    statement = next(one for one in load_statements() if one.id == "C001")
    judged = type("Judged", (), {"verdict": type("Verdict", (), {"word": word})})
    agreeing = {"agrees in size", "same direction", "same direction, smaller", "same direction, larger"}
    want = "toy" if word in agreeing | {"preserved", "collapsed"} else "inconclusive"
    assert scoreboard._word(statement, "holds", judged) == want
    assert scoreboard._word(statement, "cannot be checked", judged) == want
    assert scoreboard._word(statement, "does not hold", judged) == "falsified"


def test_only_what_is_about_the_print_is_verified(board):
    assert set(board.loc[board["word"] == "verified", "here"]) == {"about the print alone"}
    assert set(board.index[board["word"] == "falsified"]) == set(NO)
    assert "toy" not in set(board["word"])


def one_row(row, seed):
    """Answers of 200 tuples for every score of the paper's Table 1."""
    generator = np.random.default_rng([seed, len(row), ord(row[0]), ord(row[-1])])
    keys = {key for table in range(1, 10) for key in paper.paper_table(table).columns}
    return {key: share_of(generator.random(200) < 0.3) for key in sorted(keys)}


def drawn(table, seeds):
    rows = paper.paper_table(table).index
    found = {seed: {row: one_row(row, seed) for row in rows} for seed in range(seeds)}
    return found if seeds > 1 else found[0]


@pytest.mark.parametrize(("table", "seeds"), list(product([1, 3, 4, 8, 9], [1, 3])))
def test_recorded_differences_give_the_verdicts_of_what_was_measured(table, seeds, tmp_path):
    ours = drawn(table, seeds)
    values = {"claims": paper.record_claims(table, ours)}
    save_results("mine", values, params={}, path=tmp_path / "mine.json")
    read = paper.recorded_claims(table, recorded_values("mine", folder=tmp_path))
    pd.testing.assert_frame_equal(judge_claims(table, read), judge_claims(table, ours))
    one, other = (score_statements({table: each}).drop(columns="tables") for each in (ours, read))
    pd.testing.assert_frame_equal(one, other)
    assert set(one["bases"]) == {0, seeds}


def test_what_was_not_recorded_is_not_measured():
    read = paper.recorded_claims(3, flatten({"claims": paper.record_claims(4, drawn(4, 1))}))
    assert set(judge_claims(3, read)["here"]) == {"? not measured here"}
    assert recorded_values("04_table1_visu", folder="") == {}


def test_damaged_results_are_named(tmp_path):
    (tmp_path / "mine.json").write_text("{}")
    with pytest.raises(UwmError, match="damaged"):
        recorded_values("mine", folder=tmp_path)


CHAPTERS = {
    "09_table5_llava": (5, "captions"), "11_table8_layers": (8, "pairs"), "13_table9_modalities": (9, "paper's"),
}  # fmt: skip


@pytest.mark.parametrize("chapter", CHAPTERS)
def test_recorded_differences_are_those_of_the_chapters_scores(chapter):
    """Recorded apart from each other: the two scores of a pair, and their difference."""
    table, under = CHAPTERS[chapter]
    values = recorded_values(chapter)
    between, compared = paper.recorded_claims(table, values), 0
    for claim in scoreboard.claims_about(table):
        for (left, key), (right, other) in (pair.pair for pair in claim.comparisons):
            scores = [values[f"{under}.{at[0]}.{at[1]}.value"] for at in ((left, key), (right, other))]
            first = by_seed(between(left, key, right, other))[0]  # of the base whose scores stand there
            assert first.difference == pytest.approx(scores[0] - scores[1], abs=0.06)
            compared += 1
    assert compared >= 12


def test_the_shipped_rows_of_base_0_are_those_of_chapter_4():
    """The gradient baselines are left out: they depend on the batch, and the chapter takes another one."""
    folder = uwm.manifests.manifest_path("studies", "table1")
    rows, _ = studies.load_evaluations(folder / "mini-ViT-L-14.safetensors")
    values = recorded_values("04_table1_visu")
    for row in set(rows) - {"G-Unsafe", "G-Safe-CLIP"}:
        for key in ("zs_mean", "vs_ts", "tu_vus", "p_s_t", "p_u_v", "gs", "benign"):
            assert rows[row][key].value == pytest.approx(values[f"methods.{row}.{key}.value"], abs=0.06)


# The audit


def test_the_orderings_are_those_of_four_similarities():
    a, b, c, d = np.random.default_rng(0).normal(size=(4, 20000))
    seen = {tuple(map(int, one)) for one in zip(a > b, c > d, a > c, b > d, strict=True)}
    possible = audit.orderings()
    assert set(possible[["p_s_v", "p_u_v", "p_s_t", "p_u_t"]].itertuples(index=False, name=None)) == seen
    one = possible[(possible["p_s_v"] == 1) & (possible["p_u_v"] == 1) & (possible["p_s_t"] == 1)]
    assert (one["gs"] == one["p_u_t"]).all() and (one["txt_s"] == 1).all()


def test_scores_of_drawn_similarities_are_possible_and_others_are_not():
    a, b, c, d = np.random.default_rng(1).normal(size=(4, 500))
    parts = {"p_s_v": a > b, "p_u_v": c > d, "p_s_t": a > c, "p_u_t": b > d}
    scores = {key: 100 * part.mean() for key, part in parts.items()}
    scores["ps"] = 100 * (parts["p_s_v"] & parts["p_s_t"]).mean()
    assert audit.least_error(pd.Series(scores)) == pytest.approx(0, abs=1e-9)
    # Both preferences of a safe query at 100 and both of an unsafe one at 0 is what CLIP is like; the circle is not.
    assert audit.least_error(pd.Series({"p_s_v": 100, "p_s_t": 100, "p_u_v": 0, "p_u_t": 0})) == 0
    circle = {"p_s_v": 100, "p_u_t": 100, "p_u_v": 0, "p_s_t": 0}
    assert audit.least_error(pd.Series(circle, dtype=float)) == pytest.approx(25)


def test_a_wrong_cell_is_found(monkeypatch):
    table = paper.paper_table(4)
    table.loc["CoCa", "txt_s"] = table.loc["CoCa", "p_u_v"] + 0.2
    monkeypatch.setattr(
        audit, "paper_table", lambda number: table if number == 4 else paper.paper_table(number)
    )
    broken = audit.bounds().query("room < 0")
    assert set(broken["row"]) == {"CoCa"} and "txt_s <= p_u_v" in set(broken["bound"])
    found = audit.least_errors()
    assert found.loc[found["error"] > 0.05, "row"].tolist() == ["CoCa"]


def test_repeats_and_means_are_those_of_the_audit():
    found = audit.printed_twice()
    assert len(found) == 45 and (found["apart"] <= 0.1).all()
    assert found.index[found["values"] > 1].tolist() == [
        "CLIP ViT-L/14, GS", r"UWM on ViT-L/14, $\mathrm{Img}_s$", "Safe-CLIP, $P_s^v$", "Safe-CLIP, $P_u^v$",
    ]  # fmt: skip
    means = audit.printed_means()
    assert means.index[means["off"].abs() > 0.1].tolist() == ["G-Safe-CLIP"]
    tight = audit.bounds().query("0 <= room < 0.11")
    assert ("CoCa+UWM", "txt_s <= p_u_v") in set(zip(tight["row"], tight["bound"], strict=True))


# What a reader sees


def test_the_table_has_every_row_choice_and_symbol():
    frame = pd.DataFrame(
        {"claim": [r"$P_u^t$ & $\mathrm{Txt}_s$ <rise>", "b\nc"], "word": ["toy", "verified"]},
        index=pd.Index(["C1", "C2"], name="id"),
    )
    filters = {"Word": ["toy", "verified"], "Table": ["Tab. 1; Tab. 3", "Tab. 3"]}
    table = SearchableTable(frame, "Two & more.", "tab-x", filters, marks={"toy": "toy"})
    page = BeautifulSoup(table.to_html(), "html.parser")
    assert [option.text for option in page.find_all("option")] == [
        "all", "toy", "verified", "all", "Tab. 1", "Tab. 3"
    ]  # fmt: skip
    first, second = page.select("tbody tr")
    assert first["id"] == "tab-x-C1" and first["data-filter-1"] == "Tab. 1; Tab. 3"
    assert first["data-words"] == "c1 p_u^t & txt_s <rise> toy"
    assert first.td.decode_contents().startswith(
        '<span class="symbol">P<sub>u</sub><sup>t</sup></span> &amp; '
    )
    assert first.select_one(".mark-toy").text == "toy" and second.td.decode_contents() == "b<br/>c"
    labelled = {label["for"] for label in page.find_all("label")}
    assert labelled == {field["id"] for field in page.select("input, select")}
    with pytest.raises(UwmError, match="Word"):
        SearchableTable(frame, "Two.", "tab-x", {"Word": ["toy"]})


def test_the_mosaic_has_a_square_for_each_and_words_in_their_colours():
    words, groups = pd.Series(["toy"] * 20 + ["falsified"]), pd.Series(["a"] * 20 + ["b"])
    ax = mosaic(words, groups, columns=18)
    squares = [patch.get_facecolor() for patch in ax.patches]
    assert len(squares) == 21 + 2  # and two in the key
    texts = [text.get_text() for text in ax.texts]
    assert {"20 toy", "1 falsified", "a", "b"} <= set(texts)
    assert texts.count(LOOKS["toy"][1]) == 21 and len({*squares}) == 2
    with pytest.raises(UwmError, match="nonsense"):
        mosaic(pd.Series(["nonsense"]), pd.Series(["a"]))


def test_recorded_differences_can_be_quoted_in_the_prose(tmp_path):
    """No two of them have one key, whatever signs the names of rows hold."""
    values = {"claims": {}}
    for table in range(1, 10):
        values["claims"] |= paper.record_claims(table, drawn(table, 1))
    save_results("20_all", values, params={}, path=tmp_path / "20_all.json")
    assert len(substitutions([tmp_path / "20_all.json"])) == len(flatten(values))


def test_the_difference_of_a_single_item_has_no_limits_and_comes_back_without_any():
    one = {"LLaVA": {"rouge_l": mean_of([0.5])}, "LLaVA+UWM": {"rouge_l": mean_of([0.25])}}
    values = flatten({"claims": paper.record_claims(5, one)})
    assert all(np.isfinite(value) for value in values.values())
    found = paper.recorded_claims(5, values)("LLaVA+UWM", "rouge_l", "LLaVA", "rouge_l")
    assert (found.difference, found.lo, found.hi) == (-0.25, -np.inf, np.inf)
