"""The scores of Sec. 4 as pure arithmetic: token statistics, saliency, and the sums over calibration pairs.

A pair's saliency matrix (Eq. 8) is an outer product, so is its quotient by the standard deviation (Eq. 9),
and so is the unsafe/safe ratio of a pair. Sums of outer products over a batch are matrix products
[out, B] x [B, in]: nothing of size [B, out, in] is ever formed.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch

from uwmlib.errors import UwmError
from uwmlib.options import known

VARIANTS = ("released", "paper", "unsafe-only", "difference")

# How much a pair counts: as every other, or so that every batch counts as every other (the released code).
WEIGHTINGS = ("tuples", "batches")
# Added to every standard deviation. The released code does so for the vision encoder only.
EPSILON = 1e-8
# A row of zero weights receives nothing from either partner; this makes its ratio 1 instead of 0/0.
TINY = 1e-30
# Numbers of a layer's input that a processor reduces at a time. Fewer would have its threads wait for each other
# more often than they work, many times so where another process has a core; more would not stay in its cache.
AT_ONCE = 3 * 2**19


def token_statistics(
    z: torch.Tensor, mask: torch.Tensor | None = None, *, epsilon: float = EPSILON
) -> tuple[torch.Tensor, torch.Tensor]:
    """L2 norm and unbiased standard deviation of every input feature over the tokens of its sample.

    Parameters
    ----------
    z : FloatTensor, shape [B, T, in]
        Input of a linear layer.
    mask : BoolTensor, shape [B, T], optional
        True where a token counts. By default all do (images); texts leave out padding.
    epsilon : float
        Added to every standard deviation. Released: 1e-8 in the vision encoder, 0 in the text encoder; printed: 0.

    Returns
    -------
    norm, std : FloatTensor, shape [B, in] each
        `std` has `epsilon` added. `norm` is put together from it,
        norm^2 = (T-1) std^2 + T mean^2, which loses no digits to cancellation. A feature that is silent on
        every token so has the finite quotient norm/std = sqrt(T-1), the smallest that any feature can have; with an
        epsilon of 0 it has none.

    Raises
    ------
    UwmError
        If a sample has fewer than two tokens, where no standard deviation exists.

    Examples
    --------
    One sample of two tokens; the norm of its first feature is that of (3, 4):

    >>> import torch
    >>> from uwmlib.editing import token_statistics
    >>> norm, std = token_statistics(torch.tensor([[[3.0, 1.0], [4.0, 1.0]]]))
    >>> norm
    tensor([[5.0000, 1.4142]])
    >>> std
    tensor([[7.0711e-01, 1.0000e-08]])
    """
    keep = z.new_ones(z.shape[:2], dtype=torch.bool) if mask is None else mask
    short = (keep.sum(dim=1) < 2).nonzero().flatten().tolist()
    if short:
        raise UwmError(
            f"Sample {short[0]} has fewer than two tokens, so no standard deviation: leave it out."
        )
    z = z.detach()
    if mask is not None:
        used = int(mask.any(dim=0).nonzero().max()) + 1  # captions end long before their row does
        z, keep = z[:, :used], keep[:, :used]
    size = len(z) if z.device.type != "cpu" else max(1, AT_ONCE // z[0].numel())
    workspace = torch.empty_like(z[:size])
    parts = [
        _statistics(tokens, kept, workspace[: len(tokens)], masked=mask is not None, epsilon=epsilon)
        for tokens, kept in zip(z.split(size), keep.split(size), strict=True)
    ]
    norm, std = (torch.cat(part) for part in zip(*parts, strict=True))
    return norm, std


def _statistics(
    z: torch.Tensor, keep: torch.Tensor, workspace: torch.Tensor, *, masked: bool, epsilon: float
) -> tuple[torch.Tensor, torch.Tensor]:
    """`token_statistics` of some samples; sums over tokens are products with a row of ones, the fastest there is."""
    if masked:
        z = z.masked_fill(~keep.unsqueeze(-1), 0)  # not only weighted by 0: padding may hold infinities
    ones = keep.unsqueeze(1).to(z.dtype)  # [b, T] -> [b, 1, T]
    count = ones.sum(dim=-1, keepdim=True)
    mean = ones @ z / count  # [b, 1, T] x [b, T, in] -> [b, 1, in]
    deviations = torch.sub(z, mean, out=workspace)
    # The mean is rounded, so the deviations do not sum to zero; what is left of it goes into the mean.
    rest = ones @ deviations / count
    variance = (ones @ deviations.square_() - count * rest * rest).clamp_min_(0) / (count - 1)
    mean += rest
    std = variance.sqrt_() + epsilon
    norm = ((count - 1) * std * std + count * mean * mean).sqrt_()
    return norm.squeeze(1), std.squeeze(1)  # [b, 1, in] -> [b, in]


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

    Examples
    --------
    The first output node receives (1 * 1 + 2 * 3) / 2 = 3.5:

    >>> import torch
    >>> from uwmlib.editing import received
    >>> magnitude = torch.tensor([[1.0, 3.0], [2.0, 4.0]])
    >>> received(torch.tensor([[1.0, 2.0]]), magnitude)
    tensor([[3.5000, 5.0000]])
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

    Examples
    --------
    >>> import torch
    >>> from uwmlib.editing import emitted
    >>> emitted(torch.tensor([[1.0, 3.0], [2.0, 4.0]]))
    tensor([1.5000, 3.5000])
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

    Examples
    --------
    One pair and a weight of 1. The unsafe partner sends a norm of 6 through
    it, the safe one of 2, both with a deviation of 2:

    >>> import torch
    >>> from uwmlib.editing import PairSums
    >>> sums = PairSums.zeros((1, 1))
    >>> norm, std = torch.tensor([[2.0], [6.0]]), torch.tensor([[2.0], [2.0]])
    >>> sums.add(norm, std, torch.tensor([[1.0]]))
    >>> float(sums.unsafe), float(sums.safe), float(sums.ratio)
    (18.0, 2.0, 9.0)
    """

    unsafe: torch.Tensor
    safe: torch.Tensor
    ratio: torch.Tensor

    @classmethod
    def zeros(cls, shape: tuple[int, int], device: torch.device | str = "cpu") -> PairSums:
        """Return float32 sums over no pairs, for a weight of this shape."""
        return cls(*(torch.zeros(shape, device=device) for _ in range(3)))

    def add(
        self, norm: torch.Tensor, std: torch.Tensor, magnitude: torch.Tensor, *, weight: float = 1.0
    ) -> None:
        """Add B pairs in place.

        Parameters
        ----------
        norm, std : FloatTensor, shape [2B, in]
            `token_statistics` of the B safe samples followed by their B unsafe partners, in the same order.
        magnitude : FloatTensor, shape [out, in]
            |W|.
        weight : float
            How much each of these pairs counts.
        """
        safe_in, unsafe_in = (norm / std).chunk(2)  # [2B, in] -> two of [B, in]
        safe_out, unsafe_out = received(norm, magnitude).chunk(2)  # [2B, out] -> two of [B, out]
        self.safe.addmm_(safe_out.T, safe_in, alpha=weight)  # [out, B] x [B, in]
        self.unsafe.addmm_(unsafe_out.T, unsafe_in, alpha=weight)
        self.ratio.addmm_((unsafe_out / safe_out).T, unsafe_in / safe_in, alpha=weight)


