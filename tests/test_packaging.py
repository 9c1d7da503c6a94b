"""pyproject.toml, constraints.txt and environment.yml name the same versions: those that are installed."""

from __future__ import annotations

import ast
import importlib.metadata
import re
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

import uwmlib

ROOT = Path(__file__).resolve().parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
EXTRAS = PROJECT["optional-dependencies"]


def requirements(*groups: list[str]) -> dict[str, Requirement]:
    parsed = [Requirement(line) for group in groups for line in group]
    return {canonicalize_name(requirement.name): requirement for requirement in parsed}


def pins(lines: list[str]) -> dict[str, str]:
    pairs = [re.fullmatch(r"([A-Za-z0-9._-]+)==(\S+)", line) for line in lines]
    assert all(pairs), lines
    return {canonicalize_name(pair[1]): pair[2] for pair in pairs}


DIRECT = requirements(PROJECT["dependencies"], *EXTRAS.values())
CONSTRAINTS_TEXT = (ROOT / "constraints.txt").read_text(encoding="utf-8")
CONSTRAINTS = pins([line for line in CONSTRAINTS_TEXT.splitlines() if not line.startswith("#")])
ENVIRONMENT = yaml.safe_load((ROOT / "environment.yml").read_text(encoding="utf-8"))["dependencies"]
FROM_PIP = ENVIRONMENT[-1]["pip"]


@pytest.mark.parametrize("name", DIRECT)
def test_every_dependency_is_pinned_within_its_bounds(name):
    assert DIRECT[name].specifier.contains(CONSTRAINTS[name])


def test_environment_gives_the_same_versions():
    assert ENVIRONMENT[:2] == ["python=3.11", "pip"]
    assert FROM_PIP[0] == "-c constraints.txt"
    extras = ",".join(EXTRAS)
    assert FROM_PIP[-1] == f"-e .[{extras}]"
    assert pins(FROM_PIP[1:-1]) == {name: CONSTRAINTS[name] for name in DIRECT}


@pytest.mark.parametrize("name", DIRECT)
def test_installed_versions_are_the_pinned_ones(name):
    # A build for one kind of device carries a local label: 2.13.0+cpu is 2.13.0.
    assert importlib.metadata.version(name).split("+")[0] == CONSTRAINTS[name]


def test_no_file_names_where_packages_come_from():
    for name in ("pyproject.toml", "constraints.txt", "environment.yml", "Makefile"):
        text = (ROOT / name).read_text(encoding="utf-8")
        assert not re.search(r"://|--(extra-)?index|--find-links", text), name


def test_the_version_is_the_same_everywhere():
    version = PROJECT["version"]
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))
    assert citation["version"] == version
    assert (
        re.search(r"^## (\S+)", (ROOT / "CHANGELOG.md").read_text(encoding="utf-8"), re.MULTILINE)[1]
        == version
    )
    assert importlib.metadata.version("uwm-book") == uwmlib.__version__ == version


def imports(path: Path) -> tuple[set[str], set[str]]:
    """Return the top-level names that a module imports when it is itself imported, and those anywhere in it."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    return _imported(tree.body), _imported(ast.walk(tree))


def _imported(nodes) -> set[str]:
    names = set()
    for node in nodes:
        if isinstance(node, ast.Import):
            names |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.level == 0:
            names.add(node.module.split(".")[0])
    return names - sys.stdlib_module_names - {"uwmlib"}


def test_what_the_library_imports_is_declared():
    distributions = importlib.metadata.packages_distributions()
    plain = set(requirements(PROJECT["dependencies"]))
    undeclared = []
    for path in sorted((ROOT / "uwmlib").rglob("*.py")):
        at_load, anywhere = imports(path)
        # A function may use what an extra brings; importing the library may not.
        for names, declared in ((at_load, plain), (anywhere, set(DIRECT))):
            for module in names:
                if declared.isdisjoint(map(canonicalize_name, distributions[module])):
                    undeclared.append((path.name, module))
    assert undeclared == []


def test_the_wheel_holds_the_library_and_its_data(tmp_path):
    command = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(tmp_path)]
    subprocess.run(command, cwd=ROOT, check=True, capture_output=True)
    (wheel,) = tmp_path.glob("*.whl")
    files = set(zipfile.ZipFile(wheel).namelist())
    manifests = [path for path in (ROOT / "data_manifests").rglob("*") if path.is_file()]
    expected = {f"uwmlib/{path.relative_to(ROOT).as_posix()}" for path in manifests}
    package = [
        path for ending in ("*.py", "*.pyi", "*.safetensors") for path in (ROOT / "uwmlib").rglob(ending)
    ]
    expected |= {path.relative_to(ROOT).as_posix() for path in package}
    assert expected <= files
    assert {name.split("/")[0] for name in files} == {"uwmlib", f"uwm_book-{PROJECT['version']}.dist-info"}
