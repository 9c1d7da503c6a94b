"""Every name that the pages of the library describe has an example that `make test` runs and a reader can paste."""

from __future__ import annotations

import ast
import builtins
import doctest
import importlib
import inspect
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
WIDTH = 79  # of a line that the page shows without scrolling


def described() -> dict[str, object]:
    """What the pages describe and a reader may call, by its address."""
    pages = [path.read_text(encoding="utf-8") for path in sorted((ROOT / "book").glob("api*.md"))]
    modules = [
        importlib.import_module(name) for page in pages for name in re.findall(r"automodule:: (\S+)", page)
    ]
    named = {
        f"{module.__name__}.{name}": getattr(module, name) for module in modules for name in module.__all__
    }
    return {address: value for address, value in named.items() if callable(value)}


DESCRIBED = described()


def unbound(code: str) -> set[str]:
    """Names that some code reads and neither Python nor the code itself gives."""
    nodes = list(ast.walk(ast.parse(code)))
    names = [node for node in nodes if isinstance(node, ast.Name)]
    given = {node.id for node in names if isinstance(node.ctx, ast.Store)}
    given |= {
        node.name for node in nodes if isinstance(node, ast.FunctionDef | ast.ClassDef | ast.ExceptHandler)
    }
    given |= {(node.asname or node.name).split(".")[0] for node in nodes if isinstance(node, ast.alias)}
    given |= {node.arg for node in nodes if isinstance(node, ast.arg)}
    return {node.id for node in names} - given - set(vars(builtins))


def test_the_pages_describe_every_part_of_the_library():
    assert len(DESCRIBED) > 100
    assert {address.rpartition(".")[0] for address in DESCRIBED} >= {
        "uwmlib",
        "uwmlib.metrics",
        "uwmlib.reporting",
    }


@pytest.mark.parametrize("address", DESCRIBED)
def test_a_public_name_has_an_example(address):
    text = DESCRIBED[address].__doc__ or ""
    assert re.search(r"^ *Examples\n *-{8}$", text, re.MULTILINE), "no section of examples"
    assert doctest.DocTestParser().get_examples(text), "no example"


@pytest.mark.parametrize("address", DESCRIBED)
def test_an_example_can_be_pasted(address):
    """The run itself would not notice a missing import: it sees the names of the module."""
    examples = doctest.DocTestParser().get_examples(DESCRIBED[address].__doc__ or "")
    assert unbound("".join(example.source for example in examples)) == set()


@pytest.mark.parametrize("address", DESCRIBED)
def test_an_example_fits_its_page(address):
    _, _, section = inspect.cleandoc(DESCRIBED[address].__doc__ or "").partition("Examples\n")
    assert [line for line in section.splitlines() if len(line) > WIDTH] == []


def test_no_example_of_the_library_is_skipped():
    files = (ROOT / "uwmlib").rglob("*.py")
    assert [path.name for path in files if "doctest: +SKIP" in path.read_text(encoding="utf-8")] == []
