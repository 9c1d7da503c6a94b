"""Every method by its name: from a model and calibration tuples to an edit. `uwm edit` and `uwm ls methods` read it.

A new method costs its own file and a row in `METHODS`, as CONTRIBUTING.md shows.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np

from uwmlib.comparison import SHIFTS, shift_that_keeps
from uwmlib.editing import (
    Scores,
    WeightEdit,
    collect_features,
    fit_safe_shift,
    gradient_scores,
    score,
    select_magnitude,
    select_random,
    select_reversed,
)
from uwmlib.editing.controls import REVERSIBLE
from uwmlib.editing.gradients import VARIANTS as READINGS
from uwmlib.editing.saliency import VARIANTS
from uwmlib.errors import UwmError
from uwmlib.models.vlm import Vlm, require_vlm
from uwmlib.options import ENCODERS, finite_number
from uwmlib.tuples import BenignUses, Tuples
from uwmlib.tuples.tuples import require_tuples

__all__ = ["METHODS", "Method", "safe_shift"]

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


def _by_shift(vlm: Vlm, tuples: Tuples, *, alpha: float = 1.0) -> WeightEdit:
    return fit_safe_shift(vlm, tuples).edit(alpha)


def safe_shift(
    vlm: Vlm,
    tuples: Tuples,
    *,
    validation: Tuples | None = None,
    keep: float = 0.95,
    encoders: str | Sequence[str] = ENCODERS,
    how: str = "closed-form",
    benign: BenignUses | None = None,
    rank: int = 0,
    tolerance: float = 0.5,
    strengths: Sequence[float] = SHIFTS,
    **options: Any,
) -> WeightEdit:
    """Return the strongest safe shift that keeps a share of the model's knowledge.

    Parameters
    ----------
    vlm : Vlm
        As it was before afterwards.
    tuples : Tuples
        To fit the shift on (`uwmlib.editing.fit_safe_shift`).
    validation : Tuples, optional
        To find its strength on, of any split but "test". Without it every fifth of `tuples` is held out for this.
    keep : float in (0, 1)
        Share of the base's knowledge: mean recall@1 of safe pairs.
    encoders, how, benign, rank
        Of the fit.
    tolerance : float
        How far the edit may be from the share, in percent of the base's knowledge (`uwmlib.comparison.at_knowledge`).
    strengths : sequence of float
        Among which the strength is looked for; the search ends behind the first that keeps less.
    **options
        `batch_size`, `progress` and `cache` of the two passes (`uwmlib.editing.collect_features`).

    Returns
    -------
    WeightEdit
        Of one bias an encoder, and with a rank of the projection behind it.

    Raises
    ------
    UwmError
        As `fit_safe_shift` and `edit_that_keeps`, and for fewer than ten tuples without validation ones.

    Examples
    --------
    >>> import uwmlib as uwm
    >>> vlm = uwm.load_model("mini-ViT-L-14")
    >>> tuples = uwm.load_tuples("mini-visu", split="train", n=200)
    >>> edit = uwm.safe_shift(vlm, tuples, keep=0.8, tolerance=3)
    >>> edit.n_weights  # two biases, of 96 and 128
    224
    """
    require_vlm(vlm)
    require_tuples(tuples)
    fit, held_out = (tuples, validation) if validation is not None else _held_out(tuples)
    fitted = {"encoders": encoders, "how": how, "rank": rank, "benign": benign}
    shift = fit_safe_shift(vlm, fit, **fitted, **{"progress": False} | options)
    features = collect_features(vlm, held_out, **options)
    search = {"strengths": strengths, "tolerance": tolerance}
    found = shift_that_keeps(shift, 100 * finite_number(keep, "keep"), features, **search)
    if found.strength is None:
        raise UwmError(f"{found.reason}: ask for another share.")
    return shift.edit(found.strength)


def _held_out(tuples: Tuples) -> tuple[Tuples, Tuples]:
    """Return four fifths of tuples to fit on, and the others."""
    if len(tuples) < 10:
        raise UwmError(f"Of {len(tuples)} tuples none can be held out: give at least 10, or validation ones.")
    last = np.arange(len(tuples)) % 5 == 4
    return tuples[~last], tuples[last]


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
    "safe-shift": Method("one vector an encoder that leans every query to the safe side", _by_shift, ("alpha",)),
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
