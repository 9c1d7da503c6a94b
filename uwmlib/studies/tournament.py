"""Every method on one model: a curve on validation tuples, then test tuples at equal knowledge and equal benign use."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from os import PathLike
from pathlib import Path
from typing import Any

from torch.nn.functional import normalize
from torch.utils.flop_counter import FlopCounterMode

from uwmlib.cache import Cache
from uwmlib.comparison import (
    Setting,
    evaluate_edits,
    strength_that_keeps,
    strength_that_spares,
    sweep,
)
from uwmlib.comparison.controls import EditAt
from uwmlib.editing import (
    Features,
    WeightEdit,
    collect_features,
    fit_leace,
    fit_null_space,
    fit_safe_shift,
    interpolation_edit,
)
from uwmlib.errors import UwmError
from uwmlib.evaluation import Evaluation, embed_tuples, evaluate
from uwmlib.methods import FAMILIES, MethodFamily
from uwmlib.metrics import Score
from uwmlib.metrics.score import Unit
from uwmlib.models import Vlm
from uwmlib.options import ENCODERS, known
from uwmlib.studies.controlled import PLAN, load_equal_knowledge
from uwmlib.studies.evaluations import load_evaluations, save_evaluations
from uwmlib.studies.files import read_from, shipped
from uwmlib.tuples import BenignUses, Tuples

#: Scores of a curve's points, as far as they were measured.
ALONG = ("knowledge_kept", "safe_bias", "gs", "over_clean_t", "over_clean_v")
STUDY = "tournament"
RIVAL = "uwm"
#: Methods of the study at equal knowledge, by their names here.
CONTROLS = {
    "UWM": "uwm", "UWM printed": "uwm-printed", "random": "random", "reversed": "reversed", "magnitude": "magnitude",
}  # fmt: skip
SPARED = "spared"  #: what a row at equal benign use is called, as "uwm, spared"
# Where a ladder is longer than a curve needs; the controls have that of the other studies.
LADDERS = {
    "leace": (0.25, 0.5, 1.0, 2.0), "null-space": (0.25, 0.5, 1.0, 2.0), "word-list": (0.25, 0.5, 0.9, 1.0),
    "safe-shift": (0.2, 0.4, 0.8, 1.6, 3.2), "ssd": (0.1, 0.3, 0.5, 0.7, 1.0, 1.3, 2.0),
    "task-vector": (0.1, 0.2, 0.4, 0.8, 1.6), "gated-negation": (0.0006, 0.0012, 0.0025, 0.005, 0.01, 0.02, 0.04),
    "snip": (0.1, 0.2, 0.3, 0.4), "wanda": (0.1, 0.2, 0.3, 0.4),
    "snip-negated": (0.05, 0.1, 0.2, 0.4), "wanda-negated": (0.05, 0.1, 0.2, 0.4),
    **dict.fromkeys(("uwm", "uwm-printed", "g-unsafe", "g-safe-clip", "random", "reversed", "magnitude"),
                    PLAN.strengths),
}  # fmt: skip
#: Name -> its kind, and what is done in a few words.
ENTRANTS = {
    "safe-shift": ("lean", "one vector an encoder, closed form"),
    "safe-shift-fitted": ("lean", "one vector an encoder, by a loss"),
    "safe-shift-map": ("lean", "a map of rank 4, benign uses in the fit"),
    "leace": ("erase", "what a linear probe reads"),
    "null-space": ("erase", "leading directions of unsafe captions"),
    "word-list": ("erase", "token embeddings of listed words"),
    "uwm": ("cut", "weights by the ratio score, negated"),
    "uwm-printed": ("cut", "the same, the score as printed"),
    "gated-negation": ("cut", "input neurons, negated"),
    "ssd": ("cut", "weights that unsafe pairs need more, dampened"),
    "g-unsafe": ("cut", "weights by a gradient, pruned"),
    "g-safe-clip": ("cut", "weights by another gradient, pruned"),
    "snip": ("cut", "set difference by weight times gradient, removed"),
    "snip-negated": ("cut", "the same, negated"),
    "wanda": ("cut", "set difference by weight times input, removed"),
    "wanda-negated": ("cut", "the same, negated"),
    "task-vector": ("train", "fine-tuning on unsafe pairs, taken away"),
    "wise-ft": ("train", "weights on the way to Safe-CLIP"),
    "safe-clip": ("train", "Safe-CLIP itself"),
    "random": ("control", "random weights, negated"),
    "reversed": ("control", "weights by the reversed ratio, negated"),
    "magnitude": ("control", "the largest weights, negated"),
}
FITTED = (0.2, 0.4, 0.8, 1.6)  #: of shifts that a loss was minimised for
MIXED = (0.2, 0.4, 0.6, 0.8, 1.0)  #: of weights between a model's and its Safe-CLIP's


@dataclass(frozen=True)
class Rules:
    """What a tournament is asked for, stated before anything is measured.

    Attributes
    ----------
    shares : tuple of float
        Percent of the base's knowledge at which methods are compared; the last is also the least that equal benign use
        may leave.
    spent : float
        Points of benign use that a method may cost there (`uwmlib.comparison.strength_that_spares`).
    least_kept : float
        Percent of knowledge below which a sweep ends.
    tolerance, steps : float, int
        Of `at_knowledge`.

    Examples
    --------
    >>> from uwmlib.studies import Rules
    >>> Rules(shares=(90.0,)).spent
    5.0
    """

    shares: tuple[float, ...] = (95.0, 80.0)
    spent: float = 5.0
    least_kept: float = 75.0
    tolerance: float = PLAN.tolerance
    steps: int = PLAN.steps


@dataclass(frozen=True)
class Cost:
    """What a method costs.

    Attributes
    ----------
    seconds : float
        Of processor, to fit it on the calibration tuples with nothing cached.
    n_weights : float or None
        Numbers of the model that the edit changes, at the first share that it comes to.
    n_bytes : int or None
        Of the file in which that edit is saved.

    Examples
    --------
    >>> from uwmlib.studies import Cost
    >>> Cost(seconds=3.2).n_bytes
    """

    seconds: float
    n_weights: float | None = None
    n_bytes: int | None = None


@dataclass(frozen=True, eq=False)
class Tournament:
    """What a tournament found.

    Attributes
    ----------
    curves : dict of str to dict of float to dict of str to Score
        Method -> strength -> scores on the validation tuples, without their items; those at the shares are among them.
    unedited : dict of str to Score
        The same of the base.
    strengths : dict of str to float or None
        Row, such as "uwm, 95%" or "uwm, spared" -> its strength; None where the method does not come to it.
    reasons : dict of str to str
        Row -> what was found there, or why there is no strength.
    base : Setting
        The unedited model on the test tuples.
    rows : dict of str to Setting
        Row -> the test tuples; models that are no edit are rows by their name alone.
    costs : dict of str to Cost
        By method.
    refused : dict of str to str
        Methods that the model does not take -> why.

    Examples
    --------
    >>> from uwmlib.studies import Rules, Tournament
    >>> Tournament.__dataclass_fields__.keys() >= {"curves", "rows", "costs"}
    True
    """

    curves: dict[str, dict[float, dict[str, Score]]]
    unedited: dict[str, Score]
    strengths: dict[str, float | None]
    reasons: dict[str, str]
    base: Setting
    rows: dict[str, Setting]
    costs: dict[str, Cost]
    refused: dict[str, str] = field(default_factory=dict)

    def at(self, name: str) -> list[str]:
        """Return the rows at one share or at equal benign use that were measured: of "95%", or of `SPARED`."""
        return [row for row in self.rows if row.rpartition(", ")[2] == name]


def entrants(
    *, benign: BenignUses | None = None, safe: Vlm | None = None, names: Iterable[str] = ()
) -> dict[str, MethodFamily]:
    """Return who takes part: the families, the fitted shifts, and the way to a Safe-CLIP where there is one.

    Parameters
    ----------
    benign : BenignUses, optional
        Of the split "train", for the shift that is a map; without it that does not take part.
    safe : Vlm, optional
        The model's Safe-CLIP, for WiSE-FT.
    names : iterable of str
        Some of them; all for none.

    Raises
    ------
    UwmError
        For a name that takes no part.

    Examples
    --------
    >>> from uwmlib.studies import entrants
    >>> found = entrants(names=["uwm", "safe-shift"])
    >>> found["uwm"].strengths
    (0.01, 0.02, 0.04, 0.08, 0.16, 0.32)
    >>> len(entrants())
    19
    """
    found = {
        name: replace(family, strengths=LADDERS.get(name, family.strengths))
        for name, family in FAMILIES.items()
    }
    heads = {
        "safe-shift": fit_safe_shift, "safe-shift-fitted": partial(fit_safe_shift, how="fitted"),
        "leace": fit_leace, "null-space": fit_null_space,
    }  # fmt: skip
    if benign is not None:
        heads["safe-shift-map"] = partial(fit_safe_shift, how="fitted", rank=4, benign=benign)
    for name, fit in heads.items():
        found[name] = MethodFamily(
            FAMILIES[name].strength if name in FAMILIES else "alpha",
            LADDERS.get(name, FITTED), partial(_fitted, fit=fit),
        )  # fmt: skip
    if safe is not None:
        found["wise-ft"] = MethodFamily("a, 1 for Safe-CLIP", MIXED, partial(_mixed, safe=safe))
    return {known(name, found, "entrant"): found[name] for name in names} or found


def _fitted(
    vlm: Vlm, tuples: Tuples, *, cache: Cache | None = None, progress: bool = True, fit: Callable[..., Any]
) -> EditAt:
    # The method of an object with `changes`, by which `_measure` knows that no pass of the model is needed.
    return fit(vlm, tuples, progress=progress).edit


def _mixed(
    vlm: Vlm, tuples: Tuples, *, cache: Cache | None = None, progress: bool = True, safe: Vlm
) -> EditAt:
    return partial(interpolation_edit, vlm, safe)


@dataclass(frozen=True, eq=False)
class Arena:
    """One model and all that methods are measured on there.

    Attributes
    ----------
    vlm : Vlm
    validation, test : Tuples
    spared : BenignUses or None
        Of the validation split; without it there are no rows at equal benign use.
    benign : BenignUses or None
        Of the test split.
    rules : Rules
    options : dict
        Of `evaluate`.

    Examples
    --------
    >>> from uwmlib.studies import Arena
    >>> Arena.__dataclass_fields__["rules"].default.shares
    (95.0, 80.0)
    """

    vlm: Vlm
    validation: Tuples
    test: Tuples
    spared: BenignUses | None = None
    benign: BenignUses | None = None
    rules: Rules = Rules()
    options: dict[str, Any] = field(default_factory=dict)

    @property
    def on_validation(self) -> dict[str, Any]:
        """Options of `evaluate` on the validation tuples."""
        return self.options | {"benign": self.spared}

    @property
    def on_test(self) -> dict[str, Any]:
        """Options of `evaluate` on the test tuples."""
        return self.options | {"benign": self.benign, "match": True}

    def facts(self) -> dict[str, Any]:
        """Return all that a tournament here depends on, the library's code and the methods apart."""
        uses = {"spared": self.spared, "benign": self.benign}
        return {
            "model": {encoder: self.vlm.facts(encoder) for encoder in ENCODERS},
            "validation": self.validation.fingerprint, "test": self.test.fingerprint,
            "rules": _plain(asdict(self.rules)),
        } | {name: each.fingerprint if each is not None else None for name, each in uses.items()}  # fmt: skip


