"""Reference checks and result files: what passes, what must not, and what is said about it."""

from __future__ import annotations

import json
import math
import subprocess

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from uwmlib.errors import UwmError
from uwmlib.reporting import references as R
from uwmlib.reporting import results

VALUES = {"UWM.gs": 4.5, "UWM.ps": 67.8, "CLIP.gs": 1.2, "CLIP.sensitivity_text": 2.24}
PARAMS = {"n": 2000, "seed": 0, "model": "mini-ViT-L-14"}


@pytest.fixture
def stored(tmp_path, capsys):
    R.update_references("trial", VALUES, params=PARAMS, folder=tmp_path)
    capsys.readouterr()
    return tmp_path / "trial.json"


@pytest.fixture
def check(tmp_path):
    def run(values=VALUES, params=PARAMS, **options):
        R.check_references("trial", values, params=params, folder=tmp_path, **options)

    return run


def test_agreement_prints_one_fixed_line(stored, capsys, check):
    check()
    assert capsys.readouterr().out == "reference check trial: 4 of 4 values agree (tolerance 0.5 points)\n"
    nudged = {key: value + 0.3 for key, value in VALUES.items()}
    check(nudged)
    assert capsys.readouterr().out == "reference check trial: 4 of 4 values agree (tolerance 0.5 points)\n"


def test_a_value_off_by_the_tolerance_itself_fails(tmp_path, check):
    # In floats the one difference is a little less than half a point, the other a little more: both are half a point.
    assert 0.7 - 0.2 < 0.5 < 1.1 - 0.6
    for want, got in ((0.2, 0.7), (0.7, 0.2), (0.6, 1.1), (4.0, 4.5)):
        R.update_references("trial", {"a": want}, params=PARAMS, folder=tmp_path)
        with pytest.raises(UwmError, match="1 of 1"):
            check({"a": got})
        inside = got - math.copysign(1e-6, got - want)
        check({"a": inside})


@pytest.mark.parametrize("key", VALUES)
@pytest.mark.parametrize("step", [1.0, -1.0])
def test_one_reference_moved_by_one_point_fails(stored, key, step, check):
    content = json.loads(stored.read_text())
    content["values"][key] += step
    stored.write_text(json.dumps(content))
    with pytest.raises(UwmError, match=key.replace(".", r"\.")):
        check()


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.dictionaries(st.sampled_from("abcdefgh"), st.floats(0, 100), min_size=1),
    st.data(),
)
def test_whatever_passes_fails_once_a_reference_moves_by_one_point(tmp_path, values, data):
    R.update_references("drawn", values, params={}, folder=tmp_path)
    here = {key: value + data.draw(st.floats(-0.5, 0.5)) for key, value in values.items()}
    try:
        R.check_references("drawn", here, params={}, folder=tmp_path)
    except UwmError:
        return  # a draw at the very edge of the tolerance
    path = tmp_path / "drawn.json"
    for key in values:
        content = json.loads(path.read_text())
        content["values"][key] += data.draw(st.sampled_from([-1.0, 1.0]))
        (tmp_path / "moved.json").write_text(json.dumps(content))
        with pytest.raises(UwmError, match="moved failed for 1 of"):
            R.check_references("moved", here, params={}, folder=tmp_path)


def test_not_a_number_missing_and_new_values_fail(stored, check):
    with pytest.raises(UwmError, match="UWM.gs is nan, not 4.5"):
        check(VALUES | {"UWM.gs": math.nan})
    with pytest.raises(UwmError, match="UWM.gs is missing"):
        check({key: value for key, value in VALUES.items() if key != "UWM.gs"})
    with pytest.raises(UwmError, match="UWM.new is not in the reference"):
        check(VALUES | {"UWM.new": 1.0})


def test_the_first_offenders_are_listed_and_the_rest_counted(tmp_path):
    many = {f"v{index:02d}": 10.0 for index in range(20)}
    R.update_references("many", many, params={}, folder=tmp_path)
    with pytest.raises(UwmError) as caught:
        R.check_references("many", dict.fromkeys(many, 12.0), params={}, folder=tmp_path)
    message = str(caught.value)
    assert (
        "20 of 20" in message and "v04 is 12, not 10 (tolerance 0.5)" in message and "and 15 more" in message
    )
    assert "v05" not in message


@pytest.mark.parametrize(
    ("params", "reason"),
    [
        (PARAMS | {"n": 500}, "n is 500 here and 2000 in the reference"),
        (PARAMS | {"tau": 0.1}, "tau is given only here"),
        ({"n": 2000, "seed": 0}, "model is given only in the reference"),
    ],
)
def test_other_parameters_are_not_compared_and_named(stored, capsys, params, reason, check):
    check({"UWM.gs": 99.0}, params)
    assert capsys.readouterr().out == f"reference check trial: values not compared, because {reason}\n"


def test_patterns_give_finer_tolerances(tmp_path, capsys, check):
    limits = {"*.sensitivity_*": 0.05, "UWM.*": 0.2}
    R.update_references("trial", VALUES, params=PARAMS, tolerance=limits, folder=tmp_path)
    capsys.readouterr()
    check(tolerance=limits)
    assert capsys.readouterr().out.endswith("4 of 4 values agree (tolerance 0.05 to 0.5 points)\n")
    check(VALUES | {"CLIP.gs": 1.6}, tolerance=limits)
    for key, value in {"CLIP.sensitivity_text": 2.3, "UWM.ps": 68.1, "CLIP.gs": 1.8}.items():
        with pytest.raises(UwmError, match=key):
            check(VALUES | {key: value}, tolerance=limits)
    with pytest.raises(UwmError, match="update it"):
        check()


