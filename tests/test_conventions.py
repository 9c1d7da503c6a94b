"""What paper and released code do otherwise: every option against the arithmetic written out, and the list of them."""

from __future__ import annotations

import importlib
import inspect
import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from tiny_models import indices_of, naive_score, naive_terms, site_inputs, tiny_clip, tiny_coca, tiny_tuples

import uwmlib as uwm
from uwmlib import paper, studies
from uwmlib.captions.overlap import bleu_sentences, sentence_bleu
from uwmlib.editing import (
    PairSums,
    WeightEdit,
    combine,
    gradient_scores,
    overlap_by_encoder,
    select_adaptive,
    token_statistics,
)
from uwmlib.editing.saliency import weight_in_batch
from uwmlib.errors import UwmError
from uwmlib.manifests import manifests_dir
from uwmlib.metrics import safe_bias, sensitivity, share_of
from uwmlib.studies import conventions
from uwmlib.tuples import per_concept

# Every item of our notes on the released code that a number hangs on, by its place there.
ITEMS = [
    *("1.1 text tokens", "1.1 vision tokens", "1.1 deviation", "1.2 saliency", "1.3 epsilon"),
    *("1.3 empty caption", "1.4 order", "1.5 prior", "1.6 batch means", "1.6 batch sizes"),
    *(
        "2.1 selection",
        "2.1 precision",
        "2.2 hard threshold",
        "2.3 run time",
        "2.4 draw",
        "2.4 missing images",
    ),
    *("3.1 unsafe only", "3.2 unsafe only, adaptive", "3.3 difference", "3.4 difference, adaptive"),
    *("4.1 targets", "4.2 baseline rule", "4.3 baseline loss", "4.4 gradient batches", "4.4 gradient means"),
    *(
        "4.5 baseline share",
        "5.1 coca",
        "5.2 checkpoints",
        "6.1 ties",
        "6.2 ties in retrieval",
        "6.3 prompts",
    ),
    *("6.4 sampling", "6.5 llava tau", "6.6 reference", "6.7 bleu", "6.8 rouge", "6.9 meteor", "6.10 judge"),
    *("6.11 toxicity", "8 splits", "8 seventeen sets", "9 cache", "9 seed"),
]


@pytest.fixture(scope="module")
def vlm():
    return tiny_clip()


@pytest.fixture(scope="module")
def tuples():
    return tiny_tuples(7)


def scored(vlm, tuples, **options):
    return uwm.score(vlm, tuples, progress=False, **options)


# The options of scoring


@pytest.mark.parametrize("name", ["text.1.out", "vision.0.fc2"])
def test_order_of_ratio_and_mean_is_that_of_full_matrices(vlm, tuples, name):
    scores = scored(vlm, tuples)
    site = next(site for site in scores.sites if site.name == name)
    inputs = [site_inputs(vlm, site, tuples, kind) for kind in ("safe", "unsafe")]
    found = {}
    for variant in ("released", "paper"):
        expected = naive_score(*inputs, vlm.weight(site), variant, prior=site.encoder == "text")
        found[variant] = scores.score_of(name, variant=variant).double()
        assert torch.allclose(found[variant], expected, rtol=1e-3)
    assert not torch.allclose(found["released"], found["paper"], rtol=1e-3)


def test_batches_that_count_alike_are_the_mean_of_the_means_of_batches(vlm, tuples):
    name = "vision.1.fc2"
    scores = scored(vlm, tuples, batch_size=3, weigh="batches")  # 3, 3 and 1 of seven
    site = next(site for site in scores.sites if site.name == name)
    safe, unsafe = (site_inputs(vlm, site, tuples, kind) for kind in ("safe", "unsafe"))
    weight = vlm.weight(site).detach().double()
    ratios = naive_terms(unsafe, weight) / naive_terms(safe, weight)
    expected = torch.stack([part.mean(dim=0) for part in ratios.split(3)]).mean(dim=0)
    assert torch.allclose(scores.score_of(name).double(), expected, rtol=1e-4)
    assert not torch.allclose(ratios.mean(dim=0), expected, rtol=1e-3)
    assert torch.allclose(
        scored(vlm, tuples, batch_size=3).score_of(name).double(), ratios.mean(dim=0), rtol=1e-4
    )


