"""Studies that ship as files, read by chapters: believed only where they rest on what is asked for."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import asdict
from typing import Any

from uwmlib.comparison import Setting, evaluate_strengths
from uwmlib.comparison.controls import EditAt
from uwmlib.editing import Scores
from uwmlib.evaluation import Evaluation, evaluate
from uwmlib.models import Vlm, load_model
from uwmlib.models.mini import mini_models
from uwmlib.models.pixels import image_digest
from uwmlib.options import ENCODERS, known
from uwmlib.profiles import Profile, profile
from uwmlib.studies.controlled import (
    PLAN,
    EqualKnowledge,
    Plan,
    load_equal_knowledge,
    measure_equal_knowledge,
    methods_compared,
)
from uwmlib.studies.evaluations import load_evaluations
from uwmlib.studies.files import place, read_from, shipped, study_path
from uwmlib.studies.scores import scores_compared
from uwmlib.studies.table1 import READINGS, Readings
from uwmlib.tuples import BenignUses, Tuples
from uwmlib.zero_shot import ZeroShotSet


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
    held = shipped(study, name, load_equal_knowledge, lambda: rests_on(scores, **parts))
    if held is None:
        return measure_equal_knowledge(scores.vlm, methods, **parts, **options), "Measured in this run."
    return held, read_from(study, name)


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
    wanted, found = rests_on(scores, **parts), {}
    for seed, (base, _) in setup.seeds.items():

        def of_base(base: str = base) -> dict[str, Any]:
            return wanted | {"model": _model_facts(load_model(base))}

        held = shipped(study, base, load_equal_knowledge, of_base)
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
    held = shipped(study, name, load_equal_knowledge, lambda: wanted)
    if held is not None:
        return {row: held.curves[row] for row in READINGS}, read_from(study, name)
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
        wanted = rows_rest_on((base, safe), calibration, validation, test, readings)
        rows = shipped("table1", base, load_evaluations, lambda wanted=wanted: wanted)
        if rows is not None:
            found[seed] = rows
    if not found:
        return {}, "Verdicts are of this base alone: no rows of other seeds rest on these settings and data."
    names = " and ".join(bases[seed][0] for seed in found)
    return (
        found,
        f"Rows of {names} are read from {place(study_path('table1').parent)}: `uwm study table1` makes them.",
    )


def _measured_alike(setup: Profile) -> bool:
    """Whether sets and benign uses are those that shipped rows were measured on, and the models those named."""
    standard = profile("mini")
    parts = ("seeds", "base_weights", "safe_weights", "zero_shot", "benign")
    return all(getattr(setup, part) == getattr(standard, part) for part in parts)


#: Studies at equal knowledge -> from scores and a plan to methods by name.
COMPARED: dict[str, Callable[[Scores, Plan], dict[str, EditAt]]] = {
    "equal-knowledge": methods_compared, "scores": scores_compared,
}  # fmt: skip


def rests_on(
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


def rows_rest_on(
    models: Iterable[str], calibration: Tuples, validation: Tuples, test: Tuples, readings: Readings
) -> dict[str, Any]:
    """Return all that rows of Table 1 depend on, the library's code apart."""
    entries = mini_models()
    return {
        "models": {name: entries.get(name, {}).get("sha256") for name in models}, "readings": asdict(readings),
        "calibration": calibration.fingerprint, "validation": validation.fingerprint, "test": test.fingerprint,
    }  # fmt: skip
