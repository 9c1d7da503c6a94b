"""Studies: evaluations as files, the study at equal knowledge, and what ships of both."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from made_settings import made_evaluation
from tiny_models import tiny_clip, tiny_tuples

import uwmlib as uwm
from uwmlib import studies
from uwmlib.comparison import choose_on_validation
from uwmlib.errors import UwmError
from uwmlib.files import load_tensors, save_tensors
from uwmlib.manifests import manifests_dir
from uwmlib.metrics import DIRECTIONS, BenignUse, Retrieval, SafeGround, share_of
from uwmlib.metrics.benign import COMPARISONS
from uwmlib.metrics.signal_detection import PREFERENCE_KEYS
from uwmlib.models.mini import mini_models
from uwmlib.studies import controlled, files, shipped
from uwmlib.studies.evaluations import KIND

PLAN = studies.Plan(
    shares=(90.0, 60.0), strengths=(0.02, 0.2, 0.8), least_kept=0, tolerance=15, steps=3, seeds=2
)
# Other studies have tests of their own beside what makes them.
SHIPPED = sorted(
    path for folder in ("equal_knowledge", "scores", "table1")
    for path in manifests_dir().glob(f"studies/{folder}/*.safetensors")
)  # fmt: skip


def drawn_evaluation(n, *, benign=0, sets=None, highest=None, match=False, seed=0):
    """Random answers to n tuples, `benign` uses and sets of given sizes; ranks up to `highest`."""
    generator = torch.Generator().manual_seed(seed)

    def answers(size):
        return torch.rand(size, generator=generator) < 0.5

    ranks = {key: torch.randint(1, (highest or n) + 1, (n,), generator=generator) for key in DIRECTIONS}
    return replace(
        made_evaluation(),
        safeground=SafeGround(*(answers(n) for _ in PREFERENCE_KEYS)),
        retrieval=Retrieval(ranks),
        zero_shot={name: share_of(answers(size)) for name, size in (sets or {}).items()},
        benign=BenignUse(*(answers(benign) for _ in COMPARISONS)) if benign else None,
        match=share_of(answers(n)) if match else None,
    )


def assert_same_answers(one, other):
    assert (one.model, one.data, one.split) == (other.model, other.data, other.split)
    for key in DIRECTIONS:
        assert torch.equal(one.retrieval.ranks[key], other.retrieval.ranks[key])
    for key in PREFERENCE_KEYS:
        assert torch.equal(getattr(one.safeground, key), getattr(other.safeground, key))
    assert (one.benign is None) == (other.benign is None)
    for key in COMPARISONS if one.benign else ():
        assert torch.equal(getattr(one.benign, key), getattr(other.benign, key))
    assert one.match == other.match and (one.match is None or (one.match.items == other.match.items).all())
    assert list(one.zero_shot) == list(other.zero_shot)
    for name, score in one.zero_shot.items():
        assert score == other.zero_shot[name] and (score.items == other.zero_shot[name].items).all()


# Evaluations as files


@pytest.mark.parametrize(
    ("n", "options"),
    [
        (1, {}),
        (8, {"benign": 3}),
        (11, {"match": True}),
        (13, {"benign": 16, "sets": {"pets": 5, "cars": 9}}),
        (9, {"sets": {"one": 1}, "highest": 2**15 - 1}),
        (9, {"highest": 2**15 + 5}),
    ],
)
def test_every_answer_comes_back(tmp_path, n, options):
    given = {f"row {seed}": drawn_evaluation(n, seed=seed, **options) for seed in (1, 0)}
    studies.save_evaluations(tmp_path / "found", given, facts={"tau": 0.02})
    found, facts = studies.load_evaluations(tmp_path / "found")
    assert facts == {"tau": 0.02} and list(found) == list(given)
    for name, each in given.items():
        assert_same_answers(found[name], each)


def test_what_is_no_evaluation_is_not_saved(tmp_path):
    with pytest.raises(UwmError, match="what `evaluate` returned"):
        studies.save_evaluations(tmp_path / "found", {"CLIP": {"gs": 3.0}})
    with pytest.raises(UwmError, match="JSON cannot hold"):
        studies.save_evaluations(tmp_path / "found", {}, facts={"when": object()})
    assert not (tmp_path / "found").exists()


def changed(path, change):
    """Write the file again with its parts changed, as another program might."""
    tensors, metadata = load_tensors(path, kind=KIND)
    change(tensors, metadata)
    save_tensors(path, tensors, kind=KIND, metadata=metadata)


@pytest.mark.parametrize(
    "change",
    [
        lambda tensors, metadata: tensors.pop("CLIP|ranks"),
        lambda tensors, metadata: tensors.pop("CLIP|benign"),
        lambda tensors, metadata: tensors.pop("CLIP|zero_shot"),
        lambda tensors, metadata: tensors.update({"CLIP|preferences": tensors["CLIP|preferences"][:, :1]}),
        lambda tensors, metadata: tensors.update({"CLIP|preferences": tensors["CLIP|preferences"][:2]}),
        lambda tensors, metadata: tensors.update({"CLIP|ranks": tensors["CLIP|ranks"][:, 1:]}),
        lambda tensors, metadata: metadata["evaluations"][0].pop("model"),
        lambda tensors, metadata: metadata["evaluations"].append(3),
        lambda tensors, metadata: metadata["evaluations"][0].update(zero_shot=[["pets", 20]]),
        lambda tensors, metadata: metadata.pop("facts"),
    ],
)
def test_a_file_that_lacks_a_part_is_refused(tmp_path, change):
    path = tmp_path / "found"
    studies.save_evaluations(path, {"CLIP": drawn_evaluation(12, benign=4, sets={"pets": 6})})
    changed(path, change)
    with pytest.raises(UwmError, match="make the file again"):
        studies.load_evaluations(path)


# At equal knowledge


@pytest.fixture(scope="module")
def asked():
    """Scores of a tiny model, and what a study of it is given."""
    scores = uwm.score(tiny_clip(), tiny_tuples(6), progress=False)
    validation, test = (replace(tiny_tuples(24), split=split) for split in ("validation", "test"))
    return scores, {"validation": validation, "test": test, "plan": PLAN}


@pytest.fixture(scope="module")
def study(asked):
    scores, parts = asked
    methods = studies.methods_compared(scores, PLAN)
    return studies.measure_equal_knowledge(scores.vlm, methods, **parts)


def test_the_study_measures_every_method_where_it_says(asked, study):
    scores, parts = asked
    methods = studies.methods_compared(scores, PLAN)
    assert list(methods) == ["UWM", "UWM printed", "random", "reversed", "magnitude"]
    assert [len(each.runs) for each in study.curves["random"].values()] == [2, 2, 2]
    rows = [f"{name}, {share:g}%" for share in PLAN.shares for name in methods]
    assert list(study.found) == rows and study.equal
    for row, setting in study.equal.items():
        edits = methods[row.rpartition(", ")[0]](study.found[row].strength)
        for edit, run in zip(edits if isinstance(edits, list) else [edits], setting.runs, strict=True):
            with edit.applied(scores.vlm):
                assert_same_answers(uwm.evaluate(scores.vlm, parts["test"]), run)
        assert setting.base.split == "test" and study.found[row].setting.base.split == "validation"


@pytest.fixture(scope="module")
def rows(asked):
    """A study of the rows of Tables 3, 6, 7 and 9, with the plan's tau."""
    scores, parts = asked
    plan = replace(PLAN, tau=0.3, shares=(70.0,))
    methods = studies.scores_compared(scores, plan)
    return studies.measure_equal_knowledge(scores.vlm, methods, **parts | {"plan": plan})