def _plain(facts: Mapping[str, Any]) -> dict[str, Any]:
    """Return facts as JSON gives them back."""
    return {key: list(value) if isinstance(value, tuple) else value for key, value in facts.items()}


def measure_tournament(
    arena: Arena,
    methods: Mapping[str, MethodFamily],
    *,
    calibration: Tuples,
    others: Mapping[str, Vlm] | None = None,
    start: Tournament | None = None,
    after: Callable[[Tournament], None] | None = None,
    progress: bool = True,
) -> Tournament:
    """Fit every method, find its strengths on the validation tuples, and measure it there on the test tuples.

    Strengths are chosen by one rule for all: at each share the one that keeps it of the base's knowledge
    (`strength_that_keeps`); at equal benign use the one at which `rules.spent` points of it are spent, or that of the
    last share if that comes first (`strength_that_spares`). What an edit behind the encoders does is measured from
    features, without a pass of the model.

    Parameters
    ----------
    arena : Arena
        Its model is as it was before afterwards.
    methods : mapping of str to MethodFamily
        Such as `entrants` returns.
    calibration : Tuples
    others : mapping of str to Vlm
        Models that are measured on the test tuples as they are, such as a Safe-CLIP.
    start : Tournament, optional
        Of the same arena: what it has is not measured again.
    after : callable (Tournament) -> None, optional
        Called after every method, such as to save what there is.
    progress : bool
        Print a line for each method.

    Returns
    -------
    Tournament

    Raises
    ------
    UwmError
        As `sweep`, `strength_that_keeps` and `evaluate_edits`. A method that refuses the model is no error.

    Examples
    --------
    >>> import uwmlib as uwm
    >>> from uwmlib.studies import Arena, Rules, entrants, measure_tournament
    >>> few = {
    ...     x: uwm.load_tuples("mini-visu", split=x, n=40)
    ...     for x in ("validation", "test")
    ... }
    >>> arena = Arena(
    ...     uwm.load_model("mini-ViT-B-32"), **few, rules=Rules(steps=1)
    ... )
    >>> train = uwm.load_tuples("mini-visu", split="train", n=40)
    >>> found = measure_tournament(
    ...     arena, entrants(names=["random"]), calibration=train, progress=False
    ... )
    >>> list(found.strengths)
    ['random, 95%', 'random, 80%']
    """
    base = evaluate(arena.vlm, arena.test, **arena.on_test)
    unedited = evaluate(arena.vlm, arena.validation, **arena.on_validation)
    found = start or Tournament({}, _along(_alone(unedited)), {}, {}, _alone(base), {}, {})
    features = {
        "validation": _features(arena.vlm, arena.validation, arena.on_validation),
        "test": _features(arena.vlm, arena.test, arena.on_test),
    }
    for name, family in methods.items():
        if name in found.costs or name in found.refused:
            continue
        started = time.perf_counter()
        try:
            _play(arena, found, name, family, calibration, features=features, unedited=unedited)
        except UwmError as error:
            found.refused[name] = str(error)
        if progress:
            note = found.refused.get(name) or f"{found.costs[name].seconds:.0f} s to fit"
            print(f"{name}: {time.perf_counter() - started:.0f} s, {note}", flush=True)
        if after is not None:
            after(found)
    for name, model in (others or {}).items():
        if name not in found.rows:
            run = evaluate(model, arena.test, **arena.on_test)
            found.rows[name] = Setting((run,), found.base.base)
    return found


