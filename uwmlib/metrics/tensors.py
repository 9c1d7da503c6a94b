"""What callers give as tensors: tensors, arrays and lists become tensors, everything else is refused."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from uwmlib.errors import UwmError


def as_tensor(name: str, values: object) -> Tensor:
    """Return a dense tensor, detached; `name` stands in the message.

    Raises
    ------
    UwmError
        If the values are no dense tensor, array or list of equally long lists of numbers.
    """
    if isinstance(values, np.ndarray) and not values.flags.writeable:
        values = values.copy()  # torch warns of arrays that must not be written to
    try:
        # Contiguous: sums over other memory layouts run in another order, which would part equal rows.
        tensor = torch.as_tensor(values).detach().contiguous()
    except (TypeError, ValueError, RuntimeError, OverflowError) as error:
        what = f"no dense tensor but a {type(values).__name__}"
        raise UwmError(f"{name} is {what}: give a tensor, or lists of one length.") from error
    if tensor.is_meta:
        raise UwmError(f"{name} is a tensor without values (on the device 'meta'): compute it first.")
    return tensor


def as_successes(name: str, hits: object) -> Tensor:
    """Return a non-empty boolean [N], detached; UwmError for anything else."""
    tensor = as_tensor(name, hits)
    if tensor.ndim != 1 or tensor.dtype != torch.bool or len(tensor) == 0:
        raise UwmError(f"{name} must be a non-empty boolean [N], not {tensor.dtype} {list(tensor.shape)}.")
    return tensor


def as_paired_successes(named: Mapping[str, object], *, items: str) -> dict[str, Tensor]:
    """Return several non-empty boolean [N] of one N by name, detached; `items` says in messages what is counted.

    Raises
    ------
    UwmError
        If one is no such tensor, or their lengths differ.
    """
    checked = {name: as_successes(name, hits) for name, hits in named.items()}
    first, n = next((name, len(hits)) for name, hits in checked.items())
    for name, hits in checked.items():
        if len(hits) != n:
            raise UwmError(f"{name} has {len(hits)} {items} but {first} has {n}: give one value each.")
    return checked


def chosen_items(rows: Sequence[Tensor], index: Any, *, items: str) -> list[Tensor]:
    """Return the same items of each tensor [N]: by a boolean mask [N], a list or tensor of positions, or a slice.

    Raises
    ------
    UwmError
        If the index is none of these, or does not fit N.
    """
    if not isinstance(index, slice):
        index = as_tensor("The index", index)
    try:
        return [row[index] for row in rows]
    except IndexError as error:
        raise UwmError(f"The index does not fit {len(rows[0])} {items}: {error}.") from error
