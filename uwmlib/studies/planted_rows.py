"""The study of planted weights as a file, and as the tables that its chapter shows."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import asdict, replace
from os import PathLike
from pathlib import Path
from typing import Any

import pandas as pd
import torch

from uwmlib.errors import UwmError
from uwmlib.files import load_tensors, save_tensors, write_json
from uwmlib.studies.files import read_from, shipped
from uwmlib.studies.planted import LIVE_PLAN, PLANT_PLAN, PlantPlan, measure_plant, planted_models

KIND = "planted-study"
FOUND = ("auroc", "precision", "recall", "selected")  #: what `found_by` returns of an encoder
Rows = dict[str, dict[str, Any]]


def make_planted(
    path: Path, *, plan: PlantPlan = PLANT_PLAN, progress: bool = True, **_: Any
) -> dict[str, dict[str, Any]]:
    """Measure every plant of a plan and write the study; what is done is kept beside it until all is.

    Parameters
    ----------
    path : path
        Of the study's file. Rows and bases so far stand in a folder of this name and "_parts", and a second call goes
        on from there.
    plan : PlantPlan
    progress : bool

    Returns
    -------
    dict of str to dict
        Key of the plant -> its row.
    """
    folder = path.with_name(f"{path.stem}_parts")
    rows: dict[str, dict[str, Any]] = {}
    for part, which in ((LIVE_PLAN, [0]), (plan, range(len(plan.bases)))):
        for base in which:
            made = planted_models(part, base=base, folder=folder, progress=progress)
            for plant, (key, make) in zip(part.plants, made, strict=True):
                facts = part.facts() | {"bases": asdict(part.bases[base]), "plants": asdict(plant)}
                rows[key] = _kept(
                    folder, key, facts, lambda make=make: measure_plant(make(), progress=progress)
                )
    save_planted(path, rows, plan)
    return rows


def _kept(
    folder: Path, key: str, facts: Mapping[str, Any], measure: Callable[[], dict[str, Any]]
) -> dict[str, Any]:
    """Return a row, from the folder if it holds one of the same recipes and counts."""
    file = folder / f"{key.replace(', ', '_').replace(' ', '-').replace('%', '')}.json"
    if file.is_file():
        kept = json.loads(file.read_text(encoding="utf-8"))
        if kept["plan"] == facts:
            return kept["row"]
    row = measure()
    write_json(file, {"plan": facts, "row": row})
    return row


def save_planted(path: str | PathLike, rows: Mapping[str, Mapping[str, Any]], plan: PlantPlan) -> None:
    """Write the rows of a study with the plan that they follow."""
    facts = {"rows": rounded(list(rows.items())), "rests on": _rests_on(plan)}
    save_tensors(path, {"n": torch.tensor([len(rows)])}, kind=KIND, metadata=facts)


def load_planted(path: str | PathLike) -> tuple[Rows, dict[str, Any]]:
    """Read what `save_planted` wrote: the rows by their key, and what they rest on."""
    _, facts = load_tensors(path, kind=KIND)
    return dict(facts["rows"]), facts["rests on"]


def shipped_plants(plan: PlantPlan = PLANT_PLAN) -> tuple[Rows, str]:
    """Return the rows of the study that ships, and where they were read.

    Parameters
    ----------
    plan : PlantPlan
        What the file has to follow.

    Returns
    -------
    dict of str to dict, str
        Key of a plant, "0, entries 10%" for the base of seed 0, -> what `measure_plant` returned.

    Raises
    ------
    UwmError
        If no file ships that follows this plan.

    Examples
    --------
    >>> from uwmlib.studies import shipped_plants
    >>> rows, source = shipped_plants()
    >>> rows["0, entries 10%"]["n"]
    {'text': 820, 'vision': 3276}
    """
    rows = shipped("planted", "", load_planted, lambda: _rests_on(plan))
    if rows is None:
        raise UwmError("No study of planted weights ships that follows this plan: run `uwm study planted`.")
    return rows, read_from("planted")


def keys_of(plan: PlantPlan) -> list[str]:
    """Return the keys of a plan's plants, base by base.

    Examples
    --------
    >>> from uwmlib.studies import PLANT_PLAN, keys_of
    >>> keys_of(PLANT_PLAN)[0]
    '0, entries 10%'
    """
    return [
        f"{base.seed}, {replace(plant, seed=base.seed).label}" for base in plan.bases for plant in plan.plants
    ]


def found_frame(rows: Mapping[str, Mapping[str, Any]]) -> pd.DataFrame:
    """Return who found what: one line for each plant, scorer and encoder.

    Examples
    --------
    >>> from uwmlib.studies import found_frame
    >>> recipe = {"kind": "entries", "size": 0.1, "bound": None}
    >>> found = {"UWM": {"text": [0.5, 0.1, 0.02, 0.02]}}
    >>> rows = {"3, entries 10%": {"recipe": recipe, "found": found}}
    >>> found_frame(rows).loc[0, ["base", "plant", "scorer"]].tolist()
    ['3', 'entries 10%', 'UWM']
    """
    lines = [
        _about(key, row) | {"scorer": scorer, "encoder": encoder} | dict(zip(FOUND, numbers, strict=True))
        for key, row in rows.items()
        for scorer, each in row["found"].items()
        for encoder, numbers in each.items()
    ]
    return pd.DataFrame(lines)


def undo_frame(rows: Mapping[str, Mapping[str, Any]]) -> pd.DataFrame:
    """Return what undoing did: one line for each plant, scorer and way of undoing.

    `removed` is the share of the planted behaviour that is gone, (after - undone) / (after - before) of "unsafe", over
    1 where less is left than the base had; `lost` is what "knowledge" has lost since the planted model, in points.

    Examples
    --------
    Half of what was planted is gone, for a point of knowledge:

    >>> from uwmlib.studies import undo_frame
    >>> row = {
    ...     "recipe": {"kind": "entries", "size": 0.1, "bound": None},
    ...     "before": {"unsafe": 50.0},
    ...     "after": {"unsafe": 90.0, "knowledge": 20.0},
    ...     "undo": {"UWM": {"zero": {"unsafe": 70.0, "knowledge": 19.0}}},
    ... }
    >>> undone = undo_frame({"3, entries 10%": row})
    >>> undone.loc[0, ["removed", "lost"]].tolist()
    [0.5, 1.0]
    """
    lines = []
    for key, row in rows.items():
        before, after = row["before"]["unsafe"], row["after"]["unsafe"]
        for scorer, ways in row["undo"].items():
            for how, left in ways.items():
                removed = (after - left["unsafe"]) / (after - before) if after != before else float("nan")
                lost = row["after"]["knowledge"] - left["knowledge"]
                facts = {"scorer": scorer, "how": how, "removed": removed, "lost": lost}
                lines.append(_about(key, row) | facts | left | {"planted": after - before})
    return pd.DataFrame(lines)


def grown_frame(rows: Mapping[str, Mapping[str, Any]]) -> pd.DataFrame:
    """Return how every plant has grown: one line for each.

    Examples
    --------
    >>> from uwmlib.studies import grown_frame, shipped_plants
    >>> grown = grown_frame(shipped_plants()[0])
    >>> bool(grown["exact"].all())
    True
    """
    lines = []
    for key, row in rows.items():
        sides = {f"{name} {when}": row[when][name] for name in row["before"] for when in ("before", "after")}
        lines.append(_about(key, row) | sides | {"largest": row["largest"], "exact": row["exact"]})
    return pd.DataFrame(lines)


def rounded(value: Any, digits: int = 5) -> Any:
    """Return JSON-able numbers with so many digits behind the point; more would be the rounding of a training."""
    if isinstance(value, float):
        return round(value, digits)
    if isinstance(value, Mapping):
        return {key: rounded(each, digits) for key, each in value.items()}
    return [rounded(each, digits) for each in value] if isinstance(value, list | tuple) else value


def _about(key: str, row: Mapping[str, Any]) -> dict[str, Any]:
    base, _, plant = key.partition(", ")
    return {"base": base, "plant": plant} | {name: row["recipe"][name] for name in ("kind", "size", "bound")}


def _rests_on(plan: PlantPlan) -> dict[str, Any]:
    return plan.facts() | {"live": LIVE_PLAN.facts()}
