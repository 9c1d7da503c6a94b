"""Measurements that take longer than a chapter may: made by `uwm study`, shipped item by item, read by chapters."""

from __future__ import annotations

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
from uwmlib.studies.tournament import (
    ENTRANTS,
    SPARED,
    Arena,
    Cost,
    Rules,
    Tournament,
    entrants,
    load_tournament,
    measure_tournament,
    passes,
    save_tournament,
    shipped_controls,
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

__all__ = [
    "ENTRANTS",
    "shipped_unseen",
    "save_unseen",
    "of_concepts",
    "measure_unseen",
    "load_unseen",
    "hold_out",
    "edit_of_tower",
    "caption_both",
    "COMPARED",
    "PLAN",
    "READINGS",
    "SCORES",
    "SCORES_PLAN",
    "SPARED",
    "STUDIES",
    "Study",
    "VALIDATED",
    "Arena",
    "Cost",
    "EqualKnowledge",
    "Plan",
    "Readings",
    "Rules",
    "Tournament",
    "Unseen",
    "choose_uwm",
    "entrants",
    "equal_knowledge",
    "equal_knowledge_of_seeds",
    "load_evaluations",
    "load_tournament",
    "make_study",
    "measure_equal_knowledge",
    "measure_rows",
    "measure_tournament",
    "methods_compared",
    "passes",
    "rows_of_seeds",
    "save_evaluations",
    "save_tournament",
    "scores_compared",
    "shipped_controls",
    "shipped_tournament",
    "study_path",
    "uwm_curves",
]
