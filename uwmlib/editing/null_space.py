"""Null space (Mishra et al. 2025, arXiv 2512.14137, "CCUP"): the directions of unsafe captions, projected out."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch.nn import functional as F

from uwmlib.editing.maps import map_edit
from uwmlib.editing.pairs import batches
from uwmlib.editing.weight_edit import WeightEdit
from uwmlib.errors import UwmError
from uwmlib.models.heads import find_projection
from uwmlib.models.vlm import Vlm, require_vlm
from uwmlib.options import ENCODERS, as_list, check_batch_size, finite_number, known, whole_number
from uwmlib.tuples.tuples import Tuples, require_tuples

RANK = 4
DIRECTIONS = ("difference", "unsafe")
# Directions that hold less than this share of the largest one's mass are rounding.
_LEAST = 1e-9


@dataclass(frozen=True, eq=False)
class NullSpace:
    """The unsafe directions, found once; `edit` projects them out at any strength.

    Attributes
    ----------
    vlm : Vlm
        The model that it was fitted on.
    basis : Tensor, shape [D, k]
        B, orthonormal, float64 on the CPU; the direction with the most mass first.
    encoders : tuple of str
        Whose projections are edited.
    facts : dict
        How it was fitted.

    Examples
    --------
    >>> import uwmlib as uwm
    >>> from uwmlib.editing import fit_null_space
    >>> vlm = uwm.load_model("mini-ViT-L-14")
    >>> tuples = uwm.load_tuples("mini-visu", split="train", n=50)
    >>> null = fit_null_space(vlm, tuples, rank=2, progress=False)
    >>> null.basis.shape
    torch.Size([96, 2])
    >>> list(null.edit(0.5).changes)
    ['visual.proj']
    """

    vlm: Vlm
    basis: torch.Tensor
    encoders: tuple[str, ...]
    facts: dict[str, Any]

    def edit(self, strength: float | Mapping[str, float] = 1.0) -> WeightEdit:
        """Return the edit that puts (I - a B B^T) W in place of each projection W, [D, width].

        Parameters
        ----------
        strength : float from 0 to 2, or mapping of encoder to float
            a. 0 changes nothing, less than 1 is the paper's partial projection, 1 forgets the directions. More turns
            them over, until at 2 both encoders mirrored are where they were to each other; that is ours.

        Raises
        ------
        UwmError
            If a strength is out of range, or names another encoder.
        """
        given, changes = self._strengths(strength), {}
        for encoder, a in given.items():
            changes |= map_edit(self.vlm, encoder, self._matrix(a)).changes
        return WeightEdit(changes, self.facts | {"strength": given})

    def changes(self, strength: float | Mapping[str, float] = 1.0) -> dict[str, Callable[..., torch.Tensor]]:
        """Return what `edit(strength)` does to the features of each encoder, up to rounding: for `Features.changed`."""
        matrices = {encoder: self._matrix(a) for encoder, a in self._strengths(strength).items()}
        return {
            encoder: lambda rows, matrix=matrix: (rows.double() @ matrix).to(rows.dtype)
            for encoder, matrix in matrices.items()
        }

    def _strengths(self, strength: float | Mapping[str, float]) -> dict[str, float]:
        given = dict(strength) if isinstance(strength, Mapping) else dict.fromkeys(self.encoders, strength)
        for encoder, a in given.items():
            known(encoder, self.encoders, "fitted encoder")
            if not 0 <= finite_number(a, "strength") <= 2:
                raise UwmError(f"strength is {a:g}: give a number from 0, for nothing, over 1, to 2.")
        if not given:
            raise UwmError("strength names no encoder: give a number, or one for an encoder.")
        return given

    def _matrix(self, a: float) -> torch.Tensor:
        inside = self.basis @ self.basis.T
        return torch.eye(len(inside), dtype=inside.dtype) - a * inside


def fit_null_space(
    vlm: Vlm,
    tuples: Tuples,
    *,
    rank: int = RANK,
    directions: str = "difference",
    encoders: str | Sequence[str] = "vision",
    batch_size: int = 64,
    progress: bool = True,
) -> NullSpace:
    """Find an orthonormal basis B of the directions that unsafe captions are embedded along.

    Theirs: B spans the text embeddings of the classes to forget, and the final projection is multiplied by
    I - a B B^T. A class is one prompt; our unsafe captions are thousands of scenes, which span everything. Our reading:
    B are the `rank` eigenvectors with the largest eigenvalues of the mean of d d^T over pairs, d = t_u - t_s of unit
    vectors or d = t_u. The mean of d is left in, because it is a direction too, and the first one. Sums alone are kept,
    so memory does not grow with the tuples.

    Parameters
    ----------
    vlm : Vlm
    tuples : Tuples
        Their captions are read alone.
    rank : int
        k, fewer than the embedding has numbers.
    directions : "difference" or "unsafe"
        Whether d is t_u - t_s or t_u.
    encoders : "text", "vision" or both
        Whose projections are edited. One is enough for no picture to meet a caption along B.
    batch_size : int
    progress : bool

    Returns
    -------
    NullSpace

    Raises
    ------
    UwmError
        For a name in place of a model or of tuples, an encoder without a projection (SigLIP), an unknown name, or more
        directions than the captions have.

    Examples
    --------
    What is projected out has no length left:

    >>> import torch
    >>> import uwmlib as uwm
    >>> from uwmlib.editing import fit_null_space
    >>> vlm = uwm.load_model("mini-ViT-L-14")
    >>> tuples = uwm.load_tuples("mini-visu", split="train", n=50)
    >>> null = fit_null_space(vlm, tuples, progress=False)
    >>> with null.edit(1.0).applied(vlm), torch.inference_mode():
    ...     rows = vlm.image_features(vlm.preprocess(tuples.unsafe_images[:8]))
    >>> bool((rows @ null.basis.float()).abs().max() < 1e-3 * rows.abs().max())
    True
    """
    require_vlm(vlm)
    require_tuples(tuples)
    check_batch_size(batch_size)
    known(directions, DIRECTIONS, "kind of directions")
    wanted = tuple(known(encoder, ENCODERS, "encoder") for encoder in as_list(encoders))
    size = min(find_projection(vlm.model, encoder).matrix.shape[1] for encoder in wanted or ENCODERS)
    whole_number(rank, "rank", most=size - 1)
    moment = torch.zeros(size, size, dtype=torch.float64)
    with torch.inference_mode():
        for batch in batches(tuples, batch_size, progress=progress, about="null space"):
            d = vlm.encode_text(vlm.tokenize(batch.unsafe_texts)).double().cpu()
            if directions == "difference":
                d = d - vlm.encode_text(vlm.tokenize(batch.safe_texts)).double().cpu()
            moment += d.T @ d / len(tuples)  # [B, D] -> [D, D]
    facts = {
        "method": "null-space", "model": vlm.name, "tuples": tuples.fingerprint, "n": len(tuples),
        "rank": rank, "directions": directions,
    }  # fmt: skip
    return NullSpace(vlm, leading_directions(moment, rank), wanted, facts)


def leading_directions(moment: torch.Tensor, rank: int) -> torch.Tensor:
    """Return the eigenvectors [D, rank] of a symmetric matrix [D, D] with the largest eigenvalues, the largest first.

    Raises
    ------
    UwmError
        If there are fewer that are more than rounding.

    Examples
    --------
    >>> import torch
    >>> from uwmlib.editing.null_space import leading_directions
    >>> leading_directions(torch.diag(torch.tensor([1.0, 4.0, 2.0])), 2).abs()
    tensor([[0., 0.],
            [1., 0.],
            [0., 1.]])
    """
    values, vectors = torch.linalg.eigh(moment)  # ascending
    if not torch.isfinite(values).all() or not values[-rank] > _LEAST * values[-1].clamp_min(0):
        raise UwmError(
            f"The captions have fewer than {rank} directions: ask for a smaller rank, or give more."
        )
    return F.normalize(vectors[:, -rank:].flip(1), dim=0)
