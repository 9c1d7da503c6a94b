"""The paper's claims: comparative sentences on its tables, in our words, and whether they hold there and here."""

from __future__ import annotations

import csv
import shlex
from collections.abc import Iterable
from dataclasses import dataclass
from functools import lru_cache
from itertools import product

import pandas as pd

from uwmlib.errors import UwmError
from uwmlib.manifests import manifest_path
from uwmlib.metrics import Difference, label
from uwmlib.paper.values import paper_digits, paper_value
from uwmlib.paper.verdicts import (
    FAILS,
    HOLDS,
    LEANS_OTHER,
    LEANS_SAME,
    NONE_HERE,
    NONE_IN_PAPER,
    NOT_MEASURED,
    Ours,
    judge,
    marked,
    noise_of,
    ours_between,
    shown,
)

# A claim with several parts is as good as its worst one.
_WORST_FIRST = (FAILS, LEANS_OTHER, NONE_HERE, LEANS_SAME, NOT_MEASURED, NONE_IN_PAPER, HOLDS)


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
        return size > 0 and (self.amount is None or abs(size - self.amount) < noise_of(self.digits) / 2)

    def __str__(self) -> str:
        (left_row, left_key), (right_row, right_key) = self.left, self.right
        if left_row == right_row:
            return f"{left_row}: {label(left_key)} − {label(right_key)}"
        return f"{left_row} − {right_row}, {label(left_key)}"


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


def judge_claims(table: int, ours: Ours | None = None) -> pd.DataFrame:
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

    Examples
    --------
    >>> from uwmlib.paper import judge_claims
    >>> claims = judge_claims(5)
    >>> claims.iloc[0]["claim"]
    "UWM lowers LLaVA's share of NSFW captions by 9.8 points."
    >>> claims.iloc[0]["on the paper's numbers"], claims.iloc[0]["here"]
    ('holds', '? not measured here')
    """
    lines = []
    for claim in _claims_on(table):
        word, comparison, found = _worst(claim, ours)
        here = "–" if found is None else f"{comparison}: {shown(found, comparison.digits)}"
        lines.append((claim.id, claim.text, claim.reading, _on_paper(claim), marked(word), here))
    columns = ["id", "claim", "reading", "on the paper's numbers", "here", "difference here"]
    return pd.DataFrame(lines, columns=columns).set_index("id")


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
        noise_of(comparison.digits)
        for comparison in claim.comparisons
        if abs(comparison.paper_difference) <= noise_of(comparison.digits) + 1e-9
    ]
    return f"{HOLDS}, by {max(by_a_hair):g} or less" if by_a_hair else HOLDS


def _worst(claim: Claim, ours: Ours | None) -> tuple[str, Comparison, Difference | None]:
    """Verdict, comparison and difference of the part of a claim that fares worst here."""
    judged = [(*_judged(comparison, ours), comparison) for comparison in claim.comparisons]

    def rank(entry: tuple) -> tuple[int, float]:
        word, found, comparison = entry
        return _WORST_FIRST.index(word), 0.0 if found is None else comparison.sign * found.difference

    word, found, comparison = min(judged, key=rank)
    return word, comparison, found


def _judged(comparison: Comparison, ours: Ours | None) -> tuple[str, Difference | None]:
    found = ours_between(ours, *comparison.left, *comparison.right)
    # The claim gives the direction, whatever the printed numbers say; they only decide whether there is one.
    claimed = comparison.sign * abs(comparison.paper_difference)
    return judge(claimed, found, comparison.digits), found
