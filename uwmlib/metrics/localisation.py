"""How well a ranking of weights finds those that are known to matter: AUROC, precision, recall."""

from __future__ import annotations

import torch
from torch import Tensor

from uwmlib.errors import UwmError
from uwmlib.metrics.tensors import as_tensor
from uwmlib.options import whole_number


def auroc(score: Tensor, truth: Tensor) -> float:
    """Return the chance that a true item scores above one that is not, ties counting one half (Mann-Whitney's U).

    Parameters
    ----------
    score : Tensor, any shape
        One number for each item; the higher, the likelier.
    truth : BoolTensor, the same shape
        With at least one true item and one that is not.

    Returns
    -------
    float
        In [0, 1]: 1 where every true item is above every other one, 0.5 where the order says nothing.

    Raises
    ------
    UwmError
        If they do not fit, a score is not finite, or all items are of one kind.

    Examples
    --------
    Of the four pairs of a true item and another, three are in order:

    >>> import torch
    >>> from uwmlib.metrics import auroc
    >>> score = torch.tensor([0.9, 0.4, 0.6, 0.1])
    >>> auroc(score, torch.tensor([True, True, False, False]))
    0.75
    """
    score, truth = _checked(score, truth)
    levels, place, counts = torch.unique(score, return_inverse=True, return_counts=True)
    behind = counts.cumsum(dim=0).double()
    rank = behind - (counts.double() - 1) / 2  # of the items of a level, the mean of their ranks
    n_true = int(truth.sum())
    n_other = len(truth) - n_true
    above = float(rank[place[truth]].sum()) - n_true * (n_true + 1) / 2
    return above / (n_true * n_other)


def top_k(score: Tensor, k: int) -> Tensor:
    """Return which k items score highest, bool of the shape of `score`; of equal scores the lower index is first.

    Examples
    --------
    >>> import torch
    >>> from uwmlib.metrics import top_k
    >>> top_k(torch.tensor([0.2, 0.9, 0.9]), 1)
    tensor([False,  True, False])
    """
    flat = as_tensor("score", score).detach().flatten()
    whole_number(k, "k", least=0, most=len(flat))
    chosen = torch.zeros(len(flat), dtype=torch.bool)
    chosen[flat.argsort(descending=True, stable=True)[:k]] = True
    return chosen.view(score.shape)


def precision_and_recall(chosen: Tensor, truth: Tensor) -> tuple[float, float]:
    """Return the share of what is chosen that is true, and the share of what is true that is chosen.

    Parameters
    ----------
    chosen, truth : BoolTensor, of one shape
        Where nothing is chosen, the precision is 0.

    Raises
    ------
    UwmError
        If they do not fit, or nothing is true.

    Examples
    --------
    >>> import torch
    >>> from uwmlib.metrics import precision_and_recall
    >>> chosen = torch.tensor([True, True, False, False])
    >>> precision_and_recall(chosen, torch.tensor([True, False, False, False]))
    (0.5, 1.0)
    """
    if chosen.shape != truth.shape or chosen.dtype != torch.bool or truth.dtype != torch.bool:
        raise UwmError("What is chosen and what is true must be boolean and of one shape.")
    if not truth.any():
        raise UwmError("Nothing is true, so nothing can be found: give a truth with at least one item.")
    hits = int((chosen & truth).sum())
    return hits / max(1, int(chosen.sum())), hits / int(truth.sum())


def _checked(score: Tensor, truth: Tensor) -> tuple[Tensor, Tensor]:
    score, truth = as_tensor("score", score).detach().flatten(), as_tensor("truth", truth).flatten()
    if len(score) != len(truth) or truth.dtype != torch.bool:
        raise UwmError("Scores and truth must be of one shape, and the truth boolean.")
    if not torch.isfinite(score).all():
        raise UwmError("A score is NaN or infinite, so the items have no order.")
    if truth.all() or not truth.any():
        raise UwmError("An AUROC needs items that are true and items that are not.")
    return score.double(), truth
