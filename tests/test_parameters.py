"""Parameters of a run: what is refused, under which name, and that nothing is left where writing was tried."""

from __future__ import annotations

import math
import os

import nbformat
import numpy as np
import pytest
import torch

import uwmlib as uwm
from uwmlib.manifests import manifests_dir
from uwmlib.parameters import CHECKS, check_run, checked_parameters
from uwmlib.runner import declared_parameters

NOTEBOOKS = sorted((manifests_dir().parent / "notebooks").glob("*.ipynb"))


@pytest.mark.parametrize(
    ("name", "values"),
    {
        "tau": (0.02, 1e-9, np.float32(0.5), torch.tensor(0.5)),
        "taus": ("0.5", " 0.005  0.01 "),
        "alpha": (-1.0, 0, 5, -1e300),
        "margin": (0, 2.5),
        "seed": (0, 2**63 - 1, np.int64(3)),
        "n_benign": (0, 500),
        "n_test": (0, 10**9),
        "n_calibration": (0, 1),
        "n_validation": (0, 500),
        "batch_size": (1, 128),
        "device": ("cpu", torch.device("cpu")),
        "base_model": ("", "mini-CoCa", "open_clip:ViT-B-32", "hf:a/b", "ViT-L-14/openai", "local-dir:a/b"),
        "base_weights": ("", "openai", "random"),
        "data": ("", "mini-visu", "mini-visu-1"),
        "layer": ("text.11.out",),
        "only": ("", "CoCa  SigLIP"),
        "zero_shot": ("", "."),
        "benign": ("", "mini-visu"),
        "architectures": ("", "CoCa=hf:a; SigLIP=hf:b|w.safetensors"),
        "llavas": ("", "LLaVA=hf:a||tower"),
        "judge": ("", "lexicon", "lm:folder", "endpoint:a@http://b", "replay:x"),
        "toxicity": ("mini", "detoxify", "replay:x"),
        "progress": (True, False),
        "cache_dir": ("",),
        "results_dir": ("",),
        "update_reference": (False,),
    }.items(),
)
def test_what_can_be_used_passes(name, values):
    for value in values:
        check_run(**{name: value})


@pytest.mark.parametrize(
    ("name", "values"),
    {
        "profile": ("", "Mini", None),
        "tau": (0, 1, -0.1, math.nan, math.inf, "0.02", None, True, [0.1], torch.ones(2)),
        "strong_tau": (1.0, math.nan),
        "taus": ("", " ", "0.1, 0.2", "0.1 nan", "0.1 1", "a", 0.1),
        "alpha": (math.nan, math.inf, -math.inf, "-1", None, True, 1j, 10**400),
        "alpha_steps": (1, -1, 2.0),
        "margin": (-0.1, math.nan),
        "seed": (-1, 2**63, 2**64, 1.0, "0", True, None, 10**5000),
        "n_benign": (-1, True),
        "n_test": (-1, 0.5),
        "n_calibration": (-1, 2.0),
        "n_validation": (-1, "500"),
        "batch_size": (0, -5, 1.5, "128", True),
        "max_new_tokens": (0,),
        "device": ("cuda:99", "tpu9", "meta", "", None, 1.5),
        "base_model": ("ViT", "hf:", 3, "/openai", "ViT-L-14/", "a/b/c"),
        "safe_model": ("open_clip",),
        "base_weights": ("nowhere.safetensors", 1, None),
        "data": ("mini-visu2", "nowhere.jsonl", "\0.csv", 1),
        "variant": ("printed", None, 1),
        "baseline_reading": ("unsafe-only",),
        "layer": ("vision.3", "vision.x.fc2", "3.fc2", "vision.3.fc3"),
        "only": ("CoCa Foo",),
        "zero_shot": ("nowhere", 3),
        "benign": ("mini-visu-1", "mini-visu2", "nowhere.jsonl", "x.txt", 1),
        "architectures": ("Foo=hf:a", "CoCa", 1),
        "llavas": ("CoCa=hf:a", "LLaVA=", None),
        "blur_unsafe": ("no way", True),
        "judge": ("lexicon:", "lm:", "gpt"),
        "toxicity": ("replay:", "Mini"),
        "bleu": ("corpus",),
        "progress": (1, "yes"),
        "update_reference": ("", 0),
        "results_dir": ("\0", "x" * 300, "a/" + "y" * 300, None, 3),
        "cache_dir": ("/dev/null/x", "x" * 300),
    }.items(),
)
def test_what_cannot_be_used_is_refused_in_one_sentence_with_its_name(name, values, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for value in values:
        with pytest.raises(uwm.UwmError) as caught:
            check_run(**{name: value})
        message = str(caught.value)
        assert "\n" not in message and len(message) < 700
    assert list(tmp_path.iterdir()) == []


def test_an_unknown_name_is_answered_with_the_nearest():
    with pytest.raises(uwm.UwmError, match="no parameter 'taw': did you mean 'tau'"):
        uwm.check_run(taw=0.1)


def test_folders_that_cannot_be_written_are_refused_and_good_ones_not_made(tmp_path, monkeypatch):
    (tmp_path / "file").write_text("mine")
    (tmp_path / "loop").symlink_to("loop")
    for folder in ("file", "file/deeper", "loop"):
        with pytest.raises(uwm.UwmError, match=folder):
            check_run(results_dir=str(tmp_path / folder))
    monkeypatch.setenv("UWM_CACHE", str(tmp_path / "file"))
    with pytest.raises(uwm.UwmError, match="file"):
        check_run(cache_dir="")
    check_run(results_dir=str(tmp_path / "new" / "deep"), cache_dir=str(tmp_path))
    assert sorted(os.listdir(tmp_path)) == ["file", "loop"]


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_the_defaults_of_every_chapter_pass(path, tmp_path, monkeypatch):
    monkeypatch.setenv("UWM_CACHE", str(tmp_path))
    assert declared_parameters(path).keys() <= CHECKS.keys()
    cells = nbformat.read(path, as_version=4).cells
    source = next(cell.source for cell in cells if "parameters" in cell.metadata.get("tags", []))
    defaults: dict = {}
    exec(source, {}, defaults)
    defaults.pop("__annotations__", None)
    assert defaults.keys() == declared_parameters(path).keys()
    check_run(**defaults)


def test_the_parameters_of_a_notebook_are_those_that_have_a_check():
    cell = {"tau": 0.05, "seed": 3, "results_dir": ""}
    imported = {"uwm": uwm, "math": math, "_": "", "In": [], "title": "no parameter"}
    assert checked_parameters(imported | cell) == cell
    with pytest.raises(uwm.UwmError, match="tau"):
        checked_parameters(imported | cell | {"tau": 5.0})
