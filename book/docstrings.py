"""A Sphinx extension for the pages of the library: reads docstrings as they are written, each name once.

Between bars stands a size, such as |W|, and no substitution. What `uwmlib` itself offers is described on its own
page and left out where the subpackages are described.
"""

from __future__ import annotations

import re
from typing import Any

from sphinx.application import Sphinx

import uwmlib

FIRST_PAGE = "book/api"

_BARS = re.compile(r"``[^`]*``|`[^`]*`|(\|)")


def without_substitutions(line: str) -> str:
    r"""Return a line of a docstring with its bars escaped where they stand in no code.

    >>> without_substitutions("mean |W| as `a | b`")
    'mean \\|W\\| as `a | b`'
    """
    return _BARS.sub(lambda match: r"\|" if match[1] else match[0], line)


def _process(_: Sphinx, __: str, ___: str, ____: Any, _____: Any, lines: list[str]) -> None:
    in_example = False
    for number, line in enumerate(lines):
        # From a prompt to the next empty line stands code and what it prints.
        in_example = bool(line.strip()) and (in_example or line.lstrip().startswith(">>>"))
        lines[number] = line if in_example else without_substitutions(line)


def _skip(app: Sphinx, _: str, name: str, value: Any, ___: bool, ____: Any) -> bool | None:
    elsewhere = app.env.docname != FIRST_PAGE and name in uwmlib.__all__
    return True if elsewhere and value is getattr(uwmlib, name) else None


def setup(app: Sphinx) -> dict[str, bool]:
    """Called by Sphinx."""
    app.setup_extension("sphinx.ext.autodoc")
    app.connect("autodoc-process-docstring", _process)
    app.connect("autodoc-skip-member", _skip)
    return {"parallel_read_safe": True}