def _play(
    arena: Arena, found: Tournament, name: str, family: MethodFamily, calibration: Tuples, *,
    features: Mapping[str, Features], unedited: Evaluation,
) -> None:  # fmt: skip
    """Add one method to what was found."""
    started = time.process_time()
    method = family.fit(arena.vlm, calibration, progress=False)
    seconds = time.process_time() - started

    def measure(strength: float, on: str) -> Setting:
        base = unedited if on == "validation" else found.base.base
        if changes := getattr(getattr(method, "__self__", None), "changes", None):
            run = _of_features(features[on].changed(changes(strength)))
            return Setting((run,), base, method(strength).n_weights)
        tuples, options = {
            "validation": (arena.validation, arena.on_validation), "test": (arena.test, arena.on_test),
        }[on]  # fmt: skip
        return evaluate_edits(arena.vlm, method(strength), tuples, base=base, **options)

    strengths, reasons, curve = _strengths(arena, partial(measure, on="validation"), family.strengths)
    found.curves[name] = {strength: _along(curve[strength]) for strength in sorted(curve)}
    measured: dict[float, Setting] = {}
    for which, strength in strengths.items():
        row = f"{name}, {which}"
        found.strengths[row], found.reasons[row] = strength, reasons[which]
        if strength is not None:
            measured[strength] = measured.get(strength) or measure(strength, "test")
            found.rows[row] = measured[strength]
    first = next((method(strength) for strength in strengths.values() if strength is not None), None)
    found.costs[name] = Cost(seconds, *((first.n_weights, _bytes(first)) if first else ()))


