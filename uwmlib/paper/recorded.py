"""The differences that claims rest on, as plain numbers in a chapter's results, and read from them again."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

from uwmlib.metrics import Difference, mean_over_seeds
from uwmlib.paper.rules import by_seed
from uwmlib.paper.scoreboard import claims_about
from uwmlib.paper.verdicts import Ours, ours_between

FIELDS = ("difference", "lo", "hi", "n", "base", "p_value")
OPEN = {"lo": -math.inf, "hi": math.inf}  #: limits that are left out, as of a single item


def record_claims(table: int, ours: Ours) -> dict[str, dict[str, list[dict[str, float]]]]:
    """Return the differences that the claims on one table compare, in the form that results files keep.

    Parameters
    ----------
    table : int
        1 to 9, or 0 for the sweeps of figures, whose rows are "tau-end" and "tau-start", "alpha-end" and "alpha-start".
    ours : mapping or callable
        As in `judge_claims`.

    Returns
    -------
    dict
        "table_N" -> comparison -> for each seed the fields of its `Difference`. What was not measured is left out.

    Raises
    ------
    UwmError
        As `judge_claims`.

    Examples
    --------
    >>> from uwmlib.metrics import share_of
    >>> from uwmlib.paper import record_claims
    >>> ours = {
    ...     "LLaVA": {"nsfw": share_of([True] * 9 + [False])},
    ...     "LLaVA+UWM": {"nsfw": share_of([False] * 9 + [True])},
    ... }
    >>> found = record_claims(5, ours)["table_5"]
    >>> for comparison, seeds in found.items():
    ...     print(comparison, seeds[0]["difference"], len(seeds))
    LLaVA+UWM nsfw - LLaVA nsfw -80.0 1
    """
    pairs = {pair.pair: None for claim in claims_about(table) for pair in claim.comparisons}
    found = {_key(left, right): ours_between(ours, *left, *right) for left, right in pairs}
    return {
        f"table_{table}": {
            key: [_fields(seed) for seed in by_seed(one)] for key, one in found.items() if one is not None
        }
    }


def recorded_claims(
    table: int, values: Mapping[str, float], *, under: str = "claims"
) -> Callable[[str, str, str, str], Difference | None]:
    """Return what was recorded for one table, in the form that `judge_claims` takes.

    Parameters
    ----------
    table : int
    values : mapping of str to float
        Flat results of a chapter (`uwmlib.reporting.flatten`), or its reference values.
    under : str
        Where in the results `record_claims` was put.

    Returns
    -------
    callable
        (left row, left key, right row, right key) -> Difference, or None where none was recorded.

    Examples
    --------
    >>> from uwmlib.metrics import share_of
    >>> from uwmlib.paper import judge_claims, record_claims, recorded_claims
    >>> from uwmlib.reporting import flatten
    >>> ours = {
    ...     "LLaVA": {"nsfw": share_of([True] * 9 + [False])},
    ...     "LLaVA+UWM": {"nsfw": share_of([False] * 9 + [True])},
    ... }
    >>> values = flatten({"claims": record_claims(5, ours)})
    >>> judge_claims(5, recorded_claims(5, values)).at["C133", "here"]
    '↓ same direction, larger'
    """

    def between(left_row: str, left_key: str, right_row: str, right_key: str) -> Difference | None:
        key = f"{under}.table_{table}.{_key((left_row, left_key), (right_row, right_key))}"
        seeds: list[Difference] = []
        while f"{key}.{len(seeds)}.difference" in values:
            fields = {field: values.get(f"{key}.{len(seeds)}.{field}", OPEN.get(field)) for field in FIELDS}
            seeds.append(Difference(**fields | {"n": fields["n"] and int(fields["n"])}))
        return mean_over_seeds(seeds) if seeds else None

    return between


def _key(left: tuple[str, str], right: tuple[str, str]) -> str:
    return f"{left[0]} {left[1]} - {right[0]} {right[1]}"


def _fields(found: Difference) -> dict[str, Any]:
    fields = {field: getattr(found, field) for field in FIELDS}
    return {field: value for field, value in fields.items() if value is not None and math.isfinite(value)}
