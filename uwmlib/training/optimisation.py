"""One training loop for any loss: resumable, with a curve, the same for the same seed."""

from __future__ import annotations

import copy
import json
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from os import PathLike
from pathlib import Path
from typing import Any, TypeVar

import torch
from tqdm.auto import tqdm

from uwmlib.errors import UwmError
from uwmlib.files import json_of_facts, load_tensors, require_path, save_tensors
from uwmlib.models.trainable import only_trainable
from uwmlib.options import finite_number, hint, shown, whole_number
from uwmlib.outputs import check_output

WARMUP = 0.05  #: share of the steps over which the learning rate rises
CHECKPOINT_EVERY = 200
POINT_EVERY = 50  #: steps to a point of the curve
KIND = "training-checkpoint"
Module = TypeVar("Module", bound=torch.nn.Module)


def frozen_copy(model: Module) -> Module:
    """Return a copy of a model as it is now, in evaluation and without gradients: a reference for a loss.

    Examples
    --------
    >>> import torch
    >>> from uwmlib.training import frozen_copy
    >>> model = torch.nn.Linear(2, 1)
    >>> before = frozen_copy(model)
    >>> before.weight.requires_grad, model.weight.requires_grad
    (False, True)
    """
    return copy.deepcopy(model).requires_grad_(False).eval()


def one_cycle(step: int, steps: int, *, peak: float) -> float:
    """Return the learning rate at `step`: linear rise over the first `WARMUP` of them, then a half cosine to 0."""
    rise = max(1, int(WARMUP * steps))
    if step < rise:
        return peak * (step + 1) / rise
    return peak * 0.5 * (1 + math.cos(math.pi * (step - rise) / max(1, steps - rise)))


def optimise(
    model: torch.nn.Module,
    loss_at: Callable[[int], torch.Tensor],
    *,
    steps: int,
    learning_rate: float,
    weight_decay: float = 0.0,
    trained: Sequence[str] = ("*",),
    references: Iterable[torch.nn.Module] = (),
    checkpoint: str | PathLike | None = None,
    recipe: Mapping[str, Any] | None = None,
    progress: bool = True,
) -> list[dict[str, float]]:
    """Minimise `loss_at(step)` with AdamW; resume from `checkpoint` if it belongs to the same recipe.

    Parameters
    ----------
    model : Module
        Trained in place.
    loss_at : callable
        Maps a step number to that step's scalar loss; everything random in it must depend on the step alone. It may
        read whatever it likes: `model`, the references, data.
    steps : int
    learning_rate : float
        At the peak of the one-cycle schedule (`one_cycle`).
    weight_decay : float
        Of parameters with two dimensions and more; biases, norms and scales do not decay.
    trained : sequence of str
        Patterns of parameter names, as in `["visual.*", "*.ln_final.*"]`; the others stay as they are.
    references : iterable of Module
        Models that `loss_at` compares with (`frozen_copy`): they get no gradient. One that shares a trained weight
        would follow the training, as Safe-CLIP's does in its released code, and is refused.
    checkpoint : path-like, optional
        Written every 200 steps; without one a broken-off run is lost. A checkpoint of another recipe, or of other
        parameters, is refused.
    recipe : mapping, optional
        JSON-able facts that identify the run, besides the three numbers above; "name" stands beside the progress bar.

    Returns
    -------
    list of dict
        The curve: mean loss of every 50 steps.

    Raises
    ------
    UwmError
        If a number cannot be used, a pattern fits no parameter, a reference shares a trained weight, `checkpoint`
        cannot be written or belongs to another recipe, or a loss or its gradient is not finite (the weights are then
        those of the step before).

    Examples
    --------
    The bias of a line through 0 is fitted to y = x + 1; its slope is not
    trained:

    >>> import torch
    >>> from uwmlib.training import optimise
    >>> model = torch.nn.Linear(1, 1)
    >>> with torch.no_grad():
    ...     _ = model.weight.fill_(1.0), model.bias.fill_(0.0)
    >>> x = torch.tensor([[0.0], [1.0]])
    >>> curve = optimise(
    ...     model, lambda step: (model(x) - (x + 1)).square().mean(),
    ...     steps=100, learning_rate=0.05, trained=["bias"], progress=False,
    ... )
    >>> [point["step"] for point in curve]
    [50, 100]
    >>> print(f"{model.weight.item():.1f} {model.bias.item():.1f}")
    1.0 1.0
    """
    whole_number(steps, "steps")
    finite_number(learning_rate, "learning_rate", least=0)
    finite_number(weight_decay, "weight_decay", least=0)
    _require_module(model, "The model")
    if not callable(loss_at):
        raise UwmError(f"loss_at is {shown(loss_at)}: give a function of the step.")
    chosen = _chosen(model, trained)
    _freeze(references, chosen)
    # One group a parameter keeps the optimizer's order equal to the model's.
    groups = [{"params": [p], "weight_decay": weight_decay * (p.ndim >= 2)} for p in chosen.values()]
    if checkpoint is not None:
        require_path(checkpoint)
        check_output(checkpoint)
    numbers = {"steps": steps, "learning_rate": learning_rate, "weight_decay": weight_decay}
    facts = _as_read(recipe or {}) | _as_read(numbers)
    place = None if checkpoint is None else Path(checkpoint)
    run = _Run(model, list(chosen), torch.optim.AdamW(groups), place, facts)
    with only_trainable(model, chosen.values()):
        return _descend(run, loss_at, steps=steps, peak=learning_rate, progress=progress)