def test_whole_batches_that_count_alike_change_nothing(vlm, tuples):
    six = tuples[:6]
    alike, each = (scored(vlm, six, batch_size=3, weigh=weigh) for weigh in ("batches", "tuples"))
    for name, sums in alike.sums.items():
        assert torch.allclose(sums.ratio, each.sums[name].ratio)
    assert [weight_in_batch(n, 8192, 2048, weigh="batches") for n in (2048,)] == [1.0]


def test_epsilon_is_added_to_every_deviation():
    z = torch.tensor([[[3.0, 1.0], [4.0, 1.0]]])
    norm, std = token_statistics(z, epsilon=0.5)
    # By hand: deviations 1/sqrt(2) and 0, and half added; the norm put together from it, (T - 1) s^2 + T m^2.
    assert std[0].tolist() == pytest.approx([math.sqrt(0.5) + 0.5, 0.5])
    assert norm[0].tolist() == pytest.approx([math.sqrt(std[0, 0] ** 2 + 2 * 3.5**2), math.sqrt(0.25 + 2)])
    assert token_statistics(z, epsilon=0.0)[1][0].tolist() == pytest.approx([math.sqrt(0.5), 0.0])


def test_epsilon_of_a_pass_is_that_of_each_encoder(vlm, tuples):
    given = scored(vlm, tuples, epsilon={"text": 0.3, "vision": 0.0})
    for name in ("text.0.out", "vision.0.fc2"):
        site = next(site for site in given.sites if site.name == name)
        sums, epsilon = PairSums.zeros(tuple(vlm.weight(site).shape)), {"text": 0.3}.get(site.encoder, 0.0)
        safe, unsafe = (site_inputs(vlm, site, tuples, kind) for kind in ("safe", "unsafe"))
        magnitude = vlm.weight(site).detach().abs()
        for pair in zip(safe, unsafe, strict=True):
            parts = [token_statistics(z[None].float(), epsilon=epsilon) for z in pair]
            sums.add(*(torch.cat(part) for part in zip(*parts, strict=True)), magnitude)
        expected = combine(sums, len(tuples), magnitude, variant="released", prior=site.encoder == "text")
        assert torch.allclose(given.score_of(name), expected, rtol=1e-3)
    with pytest.raises(UwmError, match="epsilon"):
        scored(vlm, tuples, epsilon=-1.0)


def test_without_epsilon_a_feature_that_is_silent_has_no_score():
    sums, weight = PairSums.zeros((1, 2)), torch.ones(1, 2)
    z = torch.rand(2, 3, 2)
    z[..., 1] = 0
    sums.add(*token_statistics(z, epsilon=0.0), weight)
    score = combine(sums, 1, weight, variant="released", prior=False)
    assert score[0, 0] > 0 and score[0, 1].isnan()
    with pytest.raises(UwmError, match="NaN"):
        select_adaptive(score, 0.1)


def test_a_cache_keeps_readings_apart(vlm, tuples, tmp_path):
    cache = uwm.Cache(tmp_path)
    usual = scored(vlm, tuples, cache=cache, batch_size=3)
    other = scored(vlm, tuples, cache=cache, batch_size=3, weigh="batches")
    third = scored(vlm, tuples, cache=cache, batch_size=3, epsilon=0.5)
    ratios = [scores.sums["text.0.out"].ratio for scores in (usual, other, third)]
    assert not torch.equal(ratios[0], ratios[1]) and not torch.equal(ratios[0], ratios[2])
    again = scored(vlm, tuples, cache=cache, batch_size=3, weigh="batches")
    assert torch.equal(again.sums["text.0.out"].ratio, ratios[1])


