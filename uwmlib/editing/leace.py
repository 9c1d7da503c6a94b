"""LEACE (Belrose et al. 2023, arXiv 2306.03819): what a linear probe tells safe from unsafe by, erased or turned."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch

from uwmlib.editing.maps import map_edit
from uwmlib.editing.pairs import paired_features
from uwmlib.editing.weight_edit import WeightEdit
from uwmlib.errors import UwmError
from uwmlib.models.heads import find_projection
from uwmlib.models.vlm import Vlm, require_vlm
from uwmlib.options import ENCODERS, as_list, check_batch_size, finite_number, known
from uwmlib.tuples.tuples import Tuples, require_tuples

if TYPE_CHECKING:
    from concept_erasure import LeaceEraser

# Below this a correlation of the whitened embedding with the concept counts as none; the library's own is 0.01.
_LEAST = 1e-6


@dataclass(frozen=True, eq=False)
class Leace:
    """The erasers of both encoders, fitted once; `edit` erases at any strength.

    Attributes
    ----------
    vlm : Vlm
        The model that it was fitted on.
    erasers : dict of str to concept_erasure.LeaceEraser
        Encoder -> what erases the concept from its embeddings before they are made unit vectors, float64 on the CPU.
    facts : dict
        How it was fitted.

    Examples
    --------
    >>> import uwmlib as uwm
    >>> from uwmlib.editing import fit_leace
    >>> vlm = uwm.load_model("mini-ViT-L-14")
    >>> tuples = uwm.load_tuples("mini-visu", split="train", n=50)
    >>> leace = fit_leace(vlm, tuples, progress=False)
    >>> list(leace.edit(0.5).changes)[:2]  # of the text encoder
    ['ln_final.bias', 'text_projection']
    """

    vlm: Vlm
    erasers: dict[str, LeaceEraser]
    facts: dict[str, Any]

    def edit(self, strength: float | Mapping[str, float] = 1.0) -> WeightEdit:
        """Return the edit that makes x - s W^+ Q W (x - mu) of every embedding x.

        W whitens the embeddings, and Q projects on what of the whitened ones goes with the concept, so at s = 1 safe
        and unsafe embeddings have one mean and no linear probe tells them apart (the theorem of LEACE's Sec. 4).

        Parameters
        ----------
        strength : float from 0 to 2, or mapping of encoder to float
            s. 0 changes nothing, less than 1 erases in part, 1 is LEACE, more turns the concept over: at 2 a safe
            embedding lies, in that direction, where an unsafe one lay. Strengths other than 1 are ours.

        Raises
        ------
        UwmError
            If a strength is out of range, or names another encoder.
        """
        given, changes = self._strengths(strength), {}
        for encoder, s in given.items():
            matrix, offset = self._map(encoder, s)
            changes |= map_edit(self.vlm, encoder, matrix, offset=offset).changes
        return WeightEdit(changes, self.facts | {"strength": given})

    def changes(self, strength: float | Mapping[str, float] = 1.0) -> dict[str, Callable[..., torch.Tensor]]:
        """Return what `edit(strength)` does to the features of each encoder, up to rounding: for `Features.changed`."""
        maps = {encoder: self._map(encoder, s) for encoder, s in self._strengths(strength).items()}
        return {
            encoder: lambda rows, matrix=matrix, offset=offset: (rows.double() @ matrix + offset).to(
                rows.dtype
            )
            for encoder, (matrix, offset) in maps.items()
        }

    def _strengths(self, strength: float | Mapping[str, float]) -> dict[str, float]:
        given = dict(strength) if isinstance(strength, Mapping) else dict.fromkeys(self.erasers, strength)
        for encoder, s in given.items():
            known(encoder, self.erasers, "fitted encoder")
            if not 0 <= finite_number(s, "strength") <= 2:
                raise UwmError(
                    f"strength is {s:g}: give a number from 0, for nothing, over 1, for LEACE, to 2."
                )
        if not given:
            raise UwmError("strength names no encoder: give a number, or one for an encoder.")
        return given

    def _map(self, encoder: str, s: float) -> tuple[torch.Tensor, torch.Tensor]:
        """Return matrix and offset: x becomes x matrix + offset."""
        eraser = self.erasers[encoder]
        erased = eraser.proj_right.T @ eraser.proj_left.T  # [D, D]; x loses (x - mu) erased
        return torch.eye(len(erased), dtype=erased.dtype) - s * erased, s * eraser.bias @ erased


def fit_leace(
    vlm: Vlm,
    tuples: Tuples,
    *,
    encoders: str | Sequence[str] = ENCODERS,
    batch_size: int = 64,
    progress: bool = True,
) -> Leace:
    """Fit LEACE's erasers in one pass: the concept is whether an embedding is of an unsafe item.

    Embeddings are taken before they are made unit vectors, behind a linear map, so that the eraser can be folded into
    the weights (`map_edit`). The fit is the library concept-erasure's, with its shrinkage of the covariance and without
    its bound on the variance afterwards, which is no part of the theorem. It keeps moments alone, so memory does not
    grow with the tuples.

    Parameters
    ----------
    vlm : Vlm
    tuples : Tuples
    encoders : "text", "vision" or both
    batch_size : int
    progress : bool

    Returns
    -------
    Leace

    Raises
    ------
    UwmError
        For a name in place of a model or of tuples, an encoder without a projection (SigLIP), or safe and unsafe items
        that do not differ.

    Examples
    --------
    No linear probe is left on the pairs that it was fitted on: both kinds have
    one mean.

    >>> import torch
    >>> import uwmlib as uwm
    >>> from uwmlib.editing import fit_leace
    >>> vlm = uwm.load_model("mini-ViT-L-14")
    >>> tuples = uwm.load_tuples("mini-visu", split="train", n=50)
    >>> leace = fit_leace(vlm, tuples, encoders="text", progress=False)
    >>> with leace.edit(1.0).applied(vlm), torch.inference_mode():
    ...     safe, unsafe = (
    ...         vlm.text_features(vlm.tokenize(side)).mean(dim=0)
    ...         for side in (tuples.safe_texts, tuples.unsafe_texts)
    ...     )
    >>> torch.allclose(safe, unsafe, atol=1e-3)
    True
    """
    from concept_erasure import LeaceFitter  # here, because it compiles some of its code as it is loaded

    require_vlm(vlm)
    require_tuples(tuples)
    check_batch_size(batch_size)
    wanted = [known(encoder, ENCODERS, "encoder") for encoder in as_list(encoders)]
    sizes = {encoder: find_projection(vlm.model, encoder).matrix.shape[1] for encoder in wanted}
    fitters = {
        encoder: LeaceFitter(size, 1, constrain_cov_trace=False, svd_tol=_LEAST, dtype=torch.float64)
        for encoder, size in sizes.items()
    }
    for encoder, safe, unsafe in paired_features(
        vlm, tuples, batch_size=batch_size, progress=progress, about="LEACE"
    ):
        if encoder in fitters:
            concept = torch.cat([torch.zeros(len(safe)), torch.ones(len(unsafe))])
            fitters[encoder].update(torch.cat([safe, unsafe]).double().cpu(), concept)
    for encoder, fitter in fitters.items():
        if not fitter.sigma_xz.norm() > 1e-9 * fitter.sigma_xx.diagonal().mean().sqrt():
            raise UwmError(
                f"Safe and unsafe items do not differ for the {encoder} encoder: nothing is to be erased."
            )
    facts = {"method": "leace", "model": vlm.name, "tuples": tuples.fingerprint, "n": len(tuples)}
    return Leace(vlm, {encoder: fitter.eraser for encoder, fitter in fitters.items()}, facts)
