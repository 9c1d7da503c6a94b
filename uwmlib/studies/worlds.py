"""When does UWM work: many small bases of changed worlds, each under UWM and random negation at equal knowledge."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from uwmlib.comparison import AtKnowledge, Setting, strength_that_keeps, sweep
from uwmlib.editing import Scores, WeightEdit, score, select_random, token_statistics
from uwmlib.evaluation import Evaluation, embed_images, embed_texts
from uwmlib.files import write_json
from uwmlib.metrics import (
    Difference,
    Score,
    difference_between,
    mean_over_seeds,
    safe_bias,
    top_share,
)
from uwmlib.models.vlm import Vlm
from uwmlib.options import ENCODERS
from uwmlib.outliers import outlier_records
from uwmlib.training import Base, base_tuples, train_base
from uwmlib.tuples import Tuples

MEASURED = (
    "ts_vs", "vs_ts", "p_s_t", "p_u_t", "p_s_v", "p_u_v", "ps", "pu", "gs", "sensitivity_text", "bias_text",
    "sensitivity_image", "bias_image", "safe_bias", "knowledge", "knowledge_kept",
)  # fmt: skip
#: Preferences of the queries of each side; "both" sides together are `safe_bias`.
SIDES = {"text": ("p_s_t", "p_u_t"), "image": ("p_s_v", "p_u_v")}
PARTS = {"both": ENCODERS, "text": ("text",), "vision": ("vision",)}
VARIANTS = {"UWM": "released", "UWM printed": "paper"}
RANDOM = "random"


@dataclass(frozen=True)
class Level:
    """One base of the plan: a factor, its level, and the recipe."""

    factor: str
    level: str
    base: Base

    @property
    def key(self) -> str:
        """Name of the base in the study."""
        return f"{self.factor}: {self.level}, seed {self.base.seed}"


@dataclass(frozen=True)
class Measurement:
    """How every base is measured.

    Attributes
    ----------
    n_calibration, n_validation, n_test : int
        Tuples of the base's own world that weights are scored on, strengths chosen on, and rows measured on.
    strengths : tuple of float
        Of the sweep on validation tuples.
    least_kept, tolerance, steps
        Of `sweep` and `strength_that_keeps`.
    seeds : int
        Random negations at each share. Their strength is that at which the first keeps the share.
    rows : tuple of (method, part, share)
        What is measured on the test tuples.
    """

    n_calibration: int = 300
    n_validation: int = 300
    n_test: int = 800
    strengths: tuple[float, ...] = (0.005, 0.01, 0.02, 0.04, 0.08, 0.16, 0.32, 0.64)
    least_kept: float = 70.0
    tolerance: float = 2.0
    steps: int = 2
    seeds: int = 3
    rows: tuple[tuple[str, str, float], ...] = tuple(
        (method, part, share)
        for part, share in (("both", 95.0), ("both", 80.0), ("text", 80.0), ("vision", 80.0))
        for method in ("UWM", "UWM printed", RANDOM)
        if part == "both" or method != "UWM printed"
    )


MEASUREMENT = Measurement()

#: Factor -> level -> what differs from the default. "half" of the harmless uses halves every chance of one.
NO_USES = {"containers": 0.0, "own": 0.0, "other": 0.0, "also": 0.0, "web_filled": 0.0, "web_around": 0.0}
HALF_USES = {"containers": 0.3, "own": 0.2, "other": 0.25, "also": 0.05, "web_filled": 0.3, "web_around": 0.125}
FACTORS: dict[str, dict[str, dict[str, Any]]] = {
    "default": {"as it is": {}},
    "harmless uses": {"none": {"world": NO_USES}, "half": {"world": HALF_USES}},
    "captions that name": {"a quarter": {"world": {"web_named": 0.25}}, "nine tenths": {"world": {"web_named": 0.9}}},
    "share of hazards": {"0.15": {"world": {"web_hazard": 0.15}}, "0.70": {"world": {"web_hazard": 0.70}}},
    "twins differ": {"0": {"world": {"redraw": 0.0}}, "0.60": {"world": {"redraw": 0.6}}},
    "hazards' opacity": {"half": {"world": {"contrast": 32}}},
    "size": {"half the neurons": {"neurons": 192}, "patches of 10": {"ancestor": "mini-ViT-B-16"}},
    "length": {"60 steps": {"steps": 60}, "300 steps": {"steps": 300}},
}  # fmt: skip
#: Levels that are made with a second seed.
TWICE = (
    ("harmless uses", "none"), ("captions that name", "a quarter"), ("captions that name", "nine tenths"),
    ("share of hazards", "0.15"), ("twins differ", "0"), ("size", "half the neurons"), ("length", "300 steps"),
)  # fmt: skip
DEFAULT_SEEDS = 4


def worlds_plan() -> list[Level]:
    """Return every base of the study, in the order in which they are made.

    The default with four seeds, then every level with seed 0, then seven levels with seed 1.

    Examples
    --------
    >>> from uwmlib.studies import worlds_plan
    >>> plan = worlds_plan()
    >>> len(plan), plan[4].key
    (24, 'harmless uses: none, seed 0')
    """
    first = [Level("default", "as it is", Base(seed=seed)) for seed in range(DEFAULT_SEEDS)]
    others = [
        (factor, level, changes)
        for factor, levels in FACTORS.items()
        for level, changes in levels.items()
        if factor != "default"
    ]
    once = [Level(factor, level, Base(**changes)) for factor, level, changes in others]
    again = [
        Level(factor, level, Base(**changes, seed=1))
        for factor, level, changes in others
        if (factor, level) in TWICE
    ]
    return first + once + again


def plan_facts(plan: list[Level], measurement: Measurement = MEASUREMENT) -> dict[str, Any]:
    """Return a plan as JSON gives it back."""
    bases = [
        {"key": each.key, "factor": each.factor, "level": each.level, "recipe": each.base.facts()}
        for each in plan
    ]
    return json.loads(json.dumps({"measurement": vars(measurement), "bases": bases}))


@dataclass
class _Meter:
    """A base under edits, measured on two sets of tuples; what one encoder embeds is kept.

    An edit of both encoders embeds texts as its text half does alone, and pictures as its vision half.
    """

    vlm: Vlm
    scores: Scores
    validation: Tuples
    test: Tuples
    kept: dict[tuple, dict[str, torch.Tensor]] = field(default_factory=dict)

    def edit(self, method: str, encoder: str, strength: float, seed: int) -> WeightEdit:
        """Return one encoder's half of an edit."""
        one = {"text": None, "vision": None} | ({} if method == RANDOM else {encoder: "all"})
        if method == RANDOM:
            kinds = one | {encoder: [site.kind for site in self.scores.sites if site.encoder == encoder][:1]}
            return select_random(self.vlm, tau=strength, alpha=-1.0, seed=seed, **kinds)
        return self.scores.select(tau=strength, alpha=-1.0, variant=VARIANTS[method], **one)

    def half(self, split: str, encoder: str, about: tuple | None) -> dict[str, torch.Tensor]:
        """Return what one encoder embeds, under an edit (method, strength, seed) or none."""
        if (split, encoder, about) not in self.kept:
            if about is None:
                self.kept[split, encoder, about] = _embedded(self.vlm, encoder, getattr(self, split))
            else:
                with self.edit(about[0], encoder, about[1], about[2]).applied(self.vlm):
                    self.kept[split, encoder, about] = _embedded(self.vlm, encoder, getattr(self, split))
        return self.kept[split, encoder, about]

    def evaluate(self, split: str, part: str, about: tuple | None) -> Evaluation:
        """Measure an edit of both encoders or of one."""
        parts = {}
        for encoder in ENCODERS:
            parts |= self.half(split, encoder, about if encoder in PARTS[part] else None)
        tuples = getattr(self, split)
        return Evaluation.from_embeddings(
            parts, match=False, model=self.vlm.name, data=tuples.name, split=tuples.split
        )

    def setting(self, split: str, part: str, method: str, strength: float, seeds: range) -> Setting:
        """Measure an edit beside the base."""
        base = self.evaluate(split, "both", None)
        runs = tuple(self.evaluate(split, part, (method, strength, seed)) for seed in seeds)
        edits = [self.edit(method, encoder, strength, 0) for encoder in PARTS[part]]
        return Setting(runs, base, float(sum(edit.n_weights for edit in edits)))


