"""The paper's claims: comparative sentences on its tables, in our words, and whether they hold there and here."""

from __future__ import annotations

import csv
import math
import shlex
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import lru_cache
from itertools import product

import pandas as pd

from uwmlib.errors import UwmError
from uwmlib.manifests import manifest_path
from uwmlib.metrics import Difference, label
from uwmlib.paper.rules import (
    COLLAPSE,
    MARGIN,
    NONE_IN_PAPER,
    Margin,
    Verdict,
    base_of,
    collapse_verdict,
    direction_verdict,
    judged,
    preservation_verdict,
)
from uwmlib.paper.values import paper_digits, paper_value
from uwmlib.paper.verdicts import (
    GAP,
    GAP_PARTS,
    HALF,
    Ours,
    counted,
    noise_of,
    note,
    ours_between,
    shown,
    sized,
)

FIGURES = 0  #: in place of a table's number: a claim about the ends of a sweep
HOLDS = "holds"
FAILS = "does not hold"

#: Relations of a kind of claim; "≥" says that the left is not lower, "≈" that it is neither lower nor higher.
RELATIONS = {
    "difference": ("<", ">"),
    "ranking": ("<", ">"),
    "trend": ("<", ">"),
    "preservation": ("≥", "≈"),
    "collapse": ("<",),
    "level": ("<", ">"),
}


