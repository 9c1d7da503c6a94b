"""Every method on one model: a curve on validation tuples, then test tuples at equal knowledge and equal benign use."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

from torch.nn.functional import normalize
from torch.utils.flop_counter import FlopCounterMode

from uwmlib.comparison import (
    Setting,
    evaluate_edits,
    strength_that_keeps,
    strength_that_spares,
    sweep,
)
from uwmlib.editing import (
    Features,
    WeightEdit,
    collect_features,
)
from uwmlib.errors import UwmError
from uwmlib.evaluation import Evaluation, embed_tuples, evaluate
from uwmlib.methods import MethodFamily
from uwmlib.metrics import Score
from uwmlib.models import Vlm
from uwmlib.options import ENCODERS
from uwmlib.studies.controlled import PLAN
from uwmlib.studies.plans import as_json
from uwmlib.tuples import BenignUses, Tuples

#: Scores of a curve's points, as far as they were measured.
ALONG = ("knowledge_kept", "safe_bias", "gs", "over_clean_t", "over_clean_v")
STUDY = "tournament"
RIVAL = "uwm"
SPARED = "spared"  #: what a row at equal benign use is called, as "uwm, spared"


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
            "rules": as_json(asdict(self.rules)),
        } | {name: each.fingerprint if each is not None else None for name, each in uses.items()}  # fmt: skip


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
            if after is not None:
                after(found)
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
    first = next((one_edit(method(x)) for x in strengths.values() if x is not None), None)
    found.costs[name] = Cost(seconds, *((first.n_weights, _bytes(first)) if first else ()))


def one_edit(edits: WeightEdit | Sequence[WeightEdit]) -> WeightEdit:
    """Return the edit, or the first of several draws."""
    return edits if isinstance(edits, WeightEdit) else edits[0]


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
