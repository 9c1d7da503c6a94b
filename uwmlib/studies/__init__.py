"""Measurements that take longer than a chapter may: made by `uwm study`, shipped item by item, read by chapters."""

from __future__ import annotations

from uwmlib.studies.bases import Measurement, base_predictors, measure_base
from uwmlib.studies.controlled import (
    PLAN,
    EqualKnowledge,
    Plan,
    measure_equal_knowledge,
    methods_compared,
)
from uwmlib.studies.evaluations import load_evaluations, save_evaluations
from uwmlib.studies.files import study_path
from uwmlib.studies.making import STUDIES, Study, make_study
from uwmlib.studies.scores import SCORES, SCORES_PLAN, scores_compared
from uwmlib.studies.shipped import (
    COMPARED,
    equal_knowledge,
    equal_knowledge_of_seeds,
    rows_of_seeds,
    uwm_curves,
)
from uwmlib.studies.table1 import READINGS, VALIDATED, Readings, choose_uwm, measure_rows
from uwmlib.studies.worlds import Level, Worlds, load_worlds, measure_level, worlds_plan

__all__ = [
    "COMPARED",
    "PLAN",
    "READINGS",
    "SCORES",
    "SCORES_PLAN",
    "STUDIES",
    "Study",
    "VALIDATED",
    "Worlds",
    "EqualKnowledge",
    "Level",
    "Measurement",
    "Plan",
    "Readings",
    "base_predictors",
    "choose_uwm",
    "equal_knowledge",
    "equal_knowledge_of_seeds",
    "load_evaluations",
    "load_worlds",
    "make_study",
    "measure_base",
    "measure_equal_knowledge",
    "measure_level",
    "measure_rows",
    "methods_compared",
    "rows_of_seeds",
    "save_evaluations",
    "scores_compared",
    "study_path",
    "uwm_curves",
    "worlds_plan",
]
