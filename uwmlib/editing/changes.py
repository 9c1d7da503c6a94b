"""What an edit does to one parameter: scale chosen weights, add a delta, or gate whole input neurons."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch

from uwmlib.errors import UwmError
from uwmlib.metrics.tensors import as_tensor
from uwmlib.options import ENCODERS, is_whole, known, number, shown, whole_number

# Those of 8 bits can neither be added nor multiplied.
FLOATS = (torch.float16, torch.bfloat16, torch.float32, torch.float64)
EDITED = (*ENCODERS, "language")  #: what has weights to edit; "language" is the language model of a LLaVA


@dataclass(frozen=True, kw_only=True, eq=False)
class Change(ABC):
    """What every kind of change knows about its parameter.

    Attributes
    ----------
    encoder : "text", "vision" or "language"
    base_hash : str
        SHA-256 of the parameter before the edit (`weight_edit.parameter_hash`).
    shape : tuple of int
        Of the whole parameter.

    Raises
    ------
    UwmError
        If one of these is of another kind or out of range.

    Examples
    --------
    Every change knows how much of its parameter it edits:

    >>> import uwmlib as uwm
    >>> vlm = uwm.load_model("mini-ViT-L-14")
    >>> tuples = uwm.load_tuples("mini-visu", split="train", n=8)
    >>> scores = uwm.score(vlm, tuples, text=None, progress=False)
    >>> edit = scores.select(tau=0.5, rule="fixed")
    >>> for name, change in edit.changes.items():
    ...     print(name, f"{change.n_weights / change.n_candidates:.0%}")
    visual.transformer.resblocks.0.mlp.c_proj.weight 50%
    visual.transformer.resblocks.1.mlp.c_proj.weight 50%
    visual.transformer.resblocks.2.mlp.c_proj.weight 50%
    visual.transformer.resblocks.3.mlp.c_proj.weight 50%
    """

    encoder: str
    base_hash: str
    shape: tuple[int, ...]

    def __post_init__(self) -> None:
        known(self.encoder, EDITED, "encoder for an edit,")
        if not isinstance(self.base_hash, str):
            raise UwmError(f"base_hash is {self.base_hash!r}: give the parameter_hash of the parameter.")
        sides = isinstance(self.shape, tuple) and all(is_whole(side) and side > 0 for side in self.shape)
        if not sides or self.numel >= 2**63:
            raise UwmError(
                f"The shape of an edited parameter is {shown(self.shape)}: give a tuple of whole numbers."
            )

    @property
    def numel(self) -> int:
        """Number of weights of the whole parameter."""
        return math.prod(self.shape)

    @property
    @abstractmethod
    def n_weights(self) -> int:
        """Number of weights that change."""

    @property
    @abstractmethod
    def n_candidates(self) -> int:
        """Number of weights that `n_weights` is a share of."""

    @abstractmethod
    def where(self, device: torch.device) -> Any:
        """Return the index of the changed part in the parameter, for tensors on `device`."""

    @abstractmethod
    def after(self, before: torch.Tensor) -> torch.Tensor:
        """Return what becomes of the changed part, in the same number type."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Scaling(Change):
    """Chosen weights times alpha (Eq. 11).

    Attributes
    ----------
    indices : LongTensor, shape [k], on the CPU
        Flat indices in the whole parameter, strictly ascending.
    alpha : float
    candidates : int
        Number of weights that were scored; less than `numel` where only some rows were (value projections).

    Raises
    ------
    UwmError
        As `Change`, and for indices out of order or range, or more of them than were scored.

    Examples
    --------
    The first and the last weight of a 2x2 parameter change their sign:

    >>> import torch
    >>> from uwmlib.editing import Scaling
    >>> change = Scaling(
    ...     encoder="vision", base_hash="", shape=(2, 2),
    ...     indices=torch.tensor([0, 3]), alpha=-1.0, candidates=4,
    ... )
    >>> weight = torch.tensor([[1.0, 2.0], [3.0, 4.0]])
    >>> at = change.where(weight.device)
    >>> weight[at] = change.after(weight[at])
    >>> weight
    tensor([[-1.,  2.],
            [ 3., -4.]])
    """

    indices: torch.Tensor
    alpha: float
    candidates: int

    def __post_init__(self) -> None:
        super().__post_init__()
        check_alpha(self.alpha)
        whole_number(self.candidates, "candidates", most=self.numel)
        check_ascending(self.indices, self.numel, "indices")
        if len(self.indices) > self.candidates:
            raise UwmError(
                f"{len(self.indices)} weights are edited but {self.candidates} were scored: make the edit again."
            )

    @property
    def n_weights(self) -> int:
        """Number of scaled weights."""
        return len(self.indices)

    @property
    def n_candidates(self) -> int:
        """Number of scored weights."""
        return self.candidates

    def where(self, device: torch.device) -> tuple[torch.Tensor, ...]:
        """Return one index per weight and dimension."""
        return torch.unravel_index(self.indices.to(device), self.shape)

    def after(self, before: torch.Tensor) -> torch.Tensor:
        """Return `before` times alpha."""
        return before * self.alpha


