"""Scoring weights, selecting them, and editing them (Sec. 4 of the paper)."""

from __future__ import annotations

from uwmlib.editing.calibration import score
from uwmlib.editing.gradients import GradientScores, g_safe_clip_loss, g_unsafe_loss, gradient_scores
from uwmlib.editing.saliency import PairSums, combine, emitted, received, token_statistics
from uwmlib.editing.scores import Scores
from uwmlib.editing.selection import select_adaptive, select_fixed, select_positive
from uwmlib.editing.weight_edit import EditedParameter, WeightEdit

__all__ = [
    "EditedParameter",
    "GradientScores",
    "PairSums",
    "Scores",
    "WeightEdit",
    "combine",
    "emitted",
    "g_safe_clip_loss",
    "g_unsafe_loss",
    "gradient_scores",
    "received",
    "score",
    "select_adaptive",
    "select_fixed",
    "select_positive",
    "token_statistics",
]
