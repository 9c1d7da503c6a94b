"""One model under several methods at equal knowledge: strengths from validation tuples, then the test."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from os import PathLike
from typing import Any

from uwmlib.comparison import (
    STRENGTHS,
    AtKnowledge,
    Setting,
    at_knowledge,
    choose_on_validation,
    evaluate_edits,
    evaluate_strengths,
    with_controls,
)
from uwmlib.comparison.controls import EditAt
from uwmlib.editing import Scores
from uwmlib.evaluation import Evaluation, evaluate
from uwmlib.models.vlm import Vlm
from uwmlib.studies.evaluations import load_evaluations, save_evaluations
from uwmlib.tuples import BenignUses, Tuples
from uwmlib.zero_shot import ZeroShotSet


@dataclass(frozen=True)
class Plan:
    """What the study is asked to do.

    Attributes
    ----------
    shares : tuple of float
        Percent of the base's knowledge at which methods are compared.
    strengths : tuple of float
        Of the sweep on validation tuples.
    least_kept : float
        Percent of knowledge below which a sweep ends.
    tolerance, steps : float, int
        Of `at_knowledge`.
    alpha : float
        Factor of the edited weights.
    seeds : int
        Of random weights.
    tau : float or None
        A strength at which every method is measured on the test tuples too, beside the one that its own curve picks
        (`choose_on_validation`); None for neither.

    Examples
    --------
    >>> from uwmlib.studies import Plan
    >>> Plan(shares=(90.0,)).strengths
    (0.01, 0.02, 0.04, 0.08, 0.16, 0.32)
    """

    shares: tuple[float, ...] = (95.0, 80.0)
    strengths: tuple[float, ...] = STRENGTHS[1:7]
    least_kept: float = 60.0
    tolerance: float = 1.5
    steps: int = 4
    alpha: float = -1.0
    seeds: int = 3
    tau: float | None = None

    def facts(self) -> dict[str, Any]:
        """Return the plan as JSON gives it back, without a tau that is not asked for."""
        return {
            key: list(value) if isinstance(value, tuple) else value
            for key, value in asdict(self).items()
            if value is not None
        }


PLAN = Plan()


@dataclass(frozen=True, eq=False)
class EqualKnowledge:
    """What the study found.

    Attributes
    ----------
    base : Setting
        The unedited model on the test tuples.
    unedited : Setting
        The same on the validation tuples.
    curves : dict of str to dict of float to Setting
        Method -> strength -> what was measured on the validation tuples.
    found : dict of str to AtKnowledge
        "UWM, 95%" -> the strength that keeps 95% of the validation tuples' knowledge.
    equal : dict of str to Setting
        The same rows on the test tuples; rows without a strength are not in it.
    at_tau, picked : dict of str to Setting
        Method -> the test tuples at the plan's tau, and at the strength that its curve picks; empty where the plan has
        no tau. A method of which no strength keeps enough is not in `picked`.

    Examples
    --------
    A study that ships:

    >>> from uwmlib.manifests import manifest_path
    >>> from uwmlib.studies.controlled import load_equal_knowledge
    >>> folder = manifest_path("studies", "equal_knowledge")
    >>> study, _ = load_equal_knowledge(folder / "mini-ViT-B-32.safetensors")
    >>> list(study.curves)
    ['UWM', 'UWM printed', 'random', 'reversed', 'magnitude']
    >>> study.pairs(own=["UWM"])[0]
    ('UWM, 95%', 'random, 95%')
    >>> len(study.equal["random, 80%"].runs), study.base.split
    (3, 'test')
    """

    base: Setting
    unedited: Setting
    curves: dict[str, dict[float, Setting]]
    found: dict[str, AtKnowledge]
    equal: dict[str, Setting]
    at_tau: dict[str, Setting] = field(default_factory=dict)
    picked: dict[str, Setting] = field(default_factory=dict)

    @property
    def marked(self) -> dict[str, list[Setting]]:
        """Method -> its settings at the shares, on the validation tuples: the marks of a figure."""
        return {
            name: [
                each.setting for row, each in self.found.items() if method_of(row) == name and each.setting
            ]
            for name in self.curves
        }

    def pairs(self, own: Sequence[str] = ("UWM", "UWM printed")) -> list[tuple[str, str]]:
        """Return every row of `own` beside every control at the same share, for `difference_table`."""
        rows = {(method_of(row), each.share): row for row, each in self.found.items()}
        return [
            (rows[name, share], row)
            for share in dict.fromkeys(share for _, share in rows)
            for name in own
            for (other, at), row in rows.items()
            if at == share and not other.startswith("UWM")
        ]


def method_of(row: str) -> str:
    """Return the method of a row: of "UWM, 95%", and of "UWM" alone, "UWM"."""
    return row.rpartition(", ")[0] if row.endswith("%") else row


def measure_equal_knowledge(
    vlm: Vlm,
    methods: Mapping[str, EditAt],
    *,
    validation: Tuples,
    test: Tuples,
    benign: BenignUses | None = None,
    zero_shot: Iterable[ZeroShotSet] = (),
    plan: Plan = PLAN,
    **options: Any,
) -> EqualKnowledge:
    """Find where each method keeps the shares of knowledge on validation tuples, and measure it there on the test.

    Parameters
    ----------
    vlm : Vlm
        As it was before afterwards.
    methods : mapping of str to callable (float) -> WeightEdit, or a list of them
        Such as `methods_compared` returns.
    validation, test : Tuples
    benign : BenignUses, optional
    zero_shot : iterable of ZeroShotSet
        Both measured beside the test tuples alone.
    plan : Plan
    **options
        Of `evaluate`.

    Raises
    ------
    UwmError
        As `evaluate_strengths`, `at_knowledge` and `evaluate_edits`.

    Examples
    --------
    >>> import uwmlib as uwm
    >>> from uwmlib import studies
    >>> from uwmlib.studies import Plan, methods_compared
    >>> vlm = uwm.load_model("mini-ViT-B-32")
    >>> data = {
    ...     split: uwm.load_tuples("mini-visu", split=split, n=20)
    ...     for split in ("train", "validation", "test")
    ... }
    >>> quick = Plan(shares=(80,), strengths=(0.02, 0.4), steps=1, seeds=1)
    >>> scores = uwm.score(vlm, data.pop("train"), progress=False)
    >>> methods = methods_compared(scores, quick)
    >>> study = studies.measure_equal_knowledge(vlm, methods, **data, plan=quick)
    >>> list(study.found)[:2]
    ['UWM, 80%', 'UWM printed, 80%']
    """
    unedited = evaluate(vlm, validation, **options)
    sweep = {"base": unedited, "strengths": plan.strengths, "least_kept": plan.least_kept} | options
    curves = {name: evaluate_strengths(vlm, method, validation, **sweep) for name, method in methods.items()}
    search = {"tolerance": plan.tolerance, "steps": plan.steps} | options
    found = {
        f"{name}, {share:g}%": at_knowledge(vlm, method, share, validation, points=curves[name], **search)
        for share in plan.shares
        for name, method in methods.items()
    }
    on_test = options | {"benign": benign, "zero_shot": list(zero_shot)}
    base = evaluate(vlm, test, **on_test)

    def measured(strengths: Mapping[str, float | None]) -> dict[str, Setting]:
        return {
            row: evaluate_edits(vlm, methods[method_of(row)](strength), test, base=base, **on_test)
            for row, strength in strengths.items()
            if strength is not None
        }

    at_tau, picked = {}, {}
    if plan.tau is not None:
        at_tau = measured(dict.fromkeys(methods, plan.tau))
        picked = measured({name: choose_on_validation(points).name for name, points in curves.items()})
    return EqualKnowledge(
        Setting((base,), base), Setting((unedited,), unedited), curves, found,
        measured({row: each.strength for row, each in found.items()}), at_tau, picked,
    )  # fmt: skip


def methods_compared(scores: Scores, plan: Plan = PLAN) -> dict[str, EditAt]:
    """Return UWM in both readings and its controls, each a function of the strength.

    Examples
    --------
    >>> import uwmlib as uwm
    >>> from uwmlib.studies import methods_compared
    >>> vlm = uwm.load_model("mini-ViT-B-32")
    >>> tuples = uwm.load_tuples("mini-visu", split="train", n=8)
    >>> methods = methods_compared(uwm.score(vlm, tuples, progress=False))
    >>> list(methods), len(methods["random"](0.1))
    (['UWM', 'UWM printed', 'random', 'reversed', 'magnitude'], 3)
    """
    methods = with_controls(scores, alpha=plan.alpha, seeds=plan.seeds)
    printed = with_controls(scores, alpha=plan.alpha, variant="paper", seeds=1)["UWM"]
    return {"UWM": methods.pop("UWM"), "UWM printed": printed, **methods}


PLAIN = ("at_tau", "picked")  #: parts of a study that are settings by method


def save_equal_knowledge(path: str | PathLike, study: EqualKnowledge, *, facts: Mapping[str, Any]) -> None:
    """Save the study with the facts that it rests on; `load_equal_knowledge` reads it."""
    evaluations = dict(_runs("validation", study.unedited)) | dict(_runs("test", study.base))
    curves, rows = [], []  # lists, because a mapping comes back in another order
    for name, points in study.curves.items():
        curves.append([name, [[strength, _about(each)] for strength, each in points.items()]])
        for strength, each in points.items():
            evaluations |= dict(_runs(f"curve/{name}/{strength}", each))
    for row, each in study.found.items():
        rows.append({"row": row, "share": each.share, "strength": each.strength, "reason": each.reason})
        if each.strength is not None:
            rows[-1] |= {"setting": _about(each.setting), "equal": _about(study.equal[row])}
            evaluations |= dict(_runs(f"found/{row}", each.setting))
            evaluations |= dict(_runs(f"test/{row}", study.equal[row]))
    plain = {}
    for part in PLAIN:
        plain[part] = [[name, _about(each)] for name, each in getattr(study, part).items()]
        for name, each in getattr(study, part).items():
            evaluations |= dict(_runs(f"{part}/{name}", each))
    parts = {"curves": curves, "rows": rows, "plain": plain, "rests on": dict(facts)}
    save_evaluations(path, evaluations, facts=parts)


def load_equal_knowledge(path: str | PathLike) -> tuple[EqualKnowledge, dict[str, Any]]:
    """Load what `save_equal_knowledge` wrote; the second is what it rests on.

    Raises
    ------
    UwmError
        If the file is missing, damaged, or of another kind.
    """
    evaluations, facts = load_evaluations(path)
    validation, test = evaluations["validation/0"], evaluations["test/0"]

    def setting(key: str, each: Mapping[str, Any], base: Evaluation) -> Setting:
        runs = tuple(evaluations[f"{key}/{run}"] for run in range(each["runs"]))
        return Setting(runs, base, each["n_weights"])

    curves = {
        name: {at: setting(f"curve/{name}/{at}", each, validation) for at, each in points}
        for name, points in facts["curves"]
    }
    found, equal = {}, {}
    for each in facts["rows"]:
        row = each["row"]
        measured = setting(f"found/{row}", each["setting"], validation) if "setting" in each else None
        found[row] = AtKnowledge(each["share"], each["strength"], measured, each["reason"])
        if "equal" in each:
            equal[row] = setting(f"test/{row}", each["equal"], test)
    plain = {
        part: {name: setting(f"{part}/{name}", each, test) for name, each in rows}
        for part, rows in facts.get("plain", {}).items()
    }
    both = Setting((test,), test), Setting((validation,), validation)
    return EqualKnowledge(*both, curves, found, equal, **plain), facts["rests on"]


def _runs(key: str, setting: Setting) -> Iterator[tuple[str, Evaluation]]:
    for run, evaluation in enumerate(setting.runs):
        yield f"{key}/{run}", evaluation


def _about(setting: Setting) -> dict[str, Any]:
    return {"runs": len(setting.runs), "n_weights": setting.n_weights}
