"""Benign use: the metric against loops and planted models, the uses by name and from files, and their evaluation."""

from __future__ import annotations

import csv
import dataclasses
import json
import math
import re

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from tiny_models import tiny_clip, tiny_tuples

import uwmlib as uwm
from uwmlib.errors import UwmError
from uwmlib.evaluation import embed_benign
from uwmlib.metrics import BENIGN_KEYS, BenignUse, benign_use, difference_between, label, wilson
from uwmlib.metrics.intervals import Z95, wilson_of_groups
from uwmlib.mini.benign import benign_scenes, draw_benign
from uwmlib.mini.render import render
from uwmlib.mini.scenes import NONE
from uwmlib.mini.worlds import SECOND
from uwmlib.paper import paper_table
from uwmlib.reporting import flatten, paper_beside_ours, record
from uwmlib.tuples import BenignUses, load_benign, validate
from uwmlib.tuples.loading import sample_rows

FORMS = ("harmless", "unsafe", "clean")
NAMES = [f"{form}_{side}" for side in ("text", "image") for form in FORMS]
OUTCOMES = {
    "over_unsafe_t": ("harmless_text", "harmless_image", "unsafe_image"),
    "over_clean_t": ("harmless_text", "harmless_image", "clean_image"),
    "over_unsafe_v": ("harmless_image", "harmless_text", "unsafe_text"),
    "over_clean_v": ("harmless_image", "harmless_text", "clean_text"),
}


