"""The scores of Sec. 4 as pure arithmetic: token statistics, saliency, and the sums over calibration pairs.

A pair's saliency matrix (Eq. 8) is an outer product, so is its quotient by the standard deviation (Eq. 9),
and so is the unsafe/safe ratio of a pair. Sums of outer products over a batch are matrix products
[out, B] x [B, in]: nothing of size [B, out, in] is ever formed.
"""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
import torch

from uwmlib.errors import UwmError
from uwmlib.options import known

VARIANTS = ("released", "paper", "unsafe-only", "difference")

# Added to every standard deviation. The released code does so for the vision encoder only.
EPSILON = 1e-8
# A row of zero weights receives nothing from either partner; this makes its ratio 1 instead of 0/0.
TINY = 1e-30
# How many samples a thread reduces before it takes the next ones.
SAMPLES = 4

Array = np.ndarray | torch.Tensor


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
    count = torch.full((len(z),), z.shape[1]) if mask is None else mask.sum(dim=1)
    if (count < 2).any():
        sample = int((count < 2).nonzero()[0])
        raise UwmError(f"Sample {sample} has fewer than two tokens, so no standard deviation: leave it out.")
    return _sample_by_sample(z, mask) if z.device.type == "cpu" else _at_once(z, mask)


def _at_once(z: torch.Tensor, mask: torch.Tensor | None) -> tuple[torch.Tensor, torch.Tensor]:
    """`token_statistics` of a whole batch in each step, as an accelerator wants it."""
    if mask is None:
        return _statistics(z, z.shape[1])
    keep = mask.unsqueeze(-1)  # [B, T] -> [B, T, 1]
    return _statistics(z.masked_fill(~keep, 0), keep.sum(dim=1), keep)


def _sample_by_sample(z: torch.Tensor, mask: torch.Tensor | None) -> tuple[torch.Tensor, torch.Tensor]:
    """`token_statistics` on a processor, whose cache holds one sample but not a batch.

    torch would split every step of every sample among its threads and have them wait for each other each time,
    which takes longer than the steps do where another process has a core. Here threads meet once, at the end.
    """
    norm, std = (z.new_empty(len(z), z.shape[2]) for _ in range(2))
    samples, norms, stds = z.detach().numpy(), norm.numpy(), std.numpy()
    keep = None if mask is None else mask.numpy()

    def reduce(first: int) -> None:
        # Samples without finite numbers give statistics without them, silently, as in torch.
        with np.errstate(all="ignore"):
            for row in range(first, min(first + SAMPLES, len(samples))):
                tokens = samples[row] if keep is None else samples[row][keep[row]]
                norms[row], stds[row] = _statistics(tokens, len(tokens))

    with ThreadPoolExecutor(torch.get_num_threads()) as pool:
        list(pool.map(reduce, range(0, len(samples), SAMPLES)))  # a list, so that errors of threads come out
    return norm, std


def _statistics(tokens: Array, count: Array | int, keep: Array | None = None) -> tuple[Array, Array]:
    """Norm and standard deviation over the last axis but one; NumPy and torch read the same arithmetic."""
    mean = tokens.sum(axis=-2) / count  # [..., T, in] -> [..., in]
    deviations = tokens - mean[..., None, :]
    if keep is not None:
        deviations *= keep
    # The mean is rounded, so the deviations do not sum to zero; what is left of it goes into the mean.
    rest = deviations.sum(axis=-2) / count
    deviations *= deviations
    variance = (deviations.sum(axis=-2) - count * rest * rest).clip(0) / (count - 1)
    mean += rest
    std = variance**0.5 + EPSILON
    return ((count - 1) * std * std + count * mean * mean) ** 0.5, std


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
