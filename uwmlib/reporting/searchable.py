"""A long table that a reader can search and filter in the page, without a kernel and without a network."""

from __future__ import annotations

import html
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pandas as pd

from uwmlib.errors import UwmError

SYMBOL = re.compile(r"\$([^$]+)\$")
COMMAND = re.compile(r"\\mathrm|[\\${}]")  # what a reader does not type


@dataclass(frozen=True)
class SearchableTable:
    """A table with a search field and a menu for each of some columns, as HTML.

    The page's own script (`book/_static/searchable.js`) shows the controls and hides rows; without it the controls stay
    hidden and all rows in view.

    Attributes
    ----------
    frame : DataFrame
        Columns to show, as text; the index is the first column, and each of its values a place to link to.
    caption : str
        Plain text.
    name : str
        Id of the table, such as "scoreboard".
    filters : mapping of str to sequence of str
        Label of a menu -> for each row the choice that it belongs to, or several, separated by "; ".
    marks : mapping of str to str
        Text of a cell of the last column -> the name of its look (a class "mark-<name>").

    Examples
    --------
    >>> import pandas as pd
    >>> from uwmlib.reporting import SearchableTable
    >>> rows = {"claim": ["$P_u^t$ rises"], "word": ["toy"]}
    >>> frame = pd.DataFrame(rows, index=pd.Index(["C1"], name="id"))
    >>> table = SearchableTable(
    ...     frame, "Claims.", "tab-claims", filters={"word": ["toy"]}
    ... )
    >>> print(table.to_html().count("<option"))
    2
    """

    frame: pd.DataFrame
    caption: str
    name: str
    filters: Mapping[str, Sequence[str]]
    marks: Mapping[str, str] | None = None

    def __post_init__(self) -> None:
        if wrong := [label for label, choices in self.filters.items() if len(choices) != len(self.frame)]:
            raise UwmError(f"The menu {wrong[0]!r} needs a choice for each of {len(self.frame)} rows.")

    def to_html(self) -> str:
        """The controls and the table."""
        head = "".join(
            f'<th scope="col" role="columnheader">{html.escape(str(name))}</th>'
            for name in (self.frame.index.name or "", *self.frame.columns)
        )
        rows = "".join(self._row(at) for at in range(len(self.frame)))
        return (
            f'<div class="searchable" id="{self.name}">{self._controls()}'
            f'<table role="table"><caption>{html.escape(self.caption)}</caption>'
            f'<thead role="rowgroup"><tr role="row">{head}</tr></thead>'
            f'<tbody role="rowgroup">{rows}</tbody></table></div>'
        )

    def _repr_html_(self) -> str:
        return self.to_html()

    def _controls(self) -> str:
        menus = "".join(self._menu(at, label) for at, label in enumerate(self.filters))
        field = f"{self.name}-search"
        return (
            '<div class="searchable-controls" role="search" aria-label="Rows of this table" hidden>'
            f'<p><label for="{field}">Search</label>'
            f'<input type="search" id="{field}" autocomplete="off" spellcheck="false"></p>{menus}'
            '<p class="searchable-found"><output aria-live="polite"></output> '
            '<button type="button">Show all</button></p></div>'
        )

    def _menu(self, at: int, label: str) -> str:
        choices = {choice: None for row in self.filters[label] for choice in row.split("; ")}
        options = "".join(f"<option>{html.escape(choice)}</option>" for choice in choices)
        field = f"{self.name}-{at}"
        return (
            f'<p><label for="{field}">{html.escape(label)}</label>'
            f'<select id="{field}" data-filter="{at}"><option value="">all</option>{options}</select></p>'
        )

    def _row(self, at: int) -> str:
        row, values = self.frame.index[at], self.frame.iloc[at]
        chosen = "".join(
            f' data-filter-{number}="{html.escape(choices[at])}"'
            for number, choices in enumerate(self.filters.values())
        )
        words = COMMAND.sub("", " ".join(str(value) for value in (row, *values)))
        cells = "".join(self._cell(name, value) for name, value in values.items())
        return (
            f'<tr role="row" id="{self.name}-{html.escape(str(row))}"{chosen} '
            f'data-words="{html.escape(words.lower())}"><th scope="row" role="rowheader">{_text(row)}</th>'
            f"{cells}</tr>"
        )

    def _cell(self, name: str, value: Any) -> str:
        look = (self.marks or {}).get(str(value)) if name == self.frame.columns[-1] else None
        text = f'<span class="mark-{look}">{_text(value)}</span>' if look else _text(value)
        return f'<td role="cell" data-label="{html.escape(str(name))}">{text}</td>'


def _text(value: Any) -> str:
    """Return a cell as HTML, with the symbols of scores in it as letters with indices."""
    escaped = html.escape(str(value), quote=False).replace("\n", "<br>")
    return SYMBOL.sub(lambda found: _symbol(found[1]), escaped)


def _symbol(formula: str) -> str:
    r"""Return `P_u^t`, `\mathrm{Txt}_s` or `V_s \to T_s` as HTML."""
    text = re.sub(r"\\(?:mathrm|mathit)\{(\w+)\}", r"\1", formula)
    for command, sign in {r"\to": "→", r"\tau": "τ", r"\alpha": "α", r"\cup": "∪"}.items():
        text = text.replace(command, sign)
    text = re.sub(r"_(?:\{([^}]*)\}|(\w))", lambda m: f"<sub>{m[1] or m[2]}</sub>", text)
    text = re.sub(r"\^(?:\{([^}]*)\}|(\w))", lambda m: f"<sup>{m[1] or m[2]}</sup>", text)
    return f'<span class="symbol">{text}</span>'
