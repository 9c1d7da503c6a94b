"""The tournament: its ranking, equal benign use, a ladder for each method, and its file."""

from __future__ import annotations

import math
from dataclasses import replace
from functools import partial
from statistics import NormalDist, fmean

import pytest
import torch
from made_settings import N, made_evaluation, made_setting
from tiny_models import tiny_clip, tiny_tuples

import uwmlib as uwm
from uwmlib import studies
from uwmlib.comparison import Setting, benign_lost, ranking, strength_that_spares
from uwmlib.editing import (
    collect_features,
    fit_leace,
    fit_null_space,
    fit_safe_shift,
    interpolation_edit,
    select_magnitude,
    select_random,
)
from uwmlib.errors import UwmError
from uwmlib.evaluation import evaluate_features
from uwmlib.manifests import manifests_dir
from uwmlib.methods import MethodFamily
from uwmlib.metrics import BenignUse
from uwmlib.tuples import BenignUses

SHIPPED = sorted(manifests_dir().glob("studies/tournament/*.safetensors"))

# The ranking


def bias_by_hand(safe):
    """The safe bias of counts of safe answers: the sum over text and image queries of c = (z + z) / 2."""
    z = [NormalDist().inv_cdf((count + 0.5) / (N + 1)) for count in safe]
    return (z[0] + z[1]) / 2 + (z[2] + z[3]) / 2


COUNTS = {  # preferences of two bases' rows, the second base's behind the first's
    "uwm": [(160, 24, 180, 64), (158, 30, 176, 60)],
    "shift": [(170, 60, 185, 90), (165, 64, 183, 100)],
    "noise": [(150, 26, 170, 70), (166, 18, 184, 56)],
    "harm": [(130, 6, 160, 20), (128, 4, 158, 18)],
}
BASE = (160, 20, 180, 60)


@pytest.fixture(scope="module")
def bases():
    return {
        seed: {row: made_setting(90, counts[seed], split="test") for row, counts in COUNTS.items()}
        for seed in (0, 1)
    }


def test_rows_stand_in_the_order_of_their_mean_gain(bases):
    places = ranking(bases, COUNTS, rival="uwm")
    by_hand = {
        row: fmean(bias_by_hand(counts) - bias_by_hand(BASE) for counts in both)
        for row, both in COUNTS.items()
    }
    assert [place.row for place in places] == sorted(by_hand, key=by_hand.get, reverse=True)
    assert {place.row: place.gain.difference for place in places} == pytest.approx(by_hand)
    ahead = {place.row: place.ahead.difference for place in places if place.ahead}
    assert ahead == pytest.approx({row: by_hand[row] - by_hand["uwm"] for row in ahead})
    assert len(ahead) == 3 and all(len(place.gain.by_seed) == 2 for place in places)


def test_tests_against_the_rival_are_corrected_by_holm(bases):
    places = {place.row: place for place in ranking(bases, COUNTS, rival="uwm")}
    raw = sorted((place.ahead.p_value, row) for row, place in places.items() if place.ahead)
    highest = 0.0
    for position, (p, row) in enumerate(raw):
        highest = max(highest, min(1.0, p * (len(raw) - position)))
        assert places[row].p_value == pytest.approx(highest)
    assert places["uwm"].verdict == "rival" and places["uwm"].p_value is None
    corrected = {row: places[row].p_value for row in ("shift", "noise", "harm")}
    for row, p in corrected.items():
        side = "ahead" if places[row].ahead.difference > 0 else "behind"
        assert places[row].verdict == (side if p <= 0.05 else "cannot tell")


def test_one_base_is_ranked_as_well_and_verdicts_have_both_sides(bases):
    close = bases[0] | {"close": made_setting(90, (160, 25, 180, 64), split="test")}
    places = {place.row: place.verdict for place in ranking(close, close, rival="uwm")}
    assert places["close"] == "cannot tell"
    assert places["shift"] == "ahead" and places["harm"] == "behind"


