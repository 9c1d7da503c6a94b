"""Edits that map every embedding of an encoder: x A + c in place of x, folded into its projection matrix."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch

from uwmlib.editing.changes import check_floats
from uwmlib.editing.shifts import delta_edit
from uwmlib.editing.weight_edit import WeightEdit
from uwmlib.errors import UwmError
from uwmlib.metrics.tensors import as_tensor
from uwmlib.models.heads import find_projection
from uwmlib.models.vlm import Vlm, require_vlm
from uwmlib.options import ENCODERS, known


def map_edit(
    vlm: Vlm,
    encoder: str,
    matrix: torch.Tensor,
    *,
    offset: torch.Tensor | None = None,
    description: Mapping[str, Any] | None = None,
) -> WeightEdit:
    """Put x A + c in place of every embedding x of an encoder, before it is made a unit vector.

    With x = h P, h what the last LayerNorm gives, A goes into the projection: P A. The offset c has no bias of its own
    to go to, and no bias in front of P A reaches it where A forgets a direction. But a LayerNorm has a constant: the
    parts of h less its bias beta, each divided by its weight gamma, sum to 0. So with u = 1 / gamma, h . u is beta . u
    whatever the input. Beta is moved by d = (1 - beta . u) gamma / width, which makes it 1, and the projection becomes
    P A + u (c - d P A)^T.

    Parameters
    ----------
    vlm : Vlm
        The base; the edit is refused on any other. Not changed.
    encoder : "text" or "vision"
    matrix : FloatTensor, shape [D, D]
        A; rows of embeddings are multiplied from the left.
    offset : FloatTensor, shape [D], optional
        c, in units of the embedding before normalisation.
    description : mapping, optional
        JSON-able facts about how the map came about.

    Returns
    -------
    WeightEdit
        Of the projection and, with an offset, of the norm's bias; exact up to rounding.

    Raises
    ------
    UwmError
        For an encoder that does not end in a norm and a projection without bias, as both of SigLIP, another shape, or
        values that are not finite.

    Examples
    --------
    Every caption of an encoder that maps to one point is that point:

    >>> import torch
    >>> import uwmlib as uwm
    >>> from uwmlib.editing import map_edit
    >>> vlm = uwm.load_model("mini-ViT-L-14")
    >>> point = torch.zeros(96)
    >>> point[3] = 1.0
    >>> edit = map_edit(vlm, "text", torch.zeros(96, 96), offset=point)
    >>> with edit.applied(vlm), torch.inference_mode():
    ...     rows = vlm.text_features(vlm.tokenize(["a red ring", "a blue star"]))
    >>> torch.allclose(rows, point.expand(2, 96), atol=1e-4)
    True
    """
    require_vlm(vlm)
    head = find_projection(vlm.model, known(encoder, ENCODERS, "encoder"))
    projection = head.matrix.double()  # [width, D]
    size = projection.shape[1]
    parts = {"The matrix": (matrix, (size, size)), "The offset": (offset, (size,))}
    checked = {}
    for what, (value, shape) in parts.items():
        if value is not None:
            checked[what] = as_tensor(what, value).to(projection.device)
            check_floats(checked[what], shape, what)
    after, deltas = projection @ checked["The matrix"].double(), {}
    if offset is not None:
        gamma, beta = head.norm.weight.detach().double(), head.norm.bias.detach().double()
        if not gamma.all():
            raise UwmError(
                f"{head.norm_name} of {vlm.name} has a weight of 0, so no offset can be added: give the matrix alone."
            )
        moved = (1 - (beta / gamma).sum()) * gamma / len(gamma)
        after = after + torch.outer(1 / gamma, checked["The offset"].double() - moved @ after)
        deltas[f"{head.norm_name}.bias"] = moved
    change = after - projection
    deltas[head.name] = change.T if head.transposed else change
    return delta_edit(
        vlm, encoder, {name: delta.float() for name, delta in deltas.items()}, description=description
    )