@dataclass(frozen=True)
class Comparison:
    """One pair that a claim is about: left `relation` right.

    `amount` is the size in points if the paper gives one; of a preservation it is what may be lost, in percent of the
    right side.
    """

    table: int
    left: tuple[str, str]
    relation: str
    right: tuple[str, str]
    kind: str
    amount: float | None = None

    @property
    def sign(self) -> float:
        """+1.0 if the claim puts left above right or no lower, -1.0 if below."""
        return -1.0 if self.relation == "<" else 1.0

    @property
    def paper_difference(self) -> float:
        """Left minus right as printed, in the table's unit; NaN for a figure, which prints no numbers."""
        if self.table == FIGURES:
            return math.nan
        return round(self._printed(*self.left) - self.paper_base, 6)

    @property
    def paper_base(self) -> float:
        """The right side as printed, or one half."""
        return 50.0 if self.right[0] == HALF else self._printed(*self.right)

    def _printed(self, row: str, key: str) -> float:
        if key != GAP:
            return paper_value(self.table, row, key)
        texts, images = (paper_value(self.table, row, part) for part in GAP_PARTS)
        return texts - images

    @property
    def digits(self) -> int:
        """Decimals of the printed numbers."""
        key = GAP_PARTS[0] if self.left[1] == GAP else self.left[1]
        return 1 if self.table == FIGURES else paper_digits(self.table, key)

    @property
    def holds_on_paper(self) -> bool:
        """Whether the printed numbers have the claimed sign and, if one is claimed, the claimed size."""
        if self.kind == "preservation":
            loss = self.amount / 100 * self.paper_base
            most = loss if self.relation == "≈" else math.inf
            return -loss - 1e-9 <= self.paper_difference <= most + 1e-9
        size = self.sign * self.paper_difference
        if self.kind == "collapse" and size < (1 - COLLAPSE) * self.paper_base:
            return False
        return size > 0 and (self.amount is None or abs(size - self.amount) < noise_of(self.digits) / 2)

    def judged(self, found: Difference | None, counting: tuple[bool, ...], margin: Margin) -> Verdict:
        """Return the verdict on what was found here, by the rule of the kind of claim."""
        return judged(found, counting, self._rule(margin))

    def _rule(self, margin: Margin) -> Callable[[Difference, bool], str]:
        if self.kind == "preservation":
            return lambda ours, _: preservation_verdict(
                ours, loss=self.amount / 100 * base_of(ours), both=self.relation == "≈"
            )
        if self.kind == "collapse":
            return lambda ours, _: collapse_verdict(ours)
        # The claim gives the direction, whatever the printed numbers say; they only decide whether there is one.
        size, noise = abs(self.paper_difference), noise_of(self.digits)
        if math.isnan(size) or self.kind == "level":  # illegible, or as far as that may be from one half
            size = margin.points + noise
        if size <= noise + 1e-9:
            return lambda ours, _: NONE_IN_PAPER
        if self.kind == "difference":
            return sized(self.sign * (self.amount or size), self.left[1], self.digits, margin)
        return lambda ours, counts: direction_verdict(self.sign, ours, size=size - noise, counts=counts)

    @property
    def pair(self) -> tuple[tuple[str, str], tuple[str, str]]:
        """Left and right, each a row and a key."""
        return self.left, self.right

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
    with two printed numbers (a bound, a best trade-off) is no line of the file. "Kept" is one with the loss that still
    counts as kept, which is our reading and stands in the claim's words.
    """
    with open(manifest_path("claims.csv"), newline="", encoding="utf-8") as file:
        grouped = by_id(csv.DictReader(file))
    return tuple(claim_of(lines) for lines in grouped.values())


def by_id(lines: Iterable[dict[str, str]]) -> dict[str, list[dict[str, str]]]:
    """Return the lines of a file of claims by the claim that they are parts of."""
    grouped: dict[str, list[dict[str, str]]] = {}
    for line in lines:
        grouped.setdefault(line["id"], []).append(line)
    return grouped


def judge_claims(
    table: int,
    ours: Ours | None = None,
    *,
    margin: Margin = MARGIN,
    correction: str = "bh",
    level: float = 0.05,
) -> pd.DataFrame:
    """Every claim on one table: whether the paper's own numbers bear it out, and whether ours do.

    What a claim is judged by depends on its kind: a difference by its size (`verdict`; the size that the claim names,
    else the printed one), a ranking or a trend by its direction (`direction_verdict`), "kept" by equivalence
    (`preservation_verdict`), and a collapse by collapse (`collapse_verdict`).

    Parameters
    ----------
    table : int
        1 to 9.
    ours : mapping or callable, optional
        As in `verdict_table`; the differences of a function need their `base`.
    margin, correction, level
        As in `verdict_table`. The family is every pair that a claim on this table compares, once.

    Returns
    -------
    DataFrame
        Index: claim id. Columns: claim; reading ("said": the paper says so, "strict": a vague sentence of it
        read at its strictest); "on the paper's numbers" ("holds", "holds, by 0.1 or less", "does not
        hold"; 0.1 is one unit of the last printed digit); here (the verdict on the worst of the claim's
        comparisons, against what the *claim* says); "difference here" (that comparison, in
        points or the score's unit, with its paired 95% interval). Its `attrs["note"]` says what the correction is.

    Raises
    ------
    UwmError
        If no claim is about this table; as `verdict_table`.

    Examples
    --------
    >>> from uwmlib.paper import judge_claims
    >>> claims = judge_claims(5)
    >>> claims.iloc[0]["claim"]
    "UWM lowers LLaVA's share of NSFW captions by 9.8 points."
    >>> claims.iloc[0]["on the paper's numbers"], claims.iloc[0]["here"]
    ('holds', '? not measured here')
    """
    rates = {"correction": correction, "level": level}
    judged, family = judge(_claims_on(table), ours, margin=margin, **rates)
    lines = [
        (one.claim.id, one.claim.text, one.claim.reading, on_paper(one.claim), str(one.verdict), str(one))
        for one in judged
    ]
    columns = ["id", "claim", "reading", "on the paper's numbers", "here", "difference here"]
    frame = pd.DataFrame(lines, columns=columns).set_index("id")
    frame.attrs["note"] = note(family, **rates)
    return frame


@dataclass(frozen=True)
class Judged:
    """A claim, the verdict on the part of it that fares worst here, and what was found for that part."""

    claim: Claim
    verdict: Verdict
    pair: Comparison
    found: Difference | None

    def __str__(self) -> str:
        return "–" if self.found is None else f"{self.pair}: {shown(self.found, self.pair.digits)}"


def judge(
    claims: Iterable[Claim], ours: Ours | None, *, margin: Margin = MARGIN, correction: str, level: float
) -> tuple[list[Judged], list[Difference | None]]:
    """Judge claims as one family, that of every pair that one of them compares; the second is the family."""
    claims = list(claims)
    pairs = {pair.pair: pair for claim in claims for pair in claim.comparisons}
    found = {at: ours_between(ours, *pair.left, *pair.right) for at, pair in pairs.items()}
    family = {frozenset(at): one for at, one in found.items()}
    counting = counted(list(family.values()), correction=correction, level=level)
    counting = dict(zip(family, counting, strict=True))
    judged = []
    for claim in claims:
        verdict, pair = _worst(claim, found, counting, margin)
        judged.append(Judged(claim, verdict, pair, found[pair.pair]))
    return judged, list(family.values())


def _claims_on(table: int) -> list[Claim]:
    claims = [claim for claim in load_claims() if claim.table == table]
    if not claims:
        tables = sorted({claim.table for claim in load_claims()})
        raise UwmError(f"No claim is about Table {table}: there are claims about Tables {tables}.")
    return claims


def claim_of(lines: list[dict[str, str]]) -> Claim:
    """Return the claim that some lines of one id are the parts of."""
    first = lines[0]
    comparisons = tuple(comparison for line in lines for comparison in _comparisons(line))
    table = int(first["table"])
    return Claim(
        first["id"], first["section"], first["claim"], table, first["kind"], first["reading"], comparisons
    )


def _comparisons(line: dict[str, str]) -> Iterable[Comparison]:
    """Every pair that one line of the file stands for; an empty right side means "as on the left"."""
    kind = line["kind"]
    if line["relation"] not in RELATIONS.get(kind, ()):
        raise UwmError(f"Claim {line['id']}, a {kind}, has the relation {line['relation']!r}: see RELATIONS.")
    if kind == "preservation" and not line["amount"]:
        raise UwmError(
            f"Claim {line['id']} does not say what may be lost: write it as its amount, in percent."
        )
    amount = float(line["amount"]) if line["amount"] else None
    left_rows, left_keys, right_rows, right_keys = (
        shlex.split(line[part]) for part in ("left_row", "left_key", "right_row", "right_key")
    )
    table, relation = int(line["table"]), line["relation"]
    for left in product(left_rows, left_keys):
        for right in product(right_rows or [left[0]], right_keys or [left[1]]):
            yield Comparison(table, left, relation, right, kind, amount)


def on_paper(claim: Claim) -> str:
    """Return in words whether the printed numbers bear out all pairs of a claim."""
    if not claim.holds_on_paper:
        return FAILS
    by_a_hair = [
        noise_of(comparison.digits)
        for comparison in claim.comparisons
        if comparison.kind != "preservation"
        and abs(comparison.paper_difference) <= noise_of(comparison.digits) + 1e-9
    ]
    return f"{HOLDS}, by {max(by_a_hair):g} or less" if by_a_hair else HOLDS


def _worst(
    claim: Claim,
    found: dict[tuple, Difference | None],
    counting: dict[frozenset, tuple[bool, ...]],
    margin: Margin,
) -> tuple[Verdict, Comparison]:
    """Verdict and comparison of the part of a claim that fares worst here."""

    def rank(entry: tuple[Verdict, Comparison]) -> tuple[int, float]:
        verdict, pair = entry
        one = found[pair.pair]
        return verdict.rank, 0.0 if one is None else pair.sign * one.difference

    entries = [
        (pair.judged(found[pair.pair], counting[frozenset(pair.pair)], margin), pair)
        for pair in claim.comparisons
    ]
    return min(entries, key=rank)