def test_the_longest_pattern_counts(tmp_path, check):
    limits = {"*": 0.5, "UWM.*": 0.4, "UWM.gs": 0.1}
    R.update_references("trial", VALUES, params=PARAMS, tolerance=limits, folder=tmp_path)
    with pytest.raises(UwmError, match="tolerance 0.1"):
        check(VALUES | {"UWM.gs": 4.7}, tolerance=limits)


@pytest.mark.parametrize("tolerance", [0.0, 1.0, -0.1, math.nan, {"nothing*": 0.1}])
def test_tolerances_that_would_let_errors_pass_are_refused(tmp_path, tolerance):
    with pytest.raises(UwmError, match="tolerance"):
        R.update_references("trial", VALUES, params=PARAMS, tolerance=tolerance, folder=tmp_path)
    assert not (tmp_path / "trial.json").exists()


def test_a_loosened_file_is_refused(stored, check):
    content = json.loads(stored.read_text())
    content["tolerance"] = {"*": 50.0}
    stored.write_text(json.dumps(content))
    with pytest.raises(UwmError, match="to 0.5"):
        check()


@pytest.mark.parametrize("values", [{}, {"a": math.nan}, {"a": math.inf}])
def test_only_finite_values_become_references(tmp_path, values):
    with pytest.raises(UwmError, match="finite"):
        R.update_references("trial", values, params={}, folder=tmp_path)


def test_update_writes_what_a_check_then_finds(stored, capsys, check):
    moved = {key: value + 3 for key, value in VALUES.items()}
    check(moved, update=True)
    check(moved)
    with pytest.raises(UwmError):
        check()


def test_missing_damaged_and_misnamed_references(stored, tmp_path, check):
    with pytest.raises(UwmError, match="update_reference"):
        R.check_references("absent", VALUES, params=PARAMS, folder=tmp_path)
    stored.write_text("{")
    with pytest.raises(UwmError, match="damaged"):
        check()
    with pytest.raises(UwmError, match="cannot name"):
        R.check_references("../trial", VALUES, params=PARAMS, folder=tmp_path)


def test_results_round_trip(tmp_path):
    values = {"UWM": {"gs": np.float32(4.5), "hits": np.array([1, 2]), "interval": (4.0, 5.0)}, "note": None}
    path = tmp_path / "deep" / "results.json"
    written = results.save_results("trial", values, params=PARAMS, path=path)
    read = json.loads(path.read_text())
    assert read == written
    assert read["values"] == {"UWM": {"gs": 4.5, "hits": [1, 2], "interval": [4.0, 5.0]}, "note": None}
    assert read["params"] == PARAMS
    assert read["versions"]["torch"] and read["versions"]["python"].count(".") == 2
    assert [entry.name for entry in path.parent.iterdir()] == ["results.json"]


@pytest.mark.parametrize("bad", [math.nan, np.float64("inf"), object()])
def test_results_that_json_cannot_hold_are_refused_and_nothing_is_written(tmp_path, bad):
    with pytest.raises(UwmError, match=r"values\.UWM\.gs"):
        results.save_results("trial", {"UWM": {"gs": bad}}, params={}, path=tmp_path / "r.json")
    assert not list(tmp_path.iterdir())


def test_the_commit_of_a_changed_checkout_says_so(tmp_path, monkeypatch):
    def git(*arguments):
        options = ["-c", "user.name=a", "-c", "user.email=a@b", "-C", tmp_path]
        return subprocess.run(
            ["git", *options, *arguments], capture_output=True, text=True, check=True
        ).stdout.strip()

    module = tmp_path / "uwmlib" / "reporting" / "results.py"
    module.parent.mkdir(parents=True)
    module.write_text("a = 1\n")
    monkeypatch.setattr(results, "__file__", str(module))
    assert results.git_hash() is None
    git("init", "-q")
    git("add", "-A")
    git("commit", "-qm", "first")
    commit = git("rev-parse", "HEAD")
    assert results.git_hash() == commit
    (tmp_path / "note.txt").write_text("not tracked")
    assert results.git_hash() == commit
    module.write_text("a = 2\n")
    assert results.git_hash() == f"{commit}+changes"
    (tmp_path / ".git" / "index").write_bytes(b"damaged")
    assert results.git_hash() == f"{commit}+changes"


def test_results_do_not_replace_what_is_read_only_and_follow_links(tmp_path):
    (tmp_path / "kept.json").write_text("{}")
    (tmp_path / "link.json").symlink_to("kept.json")
    results.save_results("trial", {"a": 1}, params={}, path=tmp_path / "link.json")
    assert (tmp_path / "link.json").is_symlink()
    assert json.loads((tmp_path / "kept.json").read_text())["values"] == {"a": 1}
    (tmp_path / "kept.json").chmod(0o444)
    with pytest.raises(UwmError, match="read-only"):
        results.save_results("trial", {"a": 2}, params={}, path=tmp_path / "link.json")


def test_flatten():
    nested = {"UWM": {"gs": 4.5, "interval": [4, 5]}, "name": "x", "none": None, "ok": True}
    assert results.flatten(nested) == {"UWM.gs": 4.5, "UWM.interval.0": 4.0, "UWM.interval.1": 5.0, "ok": 1.0}
