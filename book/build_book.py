"""Build the book (`make book`): run what changed, stage a clean source tree, let Jupyter Book make the site.

1. A notebook runs once, with its default parameters, for each state of what its numbers come from: its code
   cells, the library, the manifests and the shipped weights. Prose may change without a run. Two run at a time.
2. `_build/source` gets the configuration, the pages and the notebooks with their outputs, and each named figure as
   `book/_generated/<name>.png`.
3. Numbers in the prose come from `_build/results/*.json` by substitution, and from nowhere else. The value at
   `values.uwm.gs` in `04_table1_visu.json` is `{{ r_04_uwm_gs }}`: the number of the notebook, then the path,
   in lower case, with `minus` for the sign of a number and one `_` for what is no ASCII letter or digit. A
   measured value, that is `{"value": v, "interval": [lo, hi], "n": n}`, gives `..._gs`, `..._gs_lo`, `..._gs_hi`
   and `..._gs_n`. Texts and whole numbers stand as they are; other numbers have one decimal from 1 on and two below.
4. Jupyter Book treats every warning as an error. The status page shows versions and run times.
5. The pages are mended where theme and extensions leave out what readers without eyes or mouse need.
"""

from __future__ import annotations

import argparse
import base64
import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Any

import nbformat
import yaml
from accessible import mend_site
from notebook_outputs import code_cells, refuse_stderr, with_outputs

from uwmlib.errors import UwmError
from uwmlib.files import sha256_of_file, write_json, write_text
from uwmlib.runner import NotebookFailed, declared_parameters, list_notebooks, run_notebook

RESULTS_PARAMETER = "results_dir"
INPUTS = ("uwmlib/**/*.py", "uwmlib/weights/**/*", "data_manifests/**/*")
WORKERS = 2  #: notebooks at a time; each is a process of its own
SHOWN_VERSIONS = (
    "uwm-book",
    "torch",
    "torchvision",
    "open_clip_torch",
    "transformers",
    "numpy",
    "jupyter-book",
)


@dataclass(frozen=True)
class Layout:
    """Where things are: `root` is a checkout, everything that is made goes into its `_build`."""

    root: Path

    @property
    def notebooks(self) -> Path:
        return self.root / "notebooks"

    @property
    def executed(self) -> Path:
        return self.root / "_build" / "executed"

    @property
    def results(self) -> Path:
        return self.root / "_build" / "results"

    @property
    def source(self) -> Path:
        return self.root / "_build" / "source"

    @property
    def site(self) -> Path:
        return self.root / "_build" / "site"

    @property
    def pages(self) -> Path:
        return self.site / "_build" / "html"


def library_key(root: Path) -> str:
    """Return one hash over the files, besides the notebooks, that results depend on."""
    digest = hashlib.sha256()
    files = {path for pattern in INPUTS for path in root.glob(pattern) if path.is_file()}
    for path in sorted(files):
        digest.update(f"{path.relative_to(root).as_posix()} {sha256_of_file(path)}\n".encode())
    return digest.hexdigest()


def notebook_key(notebook: Path, library: str) -> str:
    """Return the hash of what the outputs of `notebook` depend on: its code cells and `library`."""
    cells = code_cells(nbformat.read(notebook, as_version=4))
    return hashlib.sha256(json.dumps([library, [cell.source for cell in cells]]).encode()).hexdigest()


def execute(notebook: Path, layout: Layout, library: str) -> bool:
    """Run `notebook` unless a run of the same state is there; return whether it ran."""
    target = layout.executed / notebook.name
    key = notebook_key(notebook, library)
    if _is_current(target, key, layout.results):
        return False
    layout.results.mkdir(parents=True, exist_ok=True)
    wants_results = RESULTS_PARAMETER in declared_parameters(notebook)
    before = _stamps(layout.results, notebook.stem)
    run_notebook(
        notebook, output=target, parameters={RESULTS_PARAMETER: str(layout.results)} if wants_results else {}
    )
    after = _stamps(layout.results, notebook.stem)
    written = [name for name, stamp in after.items() if before.get(name) != stamp]
    # Written last: an interrupted run has no sidecar of its key and is run again.
    write_json(_sidecar(target), {"key": key, "results": written})
    return True


