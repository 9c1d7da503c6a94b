"""Whole input neurons in place of single weights: UWM's score summed over a neuron's weights."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch

from uwmlib.editing.changes import check_alpha
from uwmlib.editing.choice import choose_sites
from uwmlib.editing.gates import gate_edit
from uwmlib.editing.scores import Scores
from uwmlib.editing.selection import select
from uwmlib.editing.weight_edit import WeightEdit
from uwmlib.models.sites import Site
from uwmlib.options import per_encoder


def select_neurons(
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
    """Multiply the input neurons with the largest score of all their weights together by alpha, layer by layer.

    The score of neuron i is the sum over j of UWM's score of W_ji; the rule that selects weights selects neurons.

    Parameters
    ----------
    scores : Scores
    tau, alpha, variant, rule, prior, text, vision
        See `Scores.select`; tau is the share of a layer's score that the selected neurons hold, or with the fixed rule
        the share of its neurons.

    Returns
    -------
    WeightEdit
        Of gates.

    Raises
    ------
    UwmError
        As `Scores.select`.

    Examples
    --------
    >>> import uwmlib as uwm
    >>> from uwmlib.editing import select_neurons
    >>> vlm = uwm.load_model("mini-ViT-L-14")
    >>> tuples = uwm.load_tuples("mini-visu", split="train", n=8)
    >>> scores = uwm.score(vlm, tuples, progress=False)
    >>> edit = select_neurons(scores, tau=0.25, rule="fixed", text=None)
    >>> edit.share()
    {'vision': 0.25}
    """
    taus, alphas, rules = per_encoder(tau, "tau"), per_encoder(alpha, "alpha"), per_encoder(rule, "rule")
    gates: dict[Site, torch.Tensor] = {}
    for site in choose_sites(scores.sites, text=text, vision=vision):
        factor = alphas[site.encoder]
        check_alpha(factor)
        of_weights = scores.score_of(site.name, variant=variant, prior=prior)
        chosen = select(of_weights.sum(dim=0), taus[site.encoder], rule=rules[site.encoder])
        gates[site] = torch.ones(of_weights.shape[1])
        gates[site][chosen.cpu()] = float(factor)
    return gate_edit(
        scores.vlm,
        gates,
        description={
            "method": "neurons",
            "tuples": scores.provenance["tuples"],
            "n": scores.n,
            "variant": variant,
            "tau": taus,
            "rule": rules,
        },
    )
