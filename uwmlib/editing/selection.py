"""Which weights of a layer to edit, given one score per weight."""

from __future__ import annotations

import torch

from uwmlib.errors import UwmError
from uwmlib.metrics.tensors import as_tensor
from uwmlib.options import known, number

RULES = ("adaptive", "fixed", "positive")


def select(score: torch.Tensor, tau: float, *, rule: str) -> torch.Tensor:
    """Select by name of the rule: `select_adaptive`, `select_fixed` or `select_positive`."""
    rules = dict(zip(RULES, (select_adaptive, select_fixed, select_positive), strict=True))
    return rules[known(rule, RULES, "selection rule")](score, tau)


def select_adaptive(score: torch.Tensor, tau: float, *, sums: torch.dtype = torch.float64) -> torch.Tensor:
    """Select the smallest set of top weights that holds at least `tau` of the layer's total score.

    This is the sentence below Eq. 11 and the released rule (sort ascending, select where the cumulative share
    exceeds 1 - tau); Eq. 11 as printed compares a weight's own share with 1 - tau and would select nothing.
    Of equal scores the lower flat index is taken first.

    Negative scores (the "difference" variant) keep the released behaviour: shares are score / total. With a
    positive total that is again a top set, of a mass that the negative scores reduce; with a negative total
    the shares change sign, and the *lowest* scores are selected.

    Parameters
    ----------
    score : Tensor, any shape
    tau : float in (0, 1)
    sums : dtype
        In which the scores are added up. Released: float32.

    Returns
    -------
    LongTensor, shape [k]
        Flat indices, ascending; k >= 1.

    Raises
    ------
    UwmError
        If tau is outside (0, 1), a score is NaN or infinite, or the scores sum to zero.

    Examples
    --------
    Of a total of 10 the largest score holds less than one half, the two
    largest hold 7:

    >>> import torch
    >>> from uwmlib.editing import select_adaptive
    >>> score = torch.tensor([[4.0, 1.0], [2.0, 3.0]])
    >>> select_adaptive(score, tau=0.5)
    tensor([0, 3])
    """
    score = _checked(score, tau)
    flat = score.detach().flatten()
    total = float(flat.to(sums).sum())
    if total == 0:
        raise UwmError(
            "The scores of a layer sum to zero, so it has no mass to select from: leave that layer out."
        )
    ordered, order = torch.sort(flat if total > 0 else -flat, descending=True, stable=True)
    held = ordered.to(sums).cumsum(dim=0)
    # A weight is selected if those before it hold less than tau; the mass before the first is zero.
    selected = 1 + int((held[:-1] < tau * held[-1]).sum())
    return order[:selected].sort().values


def select_fixed(score: torch.Tensor, tau: float) -> torch.Tensor:
    """Select the weights whose score is strictly above the k-th smallest, k = int((1 - tau) * numel).

    This is the released hard threshold (ablations of Tables 3 and 6, gradient baselines). Without ties it
    selects a share of about `tau` of the weights; scores tied with the threshold are left alone; k = 0
    selects nothing.

    Parameters
    ----------
    score : Tensor, any shape
    tau : float in (0, 1)

    Returns
    -------
    LongTensor, shape [k]
        Flat indices, ascending; may be empty.

    Raises
    ------
    UwmError
        If tau is outside (0, 1), or a score is NaN or infinite.

    Examples
    --------
    One half of four weights, whatever their scores hold:

    >>> import torch
    >>> from uwmlib.editing import select_fixed
    >>> score = torch.tensor([[90.0, 1.0], [2.0, 3.0]])
    >>> select_fixed(score, tau=0.5)
    tensor([0, 3])
    """
    score = _checked(score, tau)
    flat = score.detach().flatten()
    k = int((1 - tau) * flat.numel())
    if k < 1:
        return torch.empty(0, dtype=torch.long, device=flat.device)
    return (flat > flat.kthvalue(k).values).nonzero().flatten()


def select_positive(score: torch.Tensor, tau: float) -> torch.Tensor:
    """Select the smallest set of top weights that holds at least `tau` of the mass of the positive scores.

    `select_adaptive` with its sign repaired: negative scores count as no mass, so the highest scores are selected
    whatever the sign of the total. Where no score is negative the two rules are one. Not in the released code.

    Parameters
    ----------
    score : Tensor, any shape
    tau : float in (0, 1)

    Returns
    -------
    LongTensor, shape [k]
        Flat indices, ascending; empty where no score is positive.

    Raises
    ------
    UwmError
        If tau is outside (0, 1), or a score is NaN or infinite.

    Examples
    --------
    The scores sum to -4, where `select_adaptive` takes the lowest:

    >>> import torch
    >>> from uwmlib.editing import select_adaptive, select_positive
    >>> score = torch.tensor([[4.0, 2.0], [-1.0, -9.0]])
    >>> select_positive(score, tau=0.5)
    tensor([0])
    >>> select_adaptive(score, tau=0.5)
    tensor([3])
    """
    score = _checked(score, tau)
    positive = score.detach().clamp_min(0)
    if not positive.any():
        return torch.empty(0, dtype=torch.long, device=score.device)
    return select_adaptive(positive, tau)


def check_tau(tau: float) -> None:
    """Raise UwmError unless tau is a number in (0, 1)."""
    if not 0 < number(tau, "tau") < 1:
        raise UwmError(f"tau is {tau}, but it is a share: give a number between 0 and 1, such as 0.02.")


def _checked(score: torch.Tensor, tau: float) -> torch.Tensor:
    check_tau(tau)
    score = as_tensor("The score", score)
    if not score.is_floating_point() or score.numel() == 0:
        what = f"{score.dtype} {list(score.shape)}"
        raise UwmError(f"The score to select from is {what}: give one floating-point number per weight.")
    if not torch.isfinite(score).all():
        raise UwmError(
            "A score is NaN or infinite, so the weights have no order: look at the activations of that layer."
        )
    return score