def random_forms(n, d, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return {name: torch.randn(n, d, generator=generator) for name in NAMES}


# The metric


@settings(max_examples=50, deadline=None)
@given(n=st.integers(1, 12), d=st.integers(1, 7), seed=st.integers(0, 10**6))
def test_outcomes_equal_loops_over_whole_numbers_with_ties(n, d, seed):
    generator = torch.Generator().manual_seed(seed)
    signs = {name: torch.randint(0, 2, (n, d), generator=generator) * 2 - 1 for name in NAMES}
    lengths = 10 ** (200 * torch.rand(len(NAMES), n, 1, generator=generator, dtype=torch.float64) - 100)
    found = benign_use(**{name: signs[name] * length for name, length in zip(NAMES, lengths, strict=True)})
    shares = []
    for i in range(n):
        share = 0
        for key, (query, own, other) in OUTCOMES.items():
            dots = [
                sum(a * b for a, b in zip(signs[query][i].tolist(), signs[each][i].tolist(), strict=True))
                for each in (own, other)
            ]
            assert bool(getattr(found, key)[i]) == (dots[0] > dots[1])
            share += 25 * (dots[0] > dots[1])
        shares.append(share)
    assert found["benign"].items.tolist() == shares
    assert found["benign"].value == pytest.approx(sum(shares) / n)


def planted(*, hazard=1.0, harm=1.0, n=5):
    """Embeddings that know the scene, and by these weights whether there is a hazard and whether it does harm."""
    scenes = torch.eye(n)
    marks = {"harmless": (hazard, 0.0), "unsafe": (hazard, harm), "clean": (0.0, 0.0)}
    rows = {
        form: torch.cat([scenes, torch.tensor([mark]).expand(n, 2)], dim=1) for form, mark in marks.items()
    }
    return {f"{form}_{side}": rows[form] for form in FORMS for side in ("text", "image")}


def values(found):
    return {key: found[key].value for key in BENIGN_KEYS}


def test_a_model_that_knows_hazard_and_harm_is_perfect():
    assert set(values(benign_use(**planted())).values()) == {100.0}


def test_a_model_that_reads_no_hazard_in_harmless_texts_loses_the_clean_comparisons():
    parts = planted()
    found = values(benign_use(**parts | {"harmless_text": parts["clean_text"]}))
    # It still finds its picture over the unsafe one, and its picture finds the unsafe text nearer.
    assert found == {
        "over_unsafe_t": 100.0, "over_clean_t": 0.0, "over_unsafe_v": 0.0, "over_clean_v": 0.0, "benign": 25.0,
    }  # fmt: skip


def test_a_model_that_cannot_tell_gets_nothing_for_its_ties():
    assert set(values(benign_use(**planted(hazard=0.0, harm=0.0))).values()) == {0.0}
    blind_to_harm = values(benign_use(**planted(harm=0.0)))
    assert blind_to_harm == {
        "over_unsafe_t": 0.0, "over_clean_t": 100.0, "over_unsafe_v": 0.0, "over_clean_v": 100.0, "benign": 50.0,
    }  # fmt: skip


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_equal_directions_tie_whatever_their_lengths(dtype):
    parts = {name: rows.to(dtype) for name, rows in random_forms(300, 37).items()}
    for side in ("text", "image"):
        for form in ("unsafe", "clean"):
            parts[f"{form}_{side}"] = 4 * parts[f"harmless_{side}"]
    assert values(benign_use(**parts))["benign"] == 0.0


@pytest.mark.parametrize("name", NAMES)
def test_bad_embeddings_are_named(name):
    parts = random_forms(4, 3)
    for wrong, words in (
        (parts[name][:3], r"is \[[34], 3\] but"),
        (parts[name][:, :2], "but"),
        (torch.zeros(4, 3, dtype=torch.int64), f"^{name} must be"),
        (torch.zeros(0, 3), f"^{name} must be|but"),
        (torch.full((4, 3), math.nan), f"^Row 0 of {name}"),
        (torch.zeros(4, 3), f"^Row 0 of {name}"),
        ("x", f"^{name} is no dense tensor"),
    ):
        with pytest.raises(UwmError, match=words):
            benign_use(**parts | {name: wrong})


def test_bad_outcomes_and_questions_are_refused():
    yes = [True, False]
    found = BenignUse(yes, yes, yes, yes)
    for ask, words in (
        (lambda: BenignUse(yes, yes, yes, [True]), "over_clean_v has 1 benign uses but over_unsafe_t has 2"),
        (lambda: BenignUse(yes, yes, [1.0, 0.0], yes), "over_unsafe_v must be"),
        (lambda: BenignUse(*[[]] * 4), "over_unsafe_t must be"),
        (lambda: found["bening"], "did you mean 'benign'"),
        (lambda: found.subset([2]), "does not fit 2 benign uses"),
        (lambda: found.subset([False, False]), "non-empty"),
    ):
        with pytest.raises(UwmError, match=words):
            ask()


def test_the_chosen_items_keep_all_their_outcomes():
    found = benign_use(**random_forms(40, 5))
    mask = [i % 3 == 0 for i in range(40)]
    part = found.subset(mask)
    assert part.n == 14
    for key in BENIGN_KEYS:
        assert part[key].items.tolist() == found[key].items[mask].tolist()


# Its interval


def test_answers_that_are_all_alike_count_once():
    for k, n in ((0, 9), (3, 9), (9, 9), (1, 1), (0, 1), (700, 2000)):
        hits = np.array([4] * k + [0] * (n - k))
        assert wilson_of_groups(hits, 4) == pytest.approx(wilson(k, n), abs=1e-7)


def test_answers_that_are_spread_evenly_count_as_independent_and_no_better():
    assert wilson_of_groups(np.full(50, 2), 4) == pytest.approx(wilson(100, 200), abs=1e-7)
    assert wilson_of_groups(np.full(50, 4), 4) == pytest.approx(wilson(50, 50), abs=1e-7)


def test_the_interval_solves_the_score_equation():
    hits = np.array([4, 4, 3, 2, 0, 1, 4, 0, 3, 4, 4, 2])
    rates = hits / 4
    p = rates.mean()
    effective = len(rates) * p * (1 - p) / rates.var(ddof=1)
    assert len(rates) < effective < 4 * len(rates)
    for limit in wilson_of_groups(hits, 4):
        assert abs(p - limit) == pytest.approx(Z95 * math.sqrt(limit * (1 - limit) / effective))


@pytest.mark.parametrize("shape", [(60.0, 2.0), (2.0, 3.0)])
def test_the_interval_covers_the_true_mean(shape):
    """Scenes of their own difficulty: 95% is asked for, also where nearly every answer is right."""
    draw = np.random.default_rng(0)
    truth, covered = shape[0] / sum(shape), []
    for _ in range(1000):
        lo, hi = wilson_of_groups(draw.binomial(4, draw.beta(*shape, 60)), 4)
        assert 0 <= lo < hi <= 1
        covered.append(lo <= truth <= hi)
    assert 0.93 <= np.mean(covered) <= 0.98


def test_a_difference_between_two_models_is_paired():
    before, after = benign_use(**random_forms(80, 5)), benign_use(**random_forms(80, 5, seed=1))
    change = difference_between(after, "benign", before, "benign")
    items = [
        25.0 * sum(int(getattr(after, key)[i]) - int(getattr(before, key)[i]) for key in OUTCOMES)
        for i in range(80)
    ]
    mean = sum(items) / 80
    error = math.sqrt(sum((item - mean) ** 2 for item in items) / 79 / 80)
    assert (change.difference, change.n) == (pytest.approx(mean), 80)
    assert (change.lo, change.hi) == (pytest.approx(mean - Z95 * error), pytest.approx(mean + Z95 * error))
    single = difference_between(after, "over_clean_t", before, "over_clean_t")
    assert single.difference == pytest.approx(after["over_clean_t"].value - before["over_clean_t"].value)
    same = difference_between(before, "benign", before, "benign")
    assert (same.difference, same.lo, same.hi) == (0.0, 0.0, 0.0)


# Uses by name


def test_drawn_uses_are_those_of_the_world(monkeypatch):
    rows = sample_rows(2000, 3, seed=5)
    uses = load_benign("mini-visu", n=3, seed=5)
    assert (uses.name, uses.harmless, len(uses)) == ("mini-visu/benign", True, 3)
    assert uses[:2].fingerprint == load_benign("mini-visu", n=2, seed=5).fingerprint != uses.fingerprint
    scenes, _, _ = benign_scenes(world=SECOND)
    monkeypatch.setattr("uwmlib.mini.benign.render", lambda scenes, world: None)  # six thousand pictures
    whole = draw_benign(world=SECOND)
    assert len(whole["marked"]) == len(whole["clean_texts"]) == 2000
    for i, row in enumerate(rows):
        for form in FORMS:
            (picture,) = render(scenes[form][np.array([row])], world=SECOND)
            assert np.array_equal(getattr(uses, f"{form}_images")[i], picture)
            assert getattr(uses, f"{form}_texts")[i] == whole[f"{form}_texts"][row]
        assert uses.marked[i] == whole["marked"][row] == (scenes["clean"].container[row] != NONE)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"name": "mini-visu-1"}, "no harmless uses of hazards: take mini-visu"),
        ({"name": "mini-vizu"}, "no benign uses called 'mini-vizu': give 'mini-visu' or"),
        ({"name": None}, "no benign uses called 'None'"),
        ({"name": "mini-visu", "split": "dev"}, "has no split 'dev'"),
        ({"name": "mini-visu", "split": 3}, "split is 3"),
        ({"name": "mini-visu", "n": 2001}, "1 to 2000"),
        ({"name": "mini-visu", "n": 2, "seed": -1}, "whole number"),
    ],
)
def test_bad_requests_are_refused(arguments, words):
    with pytest.raises(UwmError, match=words):
        load_benign(**arguments)


