"""What UWM's edit comes to: masks, whole neurons, scores by concept, and the same function in other weights."""

from __future__ import annotations

import math
from dataclasses import replace
from itertools import combinations

import pytest
import torch
from architectures import ARCHITECTURES, encode
from tiny_models import TINY, WIDTH, bits, indices_of, tiny_clip, tiny_tuples

import uwmlib as uwm
from uwmlib import studies
from uwmlib.comparison import Setting
from uwmlib.editing import (
    Delta,
    Gates,
    PairSums,
    Scaling,
    WeightEdit,
    channel_scaling_edit,
    column_share,
    combine,
    fit_dampening,
    fit_gated_negation,
    fit_set_difference,
    gradient_scores,
    head_rotation_edit,
    mask_of,
    overlap,
    pool_scores,
    random_factors,
    score_groups,
    select_adaptive,
    select_magnitude,
    select_neurons,
    select_random,
    union_edit,
)
from uwmlib.errors import UwmError
from uwmlib.manifests import manifests_dir
from uwmlib.studies import files
from uwmlib.studies.anatomy import anatomy_rests_on, edits_in_other_weights, forms_of

TEXT = {"text": "out", "vision": None, "progress": False}


def rescaled(vlm, *, room=8.0, seed=0):
    """The text encoder's channels scaled at random, and the factors."""
    factors = random_factors(vlm, vlm.sites(text="out"), room=room, seed=seed)
    return channel_scaling_edit(vlm, factors), factors


def scaling(indices, *, shape=(4, 6), **options):
    """A change that scales these weights of one parameter."""
    facts = {"encoder": "text", "base_hash": "x", "alpha": -1.0, "candidates": math.prod(shape)} | options
    return Scaling(shape=shape, indices=torch.tensor(sorted(indices), dtype=torch.long), **facts)


# The same function in other weights


@pytest.mark.parametrize("kind", ["out", "fc1"])
@pytest.mark.parametrize("name", ["small", "hf-clip", "hf-siglip"])
def test_scaled_channels_leave_every_embedding_and_every_bit_comes_back(name, kind):
    vlm = ARCHITECTURES[name]()
    sites = vlm.sites(text=kind, vision=kind)
    before, at_first = {encoder: encode(vlm, encoder) for encoder in ("text", "vision")}, bits(vlm)
    with channel_scaling_edit(vlm, random_factors(vlm, sites, room=8, seed=1)).applied(vlm):
        changed = [name for name, value in bits(vlm).items() if value != at_first[name]]
        for encoder, expected in before.items():
            assert torch.allclose(encode(vlm, encoder), expected, atol=1e-5)
    assert len(changed) >= 2 * len(sites)
    assert bits(vlm) == at_first


@pytest.mark.parametrize("family", TINY)
def test_powers_of_two_lose_no_bit(family):
    vlm = TINY[family]()
    sites = vlm.sites(text="out", vision="out")
    factors = {site: 2.0 ** (torch.arange(vlm.weight(site).shape[1]) % 7 - 3) for site in sites}
    before = {encoder: encode(vlm, encoder) for encoder in ("text", "vision")}
    with channel_scaling_edit(vlm, factors).applied(vlm):
        for encoder, expected in before.items():
            assert torch.equal(encode(vlm, encoder), expected)


@pytest.mark.parametrize("family", TINY)
def test_each_row_and_each_column_has_its_own_factor(family):
    vlm = TINY[family]()
    (site, value) = (vlm.sites(vision=kind)[1] for kind in ("out", "value"))
    scale = torch.linspace(0.5, 3, vlm.weight(site).shape[1])
    weight, rows = vlm.weight(site).detach().clone(), vlm.weight(value).detach().clone()
    whole = vlm.model.get_parameter(value.parameter).detach().clone()
    with channel_scaling_edit(vlm, {site: scale}).applied(vlm):
        assert torch.allclose(vlm.weight(site), weight / scale, rtol=1e-6)
        assert torch.allclose(vlm.weight(value), rows * scale.unsqueeze(1), rtol=1e-6)
        # Queries and keys, where they stand in the same parameter, are left alone.
        others = slice(0, value.rows[0] if value.rows else 0)
        assert torch.equal(vlm.model.get_parameter(value.parameter)[others], whole[others])


