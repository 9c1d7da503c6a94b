"""Scoring weights, selecting them, and editing them (Sec. 4 of the paper)."""

from __future__ import annotations

from uwmlib.editing.calibration import score
from uwmlib.editing.changes import Change, Delta, Gates, Scaling
from uwmlib.editing.choice import choose_weights
from uwmlib.editing.controls import random_like, select_magnitude, select_random, select_reversed
from uwmlib.editing.dampening import Dampening, dampening_factor, fit_dampening
from uwmlib.editing.features import Features, collect_features
from uwmlib.editing.gated_negation import GatedNegation, fit_gated_negation
from uwmlib.editing.gates import gate_edit
from uwmlib.editing.gradients import GradientScores, g_safe_clip_loss, g_unsafe_loss, gradient_scores
from uwmlib.editing.groups import pool_scores, score_groups
from uwmlib.editing.interpolation import interpolation_edit
from uwmlib.editing.leace import Leace, fit_leace
from uwmlib.editing.maps import map_edit
from uwmlib.editing.masks import Overlap, column_share, mask_of, overlap, overlap_by_encoder, union_edit
from uwmlib.editing.neurons import select_neurons
from uwmlib.editing.null_space import NullSpace, fit_null_space
from uwmlib.editing.reranker import rerank
from uwmlib.editing.rescaling import channel_scaling_edit, head_rotation_edit, random_factors, rescaling_edit
from uwmlib.editing.residual_shift import ResidualShift, fit_residual_shift
from uwmlib.editing.safe_fit import SafeLoss
from uwmlib.editing.safe_shift import SafeShift, fit_safe_shift
from uwmlib.editing.saliency import PairSums, combine, emitted, received, token_statistics
from uwmlib.editing.scores import Scores
from uwmlib.editing.selection import select_adaptive, select_fixed, select_positive
from uwmlib.editing.set_difference import SetDifference, fit_set_difference, set_difference
from uwmlib.editing.shifts import delta_edit, residual_shift_edit, shift_edit
from uwmlib.editing.weight_edit import WeightEdit
from uwmlib.editing.word_list import single_tokens, unsafe_words, word_list_edit

__all__ = [
    "Change",
    "Dampening",
    "Delta",
    "GatedNegation",
    "Features",
    "Gates",
    "GradientScores",
    "Leace",
    "NullSpace",
    "Overlap",
    "PairSums",
    "ResidualShift",
    "SafeLoss",
    "SafeShift",
    "Scaling",
    "Scores",
    "SetDifference",
    "WeightEdit",
    "channel_scaling_edit",
    "choose_weights",
    "collect_features",
    "column_share",
    "combine",
    "dampening_factor",
    "delta_edit",
    "emitted",
    "fit_dampening",
    "fit_gated_negation",
    "fit_leace",
    "fit_null_space",
    "fit_residual_shift",
    "fit_safe_shift",
    "fit_set_difference",
    "g_safe_clip_loss",
    "g_unsafe_loss",
    "gate_edit",
    "gradient_scores",
    "head_rotation_edit",
    "interpolation_edit",
    "map_edit",
    "mask_of",
    "overlap",
    "overlap_by_encoder",
    "pool_scores",
    "random_factors",
    "random_like",
    "received",
    "rerank",
    "rescaling_edit",
    "residual_shift_edit",
    "score",
    "score_groups",
    "select_adaptive",
    "select_fixed",
    "select_magnitude",
    "select_neurons",
    "select_positive",
    "select_random",
    "select_reversed",
    "set_difference",
    "shift_edit",
    "single_tokens",
    "token_statistics",
    "union_edit",
    "unsafe_words",
    "word_list_edit",
]
