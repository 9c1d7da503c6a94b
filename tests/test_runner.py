"""The notebook runner: names and types of parameters, whole results or none, and the right Python."""

from __future__ import annotations

import json
import sys

import pytest
from tiny_notebooks import stdout_of, write_notebook

from uwmlib import runner
from uwmlib.errors import UwmError


@pytest.fixture
def declared(tmp_path):
    return runner.declared_parameters(write_notebook(tmp_path / "04_tiny.ipynb"))


def test_declared_parameters_have_types_defaults_and_help(declared):
    kinds = {name: parameter.kind for name, parameter in declared.items()}
    assert kinds == {
        "tau": "float",
        "n": "int",
        "name": "str",
        "flag": "bool",
        "ks": "list[int]",
        "bare": "int",
        "results_dir": "str",
    }
    assert declared["tau"].default == "0.02"
    assert declared["tau"].help == "share of the mass"


@pytest.mark.parametrize(
    ("name", "given", "want"),
    [
        ("tau", "0.05", 0.05),
        ("tau", "1", 1.0),
        ("tau", 1, 1.0),
        ("tau", "-1e-3", -0.001),
        ("n", "7", 7),
        ("n", 7, 7),
        ("bare", "8", 8),
        ("name", "12", "12"),
        ("name", "", ""),
        ("flag", "no", False),
        ("flag", "TRUE", True),
        ("flag", False, False),
        ("ks", "[2, 3]", [2, 3]),
        ("ks", [2], [2]),
    ],
)
def test_a_value_is_taken_in_the_declared_type(declared, name, given, want):
    got = runner.check_parameters({name: given}, declared)[name]
    assert got == want
    assert type(got) is type(want)


@pytest.mark.parametrize(
    ("name", "given"),
    [
        ("tau", "abc"),
        ("tau", True),
        ("tau", None),
        ("n", "1.5"),
        ("n", 1.5),
        ("n", True),
        ("bare", "x"),
        ("name", 3),
        ("flag", "maybe"),
        ("flag", 1),
        ("ks", "5"),
        ("ks", "[1,"),
    ],
)
def test_a_value_of_another_type_is_refused_by_name(declared, name, given):
    with pytest.raises(UwmError, match=f"'{name}' takes"):
        runner.check_parameters({name: given}, declared)


def test_an_unknown_name_is_refused_with_the_nearest(declared):
    with pytest.raises(UwmError, match="no parameter 'resultsdir'.*did you mean 'results_dir'"):
        runner.check_parameters({"resultsdir": "x"}, declared)
    with pytest.raises(UwmError, match="choose from tau, n, name"):
        runner.check_parameters({"zzzzzz": "x"}, declared)
    with pytest.raises(UwmError, match="declares none"):
        runner.check_parameters({"tau": "1"}, {})


def test_a_notebook_is_found_by_number_name_or_path(tmp_path):
    first = write_notebook(tmp_path / "01_a.ipynb")
    tenth = write_notebook(tmp_path / "10_b.ipynb")
    assert runner.list_notebooks(tmp_path) == [first, tenth]
    for which in ("1", "01", "01_a", "01_a.ipynb", str(first)):
        assert runner.find_notebook(which, tmp_path) == first
    with pytest.raises(UwmError, match="choose from 01_a, 10_b"):
        runner.find_notebook("2", tmp_path)
    write_notebook(tmp_path / "01_c.ipynb")
    with pytest.raises(UwmError, match="01_a, 01_c"):
        runner.find_notebook("1", tmp_path)


def test_notebooks_dir_prefers_the_working_directory(tmp_path, monkeypatch):
    (tmp_path / "notebooks").mkdir()
    monkeypatch.chdir(tmp_path)
    assert runner.notebooks_dir() == tmp_path / "notebooks"
    with pytest.raises(UwmError, match="no folder"):
        runner.notebooks_dir(tmp_path / "elsewhere")


