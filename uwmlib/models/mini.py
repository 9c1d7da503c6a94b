"""The mini models: real open_clip architectures at toy size, with weights that ship with the library."""

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
from uwmlib.mini.sprites import SIZE
from uwmlib.mini.tokenizer import CONTEXT_LENGTH, MiniTokenizer

if TYPE_CHECKING:
    from uwmlib.models.vlm import Vlm

WEIGHTS = Path(__file__).resolve().parent.parent / "weights"
CLIP_CONFIG: dict[str, Any] = {
    "embed_dim": 96,
    "vision_cfg": {"image_size": SIZE, "layers": 4, "width": 128, "head_width": 32, "patch_size": 8},
    "text_cfg": {"context_length": CONTEXT_LENGTH, "width": 96, "heads": 3, "layers": 4},
}


@lru_cache(maxsize=1)
def mini_models() -> dict[str, dict[str, Any]]:
    """Return what `data_manifests/models.json` says of each shipped model: file, sha256, seed, recipe."""
    return json.loads(manifest_path("models.json").read_text(encoding="utf-8"))


def bare_clip(seed: int) -> torch.nn.Module:
    """Return open_clip's CLIP at mini size with seeded random weights."""
    from uwmlib.torchvision_shim import import_torchvision

    import_torchvision()
    from open_clip.model import CLIP

    text = CLIP_CONFIG["text_cfg"] | {"vocab_size": MiniTokenizer().vocab_size}
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return CLIP(CLIP_CONFIG["embed_dim"], CLIP_CONFIG["vision_cfg"], text)


def wrap_mini(model: torch.nn.Module, *, name: str) -> Vlm:
    """Wrap a mini model with the mini world's tokenizer and preprocessing."""
    from uwmlib.models.open_clip_backend import wrap

    half = (0.5, 0.5, 0.5)
    return wrap(model, name=name, tokenizer=MiniTokenizer(), image_size=SIZE, mean=half, std=half)


def build_mini(name: str) -> Vlm:
    """Load a shipped mini model after checking the hash of its weights.

    Raises
    ------
    UwmError
        If the weights file is missing or is not the one whose sha256 is on record.
    """
    entry = mini_models()[name]
    path = WEIGHTS / entry["file"]
    if not path.is_file():
        raise UwmError(
            f"The weights of {name} are missing ({path}): install uwmlib again, or run `uwm train {name}`."
        )
    if sha256_of_file(path) != entry["sha256"]:
        raise UwmError(f"{path} is not the file on record for {name} (sha256 differs): install uwmlib again.")
    model = bare_clip(seed=0)
    model.load_state_dict(load_file(path))
    return wrap_mini(model, name=name)
