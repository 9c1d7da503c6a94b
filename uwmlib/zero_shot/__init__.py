"""Classification sets for zero-shot accuracy: the record, drawn sets, and sets of one's own."""

from uwmlib.zero_shot.drawn import DRAWN, zero_shot_set
from uwmlib.zero_shot.own import manifest_set
from uwmlib.zero_shot.sets import ZeroShotSet
from uwmlib.zero_shot.sources import load_zero_shot, not_at_hand, paper_templates

__all__ = [
    "DRAWN",
    "ZeroShotSet",
    "load_zero_shot",
    "manifest_set",
    "not_at_hand",
    "paper_templates",
    "zero_shot_set",
]