def test_a_run_uses_this_python_the_callers_folder_and_the_given_values(tmp_path, monkeypatch):
    code = "import os, sys, json\nprint(json.dumps([sys.executable, os.getcwd(), tau, n, name, flag, ks]))"
    notebook = write_notebook(tmp_path / "nb" / "04_tiny.ipynb", code)
    source = notebook.read_bytes()
    monkeypatch.chdir(tmp_path)
    output = runner.run_notebook(notebook, parameters={"tau": "0.5", "flag": "no", "ks": [2]}, progress=False)
    assert output == tmp_path / "_runs" / "04_tiny.ipynb"
    assert json.loads(stdout_of(output)) == [sys.executable, str(tmp_path), 0.5, 4, "a", False, [2]]
    assert notebook.read_bytes() == source
    assert [path.name for path in output.parent.iterdir()] == ["04_tiny.ipynb"]


def test_a_failure_keeps_the_notebook_aside_and_the_earlier_result(tmp_path):
    notebook = write_notebook(tmp_path / "04_tiny.ipynb", "print('before')", "1 / n", "print('after')")
    output = tmp_path / "out.ipynb"
    output.write_text("an earlier result")
    with pytest.raises(runner.NotebookFailed, match="ZeroDivisionError.*out.failed.ipynb"):
        runner.run_notebook(notebook, output=output, parameters={"n": 0}, progress=False)
    assert output.read_text() == "an earlier result"
    assert stdout_of(tmp_path / "out.failed.ipynb") == "before\n"
    runner.run_notebook(notebook, output=output, progress=False)
    assert stdout_of(output) == "before\nafter\n"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["04_tiny.ipynb", "out.ipynb"]


def test_the_notebook_itself_is_no_output(tmp_path):
    notebook = write_notebook(tmp_path / "04_tiny.ipynb")
    with pytest.raises(UwmError, match="is the notebook itself"):
        runner.run_notebook(notebook, output=notebook)
    with pytest.raises(UwmError, match=r"end in \.ipynb"):
        runner.run_notebook(notebook, output=tmp_path / "result.html")


def test_what_is_no_notebook_is_refused(tmp_path):
    broken = tmp_path / "05_broken.ipynb"
    broken.write_text("{")
    with pytest.raises(UwmError, match="no readable Python notebook"):
        runner.declared_parameters(broken)


def test_a_kernel_of_another_python_is_refused(tmp_path, monkeypatch):
    spec = tmp_path / "kernels" / "python3" / "kernel.json"
    spec.parent.mkdir(parents=True)
    monkeypatch.setenv("JUPYTER_PATH", str(tmp_path))
    for command, accepted in ((sys.executable, True), ("python", True), ("/nowhere/bin/python", False)):
        spec.write_text(json.dumps({"argv": [command], "display_name": "x", "language": "python"}))
        if accepted:
            runner.check_kernel()
        else:
            with pytest.raises(UwmError, match="starts /nowhere/bin/python"):
                runner.check_kernel()


def test_parameter_files_are_flat_yaml(tmp_path):
    path = tmp_path / "params.yml"
    path.write_text("tau: 0.5\nks: [1, 2]\n")
    assert runner.read_parameters(path) == {"tau": 0.5, "ks": [1, 2]}
    for text in ("- tau\n", "1: 2\n", "a: [\n"):
        path.write_text(text)
        with pytest.raises(UwmError, match="name: value"):
            runner.read_parameters(path)
    with pytest.raises(UwmError, match="cannot be read"):
        runner.read_parameters(tmp_path / "none.yml")


def test_a_folder_as_output_is_refused_before_anything_runs(tmp_path):
    source = write_notebook(tmp_path / "04_tiny.ipynb")
    (tmp_path / "out.ipynb").mkdir()
    with pytest.raises(UwmError, match="out.ipynb is no file but a folder"):
        runner.run_notebook(source, output=tmp_path / "out.ipynb", progress=False)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["04_tiny.ipynb", "out.ipynb"]


@pytest.mark.parametrize("content", ["{}", '{"nbformat": 4, "nbformat_minor": 5}', "[]", ""])
def test_json_that_is_no_notebook_is_refused(tmp_path, content):
    (tmp_path / "a.ipynb").write_text(content)
    with pytest.raises(UwmError, match="no readable Python notebook"):
        runner.declared_parameters(tmp_path / "a.ipynb")
