"""Where work may write: asked before it starts, and never answered with a file that the work reads."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path

from uwmlib.errors import UwmError
from uwmlib.manifests import PACKAGE, manifests_dir

PathLike = str | os.PathLike


def check_output(path: PathLike, *, inputs: Iterable[PathLike | None] = ()) -> Path:
    """Return the file that is to be written for `path`; write to that one, so that a symbolic link stays one.

    Parameters
    ----------
    path : path-like
        What was asked for. Missing parent folders are allowed; nothing is made here.
    inputs : iterable of path-like or None
        Files and folders that the work reads. What is not there (None, or the name of a model) is passed over.

    Returns
    -------
    Path
        `path`, absolute and with its symbolic links followed.

    Raises
    ------
    UwmError
        If `path` is a folder, a device or a read-only file, cannot be written in its folder, or is one of
        `inputs` (by whatever name or link), in a folder of `inputs`, or a file of the library itself.
    """
    try:
        target = Path(os.path.realpath(path))
        exists = os.path.lexists(target)
        if exists and not target.is_file():
            raise UwmError(f"The output {path} is no file but a folder or a device: give the name of a file.")
        # The bits count for root as well, whom the system would let write.
        if exists and not (target.stat().st_mode & 0o222 and os.access(target, os.W_OK)):
            raise UwmError(f"The output {path} is a read-only file: give another name, or make it writable.")
        _rehearse(target, path)
    except (OSError, ValueError) as error:
        raise _refusal(path, error) from error
    for given in (*inputs, PACKAGE, manifests_dir()):
        if exists and given is not None and _covers(given, target):
            raise UwmError(f"The output {path} would replace what is read from {given}: give another name.")
    return target


def check_folder(folder: PathLike) -> None:
    """Raise UwmError unless files can be written in `folder`, which need not be there yet."""
    try:
        target = Path(os.path.realpath(folder))
        if os.path.lexists(target) and not target.is_dir():
            raise UwmError(f"{folder} is a file, not a folder: give the name of a folder.")
        _rehearse(target / "results.json", folder)
    except (OSError, ValueError) as error:
        raise _refusal(folder, error) from error


def _rehearse(target: Path, path: PathLike) -> None:
    """Make and remove an empty file where `target`, or the first folder that it lacks, would be made."""
    nearest = next(folder for folder in target.parents if folder.exists())
    # A name that is too long is found here also where its folder is still to be made.
    for part in target.relative_to(nearest).parts:
        with suppress(FileNotFoundError, NotADirectoryError):
            os.lstat(nearest / part)
    try:
        handle, name = tempfile.mkstemp(dir=nearest, prefix=f".{target.name[:40]}.", suffix=target.suffix)
    except OSError as error:
        raise UwmError(
            f"The output {path} cannot be written in {nearest} ({error.strerror}): "
            "give a path in a folder of yours."
        ) from error
    os.close(handle)
    os.unlink(name)


def _covers(given: PathLike, target: Path) -> bool:
    """Whether the existing file `target` is `given` or lies in that folder."""
    if not os.path.exists(given):
        return False
    return os.path.samefile(given, target) or Path(os.path.realpath(given)) in target.parents


def _refusal(path: PathLike, error: OSError | ValueError) -> UwmError:
    if isinstance(error, UwmError):
        return error
    reason = getattr(error, "strerror", None) or error
    return UwmError(f"{os.fspath(path)!r} cannot be written ({reason}): give another path.")