def weight_in_batch(size: int, n: int, batch_size: int, *, weigh: str) -> float:
    """Return how much each pair of a batch counts, in a pass over `n` pairs.

    The released code takes the mean of the means of its batches, so a short last batch counts as a whole one, and each
    of its pairs for more. Weights average to 1, so that sums are divided by `n` in either case.

    Parameters
    ----------
    size : int
        Pairs in this batch.
    n, batch_size : int
        Pairs in all, and in a whole batch.
    weigh : "tuples" or "batches"

    Returns
    -------
    float

    Examples
    --------
    Three pairs in batches of two: the mean of two means counts the last pair
    as much as the first two together.

    >>> from uwmlib.editing.saliency import weight_in_batch
    >>> [weight_in_batch(size, 3, 2, weigh="batches") for size in (2, 1)]
    [0.75, 1.5]
    """
    if known(weigh, WEIGHTINGS, "weighting") == "tuples":
        return 1.0
    return n / (math.ceil(n / batch_size) * size)


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

    Examples
    --------
    Two pairs, whose unsafe terms are 4 and 2 and whose safe terms are 1 and 2:
    the mean of the ratios 4 and 1 is 2.5, the ratio of the means is 2.

    >>> import torch
    >>> from uwmlib.editing import PairSums, combine
    >>> sums = PairSums(*(torch.tensor([[x]]) for x in (6.0, 3.0, 5.0)))
    >>> weight = torch.tensor([[1.0]])
    >>> float(combine(sums, 2, weight, variant="released", prior=False))
    2.5
    >>> float(combine(sums, 2, weight, variant="paper", prior=False))
    2.0
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
