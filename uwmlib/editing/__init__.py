"""Scoring weights, selecting them, and editing them (Sec. 4 of the paper)."""

from __future__ import annotations

from uwmlib.editing.calibration import score
from uwmlib.editing.changes import Change, Delta, Gates, Scaling
from uwmlib.editing.choice import choose_weights
from uwmlib.editing.controls import random_like, select_magnitude, select_random, select_reversed
from uwmlib.editing.gates import gate_edit
from uwmlib.editing.gradients import GradientScores, g_safe_clip_loss, g_unsafe_loss, gradient_scores
from uwmlib.editing.reranker import rerank
from uwmlib.editing.rescaling import rescaling_edit
from uwmlib.editing.safe_shift import SafeShift, fit_safe_shift
from uwmlib.editing.saliency import PairSums, combine, emitted, received, token_statistics
from uwmlib.editing.scores import Scores
from uwmlib.editing.selection import select_adaptive, select_fixed, select_positive
from uwmlib.editing.shifts import delta_edit, residual_shift_edit, shift_edit
from uwmlib.editing.weight_edit import WeightEdit
from uwmlib.editing.word_list import single_tokens, unsafe_words, word_list_edit

__all__ = [
    "Change",
    "Delta",
    "Gates",
    "GradientScores",
    "PairSums",
    "SafeShift",
    "Scaling",
    "Scores",
    "WeightEdit",
    "choose_weights",
    "combine",
    "delta_edit",
    "emitted",
    "fit_safe_shift",
    "g_safe_clip_loss",
    "g_unsafe_loss",
    "gate_edit",
    "gradient_scores",
    "random_like",
    "received",
    "rerank",
    "rescaling_edit",
    "residual_shift_edit",
    "score",
    "select_adaptive",
    "select_fixed",
    "select_magnitude",
    "select_positive",
    "select_random",
    "select_reversed",
    "shift_edit",
    "single_tokens",
    "token_statistics",
    "unsafe_words",
    "word_list_edit",
]