def _embedded(vlm: Vlm, encoder: str, tuples: Tuples) -> dict[str, torch.Tensor]:
    if encoder == "text":
        texts = {"safe_text": tuples.safe_texts, "unsafe_text": tuples.unsafe_texts}
        return {name: embed_texts(vlm, part) for name, part in texts.items()}
    images = {"safe_image": tuples.safe_images, "unsafe_image": tuples.unsafe_images}
    return {name: embed_images(vlm, part) for name, part in images.items()}


def measure_base(
    vlm: Vlm, *, calibration: Tuples, validation: Tuples, test: Tuples, plan: Measurement = MEASUREMENT
) -> dict[str, Any]:
    """Measure a base: unedited, UWM and random negation at equal knowledge, and what may predict the difference.

    Parameters
    ----------
    vlm : Vlm
    calibration, validation, test : Tuples
    plan : Measurement

    Returns
    -------
    dict
        "base" (score -> value), "predictors" (encoder -> name -> value), "rows" and "differences", for JSON.
    """
    scores = score(vlm, calibration, progress=False)
    meter = _Meter(vlm, scores, validation, test)
    found: dict[tuple, AtKnowledge] = {}
    for part in PARTS:
        for method in (*VARIANTS, RANDOM):
            shares = [share for one, other, share in plan.rows if (one, other) == (method, part)]
            found |= _strengths(meter, method, part, shares, plan)
    settings, rows = {}, []
    for method, part, share in plan.rows:
        at = found[method, part, share]
        row = {"method": method, "part": part, "share": share, "strength": at.strength, "why": at.reason}
        if at.strength is not None:
            seeds = range(plan.seeds if method == RANDOM else 1)
            setting = meter.setting("test", part, method, at.strength, seeds)
            settings[method, part, share] = setting
            row |= {"kept_validation": at.setting["knowledge_kept"].value, "n_weights": setting.n_weights}
            row |= {"scores": _values(setting)}
        rows.append(row)
    base = meter.evaluate("test", "both", None)
    return {
        "base": _values(Setting((base,), base)),
        "predictors": predictors(vlm, scores, calibration),
        "rows": rows,
        "differences": list(_differences(settings)),
    }