@pytest.mark.parametrize(
    ("factors", "words"),
    [
        (torch.ones(WIDTH + 1), "has shape"),
        (torch.zeros(WIDTH), "not all above 0"),
        (torch.full((WIDTH,), math.inf), "infinite"),
    ],
)
def test_factors_that_cannot_be_are_refused(factors, words):
    vlm = tiny_clip()
    with pytest.raises(UwmError, match=words):
        channel_scaling_edit(vlm, {vlm.sites(text="out")[0]: factors})


def test_what_has_no_such_freedom_is_refused():
    vlm, custom = tiny_clip(), ARCHITECTURES["custom-blocks"]()
    with pytest.raises(UwmError, match="nothing to rescale"):
        channel_scaling_edit(vlm, {})
    with pytest.raises(UwmError, match="nothing to rotate"):
        head_rotation_edit(vlm, [])
    with pytest.raises(UwmError, match="no attention heads"):
        head_rotation_edit(vlm, vlm.sites(text="fc1"))
    with pytest.raises(UwmError, match="cannot be rescaled"):
        channel_scaling_edit(vlm, {vlm.sites(text="fc2")[0]: torch.ones(4 * WIDTH)})
    with pytest.raises(UwmError, match="room is 0.5"):
        random_factors(vlm, vlm.sites(text="out"), room=0.5)
    assert list(forms_of(vlm)) == ["scaled within 2", "scaled within 8", "rotated"]
    assert not forms_of(custom)


@pytest.mark.parametrize("name", ["small", "hf-clip", "hf-siglip"])
def test_rotated_heads_leave_every_embedding_and_mix_inside_a_head_alone(name):
    vlm = ARCHITECTURES[name]()
    sites = vlm.sites(text="out", vision="out")
    before, at_first = {encoder: encode(vlm, encoder) for encoder in ("text", "vision")}, bits(vlm)
    site = sites[0]
    attention = vlm.model.get_submodule(site.parameter.rsplit(".", 2)[0])
    size = vlm.weight(site).shape[1] // attention.num_heads
    norms = vlm.weight(site).detach().unfold(1, size, size).norm(dim=-1)  # [out, heads]
    with head_rotation_edit(vlm, sites).applied(vlm):
        for encoder, expected in before.items():
            assert torch.allclose(encode(vlm, encoder), expected, atol=1e-5)
        assert torch.allclose(vlm.weight(site).unfold(1, size, size).norm(dim=-1), norms, rtol=1e-4)
        assert bits(vlm)[site.parameter] != at_first[site.parameter]
    assert bits(vlm) == at_first


def test_drawn_factors_are_log_uniform_and_repeat():
    vlm = tiny_clip()
    sites = vlm.sites(text=["out", "fc1"], vision=["out", "fc1"])
    drawn = torch.cat(list(random_factors(vlm, sites, room=4, seed=3).values()))
    again = torch.cat(list(random_factors(vlm, sites, room=4, seed=3).values()))
    logs = drawn.log2() / 2
    assert torch.equal(drawn, again) and logs.abs().max() <= 1
    assert abs(float(logs.mean())) < 0.15 and abs(float(logs.var()) - 1 / 3) < 0.06


# What a score makes of it: algebra on drawn matrices, then real models


def test_how_every_score_of_a_weight_scales_by_its_definition():
    generator = torch.Generator().manual_seed(0)
    weight = torch.randn(5, 7, generator=generator, dtype=torch.float64)
    z = torch.rand(12, 3, 7, generator=generator, dtype=torch.float64)  # six safe, six unsafe
    s = torch.linspace(0.3, 4, 7, dtype=torch.float64)

    def found(weight, z):
        sums = PairSums(*(torch.zeros(5, 7, dtype=torch.float64) for _ in range(3)))
        sums.add(z.norm(dim=1), z.std(dim=1), weight.abs())
        readings = {
            (variant, prior): combine(sums, 6, weight.abs(), variant=variant, prior=prior)
            for variant in ("released", "paper", "unsafe-only", "difference")
            for prior in (False, True)
        }
        gradient = torch.einsum("bo,bi->oi", z[:, 0] @ weight.T, z[:, 0])  # of half the squared outputs
        named = {"gradient": gradient, "snip": weight * gradient, "fisher": gradient**2}
        return readings | named | {"wanda": weight.abs() * z.flatten(0, 1).norm(dim=0), "magnitude": weight}

    powers = {
        ("released", False): 0, ("released", True): -1, ("paper", False): 0, ("paper", True): -1,
        ("unsafe-only", False): -1, ("unsafe-only", True): -2,
        ("difference", False): -1, ("difference", True): -2,
        "gradient": 1, "snip": 0, "fisher": 2, "wanda": 0, "magnitude": -1,
    }  # fmt: skip
    before, after = found(weight, z), found(weight / s, z * s)
    assert before.keys() == powers.keys()
    for name, power in powers.items():
        assert torch.allclose(after[name], before[name] * s**power, rtol=1e-9), name


