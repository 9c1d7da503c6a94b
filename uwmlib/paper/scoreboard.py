"""All that the paper says in numbers, statement by statement, with what its own print and the models here say to it."""

from __future__ import annotations

import csv
import math
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache

import pandas as pd

from uwmlib.manifests import manifest_path
from uwmlib.paper.checks import check_printed
from uwmlib.paper.claims import (
    FAILS,
    FIGURES,
    HOLDS,
    Claim,
    Judged,
    by_id,
    claim_of,
    judge,
    load_claims,
    on_paper,
)
from uwmlib.paper.rules import AGREES, COLLAPSED, LARGER, PRESERVED, SAME, SMALLER, by_seed
from uwmlib.paper.values import N_TABLES
from uwmlib.paper.verdicts import Ours

UNKNOWN = "cannot be checked"

#: Statements about what is printed alone, not about models: a quoted number, the same number twice, a sum, a setting.
ABOUT_THE_PRINT = ("quotation", "same number", "arithmetic", "setting")
PRINT_ALONE = "about the print alone"

VERIFIED, FALSIFIED, TOY, INCONCLUSIVE = "verified", "falsified", "toy", "inconclusive"
WORDS = {
    VERIFIED: "about the print alone, and the printed numbers bear it out",
    FALSIFIED: "the paper's own printed numbers contradict it, or the release's do",
    TOY: "about models, not contradicted by the print, and seen in our mini models too, in direction at least",
    INCONCLUSIVE: "all else: our mini models do not show it, cannot tell or were not asked; or nothing can be checked",
}
#: Verdicts on the worst part and the worst seed with which a statement counts as seen here.
SEEN = (AGREES, LARGER, SMALLER, SAME, PRESERVED, COLLAPSED)

READINGS = {
    "said": "the paper says so",
    "strict": "a vague sentence, read at its strictest",
    "cross-table": "one quantity, printed twice",
    "internal": "the paper's text against itself",
    "figure": "in a figure alone",
    "readme": "the paper against the release's README",
}


#: The parts of the paper that sections and captions belong to, in its order.
PARTS = {
    "Abstract, 1, 6": ("Abstract", "1", "Fig. 1", "6"),
    "3, 4: metrics, method": ("3.1", "3.3 and Fig. 2", "4", "4 and A.1"),
    "5.1: set-up": ("5.1", "5.1 and A.1"),
    "5.2: Tab. 1": ("5.2", "Table 1 caption"),
    "5.2.1: Tab. 2": ("5.2.1", "Table 2 caption"),
    "5.3: Tab. 3 to 5": ("5.3", "Table 4 caption"),
    "A.1: Tab. 6 to 9": ("A.1", "A.1 and Fig. 5", "A.1 and Fig. 6"),
    "B: CLIP's unsafety": ("B",),
    "table against table": (
        "Table 2", "Tables 1 and 2", "Tables 1 and 4", "Tables 3 and 6", "Tables 1, 3, 4, 6 to 9",
        "Tables 1, 3, 6 to 9",
    ),
}  # fmt: skip


def part_of(section: str) -> str:
    """Return the part of the paper that a section belongs to."""
    return next(part for part, sections in PARTS.items() if section in sections)


@dataclass(frozen=True)
class Statement:
    """One of the paper's statements in our words, and how it is checked on the printed numbers.

    Attributes
    ----------
    id, section, text, kind : str
    tables : tuple of int
        The paper's tables that it is about; empty for none.
    reading : str
        One of `READINGS`.
    claim : Claim or None
        The pairs of rows that it compares; None where it is no such comparison.
    check : str
        A formula on printed cells (see `uwmlib.paper.checks`), or "" where the pairs are what is checked.
    why : str
        What stands in the way, where the print or the models here cannot tell.
    """

    id: str
    section: str
    text: str
    tables: tuple[int, ...]
    kind: str
    reading: str
    claim: Claim | None
    check: str = ""
    why: str = ""

    @property
    def about_print(self) -> bool:
        return self.kind in ABOUT_THE_PRINT

    def on_paper(self) -> tuple[str, str]:
        """Whether the printed numbers bear it out, in words, and the numbers that decide."""
        if self.check:
            found = check_printed(self.check)
            numbers = " against ".join("?" if math.isnan(x) else f"{x:g}" for x in (found.left, found.right))
            return {True: HOLDS, False: FAILS, None: UNKNOWN}[found.holds], numbers
        if self.claim is None or self.claim.table == FIGURES:
            return UNKNOWN, ""
        pairs = sorted(self.claim.comparisons, key=lambda pair: pair.sign * pair.paper_difference)
        pair = next((pair for pair in pairs if not pair.holds_on_paper), pairs[0])
        return on_paper(self.claim), f"{pair}: {pair.paper_difference:+.{pair.digits}f}"


