"""Files that are either whole or absent: atomic writes, content hashes and checked safetensors."""

from __future__ import annotations

import hashlib
import json
import os
import stat
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file

from uwmlib.errors import UwmError, in_one_line
from uwmlib.options import shown

_HEADER = "uwmlib"
_ANY_WRITE = stat.S_IWUSR | stat.S_IWGRP | stat.S_IWOTH


@contextmanager
def atomic_path(path: str | os.PathLike) -> Iterator[Path]:
    """Yield a temporary path beside `path`; rename it to `path` on success, remove it on failure.

    Parameters
    ----------
    path : path-like
        Where the finished file shall stand; a link is followed. Missing parent folders are made.

    Raises
    ------
    UwmError
        If something that is no regular file stands there (a folder, a device), a file that may not be written, or
        if writing fails, by whatever library: no such place, no permission, no space left.
    """
    require_path(path)
    with _as_uwm_error(path):
        target = Path(os.path.realpath(path))
        if target.exists() and not target.is_file():
            raise UwmError(f"{path} is no file that could be replaced: give the path of a file to write.")
        if target.exists() and not target.stat().st_mode & _ANY_WRITE:
            raise UwmError(f"{path} is write-protected: choose another place, or permit writing it.")
        temporary = _temporary_beside(target)
        try:
            yield temporary
            # mkstemp and safetensors make files private to the owner; results are read like any other file.
            umask = os.umask(0)
            os.umask(umask)
            temporary.chmod(0o666 & ~umask)
            temporary.replace(target)
        finally:
            temporary.unlink(missing_ok=True)


def require_path(path: object) -> None:
    """Raise UwmError for what no system takes as the path of a file."""
    if not isinstance(path, str | os.PathLike) or "\0" in os.fspath(path):
        raise UwmError(f"The path of a file is {shown(path)}: give text without NUL, or a Path.")


def require_writable(path: str | os.PathLike) -> None:
    """Raise UwmError unless a file could be written at `path`: to be asked before a long computation."""
    require_path(path)
    with _as_uwm_error(path):
        _temporary_beside(Path(os.path.realpath(path))).unlink()


def _temporary_beside(target: Path) -> Path:
    target.parent.mkdir(parents=True, exist_ok=True)
    # Only the beginning of the name: a name of the greatest length shall do.
    handle, name = tempfile.mkstemp(dir=target.parent, prefix=f".{target.name[:40]}.", suffix=target.suffix)
    os.close(handle)
    return Path(name)


@contextmanager
def _as_uwm_error(path: str | os.PathLike) -> Iterator[None]:
    """Turn any library's failure to write into one sentence."""
    try:
        yield
    except (OSError, SafetensorError, UnicodeEncodeError) as error:
        reason = getattr(error, "strerror", None) or " ".join(str(error).split())
        raise UwmError(f"{path} cannot be written ({reason}): make room, or choose another place.") from error