def test_a_plan_with_tau_measures_it_and_the_pick_of_each_curve_on_the_test(asked, rows, study):
    scores, parts = asked
    assert list(rows.at_tau) == list(studies.SCORES) and not study.at_tau and not study.picked
    for name, kind in studies.SCORES.items():
        strengths = {"at_tau": 0.3, "picked": choose_on_validation(rows.curves[name]).name}
        for part, strength in strengths.items():
            if strength is None:
                assert name not in rows.picked
                continue
            with scores.select(tau=strength, **kind).applied(scores.vlm):
                assert_same_answers(
                    uwm.evaluate(scores.vlm, parts["test"]), getattr(rows, part)[name].runs[0]
                )


def test_a_saved_study_keeps_what_its_tau_asked_for(tmp_path, rows):
    controlled.save_equal_knowledge(tmp_path / "rows", rows, facts={})
    found, _ = controlled.load_equal_knowledge(tmp_path / "rows")
    for part in controlled.PLAIN:
        held = getattr(rows, part)
        assert list(getattr(found, part)) == list(held) and held
        for name, each in held.items():
            assert_same_answers(getattr(found, part)[name].runs[0], each.runs[0])
            assert getattr(found, part)[name].n_weights == each.n_weights


def test_the_rows_differ_from_each_other_and_one_is_uwm(asked):
    scores, _ = asked
    edits = {row: method(0.3) for row, method in studies.scores_compared(scores).items()}
    assert edits["ratio+adaptive"].description == scores.select(tau=0.3).description
    chosen = {
        row: tuple(tuple(change.indices.tolist()) for change in edit.changes.values())
        for row, edit in edits.items()
    }
    assert len(set(chosen.values())) == len(chosen)


