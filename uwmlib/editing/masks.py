"""Which weights an edit changes, as masks: how column-like they are, how far two overlap, and their union."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import torch

from uwmlib.editing.changes import EDITED, Change, Delta, Scaling
from uwmlib.editing.weight_edit import WeightEdit
from uwmlib.errors import UwmError
from uwmlib.metrics.tensors import as_tensor
from uwmlib.options import known


@dataclass(frozen=True)
class Overlap:
    """How far two edits change the same weights.

    Attributes
    ----------
    shared, either : int
        Weights that both change, and that at least one does.
    expected : float
        Weights that masks of the same sizes would share on average if drawn at random in every parameter: with a and b
        of N weights changed, a b / N. The same holds where whole columns are drawn.

    Examples
    --------
    >>> from uwmlib.editing import Overlap
    >>> found = Overlap(shared=1, either=4, expected=0.5)
    >>> found.jaccard, round(found.chance, 2)
    (0.25, 0.11)
    """

    shared: int
    either: int
    expected: float

    @property
    def jaccard(self) -> float:
        """Shared weights over those that at least one edit changes; NaN where neither changes any."""
        return self.shared / self.either if self.either else math.nan

    @property
    def chance(self) -> float:
        """The Jaccard index where `expected` weights are shared; NaN where neither changes any."""
        either = self.shared + self.either - self.expected
        return self.expected / either if either else math.nan


def mask_of(change: Change) -> torch.Tensor:
    """Return which weights of its parameter a change of any kind touches.

    Returns
    -------
    BoolTensor, of the parameter's shape, on the CPU

    Examples
    --------
    The second input neuron of a 2x2 weight is negated:

    >>> import torch
    >>> from uwmlib.editing import Gates, mask_of
    >>> gates = torch.tensor([1.0, -1.0])
    >>> mask_of(Gates(encoder="text", base_hash="", shape=(2, 2), factors=gates))
    tensor([[False,  True],
            [False,  True]])
    """
    mask = torch.zeros(change.shape, dtype=torch.bool)
    at = change.where(mask.device)
    mask[at] = change.delta != 0 if isinstance(change, Delta) else True  # a delta of 0 changes nothing
    return mask


def column_share(mask: torch.Tensor) -> float:
    """Return how much of a mask lies in as few columns as could hold it.

    Of k selected weights the share in the ceil(k / out) fullest columns: 1 for whole columns, which are input neurons.

    Parameters
    ----------
    mask : BoolTensor, shape [out, in]

    Returns
    -------
    float in (0, 1]
        NaN for an empty mask.

    Examples
    --------
    Of four weights, which two columns could hold, three lie in the two fullest:

    >>> import torch
    >>> from uwmlib.editing import column_share
    >>> column_share(torch.tensor([[1, 0, 1, 0], [1, 0, 0, 1]], dtype=torch.bool))
    0.75
    """
    mask = as_tensor("The mask", mask)
    if mask.ndim != 2 or mask.dtype != torch.bool:
        raise UwmError(f"The mask is {mask.dtype} {list(mask.shape)}: give booleans [out, in].")
    total = int(mask.sum())
    if not total:
        return math.nan
    fullest = mask.sum(dim=0).sort(descending=True).values[: math.ceil(total / len(mask))]
    return int(fullest.sum()) / total


def overlap(one: WeightEdit, other: WeightEdit, *, encoder: str | None = None) -> Overlap:
    """Count the weights that two edits of one model both change.

    Parameters
    ----------
    one, other : WeightEdit
        What they do to a weight does not matter, only whether they touch it.
    encoder : "text", "vision" or "language", optional
        Its weights alone; by default those of all.

    Returns
    -------
    Overlap

    Raises
    ------
    UwmError
        For an unknown encoder, edits of none of its parameters, or of one parameter in two shapes.

    Examples
    --------
    What a stronger selection by the same score adds:

    >>> import uwmlib as uwm
    >>> from uwmlib.editing import overlap, select_magnitude
    >>> vlm = uwm.load_model("mini-ViT-L-14")
    >>> weak, strong = (
    ...     select_magnitude(vlm, tau=tau, rule="fixed") for tau in (0.1, 0.2)
    ... )
    >>> found = overlap(weak, strong)
    >>> print(f"{found.jaccard:.2f}, by chance {found.chance:.2f}")
    0.50, by chance 0.07
    """
    if encoder is not None:
        known(encoder, EDITED, "encoder of an edit,")
    shared, either, expected = 0, 0, 0.0
    for a, b, candidates in _pairs(one, other, encoder):
        common = int((a & b).sum())
        n_a, n_b = int(a.sum()), int(b.sum())
        shared, either = shared + common, either + n_a + n_b - common
        expected += n_a * n_b / candidates
    return Overlap(shared, either, expected)


def overlap_by_encoder(one: WeightEdit, other: WeightEdit) -> dict[str, Overlap]:
    """Return the overlap of two edits for each encoder that either of them edits.

    Examples
    --------
    >>> import uwmlib as uwm
    >>> from uwmlib.editing import overlap_by_encoder, select_magnitude
    >>> vlm = uwm.load_model("mini-ViT-L-14")
    >>> both = select_magnitude(vlm, tau=0.1)
    >>> images = select_magnitude(vlm, tau=0.1, text=None)
    >>> found = overlap_by_encoder(both, images)
    >>> found["text"].jaccard, found["vision"].jaccard
    (0.0, 1.0)
    """
    encoders = dict.fromkeys(change.encoder for change in (*one.changes.values(), *other.changes.values()))
    return {encoder: overlap(one, other, encoder=encoder) for encoder in encoders}


def _pairs(
    one: WeightEdit, other: WeightEdit, encoder: str | None
) -> Iterator[tuple[torch.Tensor, torch.Tensor, int]]:
    """Yield both masks of every parameter, and how many weights could have been chosen."""
    both = {**one.changes, **other.changes}
    names = [name for name, change in both.items() if encoder in (None, change.encoder)]
    if not names:
        raise UwmError(f"Neither edit has weights of the {encoder or 'model'}: compare edits of the same.")
    for name in names:
        changes = [edit.changes[name] for edit in (one, other) if name in edit.changes]
        if len({change.shape for change in changes}) > 1:
            raise UwmError(f"The two edits have {name} in different shapes: compare edits of one model.")
        empty = torch.zeros(changes[0].shape, dtype=torch.bool)
        masks = [mask_of(edit.changes[name]) if name in edit.changes else empty for edit in (one, other)]
        yield *masks, max(change.n_candidates for change in changes)


def union_edit(edits: Sequence[WeightEdit]) -> WeightEdit:
    """Return the edit of every weight that at least one of several edits scales.

    So masks of single concepts become one edit: no weight is scaled twice.

    Parameters
    ----------
    edits : sequence of WeightEdit
        As `Scores.select` makes them: of one base, and with one alpha for each parameter.

    Returns
    -------
    WeightEdit

    Raises
    ------
    UwmError
        For no edits, a change that does not scale chosen weights, other bases, or another alpha.

    Examples
    --------
    >>> import uwmlib as uwm
    >>> from uwmlib.editing import select_random, union_edit
    >>> vlm = uwm.load_model("mini-ViT-L-14")
    >>> edits = [select_random(vlm, tau=0.1, seed=seed) for seed in range(2)]
    >>> print(f"{union_edit(edits).share()['text']:.2f}")
    0.19
    """
    if not edits:
        raise UwmError("There is no edit to unite: give at least one.")
    changes: dict[str, Scaling] = {}
    for name, change in (pair for edit in edits for pair in edit.changes.items()):
        if not isinstance(change, Scaling):
            raise UwmError(f"The edit of {name} does not scale chosen weights: unite those of `select`.")
        first = changes.setdefault(name, change)
        alike = ("base_hash", "shape", "alpha", "candidates", "encoder")
        if wrong := [key for key in alike if getattr(first, key) != getattr(change, key)]:
            raise UwmError(f"The edits of {name} differ in their {wrong[0]}: unite edits of one kind.")
        changes[name] = replace(first, indices=torch.cat([first.indices, change.indices]).unique())
    return WeightEdit(changes, {"union": [edit.description for edit in edits]})
