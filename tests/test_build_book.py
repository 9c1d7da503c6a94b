"""The book build: what is run again, what is staged, and how numbers get into the prose."""

from __future__ import annotations

import base64
import json
import shutil
from pathlib import Path

import build_book
import nbformat
import notebook_outputs
import pytest
import refresh_notebooks
import yaml
from tiny_notebooks import stdout_of, write_notebook

from uwmlib.errors import UwmError

# A cell that counts its runs in a file outside, and writes results as the chapters do.
CODE = """\
import json, pathlib
runs = pathlib.Path({runs!r})
runs.write_text(runs.read_text() + "x")
print("printed")
if results_dir:
    record = {{"values": {{"uwm": {{"GS": {{"value": 4.51, "interval": [4.1, 5.0], "n": 2000}}}}}}}}
    pathlib.Path(results_dir, "04_tiny.json").write_text(json.dumps(record))
"""


@pytest.fixture
def layout(tmp_path):
    root = tmp_path / "checkout"
    for file in ("uwmlib/a.py", "uwmlib/sub/b.py", "uwmlib/weights/m.safetensors", "data_manifests/v/t.csv"):
        (root / file).parent.mkdir(parents=True, exist_ok=True)
        (root / file).write_text("1")
    (root / "book" / "__pycache__").mkdir(parents=True)
    (root / "book" / "_static").mkdir()
    (root / "book" / "_static" / "book.css").write_text("")
    (root / "book" / "intro.md").write_text("# Intro\n")
    (root / "book" / "build_book.py").write_text("")
    (root / "_config.yml").write_text("title: T\nparse:\n  myst_enable_extensions: [substitution]\n")
    (root / "_toc.yml").write_text(
        "format: jb-book\nroot: book/intro\nchapters:\n  - file: notebooks/04_tiny\n"
    )
    runs = tmp_path / "runs"
    runs.write_text("")
    write_notebook(root / "notebooks" / "04_tiny.ipynb", CODE.format(runs=str(runs)))
    return build_book.Layout(root)


def run(layout) -> bool:
    (notebook,) = layout.notebooks.glob("*.ipynb")
    return build_book.execute(notebook, layout, build_book.library_key(layout.root))


def edit_notebook(layout, cell: int, source: str) -> None:
    path = layout.notebooks / "04_tiny.ipynb"
    notebook = nbformat.read(path, as_version=4)
    notebook.cells[cell].source = source
    nbformat.write(notebook, path)


def test_a_notebook_runs_again_only_for_a_reason(layout, tmp_path):
    assert run(layout)
    assert not run(layout)
    edit_notebook(layout, 0, "# Other prose")
    assert not run(layout)
    (layout.root / "uwmlib" / "sub" / "b.py").write_text("2")
    assert run(layout)
    assert not run(layout)
    (layout.results / "04_tiny.json").unlink()
    assert run(layout)
    assert (tmp_path / "runs").read_text() == "xxx"


@pytest.mark.parametrize(
    "file", ["uwmlib/a.py", "uwmlib/sub/new.py", "uwmlib/weights/m.safetensors", "data_manifests/v/t.csv"]
)
def test_the_key_follows_everything_that_results_depend_on(layout, file):
    notebook = layout.notebooks / "04_tiny.ipynb"
    before = build_book.notebook_key(notebook, build_book.library_key(layout.root))
    (layout.root / file).write_text("2")
    assert build_book.notebook_key(notebook, build_book.library_key(layout.root)) != before


def test_the_key_follows_code_and_names_but_neither_prose_nor_other_files(layout):
    notebook = layout.notebooks / "04_tiny.ipynb"
    library = build_book.library_key(layout.root)
    before = build_book.notebook_key(notebook, library)
    (layout.root / "uwmlib" / "notes.txt").write_text("2")
    edit_notebook(layout, 0, "# Other prose")
    assert build_book.library_key(layout.root) == library
    assert build_book.notebook_key(notebook, library) == before
    edit_notebook(layout, 1, "n: int = 5")
    assert build_book.notebook_key(notebook, library) != before
    (layout.root / "uwmlib" / "a.py").rename(layout.root / "uwmlib" / "c.py")
    assert build_book.library_key(layout.root) != library


def test_the_staged_tree_has_pages_outputs_and_numbers(layout):
    run(layout)
    edit_notebook(layout, 0, "# Prose of today")
    build_book.stage(layout)
    staged = {
        path.relative_to(layout.source).as_posix() for path in layout.source.rglob("*") if path.is_file()
    }
    generated = {"book/_generated/versions.md", "book/_generated/run_times.md"}
    written = {"_config.yml", "_toc.yml", "_static/book.css", "book/intro.md", "notebooks/04_tiny.ipynb"}
    assert staged == written | generated
    page = nbformat.read(layout.source / "notebooks" / "04_tiny.ipynb", as_version=4)
    assert [cell.id for cell in page.cells] == ["prose", "parameters", "code-0"]
    assert page.cells[0].source == "# Prose of today"
    assert page.cells[2].outputs[0].text == "printed\n"
    assert "papermill" not in nbformat.writes(page)
    config = yaml.safe_load((layout.source / "_config.yml").read_text())
    wanted = {"r_04_uwm_gs": "4.5", "r_04_uwm_gs_lo": "4.1", "r_04_uwm_gs_hi": "5.0", "r_04_uwm_gs_n": "2000"}
    assert config["parse"] == {"myst_enable_extensions": ["substitution"], "myst_substitutions": wanted}
    assert "04_tiny" in (layout.source / "book" / "_generated" / "run_times.md").read_text()