@dataclass(frozen=True, kw_only=True, eq=False)
class Delta(Change):
    """A delta added to a whole parameter, or to some of its rows: W + D.

    Attributes
    ----------
    delta : FloatTensor, shape `shape`, or with `rows` [k, ...]
        Finite. The sum is taken in the wider of both number types, and rounded to the parameter's.
    rows : LongTensor, shape [k], on the CPU, or None
        Strictly ascending; None for all rows.

    Raises
    ------
    UwmError
        As `Change`, and for a delta that does not fit or is not finite.

    Examples
    --------
    Something is added to the second row of a 2x2 parameter:

    >>> import torch
    >>> from uwmlib.editing import Delta
    >>> change = Delta(
    ...     encoder="vision", base_hash="", shape=(2, 2),
    ...     delta=torch.tensor([[10.0, 20.0]]), rows=torch.tensor([1]),
    ... )
    >>> weight = torch.tensor([[1.0, 2.0], [3.0, 4.0]])
    >>> at = change.where(weight.device)
    >>> weight[at] = change.after(weight[at])
    >>> weight
    tensor([[ 1.,  2.],
            [13., 24.]])
    """

    delta: torch.Tensor
    rows: torch.Tensor | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        wanted = self.shape
        if self.rows is not None:
            if not self.shape:
                raise UwmError("A parameter that is one number has no rows to add to: leave them out.")
            check_ascending(self.rows, self.shape[0], "rows")
            wanted = (len(self.rows), *self.shape[1:])
        check_floats(self.delta, wanted, "The delta")

    @property
    def n_weights(self) -> int:
        """Number of weights that something is added to; 0 is nothing."""
        return int(self.delta.count_nonzero())

    @property
    def n_candidates(self) -> int:
        """Number of weights of the parameter."""
        return self.numel

    def where(self, device: torch.device) -> Any:
        """Return the rows, or everything."""
        return ... if self.rows is None else self.rows.to(device)

    def after(self, before: torch.Tensor) -> torch.Tensor:
        """Return `before` plus the delta."""
        return (before + self.delta.to(before.device)).to(before.dtype)


