"""Edits that add: a delta of any parameters, a shift of the embedding, a shift of the residual stream."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch

from uwmlib.editing.changes import Delta, about, check_floats, own
from uwmlib.editing.weight_edit import WeightEdit, as_facts, parameter_hash
from uwmlib.errors import UwmError
from uwmlib.metrics.tensors import as_tensor
from uwmlib.models.heads import find_head, find_projection, head_parameters
from uwmlib.models.sites import find_blocks
from uwmlib.models.vlm import Vlm, require_vlm
from uwmlib.options import ENCODERS, known, whole_number

# Singular values below this share of the largest count as zero; float32 weights hold no smaller ones.
_RANK = 1e-6
# How far, as a share of its length, a reached shift may be from the wanted one.
_REACHED = 1e-4


def delta_edit(
    vlm: Vlm,
    encoder: str,
    deltas: Mapping[str, torch.Tensor],
    *,
    rows: Mapping[str, torch.Tensor] | None = None,
    description: Mapping[str, Any] | None = None,
) -> WeightEdit:
    """Add a delta to parameters: W + D, as for task vectors.

    Parameters
    ----------
    vlm : Vlm
        The base; the edit is refused on any other. Not changed.
    encoder : "text", "vision" or "language"
        Which encoder the parameters count for in `WeightEdit.share`.
    deltas : mapping of str to FloatTensor
        Parameter name -> delta, of the parameter's shape or, with `rows`, one row for each of these.
    rows : mapping of str to LongTensor [k], optional
        Parameter name -> strictly ascending rows to add to; all rows of a parameter that is left out.
    description : mapping, optional
        JSON-able facts about how the deltas came about.

    Returns
    -------
    WeightEdit

    Raises
    ------
    UwmError
        For no delta at all, a parameter that the model lacks, a delta that does not fit or is not finite, or a
        description that JSON cannot hold.

    Examples
    --------
    >>> import torch
    >>> import uwmlib as uwm
    >>> from uwmlib.editing import delta_edit
    >>> vlm = uwm.load_model("mini-ViT-L-14")
    >>> bias = vlm.model.ln_final.bias
    >>> edit = delta_edit(vlm, "text", {"ln_final.bias": torch.ones(len(bias))})
    >>> before = bias[0].item()
    >>> with edit.applied(vlm):
    ...     print(f"{bias[0].item() - before:.3f}")
    1.000
    >>> bias[0].item() == before
    True
    """
    require_vlm(vlm)
    facts = {"model": vlm.name} | as_facts(description or {})
    if not isinstance(deltas, Mapping) or not deltas or not isinstance(rows, Mapping | None):
        raise UwmError("There is nothing to add: give deltas, and rows if any, by the names of parameters.")
    present = dict(vlm.model.named_parameters())
    for name in [*deltas, *(rows or {})]:
        known(name, present if name in deltas else deltas, f"parameter of {vlm.name} to add to,")
    changes: dict[str, Delta] = {}
    for name, delta in deltas.items():
        with about(name):
            changes[name] = Delta(
                encoder=encoder,
                base_hash=parameter_hash(vlm, name),
                shape=tuple(present[name].shape),
                delta=own("The delta", delta),
                rows=own("The row numbers", rows[name]) if rows and name in rows else None,
            )
    return WeightEdit(changes, facts)


def shift_edit(vlm: Vlm, encoder: str, shift: torch.Tensor, *, nearest: bool = False) -> WeightEdit:
    """Add one vector to every embedding of an encoder, before it is made a unit vector.

    The vector s goes into the last bias b before the embedding: b + s P^+, with P the linear map behind it and P^+
    its pseudo-inverse (see `uwmlib.models.heads.find_head`). No matrix is touched.

    Parameters
    ----------
    vlm : Vlm
    encoder : "text" or "vision"
    shift : FloatTensor, shape [D]
        In units of the embedding before normalisation, whose length is not 1.
    nearest : bool
        Add the nearest vector within reach in place of refusing one that is not.

    Returns
    -------
    WeightEdit
        Of one bias; exact up to the rounding of its number type. It is refused on a model with another projection.

    Raises
    ------
    UwmError
        For another shape, values that are not finite, an encoder whose last layers are not known, or a shift out of
        reach: P has fewer rows than columns, or dependent ones, and s is no combination of its rows.

    Examples
    --------
    A shift far along one direction is where the embeddings then point:

    >>> import torch
    >>> import uwmlib as uwm
    >>> from uwmlib.editing import shift_edit
    >>> vlm = uwm.load_model("mini-ViT-L-14")
    >>> ids = vlm.tokenize(["a red ring"])
    >>> direction = vlm.encode_text(vlm.tokenize(["a blue star"]))[0].detach()
    >>> edit = shift_edit(vlm, "text", 1e4 * direction)
    >>> with edit.applied(vlm):
    ...     cosine = vlm.encode_text(ids)[0] @ direction
    >>> print(f"{cosine.item():.3f}")
    1.000
    """
    require_vlm(vlm)
    change = head_change(vlm, encoder, shift, nearest=nearest)
    return head_edit(vlm, {encoder: change}, {"method": "shift", "encoder": encoder})


@dataclass(frozen=True, eq=False)
class HeadChange:
    """What is done to an encoder's last bias and projection, and so to its features f: f + f M + s.

    Attributes
    ----------
    shift : FloatTensor, shape [D], float64
        s, as far as it is within reach.
    matrix : FloatTensor, shape [D, D], float64, or None
        M; None for no map.
    deltas : dict of str to FloatTensor
        Parameter -> what is added to it.
    """

    shift: torch.Tensor
    matrix: torch.Tensor | None
    deltas: dict[str, torch.Tensor]

    def on_features(self, rows: torch.Tensor) -> torch.Tensor:
        """Return what becomes of features [N, D]."""
        exact = rows.double()
        moved = exact if self.matrix is None else exact + exact @ self.matrix
        return (moved + self.shift).to(rows.dtype)


def head_change(
    vlm: Vlm,
    encoder: str,
    shift: torch.Tensor,
    *,
    matrix: torch.Tensor | None = None,
    nearest: bool = False,
) -> HeadChange:
    """Fold f -> f + f M + s into the last bias b and the projection behind it.

    With the features f = x P, in which b is a part of x, P becomes P (I + M), and b becomes b + s (P (I + M))^+.

    Parameters
    ----------
    vlm : Vlm
    encoder : "text" or "vision"
    shift : FloatTensor, shape [D]
    matrix : FloatTensor, shape [D, D], optional
        M.
    nearest : bool
        As for `shift_edit`.

    Raises
    ------
    UwmError
        As `shift_edit`, and for a map where no projection without a bias ends the encoder.
    """
    name, projection = find_head(vlm.model, known(encoder, ENCODERS, "encoder"))
    bias = vlm.model.get_parameter(name)
    wanted = as_tensor("The shift", shift).to(bias.device)
    size = bias.shape if projection is None else projection.shape[1:]
    check_floats(wanted, size, "The shift")
    wanted, deltas = wanted.double(), {}
    reached, delta = wanted, wanted
    if matrix is not None:
        matrix = as_tensor("The map", matrix).to(bias.device)
        check_floats(matrix, (*size, *size), "The map")
        matrix = matrix.double()
        deltas |= _map_delta(vlm, encoder, matrix)
    if projection is not None:
        through = projection.double() if matrix is None else projection.double() @ (_eye(matrix) + matrix)
        delta = wanted @ torch.linalg.pinv(through, rtol=_RANK)  # [D] x [D, width]
        reached = delta @ through
        missed = (reached - wanted).norm()
        if not nearest and missed > _REACHED * wanted.norm():
            raise UwmError(
                f"The {encoder} encoder of {vlm.name} cannot reach this shift (its projection {list(through.shape)} "
                f"misses {float(missed / wanted.norm()):.0%} of it): shift along directions that it spans."
            )
    deltas[name] = delta.float()
    return HeadChange(reached.cpu(), None if matrix is None else matrix.cpu(), deltas)


def _map_delta(vlm: Vlm, encoder: str, matrix: torch.Tensor) -> dict[str, torch.Tensor]:
    head = find_projection(vlm.model, encoder)
    moved = head.matrix.double() @ matrix  # [width, D]
    return {head.name: (moved.T if head.transposed else moved).float()}


def _eye(matrix: torch.Tensor) -> torch.Tensor:
    return torch.eye(len(matrix), dtype=matrix.dtype, device=matrix.device)


def head_edit(vlm: Vlm, heads: Mapping[str, HeadChange], description: Mapping[str, Any]) -> WeightEdit:
    """Return the edit of the heads of some encoders, which is refused on a model with other projections."""
    changes, rests_on = {}, {}
    for encoder, head in heads.items():
        changes |= delta_edit(vlm, encoder, head.deltas).changes
        for name in head_parameters(vlm.model, encoder):
            if name not in head.deltas:
                rests_on[name] = parameter_hash(vlm, name)
    return WeightEdit(changes, {"model": vlm.name} | as_facts(description), rests_on)


def residual_shift_edit(vlm: Vlm, encoder: str, layer: int, shift: torch.Tensor) -> WeightEdit:
    """Add one vector to the residual stream behind a block, at every token.

    It goes into the bias of the second layer of the block's MLP, divided by the block's LayerScale where it has one.

    Parameters
    ----------
    vlm : Vlm
    encoder : "text" or "vision"
    layer : int
        Index of the transformer block, from the input.
    shift : FloatTensor, shape [width]

    Returns
    -------
    WeightEdit
        Of one bias.

    Raises
    ------
    UwmError
        For a block that there is not, another shape, values that are not finite, or an MLP without bias.

    Examples
    --------
    One bias of 128 numbers is all that changes:

    >>> import torch
    >>> import uwmlib as uwm
    >>> from uwmlib.editing import residual_shift_edit
    >>> vlm = uwm.load_model("mini-ViT-L-14")
    >>> edit = residual_shift_edit(vlm, "vision", 2, 0.1 * torch.ones(128))
    >>> list(edit.changes), edit.n_weights
    (['visual.transformer.resblocks.2.mlp.c_proj.bias'], 128)
    """
    require_vlm(vlm)
    sites = vlm.sites(**{known(encoder, ENCODERS, "encoder"): "fc2"})
    site = sites[whole_number(layer, "layer", least=0, most=len(sites) - 1)]
    delta = as_tensor("The shift", shift).cpu()
    check_floats(delta, vlm.weight(site).shape[:1], "The shift")
    block = find_blocks(vlm.model, encoder)[1][layer]
    scale = next((getattr(block, name, None) for name in ("ls_2", "ls2") if hasattr(block, name)), None)
    if hasattr(scale, "gamma"):
        delta = delta / scale.gamma.detach().cpu()
    name = f"{site.parameter.removesuffix('.weight')}.bias"
    facts = {"method": "residual-shift", "encoder": encoder, "layer": layer}
    return delta_edit(vlm, encoder, {name: delta}, description=facts)
