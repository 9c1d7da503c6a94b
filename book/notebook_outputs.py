"""Move the outputs of an executed notebook into its source, so that only the results of the run are kept.

papermill's copy carries an injected cell, timings and paths of the machine. The source notebook with the
outputs put in has none of these, keeps its cell ids, and shows today's prose even over older outputs.
"""

from __future__ import annotations

import copy

import nbformat

from uwmlib.errors import UwmError

INJECTED = "injected-parameters"
KERNELSPEC = {"display_name": "Python 3", "language": "python", "name": "python3"}


def with_outputs(source: nbformat.NotebookNode, executed: nbformat.NotebookNode) -> nbformat.NotebookNode:
    """Return `source` with the outputs of `executed` in its code cells.

    Parameters
    ----------
    source, executed : NotebookNode
        The notebook as written, and a run of it. Their code cells must be the same, injected ones aside.

    Returns
    -------
    NotebookNode
        A new notebook: execution counts run from 1, adjacent pieces of one stream are joined (where a stream
        is cut depends on timing), and kernel and language are named without versions.

    Raises
    ------
    UwmError
        If the code cells differ.
    """
    result = copy.deepcopy(source)
    runs = [cell for cell in code_cells(executed) if INJECTED not in cell.metadata.get("tags", [])]
    cells = code_cells(result)
    if [cell.source for cell in cells] != [run.source for run in runs]:
        raise UwmError("The executed notebook has other code than its source: run it again.")
    for count, (cell, run) in enumerate(zip(cells, runs, strict=True), start=1):
        cell.execution_count = count if run.execution_count is not None else None
        cell.outputs = joined_streams(run.outputs)
        for output in cell.outputs:
            if output.output_type == "execute_result":
                output.execution_count = count
    for cell in result.cells:
        for machine_made in ("execution", "papermill"):
            cell.metadata.pop(machine_made, None)
    result.metadata = nbformat.from_dict({"kernelspec": KERNELSPEC, "language_info": {"name": "python"}})
    return result


def code_cells(notebook: nbformat.NotebookNode) -> list[nbformat.NotebookNode]:
    """Return the code cells of a notebook."""
    return [cell for cell in notebook.cells if cell.cell_type == "code"]


def joined_streams(outputs: list[nbformat.NotebookNode]) -> list[nbformat.NotebookNode]:
    """Return copies of `outputs` in which neighbours of the same stream are one output."""
    joined: list[nbformat.NotebookNode] = []
    for output in copy.deepcopy(outputs):
        before = joined[-1] if joined else None
        if before and output.output_type == before.output_type == "stream" and output.name == before.name:
            before.text += output.text
        else:
            joined.append(output)
    return joined


def refuse_stderr(notebook: nbformat.NotebookNode, name: str) -> None:
    """Raise UwmError if a cell wrote to stderr: a warning on a page of the book is a fault of the book."""
    for number, cell in enumerate(notebook.cells, start=1):
        for output in cell.get("outputs", []):
            if output.output_type == "stream" and output.name == "stderr":
                first = output.text.strip().split("\n")[0]
                raise UwmError(f"Cell {number} of {name} wrote to stderr ({first!r}): mend what it warns of.")
