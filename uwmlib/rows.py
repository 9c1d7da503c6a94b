"""Rows of a manifest, a CSV or JSONL table of one's own: read exactly as written, or refused with the row's number."""

from __future__ import annotations

import csv
import io
import json
import os
from collections.abc import Iterator, Sequence
from difflib import get_close_matches
from pathlib import Path
from typing import Any

from uwmlib.errors import UwmError
from uwmlib.options import flaw_of_text, is_whole, shown

SUFFIXES = (".csv", ".jsonl")
NEAR = 0.85  # "splits" is "split" misspelt, "concept_id" a column of its own


def read_rows(
    path: str | os.PathLike,
    *,
    columns: Sequence[str],
    optional: Sequence[str] = (),
    prose: Sequence[str] = (),
    numbers: Sequence[str] = (),
    flags: Sequence[str] = (),
) -> list[dict[str, str]]:
    """Read a manifest: a `.csv` file (commas, a header) or a `.jsonl` file (one object a line), in UTF-8.

    Nothing is guessed, dropped or shifted: whatever is not exactly one value a column and row is refused.

    Parameters
    ----------
    path : path-like
    columns : sequence of str
        Columns that every row fills with text.
    optional : sequence of str
        Columns that the manifest or a row may lack.
    prose : sequence of str
        Which of them hold sentences, whose blanks at the ends are kept. Blanks around any other value, a path or a
        name, are refused. Columns that are in none of the three, such as an id, are ignored.
    numbers : sequence of str
        Which of them may hold whole numbers, of which a `.jsonl` file tells text apart. They come back as text.
    flags : sequence of str
        Which of them hold "true" or "false" in any case, or JSON's own. They come back as "true" and "false".

    Returns
    -------
    list of dict of str to str
        One a row, with the keys of `columns` and those of `optional` that it fills. Row `i` of the list is row
        `i + 1` in messages, which count neither the header nor blank lines.

    Raises
    ------
    UwmError
        If the path is no readable `.csv` or `.jsonl` file in UTF-8, or is empty; if a column is missing, misspelt,
        unnamed or given twice; if a row has more or fewer cells than the header, repeats it, or is no JSON object; if
        a value is missing, blank or no text, or holds a NUL or half a surrogate pair.

    Examples
    --------
    >>> import tempfile
    >>> from pathlib import Path
    >>> from uwmlib.rows import read_rows
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     path = Path(folder, "pets.jsonl")
    ...     _ = path.write_text('{"image": "1.png", "label": "cat"}')
    ...     rows = read_rows(path, columns=["image", "label"])
    >>> rows
    [{'image': '1.png', 'label': 'cat'}]
    """
    rows = []
    kinds = {"prose": prose, "numbers": numbers, "flags": flags}
    for row, problems in examined_rows(path, columns=columns, optional=optional, **kinds):
        if problems:
            raise problems[0]
        rows.append(row)
    return rows


def examined_rows(
    path: str | os.PathLike,
    *,
    columns: Sequence[str],
    optional: Sequence[str] = (),
    prose: Sequence[str] = (),
    numbers: Sequence[str] = (),
    flags: Sequence[str] = (),
) -> Iterator[tuple[dict[str, str], list[UwmError]]]:
    """Yield every row of a manifest as `read_rows` has it, with all that is wrong with it.

    Raises
    ------
    UwmError
        For what is wrong with the file as a whole: it is no `.csv` or `.jsonl` file in UTF-8, its header cannot be
        read, or it has no row.
    """
    path = Path(path)
    if path.suffix.lower() not in SUFFIXES:
        raise UwmError(f"{path} is no manifest: give a file ending in .csv or .jsonl.")
    parse = _csv_rows if path.suffix.lower() == ".csv" else _json_rows
    number = 0
    for number, row in enumerate(parse(path, _text_of(path), (*columns, *optional)), start=1):
        if isinstance(row, UwmError):
            yield {}, [row]
            continue
        values = {name: row.get(name) for name in (*columns, *optional)}
        values |= {name: str(values[name]) for name in numbers if is_whole(values[name])}
        values |= {name: str(values[name]).casefold() for name in flags if _is_flag(values[name])}
        filled = {name: value for name, value in values.items() if not _is_blank(value)}
        problems = list(_name_problems(path, number, row, columns, optional))
        lacking = [name for name in columns if name not in filled]
        if lacking and not problems:
            problems.append(
                UwmError(
                    f"Row {number} of {path} lacks {', '.join(lacking)}: every row needs {', '.join(columns)}."
                )
            )
        for name, value in filled.items():
            if name not in flags:
                problems += _value_problems(path, number, name, value, prose=name in prose)
            elif not _is_flag(value):
                wrong = f"{name} in row {number} of {path} is {shown(value)}: give true or false."
                problems.append(UwmError(wrong))
        yield filled, problems
    if not number:
        raise UwmError(f"{path} has no rows: give at least one, with {', '.join(columns)}.")