# Uses of one's own


def noise_uses(n=6, seed=0, **parts):
    """Noise images of 32 pixels and captions of a word or two."""
    rng = np.random.default_rng(seed)
    pictures = {f"{form}_images": rng.integers(0, 256, (n, 32, 32, 3), dtype=np.uint8) for form in FORMS}
    texts = {f"{form}_texts": [f"{form} word{rng.integers(30)} word{i}" for i in range(n)] for form in FORMS}
    return BenignUses(**{"name": "noise"} | pictures | texts | parts)


@pytest.mark.parametrize(
    ("parts", "words"),
    [
        ({"name": 3}, "The name of benign uses is 3"),
        ({"clean_texts": ["a"]}, "noise is not paired .*clean_texts 1.*every benign use needs one"),
        ({"clean_texts": "abcdef"}, "clean_texts of noise are a str: .* one for each benign use"),
        ({"unsafe_texts": ["a"] * 5 + [" "]}, r"unsafe_texts\[5\] of noise has no visible character"),
        ({"harmless_texts": ["a"] * 5 + [None]}, r"harmless_texts\[5\] of noise is not text"),
        ({"harmless_images": None}, "harmless_images of noise are a NoneType"),
        ({"clean_images": np.zeros((6, 4, 4, 3))}, "clean_images of noise are float64"),
        ({"marked": [True] * 5}, r"marked of noise are bool \[5\]: give one boolean for each of 6"),
        ({"marked": [1] * 6}, "marked of noise are int64"),
        ({"marked": "yes"}, "marked of noise are"),
    ],
)
def test_uses_that_are_not_whole_are_refused(parts, words):
    with pytest.raises(UwmError, match=words):
        noise_uses(**parts)


