"""The mini models: real architectures at toy size, with weights that ship with the library."""

from __future__ import annotations

import json
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from safetensors.torch import load_file

from uwmlib.errors import UwmError
from uwmlib.files import sha256_of_file
from uwmlib.manifests import manifest_path
from uwmlib.mini.tokenizer import MiniSiglipTokenizer, MiniTokenizer
from uwmlib.models.families import family_of
from uwmlib.models.llava import Llava, tower_from_open_clip
from uwmlib.models.mini_architectures import bare_model, world_of_model
from uwmlib.models.mini_llava import bare_llava, mini_processor

if TYPE_CHECKING:
    from uwmlib.models.vlm import Vlm

WEIGHTS = Path(__file__).resolve().parent.parent / "weights"


@lru_cache(maxsize=1)
def mini_models() -> dict[str, dict[str, Any]]:
    """Return what `data_manifests/models.json` says of each shipped model: file, sha256, seed, recipe."""
    return json.loads(manifest_path("models.json").read_text(encoding="utf-8"))


def wrap_mini(model: torch.nn.Module, *, name: str) -> Vlm:
    """Wrap a mini model with its tokenizer and the mini world's preprocessing."""
    half, world = (0.5, 0.5, 0.5), world_of_model(name)
    if family_of(model).library == "transformers":
        from transformers.models.siglip.image_processing_pil_siglip import SiglipImageProcessorPil

        from uwmlib.models import transformers_backend

        processor = SiglipImageProcessorPil(
            size={"height": world.size, "width": world.size}, image_mean=half, image_std=half
        )
        return transformers_backend.wrap(
            model, name=name, tokenizer=MiniSiglipTokenizer(world=world), image_processor=processor
        )
    from uwmlib.models import open_clip_backend

    return open_clip_backend.wrap(
        model, name=name, tokenizer=MiniTokenizer(world=world), image_size=world.size, mean=half, std=half
    )


def build_mini(name: str) -> Vlm:
    """Load a shipped mini model after checking the hash of its weights.

    An entry with "vision" has no weights of its own: it is its base, a LLaVA, with the vision tower of another.

    Raises
    ------
    UwmError
        If the weights file is missing or is not the one whose sha256 is on record.
    """
    entry = mini_models()[name]
    if "vision" in entry:
        llava = build_mini(entry["base"])
        llava.replace_tower(tower_from_open_clip(build_mini(entry["vision"]).model.visual))
        llava.name = name
        return llava
    path = checked_weights(name)
    if name.endswith("-LLaVA"):
        model = bare_llava(name, seed=0)
        model.load_state_dict(load_file(path))
        return Llava(model, name=name, processor=mini_processor(name))
    model = bare_model(name, seed=0)
    model.load_state_dict(load_file(path))
    return wrap_mini(model, name=name)


def checked_weights(name: str) -> Path:
    """Return the weights file of a shipped model, or raise UwmError if it is missing or not the one on record."""
    entry = mini_models()[name]
    path = WEIGHTS / entry["file"]
    if not path.is_file():
        raise UwmError(
            f"The weights of {name} are missing ({path}): install uwmlib again, or restore that file."
        )
    if sha256_of_file(path) != entry["sha256"]:
        raise UwmError(f"{path} is not the file on record for {name} (sha256 differs): install uwmlib again.")
    return path
