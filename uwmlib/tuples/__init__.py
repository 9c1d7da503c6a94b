"""Tuples of safe and unsafe images and texts."""

from uwmlib.tuples.images import ImageFiles
from uwmlib.tuples.loading import load_tuples
from uwmlib.tuples.tuples import Tuples

__all__ = ["ImageFiles", "Tuples", "load_tuples"]
