"""The rows of Tables 3, 6, 7 and 9 as methods: each score, rule, prior and encoder a function of the strength."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from uwmlib.comparison.controls import EditAt
from uwmlib.editing import Scores
from uwmlib.studies.controlled import PLAN, Plan

#: With strengths below those of the other studies: a fixed rule at 0.01 costs more than 5% of knowledge on some bases.
SCORES_PLAN = replace(PLAN, tau=0.02, strengths=(0.0025, 0.005, *PLAN.strengths))

_PRIORS: dict[str, tuple[str, ...]] = {
    "prior off|off": (), "prior off|on": ("vision",), "prior on|on": ("text", "vision"),
}  # fmt: skip
UWM_ROW = "ratio+adaptive"  #: with the prior on the text alone
#: Row -> what `Scores.select` is asked for.
SCORES: dict[str, dict[str, Any]] = {
    "unsafe_only": {"variant": "unsafe-only", "rule": "fixed"},
    "unsafe_only+adaptive": {"variant": "unsafe-only"},
    "diff": {"variant": "difference", "rule": "fixed"},
    "diff+adaptive": {"variant": "difference"},
    "ratio": {"rule": "fixed"},
    UWM_ROW: {},
    **{row: {"prior": prior} for row, prior in _PRIORS.items()},
    "text_only": {"vision": None},
    "vision_only": {"text": None},
}


def scores_compared(scores: Scores, plan: Plan = SCORES_PLAN) -> dict[str, EditAt]:
    """Return the rows of Tables 3, 6, 7 and 9, each a function of the strength.

    Examples
    --------
    >>> import uwmlib as uwm
    >>> from uwmlib.studies import scores_compared
    >>> vlm = uwm.load_model("mini-ViT-B-32")
    >>> tuples = uwm.load_tuples("mini-visu", split="train", n=8)
    >>> methods = scores_compared(uwm.score(vlm, tuples, progress=False))
    >>> list(methods)[:3]
    ['unsafe_only', 'unsafe_only+adaptive', 'diff']
    >>> round(methods["ratio"](0.1).share()["text"], 2)
    0.1
    """
    return {
        row: lambda tau, asked=asked: scores.select(tau=tau, alpha=plan.alpha, **asked)
        for row, asked in SCORES.items()
    }
