"""The tournament's leaders once more: small bases from seeds that nobody used, and one table asked for beforehand."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

from uwmlib.cache import Cache
from uwmlib.comparison import setting_difference
from uwmlib.metrics import Difference
from uwmlib.profiles import profile
from uwmlib.studies.files import study_path
from uwmlib.studies.plans import JSON, as_json, load_rows, make_rows
from uwmlib.studies.roster import entrants
from uwmlib.studies.tournament import RIVAL, Arena, Rules, Tournament, measure_tournament
from uwmlib.studies.tournament_rows import (
    N_BENIGN,
    N_CALIBRATION,
    N_SPARED,
    N_USES,
    N_VALIDATION,
    arena_of,
)
from uwmlib.training import Base, train_base
from uwmlib.tuples import Tuples

STUDY = "tournament-again"
#: Beside UWM: what led it at some price on each of three trainings by more than its interval, and random weights.
LEADERS = ("safe-shift", "safe-shift-fitted", "safe-shift-map", "gated-negation", "random")
#: No base of another study has one of these.
SEEDS = tuple(range(20, 36))
KEYS = ("safe_bias", "gs", "knowledge", "over_clean_t", "over_clean_v", "match")


@dataclass(frozen=True)
class AgainPlan:
    """What is asked of how many bases, written down before the first was made.

    The question: of each of `LEADERS`, at 95% and 80% of knowledge and at equal benign use, is the safe bias beyond
    that of UWM on the same base, the mean over the bases (`mean_over_seeds`), different from zero, by Holm's correction
    for all fifteen?

    Attributes
    ----------
    seeds : tuple of int
        Of the small bases (`uwmlib.training.Base`), all with the default recipe.
    methods : tuple of str
        `RIVAL` among them.
    rules : Rules
        Those of the tournament.

    Examples
    --------
    >>> from uwmlib.studies import AgainPlan
    >>> len(AgainPlan().seeds), AgainPlan().methods[0]
    (16, 'uwm')
    """

    seeds: tuple[int, ...] = SEEDS
    methods: tuple[str, ...] = (RIVAL, *LEADERS)
    rules: Rules = Rules()

    def facts(self) -> dict[str, Any]:
        """Return the plan, with the numbers of tuples and benign uses, as JSON gives it back."""
        return as_json({
            "methods": self.methods, "rules": vars(self.rules),
            "sizes": {
                "calibration": N_CALIBRATION, "validation": N_VALIDATION, "benign, calibration": N_BENIGN,
                "benign, validation": N_SPARED, "benign, test": N_USES,
            },
            "bases": [{"key": f"seed {seed}", "recipe": Base(seed=seed).facts()} for seed in self.seeds],
        })  # fmt: skip


AGAIN_PLAN = AgainPlan()


def make_tournament_again(path: Path, *, progress: bool = True, cache: Cache) -> None:
    """Make and measure every base of the plan; a base that stands in the file already is not made again."""
    plan = AGAIN_PLAN
    setup = profile("mini", base_model=Base().ancestor, safe_model=Base().ancestor)
    arena = replace(arena_of(setup, cache=cache), rules=plan.rules)
    calibration = setup.load_tuples("train", n=N_CALIBRATION)
    methods = entrants(benign=setup.load_benign("train", n=N_BENIGN), names=plan.methods)
    jobs = {
        f"seed {seed}": partial(_play_again, arena, Base(seed=seed), methods, calibration)
        for seed in plan.seeds
    }
    make_rows(path, plan.facts(), jobs, study=STUDY, progress=progress)


def _play_again(arena: Arena, base: Base, methods: Mapping[str, Any], calibration: Tuples) -> dict[str, Any]:
    vlm, _ = train_base(base)
    found = measure_tournament(replace(arena, vlm=vlm), methods, calibration=calibration, progress=False)
    return {
        "key": f"seed {base.seed}",
        "base": {key: round(found.base[key].value, 4) for key in KEYS},
        "rows": [_row(found, row) for row in found.strengths], "refused": found.refused,
    }  # fmt: skip


def _row(found: Tournament, row: str) -> dict[str, Any]:
    """Return one method at one price: its strength, changes against the base, and safe bias beyond UWM's."""
    method, _, price = row.rpartition(", ")
    written = {
        "method": method,
        "price": price,
        "strength": found.strengths[row],
        "reason": found.reasons[row],
    }
    one, rival = found.rows.get(row), found.rows.get(f"{RIVAL}, {price}")
    if one is not None:
        written["changes"] = {key: _numbers(setting_difference(one, found.base, key)) for key in KEYS}
        if rival is not None and method != RIVAL:
            written["beyond"] = _numbers(setting_difference(one, rival, "safe_bias"))
    return written


def _numbers(found: Difference) -> list[float]:
    return [round(found.difference, 5), round(found.lo, 5), round(found.hi, 5), found.n]


def load_tournament_again(path: Path | None = None) -> dict[str, dict[str, Any]]:
    """Load the study that ships, or one of your own.

    Returns
    -------
    dict of str to dict
        Base, such as "seed 20" -> what was measured there: "base" (its scores), "rows" (one for each method and price:
        strength, reason, "changes" against the base by score, and "beyond", its safe bias less that of UWM; each a
        `Difference` paired over the test tuples, absent where a method does not come to the price), "refused".

    Raises
    ------
    UwmError
        If the file is missing or damaged, or was made by another plan.

    Examples
    --------
    >>> from uwmlib.studies import load_tournament_again
    >>> bases = load_tournament_again()
    >>> len(bases), bases["seed 20"]["rows"][0]["method"]
    (16, 'uwm')
    """
    rows = load_rows(path or study_path(STUDY, suffix=JSON), AGAIN_PLAN.facts(), STUDY)
    for each in (each for base in rows for each in base["rows"]):
        each["changes"] = {key: Difference(*numbers) for key, numbers in each.get("changes", {}).items()}
        if "beyond" in each:
            each["beyond"] = Difference(*each["beyond"])
    return {base["key"]: base for base in rows}