def test_rows_of_uses_stay_together_and_show_no_caption():
    uses = noise_uses(marked=[True, False, True, False, True, False], harmless=True)
    part = uses[[4, 1]]
    assert part.harmless and part.marked.tolist() == [True, False]
    for form in FORMS:
        assert getattr(part, f"{form}_texts") == [getattr(uses, f"{form}_texts")[i] for i in (4, 1)]
        assert np.array_equal(getattr(part, f"{form}_images"), getattr(uses, f"{form}_images")[[4, 1]])
    assert uses[uses.marked].clean_texts == uses.clean_texts[::2]
    assert repr(uses) == "BenignUses('noise', n=6)"
    assert noise_uses()[:2].marked is None
    for wrong in (9, [9], "x", []):
        with pytest.raises(UwmError, match="row|at least one"):
            uses[wrong]


def test_the_fingerprint_follows_every_part():
    uses = noise_uses()
    prints = {uses.fingerprint}
    for form in FORMS:
        prints.add(dataclasses.replace(uses, **{f"{form}_texts": ["x"] * 6}).fingerprint)
        prints.add(dataclasses.replace(uses, **{f"{form}_images": uses.clean_images * 0}).fingerprint)
    assert len(prints) == 7
    assert noise_uses(marked=[True] * 6).fingerprint == uses.fingerprint


@pytest.fixture
def own(tmp_path):
    """Write a manifest of uses whose pictures are grey: ten times the row, plus the number of the form."""

    def write(*, n=5, suffix=".jsonl", **columns):
        rows = []
        for i in range(n):
            row = {"split": "test" if i < 3 else "train", "marked": "True" if i % 2 else "false"}
            for k, form in enumerate(FORMS):
                Image.new("RGB", (4, 4), (10 * i + k,) * 3).save(tmp_path / f"{form}{i}.png")
                row |= {f"{form}_image": f"{form}{i}.png", f"{form}_text": f"{form} {i}"}
            row |= {name: values[i] for name, values in columns.items()}
            rows.append({name: value for name, value in row.items() if value is not None})
        path = tmp_path / f"uses{suffix}"
        if suffix == ".csv":
            with open(path, "w", newline="", encoding="utf-8") as file:
                writer = csv.DictWriter(file, dict.fromkeys(name for row in rows for name in row))
                writer.writeheader()
                writer.writerows(rows)
        else:
            path.write_text("\n".join(json.dumps(row) for row in rows), encoding="utf-8")
        return path

    return write


@pytest.mark.parametrize("suffix", [".jsonl", ".csv"])
def test_a_manifest_keeps_scenes_together(own, suffix):
    path = own(suffix=suffix)
    uses = load_benign(path, n=3, seed=4)
    assert sorted(uses.clean_texts) == ["clean 0", "clean 1", "clean 2"] and not uses.harmless
    for row, text in enumerate(uses.clean_texts):
        i = int(text.split()[1])
        assert bool(uses.marked[row]) == bool(i % 2)
        for k, form in enumerate(FORMS):
            assert getattr(uses, f"{form}_texts")[row] == f"{form} {i}"
            assert getattr(uses, f"{form}_images")[row].getpixel((0, 0)) == (10 * i + k,) * 3
    assert uses.name == f"uses{suffix}" and len(load_benign(path, split="train")) == 2
    assert len(load_benign(path, n=9, at_most=True)) == 3
    found = validate(path, benign=True)
    assert (found.rows, found.problems) == (5, [])
    assert found.counts == {"test": {"false": 2, "true": 1}, "train": {"true": 1, "false": 1}}


def test_marks_are_jsons_own_or_absent(own):
    uses = load_benign(own(marked=[True, False, True, False, True]), split="test")
    assert uses.marked.tolist() == [True, False, True]
    path = own(marked=[None] * 5, split=[None] * 5)
    assert load_benign(path).marked is None and len(load_benign(path)) == 5
    assert validate(path, benign=True).counts == {"": {"": 5}}


