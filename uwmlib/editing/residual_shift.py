"""A safe shift of the residual stream: one vector behind a block, for any tower and for what reads it half way up."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from tqdm.auto import tqdm

from uwmlib.editing.safe_shift import RIDGE
from uwmlib.editing.shifts import residual_shift_edit
from uwmlib.editing.weight_edit import WeightEdit
from uwmlib.errors import UwmError
from uwmlib.models.capture import capture_blocks
from uwmlib.models.sites import find_blocks
from uwmlib.models.vlm import Vlm, require_vlm
from uwmlib.options import ENCODERS, check_batch_size, finite_number, known, whole_number
from uwmlib.tuples.tuples import Tuples, require_tuples


@dataclass(frozen=True, eq=False)
class ResidualShift:
    """The direction of a shift behind a block, fitted once; `edit` gives it any strength.

    Attributes
    ----------
    vlm : Vlm
        The model that it was fitted on.
    encoder : str
    layer : int
        Index of the block.
    direction : Tensor, shape [width], float64
        As long as the mean difference between safe and unsafe items there.
    n : int
        Number of tuples.

    Examples
    --------
    >>> import uwmlib as uwm
    >>> from uwmlib.editing import fit_residual_shift
    >>> llava = uwm.load_model("mini-LLaVA")
    >>> tuples = uwm.load_tuples("mini-visu", split="train", n=50)
    >>> shift = fit_residual_shift(llava, tuples, layer=-2, progress=False)
    >>> shift.layer, shift.edit(2.0).n_weights
    (2, 128)
    """

    vlm: Vlm
    encoder: str
    layer: int
    direction: torch.Tensor
    n: int

    def edit(self, alpha: float = 1.0) -> WeightEdit:
        """Return the edit that adds alpha times the direction at every token (`residual_shift_edit`)."""
        wanted = (finite_number(alpha, "alpha") * self.direction).float()
        made = residual_shift_edit(self.vlm, self.encoder, self.layer, wanted)
        facts = {"method": "safe-residual-shift", "alpha": alpha, "n": self.n}
        return WeightEdit(made.changes, made.description | facts)


def fit_residual_shift(
    vlm: Vlm,
    tuples: Tuples,
    *,
    encoder: str = "vision",
    layer: int = -2,
    ridge: float = RIDGE,
    batch_size: int = 64,
    progress: bool = True,
) -> ResidualShift:
    """Fit the direction of a safe shift in the residual stream behind a block.

    With h the stream at the tokens of an item, d = mean over tuples of mean(h_safe) - mean(h_unsafe), the means over
    tokens, and S the covariance of all tokens plus the ridge: S^-1 d, made as long as d. S turns it away from where
    tokens differ anyway. Moments alone are kept, so memory does not grow with the tuples.

    Parameters
    ----------
    vlm : Vlm
        A LLaVA has its vision tower; it reads the stream behind the block before the last.
    tuples : Tuples
    encoder : "text" or "vision"
        Of texts the tokens that carry text count.
    layer : int
        Index of the block, from the input, or below 0 from the end.
    ridge : float
        What is added to every variance, as a share of the mean one.
    batch_size : int
    progress : bool

    Returns
    -------
    ResidualShift

    Raises
    ------
    UwmError
        For a name in place of a model or of tuples, an encoder or a block that there is not, a ridge that is not
        positive, or safe and unsafe items that do not differ there.

    Examples
    --------
    >>> import uwmlib as uwm
    >>> from uwmlib.editing import fit_residual_shift
    >>> vlm = uwm.load_model("mini-ViT-L-14")
    >>> tuples = uwm.load_tuples("mini-visu", split="train", n=20)
    >>> options = {"encoder": "text", "progress": False}
    >>> shift = fit_residual_shift(vlm, tuples, layer=1, **options)
    >>> shift.direction.shape
    torch.Size([96])
    """
    require_vlm(vlm)
    require_tuples(tuples)
    if finite_number(ridge, "ridge") <= 0:
        raise UwmError(f"ridge is {ridge}: give a positive share of the mean variance, such as {RIDGE}.")
    check_batch_size(batch_size)
    depth = len(find_blocks(vlm.model, known(encoder, ENCODERS, "encoder"))[1])
    layer = whole_number(layer, "layer", least=-depth, most=depth - 1) % depth
    moments = _Moments()
    starts = tqdm(range(0, len(tuples), batch_size), disable=not progress, desc="residual shift")
    for start in starts:
        part = tuples[start : start + batch_size]
        sides = [_stream(vlm, part, side, encoder, layer) for side in ("safe", "unsafe")]
        moments.add(*sides)
    return ResidualShift(vlm, encoder, layer, moments.direction(ridge), len(tuples))


@torch.inference_mode()
def _stream(vlm: Vlm, part: Tuples, side: str, encoder: str, layer: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the stream [B, T, width] behind a block for one side of a batch, and which tokens count [B, T]."""
    seen: dict[int, torch.Tensor] = {}
    with capture_blocks(vlm.model, encoder, lambda at, x: seen.update({at: x}) if at == layer else None):
        if encoder == "text":
            tokens = vlm.tokenize(getattr(part, f"{side}_texts"))
            vlm.text_features(tokens)
            mask = vlm.token_mask(tokens)
        else:
            vlm.image_features(vlm.preprocess(getattr(part, f"{side}_images")[:]))
            mask = torch.ones(seen[layer].shape[:2], dtype=torch.bool)
    return seen[layer].double().cpu(), mask.cpu()


class _Moments:
    """Sums over tokens and pairs, from which the mean difference and the covariance follow."""

    def __init__(self) -> None:
        self.pairs = self.tokens = 0
        self.difference: Any = 0.0
        self.sum: Any = 0.0
        self.squares: Any = 0.0

    def add(self, *sides: tuple[torch.Tensor, torch.Tensor]) -> None:
        """Add the safe and the unsafe side of a batch."""
        means = []
        for stream, mask in sides:
            rows = stream[mask]  # [all counted tokens, width]
            self.tokens += len(rows)
            self.sum = self.sum + rows.sum(dim=0)
            self.squares = self.squares + rows.T @ rows
            counted = stream * mask[..., None]
            means.append(counted.sum(dim=1) / mask.sum(dim=1, keepdim=True))
        self.pairs += len(means[0])
        self.difference = self.difference + (means[0] - means[1]).sum(dim=0)

    def direction(self, ridge: float) -> torch.Tensor:
        """Return S^-1 d, as long as d."""
        mean, d = self.sum / self.tokens, self.difference / self.pairs
        spread = self.squares / self.tokens - torch.outer(mean, mean)
        spread = spread + ridge * spread.diagonal().mean() * torch.eye(len(spread), dtype=spread.dtype)
        if not d.any() or not spread.any():
            raise UwmError(
                "Safe and unsafe items do not differ in these tuples: there is no side to lean to."
            )
        whitened = torch.linalg.solve(spread, d)
        return whitened * d.norm() / whitened.norm()
