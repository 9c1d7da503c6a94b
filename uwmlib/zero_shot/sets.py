"""A labelled set of images with the words for its classes: what zero-shot accuracy is measured on (Table 2)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from PIL import Image

from uwmlib.errors import UwmError

PHOTO = "a photo of a {}."


class Pictures(Protocol):
    """Images that are opened when they are looked at, such as `uwmlib.tuples.ImageFiles`."""

    def __len__(self) -> int: ...

    def __getitem__(self, index: int | slice) -> Image.Image | list[Image.Image]: ...

    def digest(self) -> bytes:
        """Return a SHA-256 over the contents of all images, in order."""
        ...


@dataclass(frozen=True)
class ZeroShotSet:
    """One labelled set of images with the words for its classes.

    Attributes
    ----------
    name : str
        Key of the set in the paper's Table 2 ("imagenet_v2", ...), or a name of your own.
    about : str
        What the set shows.
    images : uint8 array, shape (N, H, W, 3), or Pictures
    labels : int64 array, shape (N,)
    classes : tuple of str, length C
        Two classes may share a name, as two of ImageNet's do.
    template : str
        Prompt with one place for the class name; one a set, no ensemble, as in the paper.

    Raises
    ------
    UwmError
        If there is no image, images and labels differ in number, a label is no class's number, a class has no
        name, or the template has not just one place.

    Examples
    --------
    >>> import numpy as np
    >>> from uwmlib.zero_shot import ZeroShotSet
    >>> pets = ZeroShotSet(
    ...     "pets",
    ...     "three small pictures",
    ...     images=np.zeros((3, 8, 8, 3), dtype=np.uint8),
    ...     labels=np.array([0, 1, 1]),
    ...     classes=("cat", "dog"),
    ... )
    >>> pets.prompts
    ['a photo of a cat.', 'a photo of a dog.']
    >>> print(f"{pets.chance:.1f}")  # of always answering "dog"
    66.7
    """

    name: str
    about: str
    images: np.ndarray | Pictures
    labels: np.ndarray
    classes: Sequence[str]
    template: str = PHOTO

    def __post_init__(self) -> None:
        check_template(self.template, self.name)
        labels = np.asarray(self.labels)
        if labels.ndim != 1 or len(labels) != len(self.images) or not len(labels):
            raise UwmError(
                f"{self.name} has {len(self.images)} images and labels of shape {list(labels.shape)}: "
                f"give one label for each, and at least one."
            )
        if labels.dtype.kind not in "iu" or labels.min() < 0 or labels.max() >= len(self.classes):
            raise UwmError(
                f"A label of {self.name} is no number from 0 to {len(self.classes) - 1}, one for each class: "
                f"correct it."
            )
        nameless = [i for i, name in enumerate(self.classes) if not isinstance(name, str) or not name.strip()]
        if nameless:
            raise UwmError(f"Class {nameless[0]} of {self.name} has no name: name every class by its words.")

    def __repr__(self) -> str:
        return f"ZeroShotSet({self.name!r}, {len(self.images)} images of {len(self.classes)} classes)"

    @property
    def prompts(self) -> list[str]:
        """One prompt a class, in the order of the labels."""
        return [self.template.replace("{}", name) for name in self.classes]

    @property
    def chance(self) -> float:
        """Accuracy in percent of always answering the most frequent class."""
        return 100.0 * np.bincount(self.labels).max() / len(self.labels)


def check_template(template: Any, name: str) -> None:
    """Raise UwmError unless `template` is text with one `{}` for the class name and no other braces."""
    if (
        not isinstance(template, str)
        or template.count("{}") != 1
        or set("{}") & set(template.replace("{}", ""))
    ):
        raise UwmError(
            f"The template of {name} is {template!r}: write a prompt with one {{}} for the class, such as {PHOTO!r}."
        )
