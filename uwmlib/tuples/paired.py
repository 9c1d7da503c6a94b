"""Rows of images and texts that belong together: what tuples and benign uses have in common."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any, ClassVar, Self

import numpy as np

from uwmlib.errors import UwmError
from uwmlib.models.pixels import image_digest
from uwmlib.options import flaw_of_text
from uwmlib.tuples.images import ImageFiles


class Paired:
    """Items with one image or text in each part, row i of every part being item i.

    A frozen dataclass that inherits this names its parts; they are checked when it is made.
    """

    KIND: ClassVar[str]  # one item, in messages
    IMAGES: ClassVar[tuple[str, ...]]
    TEXTS: ClassVar[tuple[str, ...]]
    MAY_BE_EMPTY: ClassVar[tuple[str, ...]] = ()  # texts
    name: str

    def __post_init__(self) -> None:
        if not isinstance(self.name, str):
            raise UwmError(f"The name of {self.KIND}s is {self.name!r}: give text.")
        for part in self.IMAGES:
            _check_images(f"{part} of {self.name}", getattr(self, part))
        for part in self.TEXTS:
            # Frozen, but a list of our own: a Series would be indexed by its labels, and a caller's list may change.
            texts = _as_list(f"{part} of {self.name}", getattr(self, part), self.KIND)
            object.__setattr__(self, part, texts)
        lengths = {part: len(getattr(self, part)) for part in (*self.IMAGES, *self.TEXTS)}
        if len(set(lengths.values())) != 1:
            listed = ", ".join(f"{part} {n}" for part, n in lengths.items())
            raise UwmError(
                f"{self.name} is not paired ({listed}): every {self.KIND} needs one item of each part."
            )
        if not len(self):
            raise UwmError(f"{self.name} has no {self.KIND}s: give at least one.")
        for part in self.TEXTS:
            self._check_texts(part)

    def _check_texts(self, part: str) -> None:
        for i, text in enumerate(getattr(self, part)):
            if not isinstance(text, str):
                raise UwmError(f"{part}[{i}] of {self.name} is not text: give all of them as strings.")
            flaw = flaw_of_text(text)
            if flaw and (text or part not in self.MAY_BE_EMPTY):
                raise UwmError(f"{part}[{i}] of {self.name} has {flaw} ({text[:40]!r}): correct it.")

    def __len__(self) -> int:
        return len(getattr(self, self.TEXTS[0]))

    def __getitem__(self, rows: slice | Sequence[int] | np.ndarray) -> Self:
        """Return some of the items: a slice, or an array of row numbers; UwmError for one that is not there."""
        try:
            index = np.arange(len(self))[rows]
        except (IndexError, ValueError) as error:
            raise UwmError(
                f"These rows do not fit {len(self)} {self.KIND}s ({error}): give others."
            ) from error
        if index.ndim != 1:
            raise UwmError(
                f"{rows!r} is no list of rows: give a slice such as [3:4], or several row numbers."
            )
        return replace(self, **self._taken(index))

    def _taken(self, index: np.ndarray) -> dict[str, Any]:
        """Return every part at some rows."""
        return {part: _take(getattr(self, part), index) for part in (*self.IMAGES, *self.TEXTS)}

    def _digest(self) -> str:
        """Return a SHA-256 over all texts and image contents."""
        digest = hashlib.sha256()
        for part in self.TEXTS:
            digest.update("\0".join([part, *getattr(self, part)]).encode())
        for part in self.IMAGES:
            digest.update(image_digest(getattr(self, part)))
        return digest.hexdigest()


def _check_images(what: str, images: object) -> None:
    if isinstance(images, ImageFiles):
        return
    shape = list(getattr(images, "shape", []))
    pixels = isinstance(images, np.ndarray) and images.dtype == np.uint8
    if not pixels or len(shape) != 4 or shape[3] != 3 or 0 in shape[1:]:
        found = f"{images.dtype} {shape}" if isinstance(images, np.ndarray) else f"a {type(images).__name__}"
        raise UwmError(f"{what} are {found}: give a uint8 array [N, H, W, 3] or ImageFiles.")


def _as_list(what: str, texts: object, kind: str) -> list[str]:
    if isinstance(texts, str | bytes | Mapping) or not isinstance(texts, Iterable):
        raise UwmError(f"{what} are a {type(texts).__name__}: give a list of strings, one for each {kind}.")
    return list(texts)


def _take(values: Any, index: np.ndarray) -> Any:
    if isinstance(values, ImageFiles):
        return values.take(index)
    return values[index] if isinstance(values, np.ndarray) else [values[i] for i in index.tolist()]
