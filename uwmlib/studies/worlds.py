"""When does UWM work: many small bases of changed worlds, each under UWM and random negation at equal knowledge."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import pandas as pd

from uwmlib.studies.bases import MEASUREMENT, Measurement, measure_base
from uwmlib.studies.files import study_path
from uwmlib.studies.plans import JSON, as_json, load_rows, make_rows
from uwmlib.training import Base, base_tuples, train_base


@dataclass(frozen=True)
class Level:
    """One base of the plan.

    Attributes
    ----------
    factor, level : str
        What differs from the default, and how.
    base : Base
        The recipe.

    Examples
    --------
    >>> from uwmlib.studies import Level
    >>> from uwmlib.training import Base
    >>> Level("length", "60 steps", Base(steps=60)).key
    'length: 60 steps, seed 0'
    """

    factor: str
    level: str
    base: Base

    @property
    def key(self) -> str:
        """Name of the base in the study."""
        return f"{self.factor}: {self.level}, seed {self.base.seed}"


#: Factor -> level -> what differs from the default. "half" of the harmless uses halves every chance of one.
NO_USES = {"containers": 0.0, "own": 0.0, "other": 0.0, "also": 0.0, "web_filled": 0.0, "web_around": 0.0}
HALF_USES = {
    "containers": 0.3,
    "own": 0.2,
    "other": 0.25,
    "also": 0.05,
    "web_filled": 0.3,
    "web_around": 0.125,
}
FACTORS: dict[str, dict[str, dict[str, Any]]] = {
    "default": {"as it is": {}},
    "harmless uses": {"none": {"world": NO_USES}, "half": {"world": HALF_USES}},
    "captions that name": {"a quarter": {"world": {"web_named": 0.25}}, "nine tenths": {"world": {"web_named": 0.9}}},
    "share of hazards": {"0.15": {"world": {"web_hazard": 0.15}}, "0.70": {"world": {"web_hazard": 0.70}}},
    "twins differ": {"0": {"world": {"redraw": 0.0}}, "0.60": {"world": {"redraw": 0.6}}},
    "hazards' opacity": {"half": {"world": {"contrast": 32}}},
    "size": {"half the neurons": {"neurons": 192}, "patches of 10": {"ancestor": "mini-ViT-B-16"}},
    "length": {"60 steps": {"steps": 60}, "300 steps": {"steps": 300}},
}  # fmt: skip
#: Levels that are made with a second seed.
TWICE = (
    ("harmless uses", "none"), ("captions that name", "a quarter"), ("captions that name", "nine tenths"),
    ("share of hazards", "0.15"), ("twins differ", "0"), ("size", "half the neurons"), ("length", "300 steps"),
)  # fmt: skip
DEFAULT_SEEDS = 4
#: Of the bases that were made to test what the first plan had suggested, and of those that asked once more.
FRESH_SEEDS, MORE_SEEDS = tuple(range(4, 20)), tuple(range(36, 68))
AGAIN, MORE = "worlds-again", "worlds-more"


def worlds_plan() -> list[Level]:
    """Return every base of the study, in the order in which they are made.

    The default with four seeds, then every level with seed 0, then seven levels with seed 1.

    Examples
    --------
    >>> from uwmlib.studies import worlds_plan
    >>> plan = worlds_plan()
    >>> len(plan), plan[4].key
    (24, 'harmless uses: none, seed 0')
    """
    first = [Level("default", "as it is", Base(seed=seed)) for seed in range(DEFAULT_SEEDS)]
    others = [
        (factor, level, changes)
        for factor, levels in FACTORS.items()
        for level, changes in levels.items()
        if factor != "default"
    ]
    once = [Level(factor, level, Base(**changes)) for factor, level, changes in others]
    again = [
        Level(factor, level, Base(**changes, seed=1))
        for factor, level, changes in others
        if (factor, level) in TWICE
    ]
    return first + once + again


def fresh_seeds_plan(seeds: Iterable[int] = FRESH_SEEDS) -> list[Level]:
    """Return the bases of a second study, planned when the first was known: the default, from seeds that nobody used.

    One question was asked of it beforehand: is the mean over seeds of the released reading's difference to random
    negation (both encoders, both sides, 80% of knowledge) above zero, by its t interval? Sixteen seeds could not tell,
    and sixteen others, of the second tournament, suggested that it is; so it was asked once more, of the 32
    `MORE_SEEDS`, by a plan written down in the same way.

    Examples
    --------
    >>> from uwmlib.studies import fresh_seeds_plan, worlds_plan
    >>> fresh = {each.key for each in fresh_seeds_plan()}
    >>> len(fresh), fresh & {each.key for each in worlds_plan()}
    (16, set())
    """
    return [Level("default", "as it is", Base(seed=seed)) for seed in seeds]


PLANS = {"worlds": worlds_plan, AGAIN: fresh_seeds_plan, MORE: partial(fresh_seeds_plan, MORE_SEEDS)}


def plan_facts(plan: list[Level], measurement: Measurement = MEASUREMENT) -> dict[str, Any]:
    """Return a plan as JSON gives it back."""
    bases = [
        {"key": each.key, "factor": each.factor, "level": each.level, "recipe": each.base.facts()}
        for each in plan
    ]
    return as_json({"measurement": vars(measurement), "bases": bases})


def measure_level(level: Level, *, plan: Measurement = MEASUREMENT) -> dict[str, Any]:
    """Make one base of the plan and measure it.

    Parameters
    ----------
    level : Level
    plan : Measurement

    Returns
    -------
    dict
        A row of the study, for JSON: see `Worlds`.

    Examples
    --------
    >>> from uwmlib.studies import Level, Measurement, measure_level
    >>> from uwmlib.training import Base
    >>> quick = Level("default", "tiny", Base(steps=2, pool=4))
    >>> plan = Measurement(
    ...     n_calibration=8, n_validation=20, n_test=20, strengths=(0.02,),
    ...     seeds=1, rows=(("UWM", "both", 80.0), ("random", "both", 80.0)),
    ... )
    >>> row = measure_level(quick, plan=plan)
    >>> row["recipe"]["steps"], sorted(row["predictors"])
    (2, ['text', 'vision'])
    """
    vlm, curve = train_base(level.base)
    sizes = {"train": plan.n_calibration, "validation": plan.n_validation, "test": plan.n_test}
    tuples = {split: base_tuples(level.base.world, split, n=n) for split, n in sizes.items()}
    found = measure_base(
        vlm, calibration=tuples["train"], validation=tuples["validation"], test=tuples["test"], plan=plan
    )
    return {
        "key": level.key, "factor": level.factor, "level": level.level, "recipe": level.base.facts(),
        "curve": [{"step": point["step"], "loss": round(point["loss"], 5)} for point in curve],
        **found,
    }  # fmt: skip


def make_worlds(path: Path, *, study: str = "worlds", progress: bool = True, **_: Any) -> None:
    """Make and measure every base of a study's plan; a base that stands in the file already is not made again."""
    plan = PLANS[study]()
    jobs = {each.key: partial(measure_level, each) for each in plan}
    make_rows(path, plan_facts(plan), jobs, study=study, progress=progress)


