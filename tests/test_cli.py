"""The `uwm` command as a reader runs it: a process, its two streams and its exit code."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from safetensors.torch import save_file
from tiny_notebooks import stdout_of, write_notebook


def uwm(*arguments, cwd):
    command = [str(Path(sys.executable).with_name("uwm")), *map(str, arguments)]
    # Wide, so that rich does not wrap what is compared.
    environment = os.environ | {"COLUMNS": "200", "TERM": "dumb"}
    return subprocess.run(command, cwd=cwd, env=environment, capture_output=True, text=True)


@pytest.fixture
def folder(tmp_path):
    write_notebook(tmp_path / "notebooks" / "04_tiny.ipynb", "print(tau, n, name)\n1 / n")
    return tmp_path


def test_run_with_parameters_from_the_line_and_from_a_file(folder):
    (folder / "params.yml").write_text("tau: 0.25\nn: 9\n")
    done = uwm("run", "04", "-f", "params.yml", "-p", "tau", "-0.5", "-p", "name", "a=b", cwd=folder)
    assert done.returncode == 0, done.stderr
    result = folder / "_runs" / "04_tiny.ipynb"
    assert done.stdout == f"Result: {result}\n"
    assert stdout_of(result) == "-0.5 9 a=b\n"


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["04", "-p", "tua", "0.5"], "There is no parameter 'tua' in this notebook: did you mean 'tau'?"),
        (["04", "-p", "tau", "abc"], "The parameter 'tau' takes float, not 'abc': give such a value."),
        (["04", "-p", "tau"], "The parameter 'tau' has no value: write -p NAME VALUE."),
        (["05"], "There is no notebook '05' in {folder}/notebooks: choose from 04_tiny."),
    ],
)
def test_bad_input_is_one_line_and_exit_code_2(folder, arguments, sentence):
    done = uwm("run", *arguments, cwd=folder)
    assert done.returncode == 2
    assert done.stdout == ""
    assert done.stderr == f"uwm: {sentence.format(folder=folder)}\n"
    assert not (folder / "_runs").exists()


def test_a_failing_notebook_is_exit_code_1_and_kept(folder):
    done = uwm("run", "04", "-p", "n", "0", "--output", "out.ipynb", cwd=folder)
    assert done.returncode == 1
    assert done.stderr.splitlines()[-1].startswith("uwm: cell 4 of 04_tiny.ipynb raised ZeroDivisionError")
    assert "Traceback" not in done.stderr.splitlines()[-1]
    assert (folder / "out.failed.ipynb").is_file()
    assert not (folder / "out.ipynb").exists()


def test_list_names_notebooks_and_parameters(folder):
    assert uwm("run", "--list", cwd=folder).stdout == "04_tiny\n"
    shown = uwm("run", "4", "--list", cwd=folder).stdout
    assert [line.split()[1] for line in shown.splitlines() if "float" in line] == ["tau"]
    assert "list[int]" in shown
    assert "share of the mass" in shown


def test_info_shows_versions_and_places(folder):
    import torch

    shown = uwm("info", cwd=folder)
    assert shown.returncode == 0, shown.stderr
    assert torch.__version__ in shown.stdout
    assert "data_manifests" in shown.stdout


@pytest.fixture
def own_pairs(tmp_path):
    """A manifest of six tuples of noise, and the weights of an untrained mini model."""
    from uwmlib.models.mini_architectures import bare_model

    rng = np.random.default_rng(0)
    lines = []
    for row in range(6):
        record = {"safe_text": f"a red circle {row}", "unsafe_text": "a blue square"}
        for side in ("safe_image", "unsafe_image"):
            record[side] = f"{side}{row}.png"
            Image.fromarray(rng.integers(0, 256, (48, 48, 3), dtype=np.uint8)).save(tmp_path / record[side])
        lines.append(json.dumps(record))
    (tmp_path / "pairs.jsonl").write_text("\n".join(lines))
    weights = {
        name: tensor.contiguous() for name, tensor in bare_model("mini-ViT-L-14", seed=3).state_dict().items()
    }
    save_file(weights, tmp_path / "mini.safetensors")
    return tmp_path


def test_edit_and_evaluate_do_what_the_functions_do(own_pairs):
    import uwmlib

    common = ["mini-ViT-L-14", "--weights", "mini.safetensors", "--tuples", "pairs.jsonl"]
    edited = uwm("edit", *common, "--tau", "0.3", "--n", "6", "--text", "none", cwd=own_pairs)
    assert edited.returncode == 0, edited.stderr
    assert edited.stdout == "Result: edit.safetensors\n"
    measured = uwm("evaluate", *common, "--edit", "edit.safetensors", "--json", "out.json", cwd=own_pairs)
    assert measured.returncode == 0, measured.stderr
    vlm = uwmlib.load_model("mini-ViT-L-14", weights=own_pairs / "mini.safetensors")
    tuples = uwmlib.load_tuples(own_pairs / "pairs.jsonl")
    scores = uwmlib.score(vlm, tuples, text=None, vision="fc2", progress=False)
    edit = scores.select(tau=0.3)
    assert edit.share()["vision"] > 0
    with edit.applied(vlm):
        expected = uwmlib.evaluate(vlm, tuples)
    assert measured.stdout == f"{expected}\n"
    record = json.loads((own_pairs / "out.json").read_text())
    assert record["percent"] == pytest.approx(expected.as_percent())
    assert (record["data"], record["n"]) == ("pairs.jsonl", 6)
    refused = uwm("edit", *common, "--tau", "2", "--n", "6", cwd=own_pairs)
    assert refused.returncode == 2
    assert refused.stderr.splitlines()[-1].startswith("uwm: ")
    assert "Traceback" not in refused.stderr


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["edit", "mini-ViT-L-14", "--output", "taken"], "The output taken is no file but a folder"),
        (["edit", "mini-ViT-L-14", "--output", "file/edit.safetensors"], "cannot be written in"),
        (["edit", "mini-ViT-L-14", "--output", "x" * 300], "File name too long"),
        (["edit", "mini-ViT-L-14", "--tau", "nan"], "tau is nan"),
        (["edit", "mini-ViT-L-14", "--alpha", "nan"], "alpha is nan"),
        (["evaluate", "mini-ViT-L-14", "--json", "taken"], "The output taken is no file but a folder"),
        (["train", "mini-ViT-L-14", "--output", "file"], "cannot be written in"),
    ],
)
def test_what_cannot_be_done_is_refused_before_the_work(tmp_path, arguments, words):
    (tmp_path / "taken").mkdir()
    (tmp_path / "file").write_text("mine")
    done = uwm(*arguments, cwd=tmp_path)
    assert done.returncode == 2
    # One line: no progress bar has begun.
    assert len(done.stderr.splitlines()) == 1
    assert done.stderr.startswith("uwm: ") and words in done.stderr
    assert sorted(path.name for path in tmp_path.iterdir()) == ["file", "taken"]
    assert (tmp_path / "file").read_text() == "mine"
