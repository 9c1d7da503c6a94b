"""Reference values: what a notebook must find again, on every machine, with the same parameters."""

from __future__ import annotations

import json
import math
import os
import re
from collections.abc import Mapping
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

from uwmlib.errors import UwmError
from uwmlib.manifests import manifests_dir
from uwmlib.reporting.results import flatten, plain

DEFAULT_TOLERANCE = 0.5
# Half a point at most: whatever passes here would then fail if its reference were moved by one point.
MAX_TOLERANCE = 0.5
# Values are stored with 6 decimals. The rounding of floats is far smaller than EDGE.
MIN_TOLERANCE = 1e-6
EDGE = 1e-9
N_LISTED = 5


def check_references(
    name: str,
    values: Mapping[str, float],
    *,
    params: Mapping[str, Any],
    tolerance: float | Mapping[str, float] = DEFAULT_TOLERANCE,
    update: bool = False,
    folder: str | os.PathLike | None = None,
) -> None:
    """Compare the numbers of a run with the stored ones and print one line about it.

    Parameters
    ----------
    name : str
        Which reference: the file `<name>.json` of `folder`.
    values : mapping of str to float
        Flat results (`flatten` makes them), in points unless said otherwise by a tolerance.
    params : mapping
        The parameters of this run. If they differ from the stored ones nothing is compared, and the line says
        which parameter was in the way.
    tolerance : float or mapping of pattern to float
        Values must be closer than this; at most 0.5. With a mapping the longest matching pattern
        (`*.sensitivity_*`) counts, and 0.5 where none matches. It is stored with the values.
    update : bool
        Write `values` as the new reference instead of comparing.
    folder : path-like, optional
        Where the references are kept; the library's own `data_manifests/reference` by default.

    Raises
    ------
    UwmError
        If a value is off, missing, new or not a number; if there is no reference; if the tolerance given is
        not the stored one.

    Examples
    --------
    A value may be off by less than the tolerance:

    >>> import tempfile
    >>> import uwmlib as uwm
    >>> from uwmlib.reporting import check_references
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     run = {"params": {"tau": 0.02}, "folder": folder}
    ...     check_references("mine", {"gs": 4.5}, update=True, **run)
    ...     check_references("mine", {"gs": 4.7}, **run)
    ...     try:
    ...         check_references("mine", {"gs": 5.7}, **run)
    ...     except uwm.UwmError as error:
    ...         print(error)
    reference mine: 1 values written
    reference check mine: 1 of 1 values agree (tolerance 0.5 points)
    Reference check mine failed for 1 of 1 values: gs is 5.7, not 4.5 ...
    """
    if update:
        update_references(name, values, params=params, tolerance=tolerance, folder=folder)
        return
    stored = load_references(name, folder=folder)
    different = _differing_params(plain(params), stored["params"])
    if different:
        print(f"reference check {name}: values not compared, because {different}")
        return
    limits = _limits(tolerance)
    if limits != stored["tolerance"]:
        raise UwmError(
            f"The tolerance of reference {name!r} is {stored['tolerance']}, not {limits}: update it."
        )
    offenders = _offenders(values, stored["values"], limits)
    if offenders:
        listed = "; ".join(offenders[:N_LISTED])
        more = f"; and {len(offenders) - N_LISTED} more" if len(offenders) > N_LISTED else ""
        raise UwmError(
            f"Reference check {name} failed for {len(offenders)} of {len(stored['values'])} values: "
            f"{listed}{more}. Find out why, or update the reference."
        )
    n = len(stored["values"])
    print(f"reference check {name}: {n} of {n} values agree (tolerance {_describe(limits)})")


def update_references(
    name: str,
    values: Mapping[str, float],
    *,
    params: Mapping[str, Any],
    tolerance: float | Mapping[str, float] = DEFAULT_TOLERANCE,
    folder: str | os.PathLike | None = None,
) -> None:
    """Store `values` as what later runs with the same `params` have to find (see `check_references`).

    Raises
    ------
    UwmError
        If there is no value, one is not finite, a tolerance is not in [1e-6, 0.5], or a pattern matches nothing.

    Examples
    --------
    >>> import tempfile
    >>> from uwmlib.reporting import check_references, update_references
    >>> values, params = {"UWM.gs": 4.5}, {"tau": 0.02}
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     update_references("mine", values, params=params, folder=folder)
    ...     check_references("mine", values, params=params, folder=folder)
    reference mine: 1 values written
    reference check mine: 1 of 1 values agree (tolerance 0.5 points)
    """
    from uwmlib.files import write_json  # here, because it loads torch

    limits = _limits(tolerance)
    bad = [key for key, value in values.items() if not math.isfinite(value)]
    if bad or not values:
        raise UwmError(
            f"Reference {name!r} needs finite values: {', '.join(bad) or 'none at all'} was given."
        )
    _check_limits(limits, values)
    rounded = {key: round(float(value), 6) for key, value in values.items()}
    write_json(_path(name, folder), {"params": plain(params), "tolerance": limits, "values": rounded})
    print(f"reference {name}: {len(rounded)} values written")