def _strengths(
    arena: Arena, measure: Callable[[float], Setting], ladder: Sequence[float]
) -> tuple[dict[str, float | None], dict[str, str], dict[float, Setting]]:
    """Return strengths and reasons by share, and the curve with the points at the shares."""
    rules, strengths, reasons = arena.rules, {}, {}
    points = sweep(measure, ladder, least_kept=rules.least_kept)
    curve = dict(points)
    for share in rules.shares:
        at = strength_that_keeps(measure, share, points=points, tolerance=rules.tolerance, steps=rules.steps)
        strengths[f"{share:g}%"], reasons[f"{share:g}%"] = at.strength, at.reason
        if at.strength is not None:
            curve[at.strength] = at.setting
    if arena.spared is not None:
        least = strengths[f"{rules.shares[-1]:g}%"]
        within = {x: each for x, each in curve.items() if least is None or x <= least}
        # At the last share itself a little less may be kept than that.
        budgets = {"most": rules.spent, "least_kept": rules.shares[-1] - rules.tolerance}
        strengths[SPARED], reasons[SPARED] = strength_that_spares(within, **budgets)
    return strengths, reasons, curve


def _features(vlm: Vlm, tuples: Tuples, options: Mapping[str, Any]) -> Features:
    asked = {key: value for key, value in options.items() if key != "match"}
    return collect_features(vlm, tuples, **asked)


