"""Tuples by name or from a manifest of one's own."""

from __future__ import annotations

import csv
import difflib
import io
import json
from numbers import Integral
from pathlib import Path
from typing import Any

import numpy as np

from uwmlib.errors import UwmError
from uwmlib.mini.pairs import SPLITS, draw_tuples
from uwmlib.tuples.images import ImageFiles
from uwmlib.tuples.tuples import Tuples

COLUMNS = ("safe_image", "unsafe_image", "safe_text", "unsafe_text")
SAMPLE_STREAM = 0x75776D  #: keeps the sampling apart from other uses of the same seed


def sample_rows(total: int, n: int | None, seed: int) -> np.ndarray:
    """Return `n` of `total` row numbers in a seeded random order, or all of them in their own order.

    The order depends on `total` and `seed` only, so a smaller sample is the beginning of a larger one.

    Raises
    ------
    UwmError
        If `n` is not between 1 and `total`, or `n` or `seed` is no whole number.
    """
    for what, value in (("n", n), ("seed", seed)):
        if not isinstance(value, Integral | None):
            raise UwmError(f"{what} is {value!r}: give a whole number.")
    if n is None:
        return np.arange(total)
    if not 1 <= n <= total:
        raise UwmError(f"n={n} tuples were asked for, but there are {total}: ask for 1 to {total}.")
    keys = np.random.Philox(key=(SAMPLE_STREAM << 64) + seed).random_raw(total)
    return np.argsort(keys, kind="stable")[:n]


def load_tuples(name: str | Path, *, split: str = "test", n: int | None = None, seed: int = 0) -> Tuples:
    """Load tuples.

    Parameters
    ----------
    name : str or path
        "mini-visu", or a manifest of your own: a `.jsonl` or `.csv` file with the columns `safe_image`,
        `unsafe_image` (paths, relative to the manifest), `safe_text`, `unsafe_text` and optionally `concept`, `split`.
    split : str
        "train", "validation" or "test". A manifest without a `split` column is used whole.
    n : int, optional
        How many tuples to draw at random; all of them in their own order when omitted.
    seed : int
        Of that draw.

    Returns
    -------
    Tuples

    Raises
    ------
    UwmError
        If the name, the split or the manifest cannot be used.
    """
    if str(name) == "mini-visu":
        return _mini_visu(split, n=n, seed=seed)
    path = Path(str(name))
    if path.suffix not in (".jsonl", ".csv"):
        hint = difflib.get_close_matches(str(name), ["mini-visu"], n=1)
        nearest = (
            f"did you mean {hint[0]!r}" if hint else "give 'mini-visu' or a manifest ending in .jsonl or .csv"
        )
        raise UwmError(f"There are no tuples called {str(name)!r}: {nearest}.")
    rows = _of_split(_manifest_rows(path), path, split)
    chosen = [rows[i] for i in sample_rows(len(rows), n, seed).tolist()] if rows else []
    return _from_rows(chosen, path)


def _mini_visu(split: str, *, n: int | None, seed: int) -> Tuples:
    if split not in SPLITS:
        raise UwmError(f"mini-visu has no split {split!r}: choose one of {', '.join(SPLITS)}.")
    return Tuples(name=f"mini-visu/{split}", **draw_tuples(split, sample_rows(SPLITS[split], n, seed)))


def _manifest_rows(path: Path) -> list[dict[str, Any]]:
    """Read a manifest and check that every row has its four columns, and text in each that it has."""
    try:
        # Spreadsheets put a mark in front of UTF-8.
        text = path.read_text(encoding="utf-8-sig")
    except FileNotFoundError as error:
        raise UwmError(f"There is no manifest {path}: check the path.") from error
    except OSError as error:
        raise UwmError(f"{path} cannot be read ({error.strerror}): give the file of a manifest.") from error
    except UnicodeDecodeError as error:
        raise UwmError(f"{path} is not UTF-8 text ({error.reason}): save the manifest as UTF-8.") from error
    rows = _parse(path, text)
    for number, row in enumerate(rows, start=1):
        missing = [column for column in COLUMNS if not isinstance(row, dict) or row.get(column) is None]
        if missing:
            raise UwmError(
                f"Row {number} of {path} lacks {', '.join(missing)}: every tuple needs {', '.join(COLUMNS)}."
            )
        wrong = [key for key in (*COLUMNS, "concept", "split") if not isinstance(row.get(key), str | None)]
        if wrong:
            raise UwmError(f"{wrong[0]} in row {number} of {path} is {row[wrong[0]]!r}: give text.")
    return rows


def _parse(path: Path, text: str) -> list[dict[str, Any]]:
    if path.suffix == ".csv":
        try:
            return list(csv.DictReader(io.StringIO(text, newline="")))
        except csv.Error as error:
            raise UwmError(f"{path} is not a CSV file ({error}): write it again, or as .jsonl.") from error
    rows = []
    # Not splitlines: JSON allows other line separators, such as U+2028, inside a caption.
    for number, line in enumerate(text.split("\n"), start=1):
        if not line.strip():
            continue
        try:
            rows.append(json.loads(line))
        except json.JSONDecodeError as error:
            raise UwmError(
                f"Line {number} of {path} is not JSON ({error.msg}): write one object a line."
            ) from error
    return rows


def _of_split(rows: list[dict[str, Any]], path: Path, split: str) -> list[dict[str, Any]]:
    known = sorted({row["split"] for row in rows if row.get("split")})
    if not known:
        return rows
    if split not in known:
        raise UwmError(f"{path} has no split {split!r}: choose one of {', '.join(known)}.")
    return [row for row in rows if row.get("split") == split]


def _from_rows(rows: list[dict[str, Any]], path: Path) -> Tuples:
    folder = path.parent
    return Tuples(
        name=path.name,
        safe_images=ImageFiles([folder / row["safe_image"] for row in rows]),
        unsafe_images=ImageFiles([folder / row["unsafe_image"] for row in rows]),
        safe_texts=[row["safe_text"] for row in rows],
        unsafe_texts=[row["unsafe_text"] for row in rows],
        concepts=[row.get("concept") or "unnamed" for row in rows],
    )