def test_an_unfinished_pass_of_another_reading_is_refused(vlm, tuples, tmp_path):
    path = tmp_path / "sums"
    scored(vlm, tuples, save_to=path)
    with pytest.raises(UwmError, match="another pass"):
        scored(vlm, tuples, save_to=path, weigh="batches")
    with pytest.raises(UwmError, match="weighting"):
        scored(vlm, tuples, weigh="layers")


def test_gradient_batches_that_count_alike(vlm, tuples):
    def found(part, **options):
        given = {"vision": None, "progress": False} | options
        return gradient_scores(vlm, part, **given).gradients["text.0.out"]

    whole = [found(tuples[part], batch_size=7) for part in (slice(0, 3), slice(3, 6), slice(6, 7))]
    alike = found(tuples, batch_size=3, weigh="batches")
    assert torch.allclose(alike, torch.stack(whole).mean(dim=0), rtol=1e-4, atol=1e-7)
    each = (3 * whole[0] + 3 * whole[1] + whole[2]) / 7
    assert torch.allclose(found(tuples, batch_size=3), each, rtol=1e-4, atol=1e-7)


# Choosing and calibrating


def test_the_sums_of_a_selection_can_be_taken_in_single_precision():
    # Above 2^30 single precision counts in steps of 64 or 128, so sums of ones move in jumps.
    score = torch.cat([torch.tensor([2.0**30]), torch.ones(1000)])
    held, tau = np.cumsum(score.numpy(), dtype=np.float64), 1 - 2.0**-22
    exact = 1 + int((held[:-1] < tau * held[-1]).sum())
    rounded = held.astype(np.float32).astype(np.float64)
    single = 1 + int((rounded[:-1] < tau * rounded[-1]).sum())
    assert exact != single
    assert len(select_adaptive(score, tau)) == exact
    assert len(select_adaptive(score, tau, sums=torch.float32)) == pytest.approx(single, abs=64)
    assert len(select_adaptive(score, tau, sums=torch.float32)) != exact


def test_as_many_of_each_concept_and_a_draw_of_them():
    pool = replace(tiny_tuples(12), concepts=["a", "b", "c"] * 4)
    drawn = per_concept(pool, n=2, seed=3)
    assert sorted(drawn.concepts) == ["a", "a", "b", "b", "c", "c"]
    assert drawn.fingerprint != per_concept(pool, n=2, seed=4).fingerprint
    assert per_concept(pool, n=4).safe_texts == pool.safe_texts
    with pytest.raises(UwmError, match="there are 4"):
        per_concept(pool, n=5)


def test_overlap_counts_by_encoder_and_chance_by_layer(vlm, tuples):
    scores = scored(vlm, tuples)
    left, right = (scores.select(tau=tau, variant=v) for tau, v in ((0.1, "released"), (0.2, "paper")))
    found = overlap_by_encoder(left, right)["vision"]
    sets, expected = [], 0.0
    for name in left.changes:
        if left.changes[name].encoder == "vision":
            a, b = (set(indices_of(edit)[name].tolist()) for edit in (left, right))
            sets.append((len(a), len(b), len(a & b), len(a | b)))
            expected += len(a) * len(b) / left.changes[name].candidates
    left_n, right_n, both, either = (sum(column) for column in zip(*sets, strict=True))
    assert (found.shared, found.either) == (both, either)
    assert found.jaccard == pytest.approx(both / either)
    assert found.chance == pytest.approx(expected / (left_n + right_n - expected))


def test_overlap_where_only_one_edits(vlm, tuples):
    scores = scored(vlm, tuples)
    both, vision = scores.select(tau=0.1), scores.select(tau=0.1, text=None)
    found = overlap_by_encoder(both, vision)
    assert found["vision"].jaccard == 1.0 and found["text"].jaccard == 0.0 and found["text"].chance == 0.0
    assert overlap_by_encoder(WeightEdit({}), WeightEdit({})) == {}


