"""The end of every notebook: keep the numbers, and hold them against the reference values."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from uwmlib.metrics import Score, measured
from uwmlib.reporting.references import DEFAULT_TOLERANCE, check_references
from uwmlib.reporting.results import flatten, save_results

if TYPE_CHECKING:
    from uwmlib.editing import WeightEdit

#: Parameters of notebooks that say how or where to compute, and not what.
WITHOUT_EFFECT = (
    "batch_size", "blur_unsafe", "cache_dir", "device", "progress", "results_dir", "update_reference",
)  # fmt: skip


def record(
    sources: Mapping[str, Mapping[str, Score]], keys: Iterable[str]
) -> dict[str, dict[str, dict[str, Any]]]:
    """Return measured scores in the form that results files keep.

    Parameters
    ----------
    sources : mapping
        Row -> what was measured: names and scores.
    keys : iterable of str
        Scores; those that a row does not have are left out.

    Returns
    -------
    dict
        Row -> key -> `{"value": v, "interval": [lo, hi], "n": n}`, the last two only where they are known.

    Examples
    --------
    >>> from uwmlib.metrics import Score
    >>> from uwmlib.reporting import record
    >>> record({"UWM": {"gs": Score(4.5, (4.0, 5.1), n=2000)}}, ["gs", "ps"])
    {'UWM': {'gs': {'value': 4.5, 'interval': [4.0, 5.1], 'n': 2000}}}
    """
    keys = list(keys)
    return {
        row: {key: _saved(score) for key in keys if (score := measured(source, key)) is not None}
        for row, source in sources.items()
    }


def record_edits(edits: Mapping[str, WeightEdit]) -> dict[str, dict[str, float]]:
    """Return how much edits change, in percent of the weights that were scored.

    Parameters
    ----------
    edits : mapping of str to WeightEdit

    Returns
    -------
    dict
        Name of the edit -> encoder -> percent, in [0, 100]; an encoder that is left alone is left out.

    Examples
    --------
    >>> import torch
    >>> from uwmlib.editing import Scaling, WeightEdit
    >>> from uwmlib.reporting import record_edits
    >>> where = {"shape": (2, 4), "encoder": "text", "base_hash": ""}
    >>> one = Scaling(**where, indices=torch.tensor([3]), alpha=-1.0, candidates=8)
    >>> record_edits({"UWM": WeightEdit({"w": one})})
    {'UWM': {'text': 12.5}}
    """
    return {
        name: {encoder: 100 * share for encoder, share in edit.share().items()}
        for name, edit in edits.items()
    }


def _saved(score: Score) -> dict[str, Any]:
    interval = {} if score.interval is None else {"interval": list(score.interval)}
    return {"value": score.value} | interval | ({} if score.n is None else {"n": score.n})


def conclude(
    name: str,
    values: Mapping[str, Any],
    parameters: Mapping[str, Any],
    *,
    tolerance: float | Mapping[str, float] = DEFAULT_TOLERANCE,
) -> None:
    """Save a notebook's results where asked to, and check them against its reference values.

    Parameters
    ----------
    name : str
        The notebook's name; results go to `<results_dir>/<name>.json`.
    values : mapping
        Nested results (see `save_results`).
    parameters : mapping
        The whole parameters cell, as `uwmlib.checked_parameters` returns it. Nothing is compared with the reference
        where one of them differs from the reference's, those in `WITHOUT_EFFECT` aside: with another model, other
        weights or other data there is nothing to agree with.
    tolerance : float or mapping
        See `check_references`.

    Raises
    ------
    UwmError
        If a value differs from its reference.

    Examples
    --------
    Parameters of one's own have no reference values to agree with:

    >>> import tempfile
    >>> from pathlib import Path
    >>> from uwmlib.reporting import conclude
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     given = {"tau": 0.5, "results_dir": folder, "update_reference": False}
    ...     conclude("01_motivation", {"UWM": {"gs": 4.5}}, given)
    ...     print(Path(folder, "01_motivation.json").is_file())
    reference check 01_motivation: values not compared, because ...
    True
    """
    params = {key: value for key, value in parameters.items() if key not in WITHOUT_EFFECT}
    if parameters["results_dir"]:
        save_results(name, values, params=params, path=Path(parameters["results_dir"]) / f"{name}.json")
    update = parameters["update_reference"]
    check_references(name, flatten(values), params=params, tolerance=tolerance, update=update)
