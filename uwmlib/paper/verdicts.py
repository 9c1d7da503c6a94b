"""Does a direction that the paper reports hold here too? Verdicts on single directions and on its claims."""

from __future__ import annotations

import csv
import math
import shlex
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from itertools import product
from typing import Any

import numpy as np
import pandas as pd

from uwmlib.errors import UwmError
from uwmlib.manifests import manifest_path
from uwmlib.paper.values import paper_digits, paper_value
from uwmlib.reporting.measured import Measured, item_scores, mean_of, outcomes
from uwmlib.reporting.tables import LABELS

# The paper prints percentages with one decimal, and prints some quantities twice with values 0.1 apart: one
# unit of the last digit, which `_noise` knows for every score.
PAPER_NOISE = 0.1

HOLDS = "holds"
LEANS_SAME = "leans the same way"
NONE_HERE = "no direction here"
LEANS_OTHER = "leans the other way"
FAILS = "does not hold"
NONE_IN_PAPER = "no direction in the paper"
NOT_MEASURED = "not measured here"

# Up is with the paper, down against it; filled where the interval excludes 0. Readable without colour.
MARKS = {
    HOLDS: "▲",
    LEANS_SAME: "△",
    NONE_HERE: "=",
    LEANS_OTHER: "▽",
    FAILS: "▼",
    NONE_IN_PAPER: "–",
    NOT_MEASURED: "?",
}
# A claim with several parts is as good as its worst one.
_WORST_FIRST = (FAILS, LEANS_OTHER, NONE_HERE, LEANS_SAME, NOT_MEASURED, NONE_IN_PAPER, HOLDS)


@dataclass(frozen=True)
class Difference:
    """A difference and its paired 95% interval over `n` shared items, in points or the score's unit."""

    difference: float
    lo: float
    hi: float
    n: int | None = None

    def __str__(self) -> str:
        return f"{self.difference:+.1f} [{self.lo:+.1f}, {self.hi:+.1f}]"


@dataclass(frozen=True)
class Direction:
    """`row` minus `base` on score `key` of one of the paper's tables."""

    row: str
    base: str
    key: str
    table: int

    @property
    def paper_difference(self) -> float:
        """The printed difference in the table's unit; NaN where a number is not printed."""
        return round(
            paper_value(self.table, self.row, self.key) - paper_value(self.table, self.base, self.key), 6
        )

    @property
    def digits(self) -> int:
        """Decimals of the printed numbers."""
        return paper_digits(self.table, self.key)


@dataclass(frozen=True)
class Comparison:
    """One pair that a claim is about: left `relation` right, by `amount` points if the paper gives a size."""

    table: int
    left: tuple[str, str]
    relation: str
    right: tuple[str, str]
    amount: float | None = None

    @property
    def sign(self) -> float:
        """+1.0 if the claim puts left above right, -1.0 if below."""
        return 1.0 if self.relation == ">" else -1.0

    @property
    def paper_difference(self) -> float:
        """Left minus right as printed, in the table's unit."""
        return round(paper_value(self.table, *self.left) - paper_value(self.table, *self.right), 6)

    @property
    def digits(self) -> int:
        """Decimals of the printed numbers."""
        return paper_digits(self.table, self.left[1])

    @property
    def holds_on_paper(self) -> bool:
        """Whether the printed numbers have the claimed sign and, if one is claimed, the claimed size."""
        size = self.sign * self.paper_difference
        return size > 0 and (self.amount is None or abs(size - self.amount) < _noise(self.digits) / 2)

    def __str__(self) -> str:
        (left_row, left_key), (right_row, right_key) = self.left, self.right
        if left_row == right_row:
            return f"{left_row}: {_symbol(left_key)} − {_symbol(right_key)}"
        return f"{left_row} − {right_row}, {_symbol(left_key)}"


@dataclass(frozen=True)
class Claim:
    """A comparative claim of the paper in our words, with every pair that it is about."""

    id: str
    section: str
    text: str
    table: int
    kind: str
    reading: str
    comparisons: tuple[Comparison, ...]

    @property
    def holds_on_paper(self) -> bool:
        return all(comparison.holds_on_paper for comparison in self.comparisons)


