"""Nothing computed twice: results kept under a hash of everything they depend on."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Iterable, Mapping
from functools import cache as once
from importlib import metadata
from pathlib import Path
from typing import Any

import torch

from uwmlib.errors import UwmError
from uwmlib.files import load_tensors, save_tensors

KIND = "cached"
PACKAGES = ("torch", "open_clip_torch", "transformers")


class Cache:
    """A folder of tensors, each file named by the SHA-256 of the facts that determine its content.

    The facts hold weights, data and code as hashes, so a result cannot become stale: after any change it is
    looked for under another name. Several processes may share a folder; files appear whole or not at all.

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
    >>> cache = Cache("some/folder")  # doctest: +SKIP
    >>> evaluate(vlm, tuples, cache=cache)  # doctest: +SKIP
    """

    def __init__(self, folder: str | os.PathLike = "") -> None:
        self.folder = Path(folder) if str(folder) else default_folder()
        self.hits = self.misses = 0

    def __repr__(self) -> str:
        return f"Cache({str(self.folder)!r}, hits={self.hits}, misses={self.misses})"

    def path(self, facts: Mapping[str, Any]) -> Path:
        """Return the file for `facts`, which must be JSON-able and say everything that the content depends on."""
        text = json.dumps(dict(facts) | environment(), sort_keys=True)
        return self.folder / f"{hashlib.sha256(text.encode()).hexdigest()}.safetensors"

    def tensors(
        self, facts: Mapping[str, Any], make: Callable[[], dict[str, torch.Tensor]]
    ) -> dict[str, torch.Tensor]:
        """Return the tensors kept for `facts`, or those that `make` returns, which are then kept.

        A file that was damaged is made again. Kept tensors come back on the CPU.
        """
        path = self.path(facts)
        if path.is_file():
            try:
                found, _ = load_tensors(path, kind=KIND)
            except UwmError:
                path.unlink(missing_ok=True)
            else:
                self.hits += 1
                return found
        self.misses += 1
        made = make()
        save_tensors(path, made, kind=KIND, metadata={"facts": dict(facts)})
        return made

    def size(self) -> tuple[int, int]:
        """Return how many results are kept and their bytes."""
        sizes = [path.stat().st_size for path in self._files()]
        return len(sizes), sum(sizes)

    def clear(self) -> None:
        """Remove every kept result; other files in the folder stay."""
        for path in self._files():
            path.unlink(missing_ok=True)

    def _files(self) -> Iterable[Path]:
        # 64 hexadecimal digits: what `path` makes, and hardly anything else.
        return [path for path in self.folder.glob("*.safetensors") if len(path.stem) == 64]


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
    """Return what else can move the last digits: versions of the libraries, the processor's path, threads."""
    return {
        "versions": {package: metadata.version(package) for package in PACKAGES},
        "capability": torch.backends.cpu.get_cpu_capability(),
        "threads": torch.get_num_threads(),
    }
