"""The numbers printed in the paper's nine tables, under this library's names for rows and scores."""

from __future__ import annotations

import csv
import difflib
from functools import lru_cache

import pandas as pd

from uwmlib.errors import UwmError
from uwmlib.manifests import manifest_path
from uwmlib.metrics import SignalDetection
from uwmlib.metrics.catalogue import key_of, unit

N_TABLES = 9

PREFERENCES = {"text": ("p_s_t", "p_u_t"), "image": ("p_s_v", "p_u_v")}


def paper_table(number: int) -> pd.DataFrame:
    """One table of the paper, as printed.

    Parameters
    ----------
    number : int
        1 to 9, as in the paper.

    Returns
    -------
    DataFrame
        One line per printed row (index "row", in the paper's order), one column per score: `p_s_t`, `gs`,
        `vs_ts`, `zs_mean`, a data set's name, ... Percent, except Table 5's `toxicity` (Perspective score
        times 100) and its captioning scores (0 to 1). NaN where the paper prints a dash or our copy is
        illegible; `paper_note` says which.

    Raises
    ------
    UwmError
        If the paper has no table of this number.

    Examples
    --------
    >>> from uwmlib.paper import paper_table
    >>> paper_table(1).loc[["CLIP", "UWM"], ["ts_vs", "ps", "gs"]].T
    row    CLIP   UWM
    ts_vs  36.8  30.0
    ps     67.5  67.8
    gs      1.2   4.5
    """
    cells = _cells(number)
    rows = list(dict.fromkeys(row for row, _ in cells))
    keys = list(dict.fromkeys(key for _, key in cells))
    values = [[cells[row, key][0] for key in keys] for row in rows]
    return pd.DataFrame(values, index=pd.Index(rows, name="row"), columns=keys, dtype=float)


def paper_value(table: int, row: str, key: str) -> float:
    """One printed number: `paper_value(1, "UWM", "gs")` is 4.5; NaN where nothing legible is printed.

    Raises
    ------
    UwmError
        If the table, the row or the score does not exist; the message offers the nearest name.

    Examples
    --------
    >>> from uwmlib.paper import paper_value
    >>> paper_value(1, "UWM", "gs")
    4.5
    """
    return _cell(table, row, key)[0]


def paper_note(table: int, row: str, key: str) -> str:
    """What has to be known about one printed number ("81.6 in Table 4"), or "" if nothing has."""
    return _cell(table, row, key)[1]


def paper_signal_detection(table: int) -> pd.DataFrame:
    """Sensitivity and bias that follow from a table's four preference rates (Tables 1 and 4).

    The paper does not print these: they are this book's reading of its numbers, d' = z(P_s) - z(P_u) and
    c = (z(P_s) + z(P_u)) / 2 for each query modality.

    Returns
    -------
    DataFrame
        Index as in `paper_table`; columns `sensitivity_text`, `bias_text`, `sensitivity_image`, `bias_image`.

    Raises
    ------
    UwmError
        If the table does not print all four rates.

    Examples
    --------
    >>> from uwmlib.paper import paper_signal_detection
    >>> paper_signal_detection(1).loc[["CLIP", "UWM"]].round(2).T
    row                CLIP   UWM
    sensitivity_text   2.24  1.75
    bias_text         -0.50 -0.32
    sensitivity_image  2.58  2.19
    bias_image        -0.14  0.27
    """
    printed = paper_table(table)
    if not {key for pair in PREFERENCES.values() for key in pair} <= set(printed.columns):
        raise UwmError(
            f"Table {table} of the paper does not print the four preference rates: use Table 1 or 4."
        )
    derived = pd.DataFrame(index=printed.index)
    for query, (safe, unsafe) in PREFERENCES.items():
        read = [
            SignalDetection.from_rates(p_s, p_u)
            for p_s, p_u in zip(printed[safe], printed[unsafe], strict=True)
        ]
        derived[f"sensitivity_{query}"] = [detection.sensitivity for detection in read]
        derived[f"bias_{query}"] = [detection.bias for detection in read]
    return derived


def paper_digits(table: int, key: str) -> int:
    """Decimals that a table prints of a score: 2 for Table 5's scores of captions (0 to 1), else 1.

    Raises
    ------
    UwmError
        If the table or the score does not exist.
    """
    paper_value(table, _rows(table)[0], key)
    return unit(key).decimals


def nearest(name: str, names: list[str]) -> str:
    """The end of an error sentence: the name most like `name`, or all names if none is like it."""
    by_lower = {known.lower(): known for known in names}
    close = difflib.get_close_matches(str(name).lower(), by_lower, n=1, cutoff=0.5)
    return f"did you mean {by_lower[close[0]]!r}?" if close else f"there are {', '.join(names)}."


def _cell(table: int, row: str, key: str) -> tuple[float, str]:
    """Value and note of one cell, or an error that names the part of the address that is wrong."""
    cells = _cells(table)
    rows, keys = ({address[part]: None for address in cells} for part in (0, 1))
    if row not in rows:
        raise UwmError(f"Table {table} of the paper has no row {row!r}: {nearest(row, list(rows))}")
    if key not in keys:
        raise UwmError(f"Table {table} of the paper has no score {key!r}: {nearest(key, list(keys))}")
    return cells[row, key]


def _rows(table: int) -> list[str]:
    return list(dict.fromkeys(row for row, _ in _cells(table)))


@lru_cache(maxsize=N_TABLES)
def _cells(number: int) -> dict[tuple[str, str], tuple[float, str]]:
    """Read one table's file: (row, key) -> (value, note), in the order of the print."""
    return {
        (line["row"], key_of(line["column"])): (float(line["value"] or "nan"), line["note"])
        for line in _lines(number)
    }


def _lines(number: int) -> list[dict[str, str]]:
    if number not in range(1, N_TABLES + 1):
        raise UwmError(f"The paper has no Table {number}: its tables are 1 to {N_TABLES}.")
    path = manifest_path("paper_values", f"table{int(number)}.csv")
    with open(path, newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))
