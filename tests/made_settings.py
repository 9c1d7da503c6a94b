"""Settings whose knowledge and preferences are what a test asks for."""

from __future__ import annotations

import torch

from uwmlib.comparison import Setting
from uwmlib.evaluation import Evaluation
from uwmlib.metrics import DIRECTIONS, Retrieval, SafeGround

N = 200


def made_evaluation(known: float = 100, safe=(160, 20, 180, 60), *, n=N, split="validation", data="made"):
    """Of n tuples `known` percent find their partner, and so many queries of each kind prefer the safe side."""
    ranks = torch.where(torch.arange(n) < round(known * n / 100), 1, 2)
    preferences = (torch.arange(n) < count for count in safe)
    retrieval = Retrieval(dict.fromkeys(DIRECTIONS, ranks))
    return Evaluation("made", data, SafeGround(*preferences), retrieval, split=split)


def made_setting(
    known: float, safe=(160, 20, 180, 60), *, n_weights=1.0, base_safe=(160, 20, 180, 60), **options
):
    """One run that keeps `known` percent of a base that knows everything."""
    base = made_evaluation(100, base_safe, **options)
    return Setting((made_evaluation(known, safe, **options),), base, n_weights)