def test_the_printed_reading_is_another_edit(asked):
    methods = studies.methods_compared(asked[0], PLAN)
    printed = asked[0].select(tau=0.2, variant="paper")
    assert methods["UWM printed"](0.2).description == printed.description
    assert methods["UWM"](0.2).description != printed.description


def test_pairs_set_both_readings_against_each_control_at_one_share(study):
    pairs = study.pairs()
    assert len(pairs) == len(set(pairs)) == 2 * 2 * 3
    for own, control in pairs:
        assert own.startswith("UWM") and not control.startswith("UWM")
        assert own.rpartition(", ")[2] == control.rpartition(", ")[2]


def test_marks_are_the_settings_at_the_shares(study):
    for name, marks in study.marked.items():
        at = [study.found[f"{name}, {share:g}%"] for share in PLAN.shares]
        assert marks == [each.setting for each in at if each.strength is not None]


def test_a_saved_study_is_the_study(tmp_path, study):
    path = tmp_path / "study"
    controlled.save_equal_knowledge(path, study, facts={"model": "tiny"})
    found, facts = controlled.load_equal_knowledge(path)
    assert facts == {"model": "tiny"}
    assert_same_answers(found.base.base, study.base.base)
    assert_same_answers(found.unedited.base, study.unedited.base)
    assert list(found.curves) == list(study.curves) and list(found.found) == list(study.found)
    for name, points in study.curves.items():
        assert list(found.curves[name]) == list(points)
        for strength, setting in points.items():
            assert found.curves[name][strength]["safe_bias"] == setting["safe_bias"]
            assert found.curves[name][strength].n_weights == setting.n_weights
    for row, each in study.found.items():
        again = found.found[row]
        assert (again.share, again.strength, again.reason) == (each.share, each.strength, each.reason)
        assert (row in found.equal) == (row in study.equal)
    assert studies.choose_uwm(found.curves)[0].reason == studies.choose_uwm(study.curves)[0].reason


def test_uwm_is_chosen_among_both_readings_by_the_rule(study):
    choice, place = studies.choose_uwm(study.curves)
    candidates = {
        (name, at): each for name in ("UWM", "UWM printed") for at, each in study.curves[name].items()
    }
    enough = {at: each for at, each in candidates.items() if each["knowledge_kept"].value >= 80}
    if not enough:
        assert place is None
        return
    best = max(each["safe_bias"].value for each in enough.values())
    assert enough[place]["safe_bias"].value == best == choice.setting["safe_bias"].value


# What ships


@pytest.fixture
def own_folder(tmp_path, monkeypatch):
    """Shipped data of the test's own: an empty folder of studies."""
    (tmp_path / "studies").mkdir()
    monkeypatch.setattr(files, "manifests_dir", lambda: tmp_path)
    return tmp_path


