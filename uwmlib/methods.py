"""Every method by its name: from a model and calibration tuples to an edit. `uwm edit` and `uwm ls methods` read it.

A new method costs its own file and a row in `METHODS`, as CONTRIBUTING.md shows; a row in `FAMILIES` makes it a curve
over its strength, to be held beside the others at equal knowledge.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np

from uwmlib.cache import Cache
from uwmlib.comparison import SHIFTS, STRENGTHS, shift_that_keeps
from uwmlib.editing import (
    Scores,
    WeightEdit,
    collect_features,
    fit_dampening,
    fit_gated_negation,
    fit_leace,
    fit_null_space,
    fit_safe_shift,
    fit_set_difference,
    gradient_scores,
    score,
    select_magnitude,
    select_random,
    select_reversed,
    single_tokens,
    unsafe_words,
    word_list_edit,
)
from uwmlib.editing.controls import REVERSIBLE
from uwmlib.editing.dampening import ALPHA
from uwmlib.editing.gradients import VARIANTS as READINGS
from uwmlib.editing.saliency import VARIANTS
from uwmlib.errors import UwmError
from uwmlib.models.sites import KINDS
from uwmlib.models.vlm import Vlm, require_vlm
from uwmlib.options import ENCODERS, finite_number
from uwmlib.training import fit_task_vector
from uwmlib.tuples import BenignUses, Tuples
from uwmlib.tuples.tuples import require_tuples

__all__ = ["FAMILIES", "METHODS", "Method", "MethodFamily", "safe_shift"]

Kinds = str | Sequence[str] | None
# What methods that score weights take besides variants.
SCORED = ("text", "vision", "tau", "alpha", "rule")
TAU = 0.02  #: the paper's
Q = 0.1  #: share that a set difference takes on unsafe pairs, as in the public code's example
SHARE = 0.9  #: of the captions with a word on the list, those that are unsafe


# Ladders of the strengths of families, by what the strength is.
SHARES = (0.0025, 0.005, 0.01, 0.02, 0.04, 0.08, 0.16)  #: of neurons
DAMPENED = (0.1, 0.3, 0.5, 0.7, 0.85, 1.0, 1.3, 2.0)  #: 1 / alpha
QS = (0.05, 0.1, 0.15, 0.2, 0.3, 0.4)
ERASED = (0.125, 0.25, 0.5, 0.75, 1.0, 1.25, 1.5, 2.0)
TASKS = (0.05, 0.1, 0.2, 0.4, 0.8, 1.6)  #: lambda
LISTED = (0.125, 0.25, 0.5, 0.75, 0.9, 1.0)


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


def _by_fit(vlm: Vlm, tuples: Tuples, *, fit: Callable[..., Any], alpha: float = 1.0) -> WeightEdit:
    return fit(vlm, tuples).edit(alpha)


def _by_gates(
    vlm: Vlm, tuples: Tuples, *, text: Kinds = "out", vision: Kinds = "fc2", tau: float = TAU
) -> WeightEdit:
    return fit_gated_negation(vlm, tuples, text=text, vision=vision).edit(tau)


def _by_dampening(vlm: Vlm, tuples: Tuples, *, alpha: float = ALPHA) -> WeightEdit:
    if not finite_number(alpha, "alpha") > 0:
        raise UwmError(f"alpha is {alpha:g}: give how many times more a weight must matter to unsafe pairs.")
    return fit_dampening(vlm, tuples).edit(1 / alpha)


def _by_difference(
    vlm: Vlm, tuples: Tuples, *, score: str, text: Kinds = KINDS, vision: Kinds = KINDS, tau: float = Q,
    alpha: float = 0.0,
) -> WeightEdit:  # fmt: skip
    return fit_set_difference(vlm, tuples, score=score, text=text, vision=vision).edit(tau, alpha=alpha)


def _by_words(vlm: Vlm, tuples: Tuples, *, alpha: float = 0.0) -> WeightEdit:
    return word_list_edit(vlm, _words(vlm, tuples), strength=1 - alpha)


def _words(vlm: Vlm, tuples: Tuples) -> list[str]:
    """Return the concepts that are single tokens; of tuples without such, words that unsafe captions alone hold."""
    concepts = sorted({concept for concept in tuples.concepts if concept})
    return list(single_tokens(vlm, concepts)) or list(single_tokens(vlm, unsafe_words(tuples, share=SHARE)))


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
    "safe-shift": Method(
        "one vector an encoder that leans every query to the safe side",
        partial(_by_fit, fit=fit_safe_shift), ("alpha",),
    ),
    "gated-negation": Method(
        "neurons that lean to the unsafe side, for the knowledge that hangs on them, negated", _by_gates,
        ("text", "vision", "tau"),
    ),
    "ssd": Method("weights that unsafe pairs need more, dampened (SSD)", _by_dampening, ("alpha",)),
    "snip": Method(
        "weights that unsafe pairs need and safe ones do not, by weight times gradient, removed",
        partial(_by_difference, score="snip"), ("text", "vision", "tau", "alpha"),
    ),
    "wanda": Method(
        "weights that unsafe pairs need and safe ones do not, by weight times input, removed",
        partial(_by_difference, score="wanda"), ("text", "vision", "tau", "alpha"),
    ),
    "leace": Method(
        "what a linear probe tells unsafe embeddings by, erased", partial(_by_fit, fit=fit_leace), ("alpha",)
    ),
    "null-space": Method(
        "directions of unsafe captions, projected out", partial(_by_fit, fit=fit_null_space), ("alpha",)
    ),
    "task-vector": Method(
        "what fine-tuning on unsafe pairs adds, taken away", partial(_by_fit, fit=fit_task_vector), ("alpha",)
    ),
    "word-list": Method("token embeddings of unsafe words, zeroed", _by_words, ("alpha",)),
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

EditAt = Callable[[float], WeightEdit]


@dataclass(frozen=True)
class MethodFamily:
    """A method as a curve: what is costly is done once, then every strength has its edit.

    Attributes
    ----------
    strength : str
        What the strength is. A weak one changes next to nothing.
    strengths : tuple of float
        Ascending; from one that costs little to one that costs much on mini-ViT-L-14.
    fit : callable (Vlm, Tuples, cache=..., progress=...) -> callable (float) -> WeightEdit
        The tuples are those of calibration; a cache is used by those that pass over them once for several methods.

    Examples
    --------
    >>> import uwmlib as uwm
    >>> from uwmlib.methods import FAMILIES
    >>> vlm = uwm.load_model("mini-ViT-L-14")
    >>> tuples = uwm.load_tuples("mini-visu", split="train", n=50)
    >>> family = FAMILIES["leace"]
    >>> edit_at = family.fit(vlm, tuples, progress=False)
    >>> edits = [edit_at(strength) for strength in family.strengths]
    >>> edits[0].description["strength"]
    {'text': 0.125, 'vision': 0.125}
    """

    strength: str
    strengths: tuple[float, ...]
    fit: Callable[..., EditAt]


def _scored(
    vlm: Vlm, tuples: Tuples, *, cache: Cache | None = None, progress: bool = True,
    select: Callable[..., WeightEdit], **options: Any,
) -> EditAt:  # fmt: skip
    scores = score(vlm, tuples, text="out", vision="fc2", cache=cache, progress=progress)
    return lambda tau: select(scores, tau=tau, **options)


def _graded(
    vlm: Vlm, tuples: Tuples, *, cache: Cache | None = None, progress: bool = True, loss: str
) -> EditAt:
    scores = gradient_scores(vlm, tuples, loss=loss, cache=cache, progress=progress)
    return lambda tau: scores.select(tau=tau)


def _unfitted(
    vlm: Vlm, tuples: Tuples, *, cache: Cache | None = None, progress: bool = True,
    edit: Callable[..., WeightEdit], **options: Any,
) -> EditAt:  # fmt: skip
    return lambda tau: edit(vlm, tau=tau, **options)


def _fitted(
    vlm: Vlm, tuples: Tuples, *, cache: Cache | None = None, progress: bool = True,
    by: Callable[..., Any], options: Mapping[str, Any] | None = None, **at: Any,
) -> EditAt:  # fmt: skip
    found = by(vlm, tuples, progress=progress, **(options or {}))
    return lambda strength: found.edit(strength, **at)


def _listed(vlm: Vlm, tuples: Tuples, *, cache: Cache | None = None, progress: bool = True) -> EditAt:
    words = _words(vlm, tuples)
    return lambda strength: word_list_edit(vlm, words, strength=strength)


def _difference(score: str, alpha: float) -> Callable[..., EditAt]:
    return partial(_fitted, by=fit_set_difference, options={"score": score}, alpha=alpha)


#: Each method of `METHODS` as a curve, and variants of some: what a tournament at equal knowledge goes through.
FAMILIES = {
    "uwm": MethodFamily("tau", STRENGTHS, partial(_scored, select=Scores.select)),
    "uwm-printed": MethodFamily("tau", STRENGTHS, partial(_scored, select=Scores.select, variant="paper")),
    "g-unsafe": MethodFamily("tau, pruned", STRENGTHS, partial(_graded, loss="g-unsafe")),
    "g-safe-clip": MethodFamily("tau, pruned", STRENGTHS, partial(_graded, loss="g-safe-clip")),
    "safe-shift": MethodFamily("alpha", SHIFTS, partial(_fitted, by=fit_safe_shift)),
    "gated-negation": MethodFamily(
        "share of an encoder's neurons", SHARES, partial(_fitted, by=fit_gated_negation)
    ),
    "ssd": MethodFamily("1 / alpha", DAMPENED, partial(_fitted, by=fit_dampening)),
    "snip": MethodFamily("q, removed", QS, _difference("snip", 0.0)),
    "snip-negated": MethodFamily("q, negated", QS, _difference("snip", -1.0)),
    "wanda": MethodFamily("q, removed", QS, _difference("wanda", 0.0)),
    "wanda-negated": MethodFamily("q, negated", QS, _difference("wanda", -1.0)),
    "leace": MethodFamily("s, 1 for LEACE", ERASED, partial(_fitted, by=fit_leace)),
    "null-space": MethodFamily("a, 1 to forget", ERASED, partial(_fitted, by=fit_null_space)),
    "task-vector": MethodFamily("lambda", TASKS, partial(_fitted, by=fit_task_vector)),
    "word-list": MethodFamily("1 less the factor of a word's row", LISTED, _listed),
    "random": MethodFamily("tau", STRENGTHS, partial(_unfitted, edit=select_random)),
    "reversed": MethodFamily("tau", STRENGTHS, partial(_scored, select=select_reversed)),
    "magnitude": MethodFamily("tau", STRENGTHS, partial(_unfitted, edit=select_magnitude)),
}
