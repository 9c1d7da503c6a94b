"""Numbered tables for notebooks: MyST markdown for the book, HTML for JupyterLab."""

from __future__ import annotations

import html
import math
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain, zip_longest
from numbers import Integral, Real
from typing import Any

import numpy as np
import pandas as pd

from uwmlib.errors import UwmError
from uwmlib.metrics import CATALOGUE, Score, Unit, label, measured
from uwmlib.metrics.catalogue import unit
from uwmlib.metrics.score import PERCENT
from uwmlib.options import whole_number

MARKS = re.compile(r"[\\`*_{}\[\]<>|~$&#!^@:]")  # of MyST markdown
LINE_BREAKS = re.compile(r"[\n\r\v\f\x1c-\x1e\x85\u2028\u2029]+")
NBSP = "\u00a0"
MISSING = "–"


@dataclass(frozen=True)
class Table:
    """A captioned table that the book numbers and JupyterLab shows as HTML.

    Attributes
    ----------
    frame : DataFrame
        What to show; the index is the first column. Cells are shown letter by letter, floats with `digits`
        decimals; only the labels of scores, such as `$P_s^t$`, are set as mathematics. A note in its attributes
        (`frame.attrs["note"]`, as tables of verdicts have) is printed after the caption.
    caption : str
        One paragraph of markdown; put text of others, such as the name of a data set, through `as_text`.
    name : str
        The label to refer to, such as "tab-visu" (`{numref}`).
    digits : int

    Notes
    -----
    The cell that returns the table needs the metadata `mystnb: {markdown_format: myst}`, and the book's
    configuration has to prefer `text/markdown` over `text/html` (`nb_mime_priority_overrides`): myst-nb
    takes HTML otherwise, which is readable but not numbered.

    Examples
    --------
    >>> import pandas as pd
    >>> from uwmlib.reporting import Table
    >>> rows = pd.Index(["CLIP", "UWM"], name="model")
    >>> frame = pd.DataFrame({"$P_s^t$": [97.5, None]}, index=rows)
    >>> table = Table(frame, "Preferences.", "tab-preferences")
    >>> for row in table.cells():
    ...     print(row)
    ['model', '$P_s^t$']
    ['CLIP', '97.5']
    ['UWM', '–']
    >>> print(table.to_myst().splitlines()[0])
    :::{table} Preferences.
    """

    frame: pd.DataFrame
    caption: str
    name: str
    digits: int = 1

    def __post_init__(self) -> None:
        if not isinstance(self.frame, pd.DataFrame) or not isinstance(self.caption, str):
            raise UwmError(f"Table {self.name!r} needs a DataFrame and a caption of text: give both.")
        whole_number(self.digits, "digits", least=0)
        if not re.fullmatch(r"[a-z][a-z0-9-]*", str(self.name)):
            raise UwmError(f"{self.name!r} cannot label a table: use lower-case letters, digits and hyphens.")
        if not self.caption.strip() or LINE_BREAKS.search(self.caption.strip()):
            raise UwmError(f"Table {self.name} needs a caption of one paragraph on one line.")
        if self.frame.empty:
            raise UwmError(f"Table {self.name} is empty: give at least one row and one column.")

    def cells(self) -> list[list[str]]:
        """Header and body as strings, row by row; the first column holds the index."""
        header = [self.frame.index.name or "", *map(str, self.frame.columns)]
        body = [
            [str(row), *(_text(value, self.digits) for value in values)]
            for row, values in zip(self.frame.index, self.frame.itertuples(index=False), strict=True)
        ]
        return [header, *body]

    def to_myst(self) -> str:
        """The table as MyST markdown; the book's style sheet says how it scrolls on narrow screens."""
        header, *body = [[_in_pipe_table(cell) for cell in row] for row in self.cells()]
        _, *columns = zip(*self.cells()[1:], strict=True)
        alignment = [":--", *("--:" if _is_numeric(column) else ":--" for column in columns)]
        lines = [_pipe(header), _pipe(alignment), *map(_pipe, body)]
        opening = f":::{{table}} {_without_markup(self._full_caption())}"
        return "\n".join([opening, f":name: {self.name}", "", *lines, ":::"])

    def to_html(self) -> str:
        """The table as HTML, for notebooks outside the book."""
        header, *body = [[_in_html(cell) for cell in row] for row in self.cells()]
        head = "".join(f'<th scope="col">{cell}</th>' for cell in header)
        rows = "".join(
            f'<tr><th scope="row">{first}</th>' + "".join(f"<td>{cell}</td>" for cell in rest) + "</tr>"
            for first, *rest in body
        )
        caption = html.escape(self._full_caption(), quote=False)
        return (
            '<div style="overflow-x: auto" tabindex="0"><table>'
            f'<caption style="text-align: left">{caption}</caption>'
            f"<thead><tr>{head}</tr></thead><tbody>{rows}</tbody></table></div>"
        )

    def _full_caption(self) -> str:
        """The caption, and the note of the frame."""
        return " ".join([self.caption.strip(), self.frame.attrs.get("note", "")]).strip()

    def _repr_mimebundle_(self, include: Any = None, exclude: Any = None) -> dict[str, str]:
        plain = self.frame.to_string()
        return {"text/markdown": self.to_myst(), "text/html": self.to_html(), "text/plain": plain}