@dataclass(frozen=True)
class _Run:
    """A training under way: what its checkpoint holds."""

    model: torch.nn.Module
    names: list[str]
    optimizer: torch.optim.Optimizer
    checkpoint: Path | None
    recipe: dict[str, Any]

    def step(self, step: int, loss: Any, rate: float) -> float:
        """Take one step down the gradient, clipped to a norm of 1, and return the loss; none unless both are finite."""
        number = _checked_loss(loss, step)
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        self.optimizer.zero_grad()
        loss.backward()
        norm = torch.nn.utils.clip_grad_norm_(
            [p for group in self.optimizer.param_groups for p in group["params"]], 1.0
        )
        if not torch.isfinite(norm):
            raise UwmError(
                f"The gradient is not finite at step {step}: lower the learning rate, or look for a root of 0."
            )
        self.optimizer.step()
        return number

    def save(self, step: int, curve: list[dict[str, float]]) -> None:
        """Write weights and AdamW's moments as one mapping of names to tensors, with the curve so far."""
        if self.checkpoint is None:
            return
        tensors = {f"model|{name}": value for name, value in self.model.state_dict().items()}
        for index, moments in self.optimizer.state_dict()["state"].items():
            tensors |= {f"{key}|{self.names[index]}": torch.as_tensor(x) for key, x in moments.items()}
        facts = {"recipe": self.recipe, "trained": self.names, "step": step, "curve": curve}
        save_tensors(self.checkpoint, tensors, kind=KIND, metadata=facts)

    def resume(self, steps: int) -> tuple[int, list[dict[str, float]]]:
        """Put back what the checkpoint holds; return the first step that is left and the curve up to it."""
        if self.checkpoint is None or not self.checkpoint.is_file():
            return 0, []
        tensors, facts = load_tensors(self.checkpoint, kind=KIND)
        if not isinstance(facts, dict) or facts.get("recipe") != self.recipe:
            raise UwmError(
                f"{self.checkpoint} belongs to another recipe: remove it, or train into another folder."
            )
        try:
            if facts["trained"] != self.names:
                raise ValueError("other parameters")
            self._restore(tensors)
            first = facts["step"]
            curve = [{key: point[key] for key in ("step", "loss")} for point in facts["curve"]]
        except (KeyError, TypeError, ValueError, RuntimeError) as error:
            raise UwmError(f"{self.checkpoint} does not fit this model: remove it to begin again.") from error
        if not isinstance(first, int) or not 0 < first < steps:
            raise UwmError(
                f"{self.checkpoint} stands at step {first!r} of {steps}: remove it to begin again."
            )
        return first, curve

    def _restore(self, tensors: Mapping[str, torch.Tensor]) -> None:
        split: dict[str, dict[str, torch.Tensor]] = {}
        for key, value in tensors.items():
            group, name = key.split("|", 1)
            split.setdefault(group, {})[name] = value
        self.model.load_state_dict(split.pop("model"))
        numbers = {name: index for index, name in enumerate(self.names)}
        state: dict[int, dict[str, torch.Tensor]] = {}
        for key, part in split.items():
            for name, value in part.items():
                state.setdefault(numbers[name], {})[key] = value
        groups = self.optimizer.state_dict()["param_groups"]
        self.optimizer.load_state_dict({"state": state, "param_groups": groups})