@lru_cache(maxsize=1)
def load_statements() -> tuple[Statement, ...]:
    """The paper's 214 statements, from `data_manifests/claims.csv` and `printed_claims.csv`, in the order of their ids.

    The first file has what compares two rows of one table, the second all else. What the chapters add to the first by
    reading "kept" as a loss of at most so much is no statement of its own here.

    Examples
    --------
    >>> from uwmlib.paper.scoreboard import load_statements
    >>> statements = load_statements()
    >>> len(statements), statements[0].text
    (214, 'Safety training makes CLIP less safe on safe queries.')
    """
    found = [_of_claim(claim) for claim in load_claims() if claim.id not in READ_AS_KEPT]
    with open(manifest_path("printed_claims.csv"), newline="", encoding="utf-8") as file:
        found += [_of_lines(lines) for lines in by_id(csv.DictReader(file)).values()]
    return tuple(sorted(found, key=lambda statement: statement.id))


#: Parts of other statements, which say "kept" without saying how much.
READ_AS_KEPT = ("C215", "C216", "C217", "C218", "C219")


def claims_about(table: int) -> list[Claim]:
    """Return every claim that compares rows of one table: those that its chapter judges, and the few others."""
    own = [claim for claim in load_claims() if claim.table == table]
    return own + _others(table)


def score_statements(ours: Mapping[int, Ours]) -> pd.DataFrame:
    """Judge every statement twice, on the printed numbers and on what was measured here, and give it one word.

    Parameters
    ----------
    ours : mapping of int to Ours
        Table -> what was measured, as `judge_claims` takes it; 0 for the sweeps of figures (see `record_claims`). Those
        that are left out were not measured.

    Returns
    -------
    DataFrame
        Index: id; in the order of the paper's parts. Columns: part; section; tables; kind; reading; statement; on
        paper ("holds", "holds, by 0.1 or less", "does not hold", "cannot be checked"); printed (the numbers that
        decide); here (a verdict, or "about the print alone"); found (the difference that decides, with its paired 95%
        interval); bases (over how many models); why; word (one of `WORDS`).

    Raises
    ------
    UwmError
        As `judge_claims`.

    Examples
    --------
    Without a model the print alone decides:

    >>> from uwmlib.paper import score_statements
    >>> board = score_statements({})
    >>> board["word"].value_counts().to_dict()
    {'inconclusive': 137, 'verified': 45, 'falsified': 32}
    >>> board.loc["C098", ["on paper", "printed", "word"]].tolist()
    ['does not hold', '56.2 against 56.3', 'falsified']
    """
    judged = _judged(ours)
    lines = []
    for statement in load_statements():
        holds, printed = statement.on_paper()
        one = judged.get(statement.id)
        lines.append(
            {
                "id": statement.id, "part": part_of(statement.section), "section": statement.section,
                "tables": statement.tables, "kind": statement.kind,
                "reading": statement.reading, "statement": statement.text,
                "on paper": holds, "printed": printed, "here": _here(statement, one),
                "found": "" if one is None or one.found is None else str(one),
                "bases": 0 if one is None or one.found is None else len(by_seed(one.found)),
                "why": statement.why, "word": _word(statement, holds, one),
            }
        )  # fmt: skip
    board = pd.DataFrame(lines).set_index("id")
    return board.sort_values("part", key=lambda parts: parts.map(list(PARTS).index), kind="stable")


def _judged(ours: Mapping[int, Ours]) -> dict[str, Judged]:
    """Judge the claims of every table: those of its chapter as one family, as there, and the others as another."""
    rates = {"correction": "bh", "level": 0.05}
    found = {}
    for table in range(FIGURES, N_TABLES + 1):
        own = [claim for claim in load_claims() if claim.table == table]
        for claims in (own, _others(table)):
            judged, _ = judge(claims, ours.get(table), **rates)
            found |= {one.claim.id: one for one in judged}
    return found


def _others(table: int) -> list[Claim]:
    shown = {claim.id for claim in load_claims()}
    return [
        statement.claim
        for statement in load_statements()
        if statement.id not in shown and statement.claim is not None and statement.claim.table == table
    ]


def _here(statement: Statement, judged: Judged | None) -> str:
    if statement.about_print:
        return PRINT_ALONE
    return "? not measured here" if judged is None else str(judged.verdict)


def _word(statement: Statement, on_paper: str, judged: Judged | None) -> str:
    """A mini model can never verify or falsify what is said of CLIP: only the print can."""
    if on_paper == FAILS:
        return FALSIFIED
    if statement.about_print:
        return VERIFIED if on_paper.startswith(HOLDS) else INCONCLUSIVE
    return TOY if judged is not None and judged.verdict.word in SEEN else INCONCLUSIVE


def _of_claim(claim: Claim) -> Statement:
    return Statement(claim.id, claim.section, claim.text, (claim.table,), claim.kind, claim.reading, claim)


def _of_lines(lines: list[dict[str, str]]) -> Statement:
    first = lines[0]
    tables = tuple(int(number) for number in first["table"].split() if int(number))
    return Statement(
        first["id"], first["section"], first["claim"], tables, first["kind"], first["reading"],
        claim_of(lines) if first["relation"] else None, first["check"], first["why"],
    )  # fmt: skip
