"""What was measured is read in one way, whoever measured it, and a new metric needs a row and nothing else."""

from __future__ import annotations

import copy
import math

import numpy as np
import pandas as pd
import pytest
import torch
from embedding_sets import random_embeddings

from uwmlib import paper
from uwmlib.captions import CaptionEvaluation
from uwmlib.errors import UwmError
from uwmlib.evaluation import Evaluation
from uwmlib.metrics import (
    CATALOGUE,
    DIRECTIONS,
    SAFEGROUND_KEYS,
    SIGNAL_KEYS,
    Entry,
    Score,
    SignalDetection,
    Unit,
    difference_between,
    mean_accuracy,
    mean_of,
    measured,
    retrieval,
    safeground,
    share_of,
)
from uwmlib.metrics.score import UP_TO_ONE
from uwmlib.reporting import paper_beside_ours, record


def correct(k, n):
    """The accuracy of k of n."""
    return share_of(np.arange(n) < k)


EMBEDDINGS = random_embeddings(50, 8)
GROUND, RANKS = safeground(**EMBEDDINGS), retrieval(**EMBEDDINGS)
SETS = {"shapes": correct(80, 100), "colours": correct(30, 300)}
WHOLE = Evaluation("mini", "mini-visu", GROUND, RANKS, SETS)
CAPTIONS = CaptionEvaluation([], {"bleu": mean_of(np.array([0.25, 0.5]), unit=UP_TO_ONE)}, {})
SOURCES = [
    (GROUND, [*SAFEGROUND_KEYS, *SIGNAL_KEYS]),
    (RANKS, [*DIRECTIONS]),
    (SETS, ["shapes", "colours"]),
    (GROUND.sensitivity_bias("text"), ["sensitivity", "bias"]),
    (WHOLE, [*DIRECTIONS, *SAFEGROUND_KEYS, *SIGNAL_KEYS, "shapes", "colours", "zs_mean"]),
    (CAPTIONS, ["bleu"]),
]


@pytest.mark.parametrize(("source", "names"), SOURCES)
def test_everything_measured_is_names_and_scores(source, names):
    assert list(source.keys()) == names and len(source) == len(names)
    for key, score in dict(source).items():
        assert source[key] == measured(source, key) == score and key in source
        assert isinstance(score, Score) and score.n is not None
        assert score.interval[0] <= score.value <= score.interval[1]
    assert "no such" not in source and source.get("no such") is None is measured(source, "no such")


@pytest.mark.parametrize("source", [GROUND, RANKS, WHOLE, CAPTIONS, GROUND.sensitivity_bias("image")])
@pytest.mark.parametrize("key", ["p_s_x", None, ["gs"], 3])
def test_a_name_that_was_not_measured_is_refused(source, key):
    with pytest.raises(UwmError, match="no measured score"):
        source[key]


@pytest.mark.parametrize(("source", "keys"), [(GROUND, SAFEGROUND_KEYS), (RANKS, DIRECTIONS)])
def test_rates_are_shares_of_their_items(source, keys):
    for key in keys:
        score = source[key]
        assert score.value == pytest.approx(100 * score.items.mean()) and score.n == len(score.items) == 50
        assert share_of(torch.from_numpy(score.items.copy())) == score
    assert np.array_equal(GROUND["gs"].items, GROUND.gs.numpy())


def test_an_evaluation_is_read_like_its_parts():
    assert WHOLE["gs"] == GROUND["gs"] and WHOLE["tu_vus"] == RANKS["tu_vus"]
    assert WHOLE["bias_image"] == GROUND.sensitivity_bias("image")["bias"]
    assert WHOLE["colours"].value == pytest.approx(10.0)
    assert WHOLE["zs_mean"] == mean_accuracy(SETS) and WHOLE["zs_mean"].n == 400
    assert measured(Evaluation("mini", "mini-visu", GROUND, RANKS), "zs_mean") is None
    assert list(WHOLE.as_percent()) == [*DIRECTIONS, *SAFEGROUND_KEYS, "shapes", "colours", "zs_mean"]


def test_scores_per_item_have_a_normal_interval():
    scores = np.random.default_rng(7).random(250)
    found = mean_of(torch.from_numpy(scores), unit=UP_TO_ONE)
    half = 1.959964 * scores.std(ddof=1) / math.sqrt(250)
    assert found.value == pytest.approx(scores.mean()) and found.n == 250
    assert found.interval == pytest.approx((scores.mean() - half, scores.mean() + half))
    assert mean_of(np.array([0.25])).interval is None
    assert np.array_equal(found.items, scores) and found.unit is UP_TO_ONE


