"""What UWM's edit comes to: masks by concept, whole neurons, and the same function in other weights."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import replace
from functools import partial
from typing import Any

from uwmlib.comparison import Setting
from uwmlib.comparison.controls import EditAt
from uwmlib.editing import (
    Scores,
    WeightEdit,
    channel_scaling_edit,
    fit_gated_negation,
    head_rotation_edit,
    pool_scores,
    random_factors,
    score,
    score_groups,
    select_neurons,
    union_edit,
)
from uwmlib.errors import UwmError
from uwmlib.evaluation import evaluate
from uwmlib.models import Vlm, load_model
from uwmlib.profiles import Profile
from uwmlib.studies.controlled import EqualKnowledge, Plan, load_equal_knowledge, measure_equal_knowledge
from uwmlib.studies.files import read_from, shipped
from uwmlib.studies.shipped import rests_on
from uwmlib.tuples import BenignUses, Tuples

ANATOMY = "anatomy"
ANATOMY_PLAN = Plan(strengths=(0.002, 0.008, 0.03, 0.1, 0.3), steps=5)
TAU = 0.02  #: the paper's, at which the same function in other weights is edited
DRAWS = 5
#: How far a channel's factor may be from 1, log-uniformly.
ROOMS = (2.0, 8.0)
#: What is done to the weights that leaves the function as it is: name -> from model and seed to an edit.
FORMS: dict[str, Callable[[Vlm, int], WeightEdit]] = {
    **{
        f"scaled within {room:g}": lambda vlm, seed, room=room: channel_scaling_edit(
            vlm, random_factors(vlm, vlm.sites(text="out"), room=room, seed=seed)
        )
        for room in ROOMS
    },
    "rotated": lambda vlm, seed: head_rotation_edit(vlm, vlm.sites(text="out"), seed=seed),
}
PRIORS: dict[str, tuple[str, ...]] = {"prior": ("text",), "no prior": ()}

Groups = Mapping[tuple[str, int], Scores]


def score_concepts(vlm: Vlm, tuples: Tuples, **options: Any) -> dict[tuple[str, int], Scores]:
    """Score the tuples of every concept in two halves, every other tuple of the concept in the second.

    Parameters
    ----------
    vlm : Vlm
    tuples : Tuples
    **options
        Of `score`.

    Returns
    -------
    dict of (str, int) to Scores
        (concept, half), the half 0 or 1; of a concept with one tuple there is the first half alone. `pool_scores` adds
        them up, to concepts or to all.

    Examples
    --------
    >>> import uwmlib as uwm
    >>> from uwmlib.studies import score_concepts
    >>> vlm = uwm.load_model("mini-ViT-B-32")
    >>> tuples = uwm.load_tuples("mini-visu", split="train", n=40)
    >>> groups = score_concepts(vlm, tuples, vision=None, progress=False)
    >>> sum(scores.n for scores in groups.values())
    40
    """
    seen: Counter[str] = Counter()
    labels = []
    for concept in tuples.concepts:
        labels.append((concept, seen[concept] % 2))
        seen[concept] += 1
    return score_groups(vlm, tuples, labels, **options)


def concept_scores(groups: Groups) -> dict[str, Scores]:
    """Add the halves of every concept up.

    Examples
    --------
    >>> import uwmlib as uwm
    >>> from uwmlib.studies import concept_scores, score_concepts
    >>> vlm = uwm.load_model("mini-ViT-B-32")
    >>> tuples = uwm.load_tuples("mini-visu", split="train", n=40)
    >>> groups = score_concepts(vlm, tuples, vision=None, progress=False)
    >>> len(concept_scores(groups)) == len(set(tuples.concepts))
    True
    """
    concepts = dict.fromkeys(concept for concept, _ in groups)
    return {name: pool_scores([each for (of, _), each in groups.items() if of == name]) for name in concepts}


def anatomy_methods(
    groups: Groups, calibration: Tuples, *, plan: Plan = ANATOMY_PLAN, progress: bool = False
) -> dict[str, EditAt]:
    """Return UWM, the union of its masks by concept, whole neurons by its score, and gated negation.

    Parameters
    ----------
    groups : mapping of (str, int) to Scores
        Of `score_concepts`.
    calibration : Tuples
        The same tuples, for the gates.
    plan : Plan
    progress : bool

    Returns
    -------
    dict of str to callable (float) -> WeightEdit

    Examples
    --------
    >>> import uwmlib as uwm
    >>> from uwmlib.studies import anatomy_methods, score_concepts
    >>> vlm = uwm.load_model("mini-ViT-B-32")
    >>> tuples = uwm.load_tuples("mini-visu", split="train", n=40)
    >>> groups = score_concepts(vlm, tuples, progress=False)
    >>> methods = anatomy_methods(groups, tuples)
    >>> list(methods)
    ['UWM', 'union', 'neurons', 'gated']
    >>> methods["union"](0.02).n_weights > methods["UWM"](0.02).n_weights
    True
    """
    scores, concepts = pool_scores(list(groups.values())), concept_scores(groups)
    gated = fit_gated_negation(scores.vlm, calibration, progress=progress)
    return {
        "UWM": lambda tau: scores.select(tau=tau, alpha=plan.alpha),
        "union": lambda tau: union_edit(
            [each.select(tau=tau, alpha=plan.alpha) for each in concepts.values()]
        ),
        "neurons": lambda tau: select_neurons(scores, tau=tau, alpha=plan.alpha),
        "gated": gated.edit,
    }


def anatomy(
    groups: Groups,
    *,
    calibration: Tuples,
    validation: Tuples,
    test: Tuples,
    benign: BenignUses | None = None,
    plan: Plan = ANATOMY_PLAN,
    draws: int = DRAWS,
    **options: Any,
) -> tuple[EqualKnowledge, str]:
    """Return the methods at equal knowledge, and UWM's text half on the same function in other weights.

    Parameters
    ----------
    groups : mapping of (str, int) to Scores
        Of `score_concepts`; the model is as it was before afterwards.
    calibration, validation, test : Tuples
    benign : BenignUses, optional
    plan : Plan
    draws : int
        Of rewritten models of each kind.
    **options
        Of `evaluate`, where something is measured.

    Returns
    -------
    EqualKnowledge, str
        Its `at_tau` has the rows of `edits_in_other_weights`. The second says where the first comes from.

    Raises
    ------
    UwmError
        If the shipped file is damaged, and as `measure_equal_knowledge`.

    Examples
    --------
    >>> import uwmlib as uwm
    >>> from uwmlib.studies import Plan, anatomy, score_concepts
    >>> vlm = uwm.load_model("mini-ViT-B-32")
    >>> data = {
    ...     split: uwm.load_tuples("mini-visu", split=split, n=5)
    ...     for split in ("train", "validation", "test")
    ... }
    >>> data["calibration"] = data.pop("train")
    >>> groups = score_concepts(vlm, data["calibration"], progress=False)
    >>> plan = Plan(shares=(80,), strengths=(0.4,), steps=1)
    >>> study, source = anatomy(groups, **data, plan=plan, draws=1)
    >>> source
    'Measured in this run.'
    """
    scores = pool_scores(list(groups.values()))
    parts = {"validation": validation, "test": test, "benign": benign, "plan": plan}
    wanted = {"draws": draws} | parts
    held = shipped(ANATOMY, scores.vlm.name, load_equal_knowledge, lambda: anatomy_rests_on(scores, **wanted))
    if held is not None:
        return held, read_from(ANATOMY, scores.vlm.name)
    methods = anatomy_methods(groups, calibration, plan=plan)
    found = measure_equal_knowledge(scores.vlm, methods, **parts, **options)
    other = {"base": found.base, "alpha": plan.alpha, "draws": draws}
    rows = edits_in_other_weights(scores, calibration, test, **other, **options)
    return replace(found, at_tau=rows), "Measured in this run."


def anatomy_of_seeds(setup: Profile, groups: Groups, **parts: Any) -> dict[int, EqualKnowledge]:
    """Return the same study on the other bases of a profile, by seed, from shipped files that rest on just this.

    Parameters
    ----------
    setup : Profile
    groups : mapping of (str, int) to Scores
        Of the profile's own base.
    **parts
        `validation`, `test`, `benign` and `plan` of `anatomy`.

    Examples
    --------
    Nothing ships that rests on nine tuples:

    >>> import uwmlib as uwm
    >>> from uwmlib.studies import anatomy_of_seeds, score_concepts
    >>> setup = uwm.profile("mini")
    >>> few = {x: setup.load_tuples(x, n=9) for x in ("validation", "test")}
    >>> groups = score_concepts(
    ...     setup.load_base(), setup.load_tuples("train", n=9), progress=False
    ... )
    >>> anatomy_of_seeds(setup, groups, **few)
    {}
    """
    scores, found = pool_scores(list(groups.values())), {}
    for seed, (base, _) in setup.seeds.items():

        def of_base(base: str = base) -> dict[str, Any]:
            return anatomy_rests_on(replace(scores, vlm=load_model(base)), **parts)

        held = shipped(ANATOMY, base, load_equal_knowledge, of_base)
        if held is not None:
            found[seed] = held
    return found


def anatomy_rests_on(
    scores: Scores, *, plan: Plan = ANATOMY_PLAN, draws: int = DRAWS, **parts: Any
) -> dict[str, Any]:
    """Return all that the study depends on, the library's code apart."""
    forms = {"forms": list(FORMS), "draws": draws, "tau": TAU}
    return rests_on(scores, plan=plan, **parts) | {"other weights": forms}


