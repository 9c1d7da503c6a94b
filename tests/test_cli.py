"""The `uwm` command as a reader runs it: a process, its two streams and its exit code."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
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
