"""Curves over a setting: the lines, bands, stars and printed numbers are the data."""

from __future__ import annotations

import math

import matplotlib

matplotlib.use("agg")

import pytest
from matplotlib import pyplot as plt

from uwmlib.errors import UwmError
from uwmlib.metrics import Difference, Score, label
from uwmlib.paper.values import paper_table
from uwmlib.reporting import plots
from uwmlib.reporting.sweeps import LOOKS, change_dots, curve_table, safety_against_knowledge, sweep

KEYS = ["vs_ts", "txt_s", "gs"]
PRINTED = paper_table(1)


def point(value):
    return {key: Score(value + i, (value + i - 1, value + i + 2)) for i, key in enumerate(KEYS)}


CURVES = {"released": {0.1: point(3), 0.02: point(5)}, "printed": {0.02: point(7), 0.1: point(9)}}
OPTIONS = {
    "base": point(1),
    "star": 0.02,
    "paper_base": PRINTED.loc["CLIP"],
    "paper_star": PRINTED.loc["UWM"],
    "xlabel": "tau",
}


@pytest.fixture(autouse=True)
def closed():
    yield
    plt.close("all")


@pytest.mark.parametrize("log", [True, False])
def test_every_panel_shows_its_score(log):
    figure = sweep(CURVES, KEYS, log=log, **OPTIONS)
    assert len(figure.axes) == len(KEYS)
    for i, (ax, key) in enumerate(zip(figure.axes, KEYS, strict=True)):
        lines = {line.get_label(): line for line in ax.lines}
        assert list(lines["released"].get_xdata()) == [0.02, 0.1]  # in order, however it was given
        assert list(lines["released"].get_ydata()) == [5 + i, 3 + i]
        assert list(lines["printed"].get_ydata()) == [7 + i, 9 + i]
        assert lines["not edited"].get_ydata()[0] == 1 + i
        assert (lines["chosen setting"].get_xdata()[0], lines["chosen setting"].get_ydata()[0]) == (
            0.02,
            5 + i,
        )
        assert lines["paper, not edited"].get_ydata()[0] == PRINTED.at["CLIP", key]
        assert lines["paper, chosen setting"].get_ydata()[0] == PRINTED.at["UWM", key]
        assert lines["paper, chosen setting"].get_markerfacecolor() == "white"
        band = ax.collections[0].get_paths()[0].vertices
        assert {(0.02, 4.0 + i), (0.02, 7.0 + i), (0.1, 2.0 + i), (0.1, 5.0 + i)} <= set(map(tuple, band))
        assert ax.get_xscale() == ("log" if log else "linear")


def test_a_score_that_the_paper_does_not_print_is_drawn_without_it():
    curves = {"released": {0.02: {"vs_ts": Score(5.0, (4, 6)), "benign": Score(80.0, (79, 82))}}}
    base = {"vs_ts": Score(6.0, (5, 7)), "benign": Score(90.0, (88, 91))}
    figure = sweep(curves, ["vs_ts", "benign"], **OPTIONS | {"base": base})
    printed, alone = ([line.get_label() for line in ax.lines] for ax in figure.axes)
    assert printed == [
        "released",
        "not edited",
        "chosen setting",
        "paper, not edited",
        "paper, chosen setting",
    ]
    assert alone == ["released", "not edited", "chosen setting"]


def test_figures_that_would_mislead_are_refused():
    with pytest.raises(UwmError, match="no point at the chosen setting 0.3"):
        sweep(CURVES, KEYS, **OPTIONS | {"star": 0.3})
    with pytest.raises(UwmError, match="no point at the chosen setting"):
        sweep({}, KEYS, **OPTIONS)
    with pytest.raises(UwmError, match="cannot be told apart"):
        sweep({str(i): CURVES["released"] for i in range(len(LOOKS) + 1)}, KEYS, **OPTIONS)
    with pytest.raises(UwmError, match="not measured with an interval"):
        sweep({"released": {0.02: {"vs_ts": Score(5.0)}}}, ["vs_ts"], **OPTIONS)


def test_changes_are_filled_with_an_interval_and_open_without():
    printed = {"both": {"gs": 3.3, "pu": math.nan}, "text": {"gs": 2.8, "pu": 3.1}}
    found = {row: {key: Difference(1.0, -2.0, 4.0) for key in scores} for row, scores in printed.items()}
    figure = change_dots({"paper": printed, "here": found})
    left, right = figure.axes
    assert [line.get_xdata()[0] for line in left.lines[:4]] == pytest.approx(
        [3.3, math.nan, 2.8, 3.1], nan_ok=True
    )
    assert {line.get_markerfacecolor() for line in left.lines[:4]} == {"white"}
    assert not left.collections and len(right.collections) == 4
    assert [tuple(lines.get_segments()[0][:, 0]) for lines in right.collections] == [(-2.0, 4.0)] * 4
    assert "white" not in {line.get_markerfacecolor() for line in right.lines[:4]}
    # The first score is at the top, and a row keeps its side of every line.
    assert left.get_ylim()[0] > left.get_ylim()[1]
    assert [label.get_text() for label in left.get_yticklabels()] == ["GS", "PU"]
    assert left.lines[0].get_ydata()[0] < 0 < left.lines[2].get_ydata()[0] < 0.5


