"""What every notebook must have, whatever it is about."""

from __future__ import annotations

import ast
import re

import nbformat
import pytest

from uwmlib.manifests import manifests_dir
from uwmlib.parameters import CHECKS
from uwmlib.reporting.conclusion import WITHOUT_EFFECT
from uwmlib.reporting.references import load_references
from uwmlib.runner import declared_parameters

NOTEBOOKS = sorted((manifests_dir().parent / "notebooks").glob("*.ipynb"))
MAX_LINES = 16  # of a code cell, in lines of 88 characters; the parameters cell has one line a parameter


@pytest.fixture(params=NOTEBOOKS, ids=lambda path: path.stem)
def notebook(request):
    return request.param, nbformat.read(request.param, as_version=4)


def cells(nb, kind):
    return [cell for cell in nb.cells if cell.cell_type == kind]


def tags(cell):
    return cell.metadata.get("tags", [])


def test_it_says_what_it_claims_reproduces_teaches_and_found(notebook):
    prose = "\n".join(cell.source for cell in cells(notebook[1], "markdown"))
    for part in ("**Claim.**", "**Reproduces**", "After this chapter you can", "## Exercises", "## Summary"):
        assert part in prose, part
    assert prose.count(":::{exercise}") == prose.count(":::{solution}") >= 2


def test_one_parameters_cell_with_typed_commented_defaults(notebook):
    path, nb = notebook
    assert sum("parameters" in tags(cell) for cell in nb.cells) == 1
    parameters = declared_parameters(path)
    assert {"profile", "seed", "device", "results_dir", "update_reference"} <= set(parameters)
    assert all(parameter.kind != "None" and parameter.help for parameter in parameters.values())
    assert parameters["profile"].default == '"mini"'
    # papermill passes over a line that it cannot read, and the check over a name that it does not know.
    (cell,) = [cell for cell in nb.cells if "parameters" in tags(cell)]
    assert len(parameters) == len(cell.source.splitlines()) and set(parameters) <= set(CHECKS)


def test_the_check_follows_the_parameters_and_the_reference_has_all_that_count(notebook):
    path, nb = notebook
    code = cells(nb, "code")
    at = next(i for i, cell in enumerate(code) if "parameters" in tags(cell))
    assert code[at + 1].source.startswith("parameters = uwm.checked_parameters(globals())")
    defaults = {
        name: ast.literal_eval(parameter.default)
        for name, parameter in declared_parameters(path).items()
        if name not in WITHOUT_EFFECT
    }
    assert load_references(path.stem)["params"] == defaults


def test_cells_are_short_and_prose_stands_before_figures(notebook):
    for cell in cells(notebook[1], "code"):
        if "parameters" not in tags(cell):
            assert len(cell.source.splitlines()) <= MAX_LINES, cell.source


def test_figures_have_captions_and_alt_text_and_captions_have_figures(notebook):
    for cell in cells(notebook[1], "code"):
        drawn = any("image/png" in output.get("data", {}) for output in cell.outputs)
        assert drawn == ("figure" in cell.metadata.get("mystnb", {})), cell.source
        if drawn:
            shown = cell.metadata["mystnb"]
            assert len(shown["image"]["alt"]) > 40 and len(shown["figure"]["caption"]) > 40
            assert shown["figure"]["name"].startswith("fig-")


def test_tables_are_written_as_markdown_with_their_label(notebook):
    tables = [cell for cell in cells(notebook[1], "code") if 'name="tab-' in cell.source]
    unlabelled = [
        cell.id for cell in tables if cell.metadata.get("mystnb", {}).get("markdown_format") != "myst"
    ]
    assert unlabelled == []


def test_outputs_are_whole_and_end_in_the_reference_check(notebook):
    path, nb = notebook
    code = cells(nb, "code")
    assert all(cell.execution_count for cell in code)
    assert not any(output.output_type == "error" for cell in code for output in cell.outputs)
    assert "nbval-check-output" in tags(code[-1])
    text = "".join(output.get("text", "") for output in code[-1].outputs)
    assert re.fullmatch(rf"reference check {path.stem}: (\d+) of \1 values agree \(tolerance .*\)\n", text)


def test_no_paths_of_a_machine_and_no_installs(notebook):
    text = notebook[0].read_text(encoding="utf-8")
    for word in ("/home/", "/Users/", "/tmp/", "!pip", "%pip"):
        assert word not in text