def test_a_shipped_study_is_read_only_where_it_rests_on_what_is_asked(own_folder, asked, study, monkeypatch):
    scores, parts = asked
    facts = shipped.rests_on(scores, **parts)
    path = studies.study_path("equal-knowledge", scores.vlm.name)
    controlled.save_equal_knowledge(path, study, facts=facts)
    monkeypatch.setattr(shipped, "measure_equal_knowledge", lambda *args, **options: "measured")
    found, source = studies.equal_knowledge(scores, **parts)
    assert source.startswith("Read from") and found.found.keys() == study.found.keys()
    fewer = parts | {"test": replace(tiny_tuples(23), split="test")}
    for other in (fewer, parts | {"plan": replace(PLAN, alpha=0.0)}):
        assert studies.equal_knowledge(scores, **other) == ("measured", "Measured in this run.")
    others = uwm.score(tiny_clip(seed=1), tiny_tuples(6), progress=False)
    assert others.vlm.name == scores.vlm.name
    assert studies.equal_knowledge(others, **parts)[0] == "measured"


def test_curves_are_read_whatever_the_test_tuples_and_only_where_they_rest_on_the_same(
    own_folder, asked, study, monkeypatch
):
    scores, parts = asked
    curves = {"validation": parts["validation"], "plan": PLAN}
    measured, source = studies.uwm_curves(scores, **curves)
    assert source == "Measured in this run."
    other = parts | {"test": replace(tiny_tuples(23), split="test")}
    path = studies.study_path("equal-knowledge", scores.vlm.name)
    controlled.save_equal_knowledge(path, study, facts=shipped.rests_on(scores, **other))
    monkeypatch.setattr(shipped, "evaluate_strengths", lambda *args, **options: "measured")
    read, source = studies.uwm_curves(scores, **curves)
    assert source.startswith("Read from") and list(read) == list(measured) == ["UWM", "UWM printed"]
    for name, points in measured.items():
        assert list(read[name]) == list(points)
        for strength, each in points.items():
            assert_same_answers(read[name][strength].runs[0], each.runs[0])
    for change in (
        {"validation": replace(tiny_tuples(23), split="validation")},
        {"plan": replace(PLAN, alpha=0.0)},
    ):
        assert studies.uwm_curves(scores, **curves | change)[0]["UWM"] == "measured"


def test_studies_of_other_seeds_are_read_only_where_they_rest_on_the_same(
    own_folder, asked, study, monkeypatch
):
    scores, parts = asked
    setup, others = uwm.profile("mini"), {"mini-ViT-L-14-seed1": tiny_clip(seed=1)}
    monkeypatch.setattr(shipped, "load_model", others.get)
    assert studies.equal_knowledge_of_seeds(setup, scores, **parts) == {}
    facts = shipped.rests_on(scores, **parts)
    path = studies.study_path("equal-knowledge", "mini-ViT-L-14-seed1")
    controlled.save_equal_knowledge(path, study, facts=facts)
    assert studies.equal_knowledge_of_seeds(setup, scores, **parts) == {}  # of another model's weights
    own = facts | {"model": shipped._model_facts(others["mini-ViT-L-14-seed1"])}
    controlled.save_equal_knowledge(path, study, facts=own)
    found = studies.equal_knowledge_of_seeds(setup, scores, **parts)
    assert list(found) == [1] and list(found[1].equal) == list(study.equal)
    fewer = parts | {"test": replace(tiny_tuples(23), split="test")}
    assert studies.equal_knowledge_of_seeds(setup, scores, **fewer) == {}


def test_rows_of_other_seeds_are_read_only_under_the_same_readings(own_folder, monkeypatch):
    setup, tuples, readings = uwm.profile("mini"), tiny_tuples(6), studies.Readings()
    data = {"calibration": tuples, "validation": tuples, "test": tuples}
    found, why = studies.rows_of_seeds(setup, **data, readings=readings)
    assert found == {} and "this base alone" in why
    models = setup.seeds[2]
    facts = shipped.rows_rest_on(models, *data.values(), readings)
    path = studies.study_path("table1", models[0])
    studies.save_evaluations(path, {"CLIP": drawn_evaluation(6)}, facts=facts)
    found, source = studies.rows_of_seeds(setup, **data, readings=readings)
    assert list(found) == [2] and list(found[2]) == ["CLIP"] and models[0] in source
    assert studies.rows_of_seeds(setup, **data, readings=replace(readings, tau=0.1))[0] == {}
    assert studies.rows_of_seeds(setup, **data | {"test": tiny_tuples(5)}, readings=readings)[0] == {}
    entries = mini_models() | {models[1]: {"sha256": "another training"}}
    monkeypatch.setattr(shipped, "mini_models", lambda: entries)
    assert studies.rows_of_seeds(setup, **data, readings=readings)[0] == {}