def paper_beside_ours(
    rows: Sequence[str],
    keys: Sequence[str],
    ours: Mapping[str, Mapping[str, Score]],
    paper: pd.DataFrame,
    *,
    caption: str,
    name: str,
) -> Table:
    """A table of our numbers, each with its interval and the paper's number in parentheses.

    Parameters
    ----------
    rows, keys : sequence of str
        Which models and scores, in this order. A score that no row has and the paper does not print has no column.
    ours : mapping
        Row -> what was measured: names and scores. Rows and scores that were not measured show a dash.
    paper : DataFrame
        A table as `paper_table` gives it; rows and scores that it lacks show our number alone.
    caption : str
        What the table is about; how to read a cell and the number of items is added to it.
    name : str
        The table's label.

    Returns
    -------
    Table

    Raises
    ------
    UwmError
        If `ours` holds a row that is not asked for, which is most often a misspelt name.

    Examples
    --------
    >>> from uwmlib.metrics import Score
    >>> from uwmlib.paper import paper_table
    >>> from uwmlib.reporting import paper_beside_ours
    >>> table = paper_beside_ours(
    ...     ["CLIP", "UWM"],
    ...     ["ps", "gs"],
    ...     {"UWM": {"gs": Score(5.0, n=2000)}},
    ...     paper_table(1),
    ...     caption="SafeGround.",
    ...     name="tab-safeground",
    ... )
    >>> for row in table.cells():
    ...     print(row)
    ['model', 'PS', 'GS']
    ['CLIP', '– (67.5)', '– (1.2)']
    ['UWM', '– (67.8)', '5.0 (4.5)']
    """
    unknown = [row for row in ours if row not in rows]
    if unknown:
        raise UwmError(
            f"{', '.join(unknown)} was measured but is not among the rows {', '.join(rows)}: add it."
        )
    found = {key: [measured(ours[row], key) if row in ours else None for row in rows] for key in keys}
    printed = {key: [_printed(paper, row, key) for row in rows] for key in keys}
    keys = [key for key in keys if any(cell is not None for cell in (*found[key], *printed[key]))]
    units = {key: unit(key, *found[key]) for key in keys}
    columns = {
        key: [beside(*pair, units[key]) for pair in zip(found[key], printed[key], strict=True)]
        for key in keys
    }
    frame = pd.DataFrame(columns, index=pd.Index(rows, name="model"), columns=keys).rename(columns=label)
    any_printed = any(value is not None for value in chain(*printed.values()))
    note = reading_note(chain(*found.values()), units.values(), printed=any_printed)
    return Table(frame, f"{caption.strip()} {note}", name)


def _printed(paper: pd.DataFrame, row: str, key: str) -> float | None:
    """The paper's number, NaN for a dash; None where its table has no such cell."""
    return paper.at[row, key] if row in paper.index and key in paper.columns else None


def beside(ours: Score | None, paper: float | None, of: Unit = PERCENT) -> str:
    """One cell: "12.3 [11.0, 13.6] (13.1)"; dashes for what is unknown, no parentheses if `paper` is None."""
    here = with_interval(ours)
    if paper is None:
        return here
    return f"{here} ({MISSING if math.isnan(paper) else f'{paper:.{of.decimals}f}'})"


