"""Classification sets for zero-shot accuracy: the record, and sets of one's own."""

from uwmlib.zero_shot.sets import PHOTO, ZeroShotSet

__all__ = ["PHOTO", "ZeroShotSet"]
