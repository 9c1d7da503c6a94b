"""Safe shift: one vector an encoder that leans every query to the safe side, in closed form.

SafeGround asks of a query which of two items it prefers. Adding b to every text embedding t turns the margin of a text
query into (t + b) . (v_s - v_u): the query's own, and a term b . (v_s - v_u) that no query changes. It is a linear
prior on the gallery, folded into one bias of the model.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch.nn import functional as F

from uwmlib.editing.pairs import paired_features
from uwmlib.editing.shifts import shift_edit
from uwmlib.editing.weight_edit import WeightEdit
from uwmlib.errors import UwmError
from uwmlib.models.vlm import Vlm, require_vlm
from uwmlib.options import ENCODERS, as_list, check_batch_size, finite_number, known
from uwmlib.tuples.tuples import Tuples, require_tuples

RIDGE = 0.05  #: share of the mean variance that is added to every variance
OTHER = {"text": "vision", "vision": "text"}


@dataclass(frozen=True, eq=False)
class SafeShift:
    """The directions of a safe shift, fitted once; `edit` gives it any strength.

    Attributes
    ----------
    vlm : Vlm
        The model that it was fitted on.
    directions : dict of str to Tensor, shape [D]
        Encoder of the queries -> unit vector, float64 on the CPU.
    lengths : dict of str to float
        Encoder -> mean length of its embeddings before they are made unit vectors.
    n : int
        Number of tuples.

    Examples
    --------
    >>> import uwmlib as uwm
    >>> from uwmlib.editing import fit_safe_shift
    >>> vlm = uwm.load_model("mini-ViT-L-14")
    >>> calibration = uwm.load_tuples("mini-visu", split="train", n=100)
    >>> shift = fit_safe_shift(vlm, calibration, progress=False)
    >>> validation = uwm.load_tuples("mini-visu", split="validation", n=100)
    >>> before = uwm.evaluate(vlm, validation)
    >>> with shift.edit(1.0).applied(vlm):
    ...     after = uwm.evaluate(vlm, validation)
    >>> after["p_u_v"].value > before["p_u_v"].value
    True
    """

    vlm: Vlm
    directions: dict[str, torch.Tensor]
    lengths: dict[str, float]
    n: int

    def edit(self, alpha: float | Mapping[str, float] = 1.0) -> WeightEdit:
        """Return the edit of a strength: b = alpha times the typical length of an embedding, along the direction.

        Parameters
        ----------
        alpha : float, or mapping of encoder to float
            0 changes nothing; an encoder that a mapping leaves out is not shifted.

        Returns
        -------
        WeightEdit
            Of one bias an encoder (`shift_edit`). Where the projection behind that bias has fewer rows than columns it
            adds the nearest vector that it can.

        Raises
        ------
        UwmError
            If alpha is no number or names another encoder, or the embedding cannot be shifted (`shift_edit`).
        """
        given = dict(alpha) if isinstance(alpha, Mapping) else dict.fromkeys(self.directions, alpha)
        changes = {}
        for encoder, strength in given.items():
            known(encoder, self.directions, "fitted encoder")
            length = finite_number(strength, "alpha") * self.lengths[encoder]
            wanted = length * self.directions[encoder]
            changes |= shift_edit(self.vlm, encoder, wanted, nearest=True).changes
        if not changes:
            raise UwmError("alpha names no encoder: give a number, or one for an encoder.")
        return WeightEdit(
            changes, {"model": self.vlm.name, "method": "safe-shift", "alpha": given, "n": self.n}
        )


def fit_safe_shift(
    vlm: Vlm,
    tuples: Tuples,
    *,
    encoders: str | Sequence[str] = ENCODERS,
    ridge: float = RIDGE,
    batch_size: int = 64,
    progress: bool = True,
) -> SafeShift:
    """Fit the directions of a safe shift in one pass over calibration tuples.

    Of text queries, whose gallery are images v: b = S^-1 m with m = mean(v_s - v_u) and
    S = cov(v_s and v_u) + cov(v_s - v_u) + ridge, made a unit vector. Along m the margin of the mean tuple grows; S
    turns b away from where images differ anyway, which retrieval needs, and from where tuples disagree. Of image
    queries the same with texts in place of images. Moments alone are kept, so memory does not grow with the tuples.

    Parameters
    ----------
    vlm : Vlm
    tuples : Tuples
    encoders : "text", "vision" or both
        Whose queries shall lean.
    ridge : float
        What is added to every variance, as a share of the mean one.
    batch_size : int
    progress : bool

    Returns
    -------
    SafeShift

    Raises
    ------
    UwmError
        For a name in place of a model or of tuples, an unknown encoder, a ridge that is not positive, or safe and
        unsafe items that do not differ.

    Examples
    --------
    >>> import uwmlib as uwm
    >>> from uwmlib.editing import fit_safe_shift
    >>> vlm = uwm.load_model("mini-ViT-L-14")
    >>> tuples = uwm.load_tuples("mini-visu", split="train", n=50)
    >>> shift = fit_safe_shift(vlm, tuples, encoders="text", progress=False)
    >>> shift.edit(0.5).n_weights  # the bias of the last LayerNorm
    96
    """
    require_vlm(vlm)
    require_tuples(tuples)
    wanted = [known(encoder, ENCODERS, "encoder") for encoder in as_list(encoders)]
    if finite_number(ridge, "ridge") <= 0:
        raise UwmError(f"ridge is {ridge}: give a positive share of the mean variance, such as {RIDGE}.")
    check_batch_size(batch_size)
    moments = {encoder: _Moments() for encoder in ENCODERS}
    for encoder, safe, unsafe in paired_features(
        vlm, tuples, batch_size=batch_size, progress=progress, about="safe shift"
    ):
        moments[encoder].add(safe.double().cpu(), unsafe.double().cpu())
    return SafeShift(
        vlm,
        {encoder: moments[OTHER[encoder]].direction(ridge) for encoder in wanted},
        {encoder: moments[encoder].length for encoder in wanted},
        len(tuples),
    )


class _Moments:
    """Sums over pairs of one modality, from which its mean difference and covariances follow."""

    def __init__(self) -> None:
        self.n, self.lengths = 0, 0.0
        self.sums: dict[str, Any] = {"both": 0.0, "difference": 0.0}
        self.squares: dict[str, Any] = {"both": 0.0, "difference": 0.0}

    def add(self, safe: torch.Tensor, unsafe: torch.Tensor) -> None:
        """Add pairs, [B, D] each."""
        self.n += len(safe)
        self.lengths += float(safe.norm(dim=1).sum() + unsafe.norm(dim=1).sum())
        safe, unsafe = F.normalize(safe, dim=1), F.normalize(unsafe, dim=1)
        for name, rows in (("both", torch.cat([safe, unsafe])), ("difference", safe - unsafe)):
            self.sums[name] = self.sums[name] + rows.sum(dim=0)
            self.squares[name] = self.squares[name] + rows.T @ rows  # [B, D] -> [D, D]

    @property
    def length(self) -> float:
        """Mean length of an embedding."""
        return self.lengths / (2 * self.n)

    def direction(self, ridge: float) -> torch.Tensor:
        """Return S^-1 m as a unit vector, [D]."""
        spread = self._covariance("both", 2 * self.n) + self._covariance("difference", self.n)
        spread = spread + ridge * spread.diagonal().mean() * torch.eye(len(spread), dtype=spread.dtype)
        mean = self.sums["difference"] / self.n
        if not mean.any() or not spread.any():
            raise UwmError(
                "Safe and unsafe items do not differ in these tuples: there is no side to lean to."
            )
        return F.normalize(torch.linalg.solve(spread, mean), dim=0)

    def _covariance(self, name: str, n: int) -> torch.Tensor:
        mean = self.sums[name] / n
        return self.squares[name] / n - torch.outer(mean, mean)
