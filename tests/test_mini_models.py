"""The shipped mini models: the files on record, and good enough to say something about safety."""

from __future__ import annotations

import json
import shutil

import pytest

import uwmlib as uwm
from uwmlib.files import sha256_of_file
from uwmlib.metrics import mean_accuracy
from uwmlib.mini.zero_shot_sets import NAMES
from uwmlib.models import mini


@pytest.fixture(scope="module")
def base():
    sets = [uwm.zero_shot_set(name) for name in NAMES]
    return sets, uwm.evaluate(
        uwm.load_model("mini-ViT-L-14"), uwm.load_tuples("mini-visu", split="test"), zero_shot=sets
    )


def test_weights_on_disk_are_the_ones_on_record():
    for entry in mini.mini_models().values():
        assert sha256_of_file(mini.WEIGHTS / entry["file"]) == entry["sha256"]
        assert entry["curve"][-1]["loss"] < entry["curve"][0]["loss"]
        assert entry["recipe"]["seed"] == 0


def test_base_model_is_in_the_ranges_that_make_it_instructive(base):
    values = base[1].as_percent()
    for direction in ("ts_vs", "vs_ts"):
        assert 35 <= values[direction] <= 70, (direction, values[direction])
    for key in ("p_s_t", "p_s_v"):
        assert 70 <= values[key] <= 95, (key, values[key])
    for key in ("p_u_t", "p_u_v"):
        assert values[key] < 18, (key, values[key])


def test_no_zero_shot_set_is_at_chance(base):
    sets, found = base
    for data in sets:
        low, _ = found.zero_shot[data.name].interval
        assert low > 1.5 * data.chance, (data.name, low, data.chance)
    assert mean_accuracy(found.zero_shot).percent > 50


def test_safe_clip_is_safer_on_unsafe_queries(base):
    tuned = uwm.evaluate(uwm.load_model("mini-Safe-CLIP"), uwm.load_tuples("mini-visu", split="test"))
    for key in ("p_u_t", "p_u_v"):
        assert uwm.compare(base[1].safeground, tuned.safeground, key).lo > 0


def test_missing_or_changed_weights_are_refused(tmp_path, monkeypatch):
    name = "mini-ViT-L-14"
    monkeypatch.setattr(mini, "WEIGHTS", tmp_path)
    with pytest.raises(uwm.UwmError, match="are missing"):
        uwm.load_model(name)
    shutil.copy(mini.Path(mini.__file__).parent.parent / "weights" / f"{name}.safetensors", tmp_path)
    content = bytearray((tmp_path / f"{name}.safetensors").read_bytes())
    content[-1] ^= 1
    (tmp_path / f"{name}.safetensors").write_bytes(content)
    with pytest.raises(uwm.UwmError, match="sha256 differs"):
        uwm.load_model(name)


def test_unknown_mini_model_is_refused():
    with pytest.raises(uwm.UwmError, match="mini-ViT-L-14"):
        uwm.load_model("mini-ViT-L14")


def test_manifest_names_seed_recipe_and_curve():
    manifest = json.loads(mini.manifest_path("models.json").read_text(encoding="utf-8"))
    assert set(manifest) == {"mini-ViT-L-14", "mini-Safe-CLIP"}
    for entry in manifest.values():
        assert {"file", "sha256", "recipe", "curve", "minutes", "torch", "parameters"} <= set(entry)