def test_a_hook_on_an_attentions_projection_sees_nothing_and_its_replacement_does_nothing():
    """The trap of Sec. 5 of our notes: PyTorch's attention reads the weight of `out_proj` and never calls it."""
    vlm, few = tiny_coca(), tiny_tuples(3)
    block = vlm.model.text.transformer.resblocks[0]
    calls = []
    hooks = [
        layer.register_forward_pre_hook(lambda *_, name=name: calls.append(name))
        for name, layer in (("out_proj", block.attn.out_proj), ("c_proj", block.mlp.c_proj))
    ]
    with torch.inference_mode():
        vlm.encode_text(vlm.tokenize(few.safe_texts))
    for hook in hooks:
        hook.remove()
    assert calls == ["c_proj"]
    scores = scored(vlm, few)
    assert all(scores.sums[site.name].ratio.any() for site in vlm.sites(text="out"))


# Metrics


def test_bleu_of_other_orders_smoothed_and_without_brevity_by_hand():
    said, meant = "a red ring", "a red ring on fire"
    brevity = math.exp(1 - 5 / 3)
    assert sentence_bleu(said, meant, order=2) == pytest.approx(brevity)
    assert sentence_bleu(said, meant, order=2, brevity=False) == pytest.approx(1.0)
    assert sentence_bleu(said, meant) == 0.0  # three words have no four-gram
    # Smoothed: precisions 3/3, (2 + 1)/(2 + 1), (1 + 1)/(1 + 1), (0 + 1)/(0 + 1).
    assert sentence_bleu(said, meant, smooth=True) == pytest.approx(brevity)
    crossed = sentence_bleu("a blue ring on fire", meant, order=3, smooth=True)
    assert crossed == pytest.approx((4 / 5 * 3 / 5 * 2 / 4) ** (1 / 3))
    both = bleu_sentences([said, meant], [meant, meant], order=2, brevity=False)
    assert both.tolist() == pytest.approx([1.0, 1.0])


def test_sensitivity_is_the_sum_of_both_modalities_and_paired_with_the_bias():
    rng = np.random.default_rng(0)
    found = {key: share_of(rng.random(200) < rate) for key, rate in zip(
        ("p_s_t", "p_u_t", "p_s_v", "p_u_v"), (0.8, 0.1, 0.9, 0.2), strict=True)}  # fmt: skip
    z = {
        key: uwm.metrics.signal_detection._z_of_count(int(score.items.sum()), 200)[0]
        for key, score in found.items()
    }
    assert sensitivity(found).value == pytest.approx(z["p_s_t"] - z["p_u_t"] + z["p_s_v"] - z["p_u_v"])
    assert safe_bias(found).value == pytest.approx(sum(z.values()) / 2)
    lo, hi = sensitivity(found).interval
    spread = float(np.std(sensitivity(found).items)) / math.sqrt(200)
    assert (hi - lo) / 2 == pytest.approx(1.96 * spread, rel=0.03)
    with pytest.raises(UwmError, match="sensitivity needs all four"):
        sensitivity({"p_s_t": found["p_s_t"]})


# The list


def test_the_list_has_every_item_of_our_notes_that_a_number_hangs_on():
    table = paper.conventions()
    assert sorted(f"{row.facts} {key}" for key, row in table.iterrows()) == sorted(ITEMS)
    assert table["kind"].isin(["differs", "silent", "same"]).all()
    assert (table.loc[table["kind"] == "silent", "printed"] != "").all()
    assert (table[["convention", "printed", "released", "here"]] != "").all(axis=None)


def test_every_switch_of_the_list_is_an_option_of_the_library():
    for key, switch in paper.conventions()["switch"].items():
        if switch:
            module, name, parameter = switch.split(":")
            found = importlib.import_module(module)
            for part in name.split("."):
                found = getattr(found, part)
            assert not parameter or parameter in inspect.signature(found).parameters, key