@pytest.mark.parametrize(
    ("columns", "words"),
    [
        ({"marked": ["true", "maybe"]}, "marked in row 2 of .* is 'maybe': give true or false"),
        ({"marked": ["true", 1]}, "marked in row 2 of .* is 1: give true or false"),
        ({"marked": ["true", None]}, "Row 2 of .* has no marked but other rows have one"),
        ({"split": ["test", None]}, "Row 2 of .* has no split but other rows have one"),
        ({"clean_text": ["a", None]}, "Row 2 of .* lacks clean_text"),
        ({"unsafe_text": ["a", 3]}, "unsafe_text in row 2 of .* is 3: give text"),
        ({"harmless_image": ["harmless0.png", "gone.png"]}, "harmless_image in row 2 of .* does not exist"),
    ],
)
def test_what_is_wrong_with_a_manifest_is_named_by_row_and_by_validate_too(own, columns, words):
    path = own(n=2, **columns)
    with pytest.raises(UwmError, match=words):
        load_benign(path)
    (problem,) = validate(path, benign=True).problems
    assert re.search(words, problem)


def test_validate_names_forms_that_share_a_picture_or_a_caption_and_scenes_that_are_there_twice(own):
    path = own(n=2, clean_image=["harmless0.png", "clean1.png"], clean_text=["clean 0", "unsafe 1"])
    path.write_text(f"{path.read_text()}\n{path.read_text().splitlines()[1]}")
    shared, caption, twice, caption_again = validate(path, benign=True).problems
    assert shared.endswith("has one image for two forms ('harmless0.png'): give each its own.")
    assert caption.startswith("Row 2") and "one caption for two forms ('unsafe 1')" in caption
    assert twice.startswith("Row 3") and "repeats row 2" in twice
    assert caption_again.startswith("Row 3")


def test_a_manifest_of_pairs_is_none_of_uses(own, tmp_path):
    (tmp_path / "pairs.csv").write_text("safe_image,unsafe_image,safe_text,unsafe_text\na.png,b.png,a,b\n")
    with pytest.raises(
        UwmError, match="Row 1 .* lacks harmless_image, clean_image, harmless_text, clean_text"
    ):
        load_benign(tmp_path / "pairs.csv")
    with pytest.raises(UwmError, match="Row 1 .* lacks safe_image, safe_text"):
        uwm.load_tuples(own())


# The evaluation


@pytest.fixture(scope="module")
def vlm():
    return tiny_clip()


def test_an_evaluation_equals_loops_over_single_pictures_and_captions(vlm):
    uses, tuples = noise_uses(9), tiny_tuples(4)
    found = uwm.evaluate(vlm, tuples, benign=uses, batch_size=4)
    with torch.inference_mode():
        rows = {
            f"{form}_{side}": [
                vlm.encode_text(vlm.tokenize([getattr(uses, f"{form}_texts")[i]]))[0]
                if side == "text"
                else vlm.encode_image(vlm.preprocess(getattr(uses, f"{form}_images")[i : i + 1]))[0]
                for i in range(9)
            ]
            for form in FORMS
            for side in ("text", "image")
        }
    hits = 0
    for key, (query, own, other) in OUTCOMES.items():
        expected = [
            float(torch.cosine_similarity(rows[query][i], rows[own][i], dim=0))
            > float(torch.cosine_similarity(rows[query][i], rows[other][i], dim=0))
            for i in range(9)
        ]
        assert found[key].items.tolist() == expected
        hits += sum(expected)
    assert found["benign"].value == found.benign["benign"].value == pytest.approx(100 * hits / 36)
    assert 0 < hits < 36


def test_benign_use_stands_beside_the_rest_where_it_was_measured_and_nowhere_else(vlm):
    tuples = tiny_tuples(4)
    without, found = uwm.evaluate(vlm, tuples), uwm.evaluate(vlm, tuples, benign=noise_uses())
    assert without.benign is None and "benign" not in without and "benign" not in str(without)
    assert [key for key in found if key not in without] == list(BENIGN_KEYS)
    assert found.as_percent()["benign"] == found["benign"].value
    for key in BENIGN_KEYS:
        low, high = found[key].interval
        assert f"  {key:<16} {found[key].value:6.1f}   [{low:5.1f}, {high:5.1f}]" in str(found).splitlines()
    assert difference_between(found, "benign", without, "benign") is None
    one = uwm.evaluate(vlm, tuples, benign=noise_uses(1))
    assert "benign" in str(one) and one["benign"].n == 1


