"""Safe shift: one vector an encoder that leans every query to the safe side, in closed form or fitted.

SafeGround asks of a query which of two items it prefers. Adding b to every text embedding t turns the margin of a text
query into (t + b) . (v_s - v_u): the query's own, and a term b . (v_s - v_u) that no query changes. It is a linear
prior on the gallery, folded into one bias of the model. A map of low rank, folded into the projection, makes the term
depend on the query.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from os import PathLike
from typing import Any

import torch
from torch.nn import functional as F

from uwmlib.cache import Cache
from uwmlib.editing.features import Features, collect_features
from uwmlib.editing.pairs import paired_features
from uwmlib.editing.safe_fit import ITERATIONS, Frame, SafeLoss, minimise
from uwmlib.editing.shifts import HeadChange, head_change, head_edit
from uwmlib.editing.weight_edit import WeightEdit
from uwmlib.errors import UwmError
from uwmlib.models.vlm import Vlm, require_vlm
from uwmlib.options import ENCODERS, as_list, check_batch_size, finite_number, known, whole_number
from uwmlib.tuples.benign import BenignUses
from uwmlib.tuples.tuples import Tuples, require_tuples

RIDGE = 0.05  #: share of the mean variance that is added to every variance
OTHER = {"text": "vision", "vision": "text"}
SIDES = {"text": ("safe_text", "unsafe_text"), "vision": ("safe_image", "unsafe_image")}
HOW = ("closed-form", "fitted")


@dataclass(frozen=True, eq=False)
class SafeShift:
    """The directions of a safe shift, fitted once; `edit` gives it any strength.

    Attributes
    ----------
    vlm : Vlm
        The model that it was fitted on.
    directions : dict of str to Tensor, shape [D]
        Encoder of the queries -> vector, float64 on the CPU: of unit length in closed form, of the length that the
        loss asks for where it is fitted.
    lengths : dict of str to float
        Encoder -> mean length of its embeddings before they are made unit vectors.
    n : int
        Number of tuples.
    maps : dict of str to (Tensor, Tensor)
        Encoder -> factors [D, r] and [r, D] of a map of low rank; empty where there is none.
    how : str
        "closed-form" or "fitted".

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
    maps: dict[str, tuple[torch.Tensor, torch.Tensor]] = field(default_factory=dict)
    how: str = "closed-form"

    def edit(self, alpha: float | Mapping[str, float] = 1.0) -> WeightEdit:
        """Return the edit of a strength: b = alpha times the typical length of an embedding, along the direction.

        Parameters
        ----------
        alpha : float, or mapping of encoder to float
            0 changes nothing; an encoder that a mapping leaves out is not shifted. A map is multiplied by it too.

        Returns
        -------
        WeightEdit
            Of one bias an encoder, and with maps of the projection behind it. Where the projection has fewer rows than
            columns it adds the nearest vector that it can. It is refused on a model with another projection.

        Raises
        ------
        UwmError
            If alpha is no number or names another encoder, or the embedding cannot be shifted (`shift_edit`).
        """
        facts = {"method": "safe-shift", "how": self.how, "alpha": self._strengths(alpha), "n": self.n}
        if self.maps:
            facts["rank"] = max(down.shape[1] for down, _ in self.maps.values())
        return head_edit(self.vlm, self._heads(alpha), facts)

    def changes(self, alpha: float | Mapping[str, float] = 1.0) -> dict[str, Callable[..., torch.Tensor]]:
        """Return what `edit(alpha)` does to the features of each encoder, up to rounding: for `Features.changed`."""
        return {encoder: head.on_features for encoder, head in self._heads(alpha).items()}

    def _strengths(self, alpha: float | Mapping[str, float]) -> dict[str, float]:
        given = dict(alpha) if isinstance(alpha, Mapping) else dict.fromkeys(self.directions, alpha)
        for encoder, strength in given.items():
            known(encoder, self.directions, "fitted encoder")
            finite_number(strength, "alpha")
        if not given:
            raise UwmError("alpha names no encoder: give a number, or one for an encoder.")
        return given

    def _heads(self, alpha: float | Mapping[str, float]) -> dict[str, HeadChange]:
        heads = {}
        for encoder, strength in self._strengths(alpha).items():
            wanted = strength * self.lengths[encoder] * self.directions[encoder]
            factors = self.maps.get(encoder)
            matrix = None if factors is None else strength * (factors[0] @ factors[1])
            heads[encoder] = head_change(self.vlm, encoder, wanted, matrix=matrix, nearest=True)
        return heads


