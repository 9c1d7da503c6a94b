"""What the paper prints, and whether its directions hold here."""

from uwmlib.paper.claims import judge_claims
from uwmlib.paper.sentences import judge_sentences
from uwmlib.paper.trends import trend_table
from uwmlib.paper.values import paper_signal_detection, paper_table, paper_value
from uwmlib.paper.verdicts import directions, verdict_table

__all__ = [
    "directions",
    "judge_claims",
    "judge_sentences",
    "paper_signal_detection",
    "paper_table",
    "paper_value",
    "trend_table",
    "verdict_table",
]
