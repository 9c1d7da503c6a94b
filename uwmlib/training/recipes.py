"""Recipes of the shipped mini models: `train` makes each again from nothing."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, NamedTuple

import torch
from safetensors.torch import save_file

from uwmlib.errors import UwmError
from uwmlib.files import atomic_path, sha256_of_file, write_json
from uwmlib.models.loading import load_weights
from uwmlib.models.mini import checked_weights, wrap_mini
from uwmlib.models.mini_architectures import bare_model, world_of_model
from uwmlib.models.mini_llava import mini_llava, write_llava
from uwmlib.options import known
from uwmlib.outputs import check_output
from uwmlib.parameters import check_run
from uwmlib.training.allocator import keep_freed_memory
from uwmlib.training.captioning import TRAINED, caption_loss
from uwmlib.training.contrastive import Loss, clip_loss, coca_loss, siglip_loss, web_loss
from uwmlib.training.optimisation import frozen_copy, optimise
from uwmlib.training.safe_clip import safe_clip_loss
from uwmlib.tuples import load_tuples


def write_weights(model: torch.nn.Module, path: Path) -> None:
    """Write the weights of a model as one safetensors file, in half precision: a mini model measures the same."""
    with atomic_path(path) as temporary:
        save_file({key: _halved(value) for key, value in model.state_dict().items()}, temporary)


def _halved(tensor: torch.Tensor) -> torch.Tensor:
    return (tensor.half() if tensor.is_floating_point() else tensor).contiguous()


def write_folder(llava: torch.nn.Module, path: Path) -> None:
    """Write the weights of a LLaVA among the files that transformers wants beside them."""
    write_llava(llava, path.parent, path.parent.name)


class Task(NamedTuple):
    """What `optimise` is given: a model, its loss at each step, and the references of that loss.

    Examples
    --------
    >>> import torch
    >>> from uwmlib.training import Task, optimise
    >>> model = torch.nn.Linear(2, 1)
    >>> task = Task(model, lambda step: model(torch.ones(1, 2)).square().mean())
    >>> curve = optimise(
    ...     task.model, task.loss_at, references=task.references,
    ...     steps=60, learning_rate=0.01, progress=False,
    ... )
    >>> [point["step"] for point in curve]
    [50, 60]
    """

    model: torch.nn.Module
    loss_at: Callable[[int], torch.Tensor]
    references: tuple[torch.nn.Module, ...] = ()


@dataclass(frozen=True)
class Recipe:
    """How a mini model is made.

    Attributes
    ----------
    begin : callable
        From the bare model (or the base, with its weights), the name, `seed` and `batch_size` to a `Task`.
    steps, batch_size, learning_rate, weight_decay : int, int, float, float
        Of `optimise`.
    base : str
        The mini model to start from; empty for none.
    seed : int
        Of the shipped weights.
    trained : tuple of str
        Patterns of the parameters that learn.
    file : str
        Of the weights, with a place for the name.
    write : callable
        From the model and the path of its weights to the files.

    Examples
    --------
    >>> from uwmlib.training import RECIPES
    >>> recipe = RECIPES["mini-Safe-CLIP"]
    >>> recipe.base, recipe.steps, recipe.learning_rate
    ('mini-ViT-L-14', 150, 0.0001)
    >>> recipe.file.format("mini-Safe-CLIP")
    'mini-Safe-CLIP.safetensors'
    """

    begin: Callable[..., Task]
    steps: int
    batch_size: int = 128
    learning_rate: float = 1.5e-3
    weight_decay: float = 0.05
    base: str = ""
    seed: int = 0
    trained: tuple[str, ...] = ("*",)
    file: str = "{}.safetensors"
    # By a factory: a function that is a class's own becomes a method.
    write: Callable[[torch.nn.Module, Path], None] = field(default_factory=lambda: write_weights)

    def facts(self) -> dict[str, Any]:
        """Return the numbers of the recipe, and its base if it has one: what the record of a model holds."""
        names = ("steps", "batch_size", "learning_rate", "weight_decay", *(["base"] if self.base else []))
        return {name: getattr(self, name) for name in names}


def _on_the_web(loss: Loss) -> Callable[..., Task]:
    """Return the beginning of a pre-training by this loss."""

    def begin(model: torch.nn.Module, name: str, **options: int) -> Task:
        return Task(model, web_loss(wrap_mini(model, name=name), loss, world=world_of_model(name), **options))

    return begin


def _on_captions(base: torch.nn.Module, name: str, *, seed: int, batch_size: int) -> Task:
    llava = mini_llava(name, seed=seed, visual=base.visual)
    return Task(
        llava.model, caption_loss(llava, world=world_of_model(name), seed=seed, batch_size=batch_size)
    )


def _towards_safety(base: torch.nn.Module, name: str, **options: int) -> Task:
    reference = frozen_copy(base)
    world = world_of_model(name)
    tuples = load_tuples(world.name, split="train")
    return Task(base, safe_clip_loss(base, reference, tuples, world=world, **options), (reference,))


def _seeds(name: str, recipe: Recipe) -> dict[str, Recipe]:
    """Return a recipe once a seed: the shipped model, and two more under names of their own."""
    recipes = {name: recipe}
    for seed in (1, 2):
        base = f"{recipe.base}-seed{seed}" if recipe.base else ""
        recipes[f"{name}-seed{seed}"] = replace(recipe, seed=seed, base=base)
    return recipes


CLIP = _on_the_web(clip_loss)
RECIPES = {
    **_seeds("mini-ViT-L-14", Recipe(CLIP, steps=3400, learning_rate=1e-3)),
    **_seeds(
        "mini-Safe-CLIP",
        Recipe(_towards_safety, steps=150, learning_rate=1e-4, weight_decay=0.0, base="mini-ViT-L-14"),
    ),
    "mini-ViT-B-16": Recipe(CLIP, steps=4000),
    "mini-ViT-B-32": Recipe(CLIP, steps=7000),
    "mini-CoCa": Recipe(_on_the_web(coca_loss), steps=7500),
    "mini-SigLIP": Recipe(_on_the_web(siglip_loss), steps=9000),
    "mini-LLaVA": Recipe(
        _on_captions, steps=2000, batch_size=64, base="mini-ViT-L-14", trained=TRAINED,
        file="{}/model.safetensors", write=write_folder,
    ),
    "mini-ViT-L-14-v1": Recipe(CLIP, steps=3800, learning_rate=1e-3),
}  # fmt: skip


def train(
    name: str,
    *,
    output: str | Path = "trained",
    seed: int | None = None,
    steps: int | None = None,
    progress: bool = True,
) -> Path:
    """Train a mini model from nothing and write its weights, its recipe and its curve.

    Parameters
    ----------
    name : str
        One of `RECIPES`. Most are trained from nothing on web-like pairs; "mini-Safe-CLIP" (on mini-visu's training
        tuples) and "mini-LLaVA" start from `output`'s own base if there is one, else from the shipped base.
    output : path
        Folder for `<name>.safetensors`, `<name>.json` (seed, recipe, curve, sha256) and the checkpoint to resume from.
        mini-LLaVA's weights are `mini-LLaVA/model.safetensors`, beside the files that transformers wants.
    seed : int, optional
        Seed of the initial weights and of the order of the data, from 0 to 2**63 - 1, in place of the recipe's.
    steps : int, optional
        Steps in place of the recipe's, for a trial.

    Returns
    -------
    Path
        The weights file.

    Raises
    ------
    UwmError
        If there is no recipe of that name, `seed` or `steps` cannot be used, a file cannot be written in `output`, or
        the base is missing or damaged.

    Examples
    --------
    A trial of one step:

    >>> import json
    >>> import tempfile
    >>> from pathlib import Path
    >>> from uwmlib.training import train
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     path = train("mini-ViT-B-32", output=folder, steps=1, progress=False)
    ...     record = json.loads(path.with_suffix(".json").read_text())
    >>> path.name
    'mini-ViT-B-32.safetensors'
    >>> record["recipe"]["steps"], record["curve"][0]["step"]
    (1, 1)
    """
    known(name, RECIPES, "recipe for")
    if seed is not None:
        check_run(seed=seed)
    if steps is not None and (not isinstance(steps, int) or steps < 1):
        raise UwmError(f"steps={steps!r} trains nothing: ask for at least one step.")
    given = {"seed": seed, "steps": steps}
    recipe = replace(RECIPES[name], **{key: value for key, value in given.items() if value is not None})
    folder = Path(output)
    weights, checkpoint = folder / recipe.file.format(name), folder / f"{name}.checkpoint.safetensors"
    for path in (weights, folder / f"{name}.json", checkpoint):
        check_output(path, inputs=[_own(recipe.base, folder)] if recipe.base else ())
    keep_freed_memory()
    started = time.perf_counter()
    facts = recipe.facts() | {"name": name, "seed": recipe.seed}
    task = _begin(recipe, facts, folder)
    curve = optimise(
        task.model, task.loss_at, steps=recipe.steps, learning_rate=recipe.learning_rate,
        weight_decay=recipe.weight_decay, trained=recipe.trained, references=task.references,
        checkpoint=checkpoint, recipe=facts, progress=progress,
    )  # fmt: skip
    recipe.write(task.model, weights)
    minutes = (time.perf_counter() - started) / 60
    write_json(folder / f"{name}.json", _record(task.model, weights, folder, facts, curve, minutes))
    checkpoint.unlink(missing_ok=True)  # of no further use
    return weights


def _begin(recipe: Recipe, facts: dict[str, Any], folder: Path) -> Task:
    """Return the task of a recipe at its start; what the base was is added to `facts`."""
    name, seed = facts["name"], facts["seed"]
    model = bare_model(recipe.base or name, seed)
    if recipe.base:
        base = _base_weights(recipe.base, folder)
        facts["base_sha256"] = sha256_of_file(base)
        load_weights(model, base)
    return recipe.begin(model, name, seed=seed, batch_size=recipe.batch_size)


def _base_weights(name: str, folder: Path) -> Path:
    """Return the file of `folder`'s own base if there is one, else of the shipped one; both are checked."""
    own, record = _own(name, folder), folder / f"{name}.json"
    if not own.exists():
        return checked_weights(name)
    try:
        recorded = json.loads(record.read_text(encoding="utf-8"))["sha256"] if record.exists() else None
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UwmError(f"The record {record} of the base cannot be read: train {name} again.") from error
    if recorded is not None and (not own.is_file() or sha256_of_file(own) != recorded):
        raise UwmError(
            f"{own} is not the file that {record.name} records: train {name} again, or remove both."
        )
    return own


def _own(base: str, folder: Path) -> Path:
    return folder / f"{base}.safetensors"


def _record(
    model: torch.nn.Module, weights: Path, folder: Path, facts: dict[str, Any], curve: list, minutes: float
) -> dict[str, Any]:
    return {
        "file": str(weights.relative_to(folder)), "sha256": sha256_of_file(weights), "recipe": facts, "curve": curve,
        "minutes": round(minutes, 1), "threads": torch.get_num_threads(), "torch": torch.__version__,
        "parameters": sum(p.numel() for p in model.parameters()),
    }  # fmt: skip
