"""The study of small bases: its plan, how a base is made and measured, the file, and rank correlation."""

from __future__ import annotations

import json
import math
from statistics import NormalDist

import numpy as np
import pytest
import torch
from scipy.stats import spearmanr

import uwmlib as uwm
from uwmlib import studies
from uwmlib.comparison import Setting
from uwmlib.editing import select_random
from uwmlib.errors import UwmError
from uwmlib.manifests import manifest_path
from uwmlib.metrics import rank_correlation
from uwmlib.metrics.rank_correlation import SAMPLE_STREAM
from uwmlib.models.mini import build_mini
from uwmlib.studies import bases, worlds
from uwmlib.training import Base, base_tuples, train_base

TINY = Base(steps=3, batch_size=8, pool=2)
QUICK = studies.Measurement(
    n_calibration=8, n_validation=30, n_test=30, strengths=(0.02, 0.3), least_kept=0, steps=1, seeds=2,
    rows=(("UWM", "both", 80.0), ("random", "both", 80.0)),
)  # fmt: skip


def average_ranks(x):
    """Rank by counting: one more than the smaller ones, and half of the equal others."""
    return [sum(a < b for a in x) + 1 + (sum(a == b for a in x) - 1) / 2 for b in x]


def test_a_rank_correlation_is_pearsons_of_counted_ranks():
    rng = np.random.default_rng(3)
    x, y = rng.integers(0, 6, 15).astype(float), rng.normal(size=15)
    found = rank_correlation(x, y, resamples=10)
    assert found.value == pytest.approx(np.corrcoef(average_ranks(x), average_ranks(y))[0, 1])
    t = found.value * math.sqrt(13 / (1 - found.value**2))
    assert found.p_value == pytest.approx(spearmanr(x, y).pvalue) and found.n == 15 and abs(t) > 0


def test_its_interval_is_that_of_resampled_pairs():
    rng = np.random.default_rng(4)
    x = rng.normal(size=9)
    y = x + rng.normal(size=9)
    words = np.random.Philox(key=(SAMPLE_STREAM << 64) + 7).random_raw(60 * 9)
    drawn = (words % np.uint64(9)).astype(int).reshape(60, 9)
    each = [spearmanr(x[rows], y[rows]).statistic for rows in drawn]
    found = rank_correlation(x, y, resamples=60, seed=7)
    assert (found.lo, found.hi) == pytest.approx(tuple(np.quantile(each, (0.025, 0.975))))
    assert found == rank_correlation(x, y, resamples=60, seed=7)


@pytest.mark.parametrize(
    ("x", "y"),
    [
        ([1, 2, 3], [1, 2, 3]),
        ([1, 2, 3, 4], [1, 2]),
        ([1, 2, 3, math.nan], [1, 2, 3, 4]),
        ([1] * 4, [1, 2, 3, 4]),
    ],
)
def test_what_has_no_order_is_refused(x, y):
    with pytest.raises(UwmError):
        rank_correlation(x, y)


def test_the_plan_changes_one_factor_at_a_time_and_names_each_base_once():
    plan = studies.worlds_plan()
    keys = [each.key for each in plan]
    assert len(keys) == len(set(keys)) >= 24
    assert sum(each.factor == "default" for each in plan) >= 4
    for each in plan:
        plain = Base(seed=each.base.seed)
        changed = [name for name, value in each.base.facts().items() if value != plain.facts()[name]]
        assert len(changed) == (each.factor != "default"), each.key
    levels = {(each.factor, each.level) for each in plan if each.base.seed == 0}
    assert levels == {(factor, level) for factor, of in worlds.FACTORS.items() for level in of}


EACH = pytest.mark.parametrize("name", worlds.PLANS)


@EACH
def test_the_plan_that_was_written_down_is_the_one_that_was_run(name):
    folder = name.replace("-", "_")
    written = json.loads(manifest_path("studies", folder, "plan.json").read_text(encoding="utf-8"))
    assert written == worlds.plan_facts(worlds.PLANS[name]())


def test_fresh_seeds_are_of_the_default_alone_and_nobody_had_used_them():
    used = {each.base.seed for each in studies.worlds_plan()} | set(studies.AgainPlan().seeds)
    for name, n in (("worlds-again", 16), ("worlds-more", 32)):
        fresh = worlds.PLANS[name]()
        seeds = {each.base.seed for each in fresh}
        assert not used & seeds and len({each.key for each in fresh}) == len(seeds) == n
        assert all(each.base == Base(seed=each.base.seed) for each in fresh)
        used |= seeds


@EACH
def test_what_ships_has_every_base_of_the_plan_and_only_finite_numbers(name):
    study = studies.load_worlds(study=name)
    assert [row["key"] for row in study.rows] == study.planned
    numbers = study.bases().select_dtypes("number").to_numpy()
    assert (
        np.isfinite(numbers).all()
        and np.isfinite(study.differences()[["difference", "lo", "hi", "p"]]).all().all()
    )
    for _, each in study.differences().groupby(["key", "method", "part", "share"]):
        side = each.set_index("side")["difference"]
        assert side["both"] == pytest.approx(side["text"] + side["image"], abs=1e-5)


def test_training_changes_the_edited_layers_alone_and_the_same_seed_gives_the_same_base():
    before = build_mini("mini-ViT-B-32").model.state_dict()
    (vlm, curve), (again, _) = train_base(TINY), train_base(TINY)
    after, other = vlm.model.state_dict(), again.model.state_dict()
    changed = {name for name in before if not torch.equal(before[name], after[name])}
    edited = {site.parameter for site in vlm.sites(text="out", vision="fc2")}
    assert {name for name in changed if name.endswith("weight")} == edited
    assert changed - edited == {name.replace("weight", "bias") for name in edited}
    assert all(torch.equal(after[name], other[name]) for name in after) and curve[-1]["step"] == 3
    assert not vlm.model.training