def load_references(name: str, *, folder: str | os.PathLike | None = None) -> dict[str, Any]:
    """Read one reference file: its params, tolerance and values.

    Raises
    ------
    UwmError
        If there is none of this name, or it is damaged.
    """
    path = _path(name, folder)
    if not path.is_file():
        raise UwmError(
            f"There is no reference {name!r}: run its notebook once with update_reference set to True."
        )
    try:
        stored = json.loads(path.read_text(encoding="utf-8"))
        parts = {part: dict(stored[part]) for part in ("params", "tolerance", "values")}
    except (ValueError, KeyError, TypeError) as error:
        raise UwmError(
            f"The reference {path.name} is damaged ({error!r}): restore it from version control."
        ) from error
    _check_limits(parts["tolerance"], parts["values"])
    return parts


def recorded_values(name: str, *, folder: str | os.PathLike | None = None) -> dict[str, float]:
    """Return the numbers of a chapter, flat (see `flatten`), as a run left them.

    Parameters
    ----------
    name : str
        The chapter's name.
    folder : path-like, optional
        Folder of results files (see `save_results`); by default the reference values of the mini profile are read.

    Returns
    -------
    dict of str to float
        Empty where there is none of this name, or the folder is "".

    Raises
    ------
    UwmError
        If a file is damaged.

    Examples
    --------
    >>> from uwmlib.reporting import recorded_values
    >>> recorded_values("04_table1_visu")["methods.CLIP.p_s_t.n"]
    2000.0
    >>> recorded_values("04_table1_visu", folder="")
    {}
    """
    if folder is None:
        return load_references(name)["values"]
    path = Path(folder) / f"{name}.json"
    if not str(folder) or not path.is_file():
        return {}
    try:
        return flatten(json.loads(path.read_text(encoding="utf-8"))["values"])
    except (ValueError, KeyError, TypeError) as error:
        raise UwmError(f"The results {path} are damaged ({error!r}): run the chapter again.") from error


def _limits(tolerance: float | Mapping[str, float]) -> dict[str, float]:
    """A tolerance as it is stored: pattern -> limit."""
    return dict(tolerance) if isinstance(tolerance, Mapping) else {"*": float(tolerance)}


def _offenders(got: Mapping[str, float], want: Mapping[str, float], limits: Mapping[str, float]) -> list[str]:
    """One phrase for each value that is off, missing or new."""
    phrases = [f"{key} is missing" for key in want if key not in got]
    phrases += [f"{key} is not in the reference" for key in got if key not in want]
    for key in sorted(got.keys() & want.keys()):
        limit = _limit(key, limits)
        # Written so that NaN fails.
        if not abs(got[key] - want[key]) < limit - EDGE:
            phrases.append(f"{key} is {got[key]:.4g}, not {want[key]:.4g} (tolerance {limit:g})")
    return phrases


def _limit(key: str, limits: Mapping[str, float]) -> float:
    """The tolerance of one value: that of the longest matching pattern."""
    matching = [pattern for pattern in limits if fnmatchcase(key, pattern)]
    return (
        limits[max(matching, key=lambda pattern: (len(pattern), pattern))] if matching else DEFAULT_TOLERANCE
    )


def _check_limits(limits: Mapping[str, float], values: Mapping[str, float]) -> None:
    for pattern, limit in limits.items():
        if not MIN_TOLERANCE <= limit <= MAX_TOLERANCE:
            raise UwmError(
                f"The tolerance for {pattern!r} is {limit}: give one from {MIN_TOLERANCE:g} to {MAX_TOLERANCE:g}."
            )
        if not any(fnmatchcase(key, pattern) for key in values):
            raise UwmError(f"The tolerance pattern {pattern!r} matches no value: correct or drop it.")


def _differing_params(here: Mapping[str, Any], stored: Mapping[str, Any]) -> str:
    """Say which parameters differ ("n is 500 here and 2000 in the reference"), or "" if none does."""
    absent = object()
    differing = [
        key for key in sorted(here.keys() | stored.keys()) if here.get(key, absent) != stored.get(key, absent)
    ]
    return ", ".join(
        f"{key} is {here[key]!r} here and {stored[key]!r} in the reference"
        if key in here and key in stored
        else f"{key} is given {'only here' if key in here else 'only in the reference'}"
        for key in differing
    )


def _describe(limits: Mapping[str, float]) -> str:
    """Tolerances for the line that is printed: a plain number of points, or the range of a mapping."""
    if set(limits) == {"*"}:
        return f"{limits['*']:g} points"
    numbers = sorted({*limits.values()} | (set() if "*" in limits else {DEFAULT_TOLERANCE}))
    return " to ".join(f"{number:g}" for number in dict.fromkeys((numbers[0], numbers[-1]))) + " points"


def _path(name: str, folder: str | os.PathLike | None) -> Path:
    if not re.fullmatch(r"[\w-]+", name):
        raise UwmError(f"{name!r} cannot name a reference: use letters, digits, - and _ only.")
    return (manifests_dir() / "reference" if folder is None else Path(folder)) / f"{name}.json"
