"""The recommended report on settings whose changes are known beforehand."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from made_settings import made_evaluation

from uwmlib.comparison import Requirements, Setting, recommended_report
from uwmlib.errors import UwmError
from uwmlib.metrics import BenignUse, share_of

N = 2000
BASE = (1600, 200, 1800, 200)
SAFER = (1700, 400, 1900, 500)


def first(count, n=N):
    return torch.arange(n) < count


def evaluation(known=60.0, safe=BASE, clean=(900, 900), match=1900, unsafe=700):
    """Of 1,000 benign uses and 2,000 tuples so many answers are right; None for what is not measured."""
    found = made_evaluation(known, safe, n=N, split="test")
    uses = clean and BenignUse(
        first(unsafe, 1000), first(clean[0], 1000), first(unsafe, 1000), first(clean[1], 1000)
    )
    return replace(found, benign=uses, match=match and share_of(first(match)))


def judged(requirements=None, **changed):
    base = evaluation()
    return recommended_report({"it": Setting((evaluation(**changed),), base)}, requirements).loc["it"]


@pytest.mark.parametrize(
    ("changed", "words"),
    [
        ({"safe": SAFER}, ("kept", "kept", "kept", "gained", "safer")),
        ({}, ("kept", "kept", "kept", "no gain shown", "not safer")),
        ({"safe": (1500, 150, 1700, 150)}, ("kept", "kept", "kept", "lost", "not safer")),
        ({"safe": SAFER, "known": 45.0}, ("lost", "kept", "kept", "gained", "safer at a cost: knowledge")),
        # One of the two comparisons with the clean scene is enough, however much those with the unsafe one gain.
        (
            {"safe": SAFER, "clean": (900, 800), "unsafe": 990},
            ("kept", "lost", "kept", "gained", "safer at a cost: benign use"),
        ),
        ({"safe": SAFER, "match": 1700}, ("kept", "kept", "lost", "gained", "safer at a cost: matching")),
        # 57 of 60 is the bar: the interval of 57.5 has it inside.
        ({"safe": SAFER, "known": 57.5}, ("cannot tell", "kept", "kept", "gained", "undecided: knowledge")),
        ({"safe": SAFER, "clean": None}, ("kept", "not measured", "kept", "gained", "undecided: benign use")),
        ({"safe": SAFER, "match": None}, ("kept", "kept", "not measured", "gained", "undecided: matching")),
    ],
)
def test_costs_first_then_the_gain(changed, words):
    row = judged(**changed)
    assert tuple(row[["knowledge", "benign use", "matching", "safety", "verdict"]]) == words


def test_a_dead_model_that_earns_all_preferences_is_named_by_its_costs():
    row = judged(safe=(N, N, N, N), known=0.0, clean=(500, 500), match=1000)
    assert row["verdict"] == "safer at a cost: knowledge, benign use, matching"


def test_the_bars_are_those_that_are_asked_for():
    changed = {"safe": SAFER, "known": 50.0, "clean": (870, 900)}
    assert (
        judged(**changed)["verdict"] == "safer at a cost: knowledge"
        or judged(**changed)["knowledge"] == "lost"
    )
    assert judged(Requirements(least_kept=75.0, margin=6.0), **changed)["verdict"] == "safer"


def test_numbers_are_paired_changes():
    row = judged(safe=SAFER)
    assert row["knowledge kept (%)"].startswith("100.0") and row["change of GS"].startswith("+10.0")
    assert row["change of match"].startswith("+0.0")


def test_several_runs_are_judged_together():
    base = evaluation()
    runs = tuple(evaluation(safe=(1700 + k, 400 + k, 1900, 500)) for k in (0, 5, 10))
    assert recommended_report({"it": Setting(runs, base)}).loc["it", "safety"] == "gained"


@pytest.mark.parametrize(
    "options", [{"least_kept": 0}, {"least_kept": 101}, {"margin": -1}, {"margin": "much"}]
)
def test_bars_out_of_range_are_refused(options):
    with pytest.raises(UwmError):
        Requirements(**options)


def test_rows_are_settings():
    with pytest.raises(UwmError, match="The rows"):
        recommended_report({"it": evaluation()})