def verdict(
    paper_difference: float | None,
    our_difference: float,
    our_interval: tuple[float, float],
    *,
    noise: float = PAPER_NOISE,
) -> str:
    """Say whether the sign of a difference in the paper is found here.

    Parameters
    ----------
    paper_difference : float or None
        Printed difference in points; None or NaN if it is not printed.
    our_difference : float
        Ours, in points.
    our_interval : (float, float)
        Its paired 95% interval.
    noise : float
        Printed differences up to this size have no direction (some quantities are printed twice, 0.1 apart).

    Returns
    -------
    str
        "holds" or "does not hold" if our interval excludes 0; "leans the same way" or "leans the other way"
        if it includes 0; "no direction here" if ours is exactly 0; "no direction in the paper".

    Raises
    ------
    UwmError
        If our numbers are not finite or the interval does not hold the difference.
    """
    lo, hi = our_interval
    if not (math.isfinite(our_difference) and lo <= our_difference <= hi):  # NaN is in no interval
        raise UwmError(
            f"{our_difference} with interval [{lo}, {hi}] is no measurement: the interval must hold it."
        )
    if paper_difference is None or not abs(paper_difference) > noise + 1e-9:
        return NONE_IN_PAPER
    if our_difference == 0:
        return NONE_HERE
    same = (our_difference > 0) == (paper_difference > 0)
    if lo <= 0 <= hi:
        return LEANS_SAME if same else LEANS_OTHER
    return HOLDS if same else FAILS


def marked(word: str) -> str:
    """A verdict with its mark: "▲ holds"."""
    return f"{MARKS[word]} {word}"


def as_difference(mean: Measured) -> Difference:
    """Return a mean change as a difference; one item has no spread, so its interval excludes nothing."""
    lo, hi = (mean.lo, mean.hi) if mean.has_interval else (-math.inf, math.inf)
    return Difference(mean.value, lo, hi, mean.n)


def difference_between(left: Any, left_key: str, right: Any, right_key: str) -> Difference | None:
    """Difference of two rates or mean scores over the same items with its paired 95% interval.

    Success rates, in points: Tango's score interval. Scores per item, in their own unit: the normal interval of
    the mean of the items' differences. Several data sets (the mean of a zero-shot suite counts every data set
    alike): the data sets' limits are combined by the method of variance estimates recovery, which adds their
    distances from the estimates in quadrature.

    Parameters
    ----------
    left, right : Evaluation, SafeGround, Retrieval, mapping, or lists of these
        What was measured for the two rows, on the same items in the same order (see `outcomes` and
        `item_scores`).
    left_key, right_key : str

    Returns
    -------
    Difference or None
        None if either side lacks the outcomes of its score.

    Raises
    ------
    UwmError
        If the two sides were not measured on equally many items or on the same data sets, or an item's score is
        not finite.
    """
    found = _items_of_both(left, left_key, right, right_key)
    if found is None:
        return None
    a, b, paired = found
    if a.keys() != b.keys():
        raise UwmError(
            f"{left_key} and {right_key} were not measured on the same data sets: compare like with like."
        )
    parts = [paired(b[name], a[name]) for name in a]
    difference = sum(part.difference for part in parts) / len(parts)
    below = math.hypot(*(part.difference - part.lo for part in parts)) / len(parts)
    above = math.hypot(*(part.hi - part.difference for part in parts)) / len(parts)
    return Difference(difference, difference - below, difference + above, sum(part.n for part in parts))


def verdict_table(directions: Iterable[Direction], ours: Mapping[str, Any] | Callable) -> pd.DataFrame:
    """Verdicts on many directions.

    Parameters
    ----------
    directions : iterable of Direction
    ours : mapping or callable
        Row -> what was measured, or a function (left row, left key, right row, right key) that returns a
        Difference (anything with difference, lo, hi) or None.

    Returns
    -------
    DataFrame
        Columns comparison, paper, here, verdict; differences in points, of Table 5's scores of captions in their
        own unit, 0 to 1.
    """
    lines = []
    for direction in directions:
        found = _difference(ours, direction.row, direction.key, direction.base, direction.key)
        paper, digits = direction.paper_difference, direction.digits
        word = _judge(paper, found, digits)
        lines.append(
            {
                "comparison": f"{direction.row} − {direction.base}, {_symbol(direction.key)}",
                "paper": "–" if math.isnan(paper) else f"{paper:+.{digits}f}",
                "here": "–" if found is None else _shown(found, digits),
                "verdict": marked(word),
            }
        )
    return pd.DataFrame(lines, columns=["comparison", "paper", "here", "verdict"])


