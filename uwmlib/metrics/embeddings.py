"""What every metric does first with embeddings: check them, and take cosines in float64."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from uwmlib.errors import UwmError
from uwmlib.metrics.tensors import as_tensor

# Cosines nearer than this are tied, in every metric. Equal directions of different length, or one pair along two ways
# (other BLAS kernels, blocks or threads), agree in float64 to far better than this, up to D = 4096 in the worst case;
# distinct float32 embeddings hardly ever come so near.
TIE = 1e-12

BLOCK = 256  # items at a time: their rows in float64 stay in the processor's cache


def check_embeddings(**named: Tensor) -> dict[str, Tensor]:
    """Return the embeddings by name, detached, after checking their kind and that they share one shape.

    Parameters
    ----------
    **named : Tensor, shape [N, D], any floating dtype
        The names appear in the messages.

    Raises
    ------
    UwmError
        If one is not a floating [N, D] with N, D >= 1, or their shapes differ.
    """
    checked = {name: as_tensor(name, rows) for name, rows in named.items()}
    first = next(iter(checked))
    shape = checked[first].shape
    for name, rows in checked.items():
        if rows.ndim != 2 or not rows.is_floating_point() or rows.numel() == 0:
            what = f"{rows.dtype} {list(rows.shape)}"
            raise UwmError(f"{name} must be non-empty floating-point rows [N, D], not {what}.")
        if rows.shape != shape:
            raise UwmError(
                f"{name} is {list(rows.shape)} but {first} is {list(shape)}: give one row per tuple in each."
            )
    # Apple GPUs have no float64.
    return {name: rows.cpu() if rows.device.type == "mps" else rows for name, rows in checked.items()}


def scaled_rows(rows: Tensor) -> tuple[Tensor, Tensor]:
    """Return rows [N, D] in float64 with their lengths [N]: dot products over lengths are cosines.

    The rows are a copy. Float64 ones are divided by their largest entry first, as squares of very small or large
    numbers would leave its range; those of any narrower type stay in it. Nothing is checked (`check_lengths`).
    """
    scaled = rows / rows.abs().amax(dim=1, keepdim=True) if rows.dtype == torch.float64 else rows.double()
    return scaled, torch.linalg.vector_norm(scaled, dim=1)


def check_lengths(name: str, rows: Tensor, lengths: Tensor) -> None:
    """Check the lengths [N] that `scaled_rows` found for the rows [N, D].

    Raises
    ------
    UwmError
        If a row is zero or holds NaN or Inf: it has no direction, hence no cosine.
    """
    bad = torch.nonzero(~(lengths.isfinite() & (lengths > 0)))
    if len(bad):
        row = int(bad[0])
        largest = float(rows[row].double().abs().amax())
        raise UwmError(
            f"Row {row} of {name} has length {largest} and so no cosine (all zeros, NaN or Inf): "
            "check the model or drop the row."
        )


def unit_rows(name: str, rows: Tensor) -> Tensor:
    """Return rows [N, D] scaled to norm 1, float64. Raises as `check_lengths`."""
    scaled, lengths = scaled_rows(rows)
    check_lengths(name, rows, lengths)
    return scaled.div_(lengths[:, None])


def paired_cosines(rows: Mapping[str, Tensor], pairs: Sequence[tuple[str, str]]) -> Tensor:
    """Return the cosines of row i of one part with row i of another, for each pair of parts.

    Parameters
    ----------
    rows : mapping of name to Tensor, shape [N, D]
        As `check_embeddings` returns them.
    pairs : sequence of (str, str)
        Names of two parts each.

    Returns
    -------
    Tensor, shape [pairs, N], float64, on the CPU

    Raises
    ------
    UwmError
        As `check_lengths`, for every part.
    """
    cosines, lengths = [], []
    for block in zip(*(each.split(BLOCK) for each in rows.values()), strict=True):
        parts = {name: scaled_rows(part) for name, part in zip(rows, block, strict=True)}
        found = [(parts[a][0] * parts[b][0]).sum(dim=1) / (parts[a][1] * parts[b][1]) for a, b in pairs]
        cosines.append(torch.stack(found))
        lengths.append(torch.stack([length for _, length in parts.values()]))
    for (name, each), own in zip(rows.items(), torch.cat(lengths, dim=1), strict=True):
        check_lengths(name, each, own)
    return torch.cat(cosines, dim=1).cpu()