@pytest.mark.parametrize("prior", [True, False])
def test_the_prior_alone_makes_the_masks_differ(prior):
    vlm, tuples = tiny_clip(), tiny_tuples(10)
    plain = uwm.score(vlm, tuples, **TEXT)
    edit, _ = rescaled(vlm)
    options = {"tau": 0.1, "prior": ("text",) if prior else ()}
    first = plain.select(**options)
    with edit.applied(vlm):
        again = uwm.score(vlm, tuples, **TEXT).select(**options)
    assert (overlap(first, again).jaccard < 0.6) == prior
    assert (overlap(first, again).jaccard > 0.99) != prior


@pytest.mark.parametrize(
    ("fit", "invariant"),
    [
        (lambda vlm, x: fit_set_difference(vlm, x, score="snip", **TEXT).edit(0.2), True),
        (lambda vlm, x: fit_set_difference(vlm, x, score="wanda", **TEXT).edit(0.2), True),
        (lambda vlm, x: fit_dampening(vlm, x, sites=vlm.sites(text="out"), progress=False).edit(0.8), True),
        (lambda vlm, x: fit_gated_negation(vlm, x, **TEXT).edit(0.2), True),
        (lambda vlm, x: gradient_scores(vlm, x, **TEXT).select(tau=0.1), False),
        (lambda vlm, x: select_magnitude(vlm, tau=0.1, text="out", vision=None), False),
    ],
)
def test_which_other_methods_choose_the_same_weights(fit, invariant):
    vlm, tuples = tiny_clip(), tiny_tuples(8)
    first = fit(vlm, tuples)
    with rescaled(vlm)[0].applied(vlm):
        again = fit(vlm, tuples)
    same = overlap(first, again).jaccard
    assert same > 0.98 if invariant else same < 0.7


# Rank one, columns


def test_a_score_of_one_pair_is_rank_one_and_its_mask_whole_columns():
    vlm = tiny_clip()
    scores = uwm.score(vlm, tiny_tuples(1), progress=False)
    for site in scores.sites:
        singular = torch.linalg.svdvals(scores.score_of(site.name, prior=()).double())
        assert singular[1] < 1e-5 * singular[0]
        with_prior = torch.linalg.svdvals(scores.score_of(site.name, prior=site.encoder).double())
        assert with_prior[1] > 0.05 * with_prior[0]


@pytest.mark.parametrize(
    ("mask", "share"),
    [
        ([[1, 0], [1, 0]], 1.0),
        ([[1, 0], [0, 1]], 0.5),
        ([[1, 1], [1, 0]], 1.0),
        ([[1, 1, 1, 1], [0, 0, 0, 0]], 0.5),
    ],
)
def test_how_much_of_a_mask_lies_in_whole_columns(mask, share):
    assert column_share(torch.tensor(mask, dtype=torch.bool)) == share


def test_masks_that_are_none():
    assert math.isnan(column_share(torch.zeros(2, 2, dtype=torch.bool)))
    with pytest.raises(UwmError, match="give booleans"):
        column_share(torch.ones(2, 2))


