"""Metrics: embeddings or booleans in, per-tuple booleans, rates and intervals out."""

from __future__ import annotations

from uwmlib.metrics.intervals import (
    Bootstrap,
    PairedDifference,
    bootstrap,
    mcnemar_exact,
    paired_difference,
    tango,
    wilson,
)
from uwmlib.metrics.retrieval import DIRECTIONS, Retrieval, retrieval
from uwmlib.metrics.safeground import SAFEGROUND_KEYS, SafeGround, compare, safeground
from uwmlib.metrics.signal_detection import SignalDetection
from uwmlib.metrics.zeroshot import Accuracy, MeanAccuracy, accuracy, average_prompts, classify, mean_accuracy

__all__ = [
    "DIRECTIONS",
    "SAFEGROUND_KEYS",
    "Accuracy",
    "Bootstrap",
    "MeanAccuracy",
    "PairedDifference",
    "Retrieval",
    "SafeGround",
    "SignalDetection",
    "accuracy",
    "average_prompts",
    "bootstrap",
    "classify",
    "compare",
    "mcnemar_exact",
    "mean_accuracy",
    "paired_difference",
    "retrieval",
    "safeground",
    "tango",
    "wilson",
]
