"""What transformers loads from a folder or the hub: never its code, never a pickle, never a wait of minutes."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import torch
from torch import nn

from uwmlib.errors import UwmError

# Constants that older versions of transformers saved; they are no weights.
CONSTANTS = ("position_ids", "rotary_emb.inv_freq")
REACH = 5.0  # seconds in which the hub must answer


def load_part(auto_class: Any, source: str, *, name: str = "", near: str = "", **options: Any) -> Any:
    """Load a configuration, tokenizer or processor by the `from_pretrained` of one of transformers' classes.

    Parameters
    ----------
    auto_class : class with `from_pretrained`
    source : str
        Folder or hub id.
    name : str
        What the user asked for, for messages; `source` by default.
    near : str
        A question that ends the message, such as "did you mean ...?"

    Raises
    ------
    UwmError
        If there is no such folder or hub id, what it holds is not understood, or it wants its own code to be run.
    """
    name = name or source
    _require_source(name, source, near)
    check = "its files" if Path(source).is_dir() else "the name and the network"
    with hub_asked_once(source):
        return attempt(
            name,
            auto_class.from_pretrained,
            source,
            trust_remote_code=False,
            near=near,
            check=check,
            **options,
        )


def load_whole(
    model_class: Any, source: str, *, name: str = "", near: str = "", extra: bool = False, **options: Any
) -> nn.Module:
    """Load a model from safetensors; refuse one that lacks weights, or whose weights are no numbers.

    Parameters
    ----------
    extra : bool
        Whether the files may hold tensors that the model has no place for.
    model_class, source, name, near
        As in `load_part`.

    Raises
    ------
    UwmError
        As `load_part`, and if the weights are not those of such a model.
    """
    options |= {"use_safetensors": True, "output_loading_info": True}
    with _no_bars():
        model, report = load_part(model_class, source, name=name, near=near, **options)
    if absent := sorted(report["missing_keys"]):
        raise UwmError(f"{source} lacks {absent[0]}: load the weights of a whole model.")
    unknown = sorted(key for key in report["unexpected_keys"] if not key.endswith(CONSTANTS))
    if unknown and not extra:
        raise UwmError(
            f"{source} holds {unknown[0]}, for which the model has no place: load the weights of this architecture."
        )
    require_finite(dict(model.named_parameters()), source)
    return model


def require_finite(tensors: Mapping[str, torch.Tensor], source: Any) -> None:
    """Raise UwmError if a tensor holds NaN or infinity."""
    for key, tensor in tensors.items():
        # 8-bit floats know no isfinite
        if not torch.isfinite(tensor.detach().float() if tensor.element_size() == 1 else tensor).all():
            raise UwmError(f"{source} holds NaN or infinity in {key}: copy it again, or take other weights.")


def attempt(
    name: str,
    load: Callable,
    /,
    *args: Any,
    near: str = "",
    check: str = "the name and the network",
    **options: Any,
) -> Any:
    """Call a loader of another library and turn its failure, whatever it is, into one sentence."""
    try:
        return load(*args, **options)
    except Exception as error:  # what a file of unknown origin breaks is not for us to list
        reason = " ".join(str(error).split())[:200]
        if "trust_remote_code" in str(error):
            reason = "it brings code of its own, which is never run here"
        raise UwmError(
            f"{name} could not be loaded, check {check} ({reason or type(error).__name__}){_ending(near)}"
        ) from error


def _ending(near: str) -> str:
    return f": {near}" if near else "."


def _require_source(name: str, source: str, near: str) -> None:
    from huggingface_hub.errors import HFValidationError
    from huggingface_hub.utils import validate_repo_id

    try:
        if source and Path(source).is_dir():  # an empty path would be the current folder
            return
        is_file = source and Path(source).exists()
        if not is_file:
            validate_repo_id(source)
    except (HFValidationError, OSError, ValueError) as error:
        raise UwmError(
            f"{name:.200} could not be loaded: that is neither a folder nor a name on the hub{_ending(near)}"
        ) from error
    if is_file:
        raise UwmError(f"{source} is no folder: give the folder of a model, with its config.json.")


@contextmanager
def hub_asked_once(source: str = "") -> Iterator[None]:
    """Take what is kept on this machine where the hub does not answer.

    huggingface_hub would ask for each file six times with growing pauses, which takes minutes where a network
    swallows packets. `source`, if it is a folder, needs no hub.
    """
    from huggingface_hub import constants

    folder = source and Path(source).is_dir()
    if folder or constants.is_offline_mode() or _answers(constants.ENDPOINT):
        yield
        return
    constants.HF_HUB_OFFLINE = True
    try:
        yield
    finally:
        constants.HF_HUB_OFFLINE = False


def _answers(address: str) -> bool:
    try:
        httpx.head(address, timeout=REACH)
    except (httpx.HTTPError, httpx.InvalidURL):
        return False
    return True


@contextmanager
def _no_bars() -> Iterator[None]:
    """Switch off the bar that transformers draws for every loaded tensor."""
    from transformers.utils import logging as hf_logging

    shown = hf_logging.is_progress_bar_enabled()
    hf_logging.disable_progress_bar()
    try:
        yield
    finally:
        if shown:
            hf_logging.enable_progress_bar()
