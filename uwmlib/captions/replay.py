"""Recorded answers, one JSON object to a line: what a judge or scorer said is kept and can be replayed."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from uwmlib.errors import UwmError
from uwmlib.files import write_text


def write_record(path: str | Path, captions: Sequence[str], answers: Iterable[Any], *, name: str) -> None:
    """Write one line a caption: `{"caption": ..., "answer": ..., "by": name}`, whole or not at all.

    Raises
    ------
    UwmError
        If there are not as many answers as captions, or one caption has two: it could not be replayed.

    Examples
    --------
    >>> import tempfile
    >>> from pathlib import Path
    >>> from uwmlib.captions import load_judge, write_record
    >>> captions = ["a ring", "a ring on fire"]
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     path = Path(folder, "opinions.jsonl")
    ...     write_record(path, captions, ["safe", "unsafe"], name="two readers")
    ...     judge = load_judge(f"replay:{path}")
    >>> judge.name
    'two readers (replayed)'
    >>> judge.judge(captions)[1].value
    'unsafe'
    """
    answers = list(answers)
    if len(answers) != len(captions):
        raise UwmError(f"{len(answers)} answers for {len(captions)} captions: record one for each.")
    first = dict(zip(reversed(captions), reversed(answers), strict=True))
    for caption, answer in zip(captions, answers, strict=True):
        if first[caption] != answer:
            raise UwmError(f"{caption!r} has two different answers: record one answer a caption.")
    lines = [
        json.dumps({"caption": caption, "answer": answer, "by": name}, ensure_ascii=False)
        for caption, answer in zip(captions, answers, strict=True)
    ]
    write_text(path, "".join(f"{line}\n" for line in lines))


def read_record(path: str | Path) -> tuple[dict[str, Any], str]:
    """Return {caption: answer} of a record, and the name of who answered.

    Raises
    ------
    UwmError
        If the file is missing, a line is no such object, a caption has two different answers, or several
        judges answered.
    """
    try:
        lines = Path(path).read_text(encoding="utf-8").split("\n")
    except (OSError, UnicodeDecodeError) as error:
        raise UwmError(f"{path} cannot be read ({error}): give a file of recorded answers.") from error
    answers: dict[str, Any] = {}
    names = set()
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        entry = _entry(path, number, line)
        if answers.setdefault(entry["caption"], entry["answer"]) != entry["answer"]:
            raise UwmError(f"Line {number} of {path} contradicts an earlier one: keep one answer a caption.")
        names.add(entry["by"])
    if len(names) != 1:
        raise UwmError(f"{path} holds answers of {len(names)} judges: give a file with those of one.")
    return answers, names.pop()


def _entry(path: str | Path, number: int, line: str) -> Mapping[str, Any]:
    try:
        entry = json.loads(line)
    except json.JSONDecodeError:
        entry = None
    known = isinstance(entry, dict) and "answer" in entry
    if not known or not all(isinstance(entry.get(key), str) for key in ("caption", "by")):
        raise UwmError(
            f'Line {number} of {path} is no {{"caption", "answer", "by"}}: write it with write_record.'
        )
    return entry


def replayed(answers: Mapping[str, Any], captions: Sequence[str], path: str | Path) -> list[Any]:
    """Return the recorded answer to every caption, or raise UwmError for one that has none."""
    missing = [caption for caption in captions if caption not in answers]
    if missing:
        raise UwmError(
            f"{path} has no answer to {len(missing)} of {len(captions)} captions, the first being "
            f"{missing[0]!r}: record the same captions."
        )
    return [answers[caption] for caption in captions]
