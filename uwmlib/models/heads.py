"""What is after an encoder's last nonlinear step: the last bias, and the linear map from there to the embedding."""

from __future__ import annotations

from dataclasses import dataclass
from operator import attrgetter

import torch
from torch import nn

from uwmlib.errors import UwmError
from uwmlib.models.families import family_of


def find_head(model: nn.Module, encoder: str) -> tuple[str, torch.Tensor | None]:
    """Find the last bias before an encoder's embedding, and what it is multiplied by on the way.

    With the bias b and the matrix P, adding d to b adds d @ P to the embedding before it is made a unit vector,
    whatever the input. b is that of the last LayerNorm in CLIP and CoCa, that of the projection in SigLIP's text
    encoder, and that of the attention pooling's MLP in SigLIP's vision encoder, where the embedding itself is P = None.

    Parameters
    ----------
    model : nn.Module
    encoder : "text" or "vision"

    Returns
    -------
    str, Tensor [width, D] or None
        The name of b in `model.named_parameters()`, and P; None for the identity.

    Raises
    ------
    UwmError
        If the end of the encoder is of no known kind, or has no bias.
    """
    projection = None
    for name, layer in _known_layers(model, encoder).items():
        if isinstance(layer, (nn.Linear, nn.LayerNorm)) and layer.bias is not None:
            return f"{name}.bias", projection
        if isinstance(layer, nn.Parameter):
            matrix = layer.detach()
        elif isinstance(layer, nn.Linear):
            matrix = layer.weight.detach().T
        else:
            raise UwmError(
                f"{name}, a {type(layer).__name__}, ends the {encoder} encoder without a bias or a linear map: "
                f"its embedding cannot be shifted."
            )
        projection = matrix if projection is None else matrix @ projection
    raise UwmError(
        f"{type(model).__name__} has no {encoder} encoder whose last layers are known: "
        f"its embedding cannot be shifted. Use CLIP, SigLIP or CoCa with transformer encoders."
    )


@dataclass(frozen=True, eq=False)
class Projection:
    """The end of an encoder that is a LayerNorm and a projection without bias.

    Attributes
    ----------
    name : str
        Of the projection in `model.named_parameters()`.
    matrix : Tensor [width, D]
        The embedding is h @ matrix.
    transposed : bool
        Whether the parameter is the matrix's transpose, as that of a Linear is.
    norm_name : str
    norm : nn.LayerNorm
        With weight and bias; gives h.
    """

    name: str
    matrix: torch.Tensor
    transposed: bool
    norm_name: str
    norm: nn.LayerNorm


def find_projection(model: nn.Module, encoder: str) -> Projection:
    """Find the matrix that makes an encoder's embedding, and the LayerNorm in front of it.

    Parameters
    ----------
    model : nn.Module
    encoder : "text" or "vision"

    Raises
    ------
    UwmError
        If the encoder does not end so: SigLIP's text projection has a bias, and its vision encoder no projection.
    """
    layers = _known_layers(model, encoder)
    kinds = list(layers.values())
    plain = len(kinds) == 2 and (
        isinstance(kinds[0], nn.Parameter) or (isinstance(kinds[0], nn.Linear) and kinds[0].bias is None)
    )
    norm = kinds[-1] if kinds else None
    if not plain or not isinstance(norm, nn.LayerNorm) or norm.weight is None or norm.bias is None:
        raise UwmError(
            f"The {encoder} encoder of this {type(model).__name__} does not end in a LayerNorm and a projection "
            f"without bias, so its embedding cannot be mapped: use CLIP or CoCa."
        )
    (name, layer), norm_name = next(iter(layers.items())), list(layers)[-1]
    if isinstance(layer, nn.Parameter):
        return Projection(name, layer.detach(), False, norm_name, norm)
    return Projection(f"{name}.weight", layer.weight.detach().T, True, norm_name, norm)


def head_parameters(model: nn.Module, encoder: str) -> list[str]:
    """Return the names of the last bias of an encoder and of all that its features pass through behind it."""
    bias, _ = find_head(model, encoder)
    names = []
    for name, layer in _known_layers(model, encoder).items():
        if f"{name}.bias" == bias:
            return [*names, bias]
        names += [name] if isinstance(layer, nn.Parameter) else [f"{name}.weight"]
    return names


def _known_layers(model: nn.Module, encoder: str) -> dict[str, nn.Module | nn.Parameter]:
    """Return the last layers that do something, from the embedding backwards; none if the family names none."""
    for names in family_of(model).heads.get(encoder, ()):
        layers = {name: _layer(model, name) for name in names}
        if layers[names[-1]] is not None:
            return {
                name: layer
                for name, layer in layers.items()
                if layer is not None and not isinstance(layer, nn.Identity)
            }
    return {}


def _layer(model: nn.Module, name: str) -> nn.Module | nn.Parameter | None:
    try:
        return attrgetter(name)(model)
    except AttributeError:
        return None
