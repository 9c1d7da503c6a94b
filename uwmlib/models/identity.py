"""What a model is beyond its weights: the classes, settings and functions that its modules are made of."""

from __future__ import annotations

import hashlib
import json
from functools import partial
from typing import Any

import torch
from torch import nn

from uwmlib.files import sha256_of_tensors

# Where a configuration came from, which says nothing of what it is.
_ORIGINS = ("_name_or_path", "name_or_path", "transformers_version", "_commit_hash")
_HOOKS = ("_forward_pre_hooks", "_forward_hooks")


def architecture_hash(model: nn.Module, *, without: str | None = None) -> str:
    """Return the SHA-256 over everything of a model but its weights, as far as it can be read off.

    Every module counts with its class, its settings (such as eps, heads or a configuration), the functions
    among them, its hooks, and the buffers that a state dict leaves out.

    Parameters
    ----------
    model : nn.Module
    without : str, optional
        Dotted path of modules whose children do not count.
    """
    parts = {
        name: _described_module(module)
        for name, module in model.named_modules()
        if without is None or not name.startswith(f"{without}.")
    }
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()


def _described_module(module: nn.Module) -> dict[str, Any]:
    hooks = [_described(hook) for kind in _HOOKS for hook in getattr(module, kind).values()]
    buffers = {name: getattr(module, name) for name in module._non_persistent_buffers_set}
    settings = {name: value for name, value in vars(module).items() if not name.startswith("_")}
    return {
        "class": _name(type(module)), "settings": _described(settings), "buffers": _described(buffers), "hooks": hooks,
    }  # fmt: skip


def _described(value: Any) -> Any:
    """Return something JSON-able that is the same in every process; of what is not known, its class alone."""
    if value is None or isinstance(value, (bool, int, float, str)):
        return value
    if isinstance(value, (list, tuple)):
        return [_described(each) for each in value]
    if isinstance(value, dict):
        return {str(key): _described(each) for key, each in value.items() if key not in _ORIGINS}
    if isinstance(value, partial):
        return [_described(value.func), _described(value.args), _described(value.keywords)]
    if isinstance(value, torch.Tensor):
        return sha256_of_tensors({"": value})
    if isinstance(value, torch.dtype):
        return str(value)
    if hasattr(value, "to_dict") and not isinstance(value, type):
        return _described(value.to_dict())
    return _name(value if hasattr(value, "__qualname__") else type(value))


def _name(value: Any) -> str:
    return f"{value.__module__}.{value.__qualname__}"
