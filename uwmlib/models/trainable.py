"""Which of a model's parameters take a gradient, for a while."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

import torch
from torch import nn

if TYPE_CHECKING:
    from uwmlib.models.vlm import Vlm


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


def parameters_of(vlm: Vlm, encoder: str) -> list[str]:
    """Return the names of the parameters that an encoder's embedding depends on, in the model's order.

    The scale of the similarities and a captioner's decoder are in neither encoder.

    Parameters
    ----------
    vlm : Vlm
    encoder : "text" or "vision"
    """
    named = dict(vlm.model.named_parameters())
    with only_trainable(vlm.model, named.values()), torch.inference_mode(False), torch.enable_grad():
        if encoder == "text":
            answer = vlm.encode_text(vlm.tokenize(["a small red ring"]))
        else:
            answer = vlm.encode_image(vlm.pixels.probe()[:1])
        found = torch.autograd.grad(answer.sum(), list(named.values()), allow_unused=True)
    return [name for name, gradient in zip(named, found, strict=True) if gradient is not None]
