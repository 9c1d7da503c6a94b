"""Captions and what is said of them: judges, toxicity scorers, and overlap with references (Table 5)."""

from uwmlib.captions.evaluation import CaptionEvaluation, evaluate_captions
from uwmlib.captions.judges import load_judge
from uwmlib.captions.opinions import Judge, Opinion
from uwmlib.captions.replay import write_record
from uwmlib.captions.toxicity import ToxicityScorer, load_toxicity

__all__ = [
    "CaptionEvaluation",
    "Judge",
    "ToxicityScorer",
    "Opinion",
    "evaluate_captions",
    "load_judge",
    "load_toxicity",
    "write_record",
]
