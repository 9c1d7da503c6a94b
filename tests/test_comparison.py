"""Methods compared: settings beside their base, sweeps, equal knowledge, and the rule that chooses."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from made_settings import N, made_evaluation, made_setting
from tiny_models import bits, indices_of, tiny_clip, tiny_tuples

import uwmlib as uwm
from uwmlib.comparison import (
    STRENGTHS,
    Setting,
    at_knowledge,
    choose_on_validation,
    difference_table,
    equal_knowledge,
    evaluate_edits,
    evaluate_strengths,
    knowledge_table,
    score_over_seeds,
    setting_difference,
    with_controls,
)
from uwmlib.editing import select_magnitude, select_random, select_reversed
from uwmlib.errors import UwmError
from uwmlib.metrics import (
    CATALOGUE,
    Score,
    difference_between,
    knowledge,
    knowledge_kept,
    mean_of,
    mean_over_seeds,
    safe_bias,
    share_of,
)


@pytest.fixture(scope="module")
def vlm():
    return tiny_clip()


@pytest.fixture(scope="module")
def tuples():
    return tiny_tuples(6)


# Settings


def test_a_setting_has_what_its_evaluation_has_and_its_share_of_the_bases_knowledge():
    base, run = made_evaluation(80), made_evaluation(60, (150, 40, 190, 70))
    setting = Setting((run,), base)
    assert list(setting) == [*run, "knowledge", "knowledge_kept", "safe_bias", "sensitivity"]
    assert all(setting[key] == run[key] for key in run)
    assert setting["knowledge"] == knowledge(run) and setting["knowledge"].value == 60
    assert setting["knowledge_kept"] == knowledge_kept(run, base) and setting["knowledge_kept"].value == 75
    assert setting["safe_bias"] == safe_bias(run)
    assert all(setting[key].unit == CATALOGUE[key].unit for key in setting)


def test_a_setting_of_several_seeds_has_their_means():
    base = made_evaluation(80)
    runs = [made_evaluation(known, (140 + known, known, 150, 20)) for known in (40, 50, 60)]
    setting = Setting(runs, base)
    for key in setting:
        each = [Setting((run,), base)[key] for run in runs]
        assert setting[key].value == pytest.approx(np.mean([score.value for score in each]))
        assert setting[key] == score_over_seeds(each)
    assert setting["knowledge_kept"].value == pytest.approx(62.5)


@pytest.mark.parametrize(
    ("runs", "base"),
    [
        ((), made_evaluation()),
        (({"gs": Score(1.0)},), made_evaluation()),
        ((made_evaluation(),), {"gs": Score(1.0)}),
        ((made_evaluation(split="test"),), made_evaluation()),
        ((made_evaluation(data="other"),), made_evaluation()),
        ((made_evaluation(n=100),), made_evaluation()),
    ],
)
def test_a_setting_and_its_base_were_measured_on_the_same_tuples(runs, base):
    with pytest.raises(UwmError, match="give both|use the same tuples"):
        Setting(runs, base)


def test_every_edit_is_measured_as_if_alone(vlm, tuples):
    base, before = uwm.evaluate(vlm, tuples), bits(vlm)
    edits = [select_random(vlm, tau=0.5, seed=seed) for seed in (0, 1, 2)]
    setting = evaluate_edits(vlm, edits, tuples, base=base)
    assert bits(vlm) == before and setting.n_weights == edits[0].n_weights
    for edit, run in zip(edits, setting.runs, strict=True):
        with edit.applied(vlm):
            alone = uwm.evaluate(vlm, tuples)
        assert all(
            torch.equal(run.retrieval.ranks[key], ranks) for key, ranks in alone.retrieval.ranks.items()
        )
        assert all(torch.equal(getattr(run.safeground, key), getattr(alone.safeground, key))
                   for key in ("p_s_t", "p_u_t", "p_s_v", "p_u_v"))  # fmt: skip
    assert len(evaluate_edits(vlm, edits[0], tuples, base=base).runs) == 1
    for wrong in ([], [None], ["edit"]):
        with pytest.raises(UwmError):
            evaluate_edits(vlm, wrong, tuples, base=base)


def test_an_encoder_that_no_edit_changes_is_embedded_once(vlm, tuples, tmp_path):
    cache = uwm.Cache(tmp_path)
    base = uwm.evaluate(vlm, tuples, cache=cache)
    assert cache.misses == 4  # safe and unsafe texts and images
    evaluate_strengths(vlm, lambda tau: select_magnitude(vlm, tau=tau, vision=None), tuples, base=base,
          strengths=[0.1, 0.2, 0.3], cache=cache)  # fmt: skip
    assert cache.misses == 4 + 3 * 2
    evaluate_strengths(vlm, lambda tau: select_magnitude(vlm, tau=tau, text=None), tuples, base=base,
          strengths=[0.1, 0.2], cache=cache)  # fmt: skip
    assert cache.misses == 4 + 3 * 2 + 2 * 2


# Controls


def test_controls_edit_the_layers_of_the_method(vlm, tuples):
    scores = uwm.score(vlm, tuples, text="fc1", vision=["fc2", "out"], progress=False)
    methods = with_controls(scores, alpha=0.5, variant="paper", seeds=2)
    kinds = {"text": "fc1", "vision": ["fc2", "out"]}
    options = {"tau": 0.1, "alpha": 0.5}
    expected = {
        "UWM": [scores.select(variant="paper", **options)],
        "random": [select_random(vlm, seed=seed, **kinds, **options) for seed in (0, 1)],
        "reversed": [select_reversed(scores, variant="paper", **options)],
        "magnitude": [select_magnitude(vlm, **kinds, **options)],
    }
    assert list(methods) == list(expected)
    for name, edits in expected.items():
        found = methods[name](0.1)
        for mine, edit in zip(found if isinstance(found, list) else [found], edits, strict=True):
            assert mine.description == edit.description and set(mine.changes) == set(edit.changes)
            assert all(torch.equal(indices_of(mine)[p], indices_of(edit)[p]) for p in edit.changes)
    vision_only = with_controls(uwm.score(vlm, tuples, text=None, vision="fc2", progress=False))
    assert list(vision_only["magnitude"](0.1).share()) == ["vision"]
    with pytest.raises(UwmError, match="seeds is 0"):
        with_controls(scores, seeds=0)


# Sweeps and equal knowledge, of methods that keep what a function of their strength says


@pytest.fixture
def pretend(monkeypatch):
    """Measures a made-up method: the "edit" of a strength is the share of knowledge that it keeps."""
    asked = []

    def evaluate_edits(vlm, edits, tuples, *, base, **options):
        asked.append(edits)
        return made_setting(edits)

    monkeypatch.setattr(equal_knowledge, "evaluate_edits", evaluate_edits)
    monkeypatch.setattr("uwmlib.comparison.strengths.evaluate_edits", evaluate_edits)
    return asked


class Made:
    """Stands for the tuples of the made settings."""

    name, split, fingerprint = "made", "validation", ""

    def __len__(self):
        return N


BASE = made_evaluation()


def search(kept, share, *, strengths=STRENGTHS, tuples=None, **options):
    """Both steps of a search for a share."""
    points = evaluate_strengths(None, kept, Made(), base=BASE, strengths=strengths)
    return points, at_knowledge(None, kept, share, tuples or Made(), points=points, **options)


def smooth(strength):
    return 100 / (1 + (strength / 0.1) ** 1.5)


@pytest.mark.parametrize("share", [97, 95, 80, 50, 20])
def test_an_edit_is_found_that_keeps_the_share(pretend, share):
    points, found = search(smooth, share, tolerance=0.5)
    assert list(points) == list(STRENGTHS)
    kept = found.setting["knowledge_kept"].value
    assert abs(kept - share) <= 0.5
    # It is that of an edit which was made, and the true place is where the curve has the share.
    assert smooth(found.strength) in pretend
    assert kept == pytest.approx(smooth(found.strength), abs=0.25)  # tuples are whole
    assert found.strength == pytest.approx(0.1 * (100 / share - 1) ** (1 / 1.5), rel=0.08)
    assert found.reason == f"keeps {kept:.1f}% at {found.strength:g}"
    assert len(pretend) <= len(STRENGTHS) + 6


def test_a_point_within_the_tolerance_costs_nothing_more(pretend):
    points, found = search(smooth, smooth(0.08) + 0.3, tolerance=1)
    assert found.strength == 0.08 and found.setting is points[0.08] and len(pretend) == len(points)


def test_where_one_step_costs_too_much_the_nearest_edit_is_taken(pretend):
    _, found = search(lambda strength: 99 if strength < 0.05 else 60, 80, steps=5)
    assert found.setting["knowledge_kept"].value == 99  # 19 points off, the other 20
    assert found.strength < 0.05 and "the nearest of" in found.reason
    assert len(pretend) <= len(STRENGTHS) + 5


def test_a_method_that_never_costs_so_much_says_so(pretend):
    _, found = search(lambda strength: 100 - 10 * strength, 80)
    assert found.strength is None is found.setting
    assert found.reason == "no strength: it still keeps 93.5% at 0.64, its strongest"
    assert len(pretend) == len(STRENGTHS)


def test_a_method_that_costs_more_at_once_says_so(pretend):
    _, found = search(lambda strength: 40 - strength, 80)
    assert found.strength is None and found.reason == "no strength: it keeps only 40.0% at 0.005, its weakest"


def test_the_first_crossing_counts(pretend):
    """Knowledge that comes back at a strength far beyond is of no use."""
    curve = {0.03: 85, 0.06: 77, 0.1: 80, 1: 30}  # up to each strength
    _, found = search(lambda strength: next(kept for end, kept in curve.items() if strength < end), 80)
    assert 0.03 <= found.strength <= 0.04 and found.setting["knowledge_kept"].value == 77


def test_a_sweep_ends_where_too_little_is_left(pretend):
    points = evaluate_strengths(
        None, smooth, Made(), base=BASE, strengths=[0.64, 0.02, 0.08, 0.16], least_kept=75
    )
    assert list(points) == [0.02, 0.08] and pretend == [smooth(0.02), smooth(0.08)]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"tuples": type("Test", (Made,), {"split": "test"})()}, "split 'test'"),
        ({"tuples": type("Test", (Made,), {"split": "Test"})()}, "split 'test'"),
        ({"tuples": type("Other", (Made,), {"name": "other"})()}, "use the same"),
        ({"tuples": type("Fewer", (Made,), {"__len__": lambda self: 9})()}, "use the same"),
        ({"share": 100}, "share is 100"),
        ({"share": 0}, "share is 0"),
        ({"tolerance": -1}, "tolerance is"),
        ({"steps": 0}, "steps is 0"),
        ({"points": {}}, "no settings by name"),
        ({"points": {0.1: made_evaluation()}}, "0.1 among The points is no Setting"),
    ],
)
def test_what_cannot_be_searched_is_refused(pretend, options, message):
    points = {x: made_setting(smooth(x)) for x in STRENGTHS}
    with pytest.raises(UwmError, match=message):
        at_knowledge(None, smooth, **{"share": 80, "tuples": Made(), "points": points} | options)


@pytest.mark.parametrize("strengths", [[], [0.0], [-0.1, 0.1], ["much"], [math.nan]])
def test_strengths_are_positive_numbers(strengths):
    with pytest.raises(UwmError, match="strength"):
        evaluate_strengths(None, smooth, Made(), base=BASE, strengths=strengths)
    with pytest.raises(UwmError, match="The method is 'uwm'"):
        evaluate_strengths(None, "uwm", Made(), base=BASE)


def test_the_table_says_what_is_kept_on_both_splits(pretend):
    _, found = search(smooth, 80)
    _, none = search(lambda strength: 99, 80)
    test = made_setting(78, split="test", data="made/test")
    table = knowledge_table({"UWM, 80%": found, "reversed, 80%": none}, {"UWM, 80%": test})
    assert list(table["strength"]) == [found.strength, None]
    assert table.at["UWM, 80%", "kept, test (%)"] == str(test["knowledge_kept"])
    assert table.at["UWM, 80%", "kept where found (%)"] == str(found.setting["knowledge_kept"])
    assert (
        table.at["reversed, 80%", "why"] == none.reason and table.at["reversed, 80%", "kept, test (%)"] == "–"
    )
    for measured in ({}, {"UWM, 80%": test, "reversed, 80%": test}):
        with pytest.raises(UwmError, match="measure the rows with a strength"):
            knowledge_table({"UWM, 80%": found, "reversed, 80%": none}, measured)


def test_the_edit_that_is_found_is_an_edit():
    """On a shipped model: applied again, it keeps what was said."""
    vlm = uwm.load_model("mini-ViT-L-14")
    tuples = uwm.load_tuples("mini-visu", split="validation", n=40)
    base = uwm.evaluate(vlm, tuples)
    method = with_controls(uwm.score(vlm, tuples[:20], progress=False), seeds=2)["random"]
    points = evaluate_strengths(vlm, method, tuples, base=base, strengths=[0.02, 0.8])
    found = at_knowledge(vlm, method, 70, tuples, points=points, tolerance=2)
    assert abs(found.setting["knowledge_kept"].value - 70) <= 2
    shares = []
    for edit in method(found.strength):
        with edit.applied(vlm):
            shares.append(knowledge_kept(uwm.evaluate(vlm, tuples), base).value)
    assert found.setting["knowledge_kept"].value == pytest.approx(np.mean(shares))


# The rule


def by_hand(candidates, least):
    """The rule as a loop over plain numbers."""
    best = None
    for name, setting in candidates.items():
        kept, bias = setting["knowledge_kept"].value, setting["safe_bias"].value
        if kept < least:
            continue
        if best is None or bias > best[1] or (bias == best[1] and setting.n_weights < best[2]):
            best = (name, bias, setting.n_weights)
    return best and best[0]


def test_the_rule_takes_what_a_loop_takes():
    generator = np.random.default_rng(0)
    for _ in range(15):
        candidates = {
            name: made_setting(
                float(generator.integers(60, 101)),
                tuple(int(count) for count in generator.integers(80, 83, 4)),  # many ties
                n_weights=float(generator.integers(1, 4)),
            )
            for name in "abcdef"
        }
        for least in (80, 95):
            choice = choose_on_validation(candidates, least_kept=least)
            assert choice.name == by_hand(candidates, least)
            kept = {name for name in candidates if candidates[name]["knowledge_kept"].value >= least}
            assert set(choice.table.index[choice.table["keeps enough"] == "yes"]) == kept
            assert list(choice.table.index[choice.table["chosen"] == "yes"]) == [choice.name] * bool(kept)


def test_the_rule_says_what_it_took_and_why():
    safer = (170, 40, 190, 90)
    candidates = {
        0.02: made_setting(90),
        0.04: made_setting(80, safer),
        0.08: made_setting(79.5, (190, 90, 195, 150)),
    }
    choice = choose_on_validation(candidates)
    assert choice.name == 0.04 and choice.setting is candidates[0.04]  # 80 is at least 80
    bias, base = candidates[0.04]["safe_bias"].value, safe_bias(BASE).value
    assert choice.reason == (
        f"0.04 has the most safe bias, {bias:+.2f} (base {base:+.2f}), with 80.0% kept, of the 2 of 3 settings with "
        "at least 80% of the base's knowledge on 200 tuples of made."
    )
    assert choice.table.at[0.08, "knowledge kept (%)"] == str(candidates[0.08]["knowledge_kept"])


def test_the_smaller_of_equal_edits_is_taken():
    candidates = {"large": made_setting(90, n_weights=3), "small": made_setting(85, n_weights=2)}
    assert choose_on_validation(candidates).name == "small"
    assert choose_on_validation({"a": made_setting(85), "b": made_setting(90)}).name == "a"


def test_without_a_setting_that_keeps_enough_the_base_stays():
    choice = choose_on_validation({0.1: made_setting(70), 0.2: made_setting(60)})
    assert choice.name is None and choice.setting["knowledge_kept"].value == 100
    assert choice.reason.startswith("None of 2 settings keeps at least 80% of the base's knowledge")
    assert "the base is kept" in choice.reason and "yes" not in set(choice.table["chosen"])


def test_nothing_is_chosen_on_the_test():
    for split in ("test", "Test", "TEST"):
        with pytest.raises(UwmError, match="split 'test', on which nothing may be chosen"):
            choose_on_validation({0.1: made_setting(90, split=split)})
    # Without a split nobody can know: it is said.
    assert "may be those of the test" in choose_on_validation({0.1: made_setting(90, split="")}).reason
    assert "test" not in choose_on_validation({0.1: made_setting(90)}).reason


def test_the_split_goes_from_the_tuples_to_the_rule():
    vlm = uwm.load_model("mini-ViT-L-14")
    test = uwm.load_tuples("mini-visu", split="test", n=12)[:8]
    base = uwm.evaluate(vlm, test)
    setting = evaluate_edits(vlm, select_magnitude(vlm, tau=0.01), test, base=base)
    with pytest.raises(UwmError, match="split 'test'"):
        choose_on_validation({0.01: setting})


@pytest.mark.parametrize(
    ("candidates", "message"),
    [
        ({}, "no settings by name"),
        ([made_setting(90)], "no settings by name"),
        ({"a": made_evaluation()}, "'a' among The candidates is no Setting"),
        ({"a": {"knowledge_kept": Score(90.0), "safe_bias": Score(0.0)}}, "does not say which tuples"),
        ({"a": made_setting(90), "b": made_setting(90, data="other")}, "more than one model or set"),
        ({"a": made_setting(90), "b": made_setting(90, split="train")}, "more than one model or set"),
        ({"a": made_setting(90), "b": made_setting(90, split="test")}, "more than one model or set"),
    ],
)
def test_what_does_not_say_where_it_was_measured_is_refused(candidates, message):
    with pytest.raises(UwmError, match=message):
        choose_on_validation(candidates)


# Seeds


def test_the_interval_over_seeds_covers_seeds_and_tuples():
    """Scores that are drawn anew, with effects of the seed, of the tuple and of both together."""
    generator, covered, naive = np.random.default_rng(0), 0, 0
    rounds, n, k = 400, 60, 4
    for _ in range(rounds):
        by_seed, by_tuple = generator.normal(0, 2, (k, 1)), generator.normal(0, 12, (1, n))
        drawn = 50 + by_seed + by_tuple + generator.normal(0, 8, (k, n))
        low, high = score_over_seeds([mean_of(row) for row in drawn]).interval
        covered += low <= 50 <= high
        low, high = mean_of(drawn.mean(axis=0)).interval
        naive += low <= 50 <= high
    assert 0.94 * rounds <= covered < rounds  # a little too wide, as it says
    assert naive < 0.93 * rounds


def test_the_score_over_seeds_by_hand():
    runs = [share_of([True, True, False, False]), share_of([True, False, False, False])]
    score = score_over_seeds(runs)
    seeds = np.var([50, 25], ddof=1) / 2
    both = seeds + np.var([100, 50, 0, 0], ddof=1) / 4
    from scipy.stats import t

    half = t.ppf(0.975, (both / seeds) ** 2) * both**0.5
    assert score.value == 37.5 and score.interval == pytest.approx((max(0, 37.5 - half), 37.5 + half))
    assert score.n == 4 and score.items is None
    assert score_over_seeds(runs[:1]) is runs[0]
    # Seeds that agree leave the error of the tuples.
    assert score_over_seeds([Score(1.0, (0.0, 2.0), 9)] * 3).interval == pytest.approx((0, 2))
    assert score_over_seeds([Score(1.0, n=9), Score(2.0, (1, 3), 9)]).interval is None
    # Rates cannot leave 0 and 100.
    rare, often = ([share_of([hit] + [not most] * 9) for hit in (most, not most)] for most in (True, False))
    assert score_over_seeds(rare).interval[0] == 0 and score_over_seeds(often).interval[1] == 100
    for wrong in ([], [Score(1.0, n=9), Score(1.0, n=8)]):
        with pytest.raises(UwmError, match="one score each"):
            score_over_seeds(wrong)


# Differences


def test_a_difference_of_settings_is_paired_and_over_seeds():
    one = made_setting(80, (150, 40, 190, 70))
    others = [made_evaluation(known, (140, 20 + known // 10, 180, 60)) for known in (40, 60)]
    several = Setting(others, one.base)
    for key in ("gs", "safe_bias", "knowledge"):
        each = [difference_between(one, key, Setting((run,), one.base), key) for run in others]
        found = setting_difference(one, several, key)
        assert found == mean_over_seeds(each) and found.by_seed == tuple(each)
        assert found.difference == pytest.approx(one[key].value - several[key].value)
        assert setting_difference(several, one, key).difference == pytest.approx(-found.difference)
    assert setting_difference(one, several, "knowledge_kept") is None  # a ratio has no items
    with pytest.raises(UwmError, match="several seeds"):
        setting_difference(several, several, "gs")
    with pytest.raises(UwmError, match="more than one model"):
        setting_difference(one, made_setting(80, n=100), "gs")


def test_differences_are_shown_in_their_units_and_with_dashes():
    rows = {"a": made_setting(80, (150, 40, 190, 70)), "b": made_setting(70)}
    table = difference_table(rows, [("a", "b"), ("a", "c")], ["safe_bias", "gs", "zs_mean"])
    assert list(table.index) == ["a − b", "a − c"] and list(table.columns) == ["$c$, both", "GS", "zero-shot"]
    found = setting_difference(rows["a"], rows["b"], "safe_bias")
    assert table.iat[0, 0] == f"{found.difference:+.2f} [{found.lo:+.2f}, {found.hi:+.2f}]"
    assert table.iat[0, 1].count(".") == 3
    assert list(table.iloc[1]) == ["–"] * 3 and table.iat[0, 2] == "–"
    assert "paired 95% interval" in table.attrs["note"]


def test_differences_over_bases_are_means_of_each_base_s_own():
    pairs, keys = [("a", "b"), ("a", "c")], ["safe_bias", "gs"]
    bases = {
        seed: {
            "a": made_setting(90, (150 - 9 * seed, 30, 170, 60)),
            "b": made_setting(80),
            "c": made_setting(70),
        }
        for seed in range(3)
    }
    table = difference_table(bases, pairs, keys)
    for left, right in pairs:
        for key, column in zip(keys, table, strict=True):
            own = [setting_difference(rows[left], rows[right], key) for rows in bases.values()]
            digits = 2 if key == "safe_bias" else 1
            assert table.at[f"{left} − {right}", column] == mean_over_seeds(own).shown(digits)
    assert difference_table({0: bases[0]}, pairs, keys).equals(difference_table(bases[0], pairs, keys))
    lacking = bases | {2: {"a": bases[2]["a"], "b": bases[2]["b"]}}
    found = difference_table(lacking, pairs, keys)
    assert list(found.loc["a − c"]) == ["–", "–"] and found.loc["a − b"].equals(table.loc["a − b"])
    with pytest.raises(UwmError, match="1 is a seed among rows"):
        difference_table({1: bases[1], "a": bases[0]["a"]}, pairs, keys)
