"""Recipes of the shipped mini models: `train` makes each again from nothing."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file

from uwmlib.errors import UwmError
from uwmlib.files import atomic_path, sha256_of_file, write_json
from uwmlib.models.loading import load_weights
from uwmlib.models.mini import checked_weights, wrap_mini
from uwmlib.models.mini_architectures import bare_model
from uwmlib.models.mini_llava import mini_llava, write_llava
from uwmlib.options import known
from uwmlib.outputs import check_output
from uwmlib.parameters import check_run
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
        One of `RECIPES`. Most are trained from nothing on web-like pairs; "mini-Safe-CLIP" (on mini-visu's training
        tuples) and "mini-LLaVA" start from `output`'s own base if there is one, else from the shipped base.
    output : path
        Folder for `<name>.safetensors`, `<name>.json` (seed, recipe, curve, sha256) and the checkpoint to resume from.
        mini-LLaVA's weights are `mini-LLaVA/model.safetensors`, beside the files that transformers wants.
    seed : int
        Seed of the initial weights and of the order of the data, from 0 to 2**63 - 1.
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
    """
    known(name, RECIPES, "recipe for")
    check_run(seed=seed)
    if steps is not None and (not isinstance(steps, int) or steps < 1):
        raise UwmError(f"steps={steps!r} trains nothing: ask for at least one step.")
    recipe = RECIPES[name] | {"name": name, "seed": seed} | ({"steps": steps} if steps else {})
    folder = Path(output)
    for path in (_weights_path(name, folder), folder / f"{name}.json", _checkpoint_path(name, folder)):
        check_output(path, inputs=[_own(recipe["base"], folder)] if "base" in recipe else ())
    keep_freed_memory()
    started = time.perf_counter()
    model, loss_at = _start(recipe, folder)
    curve = optimise(
        model, loss_at, steps=recipe["steps"], learning_rate=recipe["learning_rate"],
        weight_decay=recipe["weight_decay"], checkpoint=_checkpoint_path(name, folder),
        recipe=recipe, progress=progress,
    )  # fmt: skip
    return _write(model, folder, recipe=recipe, curve=curve, minutes=(time.perf_counter() - started) / 60)


def _start(recipe: dict[str, Any], folder: Path) -> tuple[torch.nn.Module, Any]:
    """Return the untrained model of a recipe and its loss function."""
    name, options = recipe["name"], {"batch_size": recipe["batch_size"], "seed": recipe["seed"]}
    model = bare_model(recipe.get("base", name), recipe["seed"])
    if "base" not in recipe:
        return model, web_loss(wrap_mini(model, name=name), **options)
    base = _base_weights(recipe["base"], folder)
    recipe["base_sha256"] = sha256_of_file(base)
    load_weights(model, base)
    if name == "mini-LLaVA":
        llava = mini_llava(recipe["seed"], visual=model.visual)
        return llava.model, caption_loss(llava, **options)
    return model, safe_clip_loss(model, load_tuples("mini-visu", split="train"), **options)


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


def _weights_path(name: str, folder: Path) -> Path:
    return folder / (f"{name}/model.safetensors" if name == "mini-LLaVA" else f"{name}.safetensors")


def _checkpoint_path(name: str, folder: Path) -> Path:
    return folder / f"{name}.checkpoint.safetensors"


def _write(
    model: torch.nn.Module, folder: Path, *, recipe: dict[str, Any], curve: list, minutes: float
) -> Path:
    """Write weights and record; the checkpoint is of no further use and goes."""
    name = recipe["name"]
    path = _weights_path(name, folder)
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
    _checkpoint_path(name, folder).unlink(missing_ok=True)
    return path
