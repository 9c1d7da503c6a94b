"""From pictures to the pixel tensor a model reads."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from PIL import Image

from uwmlib.errors import UwmError


@dataclass(frozen=True)
class Pixels:
    """The model's own preprocessing, with a vectorised path for arrays that need no resizing.

    Attributes
    ----------
    size : (int, int)
        Height and width the model reads.
    mean, std : tuple of float
        Per channel, on the scale where a pixel is in [0, 1].
    transform : callable, PIL image -> FloatTensor [3, H, W]
        The full pipeline (resize, crop, scale, normalise) for one RGB image.
    """

    size: tuple[int, int]
    mean: tuple[float, ...]
    std: tuple[float, ...]
    transform: Callable[[Image.Image], torch.Tensor]

    def __call__(self, images: np.ndarray | Sequence[Image.Image]) -> torch.Tensor:
        """Return FloatTensor [B, 3, H, W] for a uint8 array [B, H, W, 3] or a sequence of PIL images."""
        if isinstance(images, np.ndarray):
            check_array(images)
            if images.shape[1:3] == self.size:
                return self.normalised(images)
        return torch.stack([self.transform(picture) for picture in as_pictures(images)])

    def normalised(self, images: np.ndarray) -> torch.Tensor:
        """Scale and normalise uint8 [B, H, W, 3], which already has the model's size."""
        pixels = torch.from_numpy(np.ascontiguousarray(images)).permute(0, 3, 1, 2)  # -> [B, 3, H, W]
        mean, std = (
            torch.tensor(value, dtype=torch.float32).view(3, 1, 1) for value in (self.mean, self.std)
        )
        return ((pixels.float() / 255 - mean) / std).contiguous()

    def probe(self) -> torch.Tensor:
        """Return what becomes of `noise`, [3, 3, H, W].

        Two preprocessings that agree here resize, crop, scale and normalise alike.
        """
        return torch.cat([self(images) for images in self.noise()])

    def noise(self) -> tuple[np.ndarray, list[Image.Image]]:
        """Return fixed noise: an array [1, H, W, 3] of the model's size, and a wide and a narrow picture."""
        height, width = self.size
        random = np.random.default_rng(0)
        exact, wide, narrow = (
            random.integers(0, 256, (*size, 3), dtype=np.uint8)
            for size in (self.size, (height + 5, 2 * width + 9), (height + 3, width // 2 + 3))
        )
        return exact[None], [Image.fromarray(wide), Image.fromarray(narrow)]


def as_pictures(images: np.ndarray | Sequence[Image.Image]) -> list[Image.Image]:
    """Return RGB pictures for a uint8 array [B, H, W, 3] or a sequence of PIL images; UwmError for anything else."""
    if isinstance(images, np.ndarray):
        check_array(images)
        images = [Image.fromarray(image) for image in images]
    check_pictures(images)
    return [image.convert("RGB") for image in images]


def image_digest(images: Any) -> bytes:
    """Return a SHA-256 over the contents of images: an array, or files and shards, which have one of their own."""
    if isinstance(images, np.ndarray):
        return hashlib.sha256(f"{images.shape}".encode() + np.ascontiguousarray(images).tobytes()).digest()
    return images.digest()


def check_array(images: np.ndarray) -> None:
    """Raise UwmError unless `images` is a uint8 array [B, H, W, 3] with B >= 1."""
    if images.dtype != np.uint8 or images.ndim != 4 or images.shape[-1] != 3 or not len(images):
        raise UwmError(
            f"Images must be a non-empty uint8 array [B, H, W, 3], not {images.dtype} {list(images.shape)}."
        )


def check_pictures(images: Sequence[Image.Image]) -> None:
    """Raise UwmError unless `images` is a non-empty sequence of PIL images."""
    if isinstance(images, Image.Image) or not isinstance(images, Sequence) or not len(images):
        raise UwmError(
            f"Images must be a non-empty list of PIL images or a uint8 array, not {type(images).__name__}."
        )
    for position, image in enumerate(images):
        if not isinstance(image, Image.Image):
            raise UwmError(f"Image {position} must be a PIL image, not {type(image).__name__}.")
        if image.mode in ("I", "F") or image.mode.startswith("I;"):  # convert would cut them off at 255
            raise UwmError(
                f"Image {position} has more than 8 bits a channel (mode {image.mode}): open it with ImageFiles."
            )
