"""Curves over a setting: the lines, bands, stars and printed numbers are the data."""

from __future__ import annotations

import math

import matplotlib

matplotlib.use("agg")

import pytest
from matplotlib import pyplot as plt

from uwmlib.errors import UwmError
from uwmlib.metrics import Difference, Score
from uwmlib.paper.values import paper_table
from uwmlib.reporting.sweeps import LOOKS, change_dots, sweep

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
