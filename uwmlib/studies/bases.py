"""One base under UWM and random negation at equal knowledge, and what of it may say where UWM works."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch

from uwmlib.comparison import AtKnowledge, Setting, strength_that_keeps, sweep
from uwmlib.editing import Scores, WeightEdit, score, select_random, token_statistics
from uwmlib.evaluation import Evaluation, embed_images, embed_texts
from uwmlib.metrics import (
    Difference,
    Score,
    difference_between,
    mean_over_seeds,
    safe_bias,
    top_share,
)
from uwmlib.models.sites import Site
from uwmlib.models.vlm import Vlm
from uwmlib.options import ENCODERS
from uwmlib.outliers import outlier_records
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
TENTH = 0.1  #: of the score: the weights that hold it are looked at


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
        What is measured on the test tuples: a method, the encoders that it edits, and the percent of knowledge to keep.

    Examples
    --------
    >>> from uwmlib.studies import Measurement
    >>> Measurement(n_test=100).rows[:2]
    (('UWM', 'both', 95.0), ('UWM printed', 'both', 95.0))
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
        "base" (score -> value), "predictors" (encoder -> name -> value), "rows" (each edit: strength, what it keeps
        and its scores) and "differences" (UWM minus random, in the safe bias of each side's queries), for JSON.

    Examples
    --------
    >>> import uwmlib as uwm
    >>> from uwmlib.studies import Measurement, measure_base
    >>> vlm = uwm.load_model("mini-ViT-B-32")
    >>> tuples = {
    ...     split: uwm.load_tuples("mini-visu", split=split, n=40)
    ...     for split in ("train", "validation", "test")
    ... }
    >>> tuples["calibration"] = tuples.pop("train")
    >>> quick = Measurement(
    ...     strengths=(0.02, 0.2), steps=1, seeds=1, least_kept=0,
    ...     rows=(("UWM", "both", 80.0), ("random", "both", 80.0)),
    ... )
    >>> found = measure_base(vlm, **tuples, plan=quick)
    >>> [each["side"] for each in found["differences"]]
    ['both', 'text', 'image']
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
        "predictors": base_predictors(vlm, scores, calibration),
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


def base_predictors(vlm: Vlm, scores: Scores, tuples: Tuples, *, n: int = 100) -> dict[str, dict[str, float]]:
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

    Examples
    --------
    >>> import uwmlib as uwm
    >>> from uwmlib.studies import base_predictors
    >>> vlm = uwm.load_model("mini-ViT-B-32")
    >>> tuples = uwm.load_tuples("mini-visu", split="train", n=20)
    >>> scores = uwm.score(vlm, tuples, progress=False)
    >>> found = base_predictors(vlm, scores, tuples)
    >>> found["text"]["touched"] < found["vision"]["touched"]
    True
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


def _of_site(vlm: Vlm, scores: Scores, site: Site) -> dict[str, float]:
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

    def watch(mask: torch.Tensor | None) -> Callable[[Site, torch.Tensor], None]:
        def add(site: Site, z: torch.Tensor) -> None:
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