def test_rows_of_the_list_and_rows_of_the_study_are_the_same():
    listed = {row for rows in paper.conventions()["rows"] for row in rows.split(";") if row}
    switched = {
        *conventions.SELECTIONS,
        *conventions.PASSES,
        *conventions.UNSAFE_ROWS,
        *conventions.GRADIENT_ROWS,
    }
    switched -= {
        conventions.UNSAFE,
        conventions.UNSAFE_ADAPTIVE,
        conventions.GRADIENTS,
        "G-Unsafe as printed",
    }
    draws = {"draw 1", "draw 2", "draw 3", "alike per concept", "four times as many"}
    assert listed == switched | draws | {conventions.UNSAFE_MIXED, "vision alone"}


# The study


def test_a_study_has_every_row_beside_its_own_and_is_the_same_after_a_file(vlm, tuples, tmp_path):
    draws = {"draw 1": tiny_tuples(7, seed=1)}
    asked = {"tau": 0.1, "alpha": -1.0}
    edits = studies.edits_switched(vlm, tuples, draws=draws, **asked, progress=False)
    assert {"UWM", "draw 1", *conventions.SELECTIONS, *conventions.GRADIENT_ROWS} <= set(edits)
    mixed, plain = edits[conventions.UNSAFE_MIXED], edits[conventions.UNSAFE_ADAPTIVE]
    for name, change in mixed.changes.items():
        other = edits["UWM"] if change.encoder == "text" else plain
        assert torch.equal(change.indices, other.changes[name].indices)
    study = studies.measure_conventions(vlm, edits, tuples)
    unswitched = [study.masks[row] for row in ("UWM", "unsafe only", "unsafe only, adaptive", "G-Unsafe")]
    assert all(each.jaccard == 1.0 for masks in unswitched for each in masks.values())
    facts = conventions.conventions_rest_on(vlm, calibration=tuples, test=tuples, **asked)
    studies.save_conventions(tmp_path / "x.safetensors", study, facts=facts)
    read, rest = studies.load_conventions(tmp_path / "x.safetensors")
    assert rest == facts and read.masks == study.masks and list(read.rows) == list(study.rows)
    for row, setting in study.rows.items():
        assert set(study.masks[row]) == {"text", "vision"}
        assert read.rows[row]["gs"] == setting["gs"] and read.rows[row].n_weights == setting.n_weights
    assert (read.base["ts_vs"].items == study.base["ts_vs"].items).all()


def test_rows_are_compared_with_the_edit_that_they_switch_something_in():
    assert conventions.beside("no prior") == conventions.beside("draw 2") == "UWM"
    assert (
        conventions.beside("unsafe only, no prior")
        == conventions.beside("unsafe only, draw 1")
        == "unsafe only"
    )
    assert conventions.beside(conventions.UNSAFE_MIXED) == "unsafe only, adaptive"
    assert conventions.beside("printed targets") == conventions.beside("G-Unsafe, draw 1") == "G-Unsafe"


def test_of_coca_the_encoders_are_measured_apart(tuples):
    vlm = tiny_coca()
    edits = studies.edits_switched(vlm, tuples, progress=False)
    assert list(edits) == ["UWM", "vision alone", "text alone"]
    assert {change.encoder for change in edits["vision alone"].changes.values()} == {"vision"}
    with pytest.raises(UwmError, match="row of conventions"):
        studies.edits_switched(vlm, tuples, only=["printed targets"], progress=False)


@pytest.mark.parametrize(
    "path", sorted(manifests_dir().glob("studies/conventions/*")), ids=lambda path: path.stem
)
def test_what_ships_is_of_a_mini_model_and_whole(path):
    study, facts = studies.load_conventions(path)
    assert study.base.base.model == path.stem and study.base.split == "test" and facts["tau"] == 0.02
    assert set(study.masks) == set(study.rows)
    assert all(study.rows[row]["gs"].n == 2000 for row in study.rows)
    vlm = uwm.load_model(path.stem)
    assert facts["model"] == {encoder: vlm.facts(encoder) for encoder in ("text", "vision")}
    few = uwm.load_tuples("mini-visu", split="test")[:40]
    unedited = uwm.evaluate(vlm, few, cache=uwm.Cache())
    for key in ("p_s_t", "p_u_t", "p_s_v", "p_u_v"):
        assert (unedited[key].items == study.base[key].items[:40]).all()
