"""Studies that ship as files: believed only where they rest on what is asked for, and made again by `make_study`."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

from uwmlib.cache import Cache
from uwmlib.comparison import Setting, evaluate_strengths
from uwmlib.comparison.controls import EditAt
from uwmlib.editing import Scores, score
from uwmlib.errors import UwmError
from uwmlib.evaluation import Evaluation, evaluate
from uwmlib.manifests import manifests_dir
from uwmlib.models import Vlm, load_model
from uwmlib.models.mini import mini_models
from uwmlib.models.pixels import image_digest
from uwmlib.options import ENCODERS, known
from uwmlib.outputs import check_output
from uwmlib.profiles import Profile, profile
from uwmlib.studies.controlled import (
    PLAN,
    EqualKnowledge,
    Plan,
    load_equal_knowledge,
    measure_equal_knowledge,
    methods_compared,
    save_equal_knowledge,
)
from uwmlib.studies.evaluations import load_evaluations, save_evaluations
from uwmlib.studies.scores import SCORES_PLAN, scores_compared
from uwmlib.studies.table1 import READINGS, Readings, edits_of_table1, measure_rows
from uwmlib.tuples import BenignUses, Tuples
from uwmlib.zero_shot import ZeroShotSet

N_CALIBRATION = 2000
N_BENIGN = 1000  #: benign uses at equal knowledge; Table 1 takes all


def equal_knowledge(
    scores: Scores,
    *,
    study: str = "equal-knowledge",
    validation: Tuples,
    test: Tuples,
    benign: BenignUses | None = None,
    zero_shot: Iterable[ZeroShotSet] = (),
    plan: Plan = PLAN,
    **options: Any,
) -> tuple[EqualKnowledge, str]:
    """Return methods at equal knowledge: from a shipped file if one rests on just this, else measured.

    Parameters
    ----------
    scores : Scores
        Of a calibration pass; its model is as it was before afterwards.
    study : str
        One of `COMPARED`: "equal-knowledge" has UWM and its controls, "scores" the rows of Tables 3, 6, 7 and 9.
    validation, test : Tuples
    benign : BenignUses, optional
    zero_shot : iterable of ZeroShotSet
    plan : Plan
    **options
        Of `evaluate`, where something is measured.

    Returns
    -------
    EqualKnowledge, str
        The second says where the first comes from.

    Raises
    ------
    UwmError
        If the shipped file is damaged, and as `measure_equal_knowledge`.

    Examples
    --------
    Of other tuples than those of the shipped file:

    >>> import uwmlib as uwm
    >>> from uwmlib.studies import Plan, equal_knowledge
    >>> setup = uwm.profile("mini", base_model="mini-ViT-B-32")
    >>> few = {x: setup.load_tuples(x, n=9) for x in ("validation", "test")}
    >>> scores = uwm.score(
    ...     setup.load_base(), setup.load_tuples("train", n=9), progress=False
    ... )
    >>> plan = Plan(strengths=(0.02, 0.4), steps=1, seeds=1)
    >>> study, source = equal_knowledge(scores, **few, plan=plan)
    >>> source
    'Measured in this run.'
    """
    methods = COMPARED[known(study, COMPARED, "study at equal knowledge")](scores, plan)
    parts = {
        "validation": validation,
        "test": test,
        "benign": benign,
        "zero_shot": list(zero_shot),
        "plan": plan,
    }
    name = scores.vlm.name
    held = _shipped(study, name, load_equal_knowledge, lambda: _rests_on(scores, **parts))
    if held is None:
        return measure_equal_knowledge(scores.vlm, methods, **parts, **options), "Measured in this run."
    return held, _read_from(study, name)


def equal_knowledge_of_seeds(
    setup: Profile, scores: Scores, *, study: str = "equal-knowledge", **parts: Any
) -> dict[int, EqualKnowledge]:
    """Return the same study on the other bases of a profile, by seed, from shipped files that rest on just this.

    Parameters
    ----------
    setup : Profile
    scores : Scores
        Of the profile's own base: the studies have to rest on the same calibration tuples and layers.
    study : str
        As for `equal_knowledge`.
    **parts
        Its `validation`, `test`, `benign`, `zero_shot` and `plan`.

    Examples
    --------
    Nothing ships that rests on nine tuples:

    >>> import uwmlib as uwm
    >>> from uwmlib.studies import equal_knowledge_of_seeds
    >>> setup = uwm.profile("mini")
    >>> few = {x: setup.load_tuples(x, n=9) for x in ("validation", "test")}
    >>> scores = uwm.score(
    ...     setup.load_base(), setup.load_tuples("train", n=9), progress=False
    ... )
    >>> equal_knowledge_of_seeds(setup, scores, **few)
    {}
    """
    known(study, COMPARED, "study at equal knowledge")
    wanted, found = _rests_on(scores, **parts), {}
    for seed, (base, _) in setup.seeds.items():

        def of_base(base: str = base) -> dict[str, Any]:
            return wanted | {"model": _model_facts(load_model(base))}

        held = _shipped(study, base, load_equal_knowledge, of_base)
        if held is not None:
            found[seed] = held
    return found


def uwm_curves(
    scores: Scores, *, validation: Tuples, plan: Plan = PLAN, **options: Any
) -> tuple[dict[str, dict[float, Setting]], str]:
    """Return UWM in both readings over its strengths on validation tuples, read as `equal_knowledge` is, else measured.

    Parameters
    ----------
    scores : Scores
    validation : Tuples
    plan : Plan
    **options
        Of `evaluate`, where something is measured.

    Returns
    -------
    dict of str to dict of float to Setting, str
        For `choose_uwm`. The second says where the first comes from.

    Examples
    --------
    >>> import uwmlib as uwm
    >>> from uwmlib.studies import Plan, uwm_curves
    >>> vlm = uwm.load_model("mini-ViT-B-32")
    >>> few = [
    ...     uwm.load_tuples("mini-visu", split=split, n=9)
    ...     for split in ("train", "validation")
    ... ]
    >>> scores = uwm.score(vlm, few[0], progress=False)
    >>> plan = Plan(strengths=(0.02, 0.4))
    >>> curves, _ = uwm_curves(scores, validation=few[1], plan=plan)
    >>> {name: list(points) for name, points in curves.items()}
    {'UWM': [0.02, 0.4], 'UWM printed': [0.02, 0.4]}
    """
    study, name = "equal-knowledge", scores.vlm.name
    wanted = _curves_rest_on(scores, validation, plan)
    held = _shipped(study, name, load_equal_knowledge, lambda: wanted, only=wanted)
    if held is not None:
        return {row: held.curves[row] for row in READINGS}, _read_from(study, name)
    methods = methods_compared(scores, plan)
    sweep = {"strengths": plan.strengths, "least_kept": plan.least_kept}
    base = evaluate(scores.vlm, validation, **options)
    curves = {
        row: evaluate_strengths(scores.vlm, methods[row], validation, base=base, **sweep, **options)
        for row in READINGS
    }
    return curves, "Measured in this run."


def rows_of_seeds(
    setup: Profile,
    *,
    calibration: Tuples,
    validation: Tuples,
    test: Tuples,
    readings: Readings,
    own: bool = False,
) -> tuple[dict[int, dict[str, Evaluation]], str]:
    """Return the rows of Table 1 on the other bases of a profile, by seed, from shipped files that rest on just this.

    Parameters
    ----------
    setup : Profile
    calibration, validation, test : Tuples
    readings : Readings
    own : bool
        Whether those of the profile's own base are read as well, as of seed 0.

    Returns
    -------
    dict of int to dict of str to Evaluation, str
        The second says where the first comes from, or why it is empty.

    Examples
    --------
    >>> import uwmlib as uwm
    >>> from uwmlib.studies import Readings, rows_of_seeds
    >>> setup = uwm.profile("mini")
    >>> data = {
    ...     "calibration": setup.load_tuples("train", n=2000),
    ...     "validation": setup.load_tuples("validation"),
    ...     "test": setup.load_tuples("test"),
    ... }
    >>> rows, _ = rows_of_seeds(setup, **data, readings=Readings())
    >>> list(rows), rows[1]["CLIP"].model
    ([1, 2], 'mini-ViT-L-14-seed1')
    >>> rows_of_seeds(setup, **data, readings=Readings(tau=0.03))[0]
    {}
    """
    found, bases = {}, {}
    if _measured_alike(setup):
        bases = ({0: (setup.base_model, setup.safe_model)} if own else {}) | setup.seeds
    for seed, (base, safe) in bases.items():
        wanted = _rows_rest_on((base, safe), calibration, validation, test, readings)
        rows = _shipped("table1", base, load_evaluations, lambda wanted=wanted: wanted)
        if rows is not None:
            found[seed] = rows
    if not found:
        return {}, "Verdicts are of this base alone: no rows of other seeds rest on these settings and data."
    names = " and ".join(bases[seed][0] for seed in found)
    return (
        found,
        f"Rows of {names} are read from {_place(study_path('table1', ''))}: `uwm study table1` makes them.",
    )


def _measured_alike(setup: Profile) -> bool:
    """Whether sets and benign uses are those that shipped rows were measured on, and the models those named."""
    standard = profile("mini")
    parts = ("seeds", "base_weights", "safe_weights", "zero_shot", "benign")
    return all(getattr(setup, part) == getattr(standard, part) for part in parts)


def make_study(name: str, model: str, *, output: str | Path = "studies", progress: bool = True) -> Path:
    """Measure a study of a mini model anew and write its file.

    Parameters
    ----------
    name : str
        One of `STUDIES`: "equal-knowledge" or "scores" of any mini model, or "table1" of a base that has a Safe-CLIP.
    model : str
        Name of the mini model.
    output : path
        Folder for `<name>/<model>.safetensors`.

    Returns
    -------
    Path
        The file.

    Raises
    ------
    UwmError
        If there is no such study, the model has none of it, or the file cannot be written.

    Examples
    --------
    >>> from uwmlib.studies import make_study
    >>> make_study("table1", "mini-CoCa")
    Traceback (most recent call last):
    ...
    uwmlib.errors.UwmError: There is no Safe-CLIP of 'mini-CoCa': study ...
    """
    run = STUDIES[known(name, STUDIES, "study")]
    path = check_output(study_path(name, model, folder=output))
    setup = profile("mini")
    pairs = {0: (setup.base_model, setup.safe_model), **setup.seeds}
    safe = next((safe for base, safe in pairs.values() if base == model), "")
    if name == "table1" and not safe:
        bases = ", ".join(base for base, _ in pairs.values())
        raise UwmError(f"There is no Safe-CLIP of {model!r}: study table1 on one of {bases}.")
    started = time.perf_counter()
    run(profile("mini", base_model=model, safe_model=safe or model), path, progress=progress, cache=Cache(""))
    print(f"{name} of {model}: {(time.perf_counter() - started) / 60:.1f} minutes")
    return path


def study_path(name: str, model: str, *, folder: str | Path | None = None) -> Path:
    """Return the path of a study's file, or of the folder of all for no model."""
    place = (Path(folder) if folder else manifests_dir() / "studies") / name.replace("-", "_")
    return place / f"{model}.safetensors" if model else place


