"""WiSE-FT (Wortsman et al. 2022, arXiv 2109.01903): weights between those of a model and of another one."""

from __future__ import annotations

from uwmlib.editing.shifts import delta_edit
from uwmlib.editing.weight_edit import WeightEdit
from uwmlib.errors import UwmError
from uwmlib.models.trainable import parameters_of
from uwmlib.models.vlm import Vlm, require_vlm
from uwmlib.options import ENCODERS, finite_number


def interpolation_edit(vlm: Vlm, other: Vlm, strength: float) -> WeightEdit:
    """Move every weight of both encoders towards another model's: theta + a (theta' - theta).

    The paper mixes a model with what was fine-tuned from it, such as a CLIP with its Safe-CLIP (Sec. 3, where a is
    called the mixing coefficient). It takes two models, so `uwm edit` does not know it.

    Parameters
    ----------
    vlm : Vlm
        The base; the edit is refused on any other. Not changed.
    other : Vlm
        Of the same architecture.
    strength : float
        a: 0 changes nothing, 1 gives the other model, up to rounding.

    Returns
    -------
    WeightEdit
        Of every parameter that one of the encoders depends on.

    Raises
    ------
    UwmError
        If the other model lacks one of these or has it in another shape, or the strength is negative.

    Examples
    --------
    Half way between two weights is their mean:

    >>> import uwmlib as uwm
    >>> from uwmlib.editing import interpolation_edit
    >>> vlm = uwm.load_model("mini-ViT-L-14")
    >>> safe = uwm.load_model("mini-Safe-CLIP")
    >>> ends = [each.model.ln_final.bias[0].item() for each in (vlm, safe)]
    >>> with interpolation_edit(vlm, safe, 0.5).applied(vlm):
    ...     middle = vlm.model.ln_final.bias[0].item()
    >>> abs(middle - sum(ends) / 2) < 1e-6
    True
    """
    require_vlm(vlm)
    require_vlm(other)
    a = finite_number(strength, "strength", least=0)
    present, changes = dict(other.model.named_parameters()), {}
    for encoder in ENCODERS:
        deltas = {}
        for name in parameters_of(vlm, encoder):
            weight = vlm.model.get_parameter(name).detach()
            if name not in present or present[name].shape != weight.shape:
                raise UwmError(
                    f"{other.name} has no {name} of shape {list(weight.shape)}: give a model of the architecture of "
                    f"{vlm.name}."
                )
            deltas[name] = a * (present[name].detach().to(weight.device).float() - weight.float())
        changes |= delta_edit(vlm, encoder, deltas).changes
    return WeightEdit(changes, {"method": "wise-ft", "model": vlm.name, "other": other.name, "strength": a})
