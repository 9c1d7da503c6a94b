"""Tournaments that ship: making one, saving it, and reading it where it rests on what is asked for."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from functools import partial
from os import PathLike
from pathlib import Path
from typing import Any

from uwmlib.cache import Cache
from uwmlib.comparison import Setting
from uwmlib.metrics import Score
from uwmlib.metrics.score import Unit
from uwmlib.profiles import Profile
from uwmlib.studies.evaluations import load_evaluations, save_evaluations
from uwmlib.studies.files import read_from, shipped
from uwmlib.studies.roster import entrants
from uwmlib.studies.tournament import (
    STUDY,
    Arena,
    Cost,
    Tournament,
    measure_tournament,
)
from uwmlib.tuples import Tuples

N_CALIBRATION, N_BENIGN = 2000, 1000  #: that methods are fitted on
N_SPARED = 200  #: benign uses of the validation split, beside the curves of a tournament
#: Of a tournament: validation tuples and benign uses.
N_VALIDATION, N_USES = 500, 500


def make_tournament(setup: Profile, path: Path, *, progress: bool, cache: Cache) -> None:
    """Measure what the file does not have yet, and keep it after every method."""
    calibration, safe = setup.load_tuples("train", n=N_CALIBRATION), None
    if setup.safe_model != setup.base_model:
        safe = setup.load_safe()
    arena = arena_of(setup, cache=cache)
    methods = entrants(benign=setup.load_benign("train", n=N_BENIGN), safe=safe)
    facts = arena.facts() | {"calibration": calibration.fingerprint}
    start, held = load_tournament(path) if path.is_file() else (None, facts)
    measure_tournament(
        arena, methods, calibration=calibration, others={"safe-clip": safe} if safe else None,
        start=start if held == facts else None, after=partial(save_tournament, path, facts=facts), progress=progress,
    )  # fmt: skip


def arena_of(setup: Profile, **options: Any) -> Arena:
    return Arena(
        setup.load_base(), setup.load_tuples("validation", n=N_VALIDATION), setup.load_tuples("test"),
        spared=setup.load_benign("validation", n=N_SPARED), benign=setup.load_benign(n=N_USES), options=options,
    )  # fmt: skip


def shipped_tournament(arena: Arena, calibration: Tuples) -> tuple[Tournament | None, str]:
    """Return the tournament on a model from a shipped file that rests on just this; None where there is none.

    Parameters
    ----------
    arena : Arena
    calibration : Tuples

    Returns
    -------
    Tournament or None, str
        The second says where the first comes from.

    Examples
    --------
    Nothing ships that rests on nine tuples:

    >>> import uwmlib as uwm
    >>> from uwmlib.studies import Arena, shipped_tournament
    >>> few = {
    ...     x: uwm.load_tuples("mini-visu", split=x, n=9)
    ...     for x in ("validation", "test")
    ... }
    >>> arena = Arena(uwm.load_model("mini-ViT-B-32"), **few)
    >>> train = uwm.load_tuples("mini-visu", split="train", n=9)
    >>> shipped_tournament(arena, train)[0] is None
    True
    """
    name = arena.vlm.name
    wanted = arena.facts() | {"calibration": calibration.fingerprint}
    found = shipped(STUDY, name, load_tournament, lambda: wanted)
    if found is None:
        return None, f"No tournament on {name} ships that rests on these tuples and rules."
    return found, read_from(STUDY, name)


def save_tournament(path: str | PathLike, found: Tournament, *, facts: Mapping[str, Any]) -> None:
    """Save a tournament with the facts that it rests on; `load_tournament` reads it.

    Of the test tuples every answer is kept, of the curves the scores alone.

    Examples
    --------
    >>> import tempfile
    >>> import uwmlib as uwm
    >>> from uwmlib import studies
    >>> few = uwm.load_tuples("mini-visu", split="validation", n=9)
    >>> arena = studies.Arena(uwm.load_model("mini-ViT-B-32"), few, few)
    >>> found = studies.measure_tournament(arena, {}, calibration=few)
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     studies.save_tournament(f"{folder}/held", found, facts=arena.facts())
    ...     again, facts = studies.load_tournament(f"{folder}/held")
    >>> again.unedited["gs"] == found.unedited["gs"], facts == arena.facts()
    (True, True)
    """
    rows, evaluations = [], {"base": found.base.base}
    for row, each in found.rows.items():
        same = next((k for k, other in found.rows.items() if other is each), row)
        rows.append({"row": row, "as": same, "n_weights": each.n_weights, "runs": len(each.runs)})
        evaluations |= {_run(same, seed): run for seed, run in enumerate(each.runs)}
    parts = {
        "rests on": dict(facts),
        "rows": rows,
        "unedited": _written(found.unedited),
        "curves": [
            [name, [[strength, _written(scores)] for strength, scores in points.items()]]
            for name, points in found.curves.items()
        ],
        "strengths": [[row, strength, found.reasons[row]] for row, strength in found.strengths.items()],
        "costs": [[name, asdict(cost)] for name, cost in found.costs.items()],
        "refused": found.refused,
    }
    save_evaluations(path, evaluations, facts=parts)


def load_tournament(path: str | PathLike) -> tuple[Tournament, dict[str, Any]]:
    """Load what `save_tournament` wrote; the second is what it rests on.

    Raises
    ------
    UwmError
        If the file is missing, damaged, or of another kind.

    Examples
    --------
    >>> from uwmlib.studies import load_tournament, study_path
    >>> found, _ = load_tournament(study_path("tournament", "mini-ViT-L-14"))
    >>> found.at("95%")[:2], found.rows["safe-shift, 95%"].split
    (['uwm, 95%', 'uwm-printed, 95%'], 'test')
    """
    evaluations, facts = load_evaluations(path)
    base = evaluations["base"]
    settings = {
        each["as"]: Setting(
            tuple(evaluations[_run(each["as"], seed)] for seed in range(each["runs"])),
            base,
            each["n_weights"],
        )
        for each in facts["rows"]
    }
    found = Tournament(
        curves={
            name: {strength: _read(scores) for strength, scores in points} for name, points in facts["curves"]
        },
        unedited=_read(facts["unedited"]),
        strengths={row: strength for row, strength, _ in facts["strengths"]},
        reasons={row: reason for row, _, reason in facts["strengths"]},
        base=Setting((base,), base),
        rows={each["row"]: settings[each["as"]] for each in facts["rows"]},
        costs={name: Cost(**cost) for name, cost in facts["costs"]},
        refused=dict(facts["refused"]),
    )
    return found, facts["rests on"]


def _run(row: str, seed: int) -> str:
    return f"row/{row}/{seed}"


def _written(scores: Mapping[str, Score]) -> dict[str, Any]:
    return {
        key: [score.value, list(score.interval) if score.interval else None, score.n, asdict(score.unit)]
        for key, score in scores.items()
    }


def _read(scores: Mapping[str, Any]) -> dict[str, Score]:
    return {
        key: Score(value, tuple(interval) if interval else None, n, Unit(**unit))
        for key, (value, interval, n, unit) in scores.items()
    }