def _place(path: Path) -> str:
    return path.relative_to(manifests_dir().parent).as_posix()


def _read_from(study: str, model: str) -> str:
    return f"Read from {_place(study_path(study, model))}: `uwm study {study} {model}` makes it again."


def _shipped(
    name: str,
    model: str,
    load: Callable[[Path], tuple[Any, Any]],
    wanted: Callable[[], dict[str, Any]],
    *,
    only: Iterable[str] | None = None,
) -> Any | None:
    """Return what a shipped file holds; None where there is none, or it rests on something else than is wanted.

    `only` names the facts that count, where a part of the file is asked for.
    """
    path = study_path(name, model)
    if not path.is_file():
        return None
    held, facts = load(path)
    if only is not None:
        facts = {key: facts[key] for key in only if key in facts}
    return held if facts == wanted() else None


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
    save_equal_knowledge(path, found, facts=_rests_on(scores, **parts))


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
        path, rows, facts=_rows_rest_on(names, calibration, parts["validation"], parts["test"], readings)
    )


#: Studies at equal knowledge -> from scores and a plan to methods by name.
COMPARED: dict[str, Callable[[Scores, Plan], dict[str, EditAt]]] = {
    "equal-knowledge": methods_compared, "scores": scores_compared,
}  # fmt: skip
STUDIES: dict[str, Callable[..., None]] = {
    "equal-knowledge": partial(_at_equal_knowledge, study="equal-knowledge", plan=PLAN),
    "scores": partial(_at_equal_knowledge, study="scores", plan=SCORES_PLAN, sets=False),
    "table1": _table1,
}


