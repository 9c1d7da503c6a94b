"""Imports run downwards: no module knows one above it, and few know the world that ships."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
#: From the bottom up; modules of one line may know each other.
LAYERS = [
    ["errors", "manifests", "options", "torchvision_shim"],
    ["files", "outputs", "rows"],
    ["metrics"],
    ["cache", "mini"],
    ["models"],
    ["tuples"],
    ["zero_shot"],
    ["editing"],
    ["captions", "evaluation", "outliers"],
    ["comparison"],
    ["paper", "reporting"],
    ["profiles"],
    ["parameters"],
    ["training"],
    ["methods"],
    ["studies"],
    ["runner"],
    ["listing"],
    ["cli"],
]
HEIGHT = {name: height for height, names in enumerate(LAYERS) for name in names}
KNOW_THE_MINI_WORLD = {
    "listing", "models.mini", "models.mini_architectures", "models.mini_llava", "profiles", "tuples.loading",
    "zero_shot.drawn", "training.bases", "training.captioning", "training.contrastive", "training.planting",
    "training.safe_clip",
}  # fmt: skip


def imported(path: Path) -> set[str]:
    """Modules of the library that a module imports anywhere but for its annotations, as "models.vlm"."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    for node in ast.walk(tree):
        if isinstance(node, ast.If) and getattr(node.test, "id", "") == "TYPE_CHECKING":
            node.body = []
    names = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] == "uwmlib":
            inner = node.module.removeprefix("uwmlib").removeprefix(".")
            names |= {inner} if inner else {alias.name for alias in node.names}
        if isinstance(node, ast.Import):
            names |= {a.name.removeprefix("uwmlib.") for a in node.names if a.name.startswith("uwmlib.")}
    return names


MODULES = {
    ".".join(path.relative_to(ROOT / "uwmlib").with_suffix("").parts): path
    for path in sorted((ROOT / "uwmlib").rglob("*.py"))
    if path != ROOT / "uwmlib" / "__init__.py"
}


@pytest.mark.parametrize("name", MODULES)
def test_no_import_runs_upwards(name):
    known = [each for each in imported(MODULES[name]) if each.split(".")[0] in HEIGHT]
    upwards = [each for each in known if HEIGHT[each.split(".")[0]] > HEIGHT[name.split(".")[0]]]
    assert upwards == []


def test_few_modules_know_the_mini_world():
    knowing = {
        name for name, path in MODULES.items() if any(each.split(".")[0] == "mini" for each in imported(path))
    }
    assert {name for name in knowing if name.split(".")[0] != "mini"} == KNOW_THE_MINI_WORLD


@pytest.mark.parametrize(("package", "sibling"), [("paper", "reporting"), ("reporting", "paper")])
def test_what_the_paper_says_and_how_it_is_shown_do_not_know_each_other(package, sibling):
    for name, path in MODULES.items():
        if name.split(".")[0] == package:
            known = {each.split(".")[0] for each in imported(path)}
            assert not known & {sibling, "models", "editing", "evaluation"}, name
