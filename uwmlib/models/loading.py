"""Load a model by name."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from os import PathLike, fspath
from pathlib import Path
from pkgutil import resolve_name
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import nn

from uwmlib.errors import UwmError
from uwmlib.models import open_clip_backend
from uwmlib.models.families import family_named
from uwmlib.models.llava import Llava
from uwmlib.models.pretrained import (
    CONSTANTS,
    attempt,
    hub_asked_once,
    load_part,
    load_whole,
    require_finite,
)
from uwmlib.models.vlm import Vlm
from uwmlib.options import hint, known
from uwmlib.torchvision_shim import import_torchvision

# The paper's models on the Hugging Face hub, to suggest when a name is not found.
HUB_NAMES = (
    "openai/clip-vit-base-patch32",
    "openai/clip-vit-base-patch16",
    "openai/clip-vit-large-patch14",
    "aimagelab/safeclip_vit-l_14",
    "google/siglip-so400m-patch14-384",
    "llava-hf/llava-1.5-13b-hf",
)
_PICKLES = (".pt", ".pth", ".bin", ".ckpt", ".pkl")


def load_model(
    name: str,
    *,
    device: str | torch.device = "cpu",
    dtype: torch.dtype = torch.float32,
    weights: str | PathLike | None = None,
    vision_weights: str | PathLike | None = None,
) -> Vlm:
    """Load a vision-language model.

    Parameters
    ----------
    name : str
        "mini-..." is a small model shipped with this library.
        "hf:openai/clip-vit-large-patch14" or "hf:<folder>" is a CLIP, SigLIP, MetaCLIP 2, LLaVA-1.5 or LLaVA-NeXT of
        transformers. "open_clip:ViT-L-14" is an architecture of open_clip; open_clip's own names also work, with that
        prefix or without: "ViT-L-14/openai"
        (architecture and pretrained tag), "local-dir:<folder>" and "hf-hub:<org/name>" (a folder, or a
        repository of the hub, with open_clip_config.json and open_clip_model.safetensors).
    device : str or torch.device
    dtype : torch.dtype
        A floating type; every parameter gets it.
    weights : str or path, optional
        A local .safetensors file whose tensors must match the model exactly, for any model; "random" for
        untrained weights (not for mini models). For an architecture of open_clip also one of its pretrained
        tags, and one of the three must be given. For transformers also a folder or hub id, which then gives
        the weights while `name` gives tokenizer and image processor: Safe-CLIP is
        `load_model("hf:openai/clip-vit-large-patch14", weights="aimagelab/safeclip_vit-l_14")`.
    vision_weights : str or path, optional
        For LLaVA: folder or hub id of a CLIP whose vision tower replaces LLaVA's own, as the paper puts
        Safe-CLIP's "aimagelab/safeclip_vit-l_14_336" into "hf:llava-hf/llava-1.5-13b-hf".

    Returns
    -------
    Vlm
        A `Llava`, which also writes captions, where the name is one of a LLaVA.

    Raises
    ------
    UwmError
        For an unknown name, tag, device or type, weights that do not fit or are no numbers, or a download that
        fails.

    Notes
    -----
    Nothing is unpickled from a local file, and transformers weights must be safetensors; code that a folder or
    a hub id brings along is never run. Tags are fetched by open_clip, which prefers safetensors and otherwise
    calls `torch.load` with `weights_only=True`.

    Where the hub does not answer within seconds, what is kept of it on this machine is taken.

    OpenAI's weights, and Safe-CLIP's, were trained with QuickGELU: in open_clip they need the architecture
    with that suffix, as in "open_clip:ViT-L-14-quickgelu".

    A model whose image encoder is no plain transformer (RN50, EVA-02, MobileCLIP-S, ConvNeXt) embeds like any
    other; asking for sites of that encoder is refused.

    With a local file or random weights, pixels are normalised as for the first pretrained tag that open_clip
    lists for the architecture.

    Examples
    --------
    >>> import uwmlib as uwm
    >>> uwm.load_model("mini-ViT-L-14")
    Vlm('mini-ViT-L-14', backend='open_clip', device='cpu', dtype=torch.float32)

    An architecture of open_clip with untrained weights:

    >>> vlm = uwm.load_model("open_clip:ViT-S-32-alt", weights="random")
    >>> len(vlm.sites(vision="fc2"))
    12
    """
    if not isinstance(name, str):
        raise UwmError(f"The model's name is {name!r}: give text, such as 'mini-ViT-L-14'.")
    prefix, _, rest = name.partition(":")
    device = checked_device(device)
    if not isinstance(dtype, torch.dtype) or not dtype.is_floating_point:
        raise UwmError(f"The number type must be a floating torch type such as torch.float32, not {dtype}.")
    weights, vision_weights = _as_text(weights, "weights"), _as_text(vision_weights, "vision_weights")
    if weights is not None and weights.lower().endswith(_PICKLES):
        raise UwmError(f"{weights} may hold pickled code and is not read: convert it to .safetensors first.")
    if vision_weights is not None and prefix != "hf":
        raise UwmError(f"{name} takes no vision_weights: they are for a LLaVA of transformers ('hf:...').")
    if name.startswith("mini-"):
        vlm = _load_mini(name, weights)
    elif prefix == "hf":
        vlm = _load_transformers(name, rest, weights, dtype=dtype)
        if vision_weights is not None:
            _replace_tower(vlm, vision_weights)
    elif prefix in ("open_clip", "hf-hub", "local-dir"):
        vlm = _load_open_clip(name, rest if prefix == "open_clip" else name, weights)
    elif "/" in name and name.partition("/")[0] in _architectures():
        vlm = _load_open_clip(name, name, weights)
    else:
        raise UwmError(
            f"There is no model {name!r}: names start with 'mini-', 'open_clip:' or 'hf:', or are open_clip's own, "
            f"such as 'ViT-L-14/openai'."
        )
    vlm.model.to(device=device, dtype=dtype)
    return vlm


def _as_text(path: str | PathLike | None, option: str) -> str | None:
    text = fspath(path) if isinstance(path, PathLike) else path
    if path is None or (isinstance(text, str) and text and "\0" not in text):
        return text
    raise UwmError(f"{option} is {path!r}: give a path or a name as text, or leave it out.")


def load_weights(model: nn.Module, path: str | PathLike) -> None:
    """Copy the tensors of a safetensors file into a model; names and shapes must match exactly.

    Raises
    ------
    UwmError
        If the file is missing or damaged, a name or shape differs, or a value is no finite floating number. The
        model is then unchanged.
    """
    path = Path(path)
    if not path.is_file():
        what = "is a folder, not a weights file" if path.is_dir() else "is no weights file"
        raise UwmError(f"{path} {what}: check the path.")
    try:
        tensors = load_file(path)
    except (SafetensorError, OSError, ValueError, KeyError) as error:
        raise UwmError(f"{path} is not a whole safetensors file ({error}): copy or make it again.") from error
    tensors = {key: tensor for key, tensor in tensors.items() if not key.endswith(CONSTANTS)}
    _require_fit(model.state_dict(), tensors, path)
    require_finite(tensors, path)
    model.load_state_dict(tensors)


def _require_fit(expected: Mapping[str, torch.Tensor], found: Mapping[str, torch.Tensor], path: Path) -> None:
    wanted, given = _kinds(expected), _kinds(found)
    differing = sorted(key for key in wanted.keys() | given.keys() if wanted.get(key) != given.get(key))
    if differing:
        key = differing[0]
        raise UwmError(
            f"{path} does not fit the model in {len(differing)} tensors, the first being {key} "
            f"({given.get(key, 'absent')} in the file, {wanted.get(key, 'absent')} in the model): "
            f"load the weights of this architecture."
        )


def _kinds(tensors: Mapping[str, torch.Tensor]) -> dict[str, str]:
    """Return shapes, and the type where it is not floating: a weight rounded to integers is another weight."""
    return {
        key: str(list(tensor.shape)) + ("" if tensor.is_floating_point() else f" of {tensor.dtype}")
        for key, tensor in tensors.items()
    }


def _load_mini(name: str, weights: str | None) -> Vlm:
    from uwmlib.models.mini import build_mini, mini_models

    known(name, mini_models(), "mini model")
    if weights == "random":
        raise UwmError(f"{name} comes with its own weights: leave weights out, or give a .safetensors file.")
    vlm = build_mini(name)
    if weights is not None:
        load_weights(vlm.model, weights)
    return vlm


def _architectures() -> list[str]:
    """The architectures that open_clip knows by name."""
    import_torchvision()
    import open_clip

    return open_clip.list_models()


def _load_open_clip(name: str, architecture: str, weights: str | None) -> Vlm:
    schema, _, place = architecture.partition(":")
    if schema == "local-dir":
        return _saved_open_clip(name, architecture, Path(place), weights)
    if schema == "hf-hub":
        with hub_asked_once():
            return _saved_open_clip(name, architecture, _from_hub(name, place, weights), weights)
    architecture, _, tag = architecture.partition("/")
    if tag and weights is not None:
        raise UwmError(f"{name} says its weights already: leave weights out, or {tag!r}.")
    return _named_open_clip(name, architecture, tag or weights)


def _named_open_clip(name: str, architecture: str, weights: str | None) -> Vlm:
    """Load one of open_clip's architectures with the weights of a tag, of a file, or random ones."""
    known(architecture, _architectures(), "architecture of open_clip")
    import open_clip

    tags = open_clip.list_pretrained_tags_by_model(architecture)
    if weights is None:
        offer = f"one of its tags ({', '.join(tags)}), " if tags else ""
        raise UwmError(f"Say which weights {name} shall have: {offer}a .safetensors file or 'random'.")
    is_file = weights.endswith(".safetensors")
    if not is_file and weights != "random":
        known(weights, tags, f"pretrained tag of {architecture}")
    tag = weights if weights in tags else None
    with _hub_for(architecture, tag):
        tokenizer = _tokenizer(name, architecture, open_clip.get_model_config(architecture))
        model = _create_open_clip(name, architecture, tag, tags)
    if is_file:
        load_weights(model, weights)
    elif tag is not None:
        require_finite(dict(model.named_parameters()), f"The tag {tag}")
    return _wrapped_open_clip(name, model, tokenizer)


