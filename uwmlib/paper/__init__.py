"""What the paper prints, and whether its directions hold here."""

from uwmlib.paper.trends import trend_table
from uwmlib.paper.values import paper_signal_detection, paper_table, paper_value
from uwmlib.paper.verdicts import directions, judge_claims, verdict_table

__all__ = [
    "directions",
    "judge_claims",
    "paper_signal_detection",
    "paper_table",
    "paper_value",
    "trend_table",
    "verdict_table",
]
