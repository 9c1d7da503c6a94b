"""Where studies are kept, and when a file that ships is believed."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from uwmlib.manifests import manifests_dir

SUFFIX = ".safetensors"


def study_path(name: str, model: str = "", *, folder: str | Path | None = None, suffix: str = SUFFIX) -> Path:
    """Return the path of a study's file, which bears the study's own name if it is of no model.

    Examples
    --------
    >>> from uwmlib.studies import study_path
    >>> study_path("equal-knowledge", "mini-CoCa", folder="mine").as_posix()
    'mine/equal_knowledge/mini-CoCa.safetensors'
    >>> study_path("planted", folder="mine").as_posix()
    'mine/planted/planted.safetensors'
    """
    folder = Path(folder) if folder else manifests_dir() / "studies"
    file = name.replace("-", "_")
    return folder / file / f"{model or file}{suffix}"


def shipped(
    name: str,
    model: str,
    load: Callable[[Path], tuple[Any, Mapping[str, Any]]],
    wanted: Callable[[], Mapping[str, Any]],
) -> Any | None:
    """Return what a shipped file holds; None where there is none, or a fact that it rests on is not as wanted.

    `load` returns what the file holds and the facts; `wanted` is asked only where there is a file.
    """
    path = study_path(name, model)
    if not path.is_file():
        return None
    held, facts = load(path)
    return held if all(facts.get(key) == value for key, value in wanted().items()) else None


def place(path: Path) -> str:
    """Return the path of shipped data as a reader finds it."""
    return path.relative_to(manifests_dir().parent).as_posix()


def read_from(name: str, model: str = "") -> str:
    """Return the sentence that says where a study was read from and how it is made again."""
    command = f"uwm study {name} {model}".rstrip()
    return f"Read from {place(study_path(name, model))}: `{command}` makes it again."