def test_masks_of_every_kind_of_change():
    assert mask_of(scaling([0, 7])).nonzero().tolist() == [[0, 0], [1, 1]]
    gates = Gates(encoder="text", base_hash="x", shape=(3, 2), rows=(1, 3), factors=torch.tensor([1.0, -1.0]))
    assert mask_of(gates).nonzero().tolist() == [[1, 1], [2, 1]]
    delta = torch.tensor([[0.0, 2.0], [1.0, 0.0]])
    added = Delta(encoder="text", base_hash="x", shape=(3, 2), rows=torch.tensor([0, 2]), delta=delta)
    assert mask_of(added).nonzero().tolist() == [[0, 1], [2, 0]]
    whole = replace(added, delta=torch.eye(3, 2), rows=None)
    for change in (gates, added, whole, scaling([0, 7])):
        assert int(mask_of(change).sum()) == change.n_weights


# Overlap and union


def test_overlap_counts_what_sets_count():
    one = WeightEdit({"a": scaling([0, 1, 5]), "b": scaling([2])})
    other = WeightEdit({"a": scaling([1, 5, 9, 11]), "c": scaling([3], encoder="vision")})
    found = overlap(one, other)
    assert (found.shared, found.either) == (2, 5 + 1 + 1) and found.jaccard == 2 / 7
    expected = 3 * 4 / 24
    assert found.chance == pytest.approx(expected / (3 + 4 - expected + 1 + 1))
    assert overlap(one, other, encoder="vision").jaccard == 0
    with pytest.raises(UwmError, match="weights of the language"):
        overlap(one, other, encoder="language")
    with pytest.raises(UwmError, match="different shapes"):
        overlap(one, WeightEdit({"a": scaling([0], shape=(2, 2))}))


def test_chance_is_what_random_masks_have():
    vlm = tiny_clip()
    edits = [select_random(vlm, tau=0.3, seed=seed) for seed in range(8)]
    found = [overlap(*pair) for pair in combinations(edits, 2)]
    assert sum(each.jaccard for each in found) / len(found) == pytest.approx(found[0].chance, abs=0.01)


def test_the_union_is_that_of_sets():
    vlm, tuples = tiny_clip(), tiny_tuples(9)
    groups = score_groups(vlm, tuples, "abcabcabc", progress=False)
    edits = [scores.select(tau=0.2) for scores in groups.values()]
    found = union_edit(edits)
    for name, indices in indices_of(found).items():
        expected = set().union(*(indices_of(edit)[name].tolist() for edit in edits))
        assert indices.tolist() == sorted(expected)
    before = vlm.weight(found_site := vlm.sites(text="out")[0]).detach().clone()
    with found.applied(vlm):
        turned = mask_of(found.changes[found_site.parameter])
        assert torch.equal(vlm.weight(found_site), torch.where(turned, -before, before))


def test_edits_that_cannot_be_united_are_refused():
    with pytest.raises(UwmError, match="no edit to unite"):
        union_edit([])
    edits = [WeightEdit({"a": scaling([0], alpha=alpha)}) for alpha in (-1.0, 0.0)]
    with pytest.raises(UwmError, match="differ in their alpha"):
        union_edit(edits)
    with pytest.raises(UwmError, match="does not scale"):
        union_edit([select_neurons(uwm.score(tiny_clip(), tiny_tuples(4), progress=False), tau=0.1)])


# Groups and neurons


def test_groups_add_up_to_the_whole_and_each_is_its_own_tuples():
    vlm, tuples = tiny_clip(), tiny_tuples(11)
    labels = ["x", "y", "x", "x", "y", "z", "x", "y", "z", "x", "y"]
    groups = score_groups(vlm, tuples, labels, progress=False)
    assert {label: each.n for label, each in groups.items()} == {"x": 5, "y": 4, "z": 2}
    whole, pooled = uwm.score(vlm, tuples, progress=False), pool_scores(list(groups.values()))
    assert pooled.n == 11 and pooled.complete
    for site in whole.sites:
        for variant in ("released", "paper", "difference"):
            expected = whole.score_of(site.name, variant=variant)
            torch.testing.assert_close(
                pooled.score_of(site.name, variant=variant), expected, rtol=1e-3, atol=1e-3
            )
    with pytest.raises(UwmError, match="2 labels of 11"):
        score_groups(vlm, tuples, ["a", "b"], progress=False)
    with pytest.raises(UwmError, match="nothing to add"):
        pool_scores([])
    with pytest.raises(UwmError, match="other models"):
        pool_scores([whole, uwm.score(tiny_clip(1), tuples, progress=False)])


