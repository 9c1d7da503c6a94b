"""One training loop for all mini models: resumable, with a curve, the same for the same seed."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from tqdm.auto import tqdm

from uwmlib.errors import UwmError
from uwmlib.files import load_tensors, save_tensors

CHECKPOINT_EVERY = 200
KIND = "training-checkpoint"


def one_cycle(step: int, steps: int, *, peak: float, warmup: float = 0.05) -> float:
    """Return the learning rate at `step`: linear rise over the first `warmup` share, then a half cosine to 0."""
    rise = max(1, int(warmup * steps))
    if step < rise:
        return peak * (step + 1) / rise
    return peak * 0.5 * (1 + math.cos(math.pi * (step - rise) / max(1, steps - rise)))


def _state_tensors(model: torch.nn.Module, optimizer: torch.optim.Optimizer) -> dict[str, torch.Tensor]:
    """Flatten weights and AdamW moments into one mapping of names to tensors."""
    tensors = {f"model|{name}": value for name, value in model.state_dict().items()}
    names = [name for name, _ in model.named_parameters()]
    for index, moments in optimizer.state_dict()["state"].items():
        tensors |= {f"{key}|{names[index]}": torch.as_tensor(value) for key, value in moments.items()}
    return tensors


def _restore(
    model: torch.nn.Module, optimizer: torch.optim.Optimizer, tensors: Mapping[str, torch.Tensor]
) -> None:
    """Undo `_state_tensors`: put weights and moments back."""
    split: dict[str, dict[str, torch.Tensor]] = {}
    for key, value in tensors.items():
        group, name = key.split("|", 1)
        split.setdefault(group, {})[name] = value
    model.load_state_dict(split.pop("model"))
    names = [name for name, _ in model.named_parameters()]
    state = {
        i: {key: part[name] for key, part in split.items()}
        for i, name in enumerate(names)
        if name in split.get("step", {})
    }
    optimizer.load_state_dict({"state": state, "param_groups": optimizer.state_dict()["param_groups"]})


def optimise(
    model: torch.nn.Module,
    loss_at: Callable[[int], torch.Tensor],
    *,
    steps: int,
    learning_rate: float,
    weight_decay: float,
    checkpoint: Path,
    recipe: Mapping[str, Any],
    progress: bool = True,
) -> list[dict[str, float]]:
    """Minimise `loss_at(step)` with AdamW; resume from `checkpoint` if it belongs to the same recipe.

    Parameters
    ----------
    model : Module
        Trained in place.
    loss_at : callable
        Maps a step number to that step's scalar loss; everything random in it must depend on the step alone.
    steps, learning_rate, weight_decay : int, float, float
        Learning rate at the peak of the one-cycle schedule.
    checkpoint : Path
        Written every 200 steps. A checkpoint of another recipe is refused.
    recipe : mapping
        JSON-able facts that identify the run.

    Returns
    -------
    list of dict
        The curve: mean loss of every 50 steps.

    Raises
    ------
    UwmError
        If `checkpoint` belongs to another recipe, or the loss is not finite.
    """
    # One group a parameter keeps the optimizer's order equal to the model's; biases, norms and scales do not decay.
    groups = [{"params": [p], "weight_decay": weight_decay * (p.ndim >= 2)} for p in model.parameters()]
    optimizer = torch.optim.AdamW(groups)
    first, curve = _resume(model, optimizer, checkpoint, recipe, steps)
    recent: list[float] = []
    name = recipe.get("name", "training")
    with tqdm(initial=first, total=steps, disable=not progress, desc=name) as bar:
        for step in range(first, steps):
            for group in optimizer.param_groups:
                group["lr"] = one_cycle(step, steps, peak=learning_rate)
            recent.append(_step(model, optimizer, loss_at(step)))
            if not math.isfinite(recent[-1]):
                raise UwmError(f"The loss is {recent[-1]} at step {step}: lower the learning rate.")
            if (step + 1) % 50 == 0 or step + 1 == steps:
                curve.append({"step": step + 1, "loss": sum(recent) / len(recent)})
                bar.set_postfix(loss=f"{curve[-1]['loss']:.3f}")
                recent = []
            if (step + 1) % CHECKPOINT_EVERY == 0 and step + 1 < steps:
                facts = {"recipe": dict(recipe), "step": step + 1, "curve": curve}
                save_tensors(checkpoint, _state_tensors(model, optimizer), kind=KIND, metadata=facts)
            bar.update()
    return curve


def _step(model: torch.nn.Module, optimizer: torch.optim.Optimizer, loss: torch.Tensor) -> float:
    """Take one step down the gradient, clipped to a norm of 1, and return the loss."""
    optimizer.zero_grad()
    loss.backward()
    torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
    optimizer.step()
    return loss.item()


def _resume(
    model: torch.nn.Module,
    optimizer: torch.optim.Optimizer,
    checkpoint: Path,
    recipe: Mapping[str, Any],
    steps: int,
) -> tuple[int, list[dict[str, float]]]:
    """Put back what `checkpoint` holds; return the first step that is left and the curve up to it."""
    if not checkpoint.is_file():
        return 0, []
    tensors, facts = load_tensors(checkpoint, kind=KIND)
    if not isinstance(facts, dict) or facts.get("recipe") != dict(recipe):
        raise UwmError(f"{checkpoint} belongs to another recipe: remove it, or train into another folder.")
    try:
        _restore(model, optimizer, tensors)
        first, curve = (
            facts["step"],
            [{key: point[key] for key in ("step", "loss")} for point in facts["curve"]],
        )
    except (KeyError, TypeError, ValueError, RuntimeError) as error:
        raise UwmError(f"{checkpoint} does not fit this model: remove it to begin again.") from error
    if not isinstance(first, int) or not 0 < first < steps:
        raise UwmError(f"{checkpoint} stands at step {first!r} of {steps}: remove it to begin again.")
    return first, curve