def edits_in_other_weights(
    scores: Scores,
    calibration: Tuples,
    test: Tuples,
    *,
    base: Setting,
    alpha: float = -1.0,
    draws: int = DRAWS,
    **options: Any,
) -> dict[str, Setting]:
    """Measure UWM's text half at the paper's tau on models that compute the same in other weights.

    Parameters
    ----------
    scores : Scores
        Of the model as it is.
    calibration : Tuples
        To score the rewritten models on.
    test : Tuples
    base : Setting
        Of the unedited model on the test tuples.
    alpha : float
    draws : int
    **options
        Of `evaluate`.

    Returns
    -------
    dict of str to Setting
        "prior" and "no prior" have one run, "prior, rotated" one for each draw; and so on for those of `FORMS`
        that this model has (a norm inside the attention forbids all of them).

    Examples
    --------
    >>> import uwmlib as uwm
    >>> from uwmlib.comparison import Setting
    >>> from uwmlib.studies.anatomy import edits_in_other_weights
    >>> vlm = uwm.load_model("mini-ViT-B-32")
    >>> few = uwm.load_tuples("mini-visu", n=8)
    >>> base = uwm.evaluate(vlm, few)
    >>> scores = uwm.score(vlm, few, progress=False)
    >>> rows = edits_in_other_weights(
    ...     scores, few, few, base=Setting((base,), base), draws=2
    ... )
    >>> len(rows["prior"].runs), len(rows["prior, rotated"].runs)
    (1, 2)
    """
    vlm, before = scores.vlm, base.runs[0]
    rows: dict[str, list[tuple[Any, int]]] = {}
    measured = partial(_measured, vlm, test, **options)
    for name, prior in PRIORS.items():
        edit = scores.select(tau=TAU, alpha=alpha, prior=prior, vision=None)
        rows[name] = [measured(edit)]
    for form, make in forms_of(vlm).items():
        for seed in range(draws):
            with make(vlm, seed).applied(vlm):
                again = score(vlm, calibration, text="out", vision=None, **options)
                for name, prior in PRIORS.items():
                    edit = again.select(tau=TAU, alpha=alpha, prior=prior)
                    rows.setdefault(f"{name}, {form}", []).append(measured(edit))
    return {
        name: Setting(tuple(run for run, _ in found), before, sum(n for _, n in found) / len(found))
        for name, found in rows.items()
    }


def forms_of(vlm: Vlm) -> dict[str, Callable[[Vlm, int], WeightEdit]]:
    """Return those of `FORMS` that a model has.

    Examples
    --------
    >>> import uwmlib as uwm
    >>> from uwmlib.studies.anatomy import forms_of
    >>> list(forms_of(uwm.load_model("mini-ViT-B-32")))
    ['scaled within 2', 'scaled within 8', 'rotated']
    """
    found = {}
    for name, make in FORMS.items():
        with suppress(UwmError):
            make(vlm, 0)
            found[name] = make
    return found


def _measured(vlm: Vlm, test: Tuples, edit: WeightEdit, **options: Any) -> tuple[Any, int]:
    with edit.applied(vlm):
        return evaluate(vlm, test, **options), edit.n_weights