def fit_safe_shift(
    vlm: Vlm,
    tuples: Tuples | Features,
    *,
    encoders: str | Sequence[str] = ENCODERS,
    how: str = "closed-form",
    benign: BenignUses | None = None,
    rank: int = 0,
    loss: SafeLoss | None = None,
    ridge: float = RIDGE,
    iterations: int = ITERATIONS,
    batch_size: int = 64,
    progress: bool = True,
    cache: Cache | PathLike | str | None = None,
) -> SafeShift:
    """Fit the directions of a safe shift in one pass over calibration tuples.

    *In closed form*: of text queries, whose gallery are images v, b = S^-1 m with m = mean(v_s - v_u) and
    S = cov(v_s and v_u) + cov(v_s - v_u) + ridge, made a unit vector. Along m the margin of the mean tuple grows; S
    turns b away from where images differ anyway, which retrieval needs, and from where tuples disagree. Of image
    queries the same with texts in place of images. Moments alone are kept, so memory does not grow with the tuples.

    *Fitted*: from half of that on, L-BFGS minimises a `SafeLoss` over the vectors of both encoders together. It keeps
    the embeddings of the tuples (4 D floats each), takes benign uses into account where there are any, and with a
    `rank` also fits a map: f becomes f + f A B + b, which no vector can do.

    Parameters
    ----------
    vlm : Vlm
    tuples : Tuples or Features
        Features of this model, with those of benign uses where wanted, spare the pass (`collect_features`).
    encoders : "text", "vision" or both
        Whose queries shall lean.
    how : "closed-form" or "fitted"
    benign : BenignUses, optional
        Harmless uses that the fit spares, of any split but "test".
    rank : int
        Of the map; 0 for none.
    loss : SafeLoss, optional
    ridge : float
        What is added to every variance, as a share of the mean one.
    iterations : int
        Of L-BFGS at most.
    batch_size : int
    progress : bool
    cache : Cache or the path of its folder, optional
        Where embeddings are looked for and kept.

    Returns
    -------
    SafeShift

    Raises
    ------
    UwmError
        For a name in place of a model or of tuples, features of another model, an unknown encoder, a ridge that is not
        positive, benign uses or a rank in closed form, or safe and unsafe items that do not differ.

    Examples
    --------
    >>> import uwmlib as uwm
    >>> from uwmlib.editing import fit_safe_shift
    >>> vlm = uwm.load_model("mini-ViT-L-14")
    >>> tuples = uwm.load_tuples("mini-visu", split="train", n=50)
    >>> shift = fit_safe_shift(vlm, tuples, encoders="text", progress=False)
    >>> shift.edit(0.5).n_weights  # the bias of the last LayerNorm
    96
    >>> fitted = fit_safe_shift(vlm, tuples, how="fitted", rank=1, progress=False)
    >>> sorted(fitted.edit(1.0).changes)[:2]
    ['ln_final.bias', 'text_projection']
    """
    require_vlm(vlm)
    wanted = [known(encoder, ENCODERS, "encoder") for encoder in as_list(encoders)]
    if finite_number(ridge, "ridge") <= 0:
        raise UwmError(f"ridge is {ridge}: give a positive share of the mean variance, such as {RIDGE}.")
    check_batch_size(batch_size)
    rank = whole_number(rank, "rank", least=0)
    fitted = known(how, HOW, "way to fit") == "fitted"
    if not fitted and (rank or benign is not None or loss is not None):
        raise UwmError("The closed form takes no benign uses, rank or loss: ask for how='fitted'.")
    if isinstance(tuples, Tuples) and (fitted or cache is not None):
        passing = {"batch_size": batch_size, "progress": progress, "cache": cache}
        tuples = collect_features(vlm, tuples, benign=benign, **passing)
    elif benign is not None:
        raise UwmError("Features bring benign uses of their own: give these to collect_features.")
    moments = _moments(vlm, tuples, batch_size, progress)
    directions = {encoder: moments[OTHER[encoder]].direction(ridge) for encoder in wanted}
    lengths = {encoder: moments[encoder].length for encoder in wanted}
    if not fitted:
        return SafeShift(vlm, directions, lengths, moments["text"].n)
    scales = {encoder: moments[encoder].length for encoder in ENCODERS}
    parts = (_scaled(each, scales) for each in (tuples.tuples, tuples.benign))
    frames = {encoder: _frame(moments, encoder, ridge) for encoder in wanted}
    search = {"rank": rank, "iterations": whole_number(iterations, "iterations")}
    found = minimise(loss or SafeLoss(), *parts, frames, **search)
    maps = {encoder: (each.down, each.up) for encoder, each in found.items()} if rank else {}
    return SafeShift(vlm, {key: each.b for key, each in found.items()}, lengths, tuples.n, maps, how)


def _frame(moments: Mapping[str, _Moments], encoder: str, ridge: float) -> Frame:
    own, gallery = moments[encoder], moments[OTHER[encoder]]
    return Frame(gallery.direction(ridge), own.direction(ridge), gallery.spread(ridge), own.spread(ridge))


def _scaled(parts: Mapping[str, torch.Tensor], lengths: Mapping[str, float]) -> dict[str, torch.Tensor]:
    """Return parts in units of the mean length of their encoder's embeddings."""
    return {
        part: rows / lengths["text" if part.endswith("text") else "vision"] for part, rows in parts.items()
    }


def _moments(vlm: Vlm, tuples: Tuples | Features, batch_size: int, progress: bool) -> dict[str, _Moments]:
    """Return the moments of texts and of images."""
    moments = {encoder: _Moments() for encoder in ENCODERS}
    if isinstance(tuples, Features):
        if tuples.model != vlm.name:
            raise UwmError(f"These are features of {tuples.model}, not of {vlm.name}: collect them again.")
        parts = ((encoder, *(tuples.tuples[side] for side in SIDES[encoder])) for encoder in ENCODERS)
    else:
        require_tuples(tuples)
        parts = paired_features(vlm, tuples, batch_size=batch_size, progress=progress, about="safe shift")
    for encoder, safe, unsafe in parts:
        moments[encoder].add(safe.double().cpu(), unsafe.double().cpu())
    return moments


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
        spread, mean = self.spread(ridge), self.sums["difference"] / self.n
        if not mean.any() or not spread.any():
            raise UwmError(
                "Safe and unsafe items do not differ in these tuples: there is no side to lean to."
            )
        return F.normalize(torch.linalg.solve(spread, mean), dim=0)

    def spread(self, ridge: float) -> torch.Tensor:
        """Return S, [D, D]."""
        spread = self._covariance("both", 2 * self.n) + self._covariance("difference", self.n)
        return spread + ridge * spread.diagonal().mean() * torch.eye(len(spread), dtype=spread.dtype)

    def _covariance(self, name: str, n: int) -> torch.Tensor:
        mean = self.sums[name] / n
        return self.squares[name] / n - torch.outer(mean, mean)
