"""The end of a notebook: what is recorded is what was measured, and a moved reference never passes."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch

import uwmlib as uwm
from uwmlib.editing import Scaling, WeightEdit
from uwmlib.manifests import manifests_dir
from uwmlib.metrics import Score, mean_of, wilson
from uwmlib.reporting import check_references, conclude, record, record_edits, save_results

FILES = sorted((manifests_dir() / "reference").glob("*.json"))


def random_safeground(n=60):
    draw = torch.Generator().manual_seed(3)
    parts = ("safe_text", "unsafe_text", "safe_image", "unsafe_image")
    return uwm.safeground(**{part: torch.randn(n, 8, generator=draw) for part in parts})


def test_record_keeps_value_interval_and_n():
    found = random_safeground()
    kept = record({"a": found}, ["gs", "no_such_score"])
    low, high = wilson(int(found.gs.sum()), 60)
    assert set(kept["a"]) == {"gs"}
    assert kept["a"]["gs"]["value"] == pytest.approx(100 * found.gs.double().mean().item())
    assert kept["a"]["gs"]["interval"] == pytest.approx([100 * low, 100 * high])
    assert kept["a"]["gs"]["n"] == 60


def test_record_leaves_out_an_interval_that_is_not_known(tmp_path):
    kept = record({"a": {"rouge_l": mean_of(np.array([0.5])), "bleu": Score(0.25)}}, ["rouge_l", "bleu"])
    assert kept == {"a": {"rouge_l": {"value": 0.5, "n": 1}, "bleu": {"value": 0.25}}}
    save_results("x", kept, params={}, path=tmp_path / "x.json")
    assert json.loads((tmp_path / "x.json").read_text())["values"] == kept


def test_record_edits_gives_percent_of_the_scored_weights_by_encoder():
    facts = {"shape": (10, 4), "base_hash": "", "alpha": -1.0}
    edit = WeightEdit(
        {
            "a": Scaling(indices=torch.arange(3), encoder="text", candidates=40, **facts),
            "b": Scaling(indices=torch.arange(2), encoder="text", candidates=10, **facts),
            "c": Scaling(indices=torch.arange(1), encoder="vision", candidates=8, **facts),
        }
    )
    assert record_edits({"UWM": edit, "none": WeightEdit({})}) == {
        "UWM": {"text": pytest.approx(10), "vision": pytest.approx(12.5)},
        "none": {},
    }


def test_sensitivity_and_bias_are_measured_with_their_intervals():
    found = random_safeground()
    for query in ("text", "image"):
        pair = found.sensitivity_bias(query)
        bias = found[f"bias_{query}"]
        assert bias.value == pair.bias
        assert bias.interval[1] - bias.value == pytest.approx(1.959964 * pair.se_bias)
        assert found[f"sensitivity_{query}"].value == pair.sensitivity


def test_conclude_saves_and_checks(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr("uwmlib.reporting.references.manifests_dir", lambda: tmp_path)
    values = {"a": {"gs": {"value": 4.5, "interval": [4.0, 5.0], "n": 100}}}
    cell = {"tau": 0.02, "base_weights": "", "batch_size": 128, "results_dir": "", "update_reference": False}
    conclude("nb", values, cell | {"results_dir": str(tmp_path / "results"), "update_reference": True})
    saved = json.loads((tmp_path / "results" / "nb.json").read_text())
    assert saved["values"] == values and saved["params"] == {"tau": 0.02, "base_weights": ""}
    conclude("nb", values, cell | {"batch_size": 3})
    assert "4 of 4 values agree" in capsys.readouterr().out
    values["a"]["gs"]["value"] = 5.5
    with pytest.raises(uwm.UwmError, match=r"a\.gs\.value"):
        conclude("nb", values, cell)
    # Other weights under the same name are another model, and no failure.
    for name, value in (("tau", 0.05), ("base_weights", "mine.safetensors")):
        conclude("nb", values, cell | {name: value})
        assert f"not compared, because {name}" in capsys.readouterr().out


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_every_committed_reference_value_is_checked(path):
    stored = json.loads(path.read_text(encoding="utf-8"))
    params, tolerance, values = stored["params"], stored["tolerance"], stored["values"]
    check_references(path.stem, values, params=params, tolerance=tolerance)
    n = len(values)
    for step in (-1.0, 1.0):
        # All at once, for one after the other would take a minute: every single one must be among the offenders.
        moved = {key: value + step for key, value in values.items()}
        with pytest.raises(uwm.UwmError, match=f"failed for {n} of {n} values"):
            check_references(path.stem, moved, params=params, tolerance=tolerance)
        key = max(values)
        with pytest.raises(uwm.UwmError, match="failed for 1 of"):
            check_references(path.stem, values | {key: moved[key]}, params=params, tolerance=tolerance)


def test_every_notebook_has_its_reference():
    notebooks = {path.stem for path in (manifests_dir().parent / "notebooks").glob("*.ipynb")}
    assert len(notebooks) == 23
    assert {path.stem for path in FILES} == notebooks