def _saved_open_clip(name: str, source: str, folder: Path, weights: str | None) -> Vlm:
    """Load what open_clip has saved in a folder, with weights from elsewhere where they are given."""
    import_torchvision()
    import open_clip

    if not (folder / "open_clip_config.json").is_file():
        raise UwmError(
            f"There is no open_clip_config.json in {folder}: give a folder that open_clip has saved."
        )
    tokenizer = _tokenizer(name, source, _config_in(folder))
    with _quiet_about_random_weights():
        # Without weights: open_clip would also take a pickle from the folder.
        bare = {"load_weights": False, "pretrained_text": False}
        model = attempt(name, open_clip.create_model, f"local-dir:{folder}", **bare)
    if weights != "random":
        load_weights(model, weights or folder / "open_clip_model.safetensors")
    return _wrapped_open_clip(name, model, tokenizer)


def _config_in(folder: Path) -> Mapping[str, Any]:
    """Return what a folder of open_clip says of its model."""
    path = folder / "open_clip_config.json"
    try:
        config = json.loads(path.read_text(encoding="utf-8"))["model_cfg"]
        if isinstance(config["text_cfg"], dict):
            return config
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        pass
    raise UwmError(f"{path} describes no model (model_cfg with text_cfg): copy it again.")


def _tokenizer(name: str, source: str, config: Mapping[str, Any]) -> Callable:
    """Return open_clip's tokenizer, after a check that neither it nor its text encoder brings code."""
    import open_clip
    from transformers import AutoConfig

    text = config["text_cfg"]
    if text.get("hf_model_name"):
        # Asked first: open_clip would put the question whether to run that code to whoever sits at the keyboard.
        load_part(AutoConfig, str(text["hf_model_name"]), name=name)
    # Said aloud, because a configuration may say the opposite.
    options = {"trust_remote_code": False} if text.get("hf_tokenizer_name") else {}
    return attempt(name, open_clip.get_tokenizer, source, **options)


