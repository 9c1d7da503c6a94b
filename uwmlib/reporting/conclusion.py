"""The end of every notebook: keep the numbers, and hold them against the reference values."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from uwmlib.reporting.measured import measured
from uwmlib.reporting.references import DEFAULT_TOLERANCE, check_references
from uwmlib.reporting.results import flatten, save_results


def record(sources: Mapping[str, Any], keys: Iterable[str]) -> dict[str, dict[str, dict[str, Any]]]:
    """Return measured scores in the form that results files keep.

    Parameters
    ----------
    sources : mapping
        Row -> what was measured (see `uwmlib.reporting.measured.measured`).
    keys : iterable of str
        Scores; those that a row does not have are left out.

    Returns
    -------
    dict
        Row -> key -> `{"value": v, "interval": [lo, hi], "n": n}`.
    """
    keys = list(keys)
    found = {row: {key: measured(source, key) for key in keys} for row, source in sources.items()}
    return {
        row: {
            key: {"value": m.value, "interval": [m.lo, m.hi]} | ({} if m.n is None else {"n": m.n})
            for key, m in scores.items()
            if m is not None
        }
        for row, scores in found.items()
    }


def conclude(
    name: str,
    values: Mapping[str, Any],
    *,
    params: Mapping[str, Any],
    results_dir: str = "",
    update_reference: bool = False,
    tolerance: float | Mapping[str, float] = DEFAULT_TOLERANCE,
) -> None:
    """Save a notebook's results where asked to, and check them against its reference values.

    Parameters
    ----------
    name : str
        The notebook's name; results go to `<results_dir>/<name>.json`.
    values : mapping
        Nested results (see `save_results`).
    params : mapping
        The parameters that the numbers depend on. With other parameters than the reference's nothing is compared.
    results_dir : str
        Folder of results; nothing is saved when empty.
    update_reference : bool
        Make these values the reference instead of checking them.
    tolerance : float or mapping
        See `check_references`.

    Raises
    ------
    UwmError
        If a value differs from its reference.
    """
    if results_dir:
        save_results(name, values, params=params, path=Path(results_dir) / f"{name}.json")
    check_references(name, flatten(values), params=params, tolerance=tolerance, update=update_reference)