def write_text(path: str | os.PathLike, text: str) -> None:
    """Write `text` (UTF-8) to `path`, whole or not at all."""
    with atomic_path(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def write_json(path: str | os.PathLike, value: Any) -> None:
    """Write `value` as indented JSON with sorted keys, whole or not at all."""
    write_text(path, json.dumps(value, indent=1, sort_keys=True) + "\n")


def json_of_facts(facts: Any, what: str, *, allow_nan: bool = True) -> str:
    """Return a mapping of plain facts as JSON text; UwmError, calling it `what`, for anything that JSON cannot hold."""
    try:
        if isinstance(facts, Mapping):
            return json.dumps(dict(facts), allow_nan=allow_nan, sort_keys=True)
    except (TypeError, ValueError, RecursionError) as error:
        raise UwmError(
            f"JSON cannot hold {what} ({in_one_line(error)}): give plain numbers and text."
        ) from error
    raise UwmError(f"{what[0].upper()}{what[1:]} is {shown(facts)}: give a dict.")


def sha256_of_file(path: str | os.PathLike) -> str:
    """Return the SHA-256 of a file's bytes as 64 hex digits."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def sha256_of_tensors(tensors: Mapping[str, torch.Tensor]) -> str:
    """Return one SHA-256 over names, dtypes, shapes and bytes of `tensors`, in the order of their names."""
    digest = hashlib.sha256()
    for name in sorted(tensors):
        if tensors[name].is_meta:
            raise UwmError(f"{name or 'A tensor'} has no values (device 'meta'): load the weights first.")
        tensor = tensors[name].detach().cpu().contiguous()
        digest.update(f"{name}|{tensor.dtype}|{tuple(tensor.shape)}|".encode())
        # Zero-size and bfloat16 tensors have no direct numpy form; a byte view serves every dtype.
        digest.update(tensor.reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()


def save_tensors(
    path: str | os.PathLike, tensors: Mapping[str, torch.Tensor], *, kind: str, metadata: Mapping[str, Any]
) -> None:
    """Save tensors as safetensors together with JSON metadata and a hash of the content.

    Parameters
    ----------
    path : path-like
        The file to write (atomically).
    tensors : mapping of str to Tensor
    kind : str
        What the file holds ("weight-edit", "scores", ...); `load_tensors` insists on it.
    metadata : mapping
        JSON-able facts stored in the header.
    """
    plain: dict[str, torch.Tensor] = {}
    places: set[int] = set()
    for name, tensor in tensors.items():
        own = tensor.detach().cpu().contiguous()
        place = own.untyped_storage().data_ptr()
        plain[name] = own.clone() if place in places else own  # safetensors takes no memory twice
        places.add(place)
    facts = {"kind": kind, "metadata": dict(metadata)}
    header = json.dumps(facts | {"sha256": _content_hash(plain, facts)}, sort_keys=True)
    with atomic_path(path) as temporary:
        # One entry alone: safetensors writes several in an order that changes from run to run.
        save_file(plain, temporary, metadata={_HEADER: header})


def load_tensors(path: str | os.PathLike, *, kind: str) -> tuple[dict[str, torch.Tensor], dict[str, Any]]:
    """Load what `save_tensors` wrote, after checking its kind and its content hash.

    Returns
    -------
    tensors, metadata : dict of str to Tensor, dict

    Raises
    ------
    UwmError
        If the file is missing, truncated, tampered with, or of another kind.
    """
    if not isinstance(path, str | os.PathLike):
        raise UwmError(f"The path of a {kind} file is a {type(path).__name__}: give text or a Path.")
    try:
        if not Path(path).is_file():
            raise UwmError(f"There is no file {path}: check the path, or make the {kind} file again.")
        with safe_open(path, framework="pt") as file:
            header = _read_header(file.metadata())
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (no mapping)
    except (SafetensorError, OSError) as error:
        raise UwmError(f"{path} is not a whole safetensors file ({error}): copy or make it again.") from error
    found = header.get("kind", "no kind that is known here")
    if found != kind:
        raise UwmError(f"{path} holds {found!r}, not {kind!r}: give the right file.")
    facts = {"kind": kind, "metadata": header.get("metadata")}
    if header.get("sha256") != _content_hash(tensors, facts):
        raise UwmError(
            f"{path} was changed after it was written (its content hash differs): copy or make it again."
        )
    return tensors, facts["metadata"]


def _content_hash(tensors: Mapping[str, torch.Tensor], facts: Mapping[str, Any]) -> str:
    """Return one SHA-256 over tensors and facts."""
    text = json.dumps(facts, sort_keys=True) + sha256_of_tensors(tensors)
    return hashlib.sha256(text.encode()).hexdigest()


def _read_header(metadata: Mapping[str, str] | None) -> dict[str, Any]:
    """Return kind, metadata and hash as `save_tensors` wrote them; an empty dict where it did not."""
    try:
        header = json.loads((metadata or {}).get(_HEADER, "{}"))
    except (ValueError, RecursionError):
        return {}
    return header if isinstance(header, dict) else {}


def require_facts(path: str | os.PathLike, facts: Any, **kinds: Any) -> None:
    """Raise UwmError unless metadata read from `path` is a mapping with exactly these keys, each of its type."""
    if not isinstance(facts, dict) or facts.keys() != kinds.keys():
        found = (
            ", ".join(sorted(map(str, facts))[:9]) if isinstance(facts, dict) else f"a {type(facts).__name__}"
        )
        raise UwmError(f"{path} holds {found or 'nothing'} for {', '.join(kinds)}: make the file again.")
    for key, kind in kinds.items():
        if not isinstance(facts[key], kind):
            raise UwmError(f"{path} holds a {type(facts[key]).__name__} for {key}: make the file again.")
