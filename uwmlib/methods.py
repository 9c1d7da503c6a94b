"""Every method by its name: from a model and calibration tuples to an edit. `uwm edit` and `uwm ls methods` read it.

A new method costs its own file and a row in `METHODS`, as CONTRIBUTING.md shows.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

from uwmlib.editing import (
    Scores,
    WeightEdit,
    gradient_scores,
    score,
    select_magnitude,
    select_random,
    select_reversed,
)
from uwmlib.editing.controls import REVERSIBLE
from uwmlib.editing.gradients import VARIANTS as READINGS
from uwmlib.editing.saliency import VARIANTS
from uwmlib.models.vlm import Vlm
from uwmlib.tuples import Tuples

__all__ = ["METHODS", "Method"]

Kinds = str | Sequence[str] | None
# What methods that score weights take besides variants.
SCORED = ("text", "vision", "tau", "alpha", "rule")
TAU = 0.02  #: the paper's


@dataclass(frozen=True)
class Method:
    """A row of the table.

    Attributes
    ----------
    about : str
        What is done to which weights, in a few words.
    edit : callable (Vlm, Tuples, options by name) -> WeightEdit
        Every option has a default.
    options : tuple of str
        Those of `edit` that `uwm edit` may pass, out of "text" and "vision" (kinds of layers, as in `score`), "tau",
        "alpha", "rule", "prior" (whether the scores of the text encoder are multiplied by |W|) and "seed" (of a
        random choice).
    variants : tuple of str
        The values of its option "variant"; empty where it has none.

    Examples
    --------
    >>> import uwmlib as uwm
    >>> from uwmlib.methods import METHODS
    >>> vlm = uwm.load_model("mini-ViT-L-14")
    >>> tuples = uwm.load_tuples("mini-visu", split="train", n=8)
    >>> METHODS["g-unsafe"].variants
    ('released', 'paper')
    >>> METHODS["g-unsafe"].edit(vlm, tuples, text=None).share()
    {'vision': 0.0...}
    """

    about: str
    edit: Callable[..., WeightEdit]
    options: tuple[str, ...] = SCORED
    variants: tuple[str, ...] = ()


def _by_ratio(
    vlm: Vlm, tuples: Tuples, *, select: Callable[..., WeightEdit], text: Kinds = "out", vision: Kinds = "fc2",
    tau: float = TAU, prior: bool = True, **options: Any,
) -> WeightEdit:  # fmt: skip
    scores = score(vlm, tuples, text=text, vision=vision)
    return select(scores, tau=tau, prior=("text",) if prior else (), **options)


def _untaught(
    vlm: Vlm, tuples: Tuples, *, select: Callable[..., WeightEdit], tau: float = TAU, **options: Any
) -> WeightEdit:
    # The tuples are not looked at.
    return select(vlm, tau=tau, **options)


def _by_gradient(
    vlm: Vlm, tuples: Tuples, *, loss: str, text: Kinds = "out", vision: Kinds = "fc2",
    variant: str = "released", **options: Any,
) -> WeightEdit:  # fmt: skip
    scores = gradient_scores(vlm, tuples, loss=loss, variant=variant, text=text, vision=vision)
    return scores.select(**options)


METHODS = {
    "uwm": Method(
        "the paper's: weights by their ratio score, negated", partial(_by_ratio, select=Scores.select),
        (*SCORED, "prior"), VARIANTS,
    ),
    "g-unsafe": Method(
        "weights by the gradient of G-Unsafe's loss, pruned", partial(_by_gradient, loss="g-unsafe"),
        variants=READINGS,
    ),
    "g-safe-clip": Method(
        "weights by the gradient of G-Safe-CLIP's loss, pruned", partial(_by_gradient, loss="g-safe-clip"),
        variants=READINGS,
    ),
    "random": Method(
        "control: weights drawn at random, negated", partial(_untaught, select=select_random),
        ("text", "vision", "tau", "alpha", "seed"),
    ),
    "reversed": Method(
        "control: weights by the reversed ratio, safe over unsafe, negated",
        partial(_by_ratio, select=select_reversed), (*SCORED, "prior"), REVERSIBLE,
    ),
    "magnitude": Method(
        "control: the largest weights, negated", partial(_untaught, select=select_magnitude)
    ),
}  # fmt: skip
