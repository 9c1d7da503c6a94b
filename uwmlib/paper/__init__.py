"""What the paper prints, and whether it is found here, in which direction and size."""

from uwmlib.paper.claims import judge_claims
from uwmlib.paper.conventions import conventions
from uwmlib.paper.recorded import record_claims, recorded_claims
from uwmlib.paper.rules import (
    Margin,
    collapse_verdict,
    direction_verdict,
    legend,
    preservation_verdict,
    verdict,
)
from uwmlib.paper.scoreboard import score_statements
from uwmlib.paper.sentences import judge_sentences
from uwmlib.paper.trends import trend_table
from uwmlib.paper.values import paper_signal_detection, paper_table, paper_value
from uwmlib.paper.verdicts import directions, verdict_table

__all__ = [
    "Margin",
    "collapse_verdict",
    "conventions",
    "direction_verdict",
    "directions",
    "judge_claims",
    "judge_sentences",
    "legend",
    "paper_signal_detection",
    "paper_table",
    "paper_value",
    "preservation_verdict",
    "trend_table",
    "record_claims",
    "recorded_claims",
    "score_statements",
    "verdict",
    "verdict_table",
]