def test_changes_need_the_same_rows_in_every_panel():
    rows = {"both": {"gs": 1.0}}
    with pytest.raises(UwmError, match="same rows"):
        change_dots({"paper": rows, "here": {"text": {"gs": 1.0}}})
    with pytest.raises(UwmError, match="same rows"):
        change_dots({})
    with pytest.raises(UwmError, match="cannot be told apart"):
        change_dots({"here": {str(i): {"gs": 1.0} for i in range(len(LOOKS) + 1)}})


def kept(share, bias, gs):
    """What was measured of an edit that keeps this share of knowledge."""
    values = {"knowledge_kept": share, "safe_bias": bias, "gs": gs}
    return {key: Score(value, (value - 1, value + 2)) for key, value in values.items()}


UNEDITED = kept(100, -0.3, 1.2)
PATHS = {
    "UWM": {0.1: kept(70, 0.4, 5), 0.02: kept(95, 0.1, 2)},
    "random": {0.3: kept(80, -0.2, 2.2)},
    "reversed": {0.1: kept(90, -0.4, 1)},
    "magnitude": {0.1: kept(60, -0.1, 3)},
}


def test_safety_is_drawn_against_the_knowledge_that_is_kept():
    figure = safety_against_knowledge(PATHS, base=UNEDITED, marked={"UWM": [kept(80, 0.3, 4)]})
    for ax, key in zip(figure.axes, ("safe_bias", "gs"), strict=True):
        lines = {line.get_label(): line for line in ax.lines}
        assert list(lines["UWM"].get_xdata()) == [100, 95, 70]  # from the base on, in order of strength
        values = [UNEDITED[key].value, *(PATHS["UWM"][x][key].value for x in (0.02, 0.1))]
        assert list(lines["UWM"].get_ydata()) == values
        assert list(lines["UWM"].get_markevery()) == [1, 2]  # the base has a marker of its own
        assert (lines["not edited"].get_xdata()[0], lines["not edited"].get_ydata()[0]) == (100, values[0])
        bars = {tuple(map(tuple, segment)) for held in ax.collections for segment in held.get_segments()}
        for x, value in zip((95, 70), values[1:], strict=True):
            assert ((x, value - 1), (x, value + 2)) in bars
        found = kept(80, 0.3, 4)[key].value
        assert {((79, found), (82, found)), ((80, found - 1), (80, found + 2))} <= bars
        assert [line.get_xdata()[0] for line in ax.lines if line.get_linestyle() == ":"] == [95, 80]
        assert ax.get_ylabel().startswith(label(key))
    mark = [line for line in figure.axes[0].lines if line.get_markerfacecolor() == "white"]
    assert [(line.get_xdata()[0], line.get_ydata()[0]) for line in mark] == [(80, 0.3)]


def test_a_point_without_an_interval_has_no_bar():
    bare = {key: Score(value) for key, value in (("knowledge_kept", 80), ("safe_bias", 0.1), ("gs", 2))}
    figure = safety_against_knowledge({"UWM": {0.1: bare}}, base=bare, marked={"UWM": [bare]}, shares=())
    assert not any(ax.collections for ax in figure.axes)
    assert all([80, 80] in [list(line.get_xdata()) for line in ax.lines] for ax in figure.axes)


def test_methods_keep_their_looks_and_differ_without_colour():
    figure = safety_against_knowledge(PATHS | {"G-Unsafe": PATHS["random"]}, base=UNEDITED)
    lines = {line.get_label(): line for line in figure.axes[0].lines}
    for name in ("UWM", "G-Unsafe"):
        assert lines[name].get_color() == plots.METHODS[name].colour
    drawn = [lines[name] for name in (*PATHS, "G-Unsafe", "not edited")]
    assert len({line.get_marker() for line in drawn}) == len({line.get_color() for line in drawn}) == 6


def test_a_curve_over_knowledge_needs_its_numbers():
    with pytest.raises(UwmError, match="cannot be told apart"):
        safety_against_knowledge({str(i): {} for i in range(8)}, base=UNEDITED)
    with pytest.raises(UwmError, match="knowledge_kept was not measured"):
        safety_against_knowledge({"UWM": {0.1: point(3)}}, base=UNEDITED)
    with pytest.raises(UwmError, match="safe_bias was not measured"):
        safety_against_knowledge({}, base=point(3))


def test_curves_as_a_tidy_table():
    table = curve_table(PATHS, ["knowledge_kept", "gs", "zs_mean"])
    assert len(table) == 5 * 2
    one = table[(table["method"] == "UWM") & (table["score"] == "gs")]
    assert list(one["strength"]) == [0.02, 0.1] and list(one["value"]) == [2, 5]
    assert list(one["low"]) == [1, 4] and list(one["high"]) == [4, 7]
    bare = curve_table({"a": {1.0: {"gs": Score(3.0, n=7)}}}, ["gs"])
    assert math.isnan(bare.at[0, "low"]) and bare.at[0, "n"] == 7
