"""One measured number: its value and interval, how many items it rests on, and what each of them scored."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from uwmlib.errors import UwmError
from uwmlib.metrics.intervals import normal_interval, wilson
from uwmlib.metrics.tensors import as_successes, as_tensor
from uwmlib.options import known, number, shown, whole_number


@dataclass(frozen=True)
class Unit:
    """What the numbers of a score count.

    Attributes
    ----------
    words : str
        The unit as a caption says it: "in percent".
    of : str
        Whose unit it is, for tables that mix units; "" for percent, which need not be said.
    decimals : int
        How many are printed.

    Examples
    --------
    A unit says how its scores are printed:

    >>> from uwmlib.metrics import Score, Unit
    >>> seconds = Unit("in seconds", of="latency", decimals=3)
    >>> print(Score(1.5, (1.25, 1.75), unit=seconds))
    1.500 [1.250, 1.750]
    """

    words: str
    of: str = ""
    decimals: int = 1


PERCENT = Unit("in percent")
DEVIATIONS = Unit("in standard deviations", of="$d'$ and $c$", decimals=2)
HUNDREDFOLD = Unit("as 100 times the mean score", of="toxicity")
UP_TO_ONE = Unit("from 0 to 1", of="caption scores", decimals=2)


@dataclass(frozen=True)
class Score:
    """A number that was measured; every metric returns its numbers as these.

    Two are equal where value, interval, n and unit are.

    Attributes
    ----------
    value : float
        In the unit.
    interval : (float, float) or None
        95% limits, in the unit; None where none is known.
    n : int or None
        Number of items.
    unit : Unit
    items : bool or float64 array [n], or None
        Whether each item succeeded, or what it scored, in the order of the items: what paired comparisons take.
    parts : tuple of (str, Score)
        Of a mean over data sets the score of each, by name; empty for any other. A mapping may be given.

    Raises
    ------
    UwmError
        If the value or a limit is no number, an interval has not two limits, n is no number of items or the unit none.

    Examples
    --------
    >>> from uwmlib.metrics import Score
    >>> print(Score(4.5, (4.0, 5.1), n=2000))
    4.5 [4.0, 5.1]
    >>> Score(4.5) == Score(4.5, n=2000)
    False
    """

    value: float
    interval: tuple[float, float] | None = None
    n: int | None = None
    unit: Unit = PERCENT
    items: np.ndarray | None = field(default=None, repr=False, compare=False)
    parts: tuple[tuple[str, Score], ...] = field(default=(), repr=False, compare=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "value", number(self.value, "A score"))
        if self.interval is not None:
            if not isinstance(self.interval, Sequence | np.ndarray) or len(self.interval) != 2:
                raise UwmError(f"The interval of a score is {shown(self.interval)}: give its two limits.")
            lo, hi = (number(limit, "A limit of a score") for limit in self.interval)
            object.__setattr__(self, "interval", (lo, hi))
        if self.n is not None:
            whole_number(self.n, "The number of items of a score", least=0)
        if not isinstance(self.unit, Unit):
            raise UwmError(f"The unit of a score is {shown(self.unit)}: give a Unit, such as PERCENT.")
        if self.items is not None:
            items = np.array(self.items)
            items.flags.writeable = False
            object.__setattr__(self, "items", items)
        object.__setattr__(self, "parts", tuple(dict(self.parts).items()))

    def __str__(self) -> str:
        digits = self.unit.decimals
        limits = "" if self.interval is None else " [{:.{d}f}, {:.{d}f}]".format(*self.interval, d=digits)
        return f"{self.value:.{digits}f}{limits}"


class Measured(Mapping[str, Score]):
    """What was measured of one model: names of scores and, under each, a `Score`.

    Metrics return these. A dict of scores serves as well wherever one is read, so that
    `{**evaluation, "mine": mine}` adds a score to an evaluation.

    Examples
    --------
    A metric of one's own gives the names of its scores, and each by its name:

    >>> from uwmlib.metrics import Measured, mean_of
    >>> class Lengths(Measured):
    ...     def __init__(self, captions):
    ...         self.words = [float(len(text.split())) for text in captions]
    ...
    ...     def __iter__(self):
    ...         return iter(["words"])
    ...
    ...     def _score(self, key):
    ...         return mean_of(self.words)
    >>> found = Lengths(["a red ring", "a cat on a mat"])
    >>> found["words"].value
    4.0
    >>> {key: score.n for key, score in found.items()}
    {'words': 2}
    """

    # Equal rates may rest on different items: what was measured is equal to itself alone.
    __eq__ = object.__eq__
    __hash__ = object.__hash__

    @abstractmethod
    def _score(self, key: str) -> Score:
        """Return the score of a name that iteration gives."""

    def __getitem__(self, key: str) -> Score:
        """Return one score; UwmError for a name that was not measured."""
        return self._score(known(key, self, "measured score"))

    def __contains__(self, key: object) -> bool:
        return any(key == name for name in self)

    def __len__(self) -> int:
        return sum(1 for _ in self)

    def get(self, key: str, default: Any = None) -> Any:
        """Return one score, or `default` where it was not measured."""
        return self._score(key) if key in self else default


def measured(source: Mapping[str, Score], key: str) -> Score | None:
    """Return one score of what was measured, or None where it was not.

    Raises
    ------
    UwmError
        If `source` holds no scores, or something else under this name.

    Examples
    --------
    >>> from uwmlib.metrics import Score, measured
    >>> found = {"gs": Score(4.5)}
    >>> print(measured(found, "gs"), measured(found, "zs_mean"))
    4.5 None
    """
    if not isinstance(source, Mapping):
        raise UwmError(
            f"A {type(source).__name__} holds no scores: give an Evaluation, or a mapping of name to Score."
        )
    score = source.get(key)
    if not isinstance(score, Score | None):
        raise UwmError(f"{key!r} is held as a {type(score).__name__}: give a Score, such as Score(12.3).")
    return score


def share_of(hits: Any) -> Score:
    """Return the share of successes in percent with Wilson's 95% interval.

    Parameters
    ----------
    hits : bool array or Tensor [N]

    Raises
    ------
    UwmError
        If they are not boolean [N] with N >= 1.

    Examples
    --------
    >>> from uwmlib.metrics import share_of
    >>> score = share_of([True, False, False, False])
    >>> print(score, "of", score.n)
    25.0 [4.6, 69.9] of 4
    >>> score.items
    array([ True, False, False, False])
    """
    items = as_successes("hits", hits).cpu().numpy()
    k, n = int(items.sum()), len(items)
    lo, hi = wilson(k, n)
    return Score(100 * k / n, (100 * lo, 100 * hi), n, PERCENT, items)


def mean_of(scores: Any, *, unit: Unit = PERCENT) -> Score:
    """Return the mean of the items' scores with its normal 95% interval; without one for a single item.

    Parameters
    ----------
    scores : float array or Tensor [N]
        One number for each item, in the unit.
    unit : Unit

    Raises
    ------
    UwmError
        If they are not floating-point [N] with N >= 1, or one is not finite.

    Examples
    --------
    The standard error of 1, 2 and 3 is 1 / sqrt(3) = 0.577, and the limits
    are 1.96 times that from the mean:

    >>> from uwmlib.metrics import mean_of
    >>> print(mean_of([1.0, 2.0, 3.0]))
    2.0 [0.9, 3.1]
    """
    tensor = as_tensor("scores", scores)
    if tensor.ndim != 1 or not tensor.is_floating_point() or len(tensor) == 0:
        raise UwmError(
            f"scores must be non-empty floating-point [N], not {tensor.dtype} {list(tensor.shape)}."
        )
    items = tensor.double().cpu().numpy()
    missing = int((~np.isfinite(items)).sum())
    if missing:
        raise UwmError(f"{missing} of {len(items)} items have no finite score: score them or leave them out.")
    value, interval = float(items.mean()), None
    if len(items) > 1:
        interval = normal_interval(value, float(items.std(ddof=1)) / len(items) ** 0.5)
    return Score(value, interval, len(items), unit, items)
