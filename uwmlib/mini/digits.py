"""Real data in the mini world: scikit-learn's bundled handwritten digits, half of them held out."""

from __future__ import annotations

from functools import lru_cache

import numpy as np

#: Pixels on a side of each of a digit's 8 x 8, by the size of the picture.
ENLARGEMENT = {48: 5, 60: 6}


@lru_cache(maxsize=1)
def _digits() -> tuple[np.ndarray, np.ndarray]:
    from sklearn.datasets import load_digits  # scikit-learn is slow to import and only needed here

    bunch = load_digits()
    return bunch.images.astype(np.int64), bunch.target.astype(np.int64)


def digit_pictures(
    *, held_out: bool, index: np.ndarray, shift: np.ndarray, size: int
) -> tuple[np.ndarray, np.ndarray]:
    """Return enlarged handwritten digits.

    Parameters
    ----------
    held_out : bool
        False: the even rows of the data set, which training may see; True: the odd rows, which it never does.
    index : int array, shape (N,)
        Which digits of that half, modulo its size.
    shift : int array, shape (N, 2)
        Pixels to move each digit by, in -4..4.
    size : int
        Pixels on a side of the pictures, 48 or 60.

    Returns
    -------
    pictures : uint8 array, shape (N, size, size, 3)
    labels : int64 array, shape (N,), in 0..9
    """
    images, labels = _digits()
    images, labels = images[int(held_out) :: 2], labels[int(held_out) :: 2]
    index = index % len(images)
    times = ENLARGEMENT[size]
    large = (
        (images[index] * 14 + 20).repeat(times, axis=1).repeat(times, axis=2)
    )  # [N, 40 or 48, ...] in 20..244
    pictures = np.full((len(index), size, size, 3), 20, dtype=np.uint8)
    margin = (size - large.shape[1]) // 2
    for row, (dx, dy) in enumerate(shift.tolist()):
        top, left = margin + dy, margin + dx
        pictures[row, top : top + large.shape[1], left : left + large.shape[2]] = large[row, :, :, None]
    return pictures, labels[index]


def n_held_out() -> int:
    """Return how many digits are held out."""
    return len(_digits()[1]) // 2
