"""From scores to an edit: which of the scored sites, and in each of them the top weights."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch

from uwmlib.editing.changes import Scaling, check_alpha
from uwmlib.editing.selection import RULES, check_tau, select
from uwmlib.editing.weight_edit import WeightEdit, as_facts, require_base
from uwmlib.errors import UwmError
from uwmlib.metrics.tensors import as_tensor
from uwmlib.models.sites import KINDS, Site, require_sites
from uwmlib.models.vlm import Vlm, require_vlm
from uwmlib.options import ENCODERS, as_list, known, numbers, per_encoder


def choose_weights(
    vlm: Vlm,
    sites: Sequence[Site],
    score_of: Callable[[Site], torch.Tensor],
    *,
    base_hashes: Mapping[str, str],
    tau: float | Mapping[str, float],
    alpha: float | Mapping[str, float],
    rule: str | Mapping[str, str],
    text: str | Sequence[str] | None = "all",
    vision: str | Sequence[str] | None = "all",
    description: Mapping[str, Any] | None = None,
) -> WeightEdit:
    """Scale the top weights of every chosen site by alpha (Eq. 11), whatever scored them.

    Parameters
    ----------
    vlm : Vlm
    sites : sequence of Site
        The scored ones.
    score_of : callable (Site) -> Tensor [out, in]
        One score per weight; asked site by site, so that one of them is held at a time.
    base_hashes : mapping of str to str
        Parameter name -> `parameter_hash` of the weights that were scored.
    tau, alpha, rule, text, vision
        See `Scores.select`.
    description : mapping, optional
        Facts to keep besides the model's name, the sites, tau and the rule.

    Raises
    ------
    UwmError
        For tau outside (0, 1), an unknown rule, an infinite alpha, kinds that were not scored, no site at all, live
        weights that are not those that were scored, or scores that do not fit or cannot be ordered.

    Examples
    --------
    Pruning by magnitude: the smallest tenth of each layer becomes 0.

    >>> import uwmlib as uwm
    >>> from uwmlib.editing import choose_weights
    >>> from uwmlib.editing.weight_edit import parameter_hash
    >>> vlm = uwm.load_model("mini-ViT-L-14")
    >>> sites = vlm.sites(vision="fc2")
    >>> names = [site.parameter for site in sites]
    >>> edit = choose_weights(
    ...     vlm,
    ...     sites,
    ...     lambda site: -vlm.weight(site).abs(),
    ...     base_hashes={name: parameter_hash(vlm, name) for name in names},
    ...     tau=0.1,
    ...     alpha=0,
    ...     rule="fixed",
    ... )
    >>> print(f"{edit.share()['vision']:.1%}")
    10.0%
    """
    tau_of, alpha_of, rule_of = _checked(tau, alpha, rule)
    require_vlm(vlm)
    facts = as_facts(description or {})
    if not isinstance(base_hashes, Mapping):
        raise UwmError(
            "There are no base hashes: give the parameter_hash of each scored parameter by its name."
        )
    chosen = choose_sites(sites, text=text, vision=vision)
    for site in chosen:
        if site.parameter not in base_hashes:
            raise UwmError(f"There is no base hash of {site.parameter}: give that of each scored parameter.")
        require_base(vlm, site.parameter, base_hashes[site.parameter])
    changes: dict[str, Scaling] = {}
    for site in chosen:
        if site.parameter in changes:
            raise UwmError(f"Parameter {site.parameter} is scored twice: give every site once.")
        score = as_tensor(f"The score of {site.name}", score_of(site))
        if score.shape != vlm.weight(site).shape:
            raise UwmError(f"{site.name} does not have one score per weight: give [out, in] scores.")
        first_row = site.rows[0] if site.rows else 0
        indices = select(score, tau_of[site.encoder], rule=rule_of[site.encoder])
        changes[site.parameter] = Scaling(
            encoder=site.encoder,
            base_hash=base_hashes[site.parameter],
            shape=tuple(vlm.model.get_parameter(site.parameter).shape),
            indices=(indices + first_row * score.shape[1]).cpu(),
            alpha=float(alpha_of[site.encoder]),
            candidates=score.numel(),
        )
    facts |= {
        "model": vlm.name,
        "sites": [site.name for site in chosen],
        "tau": numbers(tau, "tau"),
        "rule": rule,
    }
    return WeightEdit(changes, facts)


def choose_sites(
    sites: Sequence[Site], *, text: str | Sequence[str] | None, vision: str | Sequence[str] | None
) -> list[Site]:
    """Keep the sites of the wanted kinds.

    Parameters
    ----------
    sites : sequence of Site
    text, vision : "all", kind, list of kinds, or None
        None leaves the encoder out.

    Raises
    ------
    UwmError
        If a kind is not among the sites, no site is left, or one is of a language model.
    """
    sites = require_sites(sites)
    if other := next((site for site in sites if site.encoder not in ENCODERS), None):
        raise UwmError(
            f"{other.name} is in neither encoder: select there yourself, and use gate_edit or delta_edit."
        )
    chosen = []
    for encoder, wanted in (("text", text), ("vision", vision)):
        of_encoder = [site for site in sites if site.encoder == encoder]
        scored = list(dict.fromkeys(site.kind for site in of_encoder))
        kinds = scored if wanted == "all" else as_list(wanted)
        for kind in kinds:
            known(kind, KINDS, f"kind of {encoder} site")
            if kind not in scored:
                raise UwmError(
                    f"No {encoder} sites of kind {kind!r} were scored: score with {encoder}={kind!r}."
                )
        chosen += [site for site in of_encoder if site.kind in kinds]
    if not chosen:
        raise UwmError("No site is left to select from: give text=..., vision=... or both.")
    return chosen


def _checked(tau: Any, alpha: Any, rule: Any) -> tuple[dict[str, float], dict[str, float], dict[str, str]]:
    """Return the three options per encoder."""
    taus, alphas, rules = per_encoder(tau, "tau"), per_encoder(alpha, "alpha"), per_encoder(rule, "rule")
    for name in rules.values():
        known(name, RULES, "selection rule")
    for share in taus.values():
        check_tau(share)
    for factor in alphas.values():
        check_alpha(factor)
    return taus, alphas, rules
