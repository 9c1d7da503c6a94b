"""Edits that change no answer: an input channel of a product made larger, and its weights smaller."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import nn

from uwmlib.editing.changes import Change, Delta, Gates, about, check_floats, own
from uwmlib.editing.weight_edit import WeightEdit, parameter_hash
from uwmlib.errors import UwmError
from uwmlib.models.sites import Site, find_blocks, find_sites, require_sites
from uwmlib.models.vlm import Vlm, require_vlm
from uwmlib.options import finite_number, shown, whole_number


def channel_scaling_edit(vlm: Vlm, factors: Mapping[Site, torch.Tensor]) -> WeightEdit:
    """Multiply each input channel of products by a factor of its own and its weights by the inverse.

    W z = (W D^-1)(D z) for any diagonal D above 0: the same function in other weights. The input of "out" is a linear
    map of what the value projection puts out, whose rows grow; that of "fc1" is a LayerNorm, whose gain and bias grow.
    With powers of two no bit of the products is lost.

    Parameters
    ----------
    vlm : Vlm
        Not changed.
    factors : mapping of Site to FloatTensor [in]
        Of sites of kind "out" or "fc1": D, above 0.

    Returns
    -------
    WeightEdit

    Raises
    ------
    UwmError
        For no sites, factors that do not fit or are not above 0, another kind of site (the input of "fc2" is no
        linear map, that of "value" is shared), or a block with a norm inside its attention.

    Examples
    --------
    Every channel by another power of two; the embedding stays as it was, bit
    for bit:

    >>> import torch
    >>> import uwmlib as uwm
    >>> from uwmlib.editing import channel_scaling_edit
    >>> vlm = uwm.load_model("mini-ViT-L-14")
    >>> ids = vlm.tokenize(["a red ring"])
    >>> before = vlm.encode_text(ids)
    >>> factors = 2.0 ** (torch.arange(96) % 7 - 3)
    >>> sites = vlm.sites(text="out")
    >>> edit = channel_scaling_edit(vlm, {site: factors for site in sites})
    >>> with edit.applied(vlm):
    ...     torch.equal(vlm.encode_text(ids), before)
    True
    """
    require_vlm(vlm)
    if not isinstance(factors, Mapping) or not factors:
        raise UwmError("There is nothing to rescale: give the factors of each site, as {site: factors}.")
    changes: dict[str, Change] = {}
    for site, given in factors.items():
        width = vlm.weight(site).shape[1]
        with about(site.parameter):
            scale = own("The factors", given).double()
            check_floats(scale, (width,), "The vector of factors")
            if not (scale > 0).all():
                raise UwmError(f"The factors of {site.name} are not all above 0: give such, as 64.")
        changes[site.parameter] = Gates(
            factors=1 / scale, rows=site.rows, **_facts(vlm, site, site.parameter)
        )
        for name, rows in _sources(vlm, site, scale).items():
            changes[name] = _grown(vlm, site, name, rows)
    return WeightEdit(changes, {"method": "rescaling", "model": vlm.name, "sites": [s.name for s in factors]})


def random_factors(
    vlm: Vlm, sites: Sequence[Site], *, room: float, seed: int = 0
) -> dict[Site, torch.Tensor]:
    """Draw a factor for every input channel of sites, log-uniform between 1 / room and room.

    Parameters
    ----------
    vlm : Vlm
    sites : sequence of Site
    room : float, at least 1
    seed : int

    Returns
    -------
    dict of Site to FloatTensor [in], float64
        For `channel_scaling_edit`.

    Raises
    ------
    UwmError
        For what are no sites, or a room below 1.

    Examples
    --------
    >>> import uwmlib as uwm
    >>> from uwmlib.editing import random_factors
    >>> vlm = uwm.load_model("mini-ViT-L-14")
    >>> (drawn, *_) = random_factors(vlm, vlm.sites(text="out"), room=4).values()
    >>> bool(0.25 <= drawn.min() < 1 < drawn.max() <= 4)
    True
    """
    require_vlm(vlm)
    largest = math.log(finite_number(room, "room", least=1))
    generator = torch.Generator().manual_seed(whole_number(seed, "seed", least=0))
    widths = {site: vlm.weight(site).shape[1] for site in require_sites(sites)}
    drawn = {
        site: torch.rand(width, generator=generator, dtype=torch.float64) for site, width in widths.items()
    }
    return {site: (largest * (2 * u - 1)).exp() for site, u in drawn.items()}


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
    factors: dict[Site, torch.Tensor] = {}
    for site, chosen in channels.items():
        width = vlm.weight(site).shape[1]
        numbers = sorted(whole_number(each, f"Channel of {site.name}", least=0) for each in chosen)
        if not numbers or numbers[-1] >= width or len(set(numbers)) < len(numbers):
            raise UwmError(f"{site.name} has {width} inputs: give some of them once, not {shown(chosen)}.")
        factors[site] = torch.ones(width, dtype=torch.float64)
        factors[site][numbers] = factor
    edit = channel_scaling_edit(vlm, factors)
    return WeightEdit(edit.changes, edit.description | {"factor": float(factor)})


def head_rotation_edit(vlm: Vlm, sites: Sequence[Site], *, seed: int = 0) -> WeightEdit:
    """Rotate the channels of every attention head at random, and their weights back: W z = (W R^T)(R z).

    The values of a head are only added up and multiplied by W, so any invertible map of them may stand between the two.
    No channel is its old self after that, and the model is the same function.

    Parameters
    ----------
    vlm : Vlm
        Not changed.
    sites : sequence of Site
        Of kind "out".
    seed : int
        Of the rotations: Q of the QR decomposition of Gaussian numbers, one for each head.

    Returns
    -------
    WeightEdit

    Raises
    ------
    UwmError
        For no sites, another kind of site, or an attention that does not say how many heads it has.

    Examples
    --------
    >>> import torch
    >>> import uwmlib as uwm
    >>> from uwmlib.editing import head_rotation_edit
    >>> vlm = uwm.load_model("mini-ViT-L-14")
    >>> ids = vlm.tokenize(["a red ring"])
    >>> before = vlm.encode_text(ids)
    >>> with head_rotation_edit(vlm, vlm.sites(text="out")).applied(vlm):
    ...     torch.allclose(vlm.encode_text(ids), before, atol=1e-5)
    True
    """
    require_vlm(vlm)
    listed = require_sites(sites)
    if not listed:
        raise UwmError("There is nothing to rotate: give sites of kind 'out'.")
    generator = torch.Generator().manual_seed(whole_number(seed, "seed", least=0))
    changes: dict[str, Change] = {}
    for site in listed:
        sources = _sources(vlm, site, torch.ones(vlm.weight(site).shape[1], dtype=torch.float64))
        rotation = _rotation(_heads(vlm, site), vlm.weight(site).shape[1], generator)
        first, behind = site.rows or (0, len(vlm.weight(site)))
        every = torch.arange(first, behind)
        weight = vlm.weight(site).detach().cpu().double()
        delta = weight @ rotation.T - weight  # [out, in] x [in, in]
        changes[site.parameter] = Delta(delta=delta, rows=every, **_facts(vlm, site, site.parameter))
        for name in sources:
            parameter = vlm.model.get_parameter(name).detach().cpu().double()
            at = torch.arange(
                len(parameter) - len(rotation), len(parameter)
            )  # a stacked value is the last part
            delta = rotation @ parameter[at] - parameter[at]
            changes[name] = Delta(delta=delta, rows=at, **_facts(vlm, site, name))
    facts = {"method": "rotation", "model": vlm.name, "seed": seed}
    return WeightEdit(changes, facts | {"sites": [site.name for site in listed]})


def _heads(vlm: Vlm, site: Site) -> int:
    attention = vlm.model.get_submodule(site.parameter.rsplit(".", 2)[0])
    heads = getattr(attention, "num_heads", None)
    if site.kind != "out" or not isinstance(heads, int) or vlm.weight(site).shape[1] % heads:
        raise UwmError(f"{site.name} has no attention heads that could be rotated: take sites of kind 'out'.")
    return heads


def _rotation(heads: int, width: int, generator: torch.Generator) -> torch.Tensor:
    """Return a block-diagonal rotation [width, width], float64."""
    size = width // heads
    drawn = torch.randn(heads, size, size, generator=generator, dtype=torch.float64)
    return torch.block_diag(*torch.linalg.qr(drawn).Q)


def _sources(vlm: Vlm, site: Site, scale: torch.Tensor) -> dict[str, torch.Tensor]:
    """Return the parameters that make a site's input channels, and the factor of each of their rows."""
    path, blocks = find_blocks(vlm.model, site.encoder)
    block, prefix = blocks[site.layer], f"{path}.{site.layer}"
    norms = [name for name, child in block.named_children() if isinstance(child, nn.LayerNorm)]
    if site.kind == "fc1" and norms:  # the norm in front of the MLP is a block's last one
        return {f"{prefix}.{norms[-1]}.{end}": scale for end in ("weight", "bias")}
    attention = vlm.model.get_submodule(site.parameter.rsplit(".", 2)[0])
    if site.kind != "out" or any(isinstance(module, nn.LayerNorm) for module in attention.modules()):
        raise UwmError(
            f"The input of {site.name} cannot be rescaled without changing what the model computes: take sites of kind "
            f"'out' or 'fc1' of plain blocks."
        )
    value = next(each for each in find_sites(vlm.model, site.encoder, ["value"]) if each.layer == site.layer)
    rows = scale.new_ones(len(vlm.model.get_parameter(value.parameter)))
    rows[slice(*(value.rows or (None,)))] = scale
    bias = f"{value.parameter.removesuffix('weight')}bias"
    present = dict(vlm.model.named_parameters())  # a projection may lack its bias
    return {name: rows for name in (value.parameter, bias) if name in present}


def _grown(vlm: Vlm, site: Site, name: str, rows: torch.Tensor) -> Delta:
    """Multiply the rows of a parameter by their factors. Added in float64 the product is rounded but once."""
    parameter = vlm.model.get_parameter(name).detach().cpu().double()
    at = (rows != 1).nonzero().flatten()
    grown = rows[at] - 1 if parameter.ndim == 1 else (rows[at] - 1).unsqueeze(1)
    return Delta(delta=grown * parameter[at], rows=at, **_facts(vlm, site, name))


def _facts(vlm: Vlm, site: Site, name: str) -> dict[str, Any]:
    shape = tuple(vlm.model.get_parameter(name).shape)
    return {"encoder": site.encoder, "base_hash": parameter_hash(vlm, name), "shape": shape}
