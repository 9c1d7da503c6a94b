"""Numbers stand below words: what metrics, the paper and reporting may import."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

import uwmlib

ROOT = Path(uwmlib.__file__).parent
BASICS = {"errors", "options", "files", "outputs", "manifests"}
MAY_IMPORT = {
    "metrics": BASICS,
    "paper": BASICS | {"metrics"},
    "reporting": BASICS | {"metrics", "tuples"},
}


def imported(source: str) -> set[str]:
    """The parts of the library that a module imports, wherever in it."""
    modules = []
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.ImportFrom):
            modules += [f"{node.module}.{alias.name}" for alias in node.names]
        elif isinstance(node, ast.Import):
            modules += [alias.name for alias in node.names]
    return {module.split(".")[1] for module in modules if module.startswith("uwmlib.")}


@pytest.mark.parametrize("part", MAY_IMPORT)
def test_no_import_runs_upwards_or_sideways(part):
    for path in sorted((ROOT / part).glob("*.py")):
        found = imported(path.read_text(encoding="utf-8"))
        assert found <= MAY_IMPORT[part] | {part}, path.name


def test_every_form_of_import_is_seen():
    source = "from uwmlib import paper\ndef f():\n    import uwmlib.cache\n    from uwmlib.reporting.plots import style"
    assert imported(source) == {"paper", "cache", "reporting"}
