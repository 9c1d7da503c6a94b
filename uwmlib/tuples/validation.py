"""Everything that is wrong with a manifest at once, in place of the first thing that `load_tuples` meets."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tqdm.auto import tqdm

from uwmlib.errors import UwmError
from uwmlib.options import shown
from uwmlib.rows import examined_rows, file_of_row, gaps, split_problems
from uwmlib.tuples.images import left_out, open_image
from uwmlib.tuples.loading import BENIGN, TUPLES, Columns

Problem = tuple[int, str]  #: position of the row, sentence


@dataclass(frozen=True)
class Validation:
    """What was found in a manifest.

    Attributes
    ----------
    rows : int
        How many there are.
    problems : list of str
        A sentence each, by row; what is wrong in every row alike stands there once. Empty if `load_tuples`, or
        `load_benign`, can read every row.
    counts : dict of str to dict of str to int
        Split -> concept -> tuples, or split -> marked -> benign uses; "" for rows without one.
    notes : dict of str to int
        What of an image is not used -> images that have it.

    Examples
    --------
    >>> import json
    >>> import tempfile
    >>> from pathlib import Path
    >>> from PIL import Image
    >>> from uwmlib.tuples import validate
    >>> row = {"safe_image": "safe.png", "unsafe_image": "unsafe.png"}
    >>> row.update(safe_text="a ring", unsafe_text="a ring on fire")
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     Image.new("RGB", (8, 8)).save(Path(folder, "safe.png"))
    ...     Image.new("RGBA", (8, 8)).save(Path(folder, "unsafe.png"))
    ...     _ = Path(folder, "pairs.jsonl").write_text(json.dumps(row))
    ...     found = validate(Path(folder, "pairs.jsonl"))
    >>> found.rows, found.problems
    (1, [])
    >>> found.notes
    {'transparency, which is dropped': 1}
    """

    rows: int
    problems: list[str]
    counts: dict[str, dict[str, int]]
    notes: dict[str, int]


def validate(path: str | os.PathLike, *, benign: bool = False, progress: bool = False) -> Validation:
    """Read a manifest of pairs, or of benign uses, to its end, open every image, and say all that is wrong.

    Beyond what `load_tuples` or `load_benign` refuses, a row that is there twice and a row with one image or one
    caption for both sides, or for two of the three forms, are problems.

    Parameters
    ----------
    path : path-like
        See `load_tuples`, and `load_benign`.
    benign : bool
        Whether the manifest is one of benign uses.
    progress : bool
        Show a progress bar.

    Returns
    -------
    Validation

    Raises
    ------
    UwmError
        If the file cannot be read as a table at all.

    Examples
    --------
    The images of the one row are missing:

    >>> import json
    >>> import tempfile
    >>> from pathlib import Path
    >>> from uwmlib.tuples import validate
    >>> row = {"safe_image": "1s.png", "unsafe_image": "1u.png"}
    >>> row.update(safe_text="a ring", unsafe_text="a ring on fire")
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     path = Path(folder, "pairs.jsonl")
    ...     _ = path.write_text(json.dumps(row))
    ...     problems = validate(path).problems
    >>> for problem in problems:
    ...     print(problem)
    safe_image in row 1 of ...pairs.jsonl does not exist (...): correct the path.
    unsafe_image in row 1 of ...pairs.jsonl does not exist (...): correct ...
    """
    path = Path(path)
    columns = BENIGN if benign else TUPLES
    examined = list(examined_rows(path, **columns.table))
    rows = [row for row, _ in examined]
    problems = [(i, str(error)) for i, (_, errors) in enumerate(examined) for error in errors]
    problems += [(i, str(error)) for i, error in split_problems(rows, path) if rows[i]]
    if benign:
        problems += [(i, str(error)) for i, error in gaps(rows, columns.label, path) if rows[i]]
    problems += _pairing_problems(rows, path, columns)
    notes: Counter[str] = Counter()
    problems += _image_problems(rows, path, columns, notes, progress=progress)
    counts: dict[str, dict[str, int]] = {}
    for row in filter(None, rows):
        of_split = counts.setdefault(str(row.get("split", "")), {})
        label = str(row.get(columns.label, ""))
        of_split[label] = of_split.get(label, 0) + 1
    return Validation(len(rows), _sentences(problems, len(rows)), counts, dict(notes))


def _pairing_problems(rows: Sequence[Mapping[str, Any]], path: Path, columns: Columns) -> Iterator[Problem]:
    """Yield rows that are there twice, and those whose sides or forms do not differ."""
    first: dict[tuple[Any, ...], int] = {}
    for i, row in enumerate(rows):
        held = tuple(row.get(column) for column in (*columns.images, *columns.texts))
        if not all(isinstance(value, str) for value in held):
            continue
        if held in first:
            yield i, f"Row {i + 1} of {path} repeats row {first[held] + 1}: leave one of them out."
        first.setdefault(held, i)
        n = len(columns.images)
        for kind, values in (("image", held[:n]), ("caption", held[n:])):
            twice = next((value for value in values if values.count(value) > 1), None)
            if twice is not None:
                wrong = f"has one {kind} for {columns.forms} ({shown(twice)}): give each its own."
                yield i, f"Row {i + 1} of {path} {wrong}"


def _image_problems(
    rows: Sequence[Mapping[str, Any]], path: Path, columns: Columns, notes: Counter[str], *, progress: bool
) -> Iterator[Problem]:
    """Yield images that are not there or cannot be read; count in `notes` what is not used of the others."""
    flaws: dict[Path, str] = {}  # each file is opened once
    for i, row in enumerate(tqdm(rows, disable=not progress, desc="images", leave=False)):
        for column in (column for column in columns.images if isinstance(row.get(column), str)):
            try:
                file = file_of_row(rows, i, column, path)
            except UwmError as error:
                yield i, str(error)
                continue
            if file not in flaws:
                flaws[file] = _flaw(file)
                notes.update([] if flaws[file] else left_out(file))
            if flaws[file]:
                yield i, f"{column} in row {i + 1} of {path}: {flaws[file]}"


def _flaw(file: Path) -> str:
    try:
        open_image(file)
    except UwmError as error:
        return str(error)
    return ""


def _sentences(problems: Iterable[Problem], n: int) -> list[str]:
    """Return the sentences by row; one that every row has, but for its number, once."""
    ordered = sorted(problems, key=lambda problem: problem[0])
    plain = [text.replace(f"Row {i + 1} of", "Every row of", 1) for i, text in ordered]
    times = Counter(plain)
    shared = {text for text, count in times.items() if n > 1 and count == n}
    every = list(dict.fromkeys(text for text in plain if text in shared))
    return every + [text for (_, text), same in zip(ordered, plain, strict=True) if same not in shared]
