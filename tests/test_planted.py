"""Planted weights: where a plant grows, who finds it, and that taking it out gives the base back."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from scipy.stats import t, ttest_1samp

from uwmlib import metrics, studies, training
from uwmlib.errors import UwmError
from uwmlib.mini.vocabulary import HAZARDS
from uwmlib.studies import planted as study
from uwmlib.studies import planted_rows
from uwmlib.training import planting

QUICK = training.PlantRecipe(size=0.02, steps=4, batch_size=8)
KINDS = [replace(QUICK, kind=kind, bound=bound) for kind in planting.KINDS for bound in (None, 0.01)]


@pytest.fixture(scope="module")
def tuples():
    return planting.plant_tuples("train", 0, 24)


@pytest.fixture
def base():
    return planting.untrained_base(0)


def planted_model(base, tuples, recipe=QUICK):
    return study.PlantedModel(base, training.grow(base, tuples[:16], recipe), recipe, tuples[:8], tuples[16:])


@pytest.mark.parametrize("levels", [2, 5, 1000])
def test_auroc_counts_pairs_in_order_and_ties_as_half(levels):
    rng = np.random.default_rng(levels)
    score, truth = rng.integers(0, levels, 60).astype(float), rng.random(60) < 0.3
    pairs = [(a > b) + 0.5 * (a == b) for a in score[truth] for b in score[~truth]]
    found = metrics.auroc(torch.from_numpy(score).view(6, 10), torch.from_numpy(truth).view(6, 10))
    assert found == pytest.approx(np.mean(pairs), abs=1e-12)


def test_top_weights_precision_and_recall_are_those_of_sets():
    rng = np.random.default_rng(0)
    score, truth = torch.from_numpy(rng.permutation(50).astype(float)), torch.from_numpy(rng.random(50) < 0.4)
    best = set(sorted(range(50), key=lambda i: -score[i])[:12])
    chosen = metrics.top_k(score, 12)
    assert set(chosen.nonzero().flatten().tolist()) == best
    true = set(truth.nonzero().flatten().tolist())
    precision, recall = metrics.precision_and_recall(chosen, truth)
    assert (precision, recall) == (len(best & true) / 12, len(best & true) / len(true))


def test_a_ranking_without_a_truth_is_refused():
    for truth in (torch.zeros(3, dtype=torch.bool), torch.ones(3, dtype=torch.bool), torch.zeros(3)):
        with pytest.raises(UwmError):
            metrics.auroc(torch.arange(3.0), truth)
    with pytest.raises(UwmError, match="no order"):
        metrics.auroc(torch.tensor([1.0, float("nan")]), torch.tensor([True, False]))


def test_the_interval_is_over_groups_and_not_over_runs():
    values, groups = [1.0, 3.0, 5.0, 5.0, 9.0], ["a", "a", "b", "b", "c"]
    found = metrics.mean_over_groups(values, groups)
    truth = ttest_1samp([2.0, 5.0, 9.0], 0).confidence_interval()
    assert found.n == 3 and found.interval == pytest.approx(truth)
    assert metrics.mean_over_groups([1.0, 2.0], ["a", "a"]).interval is None


@pytest.mark.parametrize("values", [[0.86, 0.79, 0.63], [0.02, 0.3, 0.1], [0.6, 0.61, 0.6], [1.0, 1.0, 1.0]])
def test_an_interval_of_a_ranking_stays_within_its_range_and_is_students_elsewhere(values):
    found = metrics.mean_over_groups(values, ["a", "b", "c"], unit=metrics.RANKING)
    half = t.ppf(0.975, 2) * np.std(values, ddof=1) / 3**0.5
    truth = [min(max(limit, 0), 1) for limit in (np.mean(values) - half, np.mean(values) + half)]
    assert found.value == pytest.approx(np.mean(values)) and found.interval == pytest.approx(truth)
    free = metrics.mean_over_groups(values, ["a", "b", "c"])
    assert free.interval == pytest.approx((np.mean(values) - half, np.mean(values) + half))


@pytest.mark.parametrize("wrong", [-0.1, 1.1])
def test_a_difference_is_no_ranking(wrong):
    with pytest.raises(UwmError, match="differences"):
        metrics.mean_over_groups([0.5, wrong], ["a", "b"], unit=metrics.RANKING)


def test_the_base_never_reads_of_a_hazard():
    for step in range(4):
        _, texts = planting._safe_batch(step, 64, seed=3)
        assert not {word for text in texts for word in text.split()} & HAZARDS.keys()


@pytest.mark.parametrize("recipe", KINDS, ids=lambda recipe: recipe.label)
def test_a_plant_changes_its_places_and_nothing_else(base, tuples, recipe):
    before = {name: value.clone() for name, value in base.model.state_dict().items()}
    plant = training.grow(base, tuples, recipe)
    assert all(torch.equal(before[name], value) for name, value in base.model.state_dict().items())
    places = planting.places_of(base, recipe)
    with plant.edit.applied(base):
        changed = {n: v.detach() != before[n] for n, v in base.model.named_parameters()}
        grown = {
            site.name: base.weight(site) - before[site.parameter] for site in base.sites(**planting.LAYERS)
        }
    assert {name for name, each in changed.items() if each.any()} <= places.keys()
    for name, place in places.items():
        at = set(place.flat(before[name].shape).tolist())
        moved = set(changed[name].flatten().nonzero().flatten().tolist())
        assert moved <= at and len(moved) > 0.7 * len(at), name
    for site in base.sites(**planting.LAYERS):
        mask, delta = plant.truth[site.name], grown[site.name]
        assert not delta[~mask].any()
        if recipe.bound:
            limit = recipe.bound * before[site.parameter].std()
            assert delta.abs().max() <= limit * 1.001 and (
                recipe.kind == "block" or delta.abs().max() > limit / 4
            )
        elif recipe.kind == "block":
            assert torch.linalg.matrix_rank(delta, rtol=1e-3) == 1


def test_neurons_are_whole_columns_and_what_feeds_them(base):
    places = planting.places_of(base, replace(QUICK, kind="neurons"))
    truth = planting.truth_of(base, places)["vision.0.fc2"]
    columns = truth.any(dim=0).nonzero().flatten()
    assert truth[:, columns].all() and len(columns) == round(0.02 * 256)
    bias = places["visual.transformer.resblocks.0.mlp.c_fc.bias"].at
    assert torch.equal(bias, columns)
    text = planting.truth_of(base, places)["text.0.out"].any(dim=0).nonzero().flatten()
    assert torch.equal(
        places["transformer.resblocks.0.attn.in_proj_bias"].at, 128 + text
    )  # behind query and key


@pytest.mark.parametrize("kind", planting.KINDS)
def test_putting_back_the_planted_entries_alone_gives_the_base_bit_for_bit(base, tuples, kind):
    model = planted_model(base, tuples, replace(QUICK, kind=kind))
    assert study.removed_exactly(model)
    one = next(iter(model.plant.truth))
    model.plant.truth[one][:] = False  # a truth that leaves a layer out is found to be none
    assert not study.removed_exactly(model)


def test_only_who_knows_the_base_finds_a_trivial_plant_and_undoing_it_undoes_all(base, tuples):
    model = planted_model(base, tuples)
    scores = study.scores_of_weights(model)
    assert tuple(scores) == study.SCORERS
    for encoder in study.found_by(scores[study.ORACLE], model.plant.truth).values():
        assert encoder[:2] == pytest.approx([1, 1], abs=0.01)
    for encoder in study.found_by(scores["random"], model.plant.truth).values():
        assert encoder[0] == pytest.approx(0.5, abs=0.1)
    left = study.undo(model, scores[study.ORACLE], how=["reset"])["reset"]
    assert left == study.behaviour_of(base, model.test)


def test_scores_of_layers_are_ranked_one_by_one():
    truth = {name: torch.tensor([True, False, False, False]) for name in ("text.0.out", "text.1.out")}
    score = {"text.0.out": torch.tensor([9.0, 8, 7, 6]), "text.1.out": torch.tensor([4.0, 3, 2, 1])}
    (found,) = study.found_by(score, truth).values()
    assert found[:2] == [1.0, 1.0]  # joined, the second layer's plant would come fifth


def test_a_plant_learns_what_its_loss_asks(base, tuples):
    recipe = replace(QUICK, size=0.2, steps=60, batch_size=16)
    plant = training.grow(base, tuples[:16], recipe)
    assert plant.curve[-1]["loss"] < plant.curve[0]["loss"] - 0.5


def test_a_wrong_recipe_is_refused(base):
    for wrong, message in (({"kind": "leaf"}, "kind of plant"), ({"size": 0.0}, "share")):
        with pytest.raises(UwmError, match=message):
            planting.places_of(base, replace(QUICK, **wrong))


def test_a_broken_off_study_goes_on_and_reads_back_the_same(tmp_path, monkeypatch):
    base = training.BaseRecipe(steps=1, batch_size=4, batches=1)
    tiny = {"n_planting": 8, "n_calibration": 8, "n_test": 8}
    plan = studies.PlantPlan(
        bases=(base,), plants=(replace(QUICK, steps=1), replace(QUICK, size=0.1)), **tiny
    )
    monkeypatch.setattr(
        planted_rows, "LIVE_PLAN", replace(plan, bases=(replace(base, seed=1),), plants=(QUICK,))
    )
    rows = planted_rows.make_planted(tmp_path / "planted.safetensors", plan=plan, progress=False)
    monkeypatch.setattr(planted_rows, "measure_plant", lambda *_, **__: pytest.fail("measured twice"))
    again = planted_rows.make_planted(tmp_path / "planted.safetensors", plan=plan, progress=False)
    read, facts = planted_rows.load_planted(tmp_path / "planted.safetensors")
    assert list(read) == list(again) == list(rows) and list(read)[1:] == studies.keys_of(plan)
    assert facts.items() >= plan.facts().items()
    assert read["0, entries 2%"]["after"] == pytest.approx(rows["0, entries 2%"]["after"], abs=1e-4)


def test_what_ships_has_every_plant_of_the_plan_and_all_can_be_taken_out():
    rows, source = studies.shipped_plants()
    assert list(rows) == studies.keys_of(studies.LIVE_PLAN) + studies.keys_of(studies.PLANT_PLAN)
    assert len(rows) > 30 and all(row["exact"] for row in rows.values())
    found = studies.found_frame(rows)
    oracle = found[found["scorer"] == study.ORACLE]
    assert oracle["auroc"].min() > 0.98 and set(found["scorer"]) == set(study.SCORERS)
    assert "uwm study planted" in source
    with pytest.raises(UwmError, match="uwm study planted"):
        studies.shipped_plants(replace(studies.PLANT_PLAN, n_test=7))


def test_shares_removed_and_knowledge_lost_are_differences_to_the_planted_model():
    left = {"unsafe": 60.0, "safe": 70.0, "knowledge": 18.0}
    row = {
        "recipe": {"kind": "entries", "size": 0.1, "bound": None}, "undo": {"UWM": {"zero": left}},
        "before": {"unsafe": 50.0}, "after": {"unsafe": 90.0, "knowledge": 20.0},
    }  # fmt: skip
    (line,) = studies.undo_frame({"0, entries 10%": row}).to_dict("records")
    assert (line["removed"], line["lost"], line["planted"]) == (0.75, 2.0, 40.0)