def _strengths(
    meter: _Meter, method: str, part: str, shares: list[float], plan: Measurement
) -> dict[tuple, AtKnowledge]:
    """Return the strength at which an edit keeps each share of knowledge on the validation tuples."""
    if not shares:
        return {}

    def measure(strength: float) -> Setting:
        return meter.setting("validation", part, method, strength, range(1))

    points = sweep(measure, plan.strengths, least_kept=plan.least_kept)
    options = {"points": points, "tolerance": plan.tolerance, "steps": plan.steps}
    return {(method, part, share): strength_that_keeps(measure, share, **options) for share in shares}


def _values(setting: Setting) -> dict[str, float]:
    return {key: round(float(setting[key].value), 4) for key in MEASURED}


def _differences(settings: Mapping[tuple, Setting]) -> Iterator[dict[str, Any]]:
    """Yield UWM minus random negation at the same share and in the same encoders, paired over the tuples."""
    for (method, part, share), setting in settings.items():
        other = settings.get((RANDOM, part, share))
        if method == RANDOM or other is None:
            continue
        for side in ("both", *SIDES):
            found = side_difference(setting, other, side)
            numbers = {"difference": found.difference, "lo": found.lo, "hi": found.hi, "p": found.p_value}
            yield {"method": method, "part": part, "share": share, "side": side} | {
                name: float(f"{value:.6g}") for name, value in numbers.items()
            }


def side_difference(left: Setting, right: Setting, side: str) -> Difference:
    """Return left minus right in the safe bias c of one side's queries, paired over the tuples.

    Parameters
    ----------
    left, right : Setting
        Of one base; of several runs on the right `mean_over_seeds` is taken.
    side : "text", "image" or "both"
        Of the queries; for both the sum of the two.
    """
    return mean_over_seeds([
        difference_between(_bias(one, side), "c", _bias(other, side), "c")
        for one in left.runs
        for other in right.runs
    ])  # fmt: skip


def _bias(evaluation: Evaluation, side: str) -> dict[str, Score]:
    """Return the safe bias of a side with its items."""
    if side == "both":
        return {"c": safe_bias(evaluation)}
    prefers_safe, prefers_unsafe = (evaluation[key] for key in SIDES[side])
    # The sum over two sides that are one and the same is twice its bias.
    twice = safe_bias({
        "p_s_t": prefers_safe, "p_u_t": prefers_unsafe, "p_s_v": prefers_safe, "p_u_v": prefers_unsafe,
    })  # fmt: skip
    return {"c": Score(twice.value / 2, None, twice.n, twice.unit, twice.items / 2)}


def predictors(vlm: Vlm, scores: Scores, tuples: Tuples, *, n: int = 100) -> dict[str, dict[str, float]]:
    """Return what of a base may say where UWM works, for each encoder; means over its edited layers.

    Parameters
    ----------
    vlm : Vlm
    scores : Scores
        Of `vlm`, with the default sites.
    tuples : Tuples
    n : int
        Tuples of which activations are looked at.

    Returns
    -------
    dict of str to dict of str to float
        "consistency": median over neurons and samples of norm / std over tokens, as the score takes it;
        "contrast": mean over weights of |log ratio|, unsafe over safe, of the released score;
        "score_mass": share of the released score in its largest hundredth of the weights;
        "touched": share of weights that hold a tenth of the released score;
        "agreement": of these, the share that the printed score takes too;
        "top_channel", "kurtosis": of what enters the edited layers (`outlier_records`);
        "weight_kurtosis", "weight_rms": of the weights.
    """
    few = tuples[:n]
    records = outlier_records(vlm, few, progress=False)
    ratios = _consistency(vlm, scores, few)
    result = {}
    for encoder in ENCODERS:
        sites = [site for site in scores.sites if site.encoder == encoder]
        each = [_of_site(vlm, scores, site) for site in sites]
        of_sites = records[(records["encoder"] == encoder) & (records["kind"] != "stream")]
        numbers = {name: sum(one[name] for one in each) / len(each) for name in each[0]}
        numbers["consistency"] = sum(ratios[site.name] for site in sites) / len(sites)
        numbers |= {
            name: float(of_sites[name].mean()) for name in ("top_channel", "kurtosis", "weight_kurtosis")
        }
        result[encoder] = {name: float(f"{value:.6g}") for name, value in numbers.items()}
    return result


