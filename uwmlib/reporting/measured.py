"""One number with its interval, or one outcome per item, out of whatever the metrics return."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from uwmlib.errors import UwmError

# Sensitivity and safe bias, in standard deviations, by the modality of the query.
SIGNAL_KEYS = ("sensitivity_text", "bias_text", "sensitivity_image", "bias_image")
Z95 = 1.959964


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
    source : Evaluation, SafeGround, Retrieval, mapping, or a list of them
        A mapping holds, for each key, a number in percent, a `Measured`, an Accuracy, the saved form
        `{"value": v, "interval": [lo, hi], "n": n}`, booleans or per-item scores of shape [N], or a mapping of
        these by data set, which is averaged.
    key : str

    Returns
    -------
    Measured or None
        None if `source` does not know the score, or holds it for no item at all.

    Raises
    ------
    UwmError
        If `source` is nothing that holds scores, or what it holds is no number.
    """
    found = (_measured(part, key) for part in parts_of(source))
    return next((number for number in found if number is not None), None)


def outcomes(source: Any, key: str) -> dict[str, np.ndarray] | None:
    """Read whether each item succeeded at the score `key`.

    Retrieval scores count hits at rank 1, as the paper's tables do.

    Parameters
    ----------
    source, key
        As for `measured`.

    Returns
    -------
    dict of str to bool array [N], or None
        By data set; one nameless set for a score that is no mean over sets. None if `source` does not know
        the score or not its outcomes.
    """
    return _items(source, key, _as_booleans)


def item_scores(source: Any, key: str) -> dict[str, np.ndarray] | None:
    """Read what each item scored where that is a number and not a success, such as its caption's ROUGE-L.

    Parameters
    ----------
    source, key
        As for `measured`.

    Returns
    -------
    dict of str to float array [N], or None
        As for `outcomes`, in the unit of the score.
    """
    return _items(source, key, _as_scores)


def parts_of(source: Any) -> list[Any]:
    """What `source` consists of: an Evaluation's parts, a list's members, or itself."""
    if isinstance(source, list | tuple):
        return [part for member in source for part in parts_of(member)]
    if hasattr(source, "safeground") and hasattr(source, "retrieval"):  # Evaluation
        sets = source.zero_shot
        return [source.safeground, source.retrieval, {**sets, "zs_mean": sets} if sets else {}]
    if not isinstance(source, Mapping) and not hasattr(source, "hits"):
        raise UwmError(
            f"A {type(source).__name__} holds no scores: give an Evaluation, a mapping or a list of them."
        )
    return [source]


def _measured(part: Any, key: str) -> Measured | None:
    if isinstance(part, Mapping):
        return None if part.get(key) is None or _is_empty(part[key]) else _read(part[key])
    if key in SIGNAL_KEYS and hasattr(part, "sensitivity_bias"):
        return _signal(part, *key.split("_"))
    if key not in part.as_percent():
        return None
    at = (key, 1) if hasattr(part, "recall") else (key,)
    return Measured(float(part.as_percent()[key]), *map(float, part.interval(*at)), n=int(part.n))


def _is_empty(held: Any) -> bool:
    """No item was asked: a share of none is not measured."""
    return np.shape(held) == (0,)


def _signal(part: Any, which: str, query: str) -> Measured:
    """Sensitivity or bias of a SafeGround with its 95% interval."""
    pair = part.sensitivity_bias(query)
    value, error = getattr(pair, which), getattr(pair, f"se_{which}")
    return Measured(value, value - Z95 * error, value + Z95 * error, n=int(part.n))


def _items(source: Any, key: str, read: Callable) -> dict[str, np.ndarray] | None:
    """The first part of `source` that holds arrays which `read` takes."""
    found = (_items_of(part, key, read) for part in parts_of(source))
    return next((arrays for arrays in found if arrays is not None), None)


def _items_of(part: Any, key: str, read: Callable) -> dict[str, np.ndarray] | None:
    if isinstance(part, Mapping):
        held = part.get(key)
    elif key in part.as_percent():
        held = part.hits(key, 1) if hasattr(part, "recall") else part.hits(key)
    else:
        return None
    by_set = held if isinstance(held, Mapping) else {"": held}
    found = {name: read(getattr(one, "correct", one)) for name, one in by_set.items()}
    return None if not found or any(array is None for array in found.values()) else found


def _as_booleans(held: Any) -> np.ndarray | None:
    if held is None or not hasattr(held, "shape"):
        return None
    array = np.asarray(held)
    return array if array.dtype == bool and array.ndim == 1 and array.size else None


def _as_scores(held: Any) -> np.ndarray | None:
    if held is None or not hasattr(held, "shape"):
        return None
    array = np.asarray(held)
    return array.astype(float) if array.dtype.kind == "f" and array.ndim == 1 and array.size else None


def _read(held: Any) -> Measured:
    """A value as a mapping may hold it."""
    if isinstance(held, Measured):
        return held
    if hasattr(held, "percent") and hasattr(held, "interval"):  # Accuracy, MeanAccuracy
        lo, hi = held.interval
        return Measured(float(held.percent), float(lo), float(hi), n=getattr(held, "n", None))
    if isinstance(held, Mapping):
        return _from_saved(held) if "value" in held else _mean([_read(one) for one in held.values()])
    hits = _as_booleans(held)
    if hits is not None:
        return _from_outcomes(hits)
    scores = _as_scores(held)
    if scores is not None:
        return mean_of(scores)
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


def mean_of(scores: np.ndarray) -> Measured:
    """Mean of per-item scores with its normal 95% interval; without one for a single item.

    Raises
    ------
    UwmError
        If a score is not finite.
    """
    if not np.isfinite(scores).all():
        missing = int((~np.isfinite(scores)).sum())
        raise UwmError(
            f"{missing} of {len(scores)} items have no finite score: score them or leave them out."
        )
    value = float(scores.mean())
    if len(scores) < 2:
        return Measured(value, n=len(scores))
    half = Z95 * float(scores.std(ddof=1)) / math.sqrt(len(scores))
    return Measured(value, value - half, value + half, n=len(scores))


def _mean(parts: list[Measured]) -> Measured:
    """Unweighted mean over data sets; distances of the bounds from the estimates add in quadrature."""
    value = sum(part.value for part in parts) / len(parts)
    below = math.hypot(*(part.value - part.lo for part in parts)) / len(parts)
    above = math.hypot(*(part.hi - part.value for part in parts)) / len(parts)
    counts = [part.n for part in parts]
    return Measured(value, value - below, value + above, n=None if None in counts else sum(counts))
