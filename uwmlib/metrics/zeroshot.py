"""Zero-shot classification (Sec. 5.1, Table 2): what the model still knows."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field

import torch
from torch import Tensor

from uwmlib.errors import UwmError
from uwmlib.metrics.embeddings import TIE, check_embeddings, unit_rows
from uwmlib.metrics.intervals import check_counts, wilson
from uwmlib.metrics.tensors import as_tensor

_CHUNK = 1024


@dataclass(frozen=True)
class Accuracy:
    """Correct answers on one data set.

    Attributes
    ----------
    n_correct, n : int
        0 <= n_correct <= n, n >= 1.
    correct : Tensor, shape [n], bool, or None
        Which answers were correct, for paired comparisons; None for published or counted results.
    """

    n_correct: int
    n: int
    correct: Tensor | None = field(default=None, repr=False, compare=False)

    def __post_init__(self) -> None:
        check_counts(k=self.n_correct, n=self.n)

    @property
    def percent(self) -> float:
        """Share of correct answers, in percent."""
        return 100 * self.n_correct / self.n

    @property
    def interval(self) -> tuple[float, float]:
        """Wilson's 95% interval, in percent."""
        lo, hi = wilson(self.n_correct, self.n)
        return 100 * lo, 100 * hi

    def __str__(self) -> str:
        lo, hi = self.interval
        return f"{self.percent:.1f}% [{lo:.1f}, {hi:.1f}] ({self.n_correct} of {self.n})"


@dataclass(frozen=True)
class MeanAccuracy:
    """Unweighted mean of several data sets' accuracies, in percent, with its interval."""

    percent: float
    interval: tuple[float, float]
    n_datasets: int

    def __str__(self) -> str:
        lo, hi = self.interval
        return f"{self.percent:.1f}% [{lo:.1f}, {hi:.1f}] (mean of {self.n_datasets} data sets)"


def average_prompts(prompt_embeddings: Tensor) -> Tensor:
    """Turn embedded prompts into one unit embedding per class.

    Parameters
    ----------
    prompt_embeddings : Tensor, shape [C, D] or [C, templates, D], floating
        The paper uses one template per data set; with several, unit rows are averaged and normalised again.

    Returns
    -------
    Tensor, shape [C, D], dtype of the input

    Raises
    ------
    UwmError
        If the shape fits neither form, or a prompt (or a class's mean) is zero or holds NaN or Inf.
    """
    prompt_embeddings = as_tensor("prompt_embeddings", prompt_embeddings)
    if prompt_embeddings.ndim not in (2, 3):
        raise UwmError(f"Prompts must be [C, D] or [C, templates, D], not {list(prompt_embeddings.shape)}.")
    prompts = prompt_embeddings if prompt_embeddings.ndim == 3 else prompt_embeddings[:, None]
    flat = prompts.flatten(0, 1)  # [C, templates, D] -> [C * templates, D]
    checked = check_embeddings(prompt_embeddings=flat)["prompt_embeddings"]
    means = unit_rows("prompt_embeddings", checked).view(prompts.shape).mean(dim=1)  # -> [C, D]
    return unit_rows("the mean prompts", means).to(prompt_embeddings.dtype)


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


def accuracy(pred: Tensor, labels: Tensor) -> Accuracy:
    """Count correct predictions.

    Parameters
    ----------
    pred, labels : Tensor, shape [N], integer

    Raises
    ------
    UwmError
        If they are empty, no whole numbers, or not one prediction per label.
    """
    pred, labels = as_tensor("pred", pred).cpu(), as_tensor("labels", labels).cpu()
    if pred.ndim != 1 or pred.shape != labels.shape or len(pred) == 0:
        raise UwmError(f"Give one prediction per label, not {list(pred.shape)} for {list(labels.shape)}.")
    for name, classes in (("pred", pred), ("labels", labels)):
        if classes.is_floating_point() or classes.is_complex() or classes.dtype == torch.bool:
            raise UwmError(f"{name} holds {classes.dtype}: give the index of a class for each item.")
    correct = pred == labels
    return Accuracy(int(correct.sum()), len(labels), correct)


def mean_accuracy(accuracies: Mapping[str, Accuracy], *, level: float = 0.95) -> MeanAccuracy:
    """Average accuracies over data sets, every set counting the same (zs_mean of Table 1).

    The interval says how well the finite test sets let *this* mean be known: each set's own binomial
    uncertainty is carried into the mean by squaring and adding the distances to its Wilson limits (Zou and
    Donner, Statistics in Medicine 27, 2008, 1693-1702), so one set gives Wilson's interval. It is not a
    bootstrap over data sets: the 17 sets are fixed, not drawn from a population of tasks.

    Parameters
    ----------
    accuracies : mapping of data-set name to Accuracy
    level : float
        Coverage, in (0, 1).

    Raises
    ------
    UwmError
        If there is no data set, or what is given for one is no Accuracy.
    """
    if not accuracies:
        raise UwmError("There is no accuracy to average: give at least one data set.")
    if not isinstance(accuracies, Mapping) or not all(
        isinstance(each, Accuracy) for each in accuracies.values()
    ):
        raise UwmError("Accuracies are averaged by name: give a mapping of data-set name to Accuracy.")
    count = len(accuracies)
    rates = [each.n_correct / each.n for each in accuracies.values()]
    limits = [wilson(each.n_correct, each.n, level) for each in accuracies.values()]
    mean = sum(rates) / count
    below = math.hypot(*(rate - lo for rate, (lo, _) in zip(rates, limits, strict=True))) / count
    above = math.hypot(*(hi - rate for rate, (_, hi) in zip(rates, limits, strict=True))) / count
    return MeanAccuracy(100 * mean, (100 * (mean - below), 100 * (mean + above)), count)
