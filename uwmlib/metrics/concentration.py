"""How much of a layer's activations, or of its weights, sits in few channels, tokens or entries."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import torch
from torch import Tensor

from uwmlib.errors import UwmError
from uwmlib.metrics.tensors import as_tensor
from uwmlib.options import finite_number

TOP = 0.01  #: share of channels, tokens, entries or columns that counts as the largest ones
SIGMAS = 3.0  #: a token is an outlier if its norm is so many standard deviations above the mean norm
MASSIVE = 100.0  #: a massive activation is larger than this ...
MASSIVE_RATIO = 1000.0  #: ... and at least so many times the median of its sample
# Numbers that are taken to float64 at a time.
AT_ONCE = 2**21


def top_share(parts: Tensor, *, share: float = TOP) -> float:
    """Return which share of a total the largest parts hold.

    sum of the k largest p_i / sum_i p_i, with k = ceil(share P), at least 1.

    Parameters
    ----------
    parts : Tensor, any shape, P >= 1 numbers from 0 up
    share : float in [0, 1]
        Of the parts; 0 takes the largest alone.

    Returns
    -------
    float in [k / P, 1]
        NaN if all parts are 0.

    Raises
    ------
    UwmError
        For no parts, parts below 0 or not finite, or a share outside [0, 1].

    Examples
    --------
    The largest of four parts holds seven tenths, the larger half nine:

    >>> import torch
    >>> from uwmlib.metrics import top_share
    >>> parts = torch.tensor([2.0, 7.0, 0.5, 0.5])
    >>> print(f"{top_share(parts):.1f} {top_share(parts, share=0.5):.1f}")
    0.7 0.9
    """
    parts = as_tensor("The parts", parts).flatten().double()
    if not len(parts) or not torch.isfinite(parts).all() or parts.min() < 0:
        raise UwmError("The parts of a total must be finite numbers from 0 up, and at least one: check them.")
    if not 0 <= finite_number(share, "share") <= 1:
        raise UwmError(f"share is {share}: give a number from 0 to 1, such as 0.01.")
    largest = parts.topk(_count(len(parts), share)).values
    return float(largest.sum() / parts.sum())


def weight_concentration(weight: Tensor) -> dict[str, float]:
    """Return how much of a weight matrix sits in few entries and in few columns.

    Parameters
    ----------
    weight : FloatTensor, shape [out, in]

    Returns
    -------
    dict of str to float
        "kurtosis": excess kurtosis of the entries, mean (w - m)^4 / (mean (w - m)^2)^2 - 3; 0 for a Gaussian, NaN for
        equal weights. "top_entries", "top_columns": share of sum |w| in the largest hundredth of the entries (0.036
        for a Gaussian), and of the columns, which each belong to one input channel.

    Raises
    ------
    UwmError
        If it is no matrix of finite floating numbers, or holds only zeros.

    Examples
    --------
    One column of a hundred is four times as large as the others:

    >>> import torch
    >>> from uwmlib.metrics import weight_concentration
    >>> weight = torch.ones(8, 100)
    >>> weight[:, 3] = 4
    >>> print(f"{weight_concentration(weight)['top_columns']:.4f}")
    0.0388
    """
    weight = as_tensor("The weight", weight)
    if weight.ndim != 2 or not weight.is_floating_point() or not weight.any():
        raise UwmError(
            f"The weight must be a floating matrix [out, in] that is not all zeros, not {weight.dtype} "
            f"{list(weight.shape)}."
        )
    weight = weight.double()
    powers = torch.stack([weight.pow(power).mean() for power in (1, 2, 3, 4)])
    magnitude = weight.abs()
    return {
        "kurtosis": _excess_kurtosis(powers),
        "top_entries": top_share(magnitude),
        "top_columns": top_share(magnitude.sum(dim=0)),
    }


@dataclass
class ActivationSums:
    """Sums over the activations of one place in a model, batch by batch; no activation is kept.

    Attributes
    ----------
    energy : FloatTensor, shape [C], float64
        Of every channel: sum of squares over all tokens.
    powers : FloatTensor, shape [4], float64
        Sums of x, x^2, x^3 and x^4 over all entries.
    n : int
        Number of tokens.
    samples : list of dict of str to Tensor
        Of every sample of a batch, [B]: energy of its "first" and its "last" token, "peak" max |x|, and "median" |x|
        (the lower one of two).
    tokens : list of FloatTensor
        Energy of every token that is not the first of its sample.

    Examples
    --------
    Two samples of three tokens and four channels; one channel is ten times as
    large as the others:

    >>> import torch
    >>> from uwmlib.metrics import ActivationSums
    >>> x = torch.ones(2, 3, 4)
    >>> x[:, :, 1] = 10
    >>> sums = ActivationSums.zeros(4)
    >>> sums.add(x)
    >>> found = sums.concentration()
    >>> print(f"{found['top_channel']:.3f} {found['channel_ratio']:.0f}")
    0.971 10
    """

    energy: Tensor
    powers: Tensor
    n: int = 0
    samples: list[dict[str, Tensor]] = field(default_factory=list)
    tokens: list[Tensor] = field(default_factory=list)

    @classmethod
    def zeros(cls, channels: int) -> ActivationSums:
        """Return empty sums, on the CPU, for activations of so many channels."""
        return cls(torch.zeros(channels, dtype=torch.float64), torch.zeros(4, dtype=torch.float64))

    def add(self, x: Tensor, mask: Tensor | None = None) -> None:
        """Add a batch.

        Parameters
        ----------
        x : FloatTensor, shape [B, T, C]
        mask : BoolTensor, shape [B, T], optional
            True where a token counts; by default all do.

        Raises
        ------
        UwmError
            For another shape, activations that are not finite, or a sample of which no token counts.
        """
        if x.ndim != 3 or x.shape[2] != len(self.energy) or not x.is_floating_point():
            raise UwmError(
                f"Activations must be floats [B, T, {len(self.energy)}], not {x.dtype} {list(x.shape)}."
            )
        keep = x.new_ones(x.shape[:2], dtype=torch.bool) if mask is None else mask.to(x.device)
        if keep.shape != x.shape[:2] or not keep.any(dim=1).all():
            raise UwmError(
                f"The mask must be [B, T] like the activations {list(x.shape)}, with a token of every sample."
            )
        size = max(1, AT_ONCE // max(1, x[0].numel()))
        for some, kept in zip(x.detach().split(size), keep.split(size), strict=True):
            self._add(some.double().masked_fill(~kept.unsqueeze(-1), 0), kept)

    def _add(self, x: Tensor, keep: Tensor) -> None:
        """Add samples in float64 whose tokens that do not count are zero."""
        squares = x * x
        if not torch.isfinite(squares.sum()):
            raise UwmError("Activations are NaN or infinite: check the inputs, or use float32.")
        self.energy += squares.sum(dim=(0, 1)).cpu()
        sums = [x.sum(), squares.sum(), (squares * x).sum(), (squares * squares).sum()]
        self.powers += torch.stack(sums).cpu()
        self.n += int(keep.sum())
        energy = squares.sum(dim=2)  # [b, T, C] -> [b, T]
        position = torch.arange(keep.shape[1], device=keep.device).expand_as(keep)
        first = position.masked_fill(~keep, keep.shape[1]).amin(dim=1, keepdim=True)
        last = position.masked_fill(~keep, -1).amax(dim=1, keepdim=True)
        magnitude = x.abs().masked_fill(~keep.unsqueeze(-1), math.nan).flatten(1)
        found = {
            "first": energy.gather(1, first).squeeze(1),
            "last": energy.gather(1, last).squeeze(1),
            "peak": magnitude.nan_to_num(nan=0).amax(dim=1),
            "median": magnitude.nanmedian(dim=1).values,
        }
        self.samples.append({name: value.cpu() for name, value in found.items()})
        self.tokens.append(energy[keep & (position != first)].cpu())

    def concentration(self) -> dict[str, float]:
        """Return what the sums say about outliers.

        With the energy E_j = sum x_j^2 of channel j, and a token's energy and norm over all its channels:

        - "top_channel", "top_channels": share of the energy in the largest channel, and in the largest hundredth of
          them (at least one);
        - "channel_ratio": sqrt(max E / median E), how many times the root mean square of the middle channel the
          largest one has;
        - "channel_kurtosis": C sum E_j^2 / (sum E_j)^2, the fourth moment of the channels' root mean squares over the
          squared second: 1 where all are alike, C where one has everything;
        - "kurtosis": excess kurtosis over all entries; 0 for a Gaussian, NaN if all are equal;
        - "first_token", "last_token": share of the energy in the samples' first and last tokens; "top_tokens": in the
          largest hundredth of all tokens;
        - "token_ratio": largest norm over the median norm, and "outlier_tokens": share of norms more than three
          standard deviations above the mean norm, both over the tokens that are not first (NaN without any);
        - "peak", "median": max |x| and median |x| of a sample, mean over samples; "peak_to_median": mean of their
          quotient;
        - "massive": share of samples with max |x| > 100 that is at least 1000 times the median.

        Returns
        -------
        dict of str to float

        Raises
        ------
        UwmError
            If nothing was added, or nothing but zeros.
        """
        if not self.energy.any():
            raise UwmError("There are no activations, or only zeros: add a batch of a model that runs.")
        energy, channels = self.energy, len(self.energy)
        samples = {name: torch.cat([each[name] for each in self.samples]) for name in self.samples[0]}
        rest = torch.cat(self.tokens)
        ratio = samples["peak"] / samples["median"]
        massive = (samples["peak"] > MASSIVE) & (ratio >= MASSIVE_RATIO)
        return {
            "top_channel": top_share(energy, share=0),
            "top_channels": top_share(energy),
            "channel_ratio": float((energy.max() / energy.median()).sqrt()),
            "channel_kurtosis": float(channels * energy.square().sum() / energy.sum().square()),
            "kurtosis": _excess_kurtosis(self.powers / (self.n * channels)),
            "first_token": float(samples["first"].sum() / energy.sum()),
            "last_token": float(samples["last"].sum() / energy.sum()),
            "top_tokens": top_share(torch.cat([samples["first"], rest])),
            **_outlying(rest.sqrt()),
            "peak": float(samples["peak"].mean()),
            "median": float(samples["median"].mean()),
            "peak_to_median": float(ratio.mean()),
            "massive": float(massive.double().mean()),
        }


def _outlying(norms: Tensor) -> dict[str, float]:
    if not len(norms):
        return {"token_ratio": math.nan, "outlier_tokens": math.nan}
    limit = norms.mean() + SIGMAS * norms.std(correction=0)
    return {
        "token_ratio": float(norms.max() / norms.median()),
        "outlier_tokens": float((norms > limit).double().mean()),
    }


def _excess_kurtosis(powers: Tensor) -> float:
    """Return the excess kurtosis from the means of x, x^2, x^3 and x^4; NaN where all x are equal."""
    mean, second, third, fourth = powers.tolist()
    variance = second - mean**2
    if variance <= 1e-12 * second:  # what rounding leaves of a variance of 0
        return math.nan
    return (fourth - 4 * mean * third + 6 * mean**2 * second - 3 * mean**4) / variance**2 - 3


def _count(total: int, share: float) -> int:
    # The tiny part taken off keeps 0.07 * 100 at 7.
    return max(1, math.ceil(share * total - 1e-9))
