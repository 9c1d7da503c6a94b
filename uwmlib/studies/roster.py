"""Who takes part in a tournament: every method as a curve, with the ladder of its strengths."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import replace
from functools import partial
from typing import Any

from uwmlib.cache import Cache
from uwmlib.comparison.controls import EditAt
from uwmlib.editing import (
    fit_leace,
    fit_null_space,
    fit_safe_shift,
    interpolation_edit,
    select_random,
)
from uwmlib.methods import FAMILIES, MethodFamily
from uwmlib.models import Vlm
from uwmlib.options import known
from uwmlib.tuples import BenignUses, Tuples

N_DRAWS = 3  #: of random weights, at each strength
#: Of strengths that are a share of weights.
SHARES = (0.0025, 0.005, 0.01, 0.02, 0.04, 0.08, 0.16, 0.32)
# Where a ladder is not that of the family: longer than a curve needs, or not fine enough at its weak end.
LADDERS = {
    "leace": (0.25, 0.5, 1.0, 2.0), "null-space": (0.125, 0.25, 0.5, 1.0, 2.0), "word-list": (0.25, 0.5, 0.9, 1.0),
    "safe-shift": (0.2, 0.4, 0.8, 1.6, 3.2), "ssd": (0.1, 0.3, 0.5, 0.7, 1.0, 1.3, 2.0),
    "task-vector": (0.1, 0.2, 0.4, 0.8, 1.6), "gated-negation": (0.0006, 0.0012, 0.0025, 0.005, 0.01, 0.02, 0.04),
    **dict.fromkeys(("snip", "wanda", "snip-negated", "wanda-negated"), (0.0125, 0.025, 0.05, 0.1, 0.2, 0.4)),
    **dict.fromkeys(("uwm", "uwm-printed", "g-unsafe", "g-safe-clip", "random", "reversed", "magnitude"), SHARES),
}  # fmt: skip
#: Name -> its kind, and what is done in a few words.
ENTRANTS = {
    "safe-shift": ("lean", "one vector an encoder, closed form"),
    "safe-shift-fitted": ("lean", "one vector an encoder, by a loss"),
    "safe-shift-map": ("lean", "a map of rank 4, benign uses in the fit"),
    "leace": ("erase", "what a linear probe reads"),
    "null-space": ("erase", "leading directions of unsafe captions"),
    "word-list": ("erase", "token embeddings of listed words"),
    "uwm": ("cut", "weights by the ratio score, negated"),
    "uwm-printed": ("cut", "the same, the score as printed"),
    "gated-negation": ("cut", "input neurons, negated"),
    "ssd": ("cut", "weights that unsafe pairs need more, dampened"),
    "g-unsafe": ("cut", "weights by a gradient, pruned"),
    "g-safe-clip": ("cut", "weights by another gradient, pruned"),
    "snip": ("cut", "set difference by weight times gradient, removed"),
    "snip-negated": ("cut", "the same, negated"),
    "wanda": ("cut", "set difference by weight times input, removed"),
    "wanda-negated": ("cut", "the same, negated"),
    "task-vector": ("train", "fine-tuning on unsafe pairs, taken away"),
    "wise-ft": ("train", "weights on the way to Safe-CLIP"),
    "safe-clip": ("train", "Safe-CLIP itself"),
    "random": ("control", "random weights, negated"),
    "reversed": ("control", "weights by the reversed ratio, negated"),
    "magnitude": ("control", "the largest weights, negated"),
}
FITTED = (0.2, 0.4, 0.8, 1.6)  #: of shifts that a loss was minimised for
MIXED = (0.2, 0.4, 0.6, 0.8, 1.0)  #: of weights between a model's and its Safe-CLIP's


def entrants(
    *, benign: BenignUses | None = None, safe: Vlm | None = None, names: Iterable[str] = ()
) -> dict[str, MethodFamily]:
    """Return who takes part: the families, the fitted shifts, and the way to a Safe-CLIP where there is one.

    Parameters
    ----------
    benign : BenignUses, optional
        Of the split "train", for the shift that is a map; without it that does not take part.
    safe : Vlm, optional
        The model's Safe-CLIP, for WiSE-FT.
    names : iterable of str
        Some of them; all for none.

    Raises
    ------
    UwmError
        For a name that takes no part.

    Examples
    --------
    >>> from uwmlib.studies import entrants
    >>> found = entrants(names=["uwm", "safe-shift"])
    >>> found["uwm"].strengths
    (0.0025, 0.005, 0.01, 0.02, 0.04, 0.08, 0.16, 0.32)
    >>> len(entrants())
    19
    """
    found = {
        name: replace(family, strengths=LADDERS.get(name, family.strengths))
        for name, family in FAMILIES.items()
    }
    heads = {
        "safe-shift": fit_safe_shift, "safe-shift-fitted": partial(fit_safe_shift, how="fitted"),
        "leace": fit_leace, "null-space": fit_null_space,
    }  # fmt: skip
    if benign is not None:
        heads["safe-shift-map"] = partial(fit_safe_shift, how="fitted", rank=4, benign=benign)
    for name, fit in heads.items():
        found[name] = MethodFamily(
            FAMILIES[name].strength if name in FAMILIES else "alpha",
            LADDERS.get(name, FITTED), partial(_fitted, fit=fit),
        )  # fmt: skip
    found["random"] = replace(found["random"], fit=_drawn)
    if safe is not None:
        found["wise-ft"] = MethodFamily("a, 1 for Safe-CLIP", MIXED, partial(_mixed, safe=safe))
    return {known(name, found, "entrant"): found[name] for name in names} or found


def _fitted(
    vlm: Vlm, tuples: Tuples, *, cache: Cache | None = None, progress: bool = True, fit: Callable[..., Any]
) -> EditAt:
    # The method of an object with `changes`, by which `_measure` knows that no pass of the model is needed.
    return fit(vlm, tuples, progress=progress).edit


def _drawn(vlm: Vlm, tuples: Tuples, *, cache: Cache | None = None, progress: bool = True) -> EditAt:
    return lambda tau: [select_random(vlm, tau=tau, seed=seed) for seed in range(N_DRAWS)]


def _mixed(
    vlm: Vlm, tuples: Tuples, *, cache: Cache | None = None, progress: bool = True, safe: Vlm
) -> EditAt:
    return partial(interpolation_edit, vlm, safe)