@dataclass(frozen=True, kw_only=True, eq=False)
class Gates(Change):
    """One factor for every input neuron of a product z @ W.T, folded into the columns of W: W diag(g).

    Attributes
    ----------
    factors : FloatTensor, shape [in]
        Finite. 1 leaves a neuron as it is, 0 silences it, -1 negates it.
    rows : (int, int) or None
        The rows of the parameter which are W, as in `Site`; None for all of them.

    Raises
    ------
    UwmError
        As `Change`, and for factors that do not fit or are not finite.

    Examples
    --------
    The second input neuron of a 2x2 weight is silenced:

    >>> import torch
    >>> from uwmlib.editing import Gates
    >>> change = Gates(
    ...     encoder="vision", base_hash="", shape=(2, 2),
    ...     factors=torch.tensor([1.0, 0.0]),
    ... )
    >>> weight = torch.tensor([[1.0, 2.0], [3.0, 4.0]])
    >>> at = change.where(weight.device)
    >>> weight[at] = change.after(weight[at])
    >>> weight
    tensor([[1., 0.],
            [3., 0.]])
    """

    factors: torch.Tensor
    rows: tuple[int, int] | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        if len(self.shape) != 2:
            raise UwmError(
                f"Gates belong to a matrix, not to {list(self.shape)}: name the weight of a layer."
            )
        check_floats(self.factors, self.shape[1:], "The gates")
        if self.rows is not None:
            _check_span(self.rows, self.shape[0])

    @property
    def n_weights(self) -> int:
        """Number of weights in the columns whose factor is not 1."""
        return int((self.factors != 1).sum()) * self._n_rows

    @property
    def n_candidates(self) -> int:
        """Number of weights of W."""
        return self._n_rows * self.shape[1]

    @property
    def _n_rows(self) -> int:
        return self.shape[0] if self.rows is None else self.rows[1] - self.rows[0]

    def where(self, device: torch.device) -> tuple[slice, torch.Tensor]:
        """Return the rows of W, and the columns whose factor is not 1."""
        return slice(*(self.rows or (None,))), (self.factors != 1).nonzero().flatten().to(device)

    def after(self, before: torch.Tensor) -> torch.Tensor:
        """Return every column times its factor."""
        factors = self.factors[self.factors != 1].to(before.device)
        return (before * factors).to(before.dtype)  # [rows, k] x [k]


#: The name of each kind of change in files.
KINDS: dict[str, type[Change]] = {"scaling": Scaling, "delta": Delta, "gates": Gates}


@contextmanager
def about(name: str) -> Iterator[None]:
    """Say which parameter it is whose change is refused."""
    try:
        yield
    except UwmError as error:
        raise UwmError(f"Parameter {name}: {error}") from error


def check_alpha(alpha: float, what: str = "alpha") -> None:
    """Raise UwmError unless alpha is a finite number."""
    if not math.isfinite(number(alpha, what)):
        raise UwmError(f"{what} is {alpha}: give a finite number, such as -1.")


def own(what: str, values: Any) -> torch.Tensor:
    """Return the values as a tensor on the CPU that shares no memory: what the caller does next changes no edit."""
    return as_tensor(what, values).cpu().clone()


def check_ascending(indices: Any, size: int, what: str) -> None:
    """Raise UwmError unless `indices` is a LongTensor [k], strictly ascending within 0 to size - 1."""
    if not isinstance(indices, torch.Tensor) or indices.dtype != torch.long or indices.ndim != 1:
        raise UwmError(f"The {what} of an edit are not a list of int64: give a LongTensor.")
    ascending = bool((indices[1:] > indices[:-1]).all())
    if len(indices) and (int(indices[0]) < 0 or int(indices[-1]) >= size or not ascending):
        raise UwmError(
            f"The {what} of an edit do not ascend strictly within 0 to {size - 1}: make the edit again."
        )


def check_floats(tensor: Any, shape: Sequence[int], what: str) -> None:
    """Raise UwmError unless `tensor` holds finite floating numbers of this shape."""
    if not isinstance(tensor, torch.Tensor) or tensor.dtype not in FLOATS:
        raise UwmError(
            f"{what} must be a tensor of floating numbers of 16 bits or more: give one of shape {list(shape)}."
        )
    if tuple(tensor.shape) != tuple(shape):
        raise UwmError(f"{what} has shape {list(tensor.shape)} where {list(shape)} is edited: give that one.")
    if not torch.isfinite(tensor).all():
        raise UwmError(f"{what} is NaN or infinite in places: look at how it was made.")


def _check_span(rows: Any, n_rows: int) -> None:
    pair = isinstance(rows, tuple) and len(rows) == 2 and all(map(is_whole, rows))
    if not pair or not 0 <= rows[0] < rows[1] <= n_rows:
        raise UwmError(f"The rows of an edit are {rows!r}: give the first, and the one behind the last.")
