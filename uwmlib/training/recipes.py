"""Recipes of the shipped mini models: `train` makes each again from nothing."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file

from uwmlib.errors import UwmError
from uwmlib.files import atomic_path, sha256_of_file, write_json
from uwmlib.models.mini import WEIGHTS, wrap_mini
from uwmlib.models.mini_architectures import bare_model
from uwmlib.models.mini_llava import mini_llava, write_llava
from uwmlib.options import known
from uwmlib.training.allocator import keep_freed_memory
from uwmlib.training.captioning import caption_loss
from uwmlib.training.contrastive import web_loss
from uwmlib.training.optimisation import optimise
from uwmlib.training.safe_clip import safe_clip_loss
from uwmlib.tuples import load_tuples

RECIPES: dict[str, dict[str, Any]] = {
    "mini-ViT-L-14": {"steps": 3800, "batch_size": 128, "learning_rate": 1e-3, "weight_decay": 0.05},
    "mini-ViT-B-32": {"steps": 2600, "batch_size": 128, "learning_rate": 1.5e-3, "weight_decay": 0.05},
    "mini-CoCa": {"steps": 2600, "batch_size": 128, "learning_rate": 1.5e-3, "weight_decay": 0.05},
    "mini-SigLIP": {"steps": 2600, "batch_size": 128, "learning_rate": 1.5e-3, "weight_decay": 0.05},
    "mini-ViT-B-16": {"steps": 2600, "batch_size": 128, "learning_rate": 1.5e-3, "weight_decay": 0.05},
    "mini-LLaVA": {
        "steps": 2500, "batch_size": 64, "learning_rate": 1.5e-3, "weight_decay": 0.05, "base": "mini-ViT-L-14",
    },
    "mini-Safe-CLIP": {
        "steps": 150, "batch_size": 128, "learning_rate": 1e-4, "weight_decay": 0.0, "base": "mini-ViT-L-14",
    },
}  # fmt: skip


def train(
    name: str,
    *,
    output: str | Path = "trained",
    seed: int = 0,
    steps: int | None = None,
    progress: bool = True,
) -> Path:
    """Train a mini model from nothing and write its weights, its recipe and its curve.

    Parameters
    ----------
    name : str
        "mini-ViT-L-14" (contrastive, on web-like pairs) or "mini-Safe-CLIP" (fine-tuned from it on mini-visu's
        training tuples; from `output`'s own base if there is one, else from the shipped base).
    output : path
        Folder for `<name>.safetensors`, `<name>.json` (seed, recipe, curve, sha256) and the checkpoint to resume from.
    seed : int
        Seed of the initial weights and of the order of the data.
    steps : int, optional
        Fewer steps than the recipe's, for a trial.

    Returns
    -------
    Path
        The weights file.

    Raises
    ------
    UwmError
        If there is no recipe of that name.
    """
    known(name, RECIPES, "recipe for")
    if steps is not None and steps < 1:
        raise UwmError(f"steps={steps} trains nothing: ask for at least one step.")
    keep_freed_memory()
    recipe = RECIPES[name] | {"name": name, "seed": seed} | ({"steps": steps} if steps else {})
    folder = Path(output)
    started = time.perf_counter()
    model, loss_at = _start(recipe, folder)
    curve = optimise(
        model, loss_at, steps=recipe["steps"], learning_rate=recipe["learning_rate"],
        weight_decay=recipe["weight_decay"], checkpoint=folder / f"{name}.checkpoint.safetensors",
        recipe=recipe, progress=progress,
    )  # fmt: skip
    return _write(model, folder, recipe=recipe, curve=curve, minutes=(time.perf_counter() - started) / 60)


def _start(recipe: dict[str, Any], folder: Path) -> tuple[torch.nn.Module, Any]:
    """Return the untrained model of a recipe and its loss function."""
    name, options = recipe["name"], {"batch_size": recipe["batch_size"], "seed": recipe["seed"]}
    model = bare_model(recipe.get("base", name), recipe["seed"])
    if "base" not in recipe:
        return model, web_loss(wrap_mini(model, name=name), **options)
    own = folder / f"{recipe['base']}.safetensors"
    base = own if own.is_file() else WEIGHTS / own.name
    recipe["base_sha256"] = sha256_of_file(base)
    model.load_state_dict(load_file(base))
    if name == "mini-LLaVA":
        llava = mini_llava(recipe["seed"], visual=model.visual)
        return llava.model, caption_loss(llava, **options)
    return model, safe_clip_loss(model, load_tuples("mini-visu", split="train"), **options)


def _write(
    model: torch.nn.Module, folder: Path, *, recipe: dict[str, Any], curve: list, minutes: float
) -> Path:
    """Write weights and record; the checkpoint is of no further use and goes."""
    name = recipe["name"]
    path = folder / (f"{name}/model.safetensors" if name == "mini-LLaVA" else f"{name}.safetensors")
    if name == "mini-LLaVA":
        write_llava(model, path.parent)
    else:
        with atomic_path(path) as temporary:
            save_file({key: value.contiguous() for key, value in model.state_dict().items()}, temporary)
    record = {
        "file": str(path.relative_to(folder)), "sha256": sha256_of_file(path), "recipe": recipe, "curve": curve,
        "minutes": round(minutes, 1), "threads": torch.get_num_threads(), "torch": torch.__version__,
        "parameters": sum(p.numel() for p in model.parameters()),
    }  # fmt: skip
    write_json(folder / f"{name}.json", record)
    (folder / f"{name}.checkpoint.safetensors").unlink(missing_ok=True)
    return path
