"""Numbered tables for notebooks: MyST markdown for the book, HTML for JupyterLab."""

from __future__ import annotations

import html
import math
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import zip_longest
from numbers import Integral, Real
from typing import Any

import numpy as np
import pandas as pd

from uwmlib.errors import UwmError
from uwmlib.options import whole_number
from uwmlib.reporting.measured import SIGNAL_KEYS, Measured, measured

LABELS = {
    "p_s_t": "$P_s^t$",
    "p_u_t": "$P_u^t$",
    "p_s_v": "$P_s^v$",
    "p_u_v": "$P_u^v$",
    "txt_s": r"$\mathrm{Txt}_s$",
    "img_s": r"$\mathrm{Img}_s$",
    "ps": "PS",
    "pu": "PU",
    "gs": "GS",
    "ts_vs": r"$T_s \to V_s$",
    "vs_ts": r"$V_s \to T_s$",
    "tu_vus": r"$T_u \to V_{u+s}$",
    "vu_tus": r"$V_u \to T_{u+s}$",
    "zs_mean": "zero-shot",
    "sensitivity_text": "$d'$, text",
    "bias_text": "$c$, text",
    "sensitivity_image": "$d'$, image",
    "bias_image": "$c$, image",
    "nsfw": "%NSFW",
    "toxicity": "toxicity",
    "rouge_l": "ROUGE-L",
    "bleu": "BLEU",
    "meteor": "METEOR",
}
# Scores of captions on a scale from 0 to 1 (Table 5).
UNIT_SCORES = ("rouge_l", "bleu", "meteor")
# What may stand in a cell as mathematics; every other `$` there is a dollar.
SYMBOLS = re.compile("|".join(re.escape(label) for label in LABELS.values() if "$" in label))
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
        decimals; only the symbols of `LABELS`, such as `$P_s^t$`, are set as mathematics.
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
        opening = f":::{{table}} {_without_markup(self.caption.strip())}"
        return "\n".join([opening, f":name: {self.name}", "", *lines, ":::"])

    def to_html(self) -> str:
        """The table as HTML, for notebooks outside the book."""
        header, *body = [[_in_html(cell) for cell in row] for row in self.cells()]
        head = "".join(f'<th scope="col">{cell}</th>' for cell in header)
        rows = "".join(
            f'<tr><th scope="row">{first}</th>' + "".join(f"<td>{cell}</td>" for cell in rest) + "</tr>"
            for first, *rest in body
        )
        caption = html.escape(self.caption.strip(), quote=False)
        return (
            '<div style="overflow-x: auto" tabindex="0"><table>'
            f'<caption style="text-align: left">{caption}</caption>'
            f"<thead><tr>{head}</tr></thead><tbody>{rows}</tbody></table></div>"
        )

    def _repr_mimebundle_(self, include: Any = None, exclude: Any = None) -> dict[str, str]:
        plain = self.frame.to_string()
        return {"text/markdown": self.to_myst(), "text/html": self.to_html(), "text/plain": plain}


def paper_beside_ours(
    rows: Sequence[str],
    keys: Sequence[str],
    ours: Mapping[str, Any],
    paper: pd.DataFrame,
    *,
    caption: str,
    name: str,
    digits: int = 1,
) -> Table:
    """A table of our numbers, each with its interval and the paper's number in parentheses.

    Parameters
    ----------
    rows, keys : sequence of str
        Which models and scores, in this order.
    ours : mapping
        Row -> what was measured (see `uwmlib.reporting.measured.measured`). Rows and scores that were not
        measured show a dash.
    paper : DataFrame
        A table as `paper_table` gives it; rows and scores that it lacks show our number alone.
    caption : str
        What the table is about; how to read a cell and the number of items is added to it.
    name : str
        The table's label.
    digits : int

    Returns
    -------
    Table

    Raises
    ------
    UwmError
        If `ours` holds a row that is not asked for, which is most often a misspelt name.
    """
    unknown = [row for row in ours if row not in rows]
    if unknown:
        raise UwmError(
            f"{', '.join(unknown)} was measured but is not among the rows {', '.join(rows)}: add it."
        )
    found = {(row, key): measured(ours[row], key) if row in ours else None for row in rows for key in keys}
    printed = {
        (row, key): paper.at[row, key] if row in paper.index and key in paper.columns else None
        for row in rows
        for key in keys
    }
    # Standard deviations and scores up to 1 are small numbers: two decimals whatever the percentages have.
    decimals = {key: 2 if key in (*SIGNAL_KEYS, *UNIT_SCORES) else digits for key in keys}
    body = [
        [beside(found[row, key], printed[row, key], digits=decimals[key]) for key in keys] for row in rows
    ]
    columns = [LABELS.get(key, key) for key in keys]
    frame = pd.DataFrame(body, index=pd.Index(rows, name="model"), columns=columns)
    return Table(frame, f"{caption.strip()} {reading_note(found.values(), keys, printed)}", name, digits)


def beside(ours: Measured | None, paper: float | None, *, digits: int = 1) -> str:
    """One cell: "12.3 [11.0, 13.6] (13.1)"; dashes for what is unknown, no parentheses if `paper` is None."""
    here = with_interval(ours, digits=digits)
    if paper is None:
        return here
    return f"{here} ({MISSING if math.isnan(paper) else f'{paper:.{digits}f}'})"


def with_interval(number: Measured | None, *, digits: int = 1) -> str:
    """A number as "12.3 [11.0, 13.6]" with non-breaking spaces, alone without an interval; a dash for None."""
    if number is None:
        return MISSING
    if not number.has_interval:
        return f"{number.value:.{digits}f}"
    return f"{number.value:.{digits}f} [{number.lo:.{digits}f},{NBSP}{number.hi:.{digits}f}]".replace(
        " ", NBSP
    )


def reading_note(found: Any, keys: Sequence[str], printed: Mapping[Any, float | None]) -> str:
    """The end of a caption: how to read a cell, in which unit, and how many items the numbers rest on."""
    known = [number for number in found if number is not None]
    interval = " [95% interval]" if any(number.has_interval for number in known) else ""
    paper = " (printed in the paper)" if any(value is not None for value in printed.values()) else ""
    counts = sorted({number.n for number in known if number.n is not None})
    n = f" n = {_count(counts[0])}" if counts else ""
    n += f" to {_count(counts[-1])}" if len(counts) > 1 else ""
    return f"Each cell: measured here{interval}{paper}, {_unit(keys)}.{n}{'.' if n else ''}"


def _unit(keys: Sequence[str]) -> str:
    special = (
        ("toxicity", ("toxicity",), "as 100 times the mean score"),
        ("$d'$ and $c$", SIGNAL_KEYS, "in standard deviations"),
        ("caption scores", UNIT_SCORES, "from 0 to 1"),
    )
    units = [(name, unit, {key in members for key in keys}) for name, members, unit in special]
    if alone := [unit for _, unit, found in units if found == {True}]:
        return alone[0]
    mixed = [f"{name} {unit}" for name, unit, found in units if True in found]
    in_percent = any(key not in ("toxicity", *SIGNAL_KEYS, *UNIT_SCORES) for key in keys)
    return ", ".join((["in percent"] if in_percent else []) + mixed)


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
    """Return markdown that shows `text` letter by letter, on one line, whatever it holds."""
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
    """Rewrite a cell piece by piece: what is a symbol of `LABELS`, and what stands between."""
    between = [text(piece) for piece in SYMBOLS.split(cell)]
    symbols = [symbol(found) for found in SYMBOLS.findall(cell)]
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
