"""Zero-shot classification (Sec. 5.1, Table 2): what the model still knows."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from uwmlib.errors import UwmError
from uwmlib.metrics.embeddings import TIE, check_embeddings, unit_rows
from uwmlib.metrics.intervals import mean_of_estimates
from uwmlib.metrics.score import PERCENT, Score, share_of
from uwmlib.metrics.tensors import as_tensor

_CHUNK = 1024


def classify(image_embeddings: Tensor, class_embeddings: Tensor) -> Tensor:
    """Return each image's class of highest cosine.

    Parameters
    ----------
    image_embeddings : Tensor, shape [N, D], floating
    class_embeddings : Tensor, shape [C, D], floating

    Returns
    -------
    Tensor, shape [N], int64, on the CPU
        The lowest index among classes whose cosines are tied (nearer than 1e-12 in float64).

    Raises
    ------
    UwmError
        If a shape is not [., D] with one D, is empty, or a row is zero or holds NaN or Inf.

    Examples
    --------
    >>> import torch
    >>> from uwmlib.metrics import classify
    >>> classes = torch.tensor([[1.0, 0.0], [0.0, 1.0]])
    >>> images = torch.tensor([[3.0, 1.0], [1.0, 3.0], [1.0, 1.0]])
    >>> classify(images, classes)  # the last image is tied
    tensor([0, 1, 0])
    """
    (images,) = check_embeddings(image_embeddings=image_embeddings).values()
    (classes,) = check_embeddings(class_embeddings=class_embeddings).values()
    if images.shape[1] != classes.shape[1]:
        widths = f"{images.shape[1]} and {classes.shape[1]}"
        raise UwmError(f"Images and classes have widths {widths}: embed both with one model.")
    classes = unit_rows("class_embeddings", classes)
    predicted = []
    for part in unit_rows("image_embeddings", images).split(_CHUNK):
        cosines = part @ classes.T  # [chunk, D] x [D, C] -> [chunk, C]
        best = cosines >= cosines.amax(dim=1, keepdim=True) - TIE
        predicted.append(best.int().argmax(dim=1))  # the first of the best
    return torch.cat(predicted).cpu()


def accuracy(pred: Tensor, labels: Tensor) -> Score:
    """Return the share of correct predictions.

    Parameters
    ----------
    pred, labels : Tensor, shape [N], integer

    Raises
    ------
    UwmError
        If they are empty, no whole numbers, or not one prediction per label.

    Examples
    --------
    >>> import torch
    >>> from uwmlib.metrics import accuracy
    >>> right = accuracy(torch.tensor([0, 1, 1, 2]), torch.tensor([0, 1, 2, 2]))
    >>> right.value, right.n
    (75.0, 4)
    """
    pred, labels = as_tensor("pred", pred).cpu(), as_tensor("labels", labels).cpu()
    if pred.ndim != 1 or pred.shape != labels.shape or len(pred) == 0:
        raise UwmError(f"Give one prediction per label, not {list(pred.shape)} for {list(labels.shape)}.")
    for name, classes in (("pred", pred), ("labels", labels)):
        if classes.is_floating_point() or classes.is_complex() or classes.dtype == torch.bool:
            raise UwmError(f"{name} holds {classes.dtype}: give the index of a class for each item.")
    return share_of(pred == labels)


def mean_accuracy(accuracies: Mapping[str, Score]) -> Score:
    """Average accuracies over data sets, every set counting the same (zs_mean of Table 1).

    The interval says how well the finite test sets let *this* mean be known: each set's own binomial
    uncertainty is carried into the mean (`mean_of_estimates`), so one set gives Wilson's interval. It is not a
    bootstrap over data sets: the 17 sets are fixed, not drawn from a population of tasks.

    Parameters
    ----------
    accuracies : mapping of data-set name to Score
        As `accuracy` returns them; the mean keeps them as its `parts`.

    Raises
    ------
    UwmError
        If there is no data set, or what is given for one is no Score with an interval.

    Examples
    --------
    Each set counts the same, however large it is:

    >>> from uwmlib.metrics import mean_accuracy, share_of
    >>> small, large = share_of([True, False]), share_of([True] * 8)
    >>> mean = mean_accuracy({"small": small, "large": large})
    >>> mean.value, mean.n
    (75.0, 10)
    """
    if not isinstance(accuracies, Mapping) or not all(
        isinstance(each, Score) and each.interval for each in accuracies.values()
    ):
        raise UwmError("Accuracies are averaged by name: give a mapping of data-set name to Score.")
    if not accuracies:
        raise UwmError("There is no accuracy to average: give at least one data set.")
    mean, limits = mean_of_estimates([(each.value, each.interval) for each in accuracies.values()])
    return Score(mean, limits, sum(each.n for each in accuracies.values()), PERCENT, parts=accuracies)