def rows_of_split(rows: Sequence[dict[str, str]], split: str, path: str | os.PathLike) -> list[int]:
    """Return the positions of a split's rows, or of all rows where none has a `split`.

    Raises
    ------
    UwmError
        If there is no such split, some rows have a split and some have none, or two differ in case alone.
    """
    for _, problem in split_problems(rows, path):
        raise problem
    known = sorted({row["split"] for row in rows if "split" in row})
    if not known:
        return list(range(len(rows)))
    if split not in known:
        raise UwmError(f"{path} has no split {split!r}: choose one of {', '.join(known)}.")
    return [i for i, row in enumerate(rows) if row["split"] == split]


def split_problems(rows: Sequence[dict[str, str]], path: str | os.PathLike) -> Iterator[tuple[int, UwmError]]:
    """Yield the position of each row that lacks its split, and an error; position 0 for two spellings of one split."""
    known = sorted({str(row["split"]) for row in rows if "split" in row})
    yield from gaps(rows, "split", path)
    if len({name.casefold() for name in known}) < len(known):
        wrong = f"{path} spells a split in two ways ({', '.join(known)}): write each in one way."
        yield 0, UwmError(wrong)


def gaps(
    rows: Sequence[dict[str, str]], column: str, path: str | os.PathLike
) -> Iterator[tuple[int, UwmError]]:
    """Yield the position of each row that lacks what other rows have in a column, and an error."""
    lacking = [i for i, row in enumerate(rows) if column not in row]
    for i in lacking if len(lacking) < len(rows) else []:
        wrong = f"has no {column} but other rows have one: give each row its {column}."
        yield i, UwmError(f"Row {i + 1} of {path} {wrong}")


def file_of_row(rows: Sequence[dict[str, str]], i: int, column: str, path: str | os.PathLike) -> Path:
    """Return the file that a row names, absolute or relative to the manifest.

    Raises
    ------
    UwmError
        If there is no such file, or it is none that can be read to an end: a folder, a pipe, a device.
    """
    file = Path(path).parent / rows[i][column]
    if not os.path.isfile(file):  # Path.is_file raises for a name that is too long
        state = "is no regular file" if os.path.exists(file) else "does not exist"
        raise UwmError(f"{column} in row {i + 1} of {path} {state} ({shown(str(file))}): correct the path.")
    return file


def _text_of(path: Path) -> str:
    if not os.path.exists(path):
        raise UwmError(f"There is no manifest {path}: check the path.")
    if not os.path.isfile(path):  # opening a pipe would wait for ever
        raise UwmError(f"{path} cannot be read (no regular file): give the file of a manifest.")
    try:
        # Spreadsheets put a mark in front of UTF-8. Bytes, because text mode would change line ends inside captions.
        return path.read_bytes().decode("utf-8-sig")
    except OSError as error:
        raise UwmError(f"{path} cannot be read ({error.strerror}): give the file of a manifest.") from error
    except UnicodeDecodeError as error:
        raise UwmError(f"{path} is not UTF-8 text ({error.reason}): save the manifest as UTF-8.") from error