def test_a_row_that_one_base_lacks_has_no_place_and_the_rival_must_have_one(bases):
    fewer = {0: bases[0], 1: {row: each for row, each in bases[1].items() if row != "shift"}}
    assert [place.row for place in ranking(fewer, COUNTS, rival="uwm")] == ["uwm", "noise", "harm"]
    with pytest.raises(UwmError, match="'shift' was not measured on every base"):
        ranking(fewer, COUNTS, rival="shift")


# Equal benign use


def used(kept: float, over_clean=(180, 160), n=N) -> Setting:
    """A setting that keeps `kept` percent of knowledge, with so many harmless uses preferred to the clean scene."""

    def answers(text, image):
        first = torch.arange(n)
        return BenignUse(first < 10, first < text, first < 10, first < image)

    base = replace(made_evaluation(100), benign=answers(180, 160))
    return Setting((replace(made_evaluation(kept), benign=answers(*over_clean)),), base)


def test_what_harmless_uses_lose_is_counted_against_the_clean_scene():
    assert benign_lost(used(90, (176, 150))) == pytest.approx(100 * (4 + 10) / 2 / N)
    with pytest.raises(UwmError, match="Benign use was not measured"):
        benign_lost(made_setting(90))


def test_the_strength_lies_where_a_straight_line_over_its_logarithm_spends_the_budget():
    # Lost: 1 point at 0.1, 7 at 0.4, so 5 points are two thirds of the way from log 0.1 to log 0.4.
    points = {0.4: used(90, (166, 146)), 0.1: used(97, (178, 158)), 0.8: used(85, (100, 100))}
    strength, why = strength_that_spares(points, most=5, least_kept=80)
    assert strength == pytest.approx(math.exp(math.log(0.1) + 2 / 3 * math.log(4)), abs=5e-4)
    assert why.startswith("benign use is spent")


def test_the_budget_that_is_met_first_counts():
    # Knowledge: from 90 to 70, so 80 lies half way; benign use: from 1 to 7, so 5 lies at two thirds.
    points = {0.1: used(90, (178, 158)), 0.4: used(70, (166, 146))}
    strength, why = strength_that_spares(points, most=5, least_kept=80)
    assert strength == pytest.approx(0.2, abs=5e-4) and why.startswith("knowledge is spent")


def test_no_strength_spends_too_much_and_none_is_found_where_the_weakest_does():
    points = {0.1: used(97, (178, 158)), 0.4: used(90, (176, 158))}
    assert strength_that_spares(points)[0] == 0.4
    strength, why = strength_that_spares({0.1: used(70, (100, 100))})
    assert strength is None and "benign use and knowledge" in why


# On a model


def scaled(calls: list[float], offset: float = 0.0) -> MethodFamily:
    """A method that notes the strengths that it is asked for."""

    def fit(vlm, tuples, *, cache=None, progress=True):
        def method(strength):
            calls.append(strength)
            return select_magnitude(vlm, tau=min(1.0, strength + offset))

        return method

    return MethodFamily("share", (), fit)


RULES = studies.Rules(shares=(90.0, 60.0), least_kept=0, tolerance=15, steps=2)


def tiny_uses(n: int) -> BenignUses:
    tuples, other = tiny_tuples(n, seed=5), tiny_tuples(n, seed=6)
    return BenignUses(
        name="uses", harmless_images=tuples.safe_images, unsafe_images=tuples.unsafe_images,
        clean_images=other.safe_images, harmless_texts=tuples.safe_texts, unsafe_texts=tuples.unsafe_texts,
        clean_texts=other.safe_texts,
    )  # fmt: skip


@pytest.fixture(scope="module")
def arena():
    validation, test = (replace(tiny_tuples(24), split=split) for split in ("validation", "test"))
    return studies.Arena(
        tiny_clip(), validation, test, spared=tiny_uses(12), benign=tiny_uses(12),
        rules=RULES,
    )  # fmt: skip


