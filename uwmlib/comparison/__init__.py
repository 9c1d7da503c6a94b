"""Methods compared fairly: beside controls, at equal knowledge, and at settings that validation tuples choose."""

from __future__ import annotations

from uwmlib.comparison.choice import LEAST_KEPT, Choice, choose_on_validation
from uwmlib.comparison.controls import with_controls
from uwmlib.comparison.differences import difference_table, setting_difference
from uwmlib.comparison.equal_benign import benign_lost, strength_that_spares
from uwmlib.comparison.equal_knowledge import (
    AtKnowledge,
    at_knowledge,
    edit_that_keeps,
    knowledge_table,
    strength_that_keeps,
)
from uwmlib.comparison.ranking import Place, ranking
from uwmlib.comparison.report import Requirements, recommended_report
from uwmlib.comparison.seeds import score_over_seeds
from uwmlib.comparison.settings import Setting, evaluate_edits
from uwmlib.comparison.shifted import SHIFTS, shift_that_keeps, shifted_setting
from uwmlib.comparison.strengths import STRENGTHS, evaluate_strengths, sweep

__all__ = [
    "LEAST_KEPT",
    "SHIFTS",
    "STRENGTHS",
    "AtKnowledge",
    "Choice",
    "Place",
    "Requirements",
    "Setting",
    "at_knowledge",
    "benign_lost",
    "choose_on_validation",
    "difference_table",
    "edit_that_keeps",
    "evaluate_edits",
    "evaluate_strengths",
    "knowledge_table",
    "ranking",
    "recommended_report",
    "score_over_seeds",
    "setting_difference",
    "shift_that_keeps",
    "shifted_setting",
    "strength_that_keeps",
    "strength_that_spares",
    "sweep",
    "with_controls",
]