def test_half_the_neurons_are_the_first_ones():
    whole = build_mini("mini-ViT-B-32").model.visual.transformer.resblocks[1].mlp
    cut = (
        train_base(Base(neurons=10, steps=1, batch_size=4, pool=1))[0]
        .model.visual.transformer.resblocks[1]
        .mlp
    )
    assert torch.equal(cut.c_fc.weight, whole.c_fc.weight[:10]) and cut.c_proj.weight.shape == (96, 10)


def test_a_world_without_harmless_uses_names_no_container():
    without = base_tuples(worlds.NO_USES, "test", n=50)
    assert not any("jar" in text or "sign" in text for text in without.safe_texts)
    assert any("jar" in text or "sign" in text for text in base_tuples({}, "test", n=50).safe_texts)
    with pytest.raises(UwmError, match="no such fields"):
        base_tuples({"hazards": 1}, "test", n=5)
    with pytest.raises(UwmError, match="no split"):
        base_tuples({}, "tests", n=5)


@pytest.fixture(scope="module")
def meter():
    vlm = uwm.load_model("mini-ViT-B-32")
    tuples = {
        split: uwm.load_tuples("mini-visu", split=split, n=30) for split in ("train", "validation", "test")
    }
    scores = uwm.score(vlm, tuples["train"], progress=False)
    return bases._Meter(vlm, scores, tuples["validation"], tuples["test"])


@pytest.mark.parametrize("part", ["both", "text", "vision"])
def test_halves_put_together_measure_what_the_whole_edit_does(meter, part):
    only = {"both": {}, "text": {"vision": None}, "vision": {"text": None}}[part]
    kinds = {"text": "out", "vision": "fc2"} | only
    edits = {
        "UWM printed": meter.scores.select(tau=0.1, variant="paper", **only),
        "random": select_random(meter.vlm, tau=0.1, alpha=-1.0, seed=1, **kinds),
    }
    for method, edit in edits.items():
        with edit.applied(meter.vlm):
            whole = uwm.evaluate(meter.vlm, meter.test)
        halves = meter.evaluate("test", part, (method, 0.1, 1))
        assert halves.as_percent() == pytest.approx(
            {k: v for k, v in whole.as_percent().items() if k in halves}
        )


def test_the_difference_of_one_side_is_that_of_its_c(meter):
    base = meter.evaluate("test", "both", None)
    left = meter.setting("test", "both", "UWM", 0.2, range(1))
    right = meter.setting("test", "both", "random", 0.2, range(2))
    z = NormalDist().inv_cdf

    def c(found, keys):
        return sum(z((found[key].items.sum() + 0.5) / (found[key].n + 1)) for key in keys) / 2

    for side, keys in bases.SIDES.items():
        by_hand = c(left.runs[0], keys) - sum(c(run, keys) for run in right.runs) / 2
        assert bases.side_difference(left, right, side).difference == pytest.approx(by_hand)
    unchanged = bases.side_difference(Setting((base,), base), Setting((base,), base), "both")
    assert (unchanged.difference, unchanged.lo, unchanged.hi) == (0, 0, 0)


def test_consistency_is_the_median_of_norm_over_deviation(meter):
    tuples = meter.validation[:4]
    site = next(site for site in meter.scores.sites if site.name == "text.1.out")
    seen = []
    tokens = meter.vlm.tokenize([*tuples.safe_texts, *tuples.unsafe_texts])
    with torch.inference_mode(), meter.vlm.capture([site], lambda _, z: seen.append(z)):
        meter.vlm.encode_text(tokens)
    mask = meter.vlm.token_mask(tokens)
    ratios = torch.cat(
        [z[keep].norm(dim=0) / (z[keep].std(dim=0) + 1e-8) for z, keep in zip(seen[0], mask, strict=True)]
    )
    found = bases._consistency(meter.vlm, meter.scores, tuples)[site.name]
    assert found == pytest.approx(float(ratios.median()), rel=1e-4)


def test_a_study_that_was_broken_off_goes_on_and_reads_back(tmp_path, monkeypatch):
    plan = [
        studies.Level("length", f"{steps} steps", Base(steps=steps, batch_size=8, pool=2)) for steps in (1, 2)
    ]
    monkeypatch.setattr(worlds, "measure_level", lambda level: real(level, plan=QUICK))
    real, path = studies.measure_level, tmp_path / "worlds" / "worlds.json"
    monkeypatch.setitem(worlds.PLANS, "worlds", lambda: plan[:1])
    assert studies.make_study("worlds", output=tmp_path, progress=False) == path
    monkeypatch.setitem(worlds.PLANS, "worlds", lambda: plan)
    with pytest.raises(UwmError, match="another plan"):
        studies.load_worlds(path)
    held = json.loads(path.read_text())
    path.write_text(json.dumps(held | {"plan": worlds.plan_facts(plan)}))
    assert studies.load_worlds(path).missing == ["length: 2 steps, seed 0"]
    studies.make_study("worlds", output=tmp_path, progress=False)
    study = studies.load_worlds(path)
    assert study.missing == [] and study.rows[0] == held["rows"][0]  # the first was not made again
    assert study.bases().loc["length: 1 steps, seed 0", "text.touched"] > 0
    edits = study.edits()
    assert list(edits["method"]) == ["UWM", "random"] * 2 and "gs" in edits
    path.write_text("{}")
    with pytest.raises(UwmError, match="no study"):
        studies.load_worlds(path)