def _csv_rows(path: Path, text: str, wanted: Sequence[str]) -> Iterator[dict[str, str] | UwmError]:
    try:
        header, *rows = filter(None, csv.reader(io.StringIO(text, newline=""), strict=True))
    except ValueError:  # nothing to unpack
        return
    except csv.Error as error:
        raise UwmError(f"{path} is not a CSV file ({error}): write it again, or as .jsonl.") from error
    twice = next((name for i, name in enumerate(header) if name in header[:i]), None)
    # pandas writes its index as a first column without a name; anywhere else it is a stray comma.
    if "" in header[1:] or twice is not None:
        what = "without a name" if "" in header[1:] else f"{shown(twice)} twice"
        raise UwmError(f"{path} has a column {what}: give every column one name of its own.")
    if len(header) == 1 and wanted[1:] and any(mark in header[0] for mark in ";\t|"):
        raise UwmError(f"The header of {path} has no commas: separate its cells by commas.")
    for number, cells in enumerate(rows, start=1):
        wrong = _wrong_cells(cells, header)
        yield UwmError(f"Row {number} of {path} {wrong}") if wrong else dict(zip(header, cells, strict=True))


def _wrong_cells(cells: list[str], header: list[str]) -> str:
    """Return what is wrong with the cells of a row as a whole; "" for nothing."""
    if len(cells) != len(header):
        return (
            f"has {len(cells)} cells but the header {len(header)}: put every caption that holds a comma, a quote or a "
            "line break in double quotes."
        )
    if [cell.strip("\ufeff") for cell in cells] == header:
        return "repeats the header: leave that row out."
    if any(cell[:1].isspace() and cell.strip()[:1] == cell.strip()[-1:] == '"' for cell in cells):
        return "has a blank between a comma and a quote: take the blank out."
    return ""


def _json_rows(path: Path, text: str, wanted: Sequence[str]) -> Iterator[dict[str, Any] | UwmError]:
    # Not splitlines: JSON allows other line separators, such as U+2028, inside a caption.
    lines = (line for line in text.split("\n") if line.strip())
    for number, line in enumerate(lines, start=1):
        try:
            yield _object(line)
        except UwmError as error:
            yield UwmError(f"Row {number} of {path} {error}")


def _object(line: str) -> dict[str, Any]:
    """Return the JSON object on a line; UwmError with what it is instead."""
    try:
        row = json.loads(line, object_pairs_hook=_no_key_twice)
    except UwmError:
        raise
    except (ValueError, RecursionError) as error:
        reason = getattr(error, "msg", None) or "nested too deeply or a number too long"
        raise UwmError(f"is not JSON ({reason}): write one object a line.") from error
    if not isinstance(row, dict):
        raise UwmError(f"is no object but {shown(line)}: write one object a line.")
    return row


def _no_key_twice(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    row = dict(pairs)
    if len(row) < len(pairs):
        names = [name for name, _ in pairs]
        twice = next(name for i, name in enumerate(names) if name in names[:i])
        raise UwmError(f"has the key {shown(twice)} twice: give each key once.")
    return row


def _name_problems(
    path: Path, number: int, row: dict[str, Any], columns: Sequence[str], optional: Sequence[str]
) -> Iterator[UwmError]:
    """Yield an error for each wanted column that stands there misspelt."""
    present = [name for name in row if name not in (*columns, *optional)]
    plain = {name.strip().casefold().replace(" ", "_").replace("-", "_"): name for name in present}
    for wanted in (name for name in (*columns, *optional) if name not in row):
        near = get_close_matches(wanted, plain, n=1, cutoff=NEAR)
        if near:
            yield UwmError(
                f"Row {number} of {path} has {shown(plain[near[0]])} for {wanted!r}: rename that column."
            )


def _is_blank(value: Any) -> bool:
    return value is None or (isinstance(value, str) and not value.strip())


def _is_flag(value: Any) -> bool:
    return isinstance(value, bool) or (isinstance(value, str) and value.casefold() in ("true", "false"))


def _value_problems(path: Path, number: int, name: str, value: Any, *, prose: bool) -> list[UwmError]:
    if not isinstance(value, str):
        return [UwmError(f"{name} in row {number} of {path} is {shown(value)}: give text.")]
    flaw = flaw_of_text(value) or ("blanks around it" if not prose and value != value.strip() else None)
    wrong = f"{name} in row {number} of {path} has {flaw} ({shown(value)}): correct that value."
    return [UwmError(wrong)] if flaw else []
