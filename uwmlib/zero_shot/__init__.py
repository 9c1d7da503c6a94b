"""Classification sets for zero-shot accuracy: the record, and sets of one's own."""

from uwmlib.zero_shot.own import manifest_set
from uwmlib.zero_shot.sets import ZeroShotSet
from uwmlib.zero_shot.sources import load_zero_shot, paper_templates

__all__ = ["ZeroShotSet", "load_zero_shot", "manifest_set", "paper_templates"]