def both_draws(vlm, tau):
    return [select_random(vlm, tau=tau, seed=seed) for seed in (0, 1)]


@pytest.fixture(scope="module")
def found(arena):
    ladders = {"weak": (0.001, 0.01), "wide": (0.02, 0.2, 0.8)}
    calls = {name: [] for name in ladders}
    methods = {name: replace(scaled(calls[name]), strengths=ladders[name]) for name in ladders}

    def refuse(vlm, tuples, **options):
        raise UwmError("not this model")

    methods["refused"] = MethodFamily("none", (0.1,), refuse)
    methods["drawn"] = MethodFamily("tau", (0.1, 0.9), lambda vlm, tuples, **_: partial(both_draws, vlm))
    methods["shift"] = MethodFamily(
        "alpha", (0.001, 0.01, 0.1, 20.0), partial(studies.roster._fitted, fit=fit_safe_shift)
    )
    tournament = studies.measure_tournament(
        arena,
        methods,
        calibration=tiny_tuples(10, seed=3),
        others={"other": tiny_clip(seed=1)},
        progress=False,
    )
    return tournament, calls, ladders


def test_every_method_has_a_ladder_of_its_own(found):
    tournament, calls, ladders = found
    for name, ladder in ladders.items():
        assert tuple(dict.fromkeys(calls[name]))[: len(ladder)] == ladder
        assert set(ladder) <= set(tournament.curves[name])
    assert tournament.refused == {"refused": "not this model"} and "refused" not in tournament.curves


def test_rows_are_the_edits_at_the_strengths_that_validation_found(arena, found):
    tournament = found[0]
    asked = {"benign": arena.benign, "match": True}
    rows = [row for row, strength in tournament.strengths.items() if strength is not None]
    assert [*rows, "other"] == list(tournament.rows) and any(row.startswith("weak") for row in rows)
    for row in rows:
        if row.startswith("weak"):
            with select_magnitude(arena.vlm, tau=tournament.strengths[row]).applied(arena.vlm):
                run = uwm.evaluate(arena.vlm, arena.test, **asked)
            assert tournament.rows[row].runs[0].as_percent() == run.as_percent()
    assert tournament.at("60%") == [row for row in rows if row.endswith(", 60%")]
    assert tournament.base["knowledge_kept"].value == 100 and tournament.base.split == "test"


def test_of_a_method_with_several_draws_every_one_is_measured(arena, found):
    tournament = found[0]
    row = next(row for row in tournament.rows if row.startswith("drawn"))
    edits, runs = both_draws(arena.vlm, tournament.strengths[row]), tournament.rows[row].runs
    assert tournament.costs["drawn"].n_weights == edits[0].n_weights
    for edit, run in zip(edits, runs, strict=True):
        with edit.applied(arena.vlm):
            assert uwm.evaluate(arena.vlm, arena.test)["gs"] == run["gs"]
    drawn = studies.entrants(names=["random"])["random"].fit(arena.vlm, arena.validation)(0.1)
    assert [edit.description["seed"] for edit in drawn] == [0, 1, 2]


def test_what_is_measured_from_features_is_what_the_edit_does(arena, found):
    tournament, shift = found[0], fit_safe_shift(arena.vlm, tiny_tuples(10, seed=3), progress=False)
    row = next(row for row in tournament.rows if row.startswith("shift"))
    with shift.edit(tournament.strengths[row]).applied(arena.vlm):
        run = uwm.evaluate(arena.vlm, arena.test, benign=arena.benign, match=True)
    assert tournament.rows[row].runs[0].as_percent() == pytest.approx(run.as_percent(), abs=100 / 24 + 1e-6)
    assert tournament.costs["shift"].n_weights == 64


