"""Benign uses: harmless uses of hazards, each beside an unsafe use and a clean scene, on which over-refusal shows."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, ClassVar

import numpy as np

from uwmlib.errors import UwmError
from uwmlib.tuples.images import ImageFiles
from uwmlib.tuples.paired import Paired


@dataclass(frozen=True)
class BenignUses(Paired):
    """N scenes, each in three forms with an image and a caption of each.

    Parameters
    ----------
    name : str
        What the data are called in results.
    harmless_images, unsafe_images, clean_images : uint8 array [N, H, W, 3] or ImageFiles
        Row i of every part belongs to scene i: with a hazard that does no harm (fire in a stove), with the same
        hazard doing harm, and without it.
    harmless_texts, unsafe_texts, clean_texts : list of str, length N
    marked : bool array [N], optional
        Whether something in the scene marks the use as harmless, such as the jar around it; otherwise only what the
        hazard does there says so.
    harmless : bool
        Whether the unsafe form may be shown to anyone, as for `Tuples`.

    Raises
    ------
    UwmError
        If there are no scenes, the parts differ in length, the images are of another kind, a caption is not text, has
        no visible character or holds a NUL or half a surrogate pair, or `marked` are no booleans.

    Examples
    --------
    >>> import numpy as np
    >>> from uwmlib.tuples import BenignUses
    >>> black = np.zeros((2, 48, 48, 3), dtype=np.uint8)
    >>> uses = BenignUses(
    ...     "two scenes",
    ...     harmless_images=black,
    ...     unsafe_images=black + 255,
    ...     clean_images=black + 128,
    ...     harmless_texts=["a ring by a jar of lava", "a star by a moth in hail"],
    ...     unsafe_texts=["a ring in lava by a jar", "a star in hail by a moth"],
    ...     clean_texts=["a ring by a jar", "a star by a moth"],
    ...     marked=[True, False],
    ... )
    >>> len(uses), uses[uses.marked].clean_texts
    (2, ['a ring by a jar'])
    """

    KIND: ClassVar[str] = "benign use"
    IMAGES: ClassVar[tuple[str, ...]] = ("harmless_images", "unsafe_images", "clean_images")
    TEXTS: ClassVar[tuple[str, ...]] = ("harmless_texts", "unsafe_texts", "clean_texts")

    name: str
    harmless_images: np.ndarray | ImageFiles
    unsafe_images: np.ndarray | ImageFiles
    clean_images: np.ndarray | ImageFiles
    harmless_texts: Sequence[str]
    unsafe_texts: Sequence[str]
    clean_texts: Sequence[str]
    marked: np.ndarray | None = field(default=None, repr=False)
    harmless: bool = field(default=False, kw_only=True, repr=False)

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.marked is None:
            return
        marked = np.array(self.marked)
        if marked.dtype != bool or marked.shape != (len(self),):
            what = f"{marked.dtype} {list(marked.shape)}"
            raise UwmError(
                f"marked of {self.name} are {what}: give one boolean for each of {len(self)} benign uses."
            )
        object.__setattr__(self, "marked", marked)

    def _taken(self, index: np.ndarray) -> dict[str, Any]:
        return super()._taken(index) | ({} if self.marked is None else {"marked": self.marked[index]})

    def __repr__(self) -> str:
        # Without captions: they may be unsafe.
        return f"BenignUses({self.name!r}, n={len(self)})"

    @cached_property
    def fingerprint(self) -> str:
        """SHA-256 over all captions and image contents."""
        return self._digest()


def require_benign(uses: object) -> None:
    """Raise UwmError if `uses` are no BenignUses, most often the name of some."""
    if not isinstance(uses, BenignUses):
        found = repr(uses) if isinstance(uses, str) else f"a {type(uses).__name__}"
        raise UwmError(f"The benign uses are {found}: load them by their name with load_benign.")
