"""Measurements that take longer than a chapter may: made by `uwm study`, shipped item by item, read by chapters."""

from __future__ import annotations

from uwmlib.studies.anatomy import (
    ANATOMY_PLAN,
    FORMS,
    PRIORS,
    anatomy,
    anatomy_methods,
    anatomy_of_seeds,
    concept_scores,
    forms_of,
    score_concepts,
)
from uwmlib.studies.controlled import (
    PLAN,
    EqualKnowledge,
    Plan,
    measure_equal_knowledge,
    methods_compared,
)
from uwmlib.studies.conventions import (
    Conventions,
    beside,
    convention_changes,
    draws_of,
    edits_switched,
    load_conventions,
    measure_conventions,
    save_conventions,
    shipped_conventions,
)
from uwmlib.studies.evaluations import load_evaluations, save_evaluations
from uwmlib.studies.files import study_path
from uwmlib.studies.making import STUDIES, Study, make_study
from uwmlib.studies.planted import LIVE_PLAN, PLANT_PLAN, PlantPlan
from uwmlib.studies.planted_rows import found_frame, grown_frame, keys_of, shipped_plants, undo_frame
from uwmlib.studies.scores import SCORES, SCORES_PLAN, scores_compared
from uwmlib.studies.shipped import (
    COMPARED,
    equal_knowledge,
    equal_knowledge_of_seeds,
    rows_of_seeds,
    uwm_curves,
)
from uwmlib.studies.table1 import READINGS, VALIDATED, Readings, choose_uwm, measure_rows

__all__ = [
    "ANATOMY_PLAN",
    "COMPARED",
    "LIVE_PLAN",
    "FORMS",
    "PLAN",
    "PLANT_PLAN",
    "PRIORS",
    "READINGS",
    "SCORES",
    "SCORES_PLAN",
    "STUDIES",
    "Study",
    "VALIDATED",
    "Conventions",
    "EqualKnowledge",
    "Plan",
    "PlantPlan",
    "Readings",
    "anatomy",
    "anatomy_methods",
    "anatomy_of_seeds",
    "choose_uwm",
    "concept_scores",
    "equal_knowledge",
    "equal_knowledge_of_seeds",
    "found_frame",
    "grown_frame",
    "keys_of",
    "forms_of",
    "beside",
    "convention_changes",
    "draws_of",
    "edits_switched",
    "load_conventions",
    "load_evaluations",
    "make_study",
    "measure_conventions",
    "measure_equal_knowledge",
    "measure_rows",
    "methods_compared",
    "rows_of_seeds",
    "save_conventions",
    "save_evaluations",
    "score_concepts",
    "shipped_conventions",
    "scores_compared",
    "shipped_plants",
    "study_path",
    "undo_frame",
    "uwm_curves",
]
