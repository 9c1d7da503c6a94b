"""Nothing computed twice: results kept under a hash of everything they depend on."""

from __future__ import annotations

import hashlib
import json
import os
import re
from collections.abc import Callable, Mapping
from functools import cache as once
from importlib import metadata
from pathlib import Path
from typing import Any

import torch

from uwmlib.errors import UwmError
from uwmlib.files import load_tensors, require_writable, save_tensors

KIND = "cached"
PACKAGES = ("torch", "torchvision", "pillow", "open_clip_torch", "timm", "transformers")
CODE = ("cache.py", "evaluation.py", "files.py", "editing", "models", "tuples")
# 64 hexadecimal digits: what `path` makes, and hardly anything else; with a dot in front, one being written.
_RESULT = re.compile(r"[0-9a-f]{64}\.safetensors")
_UNFINISHED = re.compile(r"\.[0-9a-f]{40}\..*\.safetensors")


class Cache:
    """A folder of tensors, each file named by the SHA-256 of the facts that determine its content.

    The facts hold weights, architecture, data and code as hashes, so a result cannot become stale: after any change
    it is looked for under another name. They also stand in the file, which is believed only if they are those asked
    for. Several processes may share a folder; files appear whole or not at all.

    Parameters
    ----------
    folder : path-like
        Empty for the default: `$UWM_CACHE`, or `uwm-book` in the user's cache folder.

    Attributes
    ----------
    hits, misses : int
        How often a result was found, and how often it had to be computed.

    Examples
    --------
    What was embedded once is found the second time:

    >>> import tempfile
    >>> import uwmlib as uwm
    >>> vlm = uwm.load_model("mini-ViT-L-14")
    >>> tuples = uwm.load_tuples("mini-visu", n=2)
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     cache = uwm.Cache(folder)
    ...     first = uwm.embed_tuples(vlm, tuples, cache=cache)
    ...     again = uwm.embed_tuples(vlm, tuples, cache=cache)
    >>> cache.misses, cache.hits
    (4, 4)
    """

    def __init__(self, folder: str | os.PathLike = "") -> None:
        if not isinstance(folder, (str, os.PathLike)):
            raise UwmError(f"The cache's folder is {folder!r}: give a path.")
        self.folder = Path(folder) if str(folder) else default_folder()
        self.hits = self.misses = 0

    def __repr__(self) -> str:
        return f"Cache({str(self.folder)!r}, hits={self.hits}, misses={self.misses})"

    def path(self, facts: Mapping[str, Any]) -> Path:
        """Return the file for `facts`, which must be JSON-able and say everything that the content depends on.

        The environment and the code of this library are added to them.
        """
        return self.folder / f"{hashlib.sha256(_text(facts).encode()).hexdigest()}.safetensors"

    def tensors(
        self, facts: Mapping[str, Any], make: Callable[[], dict[str, torch.Tensor]]
    ) -> dict[str, torch.Tensor]:
        """Return the tensors kept for `facts`, or those that `make` returns, which are then kept.

        A file that is damaged or holds something else is made again. Kept tensors come back on the CPU.

        Raises
        ------
        UwmError
            If the folder cannot be written: before anything is made.
        """
        found = self.find(facts)
        if found is not None:
            return found
        self.require_writable()
        made = make()
        self.keep(facts, made)
        return made

    def find(self, facts: Mapping[str, Any]) -> dict[str, torch.Tensor] | None:
        """Return the tensors kept for `facts`, on the CPU; None if there are none, or not whole ones."""
        try:
            tensors, stored = load_tensors(self.path(facts), kind=KIND)
        except UwmError:
            stored = None
        if stored != json.loads(_text(facts)):
            self.misses += 1
            return None
        self.hits += 1
        return tensors

    def keep(self, facts: Mapping[str, Any], tensors: Mapping[str, torch.Tensor]) -> None:
        """Keep tensors for `facts`, in place of what stands there."""
        path, metadata = self.path(facts), json.loads(_text(facts))
        try:
            save_tensors(path, tensors, kind=KIND, metadata=metadata)
        except UwmError:
            # Another process may have cleared the folder meanwhile; a full disk is still full.
            save_tensors(path, tensors, kind=KIND, metadata=metadata)

    def require_writable(self) -> None:
        """Raise UwmError unless results can be kept here: to be asked before computing them."""
        require_writable(self.folder / "results")

    def size(self) -> tuple[int, int]:
        """Return how many results are kept and their bytes."""
        sizes = [_bytes_of(path) for path in self._files(_RESULT)]
        return len(sizes), sum(sizes)

    def clear(self) -> None:
        """Remove every kept result and what killed processes left half-written; other files in the folder stay.

        Raises
        ------
        UwmError
            If a file cannot be removed.
        """
        for path in [*self._files(_RESULT), *self._files(_UNFINISHED)]:
            try:
                path.unlink(missing_ok=True)
            except OSError as error:
                raise UwmError(f"{path} cannot be removed ({error.strerror}): remove it by hand.") from error

    def _files(self, name: re.Pattern) -> list[Path]:
        return [path for path in self.folder.glob("*") if name.fullmatch(path.name)]


def as_cache(cache: Cache | str | os.PathLike | None) -> Cache | None:
    """Return the cache in a folder given by its path; a Cache, or None for no cache, as it is.

    Raises
    ------
    UwmError
        For anything else.
    """
    if cache is None or isinstance(cache, Cache):
        return cache
    if isinstance(cache, (str, os.PathLike)):
        return Cache(cache)
    raise UwmError(f"The cache is {cache!r}: give a Cache, or the path of its folder.")


def _text(facts: Mapping[str, Any]) -> str:
    """Return facts and environment as JSON, the same whatever their order."""
    return json.dumps(dict(facts) | {"environment": environment()}, sort_keys=True)


def _bytes_of(path: Path) -> int:
    try:
        return path.stat().st_size
    except FileNotFoundError:  # removed meanwhile by another process
        return 0


def default_folder() -> Path:
    """Return `$UWM_CACHE`, or `uwm-book` in `$XDG_CACHE_HOME` or `~/.cache`."""
    if os.environ.get("UWM_CACHE"):
        return Path(os.environ["UWM_CACHE"])
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "uwm-book"


def code_hash(*parts: str) -> str:
    """Return the SHA-256 over the sources of parts of uwmlib: modules ("cache.py") or packages ("models")."""
    return _code_hash(parts)


@once
def _code_hash(parts: tuple[str, ...]) -> str:
    root = Path(__file__).parent
    digest = hashlib.sha256()
    for part in parts:
        files = sorted((root / part).glob("*.py")) if (root / part).is_dir() else [root / part]
        for file in files:
            digest.update(file.name.encode() + file.read_bytes())
    return digest.hexdigest()


def environment() -> dict[str, Any]:
    """Return what determines any result but model and data: code, versions, the processor's path, threads."""
    return {
        "code": code_hash(*CODE),
        "versions": _versions(),
        "capability": torch.backends.cpu.get_cpu_capability(),
        "threads": torch.get_num_threads(),
    }


@once
def _versions() -> dict[str, str]:
    return {package: metadata.version(package) for package in PACKAGES}
