"""Results of a run as one JSON file: the numbers, how they were made, and with which versions."""

from __future__ import annotations

import math
import os
import platform
import subprocess
from collections.abc import Mapping
from importlib import metadata
from pathlib import Path
from typing import Any

from uwmlib.errors import UwmError
from uwmlib.outputs import check_output

PACKAGES = ("torch", "open_clip_torch", "transformers", "numpy", "uwm-book")


def save_results(
    name: str,
    values: Mapping[str, Any],
    *,
    params: Mapping[str, Any],
    path: str | os.PathLike,
) -> dict[str, Any]:
    """Write the results of a run, whole or not at all.

    Parameters
    ----------
    name : str
        What was run, usually the notebook's name.
    values : mapping
        Nested results. Numpy and torch scalars become plain numbers, tuples become lists; give spread as
        `{"value": 12.3, "interval": [11.0, 13.6], "n": 2000}`.
    params : mapping
        The parameters of the run.
    path : path-like
        The JSON file to write.

    Returns
    -------
    dict
        What was written: name, values, params, versions, git.

    Raises
    ------
    UwmError
        If a number is not finite (say None for "not measured"), something is not a plain value, or `path` cannot be
        written.

    Examples
    --------
    >>> import tempfile
    >>> from pathlib import Path
    >>> from uwmlib.reporting import save_results
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     saved = save_results(
    ...         "mine",
    ...         {"UWM": {"gs": 4.5}},
    ...         params={"tau": 0.02},
    ...         path=Path(folder, "mine.json"),
    ...     )
    >>> saved["values"], saved["params"]
    ({'UWM': {'gs': 4.5}}, {'tau': 0.02})
    >>> list(saved)
    ['name', 'values', 'params', 'versions', 'git']
    """
    from uwmlib.files import write_json  # here, because it loads torch

    record = {
        "name": name,
        "values": plain(values),
        "params": plain(params),
        "versions": versions(),
        "git": git_hash(),
    }
    write_json(check_output(path), record)
    return record


def plain(value: Any, *, at: str = "values") -> Any:
    """Turn nested results into what JSON can hold; `at` is the place named in errors."""
    if value is None or isinstance(value, str | bool | int):
        return value
    if isinstance(value, Mapping):
        return {str(key): plain(inner, at=f"{at}.{key}") for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [plain(inner, at=f"{at}[{index}]") for index, inner in enumerate(value)]
    if isinstance(value, float):
        if not math.isfinite(value):
            raise UwmError(f"{at} is {value}: give a finite number, or None where nothing was measured.")
        return float(value)
    if hasattr(value, "tolist"):  # numpy and torch: scalars to numbers, arrays to lists
        return plain(value.tolist(), at=at)
    raise UwmError(f"{at} is a {type(value).__name__}: give numbers, strings, lists or mappings of them.")


def flatten(values: Mapping[str, Any], *, prefix: str = "") -> dict[str, float]:
    """Numbers of nested results under dotted names: `{"UWM": {"gs": 4.5}}` gives `{"UWM.gs": 4.5}`.

    Strings and None are left out; items of lists are numbered.

    Examples
    --------
    >>> from uwmlib.reporting import flatten
    >>> flatten({"UWM": {"gs": 4.5, "interval": [4.0, 5.1], "note": "ours"}})
    {'UWM.gs': 4.5, 'UWM.interval.0': 4.0, 'UWM.interval.1': 5.1}
    """
    flat: dict[str, float] = {}
    for key, value in values.items():
        name = f"{prefix}{key}"
        if isinstance(value, Mapping):
            flat |= flatten(value, prefix=f"{name}.")
        elif isinstance(value, list | tuple):
            flat |= flatten(dict(enumerate(value)), prefix=f"{name}.")
        elif value is not None and not isinstance(value, str):
            flat[name] = float(value)
    return flat


def versions() -> dict[str, str | None]:
    """Versions of Python and of the packages that move numbers; None for what is not installed."""
    return {"python": platform.python_version()} | {package: _version(package) for package in PACKAGES}


def git_hash() -> str | None:
    """The commit this library stands at, with "+changes" if files differ from it; None outside a checkout."""
    root = Path(__file__).resolve().parents[2]
    # The package may be installed inside somebody else's repository: only its own checkout counts.
    if not (root / ".git").exists():
        return None
    commit = _git(root, "rev-parse", "HEAD")
    if not commit:
        return None
    # A status that git will not give is no sign of a clean checkout.
    clean = _git(root, "status", "--porcelain", "--untracked-files=no") == ""
    return commit if clean else f"{commit}+changes"


def _version(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def _git(root: Path, *arguments: str) -> str | None:
    """Output of one git command, or None if git is absent or refuses."""
    try:
        done = subprocess.run(
            ["git", "-C", str(root), *arguments], capture_output=True, text=True, timeout=10, check=True
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.strip()