def _from_hub(name: str, repository: str, weights: str | None) -> Path:
    """Fetch configuration and weights of open_clip from the hub, never a pickle; return their folder."""
    from huggingface_hub import hf_hub_download

    config = Path(attempt(name, hf_hub_download, repository, "open_clip_config.json"))
    if weights is None:
        attempt(name, hf_hub_download, repository, "open_clip_model.safetensors")
    return config.parent


def _wrapped_open_clip(name: str, model: nn.Module, tokenizer: Callable) -> Vlm:
    config = model.visual.preprocess_cfg
    return open_clip_backend.wrap(
        model,
        name=name,
        tokenizer=tokenizer,
        image_size=config["size"],
        mean=config["mean"],
        std=config["std"],
        interpolation=config["interpolation"],
        resize_mode=config["resize_mode"],
    )


def _hub_for(architecture: str, tag: str | None) -> AbstractContextManager:
    """Ask for the hub only where something is to come from it: weights, or the tokenizer of a text encoder."""
    import open_clip

    text = open_clip.get_model_config(architecture).get("text_cfg", {})
    return hub_asked_once() if tag or any(key.startswith("hf_") for key in text) else nullcontext()


def _create_open_clip(name: str, architecture: str, tag: str | None, tags: list[str]) -> nn.Module:
    import open_clip

    # create_model normalises pixels as OpenAI did unless a tag says otherwise; SigLIP's pixels differ.
    preprocess = open_clip.get_pretrained_cfg(architecture, tag or tags[0]) if tags else {}
    with _quiet_about_random_weights():
        return attempt(
            name,
            open_clip.create_model,
            architecture,
            pretrained=tag,
            pretrained_text=False,
            force_preprocess_cfg=preprocess,
            weights_only=True,
        )


