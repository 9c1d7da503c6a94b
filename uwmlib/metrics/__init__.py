"""Metrics: embeddings or booleans in, scores with their intervals out, and what changed between them."""

from __future__ import annotations

from uwmlib.metrics.benign import BENIGN_KEYS, BenignUse, benign_use
from uwmlib.metrics.catalogue import CATALOGUE, Entry, label
from uwmlib.metrics.differences import (
    Difference,
    PairedDifference,
    change_along,
    difference_between,
    paired_difference,
)
from uwmlib.metrics.intervals import mcnemar_exact, tango, wilson
from uwmlib.metrics.retrieval import DIRECTIONS, Retrieval, retrieval
from uwmlib.metrics.retrieved import Retrieved, retrieve
from uwmlib.metrics.safeground import SAFEGROUND_KEYS, SafeGround, compare, safeground
from uwmlib.metrics.score import Measured, Score, Unit, mean_of, measured, share_of
from uwmlib.metrics.signal_detection import SIGNAL_KEYS, SignalDetection
from uwmlib.metrics.zeroshot import accuracy, classify, mean_accuracy

__all__ = [
    "BENIGN_KEYS",
    "CATALOGUE",
    "DIRECTIONS",
    "SAFEGROUND_KEYS",
    "SIGNAL_KEYS",
    "BenignUse",
    "Difference",
    "Entry",
    "Measured",
    "PairedDifference",
    "Retrieval",
    "Retrieved",
    "SafeGround",
    "Score",
    "SignalDetection",
    "Unit",
    "accuracy",
    "benign_use",
    "change_along",
    "classify",
    "compare",
    "difference_between",
    "label",
    "mcnemar_exact",
    "mean_accuracy",
    "mean_of",
    "measured",
    "paired_difference",
    "retrieval",
    "retrieve",
    "safeground",
    "share_of",
    "tango",
    "wilson",
]
