"""Classification sets from a manifest of one's own: image, label, and what the classes are called."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from uwmlib.errors import UwmError
from uwmlib.rows import file_of_row, read_rows, rows_of_split
from uwmlib.tuples.images import ImageFiles
from uwmlib.zero_shot.sets import ZeroShotSet, check_template

FACTS = ("about", "classes", "template")


def manifest_set(name: str, path: Path, *, template: str) -> ZeroShotSet:
    """Read a set from a `.csv` or `.jsonl` manifest with the columns `image`, `label` and optionally `split`.

    Of a manifest with splits the rows of "test" are taken. A `.json` file of the same name beside it may say what
    the rows cannot: `{"classes": [...], "template": "a photo of a {}.", "about": "..."}`, each of them optional.

    Parameters
    ----------
    name : str
    path : Path
    template : str
        Prompt, where the `.json` file has none.

    Returns
    -------
    ZeroShotSet
        Without `classes` they are the distinct labels, sorted. With them a label is a class's name, or its number
        from 0 on, which is needed where two classes share a name; one that can be read in two ways is refused.

    Raises
    ------
    UwmError
        If the manifest or the `.json` file cannot be used, a file is missing, or a label is no class.

    Examples
    --------
    >>> import tempfile
    >>> from pathlib import Path
    >>> import pandas as pd
    >>> from PIL import Image
    >>> from uwmlib.zero_shot import manifest_set
    >>> rows = pd.DataFrame({"image": ["1.png", "2.png"], "label": ["dog", "cat"]})
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     for name in rows["image"]:
    ...         Image.new("RGB", (8, 8)).save(Path(folder, name))
    ...     path = Path(folder, "pets.csv")
    ...     rows.to_csv(path, index=False)
    ...     pets = manifest_set("pets", path, template="a photo of a {}.")
    >>> pets.classes
    ('cat', 'dog')
    >>> pets.labels
    array([1, 0])
    """
    facts = _facts(path.with_suffix(".json"))
    check_template(facts.get("template", template), name)
    rows = read_rows(path, columns=["image", "label"], optional=["split"], numbers=["label"])
    chosen = rows_of_split(rows, "test", path)
    classes = facts.get("classes") or _distinct({rows[i]["label"] for i in chosen}, path)
    numbers = _numbers(classes)
    return ZeroShotSet(
        name,
        facts.get("about", f"own images, {path.name}"),
        ImageFiles([file_of_row(rows, i, "image", path) for i in chosen]),
        np.array([_number(rows[i]["label"], numbers, classes, i, path) for i in chosen], dtype=np.int64),
        tuple(classes),
        facts.get("template", template),
    )


def _facts(path: Path) -> dict[str, Any]:
    """Read the file beside a manifest; nothing if there is none."""
    if not path.is_file():
        return {}
    try:
        facts = json.loads(path.read_text(encoding="utf-8-sig"))
    except (OSError, ValueError, RecursionError) as error:
        raise UwmError(f"{path} is no JSON file ({type(error).__name__}): write it again.") from error
    unknown = [key for key in facts if key not in FACTS] if isinstance(facts, dict) else ["no object"]
    if unknown:
        raise UwmError(f"{path} holds {unknown[0]!r}: give an object with any of {', '.join(FACTS)}.")
    classes = facts.get("classes", [""])
    if not isinstance(classes, list) or not classes or not all(isinstance(name, str) for name in classes):
        raise UwmError(f"The classes in {path} are no list of names: give one text for each class.")
    if not isinstance(facts.get("about", ""), str):
        raise UwmError(f"What {path} says about the set is no text: write a few words, or leave it out.")
    return facts


def _distinct(labels: set[str], path: Path) -> list[str]:
    if all(label.isdigit() for label in labels):
        raise UwmError(
            f"The labels in {path} are numbers: name their classes in {path.with_suffix('.json').name}, as "
            f'{{"classes": [...]}}.'
        )
    return sorted(labels)


def _numbers(classes: Sequence[str]) -> dict[str, set[int]]:
    """Return the classes that a label may mean: by name, and by number."""
    meant: dict[str, set[int]] = {}
    for number, name in enumerate(classes):
        for label in (name, str(number)):
            meant.setdefault(label, set()).add(number)
    return meant


def _number(label: str, numbers: dict[str, set[int]], classes: Sequence[str], row: int, path: Path) -> int:
    """Return the number of the one class that a label means."""
    meant = numbers.get(label, set())
    if len(meant) == 1:
        return next(iter(meant))
    reason = f"is none of the {len(classes)} classes"
    if meant:
        twice = list(classes).count(label) > 1
        reason = (
            "is the name of two classes" if twice else "is the name of one class and the number of another"
        )
    raise UwmError(
        f"The label {label!r} in row {row + 1} of {path} {reason}: give a class's name, or its number from 0 on."
    )
