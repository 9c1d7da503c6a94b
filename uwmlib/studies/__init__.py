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
from uwmlib.studies.bases import Measurement, base_predictors, measure_base
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
from uwmlib.studies.roster import (
    ENTRANTS,
    entrants,
)
from uwmlib.studies.scores import SCORES, SCORES_PLAN, scores_compared
from uwmlib.studies.shipped import (
    COMPARED,
    equal_knowledge,
    equal_knowledge_of_seeds,
    rows_of_seeds,
    uwm_curves,
)
from uwmlib.studies.table1 import READINGS, VALIDATED, Readings, choose_uwm, measure_rows
from uwmlib.studies.tournament import (
    SPARED,
    Arena,
    Cost,
    Rules,
    Tournament,
    measure_tournament,
    passes,
)
from uwmlib.studies.tournament_again import AgainPlan, load_tournament_again
from uwmlib.studies.tournament_rows import (
    load_tournament,
    save_tournament,
    shipped_tournament,
)
from uwmlib.studies.unseen import (
    Unseen,
    caption_both,
    edit_of_tower,
    hold_out,
    load_unseen,
    measure_unseen,
    of_concepts,
    save_unseen,
    shipped_unseen,
)
from uwmlib.studies.worlds import Level, Worlds, fresh_seeds_plan, load_worlds, measure_level, worlds_plan

__all__ = [
    "AgainPlan",
    "ANATOMY_PLAN",
    "COMPARED",
    "ENTRANTS",
    "FORMS",
    "LIVE_PLAN",
    "PLAN",
    "PLANT_PLAN",
    "PRIORS",
    "READINGS",
    "SCORES",
    "SCORES_PLAN",
    "SPARED",
    "STUDIES",
    "VALIDATED",
    "Arena",
    "Conventions",
    "Cost",
    "EqualKnowledge",
    "Level",
    "Measurement",
    "Plan",
    "PlantPlan",
    "Readings",
    "Rules",
    "Study",
    "Tournament",
    "Unseen",
    "Worlds",
    "anatomy",
    "anatomy_methods",
    "anatomy_of_seeds",
    "base_predictors",
    "beside",
    "caption_both",
    "choose_uwm",
    "concept_scores",
    "convention_changes",
    "draws_of",
    "edit_of_tower",
    "edits_switched",
    "entrants",
    "equal_knowledge",
    "equal_knowledge_of_seeds",
    "forms_of",
    "fresh_seeds_plan",
    "found_frame",
    "grown_frame",
    "hold_out",
    "keys_of",
    "load_conventions",
    "load_evaluations",
    "load_tournament",
    "load_tournament_again",
    "load_unseen",
    "load_worlds",
    "make_study",
    "measure_base",
    "measure_conventions",
    "measure_equal_knowledge",
    "measure_level",
    "measure_rows",
    "measure_tournament",
    "measure_unseen",
    "methods_compared",
    "of_concepts",
    "passes",
    "rows_of_seeds",
    "save_conventions",
    "save_evaluations",
    "save_tournament",
    "save_unseen",
    "score_concepts",
    "scores_compared",
    "shipped_conventions",
    "shipped_plants",
    "shipped_tournament",
    "shipped_unseen",
    "study_path",
    "undo_frame",
    "uwm_curves",
    "worlds_plan",
]