def stage(layout: Layout) -> None:
    """Write the source tree that Jupyter Book reads, from nothing."""
    shutil.rmtree(layout.source, ignore_errors=True)
    ignored = shutil.ignore_patterns("*.py", "__pycache__", "_generated", "_static")
    shutil.copytree(layout.root / "book", layout.source / "book", ignore=ignored)
    # Jupyter Book takes style sheets from `_static` at the root of the source, and from nowhere else.
    shutil.copytree(layout.root / "book" / "_static", layout.source / "_static")
    shutil.copy(layout.root / "_toc.yml", layout.source)
    seconds, results = {}, set()
    for notebook in list_notebooks(layout.notebooks):
        executed = nbformat.read(layout.executed / notebook.name, as_version=4)
        page = with_outputs(nbformat.read(notebook, as_version=4), executed)
        refuse_stderr(page, notebook.name)
        write_figures(page, layout.source / "book" / "_generated")
        write_text(layout.source / "notebooks" / notebook.name, nbformat.writes(page) + "\n")
        seconds[notebook.stem] = executed.metadata.papermill.duration
        results |= {layout.results / name for name in _results_of(layout.executed / notebook.name)}
    write_text(layout.source / "book" / "_generated" / "versions.md", versions_table())
    write_text(layout.source / "book" / "_generated" / "run_times.md", run_times_table(seconds))
    config = yaml.safe_load((layout.root / "_config.yml").read_text(encoding="utf-8"))
    config.setdefault("parse", {})["myst_substitutions"] = substitutions(sorted(results))
    write_text(layout.source / "_config.yml", yaml.safe_dump(config, sort_keys=False, allow_unicode=True))
    check_toc(layout.source)


def write_figures(page: nbformat.NotebookNode, folder: Path) -> None:
    """Write every named figure of a notebook as `<name>.png`, for pages that show it too."""
    for cell in code_cells(page):
        name = cell.metadata.get("mystnb", {}).get("figure", {}).get("name")
        drawn = [output.data["image/png"] for output in cell.outputs if "image/png" in output.get("data", {})]
        if name and drawn:
            folder.mkdir(parents=True, exist_ok=True)
            (folder / f"{name}.png").write_bytes(base64.b64decode(drawn[-1]))


def substitutions(results: list[Path]) -> dict[str, str]:
    """Return the texts that pages may insert, from the values in results files.

    Raises
    ------
    UwmError
        If two values would have one key.
    """
    found: dict[str, str] = {}
    for path in results:
        values = json.loads(path.read_text(encoding="utf-8"))["values"]
        number = re.match(r"\d+(?=_)", path.stem)
        for parts, value in _leaves(values):
            key = "_".join(["r", number[0] if number else path.stem, *parts])
            key = re.sub(r"(?<!\w)-(?=\d)", "minus_", key)
            key = re.sub(r"[\W_]+", "_", key.lower(), flags=re.ASCII).strip("_")
            if key in found:
                raise UwmError(f"Two results have the key {key!r}, one in {path.name}: rename it.")
            found[key] = formatted(value)
    return found


def formatted(value: Any) -> str:
    """Return a value as the prose shows it.

    Examples
    --------
    >>> [formatted(value) for value in (2000, 12.345, -0.4567, -0.0089, None, "yes")]
    ['2000', '12.3', '-0.46', '-0.01', 'not measured', 'yes']
    """
    if value is None:
        return "not measured"
    if not isinstance(value, float):
        return str(value)
    return f"{value:.1f}" if abs(value) >= 1 else f"{value:.2f}"


def versions_table() -> str:
    """Return the table of versions that this build runs with, as Markdown."""
    python = ".".join(map(str, sys.version_info[:3]))
    rows = [("Python", python), *((name, metadata.version(name)) for name in SHOWN_VERSIONS)]
    return _markdown_table(("package", "version"), rows)


def run_times_table(seconds: dict[str, float]) -> str:
    """Return the table of notebooks and their run times in seconds, as Markdown."""
    return _markdown_table(("notebook", "seconds"), [(name, f"{time:.0f}") for name, time in seconds.items()])