TENTH = 0.1  #: of the score, for the weights that are looked at


def _of_site(vlm: Vlm, scores: Scores, site: Any) -> dict[str, float]:
    weight = vlm.weight(site).detach()
    ratio = scores.score_of(site.name, prior=())
    with_prior = scores.score_of(site.name)
    one = {"text": None, "vision": None, site.encoder: "all"}
    chosen = {}
    for name, variant in VARIANTS.items():
        changes = scores.select(tau=TENTH, variant=variant, **one).changes
        chosen[name] = set(changes[site.parameter].indices.tolist())
    released, printed = chosen.values()
    return {
        "contrast": float(ratio.clamp_min(1e-12).log().abs().mean()),
        "score_mass": top_share(with_prior),
        "touched": len(released) / weight.numel(),
        "agreement": len(released & printed) / len(released),
        "weight_rms": float(weight.float().square().mean().sqrt()),
    }


def _consistency(vlm: Vlm, scores: Scores, tuples: Tuples) -> dict[str, float]:
    """Return the median of norm / std over the tokens of a sample, for each site."""
    seen: dict[str, list[torch.Tensor]] = {}

    def watch(mask: torch.Tensor | None):
        def add(site: Any, z: torch.Tensor) -> None:
            norm, std = token_statistics(z, mask)
            seen.setdefault(site.name, []).append((norm / std).flatten())

        return add

    sites = {encoder: [site for site in scores.sites if site.encoder == encoder] for encoder in ENCODERS}
    with torch.inference_mode():
        tokens = vlm.tokenize([*tuples.safe_texts, *tuples.unsafe_texts])
        with vlm.capture(sites["text"], watch(vlm.token_mask(tokens))):
            vlm.encode_text(tokens)
        with vlm.capture(sites["vision"], watch(None)):
            for images in (tuples.safe_images, tuples.unsafe_images):
                vlm.encode_image(vlm.preprocess(images[:]))
    return {name: float(torch.cat(parts).median()) for name, parts in seen.items()}


def measure_level(level: Level, *, plan: Measurement = MEASUREMENT) -> dict[str, Any]:
    """Make one base of the plan and measure it."""
    started, cpu = time.perf_counter(), time.process_time()
    vlm, curve = train_base(level.base)
    sizes = {"train": plan.n_calibration, "validation": plan.n_validation, "test": plan.n_test}
    tuples = {split: base_tuples(level.base.world, split, n=n) for split, n in sizes.items()}
    found = measure_base(
        vlm, calibration=tuples["train"], validation=tuples["validation"], test=tuples["test"], plan=plan
    )
    minutes = {"wall": time.perf_counter() - started, "processor": time.process_time() - cpu}
    return {
        "key": level.key, "factor": level.factor, "level": level.level, "recipe": level.base.facts(),
        "curve": [{"step": point["step"], "loss": round(point["loss"], 5)} for point in curve],
        "minutes": {name: round(value / 60, 2) for name, value in minutes.items()}, **found,
    }  # fmt: skip


def make_worlds(path: Path, *, progress: bool = True, **_: Any) -> None:
    """Make and measure every base of the plan; a base that stands in the file already is not made again."""
    plan = worlds_plan()
    facts = plan_facts(plan)
    rows: list[dict[str, Any]] = []
    if path.is_file():
        held = json.loads(path.read_text(encoding="utf-8"))
        rows = held["rows"] if held["plan"] == facts else []
    done = {row["key"] for row in rows}
    for level in plan:
        if level.key in done:
            continue
        rows.append(measure_level(level))
        path.parent.mkdir(parents=True, exist_ok=True)
        write_json(path, {"plan": facts, "torch": torch.__version__, "rows": rows})
        if progress:
            print(f"{len(rows)} of {len(plan)}: {level.key}, {rows[-1]['minutes']}", flush=True)