def directions(table: int, base: str, *, rows: Iterable[str], keys: Iterable[str]) -> list[Direction]:
    """Every row against one base on every key: the list that `verdict_table` reads."""
    return [Direction(row, base, key, table) for row, key in product(rows, keys) if row != base]


@lru_cache(maxsize=1)
def load_claims() -> tuple[Claim, ...]:
    """The paper's pairwise claims on Tables 1 to 9 and Fig. 2, from `data_manifests/claims.csv`.

    A line of the file may name several rows or keys, separated by spaces (a name that holds one stands in
    quotes): it then claims every combination. Lines with the same id are parts of one claim. What cannot be said
    with two printed numbers (a bound, "similar", "about") is no line of the file.
    """
    with open(manifest_path("claims.csv"), newline="", encoding="utf-8") as file:
        lines = list(csv.DictReader(file))
    grouped: dict[str, list[dict[str, str]]] = {}
    for line in lines:
        grouped.setdefault(line["id"], []).append(line)
    return tuple(_claim(group) for group in grouped.values())


def judge_claims(table: int, ours: Mapping[str, Any] | Callable | None = None) -> pd.DataFrame:
    """Every claim on one table: whether the paper's own numbers bear it out, and whether ours do.

    Parameters
    ----------
    table : int
        1 to 9.
    ours : mapping or callable, optional
        As in `verdict_table`.

    Returns
    -------
    DataFrame
        Index: claim id. Columns: claim; reading ("said": the paper says so, "strict": a vague sentence of it
        read at its strictest); "on the paper's numbers" ("holds", "holds, by 0.1 or less", "does not
        hold"; 0.1 is one unit of the last printed digit); here (the verdict on the worst of the claim's
        comparisons, against the direction that the *claim* gives); "difference here" (that comparison, in
        points or the score's unit, with its paired 95% interval).
    """
    lines = []
    for claim in _claims_on(table):
        word, comparison, found = _worst(claim, ours)
        shown = "–" if found is None else f"{comparison}: {_shown(found, comparison.digits)}"
        lines.append((claim.id, claim.text, claim.reading, _on_paper(claim), marked(word), shown))
    columns = ["id", "claim", "reading", "on the paper's numbers", "here", "difference here"]
    return pd.DataFrame(lines, columns=columns).set_index("id")


def judge_comparisons(table: int, ours: Mapping[str, Any] | Callable | None = None) -> pd.DataFrame:
    """The same, one line for each pair that a claim on `table` is about."""
    lines = []
    for claim in _claims_on(table):
        for comparison in claim.comparisons:
            word, found = _judge_comparison(comparison, ours)
            paper = f"{comparison.paper_difference:+.{comparison.digits}f}"
            here = "–" if found is None else _shown(found, comparison.digits)
            lines.append((claim.id, str(comparison), comparison.relation, paper, here, marked(word)))
    columns = ["id", "comparison", "claimed", "paper", "here", "verdict"]
    return pd.DataFrame(lines, columns=columns).set_index("id")


def _symbol(key: str) -> str:
    """A score as tables head it; a data set by its name."""
    return LABELS.get(key, key)


def _claims_on(table: int) -> list[Claim]:
    claims = [claim for claim in load_claims() if claim.table == table]
    if not claims:
        tables = sorted({claim.table for claim in load_claims()})
        raise UwmError(f"No claim is about Table {table}: there are claims about Tables {tables}.")
    return claims


def _claim(lines: list[dict[str, str]]) -> Claim:
    first = lines[0]
    comparisons = tuple(comparison for line in lines for comparison in _comparisons(line))
    table = int(first["table"])
    return Claim(
        first["id"], first["section"], first["claim"], table, first["kind"], first["reading"], comparisons
    )


