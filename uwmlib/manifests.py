"""Where the small data files that ship with the library are: models, published and reference values.

A manifest in messages to users is a table of their own (`uwmlib.rows`); the files here are called shipped data.
"""

from __future__ import annotations

from pathlib import Path

from uwmlib.errors import UwmError

PACKAGE = Path(__file__).resolve().parent


def manifests_dir() -> Path:
    """Return the folder of the shipped data: the installed copy, else the one at the root of a checkout.

    A wheel carries the files as `uwmlib/data_manifests`; an editable install reads `data_manifests/` beside
    the package, so that there is one copy to edit.

    Raises
    ------
    UwmError
        If neither folder exists.
    """
    candidates = (PACKAGE / "data_manifests", PACKAGE.parent / "data_manifests")
    for folder in candidates:
        if folder.is_dir():
            return folder
    raise UwmError(f"The data_manifests folder is missing beside {PACKAGE}: install uwm-book again.")


def manifest_path(*parts: str) -> Path:
    """Return the path of one file of the shipped data, such as `manifest_path("paper_values", "table1.csv")`.

    Parameters
    ----------
    *parts : str
        The path inside `data_manifests`, folder by folder.

    Returns
    -------
    Path
        An existing file or folder.

    Raises
    ------
    UwmError
        If there is no such file.
    """
    root = manifests_dir()
    path = root.joinpath(*parts)
    if not path.exists():
        raise UwmError(
            f"There is no shipped file {'/'.join(parts)!r} in {root}: check the spelling of its name."
        )
    return path
