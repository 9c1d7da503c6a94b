"""Edits that gate whole neurons: one factor for each input of a product."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch

from uwmlib.editing.changes import Gates, about, own
from uwmlib.editing.weight_edit import WeightEdit, as_facts, parameter_hash
from uwmlib.errors import UwmError
from uwmlib.models.sites import Site
from uwmlib.models.vlm import Vlm, require_vlm


def gate_edit(
    vlm: Vlm, gates: Mapping[Site, torch.Tensor], *, description: Mapping[str, Any] | None = None
) -> WeightEdit:
    """Multiply the input z of products z @ W.T by one factor for each neuron: W diag(g) in place of W.

    To try gates without changing weights, return `z * g` from the observer of `Vlm.capture`.

    Parameters
    ----------
    vlm : Vlm
        The base; the edit is refused on any other. Not changed.
    gates : mapping of Site to FloatTensor [in]
        1 leaves a neuron as it is, 0 silences it, -1 negates it.
    description : mapping, optional
        JSON-able facts about how the gates came about.

    Returns
    -------
    WeightEdit

    Raises
    ------
    UwmError
        For no gates at all, a site of another model, factors that do not fit or are not finite, a parameter that is
        gated twice, or a description that JSON cannot hold.

    Examples
    --------
    Half of the first block's neurons are silenced:

    >>> import torch
    >>> import uwmlib as uwm
    >>> from uwmlib.editing import gate_edit
    >>> vlm = uwm.load_model("mini-ViT-L-14")
    >>> site = vlm.sites(vision="fc2")[0]
    >>> gates = torch.ones(vlm.weight(site).shape[1])
    >>> gates[::2] = 0
    >>> gate_edit(vlm, {site: gates}).share()
    {'vision': 0.5}
    """
    require_vlm(vlm)
    given = as_facts(description or {})
    if not isinstance(gates, Mapping) or not gates:
        raise UwmError("There is nothing to gate: give the gates of each site, as {site: gates}.")
    changes: dict[str, Gates] = {}
    for site, factors in gates.items():
        vlm.weight(site)  # raises for another model's
        if site.parameter in changes:
            raise UwmError(f"Parameter {site.parameter} is gated twice: give every site once.")
        with about(site.parameter):
            changes[site.parameter] = Gates(
                encoder=site.encoder,
                base_hash=parameter_hash(vlm, site.parameter),
                shape=tuple(vlm.model.get_parameter(site.parameter).shape),
                factors=own("The gates", factors),
                rows=site.rows,
            )
    facts = {"model": vlm.name, "sites": [site.name for site in gates]}
    return WeightEdit(changes, facts | given)