def test_named_figures_are_staged_for_other_pages(layout):
    (notebook,) = layout.notebooks.glob("*.ipynb")
    page = nbformat.read(notebook, as_version=4)
    drawn = base64.b64encode(b"pixels").decode()
    for name, data in {"fig-a": {"image/png": drawn}, "fig-b": {"text/plain": "x"}}.items():
        output = nbformat.v4.new_output("display_data", data=data)
        meta = {"mystnb": {"figure": {"name": name}}}
        page.cells.append(nbformat.v4.new_code_cell("draw()", outputs=[output], metadata=meta))
    build_book.write_figures(page, layout.source / "book" / "_generated")
    (figure,) = (layout.source / "book" / "_generated").iterdir()
    assert figure.name == "fig-a.png" and figure.read_bytes() == b"pixels"


def test_results_of_a_notebook_that_is_gone_are_not_quoted(layout):
    run(layout)
    shutil.copy(layout.results / "04_tiny.json", layout.results / "99_gone.json")
    build_book.stage(layout)
    assert "r_99" not in (layout.source / "_config.yml").read_text()


def test_a_page_missing_from_the_tree_is_named(layout):
    run(layout)
    (layout.root / "_toc.yml").write_text("root: book/intro\nchapters:\n  - file: notebooks/05_none\n")
    with pytest.raises(UwmError, match="notebooks/05_none"):
        build_book.stage(layout)


def test_a_cell_that_warned_stops_the_build(layout):
    edit_notebook(layout, 2, "import sys\nprint('careful', file=sys.stderr)")
    run(layout)
    with pytest.raises(UwmError, match="Cell 3 of 04_tiny.ipynb wrote to stderr .'careful'"):
        build_book.stage(layout)


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (4.55001, "4.6"),
        (-12.34, "-12.3"),
        (0.456, "0.46"),
        (-0.0089, "-0.01"),
        (0.0, "0.00"),
        (2000, "2000"),
        (True, "True"),
        ("≈ 3", "≈ 3"),
        (None, "not measured"),
    ],
)
def test_numbers_are_formatted_by_their_size(value, text):
    assert build_book.formatted(value) == text


def test_substitution_keys_follow_the_path(tmp_path):
    values = {"UWM (released)": {"ts_vs": [1, 2]}, "gap": {"value": None, "interval": [None, 3.0]}}
    results = tmp_path / "02_x.json"
    results.write_text(json.dumps({"values": values}))
    assert build_book.substitutions([results]) == {
        "r_02_uwm_released_ts_vs_0": "1",
        "r_02_uwm_released_ts_vs_1": "2",
        "r_02_gap": "not measured",
        "r_02_gap_lo": "not measured",
        "r_02_gap_hi": "3.0",
    }
    results.write_text(json.dumps({"values": {"alpha -0.5": 1, "alpha 0.5": 2}}))
    assert build_book.substitutions([results]) == {"r_02_alpha_minus_0_5": "1", "r_02_alpha_0_5": "2"}
    results.write_text(json.dumps({"values": {"a b": 1, "a_b": 2}}))
    with pytest.raises(UwmError, match="'r_02_a_b'"):
        build_book.substitutions([results])


def test_outputs_are_moved_without_a_trace_of_the_run(tmp_path):
    source = nbformat.read(write_notebook(tmp_path / "a.ipynb", "1 + 1"), as_version=4)
    executed = nbformat.read(write_notebook(tmp_path / "b.ipynb", "1 + 1"), as_version=4)
    stream = {"output_type": "stream", "name": "stdout"}
    pieces = [nbformat.from_dict(stream | {"text": text}) for text in ("a", "b\n")]
    result = nbformat.v4.new_output("execute_result", {"text/plain": "2"}, execution_count=9)
    executed.cells[2].outputs = [*pieces, result]
    executed.cells[2].execution_count = 9
    injected = nbformat.v4.new_code_cell("n = 3", metadata={"tags": ["injected-parameters"]})
    executed.cells.insert(2, injected)
    moved = notebook_outputs.with_outputs(source, executed)
    assert [cell.id for cell in moved.cells] == [cell.id for cell in source.cells]
    assert [output.get("text") for output in moved.cells[2].outputs] == ["ab\n", None]
    assert moved.cells[2].execution_count == moved.cells[2].outputs[1].execution_count == 2
    assert moved.cells[1].execution_count is None
    executed.cells[-1].source = "1 + 2"
    with pytest.raises(UwmError, match="other code"):
        notebook_outputs.with_outputs(source, executed)


def test_refreshing_twice_gives_the_same_file(tmp_path, monkeypatch):
    monkeypatch.setattr(refresh_notebooks, "ROOT", tmp_path)
    notebook = write_notebook(tmp_path / "notebooks" / "01_a.ipynb", "print('one')\nn * 2")
    refresh_notebooks.refresh(notebook)
    first = notebook.read_bytes()
    refresh_notebooks.refresh(notebook)
    assert notebook.read_bytes() == first
    assert stdout_of(notebook) == "one\n"
    assert b"/" + Path(tmp_path).name.encode() not in first


def test_a_built_page_is_mended(layout, monkeypatch):
    def build_site(layout):
        layout.pages.mkdir(parents=True)
        (layout.pages / "a.html").write_text("<html><head></head><pre>code</pre></html>")
        return 0

    monkeypatch.setattr(build_book, "build_site", build_site)
    assert build_book.build(layout.root) == 0
    assert '<pre tabindex="0">code</pre>' in (layout.pages / "a.html").read_text()
