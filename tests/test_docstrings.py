"""How docstrings become pages: sizes between bars are no substitutions, and examples stay as they are."""

from __future__ import annotations

from docstrings import _process, without_substitutions


def test_bars_are_escaped_but_in_code():
    assert without_substitutions("mean |W| as `a | b` or ``|c|``") == r"mean \|W\| as `a | b` or ``|c|``"


def test_examples_are_left_as_they_are():
    lines = ["Size |W|.", "", ">>> 1 | 2", "3 |", "", "Again |W|."]
    _process(None, "", "", None, None, lines)
    assert lines == [r"Size \|W\|.", "", ">>> 1 | 2", "3 |", "", r"Again \|W\|."]