def test_a_score_never_changes():
    items, parts = np.array([True, False]), dict(SETS)
    score = Score(50.0, [40, 60], 2, items=items, parts=parts)
    items[:], parts["more"] = False, correct(1, 1)
    assert score.items.tolist() == [True, False] and dict(score.parts) == SETS
    assert score.interval == (40.0, 60.0)
    with pytest.raises(ValueError, match="read-only"):
        score.items[0] = False
    with pytest.raises(TypeError):
        score.parts[0] = ("more", score)
    with pytest.raises(AttributeError):
        score.value = 3.0
    copied = copy.deepcopy(WHOLE)  # as when it is sent to another process
    assert (
        copied is not WHOLE
        and dict(copied) == dict(WHOLE)
        and copied["zs_mean"].parts == WHOLE["zs_mean"].parts
    )


def test_equal_rates_of_other_items_are_no_equal_measurement():
    other = safeground(**{name: rows.flip(0) for name, rows in EMBEDDINGS.items()})
    assert dict(other) == dict(GROUND) and other != GROUND and len({GROUND, other, GROUND}) == 2


@pytest.mark.parametrize(
    ("ask", "message"),
    [
        (lambda: Score("high"), "A score is 'high': give a number"),
        (lambda: Score(1.0, (0.0, None)), "limit of a score is None"),
        (lambda: share_of([0, 1]), "hits must be a non-empty boolean"),
        (lambda: share_of([]), "hits must be a non-empty boolean"),
        (lambda: mean_of([1, 2]), "scores must be non-empty floating-point"),
        (lambda: mean_of(np.zeros((2, 2))), "scores must be non-empty floating-point"),
        (lambda: mean_of([0.5, math.nan, math.inf]), "2 of 3 items have no finite score"),
        (lambda: measured(3.0, "gs"), "float holds no scores"),
        (lambda: measured([GROUND], "gs"), "list holds no scores"),
        (lambda: measured({"gs": 4.5}, "gs"), "'gs' is held as a float: give a Score"),
        (lambda: measured({"gs": np.ones(3, dtype=bool)}, "gs"), "ndarray"),
    ],
)
def test_what_is_no_score_is_refused(ask, message):
    with pytest.raises(UwmError, match=message):
        ask()


def test_labels_and_columns_are_names_of_one_score_only():
    labels = [entry.label for entry in CATALOGUE.values()]
    columns = [entry.column for entry in CATALOGUE.values() if entry.column]
    assert len(set(labels)) == len(labels) and len(set(columns)) == len(columns)


def test_what_a_metric_measures_is_in_the_unit_of_its_row():
    for source in (GROUND, RANKS, WHOLE):
        for key, score in source.items():
            assert key not in CATALOGUE or score.unit == CATALOGUE[key].unit
    assert set(SIGNAL_KEYS) | set(SAFEGROUND_KEYS) | set(DIRECTIONS) | {"zs_mean"} <= set(CATALOGUE)
    assert SignalDetection(1.0, 0.5)["bias"].unit == CATALOGUE["bias_text"].unit


def test_a_new_metric_needs_a_row_and_nothing_else(monkeypatch):
    """A margin of cosines in degrees, which nothing here has heard of, from its numbers to a verdict."""
    degrees = Unit("in degrees", of="margins", decimals=3)
    monkeypatch.setitem(CATALOGUE, "margin", Entry(r"$\theta_m$", degrees))
    angles = np.random.default_rng(0).normal(10, 1, 40)

    def evaluated(shift):
        return {
            **WHOLE,
            "margin": mean_of(angles + shift, unit=degrees),
            "kept": correct(20 + 2 * int(shift), 40),
        }

    ours = {"CLIP": evaluated(0.0), "UWM": evaluated(5.0)}
    table = paper_beside_ours(
        ["CLIP", "UWM"], ["gs", "margin"], ours, pd.DataFrame(), caption="c", name="tab-m"
    )
    assert list(table.frame.columns) == ["GS", r"$\theta_m$"]
    assert table.frame.at["UWM", r"$\theta_m$"].startswith(f"{angles.mean() + 5:.3f}\u00a0[")
    assert "in percent, margins in degrees" in table.caption
    assert r"| $\theta_m$ |" in table.to_myst()  # mathematics, where any other dollar is escaped
    assert record(ours, ["margin"])["CLIP"]["margin"]["value"] == pytest.approx(angles.mean())
    change = difference_between(ours["UWM"], "margin", ours["CLIP"], "margin")
    assert (change.difference, change.lo) == (pytest.approx(5.0), pytest.approx(5.0))
    # A rate of its own goes through the verdicts that need no number of the paper.
    verdicts = paper.judge_sentences(ours, [("UWM", "CLIP", "kept", "more")], margin=0.0)
    assert verdicts["verdict"].item() == "↑ same direction"
    trends = paper.trend_table({"sweep": [ours["UWM"], ours["CLIP"]]}, {"kept": "falls"})
    assert trends["verdict"].item() == "↓ same direction"
