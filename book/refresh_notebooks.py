"""Execute the committed notebooks in place (`make notebooks`): a changed output is a changed result."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import nbformat
from notebook_outputs import refuse_stderr, with_outputs

from uwmlib.errors import UwmError
from uwmlib.files import write_text
from uwmlib.runner import RUNS, NotebookFailed, find_notebook, list_notebooks, run_notebook

ROOT = Path(__file__).resolve().parents[1]
NOTEBOOKS = ROOT / "notebooks"


def refresh(notebook: Path) -> None:
    """Run `notebook` with its defaults and write it back with the new outputs, or leave it as it was."""
    executed = run_notebook(notebook, output=ROOT / RUNS / notebook.name)
    result = with_outputs(nbformat.read(notebook, as_version=4), nbformat.read(executed, as_version=4))
    refuse_stderr(result, notebook.name)
    write_text(notebook, nbformat.writes(result) + "\n")


def main(names: list[str]) -> int:
    """Refresh the notebooks named on the command line, all of them without a name."""
    # A progress bar in a cell's output would be another one at every run.
    os.environ.setdefault("TQDM_DISABLE", "1")
    try:
        for notebook in [find_notebook(name, NOTEBOOKS) for name in names] or list_notebooks(NOTEBOOKS):
            refresh(notebook)
            print(f"Refreshed {notebook.name}")
    except (UwmError, NotebookFailed) as error:
        print(f"refresh_notebooks: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
