"""The published numbers: names, spot checks against the print, and bounds that any such table must obey."""

from __future__ import annotations

import csv
import math

import pytest

from uwmlib.errors import UwmError
from uwmlib.manifests import manifest_path
from uwmlib.metrics.catalogue import key_of
from uwmlib.paper.values import (
    PREFERENCES,
    paper_digits,
    paper_note,
    paper_signal_detection,
    paper_table,
    paper_value,
)

ALL_TABLES = range(1, 10)
# Counted by hand in the paper: rows and columns of each table.
SHAPES = {
    1: (5, 14),
    2: (5, 18),
    3: (4, 6),
    4: (12, 9),
    5: (4, 5),
    6: (7, 6),
    7: (5, 6),
    8: (17, 6),
    9: (4, 6),
}


@pytest.mark.parametrize("number", ALL_TABLES)
def test_shapes_are_those_of_the_print(number):
    assert paper_table(number).shape == SHAPES[number]


@pytest.mark.parametrize("number", ALL_TABLES)
def test_every_line_of_the_file_is_one_cell(number):
    with open(manifest_path("paper_values", f"table{number}.csv"), newline="") as file:
        lines = list(csv.DictReader(file))
    assert len(lines) == math.prod(SHAPES[number])
    assert {line["table"] for line in lines} == {str(number)}
    for line in lines:
        got = paper_value(number, line["row"], key_of(line["column"]))
        assert (math.isnan(got) and line["value"] == "") or got == float(line["value"])


@pytest.mark.parametrize(
    ("table", "row", "key", "value"),
    [
        (1, "UWM", "gs", 4.5),
        (1, "CLIP", "p_s_t", 73.1),
        (1, "Safe-CLIP", "p_u_v", 34.1),
        (1, "UWM", "zs_mean", 61.3),
        (2, "G-Safe-CLIP", "zs_mean", 56.3),
        (2, "UWM", "dtd", 38.8),
        (3, "ratio", "vs_ts", 16.2),
        (4, "Safe-CLIP", "p_s_v", 81.6),
        (5, "LLaVA", "rouge_l", 0.32),
        (6, "diff+adaptive", "gs", 1.3),
        (8, "text=out|vision=value", "gs", 4.6),
        (9, "vision_only", "ps", 68.5),
    ],
)
def test_spot_checks(table, row, key, value):
    assert paper_value(table, row, key) == value


def test_values_never_printed_or_illegible_are_nan_and_say_why():
    assert math.isnan(paper_value(4, "CoCa", "gs")) and "1.?" in paper_note(4, "CoCa", "gs")
    assert math.isnan(paper_value(8, "text=fc1|vision=fc2", "gs")) and "dash" in paper_note(
        8, "text=fc1|vision=fc2", "gs"
    )
    for number in ALL_TABLES:
        table = paper_table(number)
        for row, values in table.iterrows():
            for key, value in values.items():
                assert not math.isnan(value) or paper_note(number, row, key)


def test_quantities_printed_twice_differ_only_where_a_note_says_so():
    names = {"CLIP": "ViT-L14", "UWM": "ViT-L14+UWM", "Safe-CLIP": "Safe-CLIP"}
    differing = set()
    for row, row4 in names.items():
        for key in paper_table(4).columns:
            first, again = paper_value(1, row, key), paper_value(4, row4, key)
            if not math.isnan(again) and first != again:
                assert abs(first - again) == pytest.approx(0.1)
                assert f"{first:.1f} in Table" in paper_note(4, row4, key)
                differing.add((row, key))
    assert differing == {("CLIP", "gs"), ("Safe-CLIP", "p_s_v"), ("Safe-CLIP", "p_u_v")}


@pytest.mark.parametrize("number", [1, 3, 4, 6, 7, 8, 9])
def test_joint_scores_never_exceed_their_parts(number):
    parts = {"txt_s": "p_s_v p_u_v", "img_s": "p_s_t p_u_t", "ps": "p_s_t p_s_v", "pu": "p_u_t p_u_v"}
    parts |= {"gs": "txt_s img_s ps pu", "tu_vus": "p_u_t", "vu_tus": "p_u_v"}
    table, checked = paper_table(number), 0
    for joint, names in parts.items():
        for part in names.split():
            if {joint, part} <= set(table.columns):
                assert not (table[joint] > table[part] + 0.1).any(), (joint, part)
                checked += 1
    assert checked >= 4


def test_printed_means_of_table_2():
    table = paper_table(2)
    means = table.drop(columns="zs_mean").mean(axis=1)
    off = [row for row in table.index if abs(means[row] - table.at[row, "zs_mean"]) > 0.05]
    assert off == ["G-Safe-CLIP"] and "56.15" in paper_note(2, "G-Safe-CLIP", "zs_mean")
    assert table["zs_mean"].to_dict() == paper_table(1)["zs_mean"].to_dict()


def test_a_returned_table_is_a_copy():
    table = paper_table(1)
    table.loc["UWM", "gs"] = 99.0
    assert paper_value(1, "UWM", "gs") == 4.5


@pytest.mark.parametrize(
    ("call", "hint"),
    [
        (lambda: paper_value(1, "UMW", "gs"), "did you mean 'UWM'"),
        (lambda: paper_value(1, "safeclip", "gs"), "did you mean 'Safe-CLIP'"),
        (lambda: paper_value(1, "UWM", "p_st"), "did you mean 'p_s_t'"),
        (lambda: paper_note(1, "qqq", "gs"), "there are CLIP, G-Unsafe"),
        (lambda: paper_table(10), "no Table 10"),
        (lambda: paper_table("1"), "no Table 1"),
    ],
)
def test_unknown_names_offer_the_nearest(call, hint):
    with pytest.raises(UwmError, match=hint):
        call()


def test_signal_detection_gives_the_printed_rates_back():
    """d' and c determine both rates: P_s = F(c + d'/2), P_u = F(c - d'/2) with F the normal distribution."""

    def normal(z: float) -> float:
        return 50 * math.erfc(-z / math.sqrt(2))

    for number in (1, 4):
        printed, derived = paper_table(number), paper_signal_detection(number)
        assert list(derived.index) == list(printed.index)
        for query, (safe, unsafe) in PREFERENCES.items():
            d, c = derived[f"sensitivity_{query}"], derived[f"bias_{query}"]
            for row in printed.index:
                assert normal(c[row] + d[row] / 2) == pytest.approx(printed.at[row, safe], abs=1e-6)
                assert normal(c[row] - d[row] / 2) == pytest.approx(printed.at[row, unsafe], abs=1e-6)


def test_signal_detection_needs_the_four_rates():
    with pytest.raises(UwmError, match="Table 3"):
        paper_signal_detection(3)


@pytest.mark.parametrize("number", ALL_TABLES)
def test_digits_are_those_of_the_print(number):
    with open(manifest_path("paper_values", f"table{number}.csv"), newline="") as file:
        lines = list(csv.DictReader(file))
    for line in lines:
        digits = paper_digits(number, key_of(line["column"]))
        assert line["value"] == "" or len(line["value"].partition(".")[2]) == digits


def test_digits_of_an_unknown_score():
    with pytest.raises(UwmError, match="did you mean 'bleu'"):
        paper_digits(5, "blue")
