"""Studies of many bases as one JSON file: a plan that is stated first, and a row for each base that was made."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch

from uwmlib.errors import UwmError
from uwmlib.files import write_json

JSON = ".json"  #: suffix of such a study's file


def as_json(facts: Mapping[str, Any]) -> dict[str, Any]:
    """Return facts as JSON gives them back."""
    return json.loads(json.dumps(facts))


def make_rows(
    path: Path,
    plan: Mapping[str, Any],
    jobs: Mapping[str, Callable[[], dict[str, Any]]],
    *,
    study: str,
    progress: bool,
) -> None:
    """Do every job of a plan and keep its row; a row that stands in the file already is not made again.

    Parameters
    ----------
    path : Path
        Written whole after every job. Rows that were made by another plan are dropped.
    plan : mapping
        As JSON gives it back; its "bases" name the jobs by "key".
    jobs : mapping of str to callable () -> dict
        Key -> a row for JSON, with that "key"; how many "minutes" it took is added.
    study : str
        Name of the study.
    progress : bool
        Print a line for each.
    """
    held = read_plan(path, study) if path.is_file() else {"plan": None, "rows": []}
    rows = held["rows"] if held["plan"] == plan else []
    done = {row["key"] for row in rows}
    for key, job in jobs.items():
        if key in done:
            continue
        started, cpu = time.perf_counter(), time.process_time()
        row = job()
        seconds = {"wall": time.perf_counter() - started, "processor": time.process_time() - cpu}
        minutes = {name: round(value / 60, 2) for name, value in seconds.items()}
        rows.append(row | {"minutes": minutes})
        path.parent.mkdir(parents=True, exist_ok=True)
        write_json(path, {"plan": plan, "torch": torch.__version__, "rows": rows})
        if progress:
            print(f"{len(rows)} of {len(jobs)}: {key}, {minutes}", flush=True)


def load_rows(path: Path, plan: Mapping[str, Any], study: str) -> list[dict[str, Any]]:
    """Return the rows of a study's file.

    Raises
    ------
    UwmError
        If the file is missing or damaged, or was made by another plan.
    """
    held = read_plan(path, study)
    if held["plan"] != plan:
        raise UwmError(f"{path} was made by another plan: make it again with `uwm study {study}`.")
    return held["rows"]


def read_plan(path: Path, study: str) -> dict[str, Any]:
    """Return what `make_rows` wrote, whatever its plan."""
    try:
        held = json.loads(path.read_text(encoding="utf-8"))
        if not isinstance(held["rows"], list) or not isinstance(held["plan"]["bases"], list):
            raise TypeError("no lists")
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UwmError(f"{path} is no study of a plan: make it with `uwm study {study}`.") from error
    return held