@pytest.mark.parametrize(
    "other", [{"base_weights": "mine.safetensors"}, {"benign": "uses.csv"}, {"zero_shot": "sets"}]
)
def test_rows_of_the_own_base_are_read_when_asked_for_and_only_as_the_profile_has_it(own_folder, other):
    setup, tuples, readings = uwm.profile("mini"), tiny_tuples(6), studies.Readings()
    data = {"calibration": tuples, "validation": tuples, "test": tuples, "readings": readings}
    models = (setup.base_model, setup.safe_model)
    facts = shipped.rows_rest_on(models, tuples, tuples, tuples, readings)
    path = studies.study_path("table1", models[0])
    studies.save_evaluations(path, {"CLIP": drawn_evaluation(6)}, facts=facts)
    assert studies.rows_of_seeds(setup, **data)[0] == {}
    found, source = studies.rows_of_seeds(setup, **data, own=True)
    assert list(found) == [0] and models[0] in source
    for changed in (uwm.profile("mini", **other), replace(setup, **other)):
        assert studies.rows_of_seeds(changed, **data, own=True)[0] == {}


def test_another_base_has_no_other_seeds():
    assert uwm.profile("mini").seeds
    assert not uwm.profile("mini", base_model="mini-ViT-B-32").seeds
    assert not uwm.profile("mini", safe_model="mini-ViT-B-32").seeds
    assert uwm.profile("mini", base_model="mini-ViT-L-14").seeds


def test_a_study_that_cannot_be_made_is_refused(tmp_path):
    with pytest.raises(UwmError, match="equal-knowledge"):
        studies.make_study("a game", "mini-ViT-L-14", output=tmp_path)
    with pytest.raises(UwmError, match="of one mini model: name it"):
        studies.make_study("scores", output=tmp_path)
    with pytest.raises(UwmError, match="no Safe-CLIP of 'mini-CoCa'"):
        studies.make_study("table1", "mini-CoCa", output=tmp_path)
    assert not list(tmp_path.rglob("*.safetensors"))


def test_a_study_of_no_model_takes_none_and_bears_its_own_name(tmp_path, monkeypatch):
    def make(path, *, progress, cache):
        path.parent.mkdir(parents=True)
        path.write_text("found")

    monkeypatch.setitem(studies.STUDIES, "worldwide", studies.Study("of no model", make, of=""))
    with pytest.raises(UwmError, match="of no model: leave out 'mini-CoCa'"):
        studies.make_study("worldwide", "mini-CoCa", output=tmp_path)
    path = studies.make_study("worldwide", output=tmp_path)
    assert path == tmp_path / "worldwide" / "worldwide.safetensors" and path.read_text() == "found"


@pytest.mark.parametrize("path", SHIPPED, ids=lambda path: f"{path.parent.name}/{path.stem}")
def test_what_ships_belongs_to_the_models_on_record(path):
    if path.parent.name == "table1":
        _, facts = studies.load_evaluations(path)
        for name, digest in facts["models"].items():
            assert mini_models()[name]["sha256"] == digest
        return
    if path.parent.name in ("tournament", "unseen"):
        return  # tests/test_tournament.py
    study, facts = controlled.load_equal_knowledge(path)
    vlm = uwm.load_model(path.stem)
    assert facts["model"] == {encoder: vlm.facts(encoder) for encoder in ("text", "vision")}
    plans = {"scores": studies.SCORES_PLAN, "anatomy": studies.ANATOMY_PLAN}
    plan = plans.get(path.parent.name, studies.PLAN)
    assert facts["plan"] == plan.facts()
    assert (study.base.base.model, study.base.split) == (path.stem, "test")
    n = {"anatomy": 500}.get(path.parent.name)
    validation = uwm.load_tuples("mini-visu", split="validation", n=n)
    assert facts["validation"] == validation.fingerprint
    unedited = uwm.evaluate(vlm, validation[:100], cache=uwm.Cache())
    for key in PREFERENCE_KEYS:
        assert torch.equal(
            getattr(unedited.safeground, key), getattr(study.unedited.base.safeground, key)[:100]
        )