@dataclass(frozen=True, eq=False)
class Worlds:
    """What the study found.

    Attributes
    ----------
    rows : list of dict
        One for each base that was made, in the order of the plan: "key", "factor", "level", "recipe", "curve",
        "minutes", and what `measure_base` returns.
    planned : list of str
        The keys of every base of the plan.

    Examples
    --------
    The study as it ships:

    >>> from uwmlib.studies import load_worlds
    >>> study = load_worlds()
    >>> len(study.planned), study.rows[0]["key"]
    (24, 'default: as it is, seed 0')
    >>> sorted(study.bases().columns)[:3]
    ['bias_image', 'bias_text', 'factor']
    """

    rows: list[dict[str, Any]]
    planned: list[str]

    @property
    def missing(self) -> list[str]:
        """Keys of the plan of which no base was made."""
        return [key for key in self.planned if key not in {row["key"] for row in self.rows}]

    def row(self, key: str) -> dict[str, Any]:
        """Return what was measured of one base."""
        return next(row for row in self.rows if row["key"] == key)

    def bases(self) -> pd.DataFrame:
        """Return the unedited bases: index key; factor, level, seed, scores, and predictors ("text.contrast")."""
        table = {}
        for row in self.rows:
            of_encoders = {
                f"{encoder}.{name}": value
                for encoder, numbers in row["predictors"].items()
                for name, value in numbers.items()
            }
            about = {"factor": row["factor"], "level": row["level"], "seed": row["recipe"]["seed"]}
            table[row["key"]] = about | row["base"] | of_encoders
        return pd.DataFrame.from_dict(table, orient="index")

    def differences(self) -> pd.DataFrame:
        """Return every difference between UWM and random negation, with the base's key, factor and level."""
        return self._lists("differences")

    def edits(self) -> pd.DataFrame:
        """Return every edit with its strength and its scores on the test tuples (missing where it has none)."""
        table = self._lists("rows")
        return table.drop(columns="scores").join(
            pd.DataFrame([scores if isinstance(scores, dict) else {} for scores in table["scores"]])
        )

    def _lists(self, name: str) -> pd.DataFrame:
        return pd.DataFrame([
            {"key": row["key"], "factor": row["factor"], "level": row["level"], **each}
            for row in self.rows
            for each in row[name]
        ])  # fmt: skip


def load_worlds(path: str | Path | None = None, *, study: str = "worlds") -> Worlds:
    """Load a study that ships, or one of your own.

    Parameters
    ----------
    path : path, optional
        What `uwm study` wrote of it.
    study : str
        "worlds", or "worlds-again" and "worlds-more" (`fresh_seeds_plan`).

    Raises
    ------
    UwmError
        If the file is missing or damaged, or was made by another plan than the study's.

    Examples
    --------
    >>> from uwmlib.studies import load_worlds
    >>> load_worlds().missing
    []
    """
    path, plan = Path(path) if path else study_path(study, suffix=JSON), plan_facts(PLANS[study]())
    return Worlds(load_rows(path, plan, study), [each["key"] for each in plan["bases"]])
