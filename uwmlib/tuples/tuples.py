"""Tuples (v_s, v_u, t_s, t_u): the data that everything here scores and measures (Sec. 3.1)."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np

from uwmlib.errors import UwmError
from uwmlib.models.pixels import image_digest
from uwmlib.options import flaw_of_text
from uwmlib.tuples.images import ImageFiles

PARTS = ("safe_images", "unsafe_images", "safe_texts", "unsafe_texts", "concepts")


@dataclass(frozen=True)
class Tuples:
    """N paired items: a safe image, its unsafe twin, and a caption of each.

    Parameters
    ----------
    name : str
        What the data are called in results.
    safe_images, unsafe_images : uint8 array [N, H, W, 3] or ImageFiles
        Row i of every part belongs to tuple i.
    safe_texts, unsafe_texts : list of str, length N
    concepts : list of str, length N
        The unsafe concept of each tuple.
    harmless : bool
        Whether the unsafe side may be shown to anyone. Only who makes the tuples can know: those of the mini world
        are, those of a file never are.
    split : str
        The split that they are of, such as "validation"; empty where there is none, as in tuples made by hand.

    Raises
    ------
    UwmError
        If there are no tuples, the parts differ in length, the images are of another kind, a caption or a concept is
        not text or holds a NUL or half a surrogate pair, a caption has no visible character, or the split is not text.

    Examples
    --------
    >>> import numpy as np
    >>> import uwmlib as uwm
    >>> black = np.zeros((2, 48, 48, 3), dtype=np.uint8)
    >>> tuples = uwm.Tuples(
    ...     "two pairs",
    ...     safe_images=black,
    ...     unsafe_images=black + 255,
    ...     safe_texts=["a red ring", "a blue star"],
    ...     unsafe_texts=["a red ring on fire", "a blue star in a storm"],
    ...     concepts=["fire", "storm"],
    ... )
    >>> len(tuples), tuples[1:].concepts
    (2, ['storm'])
    """

    name: str
    safe_images: np.ndarray | ImageFiles
    unsafe_images: np.ndarray | ImageFiles
    safe_texts: Sequence[str]
    unsafe_texts: Sequence[str]
    concepts: Sequence[str] = field(repr=False)
    harmless: bool = field(default=False, kw_only=True, repr=False)
    split: str = field(default="", kw_only=True, repr=False)

    def __post_init__(self) -> None:
        for what in ("name", "split"):
            if not isinstance(getattr(self, what), str):
                raise UwmError(f"The {what} of tuples is {getattr(self, what)!r}: give text.")
        for part in PARTS[:2]:
            _check_images(f"{part} of {self.name}", getattr(self, part))
        for part in PARTS[2:]:
            # Frozen, but a list of our own: a Series would be indexed by its labels, and a caller's list may change.
            object.__setattr__(self, part, _as_list(f"{part} of {self.name}", getattr(self, part)))
        lengths = {part: len(getattr(self, part)) for part in PARTS}
        if len(set(lengths.values())) != 1:
            listed = ", ".join(f"{part} {n}" for part, n in lengths.items())
            raise UwmError(f"{self.name} is not paired ({listed}): every tuple needs one item of each part.")
        if not len(self):
            raise UwmError(f"{self.name} has no tuples: give at least one safe/unsafe pair.")
        for part in PARTS[2:]:
            self._check_texts(part)

    def _check_texts(self, part: str) -> None:
        for i, text in enumerate(getattr(self, part)):
            if not isinstance(text, str):
                raise UwmError(f"{part}[{i}] of {self.name} is not text: give all of them as strings.")
            flaw = flaw_of_text(text)
            if flaw and (text or part != "concepts"):  # a tuple may belong to no concept
                raise UwmError(f"{part}[{i}] of {self.name} has {flaw} ({text[:40]!r}): correct it.")

    def __repr__(self) -> str:
        # Without captions: they may be unsafe.
        return f"Tuples({self.name!r}, n={len(self)}, {len(set(self.concepts))} concepts)"

    def __len__(self) -> int:
        return len(self.safe_texts)

    def __getitem__(self, rows: slice | Sequence[int] | np.ndarray) -> Tuples:
        """Return some of the tuples: a slice, or an array of row numbers; UwmError for one that is not there."""
        try:
            index = np.arange(len(self))[rows]
        except (IndexError, ValueError) as error:
            raise UwmError(f"These rows do not fit {len(self)} tuples ({error}): give others.") from error
        if index.ndim != 1:
            raise UwmError(
                f"{rows!r} is no list of rows: give a slice such as [3:4], or several row numbers."
            )
        return Tuples(
            name=self.name,
            safe_images=_take(self.safe_images, index),
            unsafe_images=_take(self.unsafe_images, index),
            **{part: [getattr(self, part)[i] for i in index.tolist()] for part in PARTS[2:]},
            harmless=self.harmless,
            split=self.split,
        )

    @cached_property
    def fingerprint(self) -> str:
        """SHA-256 over all captions, concepts and image contents: the key of whatever is computed from them."""
        digest = hashlib.sha256()
        for part in PARTS[2:]:
            digest.update("\0".join([part, *getattr(self, part)]).encode())
        for images in (self.safe_images, self.unsafe_images):
            digest.update(image_digest(images))
        return digest.hexdigest()


def _check_images(what: str, images: object) -> None:
    if isinstance(images, ImageFiles):
        return
    shape = list(getattr(images, "shape", []))
    pixels = isinstance(images, np.ndarray) and images.dtype == np.uint8
    if not pixels or len(shape) != 4 or shape[3] != 3 or 0 in shape[1:]:
        found = f"{images.dtype} {shape}" if isinstance(images, np.ndarray) else f"a {type(images).__name__}"
        raise UwmError(f"{what} are {found}: give a uint8 array [N, H, W, 3] or ImageFiles.")


def _as_list(what: str, texts: object) -> list[str]:
    if isinstance(texts, str | bytes | Mapping) or not isinstance(texts, Iterable):
        raise UwmError(f"{what} are a {type(texts).__name__}: give a list of strings, one for each tuple.")
    return list(texts)


def _take(images: np.ndarray | ImageFiles, index: np.ndarray) -> np.ndarray | ImageFiles:
    return images[index] if isinstance(images, np.ndarray) else images.take(index)


def require_tuples(tuples: object) -> None:
    """Raise UwmError if `tuples` are nothing like Tuples, most often the name of some."""
    if not hasattr(tuples, "fingerprint"):
        found = repr(tuples) if isinstance(tuples, str) else f"a {type(tuples).__name__}"
        raise UwmError(f"The tuples are {found}: load them by their name with load_tuples.")
