"""One number with its interval, or one outcome per item, out of whatever the metrics return."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from uwmlib.errors import UwmError


@dataclass(frozen=True)
class Measured:
    """A number in its table's unit with its 95% interval; NaN bounds where none is known."""

    value: float
    lo: float = math.nan
    hi: float = math.nan
    n: int | None = None

    @property
    def has_interval(self) -> bool:
        return math.isfinite(self.lo) and math.isfinite(self.hi)


def measured(source: Any, key: str) -> Measured | None:
    """Read the score `key` from what was measured for one model.

    Parameters
    ----------
    source : SafeGround, Retrieval, mapping, or a list of them
        A mapping holds, for each key, a number in percent, a `Measured`, an Accuracy, the saved form
        `{"value": v, "interval": [lo, hi], "n": n}`, or booleans of shape [N].
    key : str

    Returns
    -------
    Measured or None
        None if `source` does not know the score.
    """
    if isinstance(source, list | tuple):
        found = (measured(part, key) for part in source)
        return next((one for one in found if one is not None), None)
    if isinstance(source, Mapping):
        return None if source.get(key) is None else _read(source[key])
    if key not in _keys_of(source):
        return None
    at = (key, 1) if hasattr(source, "recall") else (key,)
    return Measured(float(source.as_percent()[key]), *map(float, source.interval(*at)), n=int(source.n))


def outcomes(source: Any, key: str) -> np.ndarray | None:
    """Read whether each item succeeded: booleans of shape [N], or None if `source` does not know the score.

    Retrieval scores count hits at rank 1, as the paper's tables do.
    """
    if isinstance(source, list | tuple):
        found = (outcomes(part, key) for part in source)
        return next((one for one in found if one is not None), None)
    if isinstance(source, Mapping):
        held = source.get(key)
    elif key in _keys_of(source):
        held = source.hits(key, 1) if hasattr(source, "recall") else source.hits(key)
    else:
        held = None
    return _as_booleans(held)


def _keys_of(source: Any) -> Any:
    """The scores that a SafeGround or a Retrieval knows; nothing for anything else."""
    if not (hasattr(source, "as_percent") and hasattr(source, "hits") and hasattr(source, "interval")):
        raise UwmError(
            f"A {type(source).__name__} holds no scores: give a SafeGround, a Retrieval, a mapping or a list."
        )
    return source.as_percent()


def _as_booleans(held: Any) -> np.ndarray | None:
    if held is None or not hasattr(held, "shape"):
        return None
    array = np.asarray(held)
    return array if array.dtype == bool and array.ndim == 1 and array.size else None


def _read(held: Any) -> Measured:
    """A value as a mapping may hold it."""
    if isinstance(held, Measured):
        return held
    if hasattr(held, "percent") and hasattr(held, "interval"):  # Accuracy, MeanAccuracy
        return Measured(float(held.percent), *map(float, held.interval), n=getattr(held, "n", None))
    if isinstance(held, Mapping):
        return _from_saved(held) if "value" in held else _mean([_read(one) for one in held.values()])
    hits = _as_booleans(held)
    if hits is not None:
        return _from_outcomes(hits)
    if isinstance(held, bool) or not hasattr(held, "__float__"):
        raise UwmError(
            f"A score is given as {type(held).__name__}: give a number in percent or booleans per item."
        )
    return Measured(float(held))


def _from_saved(held: Mapping[str, Any]) -> Measured:
    lo, hi = held.get("interval") or (math.nan, math.nan)
    return Measured(float(held["value"]), float(lo), float(hi), n=held.get("n"))


def _from_outcomes(hits: np.ndarray) -> Measured:
    """Share of successes in percent with its Wilson interval."""
    from uwmlib.metrics.intervals import wilson  # here, because it loads torch

    lo, hi = wilson(int(hits.sum()), len(hits))
    return Measured(100 * float(hits.mean()), 100 * lo, 100 * hi, n=len(hits))


def _mean(parts: list[Measured]) -> Measured:
    """Unweighted mean over data sets; distances of the bounds from the estimates add in quadrature."""
    value = sum(part.value for part in parts) / len(parts)
    below = math.hypot(*(part.value - part.lo for part in parts)) / len(parts)
    above = math.hypot(*(part.hi - part.value for part in parts)) / len(parts)
    counts = [part.n for part in parts]
    return Measured(value, value - below, value + above, n=None if None in counts else sum(counts))
