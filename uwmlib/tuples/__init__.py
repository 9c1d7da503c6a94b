"""Tuples of safe and unsafe images and texts."""

from uwmlib.tuples.images import ImageFiles
from uwmlib.tuples.loading import load_tuples
from uwmlib.tuples.tuples import Tuples
from uwmlib.tuples.validation import Validation, validate

__all__ = ["ImageFiles", "Tuples", "Validation", "load_tuples", "validate"]