def _rests_on(
    scores: Scores,
    *,
    validation: Tuples,
    test: Tuples,
    benign: BenignUses | None = None,
    zero_shot: Iterable[ZeroShotSet] = (),
    plan: Plan = PLAN,
) -> dict[str, Any]:
    """Return all that the study at equal knowledge depends on, the library's code apart."""
    return _curves_rest_on(scores, validation, plan) | {
        "test": test.fingerprint, "benign": benign.fingerprint if benign is not None else None,
        "zero_shot": {data.name: image_digest(data.images).hex() for data in zero_shot},
    }  # fmt: skip


def _curves_rest_on(scores: Scores, validation: Tuples, plan: Plan) -> dict[str, Any]:
    """Return what the sweeps on validation tuples depend on."""
    return {
        "model": _model_facts(scores.vlm), "sites": [site.name for site in scores.sites],
        "calibration": scores.provenance["tuples"], "validation": validation.fingerprint, "plan": plan.facts(),
    }  # fmt: skip


def _model_facts(vlm: Vlm) -> dict[str, Any]:
    return {encoder: vlm.facts(encoder) for encoder in ENCODERS}


def _rows_rest_on(
    models: Iterable[str], calibration: Tuples, validation: Tuples, test: Tuples, readings: Readings
) -> dict[str, Any]:
    """Return all that rows of Table 1 depend on, the library's code apart."""
    entries = mini_models()
    return {
        "models": {name: entries.get(name, {}).get("sha256") for name in models}, "readings": asdict(readings),
        "calibration": calibration.fingerprint, "validation": validation.fingerprint, "test": test.fingerprint,
    }  # fmt: skip
