"""The notebook runner: names and types of parameters, whole results or none, and the right Python."""

from __future__ import annotations

import json
import math
import os
import sys

import nbformat
import pytest
from tiny_notebooks import as_checkout, stdout_of, write_notebook

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
    with pytest.raises(UwmError, match="choose one of 'tau', 'n', 'name'"):
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


def test_only_a_checkout_of_this_project_lends_its_notebooks(tmp_path, monkeypatch):
    own = runner.notebooks_dir()
    assert (own / "01_motivation.ipynb").is_file()
    (tmp_path / "notebooks").mkdir()
    monkeypatch.chdir(tmp_path)
    for other in (None, "{", "[project]\nname = 'other'\n", "project = 3"):
        if other is not None:
            (tmp_path / "pyproject.toml").write_text(other)
        assert runner.notebooks_dir() == own
    as_checkout(tmp_path)
    assert runner.notebooks_dir() == tmp_path / "notebooks"
    assert runner.notebooks_dir(own) == own
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


def test_braces_in_paths_are_letters_like_others(tmp_path, monkeypatch):
    folder = tmp_path / "{name}" / "a{b}{"
    notebook = write_notebook(folder / "{0}.ipynb", "print(name)\n1 / n")
    monkeypatch.chdir(folder)
    (folder / "A.ipynb").write_text("mine")
    output = runner.run_notebook(notebook, output="{name}.ipynb", parameters={"name": "A"}, progress=False)
    assert stdout_of(output) == "A\n"
    with pytest.raises(runner.NotebookFailed, match="ZeroDivisionError"):
        runner.run_notebook(notebook, output="{n}.ipynb", parameters={"n": 0}, progress=False)
    names = sorted(path.name for path in folder.iterdir())
    assert names == sorted(["{0}.ipynb", "A.ipynb", "{name}.ipynb", "{n}.failed.ipynb"])
    assert (folder / "A.ipynb").read_text() == "mine"


def test_a_dead_kernel_keeps_the_notebook_so_far(tmp_path):
    notebook = write_notebook(
        tmp_path / "a.ipynb", "print('before')", "import os; os._exit(9)", "print('after')"
    )
    output = tmp_path / "out.ipynb"
    output.write_text("an earlier result")
    with pytest.raises(
        runner.NotebookFailed, match=r"^cell 4 of a\.ipynb lost its kernel: .*out\.failed\.ipynb"
    ):
        runner.run_notebook(notebook, output=output, progress=False)
    assert output.read_text() == "an earlier result"
    kept = nbformat.read(tmp_path / "out.failed.ipynb", as_version=4)
    assert stdout_of(tmp_path / "out.failed.ipynb") == "before\n"
    assert [cell.metadata.papermill.exception for cell in kept.cells] == [False, False, False, True, None]
    # What is kept of a failure may be replaced: it is recognised as such.
    write_notebook(notebook, "print('whole')")
    runner.run_notebook(notebook, output=output, progress=False)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.ipynb", "out.ipynb"]


@pytest.fixture
def never_runs(monkeypatch):
    def run(*_, **__):
        raise AssertionError("a kernel was started")

    monkeypatch.setattr(runner, "_execute", run)


def snapshot(folder):
    return {path: (path.is_symlink(), path.is_file() and path.read_bytes()) for path in folder.rglob("*")}


@pytest.mark.parametrize(
    ("prepare", "output", "words"),
    [
        (lambda f: None, "04_tiny.ipynb", "is the notebook itself"),
        (lambda f: (f / "l.ipynb").symlink_to("04_tiny.ipynb"), "l.ipynb", "is the notebook itself"),
        (lambda f: (f / "l.ipynb").hardlink_to(f / "04_tiny.ipynb"), "l.ipynb", "is the notebook itself"),
        (lambda f: (f / "z.failed.ipynb").symlink_to("04_tiny.ipynb"), "z.ipynb", "is the notebook itself"),
        (lambda f: write_notebook(f / "z.failed.ipynb"), "z.ipynb", "not a notebook that failed here"),
        (lambda f: (f / "z.failed.ipynb").mkdir(), "z.ipynb", "no file but a folder"),
        (lambda f: (f / "l.ipynb").symlink_to("data.csv"), "l.ipynb", "would replace what is read from"),
        (lambda f: (f / "l.ipynb").symlink_to("l.ipynb"), "l.ipynb", "no file but a folder"),
        (lambda f: (f / "data.csv").chmod(0o444), "data.ipynb/x.ipynb", None),
        (lambda f: None, "data.csv/x.ipynb", "cannot be written in"),
        (lambda f: None, "result.html", r"end in \.ipynb"),
        (lambda f: None, "y" * 300 + ".ipynb", "File name too long"),
    ],
)
def test_an_output_over_an_input_is_refused_before_anything_runs(
    tmp_path, monkeypatch, never_runs, prepare, output, words
):
    notebook = write_notebook(tmp_path / "04_tiny.ipynb")
    (tmp_path / "data.csv").write_text("a,b")
    prepare(tmp_path)
    before = snapshot(tmp_path)
    monkeypatch.chdir(tmp_path)
    expected = (AssertionError, "kernel was started") if words is None else (UwmError, words)
    with pytest.raises(expected[0], match=expected[1]):
        runner.run_notebook(notebook, output=output, parameters={"name": "data.csv"}, progress=False)
    assert snapshot(tmp_path) == before