@contextmanager
def _quiet_about_random_weights() -> Iterator[None]:
    """Silence open_clip's warning about random weights: either they were asked for or a file follows."""

    def keep(record: logging.LogRecord) -> bool:
        return "No pretrained weights loaded" not in record.getMessage()

    root = logging.getLogger()
    root.addFilter(keep)
    try:
        yield
    finally:
        root.removeFilter(keep)


def _load_transformers(name: str, source: str, weights: str | None, *, dtype: torch.dtype) -> Vlm:
    import_torchvision()
    import transformers

    asked = {"name": name, "near": hint(source, HUB_NAMES, otherwise="")}
    config = load_part(transformers.AutoConfig, source, **asked)
    family = family_named(config.model_type, name=name)
    model_class = getattr(transformers, family.model_class or "-", None)
    if model_class is None:
        raise UwmError(
            f"transformers has no class {family.model_class!r}: name that of the family {family.name} in model_class."
        )
    if weights == "random" or (weights or "").endswith(".safetensors"):
        model = attempt(name, model_class, config)
        if weights != "random":
            load_weights(model, weights)
    else:
        model = load_whole(model_class, weights or source, config=config, dtype=dtype, **asked)
    # The torchvision processors resize differently; PIL's is the pipeline these models were published with.
    if "language" in family.blocks:
        parts = {"processor": load_part(transformers.AutoProcessor, source, backend="pil", **asked)}
    else:
        images = load_part(transformers.AutoImageProcessor, source, backend="pil", **asked)
        tokenizer = load_part(transformers.AutoTokenizer, source, **asked)
        parts = {"tokenizer": tokenizer, "image_processor": images}
    return attempt(name, resolve_name(family.wrap), model, name=name, **parts)


def _replace_tower(vlm: Vlm, source: str) -> None:
    """Put the vision tower of a CLIP into a LLaVA."""
    from transformers import CLIPModel

    if not isinstance(vlm, Llava):
        raise UwmError(f"{vlm.name} takes no vision_weights: they are for a LLaVA.")
    clip = load_whole(CLIPModel, source)
    vlm.replace_tower(clip.vision_model.state_dict())


def checked_device(device: str | torch.device) -> torch.device:
    """Return a device that holds tensors here; UwmError for any other."""
    try:
        torch.empty(0, device=(known := torch.device(device)))
    except (RuntimeError, AssertionError, TypeError) as error:
        raise UwmError(
            f"The device {device!r} cannot be used here: take 'cpu' or a device that torch sees."
        ) from error
    return known
