"""Tuples of safe and unsafe images and texts, and benign uses."""

from uwmlib.tuples.benign import BenignUses
from uwmlib.tuples.draws import per_concept
from uwmlib.tuples.images import ImageFiles
from uwmlib.tuples.loading import load_benign, load_tuples
from uwmlib.tuples.tuples import Tuples
from uwmlib.tuples.validation import Validation, validate

__all__ = [
    "BenignUses",
    "ImageFiles",
    "Tuples",
    "Validation",
    "load_benign",
    "load_tuples",
    "per_concept",
    "validate",
]
