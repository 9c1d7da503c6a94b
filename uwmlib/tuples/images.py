"""Images that stay in their files until they are looked at."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterable
from pathlib import Path
from typing import BinaryIO

import numpy as np
from PIL import Image

from uwmlib.errors import UwmError, in_one_line
from uwmlib.files import sha256_of_file

BITS_PER_SAMPLE, PHOTOMETRIC, BLACK_IS_ZERO = 258, 262, 1  # tags of TIFF
ORIENTATION = 274  # tag of EXIF


def open_image(path: Path) -> Image.Image:
    """Open one image file as RGB (see `decode_image`).

    Raises
    ------
    UwmError
        If the file is missing, is not a readable image, or has pixels of an unknown range (32-bit or floating).
    """
    _require_file(path)
    return decode_image(path, path)


def decode_image(source: Path | BinaryIO, name: object) -> Image.Image:
    """Decode one image as RGB, the way the released pipelines do (PIL's `convert`).

    So transparency is dropped without a background, an orientation stored beside the pixels (EXIF) is not applied, and
    of an animation the first picture is taken. Grey values of 16 bits, which `convert` would cut off at 255, keep
    their upper 8 bits, as PIL does with 16-bit colour.

    Parameters
    ----------
    source : Path or binary file
    name : object
        What messages call it.

    Raises
    ------
    UwmError
        If it is not a readable image, or has pixels of an unknown range (32-bit or floating).
    """
    try:
        with Image.open(source) as image:
            image.load()
            return _grey(image, name).convert("RGB")
    except UwmError:
        raise
    except Exception as error:  # decoders of damaged files raise anything, from struct.error to MemoryError
        raise UwmError(
            f"{name} is not a readable image ({in_one_line(error)}): replace the file or drop its row."
        ) from error


def left_out(path: Path) -> list[str]:
    """Return what of a readable image `decode_image` does not use, in words; most images give none."""
    try:
        with Image.open(path) as image:
            lost = {
                "16 bits a channel, of which the upper 8 are used": image.mode == "I"
                or image.mode[:2] == "I;",
                "transparency, which is dropped": image.has_transparency_data,
                "an orientation beside the pixels, which is not applied": image.getexif().get(ORIENTATION, 1)
                != 1,
                "several pictures, of which the first is taken": getattr(image, "n_frames", 1) > 1,
            }
    except Exception:  # what is damaged behind the first picture is not used either
        return []
    return [what for what, there in lost.items() if there]


def _grey(image: Image.Image, name: object) -> Image.Image:
    """Return an image of more than 8 bits as one of 8 bits, and any other as it is."""
    if image.mode not in ("I", "F") and not image.mode.startswith("I;"):
        return image
    if not _fills_16_bits(image):
        raise UwmError(
            f"{name} has pixels of an unknown range (mode {image.mode}): save it with 8 or 16 bits a channel."
        )
    return Image.fromarray((np.asarray(image).astype(np.uint32) >> 8).astype(np.uint8))


def _fills_16_bits(image: Image.Image) -> bool:
    """Return whether the grey values run from 0 for black to 65535 for white, as far as the format says."""
    if image.format == "TIFF":
        bits, zero = image.tag_v2.get(BITS_PER_SAMPLE), image.tag_v2.get(PHOTOMETRIC)
        return image.mode.startswith("I;16") and bits == (16,) and zero == BLACK_IS_ZERO
    return image.mode != "F" and image.format in ("PNG", "PPM", "JPEG2000")


def _require_file(path: Path) -> None:
    if not os.path.exists(path):
        raise UwmError(f"There is no image {path}: check the path in the manifest.")
    if not os.path.isfile(path):  # opening a pipe would wait for ever
        raise UwmError(f"{path} is not a readable image (no regular file): replace it or drop its row.")


class ImageFiles:
    """A sequence of image files; an index opens one as a PIL image, a slice opens a list of them.

    Parameters
    ----------
    paths : iterable of path-like

    Raises
    ------
    UwmError
        For one path in place of several, or what is no path.

    Examples
    --------
    >>> import tempfile
    >>> from pathlib import Path
    >>> from PIL import Image
    >>> from uwmlib.tuples import ImageFiles
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     path = Path(folder, "ring.png")
    ...     Image.new("L", (32, 24)).save(path)
    ...     image = ImageFiles([path])[0]
    >>> image.mode, image.size
    ('RGB', (32, 24))
    """

    def __init__(self, paths: Iterable[str | os.PathLike]) -> None:
        try:
            self.paths = [Path(path) for path in ([None] if isinstance(paths, str) else paths)]
        except TypeError as error:
            raise UwmError(
                f"Image files are given as a list of paths, not as {paths!r}: give such a list."
            ) from error

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
        for path in self.paths:
            _require_file(path)
        return hashlib.sha256("".join(sha256_of_file(path) for path in self.paths).encode()).digest()