def test_an_encoder_is_not_asked_again_for_what_the_cache_holds(vlm, tmp_path, monkeypatch):
    uses, cache = noise_uses(), uwm.Cache(tmp_path / "cache")
    first = embed_benign(vlm, uses, cache=cache)
    plain = embed_benign(vlm, uses)
    assert list(first) == NAMES and all(torch.equal(first[name], plain[name]) for name in NAMES)
    marked = dataclasses.replace(uses, marked=np.ones(6, dtype=bool))
    measured = uwm.evaluate(vlm, tiny_tuples(4), benign=marked, cache=cache)

    def embed(*_, **__):
        raise AssertionError("embedded again")

    monkeypatch.setattr("uwmlib.evaluation._in_batches", embed)
    again = uwm.evaluate(vlm, tiny_tuples(4), benign=uses, cache=cache)
    assert again.as_percent() == measured.as_percent()
    with pytest.raises(AssertionError, match="embedded again"):
        embed_benign(vlm, noise_uses(seed=1), cache=cache)


@pytest.mark.parametrize("benign", ["mini-visu", "", 3, tiny_tuples(2), {}])
def test_a_name_or_tuples_in_place_of_uses_are_refused(vlm, benign):
    with pytest.raises(UwmError, match="benign uses are .*: load them by their name with load_benign"):
        uwm.evaluate(vlm, tiny_tuples(2), benign=benign)


def test_uses_in_place_of_tuples_are_refused(vlm):
    with pytest.raises(
        UwmError, match="The tuples are a BenignUses: load them by their name with load_tuples"
    ):
        uwm.evaluate(vlm, noise_uses())


# Where it shows


def test_tables_and_records_have_it_where_it_was_measured(vlm):
    tuples = tiny_tuples(4)
    rows, keys = ["CLIP", "UWM"], ["gs", "benign"]
    without = uwm.evaluate(vlm, tuples)
    found = uwm.evaluate(vlm, tuples, benign=noise_uses())

    def table(ours, keys):
        return paper_beside_ours(rows, keys, ours, paper_table(1), caption="c", name="tab-t")

    ours = {"CLIP": without, "UWM": without}
    assert table(ours, keys).to_myst() == table(ours, ["gs"]).to_myst()
    ours["UWM"] = found
    header, first, second = table(ours, keys).cells()
    assert header == ["model", "GS", label("benign")] == ["model", "GS", "benign use"]
    assert first[2] == "–" and second[2].replace("\xa0", " ") == str(found["benign"])
    kept = record(ours, keys)
    assert "benign" not in kept["CLIP"]
    low, high = found["benign"].interval
    assert kept["UWM"]["benign"] == {"value": found["benign"].value, "interval": [low, high], "n": 6}
    assert flatten(kept)["UWM.benign.value"] == found["benign"].value


def test_a_profile_names_its_uses(own):
    path = str(own())
    assert uwm.profile("mini").benign == "mini-visu" and len(uwm.profile("mini").load_benign(n=2)) == 2
    assert uwm.profile("paper", data="pairs.csv").load_benign() is None
    setup = uwm.profile_of({"profile": "paper", "data": "pairs.csv", "benign": path})
    assert setup.load_benign().clean_texts == ["clean 0", "clean 1", "clean 2"]
    assert setup.load_benign(n=2, seed=1).fingerprint == load_benign(path, n=2, seed=1).fingerprint
    assert len(setup.load_benign(n=50)) == 3


def test_every_split_has_benign_uses_of_its_own():
    splits = {split: load_benign("mini-visu", split=split, n=50) for split in ("train", "validation", "test")}
    assert splits["test"].name == "mini-visu/benign" and splits["train"].name == "mini-visu/benign/train"
    texts = [set(zip(uses.harmless_texts, uses.unsafe_texts, strict=True)) for uses in splits.values()]
    assert len(set.union(*texts)) > 0.9 * sum(map(len, texts))
    assert len({uses.fingerprint for uses in splits.values()}) == 3