@pytest.mark.parametrize("fit", [fit_leace, fit_null_space])
def test_changes_of_features_are_those_of_the_edit(arena, fit):
    fitted = fit(arena.vlm, tiny_tuples(30, seed=3), progress=False)
    features = collect_features(arena.vlm, arena.validation)
    with fitted.edit(0.7).applied(arena.vlm):
        applied = collect_features(arena.vlm, arena.validation)
    changed = features.changed(fitted.changes(0.7))
    for part, rows in applied.tuples.items():
        assert torch.allclose(changed.tuples[part], rows, atol=2e-4), part
    assert any(not torch.allclose(applied.tuples[part], features.tuples[part]) for part in applied.tuples)


def test_features_are_measured_as_a_model_is(arena):
    features = collect_features(arena.vlm, arena.test, benign=arena.benign)
    run = studies.tournament._of_features(features)
    direct = uwm.evaluate(arena.vlm, arena.test, benign=arena.benign, match=True)
    assert run.as_percent() == direct.as_percent()
    assert evaluate_features(features).as_percent().items() <= run.as_percent().items()


def test_a_saved_tournament_is_the_tournament(tmp_path, arena, found):
    tournament = found[0]
    studies.save_tournament(tmp_path / "held", tournament, facts=arena.facts())
    again, facts = studies.load_tournament(tmp_path / "held")
    assert facts == arena.facts()
    assert again.curves == tournament.curves and again.unedited == tournament.unedited
    assert again.strengths == tournament.strengths and again.reasons == tournament.reasons
    assert again.costs == tournament.costs and again.refused == tournament.refused
    assert list(again.rows) == list(tournament.rows)
    for row, setting in tournament.rows.items():
        assert again.rows[row].n_weights == setting.n_weights
        assert len(again.rows[row].runs) == len(setting.runs) == 1 + row.startswith("drawn")
        for key in ("safe_bias", "gs", "knowledge_kept", "benign", "match"):
            assert again.rows[row][key] == setting[key]


def test_what_a_tournament_has_is_not_measured_again(arena, found):
    again = studies.measure_tournament(
        arena, {"wide": scaled([])}, calibration=tiny_tuples(10), start=found[0], progress=False
    )
    assert again.curves["wide"] is found[0].curves["wide"]
    with pytest.raises(UwmError, match="strengths are"):  # an empty ladder, of one that it lacks
        raise UwmError(
            studies.measure_tournament(
                arena, {"new": scaled([])}, calibration=tiny_tuples(10), start=replace(found[0], refused={}),
                progress=False,
            ).refused["new"]
        )  # fmt: skip


def test_a_shipped_tournament_is_read_only_where_it_rests_on_what_is_asked(
    tmp_path, arena, found, monkeypatch
):
    calibration = tiny_tuples(10, seed=3)
    monkeypatch.setattr(studies.files, "manifests_dir", lambda: tmp_path)
    path = studies.study_path("tournament", arena.vlm.name)
    path.parent.mkdir(parents=True)
    facts = arena.facts() | {"calibration": calibration.fingerprint}
    studies.save_tournament(path, found[0], facts=facts)
    held, source = studies.shipped_tournament(arena, calibration)
    assert source.startswith("Read from") and list(held.rows) == list(found[0].rows)
    for other in (replace(arena, rules=studies.Rules()), replace(arena, test=arena.test[:20]),
                  replace(arena, benign=None), replace(arena, vlm=tiny_clip(seed=1))):  # fmt: skip
        assert studies.shipped_tournament(other, calibration)[0] is None
    assert studies.shipped_tournament(arena, tiny_tuples(9))[0] is None


def test_a_map_takes_part_where_benign_uses_are_and_wise_ft_where_a_safe_clip_is():
    everyone = studies.entrants()
    assert "safe-shift-map" not in everyone and "wise-ft" not in everyone
    more = studies.entrants(benign=tiny_uses(4), safe=tiny_clip(1))
    assert set(more) - set(everyone) == {"safe-shift-map", "wise-ft"}
    with pytest.raises(UwmError, match="entrant"):
        studies.entrants(names=["nobody"])
    edits = more["wise-ft"].fit(tiny_clip(), tiny_tuples(4))
    assert edits(1.0).description["method"] == "wise-ft"


# What ships


