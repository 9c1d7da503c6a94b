"""Tuples (v_s, v_u, t_s, t_u): the data that everything here scores and measures (Sec. 3.1)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import ClassVar

import numpy as np

from uwmlib.errors import UwmError
from uwmlib.tuples.images import ImageFiles
from uwmlib.tuples.paired import Paired


@dataclass(frozen=True)
class Tuples(Paired):
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

    KIND: ClassVar[str] = "tuple"
    IMAGES: ClassVar[tuple[str, ...]] = ("safe_images", "unsafe_images")
    TEXTS: ClassVar[tuple[str, ...]] = ("safe_texts", "unsafe_texts", "concepts")
    MAY_BE_EMPTY: ClassVar[tuple[str, ...]] = ("concepts",)  # a tuple may belong to no concept

    name: str
    safe_images: np.ndarray | ImageFiles
    unsafe_images: np.ndarray | ImageFiles
    safe_texts: Sequence[str]
    unsafe_texts: Sequence[str]
    concepts: Sequence[str] = field(repr=False)
    harmless: bool = field(default=False, kw_only=True, repr=False)
    split: str = field(default="", kw_only=True, repr=False)

    def __post_init__(self) -> None:
        if not isinstance(self.split, str):
            raise UwmError(f"The split of tuples is {self.split!r}: give text.")
        super().__post_init__()

    def __repr__(self) -> str:
        # Without captions: they may be unsafe.
        return f"Tuples({self.name!r}, n={len(self)}, {len(set(self.concepts))} concepts)"

    @cached_property
    def fingerprint(self) -> str:
        """SHA-256 over all captions, concepts and image contents: the key of whatever is computed from them."""
        return self._digest()


def require_tuples(tuples: object) -> None:
    """Raise UwmError if `tuples` are nothing like Tuples, most often the name of some."""
    if not hasattr(tuples, "safe_texts"):
        found = repr(tuples) if isinstance(tuples, str) else f"a {type(tuples).__name__}"
        raise UwmError(f"The tuples are {found}: load them by their name with load_tuples.")