def check_toc(source: Path) -> None:
    """Raise UwmError if `_toc.yml` names a page that was not staged."""
    toc = (source / "_toc.yml").read_text(encoding="utf-8")
    for page in re.findall(r"^\s*-?\s*(?:file|root):\s*(\S+)", toc, flags=re.MULTILINE):
        if not any((source / f"{page}{ending}").is_file() for ending in ("", ".md", ".ipynb")):
            raise UwmError(
                f"_toc.yml names {page}, and there is no such page or notebook: add it or drop the entry."
            )


def build_site(layout: Layout) -> int:
    """Run Jupyter Book on the staged tree, strictly; return its exit code."""
    # The command beside this Python: a virtual environment need not be activated. All pages are read anew,
    # for a page that Sphinx remembers does not repeat its warnings.
    command = [str(Path(sys.executable).with_name("jupyter-book")), "build", str(layout.source)]
    environment = os.environ | {"PYTHONPATH": str(Path(__file__).parent)}  # where Sphinx finds docstrings.py
    return subprocess.call(
        [*command, "--all", "-W", "-n", "--keep-going", "--path-output", str(layout.site)], env=environment
    )


def build(root: Path) -> int:
    """Run, stage and build the checkout at `root`; return an exit code."""
    layout = Layout(root)
    library = library_key(root)
    notebooks = list_notebooks(layout.notebooks)
    with ThreadPoolExecutor(max_workers=min(WORKERS, os.cpu_count() or 1)) as pool:
        runs = pool.map(lambda notebook: execute(notebook, layout, library), notebooks)
        for notebook, ran in zip(notebooks, runs, strict=True):
            print(f"{notebook.name}: {'run' if ran else 'unchanged, not run again'}", flush=True)
    stage(layout)
    code = build_site(layout)
    if code == 0:
        mend_site(layout.pages)
        print(f"The book is at {layout.pages / 'index.html'}")
    return code


def main() -> int:
    """Build the checkout that this file is in, or the one given with --root."""
    parser = argparse.ArgumentParser(description="Build the book.")
    parser.add_argument("--root", type=Path, default=Path(__file__).parents[1], help="the checkout")
    # A progress bar would be printed into the pages.
    os.environ.setdefault("TQDM_DISABLE", "1")
    try:
        return build(parser.parse_args().root.resolve())
    except (UwmError, NotebookFailed) as error:
        print(f"build_book: {error}", file=sys.stderr)
        return 1


def _sidecar(executed: Path) -> Path:
    return executed.with_suffix(".json")


def _is_current(executed: Path, key: str, results: Path) -> bool:
    """Whether `executed` is a run of the state `key` and the results it wrote are still there."""
    if not executed.is_file() or not _sidecar(executed).is_file():
        return False
    same = json.loads(_sidecar(executed).read_text(encoding="utf-8"))["key"] == key
    return same and all((results / name).is_file() for name in _results_of(executed))


def _results_of(executed: Path) -> list[str]:
    return json.loads(_sidecar(executed).read_text(encoding="utf-8"))["results"]


def _stamps(folder: Path, stem: str) -> dict[str, int]:
    """When the results of one notebook, which are named after it, were written; others may run beside it."""
    return {path.name: path.stat().st_mtime_ns for path in sorted(folder.glob(f"{stem}*.json"))}


def _leaves(value: Any, parts: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], Any]]:
    """Yield (path, plain value) for everything in nested results, measured values as the module says."""
    if isinstance(value, dict):
        for name, inner in value.items():
            if "value" in value and name == "value":
                yield from _leaves(inner, parts)
            elif "value" in value and name == "interval":
                yield from zip(((*parts, "lo"), (*parts, "hi")), inner, strict=True)
            else:
                yield from _leaves(inner, (*parts, name))
    elif isinstance(value, list):
        for position, inner in enumerate(value):
            yield from _leaves(inner, (*parts, str(position)))
    else:
        yield parts, value


def _markdown_table(header: tuple[str, str], rows: list[tuple[str, str]]) -> str:
    lines = [header, ("---", "---"), *rows]
    return "".join(f"| {left} | {right} |\n" for left, right in lines)


if __name__ == "__main__":
    sys.exit(main())
