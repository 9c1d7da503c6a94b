"""Images that stay in their files until they are looked at."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image, UnidentifiedImageError

from uwmlib.errors import UwmError
from uwmlib.files import sha256_of_file


def open_image(path: Path) -> Image.Image:
    """Open one image file as RGB.

    Raises
    ------
    UwmError
        If the file is missing or is not a readable image.
    """
    try:
        with Image.open(path) as image:
            return image.convert("RGB")
    except FileNotFoundError as error:
        raise UwmError(f"There is no image {path}: check the path in the manifest.") from error
    except (UnidentifiedImageError, Image.DecompressionBombError, OSError, SyntaxError, ValueError) as error:
        raise UwmError(
            f"{path} is not a readable image ({error}): replace the file or drop its tuple."
        ) from error


class ImageFiles:
    """A sequence of image files; an index opens one as a PIL image, a slice opens a list of them.

    Parameters
    ----------
    paths : sequence of Path
    """

    def __init__(self, paths: Sequence[Path]) -> None:
        self.paths = list(paths)

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, index: int | slice) -> Image.Image | list[Image.Image]:
        if isinstance(index, slice):
            return [open_image(path) for path in self.paths[index]]
        return open_image(self.paths[index])

    def take(self, index: np.ndarray) -> ImageFiles:
        """Return the files at some positions, still unopened."""
        return ImageFiles([self.paths[i] for i in index.tolist()])

    def digest(self) -> bytes:
        """Return a SHA-256 over the contents of all files, in order."""
        missing = next((path for path in self.paths if not path.is_file()), None)
        if missing is not None:
            raise UwmError(f"There is no image {missing}: check the path in the manifest.")
        return hashlib.sha256("".join(sha256_of_file(path) for path in self.paths).encode()).digest()
