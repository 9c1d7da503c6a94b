"""The scores of Sec. 4 as pure arithmetic: token statistics, saliency, and the sums over calibration pairs.

A pair's saliency matrix (Eq. 8) is an outer product, so is its quotient by the standard deviation (Eq. 9),
and so is the unsafe/safe ratio of a pair. Sums of outer products over a batch are matrix products
[out, B] x [B, in]: nothing of size [B, out, in] is ever formed.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch

from uwmlib.errors import UwmError
from uwmlib.options import known

VARIANTS = ("released", "paper", "unsafe-only", "difference")

# Added to every standard deviation. The released code does so for the vision encoder only.
EPSILON = 1e-8
# A row of zero weights receives nothing from either partner; this makes its ratio 1 instead of 0/0.
TINY = 1e-30
# Numbers that are reduced together on a processor: 6 MiB of float32.
CHUNK = 3 * 2**19


def token_statistics(z: torch.Tensor, mask: torch.Tensor | None = None) -> tuple[torch.Tensor, torch.Tensor]:
    """L2 norm and unbiased standard deviation of every input feature over the tokens of its sample.

    Parameters
    ----------
    z : FloatTensor, shape [B, T, in]
        Input of a linear layer.
    mask : BoolTensor, shape [B, T], optional
        True where a token counts. By default all do (images); texts leave out padding.

    Returns
    -------
    norm, std : FloatTensor, shape [B, in] each
        `std` has 1e-8 added in both encoders (released: vision only). `norm` is put together from it,
        norm^2 = (T-1) std^2 + T mean^2, which loses no digits to cancellation. A feature that is silent on
        every token so has the finite quotient norm/std = sqrt(T-1), the smallest that any feature can have.

    Raises
    ------
    UwmError
        If a sample has fewer than two tokens, where no standard deviation exists.
    """
    keep = None if mask is None else mask.unsqueeze(-1)  # [B, T] -> [B, T, 1]
    count = z.new_full((len(z), 1), z.shape[1]) if keep is None else keep.sum(dim=1).to(z.dtype)  # [B, 1]
    if (count < 2).any():
        sample = int((count < 2).flatten().nonzero()[0])
        raise UwmError(f"Sample {sample} has fewer than two tokens, so no standard deviation: leave it out.")
    if keep is not None:
        length = int(mask.any(dim=0).nonzero()[-1]) + 1  # short captions leave most of a context unused
        z, keep = z[:, :length], keep[:, :length]
    mean, rest, squares = (z.new_empty(len(z), z.shape[2]) for _ in range(3))
    chunk = _samples_at_once(z)
    work = torch.empty_like(z[:chunk])
    for start in range(0, len(z), chunk):
        part = slice(start, start + chunk)
        tokens, deviations = z[part], work[: len(z[part])]
        if keep is not None:
            tokens = deviations.copy_(tokens).masked_fill_(~keep[part], 0)
        torch.sum(tokens, dim=1, out=mean[part])  # [b, T, in] -> [b, in]
        torch.sub(tokens, mean[part].div_(count[part]).unsqueeze(1), out=deviations)
        if keep is not None:
            deviations.masked_fill_(~keep[part], 0)
        torch.sum(deviations, dim=1, out=rest[part])
        torch.sum(deviations.square_(), dim=1, out=squares[part])
    # The mean is rounded, so the deviations do not sum to zero: what is left of it belongs to the mean.
    mean.addcdiv_(rest, count)
    variance = squares.addcdiv_(rest.square_(), count, value=-1).clamp_min_(0).div_(count - 1)
    std = variance.sqrt_().add_(EPSILON)
    return torch.hypot((count - 1).sqrt() * std, mean.mul_(count.sqrt())), std


def _samples_at_once(z: torch.Tensor) -> int:
    """Return how many samples of z [B, T, in] are reduced together.

    Few enough that a processor's cache holds them from one reduction to the next, and enough that the threads
    seldom wait for one another, which costs most where another process takes a core.
    """
    return max(1, CHUNK // z[0].numel()) if z.device.type == "cpu" else len(z)


def received(norm: torch.Tensor, magnitude: torch.Tensor) -> torch.Tensor:
    """What each output node receives: the left factor of Eq. 8, mean_i norm_i |W_ji|.

    Parameters
    ----------
    norm : FloatTensor, shape [B, in]
    magnitude : FloatTensor, shape [out, in]
        |W|.

    Returns
    -------
    FloatTensor, shape [B, out], greater than 0
    """
    return (norm @ magnitude.T).div_(magnitude.shape[1]).clamp_min_(TINY)


def emitted(magnitude: torch.Tensor) -> torch.Tensor:
    """What each input node emits per unit of its norm: mean_j |W_ji|, from the right factor of Eq. 8.

    Parameters
    ----------
    magnitude : FloatTensor, shape [out, in]

    Returns
    -------
    FloatTensor, shape [in]
    """
    return magnitude.mean(dim=0)


@dataclass(frozen=True)
class PairSums:
    """Sums over calibration pairs from which every variant of the score follows.

    Attributes
    ----------
    unsafe, safe : FloatTensor, shape [out, in]
        Sum over n of A[n, j] norm[n, i] / std[n, i]: Eq. 9 times |D|, without the factor mean_j |W_ji|.
    ratio : FloatTensor, shape [out, in]
        Sum over n of the pair's unsafe term divided by its safe term.
    """

    unsafe: torch.Tensor
    safe: torch.Tensor
    ratio: torch.Tensor

    @classmethod
    def zeros(cls, shape: tuple[int, int], device: torch.device | str = "cpu") -> PairSums:
        """Return float32 sums over no pairs, for a weight of this shape."""
        return cls(*(torch.zeros(shape, device=device) for _ in range(3)))

    def add(self, norm: torch.Tensor, std: torch.Tensor, magnitude: torch.Tensor) -> None:
        """Add B pairs in place.

        Parameters
        ----------
        norm, std : FloatTensor, shape [2B, in]
            `token_statistics` of the B safe samples followed by their B unsafe partners, in the same order.
        magnitude : FloatTensor, shape [out, in]
            |W|.
        """
        safe_in, unsafe_in = (norm / std).chunk(2)  # [2B, in] -> two of [B, in]
        safe_out, unsafe_out = received(norm, magnitude).chunk(2)  # [2B, out] -> two of [B, out]
        self.safe.addmm_(safe_out.T, safe_in)  # [out, B] x [B, in]
        self.unsafe.addmm_(unsafe_out.T, unsafe_in)
        self.ratio.addmm_((unsafe_out / safe_out).T, unsafe_in / safe_in)


def combine(sums: PairSums, n: int, magnitude: torch.Tensor, *, variant: str, prior: bool) -> torch.Tensor:
    """Make one score per weight out of the sums over `n` pairs.

    Parameters
    ----------
    sums : PairSums
    n : int
        Number of pairs that were added.
    magnitude : FloatTensor, shape [out, in]
        |W|.
    variant : str
        "released": mean over pairs of the pair's ratio, what the authors' code computes.
        "paper": ratio of the two means, Eq. 9-10 as printed.
        "unsafe-only": mean of the unsafe term, Eq. 9 (Table 3, row 2).
        "difference": mean of unsafe minus safe (Table 6, row 4); it may be negative.
    prior : bool
        Multiply by |W| (Sec. 4; Table 7).

    Returns
    -------
    FloatTensor, shape [out, in]

    Raises
    ------
    UwmError
        If the variant is unknown.
    """
    known(variant, VARIANTS, "variant")
    # The factor mean_j |W_ji| is the same for safe and unsafe, so the two ratios do not hold it.
    if variant == "released":
        score = sums.ratio / n
    elif variant == "paper":
        score = sums.unsafe / sums.safe
    elif variant == "unsafe-only":
        score = sums.unsafe / n * emitted(magnitude)
    else:
        score = (sums.unsafe - sums.safe) / n * emitted(magnitude)
    return score * magnitude if prior else score
