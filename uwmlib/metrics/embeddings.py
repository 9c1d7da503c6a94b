"""What every metric does first with embeddings: check them, and take cosines in float64."""

from __future__ import annotations

import torch
from torch import Tensor

from uwmlib.errors import UwmError

# Cosines of one pair computed along two ways (other BLAS kernels, blocks or threads) agree in float64 to far
# better than this, up to D = 4096 in the worst case; distinct float32 embeddings hardly ever come so near.
TIE = 1e-12

_CHUNK = 512


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
    # Contiguous: sums over other memory layouts run in another order, which would part equal rows.
    checked = {name: _as_rows(name, rows) for name, rows in named.items()}
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


def _as_rows(name: str, rows: object) -> Tensor:
    try:
        return torch.as_tensor(rows).detach().contiguous()
    except (TypeError, ValueError, RuntimeError) as error:
        raise UwmError(f"{name} is no dense tensor but a {type(rows).__name__}: give rows [N, D].") from error


def row_norms(name: str, rows: Tensor) -> Tensor:
    """Return the Euclidean norms of rows [N, D] as float64 [N].

    Raises
    ------
    UwmError
        If a row is zero or holds NaN or Inf: it has no direction, hence no cosine.
    """
    norms = torch.cat([torch.linalg.vector_norm(part.double(), dim=1) for part in rows.split(_CHUNK)])
    bad = torch.nonzero(~(norms.isfinite() & (norms > 0)))
    if len(bad):
        row = int(bad[0])
        raise UwmError(
            f"Row {row} of {name} has length {float(norms[row])} and so no cosine (all zeros, NaN or Inf): "
            "check the model or drop the row."
        )
    return norms


def unit_rows(name: str, rows: Tensor) -> Tensor:
    """Return rows [N, D] scaled to norm 1, float64. Raises as `row_norms`."""
    return rows.double() / row_norms(name, rows)[:, None]


def paired_cosines(left: Tensor, right: Tensor, left_norms: Tensor, right_norms: Tensor) -> Tensor:
    """Return the cosine of row i of `left` with row i of `right`, float64 [N]; time and memory linear in N.

    Equal rows give equal cosines to the last bit, whatever their place and the number of threads.
    """
    dots = [
        (a.double() * b.double()).sum(dim=1)  # [chunk, D] -> [chunk]
        for a, b in zip(left.split(_CHUNK), right.split(_CHUNK), strict=True)
    ]
    return torch.cat(dots) / (left_norms * right_norms)
