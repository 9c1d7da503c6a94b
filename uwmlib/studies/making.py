"""Every study by its name, and the making of one: what chapters read from shipped files is measured anew."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from uwmlib.cache import Cache
from uwmlib.editing import Scores, pool_scores, score
from uwmlib.errors import UwmError
from uwmlib.options import known
from uwmlib.outputs import check_output
from uwmlib.profiles import Profile, profile
from uwmlib.studies.anatomy import anatomy, anatomy_rests_on, score_concepts
from uwmlib.studies.controlled import PLAN, Plan, measure_equal_knowledge, save_equal_knowledge
from uwmlib.studies.conventions import make_conventions
from uwmlib.studies.evaluations import save_evaluations
from uwmlib.studies.files import SUFFIX, study_path
from uwmlib.studies.plans import JSON
from uwmlib.studies.planted_rows import make_planted
from uwmlib.studies.scores import SCORES_PLAN
from uwmlib.studies.shipped import COMPARED, equal_knowledge, rests_on, rows_rest_on
from uwmlib.studies.table1 import Readings, edits_of_table1, measure_rows
from uwmlib.studies.tournament_again import STUDY as TOURNAMENT_AGAIN
from uwmlib.studies.tournament_again import make_tournament_again
from uwmlib.studies.tournament_rows import make_tournament
from uwmlib.studies.unseen import make_unseen
from uwmlib.studies.worlds import AGAIN, MORE, make_worlds
from uwmlib.tuples import Tuples

N_CALIBRATION = 2000
N_BENIGN = 1000  #: benign uses at equal knowledge; Table 1 takes all


@dataclass(frozen=True)
class Study:
    """A row of `STUDIES`.

    Attributes
    ----------
    about : str
        What is measured, in a few words.
    make : callable
        From the profile of the model (or nothing, for a study of no model), the path of the file and the options
        `progress` and `cache` to the file.
    of : str
        Of what it is a study: "model" for any mini model, "safe-clip" for one that has a Safe-CLIP, "" for no model.
    suffix : str
        Of the file.

    Examples
    --------
    >>> from uwmlib.studies import STUDIES
    >>> STUDIES["scores"].of
    'model'
    """

    about: str
    make: Callable[..., None]
    of: str = "model"
    suffix: str = SUFFIX


def make_study(name: str, model: str = "", *, output: str | Path = "studies", progress: bool = True) -> Path:
    """Measure a study anew and write its file.

    Parameters
    ----------
    name : str
        One of `STUDIES`.
    model : str
        Name of the mini model; empty for a study of no model.
    output : path
        Folder for `<name>/<model>.safetensors`, or `<name>/<name>.safetensors` for a study of no model.

    Returns
    -------
    Path
        The file.

    Raises
    ------
    UwmError
        If there is no such study, it is not of that model, or the file cannot be written.

    Examples
    --------
    >>> from uwmlib.studies import make_study
    >>> make_study("table1", "mini-CoCa")
    Traceback (most recent call last):
    ...
    uwmlib.errors.UwmError: There is no Safe-CLIP of 'mini-CoCa': study ...
    """
    study = STUDIES[known(name, STUDIES, "study")]
    setup = _profile_of(name, study, model)
    path = check_output(study_path(name, model, folder=output, suffix=study.suffix))
    started = time.perf_counter()
    study.make(*setup, path, progress=progress, cache=Cache(""))
    whole = f"{name} of {model}" if model else name
    print(f"{whole}: {(time.perf_counter() - started) / 60:.1f} minutes")
    return path


def _profile_of(name: str, study: Study, model: str) -> tuple[Profile, ...]:
    """Return the profile that a study starts from: none for a study of no model."""
    if bool(study.of) != bool(model):
        needs = "is of one mini model: name it" if study.of else f"is of no model: leave out {model!r}"
        raise UwmError(f"The study {name} {needs}.")
    if not model:
        return ()
    setup = profile("mini")
    pairs = {0: (setup.base_model, setup.safe_model), **setup.seeds}
    safe = next((safe for base, safe in pairs.values() if base == model), "")
    if study.of == "safe-clip" and not safe:
        bases = ", ".join(base for base, _ in pairs.values())
        raise UwmError(f"There is no Safe-CLIP of {model!r}: study {name} on one of {bases}.")
    return (profile("mini", base_model=model, safe_model=safe or model),)


def _loaded(setup: Profile, **options: Any) -> tuple[Scores, Tuples, dict[str, Any]]:
    """Return scores, the tuples that they were calibrated on, and what the study at equal knowledge measures on."""
    calibration = setup.load_tuples("train", n=N_CALIBRATION)
    parts = {
        "validation": setup.load_tuples("validation"), "test": setup.load_tuples("test"),
        "benign": setup.load_benign(n=N_BENIGN), "zero_shot": list(setup.load_zero_shot().values()),
    }  # fmt: skip
    return score(setup.load_base(), calibration, **options), calibration, parts


def _at_equal_knowledge(
    setup: Profile, path: Path, *, study: str, plan: Plan, sets: bool = True, **options: Any
) -> None:
    scores, _, parts = _loaded(setup, **options)
    parts |= {"plan": plan} | ({} if sets else {"zero_shot": []})
    found = measure_equal_knowledge(scores.vlm, COMPARED[study](scores, plan), **parts, **options)
    save_equal_knowledge(path, found, facts=rests_on(scores, **parts))


def _table1(setup: Profile, path: Path, **options: Any) -> None:
    readings = Readings()
    scores, calibration, parts = _loaded(setup, **options)
    study, source = equal_knowledge(scores, **parts, **options)
    print(source)
    edits = edits_of_table1(scores, calibration, study, readings=readings, **options)
    options |= {"zero_shot": parts["zero_shot"], "benign": setup.load_benign()}
    rows = measure_rows(scores.vlm, edits, parts["test"], others={"Safe-CLIP": setup.load_safe()}, **options)
    names = (setup.base_model, setup.safe_model)
    save_evaluations(
        path, rows, facts=rows_rest_on(names, calibration, parts["validation"], parts["test"], readings)
    )


def _anatomy(setup: Profile, path: Path, **options: Any) -> None:
    calibration = setup.load_tuples("train", n=1000)
    parts = {
        "validation": setup.load_tuples("validation", n=500), "test": setup.load_tuples("test", n=1000),
        "benign": setup.load_benign(n=500),
    }  # fmt: skip
    groups = score_concepts(setup.load_base(), calibration, progress=False)
    found, _ = anatomy(groups, calibration=calibration, **parts, **options)
    save_equal_knowledge(path, found, facts=anatomy_rests_on(pool_scores(list(groups.values())), **parts))


STUDIES = {
    "anatomy": Study("masks by concept, whole neurons, and the same function in other weights", _anatomy),
    "equal-knowledge": Study(
        "UWM and its controls at equal knowledge",
        partial(_at_equal_knowledge, study="equal-knowledge", plan=PLAN),
    ),
    "scores": Study(
        "the rows of the paper's Tables 3, 6, 7 and 9 on one more base",
        partial(_at_equal_knowledge, study="scores", plan=SCORES_PLAN, sets=False),
    ),
    "planted": Study("which scores find weights that unsafe behaviour was planted in", make_planted, of=""),
    "tournament": Study(
        "every method on one model, at equal knowledge and at equal benign use", make_tournament
    ),
    TOURNAMENT_AGAIN: Study(
        "its leaders on sixteen small bases of fresh seeds", make_tournament_again, of="", suffix=JSON
    ),
    "unseen": Study("entrants on concepts that no fit has seen, and in a LLaVA", make_unseen, of=""),
    "table1": Study("the rows of the paper's Table 1", _table1, of="safe-clip"),
    "conventions": Study("UWM and its baselines, one convention switched at a time", make_conventions),
    "worlds": Study(
        "UWM and random negation on small bases of changed worlds", make_worlds, of="", suffix=JSON
    ),
    AGAIN: Study(
        "the same on sixteen seeds of the default", partial(make_worlds, study=AGAIN), of="", suffix=JSON
    ),
    MORE: Study("the same on 32 more seeds", partial(make_worlds, study=MORE), of="", suffix=JSON),
}
