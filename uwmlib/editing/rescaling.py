"""Edits that change no answer: an input channel of a product made larger, and its weights smaller."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import nn

from uwmlib.editing.changes import Scaling
from uwmlib.editing.weight_edit import WeightEdit, parameter_hash
from uwmlib.errors import UwmError
from uwmlib.models.sites import Site, find_blocks, find_sites
from uwmlib.models.vlm import Vlm, require_vlm
from uwmlib.options import finite_number, shown, whole_number


def rescaling_edit(vlm: Vlm, channels: Mapping[Site, Sequence[int]], *, factor: float) -> WeightEdit:
    """Multiply input channels of products by a factor and their weights by its inverse: W z = (W D^-1)(D z).

    It plants outlier channels without changing what the model computes. The input of "out" is a linear map of what
    the value projection puts out, whose rows grow; that of "fc1" is a LayerNorm, whose gain and bias grow. With a
    power of two no bit of the products is lost.

    Parameters
    ----------
    vlm : Vlm
        Not changed.
    channels : mapping of Site to whole numbers
        Of sites of kind "out" or "fc1": which of their input channels.
    factor : float above 0

    Returns
    -------
    WeightEdit

    Raises
    ------
    UwmError
        For no sites or channels, one twice or out of range, a factor that is not above 0, another kind of site (the
        input of "fc2" is no linear map, that of "value" is shared), or a block with a norm inside its attention.

    Examples
    --------
    One channel becomes 64 times as large; the embedding stays as it was:

    >>> import torch
    >>> import uwmlib as uwm
    >>> from uwmlib.editing import rescaling_edit
    >>> vlm = uwm.load_model("mini-ViT-L-14")
    >>> ids = vlm.tokenize(["a red ring"])
    >>> before = vlm.encode_text(ids)
    >>> site = vlm.sites(text="out")[1]
    >>> with rescaling_edit(vlm, {site: [5]}, factor=64.0).applied(vlm):
    ...     torch.allclose(vlm.encode_text(ids), before, atol=1e-6)
    True
    """
    require_vlm(vlm)
    if not finite_number(factor, "factor") > 0:
        raise UwmError(f"factor is {factor}: give a number above 0, such as 64.")
    if not isinstance(channels, Mapping) or not channels:
        raise UwmError("There is nothing to rescale: give the channels of each site, as {site: [3]}.")
    changes: dict[str, Scaling] = {}
    for site, chosen in channels.items():
        width = vlm.weight(site).shape[1]
        numbers = sorted(whole_number(each, f"Channel of {site.name}", least=0) for each in chosen)
        if not numbers or numbers[-1] >= width or len(set(numbers)) < len(numbers):
            raise UwmError(f"{site.name} has {width} inputs: give some of them once, not {shown(chosen)}.")
        marked = torch.zeros(width, dtype=torch.bool)
        marked[numbers] = True
        columns = marked.expand(vlm.weight(site).shape)
        changes |= _scaled(vlm, site, {site.parameter: columns}, 1 / factor)
        changes |= _scaled(vlm, site, _sources(vlm, site, marked), factor)
    facts = {"method": "rescaling", "model": vlm.name, "factor": float(factor)}
    return WeightEdit(changes, facts | {"sites": [site.name for site in channels]})


def _sources(vlm: Vlm, site: Site, marked: torch.Tensor) -> dict[str, torch.Tensor]:
    """Return the parameters that make a site's input channels, and which of their entries make the marked ones."""
    path, blocks = find_blocks(vlm.model, site.encoder)
    block, prefix = blocks[site.layer], f"{path}.{site.layer}"
    norms = [name for name, child in block.named_children() if isinstance(child, nn.LayerNorm)]
    if site.kind == "fc1" and norms:  # the norm in front of the MLP is a block's last one
        return {f"{prefix}.{norms[-1]}.{end}": marked for end in ("weight", "bias")}
    attention = vlm.model.get_submodule(site.parameter.rsplit(".", 2)[0])
    if site.kind != "out" or any(isinstance(module, nn.LayerNorm) for module in attention.modules()):
        raise UwmError(
            f"The input of {site.name} cannot be rescaled without changing what the model computes: take sites of kind "
            f"'out' or 'fc1' of plain blocks."
        )
    value = next(each for each in find_sites(vlm.model, site.encoder, ["value"]) if each.layer == site.layer)
    weight = vlm.model.get_parameter(value.parameter)
    first, behind = value.rows or (0, len(weight))
    rows = torch.zeros(len(weight), dtype=torch.bool)
    rows[first:behind] = marked
    bias = f"{value.parameter.removesuffix('weight')}bias"
    return {value.parameter: rows.unsqueeze(1).expand(weight.shape), bias: rows}


def _scaled(vlm: Vlm, site: Site, entries: Mapping[str, torch.Tensor], alpha: float) -> dict[str, Scaling]:
    present = dict(vlm.model.named_parameters())
    return {
        name: Scaling(
            encoder=site.encoder,
            base_hash=parameter_hash(vlm, name),
            shape=tuple(present[name].shape),
            indices=chosen.flatten().nonzero().flatten(),
            alpha=alpha,
            candidates=present[name].numel(),
        )
        for name, chosen in entries.items()
        if name in present  # a projection may lack its bias
    }