def _descend(
    run: _Run, loss_at: Callable[[int], torch.Tensor], *, steps: int, peak: float, progress: bool
) -> list[dict[str, float]]:
    """Take the steps that are left."""
    first, curve = run.resume(steps)
    recent: list[float] = []
    with tqdm(
        initial=first, total=steps, disable=not progress, desc=run.recipe.get("name", "training")
    ) as bar:
        for step in range(first, steps):
            recent.append(run.step(step, loss_at(step), one_cycle(step, steps, peak=peak)))
            if (step + 1) % POINT_EVERY == 0 or step + 1 == steps:
                curve.append({"step": step + 1, "loss": sum(recent) / len(recent)})
                bar.set_postfix(loss=f"{curve[-1]['loss']:.3f}")
                recent = []
            if (step + 1) % CHECKPOINT_EVERY == 0 and step + 1 < steps:
                run.save(step + 1, curve)
            bar.update()
    return curve


def _chosen(model: torch.nn.Module, patterns: Sequence[str]) -> dict[str, torch.nn.Parameter]:
    """Return the parameters that any of the patterns fits, in the model's order."""
    named = dict(model.named_parameters())
    listed = isinstance(patterns, Iterable) and not isinstance(patterns, str)
    if not listed or not all(isinstance(pattern, str) for pattern in patterns):
        such = patterns if isinstance(patterns, str) else "visual.*"
        raise UwmError(f"trained is {shown(patterns)}: give a list of patterns, such as [{such!r}].")
    for pattern in patterns:
        if not any(fnmatchcase(name, pattern) for name in named):
            raise UwmError(f"trained holds {pattern!r}, which fits no parameter: {hint(pattern, named)}")
    chosen = {
        name: parameter
        for name, parameter in named.items()
        if any(fnmatchcase(name, pattern) for pattern in patterns)
    }
    if not chosen:
        raise UwmError("trained is empty: give patterns of parameter names, such as 'visual.*'.")
    return chosen


def _require_module(model: object, what: str) -> None:
    if not isinstance(model, torch.nn.Module):
        raise UwmError(f"{what} is {shown(model)}: give a torch module, such as vlm.model.")


def _checked_loss(loss: Any, step: int) -> float:
    """Return the loss as a number; UwmError unless it is one finite number that has a gradient."""
    one = isinstance(loss, torch.Tensor) and loss.is_floating_point() and loss.numel() == 1
    if not one or not loss.requires_grad:
        what = shown(loss) if not isinstance(loss, torch.Tensor) else f"{loss.dtype} {list(loss.shape)}"
        raise UwmError(
            f"The loss of step {step} is {what}{', without a gradient' if one else ''}: "
            f"give one number that depends on a trained parameter."
        )
    if not math.isfinite(number := loss.item()):
        raise UwmError(f"The loss is {number} at step {step}: lower the learning rate.")
    return number


def _as_read(recipe: Any) -> dict[str, Any]:
    """Return a recipe as a checkpoint gives it back, with lists for tuples; UwmError for what JSON cannot hold."""
    return json.loads(json_of_facts(recipe, "the recipe", allow_nan=False))


def _freeze(references: Iterable[torch.nn.Module], chosen: Mapping[str, torch.nn.Parameter]) -> None:
    """Freeze the references; UwmError for one that the training would change."""
    names = {parameter.untyped_storage().data_ptr(): name for name, parameter in chosen.items()}
    if not isinstance(references, Iterable) or isinstance(references, torch.nn.Module):
        raise UwmError(f"The references are {shown(references)}: give a list of models.")
    for reference in references:
        _require_module(reference, "A reference")
        shared = [p.untyped_storage().data_ptr() for p in reference.parameters()]
        if followed := next((names[place] for place in shared if place in names), None):
            raise UwmError(f"A reference shares the trained weight {followed}: give a frozen_copy.")
        reference.requires_grad_(False).eval()