def test_every_concept_is_halved():
    tuples = replace(tiny_tuples(7), concepts=["a", "b", "a", "a", "b", "c", "a"])
    groups = studies.score_concepts(tiny_clip(), tuples, **TEXT)
    assert {key: each.n for key, each in groups.items()} == {
        ("a", 0): 2, ("a", 1): 2, ("b", 0): 1, ("b", 1): 1, ("c", 0): 1,
    }  # fmt: skip
    assert {name: each.n for name, each in studies.concept_scores(groups).items()} == {"a": 4, "b": 2, "c": 1}


def test_neurons_are_the_columns_with_the_largest_sums():
    vlm = tiny_clip()
    scores = uwm.score(vlm, tiny_tuples(6), progress=False)
    edit = select_neurons(scores, tau=0.3, alpha=0.5)
    for site in scores.sites:
        sums = scores.score_of(site.name).double().sum(dim=0)
        expected = torch.ones(len(sums))
        expected[select_adaptive(sums.float(), 0.3)] = 0.5
        assert torch.equal(edit.changes[site.parameter].factors, expected)
        assert 0.3 * sums.sum() <= sums[expected == 0.5].sum()
    with pytest.raises(UwmError, match="tau is 2"):
        select_neurons(scores, tau=2)


# The study


def test_the_study_measures_the_methods_and_the_other_weights(tmp_path):
    vlm = tiny_clip()
    calibration = replace(tiny_tuples(8), concepts=["a", "b"] * 4)
    validation, test = (replace(tiny_tuples(12), split=split) for split in ("validation", "test"))
    groups = studies.score_concepts(vlm, calibration, progress=False)
    plan = studies.Plan(shares=(50.0,), strengths=(0.1, 0.5), least_kept=0, tolerance=40, steps=1)
    study, source = studies.anatomy(
        groups, calibration=calibration, validation=validation, test=test, plan=plan, draws=2
    )
    assert source == "Measured in this run." and list(study.curves) == ["UWM", "union", "neurons", "gated"]
    assert list(study.found) == [f"{name}, 50%" for name in study.curves]
    scores = pool_scores(list(groups.values()))
    edit = scores.select(tau=0.02, vision=None)
    with edit.applied(vlm):
        expected = uwm.evaluate(vlm, test)
    (run,) = study.at_tau["prior"].runs
    assert (run["gs"].items == expected["gs"].items).all() and study.at_tau[
        "prior"
    ].n_weights == edit.n_weights
    for form in studies.FORMS:
        assert [len(study.at_tau[f"{name}, {form}"].runs) for name in ("prior", "no prior")] == [2, 2]
    # Without the prior it is the same edit of the same function.
    for run in study.at_tau["no prior, scaled within 8"].runs:
        assert (run["p_s_t"].items == study.at_tau["no prior"].runs[0]["p_s_t"].items).all()


def test_a_model_without_such_freedom_has_the_plain_rows_alone(monkeypatch):
    def refuse(vlm, seed):
        raise UwmError("no plain block")

    vlm, few = tiny_clip(), tiny_tuples(6)
    for name in list(studies.FORMS):
        monkeypatch.setitem(studies.FORMS, name, refuse)
    base = studies.measure_rows(vlm, {}, few, others={})["CLIP"]
    rows = edits_in_other_weights(uwm.score(vlm, few, progress=False), few, few, base=Setting((base,), base))
    assert list(rows) == ["prior", "no prior"]


def test_what_ships_is_believed_only_for_what_it_rests_on():
    held = sorted(manifests_dir().glob("studies/anatomy/*.safetensors"))
    assert {path.stem for path in held} == {f"mini-ViT-L-14{seed}" for seed in ("", "-seed1", "-seed2")}
    few = tiny_tuples(4)
    scores = uwm.score(tiny_clip(), few, progress=False)
    wanted = anatomy_rests_on(scores, validation=few, test=few)
    path = files.study_path("anatomy", "mini-ViT-L-14")
    study, facts = studies.controlled.load_equal_knowledge(path)
    assert facts.keys() == wanted.keys() and facts["test"] != wanted["test"]
    assert study.base.split == "test" and len(study.at_tau["prior, rotated"].runs) == 5