@pytest.mark.parametrize("path", SHIPPED, ids=lambda path: path.stem)
def test_what_ships_belongs_to_the_models_on_record_and_has_every_answer(path):
    held, facts = studies.load_tournament(path)
    vlm = uwm.load_model(path.stem)
    assert facts["model"] == {encoder: vlm.facts(encoder) for encoder in ("text", "vision")}
    assert facts["rules"]["shares"] == list(studies.Rules().shares) and held.base.split == "test"
    assert held.rows and all(each["gs"].n == 2000 and each["benign"].n == 500 for each in held.rows.values())
    for row in held.rows:
        assert row in held.strengths or ", " not in row
    asked = set(studies.ENTRANTS) - {"safe-clip"} - (set() if "safe-clip" in held.rows else {"wise-ft"})
    assert held.costs.keys() | held.refused.keys() == asked
    assert all(len(held.rows[row].runs) == 3 for row in held.rows if row.startswith("random"))


def test_what_ships_of_a_base_is_what_it_answers():
    held, _ = studies.load_tournament(studies.study_path("tournament", "mini-ViT-L-14"))
    few = uwm.load_tuples("mini-visu", split="test")[:20]
    answers = uwm.evaluate(uwm.load_model("mini-ViT-L-14"), few).safeground
    assert torch.equal(answers.p_u_v, held.base.base.safeground.p_u_v[:20])


def test_the_tower_of_a_llava_sees_as_the_edited_tower_does_whatever_the_edit_changes():
    vlm, llava = (uwm.load_model(name) for name in ("mini-ViT-L-14", "mini-LLaVA"))
    pixels = torch.rand(3, 3, *vlm.pixels.size, generator=torch.Generator().manual_seed(0))
    whole = interpolation_edit(vlm, uwm.load_model("mini-Safe-CLIP"), 0.5)
    for edit in (select_magnitude(vlm, tau=0.1), whole):
        carried = studies.edit_of_tower(edit, vlm, llava)
        with edit.applied(vlm), carried.applied(llava), torch.inference_mode():
            mine = vlm.model.visual(pixels)
            seen = llava.tower(pixels).pooler_output @ vlm.model.visual.proj
        unedited = vlm.model.visual(pixels)
        assert torch.allclose(mine, seen, atol=1e-4) and not torch.allclose(mine, unedited, atol=1e-2)


def test_an_edit_of_another_tower_or_of_texts_alone_is_not_carried_over():
    vlm, llava = (uwm.load_model(name) for name in ("mini-ViT-L-14", "mini-LLaVA"))
    edit = select_magnitude(vlm, tau=0.1)
    with pytest.raises(UwmError, match="fit the edit on its own"):
        studies.edit_of_tower(edit, uwm.load_model("mini-ViT-L-14-seed1"), llava)
    with pytest.raises(UwmError, match="changes nothing in the tower"):
        studies.edit_of_tower(select_magnitude(vlm, tau=0.1, vision=None), vlm, llava)


def test_held_out_concepts_are_in_no_tuple_of_the_fit():
    tuples = replace(tiny_tuples(12), concepts=[f"concept {i % 4}" for i in range(12)])
    concepts = studies.hold_out(tuples)
    assert len(concepts) == 1
    seen, unseen = (studies.of_concepts(tuples, concepts, held_out=x) for x in (False, True))
    assert not set(seen.concepts) & set(concepts) and set(unseen.concepts) == set(concepts)
    asked = []

    def fit(vlm, given, *, cache=None, progress=True):
        asked.append(set(given.concepts))
        return lambda strength: select_magnitude(vlm, tau=strength)

    base, rows = studies.measure_unseen(
        tiny_clip(), {"mine": MethodFamily("tau", (), fit)}, {"mine": 0.1}, calibration=tuples, test=tuples,
        concepts=concepts,
    )  # fmt: skip
    assert asked == [set(seen.concepts)] and base.safeground.n == rows["mine"].safeground.n == len(unseen)
