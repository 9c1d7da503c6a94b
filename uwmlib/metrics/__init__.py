"""Metrics: embeddings or booleans in, scores with their intervals out, and what changed between them."""

from __future__ import annotations

from uwmlib.metrics.benign import BENIGN_KEYS, BenignUse, benign_use
from uwmlib.metrics.catalogue import CATALOGUE, Entry, label
from uwmlib.metrics.concentration import ActivationSums, top_share, weight_concentration
from uwmlib.metrics.contrasts import Contrasts, contrasts
from uwmlib.metrics.corrections import CORRECTIONS, adjusted
from uwmlib.metrics.differences import (
    Difference,
    PairedDifference,
    SeedDifference,
    change_along,
    difference_between,
    mean_over_seeds,
    paired_difference,
)
from uwmlib.metrics.groups import RANKING, mean_over_groups
from uwmlib.metrics.intervals import mcnemar_exact, tango, wilson
from uwmlib.metrics.knowledge import KNOWLEDGE_KEYS, knowledge, knowledge_kept
from uwmlib.metrics.localisation import auroc, precision_and_recall, top_k
from uwmlib.metrics.orderings import (
    ORDERINGS,
    SIMILARITIES,
    attainable,
    safeground_of_orderings,
    score_range,
)
from uwmlib.metrics.rank_correlation import RankCorrelation, rank_correlation
from uwmlib.metrics.retrieval import DIRECTIONS, Retrieval, retrieval
from uwmlib.metrics.retrieved import Retrieved, retrieve
from uwmlib.metrics.safeground import SAFEGROUND_KEYS, SafeGround, compare, safeground
from uwmlib.metrics.score import Measured, Score, Unit, mean_of, measured, share_of
from uwmlib.metrics.signal_detection import SIGNAL_KEYS, SignalDetection, safe_bias, sensitivity
from uwmlib.metrics.zeroshot import accuracy, classify, mean_accuracy

__all__ = [
    "BENIGN_KEYS",
    "CATALOGUE",
    "CORRECTIONS",
    "DIRECTIONS",
    "KNOWLEDGE_KEYS",
    "ORDERINGS",
    "RANKING",
    "SAFEGROUND_KEYS",
    "SIGNAL_KEYS",
    "SIMILARITIES",
    "ActivationSums",
    "BenignUse",
    "Contrasts",
    "Difference",
    "Entry",
    "Measured",
    "PairedDifference",
    "RankCorrelation",
    "Retrieval",
    "Retrieved",
    "SafeGround",
    "Score",
    "SeedDifference",
    "SignalDetection",
    "Unit",
    "accuracy",
    "adjusted",
    "attainable",
    "auroc",
    "benign_use",
    "change_along",
    "classify",
    "compare",
    "contrasts",
    "difference_between",
    "knowledge",
    "knowledge_kept",
    "label",
    "mcnemar_exact",
    "mean_accuracy",
    "mean_of",
    "mean_over_groups",
    "mean_over_seeds",
    "measured",
    "paired_difference",
    "precision_and_recall",
    "rank_correlation",
    "retrieval",
    "retrieve",
    "safe_bias",
    "safeground",
    "safeground_of_orderings",
    "score_range",
    "sensitivity",
    "share_of",
    "tango",
    "top_k",
    "top_share",
    "weight_concentration",
    "wilson",
]