def with_interval(score: Score | None) -> str:
    r"""A score as "12.3 [11.0, 13.6]" with non-breaking spaces, alone without an interval; a dash for None.

    Examples
    --------
    >>> from uwmlib.metrics import Score
    >>> from uwmlib.reporting import with_interval
    >>> with_interval(Score(4.5, (4.0, 5.1)))
    '4.5\xa0[4.0,\xa05.1]'
    >>> with_interval(None)
    '–'
    """
    return MISSING if score is None else str(score).replace(" ", NBSP)


def reading_note(scores: Iterable[Score | None], units: Iterable[Unit], *, printed: bool) -> str:
    """The end of a caption: how to read a cell, in which unit, and how many items the numbers rest on."""
    known = [score for score in scores if score is not None]
    interval = " [95% interval]" if any(score.interval for score in known) else ""
    paper = " (printed in the paper)" if printed else ""
    counts = sorted({score.n for score in known if score.n is not None})
    n = f" n = {_count(counts[0])}" if counts else ""
    n += f" to {_count(counts[-1])}" if len(counts) > 1 else ""
    return f"Each cell: measured here{interval}{paper}, {_in_words(units)}.{n}{'.' if n else ''}"


def _in_words(units: Iterable[Unit]) -> str:
    """The units of a table, each once; where they mix, with what is in them, percent first."""
    distinct = sorted(dict.fromkeys(units), key=lambda one: one.of != "")
    if len(distinct) == 1:
        return distinct[0].words
    return ", ".join(f"{one.of} {one.words}".strip() for one in distinct)


def _count(n: int) -> str:
    return f"{n:,}"


def _text(value: Any, digits: int) -> str:
    if np.ndim(value) == 0 and pd.isna(value):
        return MISSING
    return (
        f"{value:.{digits}f}" if isinstance(value, Real) and not isinstance(value, Integral) else str(value)
    )


def _is_numeric(cells: Sequence[str]) -> bool:
    return all(re.match(rf"[-−+]?\d|{MISSING}", cell) for cell in cells)


def as_text(text: str) -> str:
    r"""Return markdown that shows `text` letter by letter, on one line, whatever it holds.

    Examples
    --------
    >>> from uwmlib.reporting import as_text
    >>> print(as_text("pairs_of_mine [v2]"))
    pairs\_of\_mine \[v2\]
    """
    return MARKS.sub(r"\\\g<0>", LINE_BREAKS.sub(" ", text))


def _in_pipe_table(cell: str) -> str:
    """Return a cell as markdown: its symbols as mathematics, all else as text."""
    return _around_symbols(cell, as_text, lambda symbol: symbol.replace("|", r"\|"))


def _in_html(cell: str) -> str:
    """Return a cell as HTML; a dollar inside an element of its own opens no formula."""
    return _around_symbols(
        cell, lambda text: html.escape(text, quote=False).replace("$", "<span>$</span>"), html.escape
    )


def _around_symbols(cell: str, text: Callable[[str], str], symbol: Callable[[str], str]) -> str:
    """Rewrite a cell piece by piece: what is the label of a score, and what stands between."""
    # Such a label is all that may stand in a cell as mathematics; every other `$` there is a dollar.
    labels = re.compile("|".join(re.escape(e.label) for e in CATALOGUE.values() if "$" in e.label))
    between = [text(piece) for piece in labels.split(cell)]
    symbols = [symbol(found) for found in labels.findall(cell)]
    return "".join(piece for pair in zip_longest(between, symbols, fillvalue="") for piece in pair)


def _without_markup(caption: str) -> str:
    """Take HTML and substitutions, which no caption of ours has, out of markdown; code and formulas stay."""
    code_and_formulas = re.split(r"((?<!\\)`[^`]*`|(?<!\\)\$[^$]*\$)", caption)
    outside = [
        re.sub(r"(?<!\\)<(?=[a-zA-Z/!?])", r"\\<", part).replace("{{", r"\{\{")
        for part in code_and_formulas[::2]
    ]
    pairs = zip_longest(outside, code_and_formulas[1::2], fillvalue="")
    return "".join(piece for pair in pairs for piece in pair)


def _pipe(cells: Sequence[str]) -> str:
    return "| " + " | ".join(cells) + " |"
