"""Edits that know nothing of safety, or the opposite of it: what a method has to beat at equal knowledge."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch

from uwmlib.editing.changes import Scaling
from uwmlib.editing.choice import choose_weights
from uwmlib.editing.saliency import combine
from uwmlib.editing.scores import Scores, encoders_with_prior
from uwmlib.editing.weight_edit import WeightEdit, parameter_hash
from uwmlib.errors import UwmError
from uwmlib.models.sites import KINDS, Site
from uwmlib.models.vlm import Vlm, require_vlm
from uwmlib.options import known, whole_number
from uwmlib.tuples.loading import LARGEST_SEED

REVERSIBLE = ("released", "paper")  #: variants of the score that are ratios


def select_random(
    vlm: Vlm,
    *,
    tau: float | Mapping[str, float],
    alpha: float | Mapping[str, float] = -1.0,
    text: str | Sequence[str] | None = "out",
    vision: str | Sequence[str] | None = "fc2",
    seed: int = 0,
) -> WeightEdit:
    """Select the share tau of every layer's weights at random.

    Each weight has a random number, which depends on the seed, the parameter's name and the shape alone and is the
    same on every machine; the largest are selected. So of one seed a weaker edit is part of a stronger one.

    Parameters
    ----------
    vlm : Vlm
    tau : float in (0, 1), or mapping of encoder to float
        Share of a layer's weights.
    alpha : float, or mapping of encoder to float
        Factor of the selected weights.
    text, vision : kind, list of kinds, or None
        As in `score`; None leaves the encoder out.
    seed : int
        From 0 to 2^64 - 1.

    Raises
    ------
    UwmError
        As `Scores.select`, and for a seed out of range.

    Examples
    --------
    >>> import uwmlib as uwm
    >>> from uwmlib.editing import select_random
    >>> vlm = uwm.load_model("mini-ViT-L-14")
    >>> select_random(vlm, tau=0.25, vision=None, seed=1).share()
    {'text': 0.25}
    """
    seed = whole_number(seed, "seed", least=0, most=LARGEST_SEED)

    def score_of(site: Site) -> torch.Tensor:
        return _random_score(site.parameter, vlm.weight(site).shape, seed)

    facts = {"method": "random", "seed": seed}
    return _choose(vlm, score_of, tau=tau, alpha=alpha, rule="fixed", text=text, vision=vision, facts=facts)


def random_like(vlm: Vlm, edit: WeightEdit, *, seed: int = 0) -> WeightEdit:
    """Scale as many weights of the same layers by the same factors as `edit` does, but weights drawn at random.

    The numbers behind the draw are those of `select_random`.

    Parameters
    ----------
    vlm : Vlm
        The model that `edit` is for.
    edit : WeightEdit
        All of its changes scale chosen weights.
    seed : int
        From 0 to 2^64 - 1.

    Raises
    ------
    UwmError
        If a change is of another kind or its parameter is no scored layer of `vlm`, or for a seed out of range.

    Examples
    --------
    >>> import uwmlib as uwm
    >>> from uwmlib.editing import random_like
    >>> vlm = uwm.load_model("mini-ViT-L-14")
    >>> tuples = uwm.load_tuples("mini-visu", split="train", n=8)
    >>> edit = uwm.score(vlm, tuples, progress=False).select(tau=0.02)
    >>> random_like(vlm, edit, seed=1).share() == edit.share()
    True
    """
    require_vlm(vlm)
    seed = whole_number(seed, "seed", least=0, most=LARGEST_SEED)
    if not all(isinstance(change, Scaling) for change in edit.changes.values()):
        raise UwmError(
            "Only an edit that scales chosen weights has a random twin: give one that `select` made."
        )
    encoders = {change.encoder: KINDS for change in edit.changes.values()}
    sites = {site.parameter: site for site in vlm.sites(**encoders)}
    changes = {}
    for name, change in edit.changes.items():
        site = sites.get(name)
        if site is None or vlm.weight(site).numel() != change.candidates:
            raise UwmError(
                f"{vlm.name} has no scored layer {name} of that size: this edit is for another model."
            )
        shape, first_row = vlm.weight(site).shape, site.rows[0] if site.rows else 0
        order = _random_score(name, shape, seed).flatten().argsort(descending=True, stable=True)
        drawn = order[: change.n_weights].sort().values + first_row * shape[1]
        changes[name] = replace(change, indices=drawn)
    return WeightEdit(changes, {"method": "random", "seed": seed, "like": edit.description})


def select_magnitude(
    vlm: Vlm,
    *,
    tau: float | Mapping[str, float],
    alpha: float | Mapping[str, float] = -1.0,
    rule: str | Mapping[str, str] = "adaptive",
    text: str | Sequence[str] | None = "out",
    vision: str | Sequence[str] | None = "fc2",
) -> WeightEdit:
    """Select the largest weights of every layer: the score is |W|.

    Parameters
    ----------
    vlm : Vlm
    tau, alpha, rule
        See `Scores.select`.
    text, vision : kind, list of kinds, or None
        As in `score`; None leaves the encoder out.

    Raises
    ------
    UwmError
        As `Scores.select`.

    Examples
    --------
    The largest weights that hold a quarter of a layer's magnitude are fewer
    than a quarter of its weights:

    >>> import uwmlib as uwm
    >>> from uwmlib.editing import select_magnitude
    >>> vlm = uwm.load_model("mini-ViT-L-14")
    >>> edit = select_magnitude(vlm, tau=0.25, text=None)
    >>> 0 < edit.share()["vision"] < 0.25
    True
    """

    def score_of(site: Site) -> torch.Tensor:
        return vlm.weight(site).detach().abs().float()

    facts = {"method": "magnitude"}
    return _choose(vlm, score_of, tau=tau, alpha=alpha, rule=rule, text=text, vision=vision, facts=facts)


def select_reversed(
    scores: Scores,
    *,
    tau: float | Mapping[str, float],
    alpha: float | Mapping[str, float] = -1.0,
    variant: str = "released",
    rule: str | Mapping[str, str] = "adaptive",
    prior: str | Sequence[str] = ("text",),
    text: str | Sequence[str] | None = "all",
    vision: str | Sequence[str] | None = "all",
) -> WeightEdit:
    """Select by the ratio turned round, safe over unsafe: the weights that UWM would take last.

    The score is 1 / s where UWM's is s, and |W| / s where UWM's is s |W|: the prior says how much a weight does,
    not for whom, and keeps its side.

    Parameters
    ----------
    scores : Scores
    variant : "released" or "paper"
        Which of the two ratios is s.
    tau, alpha, rule, prior, text, vision
        See `Scores.select`.

    Raises
    ------
    UwmError
        As `Scores.select`, and for a variant that is no ratio.

    Examples
    --------
    UWM and its reverse share no weight where each takes a quarter:

    >>> import uwmlib as uwm
    >>> from uwmlib.editing import select_reversed
    >>> vlm = uwm.load_model("mini-ViT-L-14")
    >>> tuples = uwm.load_tuples("mini-visu", split="train", n=8)
    >>> scores = uwm.score(vlm, tuples, text=None, progress=False)
    >>> options = {"tau": 0.25, "rule": "fixed"}
    >>> there = scores.select(**options).changes
    >>> back = select_reversed(scores, **options).changes
    >>> chosen = [set(edit[name].indices.tolist()) for edit in (there, back)
    ...           for name in there]
    >>> [len(a & b) for a, b in zip(chosen[:4], chosen[4:])]
    [0, 0, 0, 0]
    """
    known(variant, REVERSIBLE, "variant that is a ratio,")
    priors = list(encoders_with_prior(prior))

    def score_of(site: Site) -> torch.Tensor:
        magnitude = scores.vlm.weight(site).detach().abs().float()
        turned = 1 / combine(scores.sums[site.name], scores.n, magnitude, variant=variant, prior=False)
        return turned * magnitude if site.encoder in priors else turned

    facts = {"tuples": scores.provenance["tuples"], "n": scores.n, "variant": variant, "prior": priors}
    return choose_weights(
        scores.vlm,
        scores.sites,
        score_of,
        base_hashes=scores.base_hashes,
        tau=tau,
        alpha=alpha,
        rule=rule,
        text=text,
        vision=vision,
        description={"method": "reversed", **facts},
    )


def _random_score(parameter: str, shape: Sequence[int], seed: int) -> torch.Tensor:
    """Return a random whole number below 2^53 for every weight, as float64 [out, in].

    They are raw words of Philox, the one stream that NumPy promises never to change.
    """
    shape = tuple(shape)
    digest = hashlib.sha256(f"{seed}|{parameter}|{shape}".encode()).digest()
    words = np.random.Philox(key=int.from_bytes(digest[:16], "little")).random_raw(math.prod(shape))
    return torch.from_numpy((words >> np.uint64(11)).astype(np.float64)).view(shape)


def _choose(
    vlm: Vlm,
    score_of: Callable[[Site], torch.Tensor],
    *,
    text: str | Sequence[str] | None,
    vision: str | Sequence[str] | None,
    facts: Mapping[str, Any],
    **options: Any,
) -> WeightEdit:
    """Select by a score that needs no calibration, in all layers of these kinds."""
    require_vlm(vlm)
    sites = vlm.sites(text=text, vision=vision)
    hashes = {site.parameter: parameter_hash(vlm, site.parameter) for site in sites}
    return choose_weights(vlm, sites, score_of, base_hashes=hashes, description=facts, **options)