def test_every_chapter_refuses_a_share_that_is_none_before_its_kernel(tmp_path, never_runs):
    for notebook in runner.list_notebooks(runner.notebooks_dir()):
        if "tau" in runner.declared_parameters(notebook):
            with pytest.raises(UwmError, match="tau is 2.0"):
                runner.run_notebook(notebook, output=tmp_path / "o.ipynb", parameters={"tau": 2.0})


@pytest.mark.parametrize("call", ["uwm.check_run(tau=tau)", "uwm.checked_parameters(globals())"])
def test_a_notebook_that_checks_its_parameters_is_checked_before_its_kernel(tmp_path, never_runs, call):
    notebook = write_notebook(tmp_path / "04_tiny.ipynb", call)
    for name, value in (("tau", 2.0), ("results_dir", str(notebook))):
        with pytest.raises(UwmError, match=f"{name} is 2.0|is a file, not a folder"):
            runner.run_notebook(notebook, output=tmp_path / "o.ipynb", parameters={name: value})


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


def test_a_run_refuses_a_kernel_of_another_python(tmp_path, monkeypatch, never_runs):
    spec = tmp_path / "kernels" / "python3" / "kernel.json"
    spec.parent.mkdir(parents=True)
    spec.write_text(json.dumps({"argv": ["/nowhere/python"], "display_name": "x", "language": "python"}))
    monkeypatch.setenv("JUPYTER_PATH", str(tmp_path))
    with pytest.raises(UwmError, match="starts /nowhere/python"):
        runner.run_notebook(write_notebook(tmp_path / "a.ipynb"), output=tmp_path / "o.ipynb", progress=False)


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


BOMB = "a: &a [x, x]\nks: [*a, *a]\n"


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (BOMB, "by reference"),
        ("ks: &k [*k]\n", "by reference"),
        ("tau: 0.1\nn: 3\ntau: 0.2\n", "gives 'tau' twice"),
        ("ks: " + "[" * 100_000, "more than 20 levels"),
        ("{a: " * 100_000, "more than 20 levels"),
        ("ks: [[[1]]", "not a YAML file"),
        ("n: " + "9" * 6000, "not a YAML file"),
        ("name: 2020-99-99", "not a YAML file"),
        ("? [a]\n: 1", "not a YAML file"),
        ("a: !!python/object/apply:os.getcwd []", "not a YAML file"),
        ("", "no mapping"),
    ],
)
def test_parameter_files_that_are_too_much_are_refused(tmp_path, text, words):
    path = tmp_path / "params.yml"
    path.write_text(text)
    with pytest.raises(UwmError, match=words) as caught:
        runner.read_parameters(path)
    assert len(str(caught.value)) < 300


def test_a_pipe_is_no_file_of_parameters_and_no_notebook(tmp_path):
    os.mkfifo(tmp_path / "p.ipynb")
    with pytest.raises(UwmError, match="a folder or a pipe"):
        runner.read_parameters(tmp_path / "p.ipynb")
    with pytest.raises(UwmError, match="a folder or a pipe"):
        runner.declared_parameters(tmp_path / "p.ipynb")


@pytest.mark.parametrize(
    ("name", "given"),
    [
        ("tau", "nan"), ("tau", math.inf), ("name", "a\udcffb"), ("ks", [float("nan")]), ("ks", ["\ud800"]),
        ("ks", [{1, 2}]), ("ks", [b"x"]),
    ],
)  # fmt: skip
def test_a_value_that_no_notebook_can_hold_is_refused(declared, name, given):
    with pytest.raises(UwmError, match=f"'{name}' is .*cannot hold"):
        runner.check_parameters({name: given}, declared)


@pytest.mark.parametrize("given", ["[" * 5000, "{[]: 1}", "-'a'", "9" * 5000, "\0"])
def test_what_is_no_literal_is_refused(declared, given):
    with pytest.raises(UwmError, match="'ks' takes") as caught:
        runner.check_parameters({"ks": given}, declared)
    assert len(str(caught.value)) < 300


def test_a_notebook_of_another_language_is_refused(tmp_path):
    notebook = nbformat.read(write_notebook(tmp_path / "a.ipynb"), as_version=4)
    notebook.metadata.kernelspec = {"display_name": "Julia", "language": "julia", "name": "julia-1.11"}
    nbformat.write(notebook, tmp_path / "a.ipynb")
    with pytest.raises(UwmError, match="notebook of julia"):
        runner.declared_parameters(tmp_path / "a.ipynb")


def test_a_folder_as_output_is_refused_before_anything_runs(tmp_path):
    source = write_notebook(tmp_path / "04_tiny.ipynb")
    (tmp_path / "out.ipynb").mkdir()
    with pytest.raises(UwmError, match="out.ipynb is no file but a folder"):
        runner.run_notebook(source, output=tmp_path / "out.ipynb", progress=False)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["04_tiny.ipynb", "out.ipynb"]


@pytest.mark.parametrize("content", ["[" * 100_000, "{}", '{"nbformat": 4, "nbformat_minor": 5}', "[]", ""])
def test_json_that_is_no_notebook_is_refused(tmp_path, content):
    (tmp_path / "a.ipynb").write_text(content)
    with pytest.raises(UwmError, match="no readable Python notebook"):
        runner.declared_parameters(tmp_path / "a.ipynb")