def _of_features(features: Features) -> Evaluation:
    """Measure features as `evaluate` with `match` does a model."""
    parts, benign = (
        {part: normalize(rows, dim=1) for part, rows in each.items()}
        for each in (features.tuples, features.benign)
    )
    facts = {"model": features.model, "data": features.data, "split": features.split}
    return Evaluation.from_embeddings(parts, benign or None, **facts)


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


def shipped_controls(
    arena: Arena, calibration: Tuples, validation: Tuples, base: Setting
) -> tuple[dict[str, Setting], dict[str, dict[float, Setting]]]:
    """Return UWM and its controls from their own study of the same model, calibration and test tuples.

    Parameters
    ----------
    arena : Arena
    calibration : Tuples
    validation : Tuples
        Those that the study found its strengths on.
    base : Setting
        The unedited model on the arena's test tuples; its benign uses are others than the study's, which are left out.

    Returns
    -------
    dict of str to Setting, dict of str to dict of float to Setting
        Rows as those of a tournament, such as "random, 95%", and curves by method; empty where there is no such study.

    Examples
    --------
    >>> import uwmlib as uwm
    >>> from uwmlib.comparison import Setting
    >>> from uwmlib.studies import Arena, shipped_controls
    >>> few = uwm.load_tuples("mini-visu", split="validation", n=9)
    >>> arena = Arena(uwm.load_model("mini-ViT-B-32"), few, few)
    >>> evaluation = uwm.evaluate(arena.vlm, few)
    >>> shipped_controls(arena, few, few, Setting((evaluation,), evaluation))
    ({}, {})
    """
    wanted = {key: arena.facts()[key] for key in ("model", "test")}
    wanted |= {"calibration": calibration.fingerprint, "validation": validation.fingerprint}
    held = shipped("equal-knowledge", arena.vlm.name, load_equal_knowledge, lambda: wanted)
    if held is None:
        return {}, {}
    rows = {}
    for row, each in held.equal.items():
        name, _, share = row.rpartition(", ")
        runs = tuple(replace(run, benign=None, zero_shot={}) for run in each.runs)
        rows[f"{CONTROLS[name]}, {share}"] = Setting(runs, base.base, each.n_weights)
    return rows, {CONTROLS[name]: points for name, points in held.curves.items()}


def _along(setting: Setting) -> dict[str, Score]:
    return {key: replace(setting[key], items=None, parts=()) for key in ALONG if key in setting}


def _alone(evaluation: Evaluation) -> Setting:
    return Setting((evaluation,), evaluation)


def passes(vlm: Vlm, tuples: Tuples, fit: Callable[..., Any]) -> float:
    """Return the floating-point operations of a fit, in forward passes of both encoders over its tuples.

    Parameters
    ----------
    vlm : Vlm
    tuples : Tuples
    fit : callable (Vlm, Tuples, progress=...)
        Such as that of a `MethodFamily`.

    Examples
    --------
    >>> import uwmlib as uwm
    >>> from uwmlib.studies import entrants, passes
    >>> vlm = uwm.load_model("mini-ViT-B-32")
    >>> tuples = uwm.load_tuples("mini-visu", split="train", n=20)
    >>> round(passes(vlm, tuples, entrants()["safe-shift"].fit), 1)
    1.0
    """
    return _operations(lambda: fit(vlm, tuples, progress=False)) / _operations(
        lambda: embed_tuples(vlm, tuples)
    )


def _operations(work: Callable[[], Any]) -> float:
    with FlopCounterMode(display=False) as counter:
        work()
    return float(counter.get_total_flops())


def _bytes(edit: WeightEdit) -> int:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "edit.safetensors"
        edit.save(path)
        return path.stat().st_size


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
        rows.append({"row": row, "as": same, "n_weights": each.n_weights})
        evaluations[f"row/{same}"] = each.runs[0]
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
    (['safe-shift, 95%', 'safe-shift-fitted, 95%'], 'test')
    """
    evaluations, facts = load_evaluations(path)
    base = evaluations["base"]
    settings = {
        each["as"]: Setting((evaluations[f"row/{each['as']}"],), base, each["n_weights"])
        for each in facts["rows"]
    }
    found = Tournament(
        curves={
            name: {strength: _read(scores) for strength, scores in points} for name, points in facts["curves"]
        },
        unedited=_read(facts["unedited"]),
        strengths={row: strength for row, strength, _ in facts["strengths"]},
        reasons={row: reason for row, _, reason in facts["strengths"]},
        base=_alone(base),
        rows={each["row"]: settings[each["as"]] for each in facts["rows"]},
        costs={name: Cost(**cost) for name, cost in facts["costs"]},
        refused=dict(facts["refused"]),
    )
    return found, facts["rests on"]


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
