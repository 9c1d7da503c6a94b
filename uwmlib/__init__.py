"""Measure and edit the safety of vision-language models: SafeGround and Unsafe Weights Manipulation.

The data flow in one direction: tuples -> model -> one calibration pass -> selection -> edit -> measurement -> result
beside the paper's. Names are loaded on first use, so that `import uwmlib` costs nothing.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from uwmlib.cache import Cache
    from uwmlib.editing import Scores, WeightEdit, gradient_scores, score
    from uwmlib.errors import UwmError
    from uwmlib.evaluation import Evaluation, embed_tuples, evaluate
    from uwmlib.metrics import compare, retrieval, safeground
    from uwmlib.models import Vlm, load_model
    from uwmlib.parameters import check_run, checked_parameters
    from uwmlib.profiles import profile
    from uwmlib.tuples import Tuples, load_tuples
    from uwmlib.zero_shot import load_zero_shot, zero_shot_set

__version__ = "0.1.0"

_HOMES = {
    "Cache": "uwmlib.cache", "Evaluation": "uwmlib.evaluation", "Scores": "uwmlib.editing", "Tuples": "uwmlib.tuples",
    "UwmError": "uwmlib.errors", "Vlm": "uwmlib.models", "WeightEdit": "uwmlib.editing",
    "check_run": "uwmlib.parameters", "checked_parameters": "uwmlib.parameters", "compare": "uwmlib.metrics",
    "embed_tuples": "uwmlib.evaluation", "evaluate": "uwmlib.evaluation",
    "gradient_scores": "uwmlib.editing", "load_model": "uwmlib.models", "load_tuples": "uwmlib.tuples",
    "load_zero_shot": "uwmlib.zero_shot",
    "profile": "uwmlib.profiles", "retrieval": "uwmlib.metrics", "safeground": "uwmlib.metrics",
    "score": "uwmlib.editing", "zero_shot_set": "uwmlib.zero_shot",
}  # fmt: skip

__all__ = [
    "Cache",
    "Evaluation",
    "Scores",
    "Tuples",
    "UwmError",
    "Vlm",
    "WeightEdit",
    "__version__",
    "check_run",
    "checked_parameters",
    "compare",
    "embed_tuples",
    "evaluate",
    "gradient_scores",
    "load_model",
    "load_tuples",
    "load_zero_shot",
    "profile",
    "retrieval",
    "safeground",
    "score",
    "zero_shot_set",
]


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        return getattr(importlib.import_module(_HOMES[name]), name)
    raise AttributeError(f"module 'uwmlib' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)
