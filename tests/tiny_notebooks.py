"""Small notebooks for the tests that run one."""

from __future__ import annotations

from pathlib import Path

import nbformat

PARAMETERS = """\
tau: float = 0.02  # share of the mass
n: int = 4
name: str = "a"
flag: bool = True
ks: list[int] = [1, 5]
bare = 3
results_dir: str = ""
"""


def write_notebook(
    path: Path, *cells: str, parameters: str | None = PARAMETERS, prose: str = "# Tiny"
) -> Path:
    """Write a notebook of one Markdown cell, one parameters cell (unless None) and the given code cells."""
    notebook = nbformat.v4.new_notebook()
    notebook.metadata.kernelspec = {"display_name": "Python 3", "language": "python", "name": "python3"}
    notebook.cells.append(nbformat.v4.new_markdown_cell(prose, id="prose"))
    if parameters is not None:
        tagged = nbformat.v4.new_code_cell(parameters, id="parameters", metadata={"tags": ["parameters"]})
        notebook.cells.append(tagged)
    for number, source in enumerate(cells):
        notebook.cells.append(nbformat.v4.new_code_cell(source, id=f"code-{number}"))
    path.parent.mkdir(parents=True, exist_ok=True)
    nbformat.write(notebook, path)
    return path


def as_checkout(folder: Path) -> Path:
    """Make `folder` look like a checkout of this project to `uwm run`."""
    (folder / "pyproject.toml").write_text('[project]\nname = "uwm-book"\n')
    return folder


def stdout_of(path: Path) -> str:
    """Return everything that the cells of an executed notebook printed."""
    cells = nbformat.read(path, as_version=4).cells
    outputs = [output for cell in cells for output in cell.get("outputs", [])]
    return "".join(
        output.text for output in outputs if output.output_type == "stream" and output.name == "stdout"
    )
