"""Which of a model's parameters take a gradient, for a while."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager

import torch
from torch import nn


@contextmanager
def only_trainable(model: nn.Module, parameters: Iterable[nn.Parameter]) -> Iterator[None]:
    """Let gradients flow to these parameters alone, which saves the rest of the backward pass; put back what was."""
    wanted = {id(parameter) for parameter in parameters}
    before = [(parameter, parameter.requires_grad) for parameter in model.parameters()]
    try:
        for parameter, _ in before:
            parameter.requires_grad_(id(parameter) in wanted)
        yield
    finally:
        for parameter, flag in before:
            parameter.requires_grad_(flag)


def gradients_of(
    model: nn.Module, names: Iterable[str], loss: Callable[[], torch.Tensor]
) -> dict[str, torch.Tensor]:
    """Return the gradient of a loss in parameters by name, and leave the model as it was.

    Parameters
    ----------
    model : nn.Module
    names : iterable of str
        Of parameters that the loss depends on.
    loss : callable () -> Tensor, scalar
        Called once, with gradients on.
    """
    parameters = {name: model.get_parameter(name) for name in names}
    with only_trainable(model, parameters.values()), torch.enable_grad():
        found = torch.autograd.grad(loss(), list(parameters.values()))
    return dict(zip(parameters, found, strict=True))