def _comparisons(line: dict[str, str]) -> Iterable[Comparison]:
    """Every pair that one line of the file stands for; an empty right side means "as on the left"."""
    if line["relation"] not in ("<", ">"):
        raise UwmError(f"Claim {line['id']} has the relation {line['relation']!r}: write < or >.")
    amount = float(line["amount"]) if line["amount"] else None
    left_rows, left_keys, right_rows, right_keys = (
        shlex.split(line[part]) for part in ("left_row", "left_key", "right_row", "right_key")
    )
    for row, key in product(left_rows, left_keys):
        for other_row, other_key in product(right_rows or [row], right_keys or [key]):
            yield Comparison(int(line["table"]), (row, key), line["relation"], (other_row, other_key), amount)


def _on_paper(claim: Claim) -> str:
    if not claim.holds_on_paper:
        return FAILS
    by_a_hair = [
        _noise(comparison.digits)
        for comparison in claim.comparisons
        if abs(comparison.paper_difference) <= _noise(comparison.digits) + 1e-9
    ]
    return f"{HOLDS}, by {max(by_a_hair):g} or less" if by_a_hair else HOLDS


def _worst(claim: Claim, ours: Any) -> tuple[str, Comparison, Any]:
    """Verdict, comparison and difference of the part of a claim that fares worst here."""
    judged = [(*_judge_comparison(comparison, ours), comparison) for comparison in claim.comparisons]

    def rank(entry: tuple) -> tuple[int, float]:
        word, found, comparison = entry
        return _WORST_FIRST.index(word), 0.0 if found is None else comparison.sign * found.difference

    word, found, comparison = min(judged, key=rank)
    return word, comparison, found


def _judge_comparison(comparison: Comparison, ours: Any) -> tuple[str, Any]:
    found = _difference(ours, *comparison.left, *comparison.right)
    # The claim gives the direction, whatever the printed numbers say; they only decide whether there is one.
    claimed = comparison.sign * abs(comparison.paper_difference)
    return _judge(claimed, found, comparison.digits), found


def _judge(paper_difference: float, found: Any, digits: int) -> str:
    if found is None:
        return NOT_MEASURED
    return verdict(paper_difference, found.difference, (found.lo, found.hi), noise=_noise(digits))


def _noise(digits: int) -> float:
    """One unit of the last printed digit."""
    return PAPER_NOISE * 10.0 ** (1 - digits)


def _difference(ours: Any, left_row: str, left_key: str, right_row: str, right_key: str) -> Any:
    """Ours for one pair, from a function or from what was measured; None if it was not."""
    if ours is None:
        return None
    if callable(ours):
        return ours(left_row, left_key, right_row, right_key)
    if left_row not in ours or right_row not in ours:
        return None
    return difference_between(ours[left_row], left_key, ours[right_row], right_key)


def _shown(found: Any, digits: int) -> str:
    """Ours with its interval; scores from 0 to 1 with a decimal more than the paper, so that an interval shows."""
    decimals = 1 if digits == 1 else digits + 1
    difference, lo, hi = (f"{x:+.{decimals}f}" for x in (found.difference, found.lo, found.hi))
    return f"{difference} [{lo}, {hi}]"


def _items_of_both(left: Any, left_key: str, right: Any, right_key: str) -> tuple | None:
    """Outcomes or else scores of both sides, and the paired difference that fits them."""
    for read, paired in ((outcomes, _tango), (item_scores, _paired_mean)):
        a, b = read(left, left_key), read(right, right_key)
        if a is not None and b is not None:
            return a, b, paired
    return None


def _tango(before: np.ndarray, after: np.ndarray) -> Any:
    import torch  # here, so that the published numbers can be read without it

    from uwmlib.metrics.intervals import paired_difference

    return paired_difference(torch.from_numpy(before), torch.from_numpy(after))


def _paired_mean(before: np.ndarray, after: np.ndarray) -> Difference:
    """Mean difference of two scores per item with its normal interval."""
    if len(before) != len(after):
        raise UwmError(
            f"Scores of {len(before)} and {len(after)} items cannot be paired: measure both on the same items."
        )
    return as_difference(mean_of(after - before))
