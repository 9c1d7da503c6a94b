"""Random columns that are the same on every machine and for every length.

numpy guarantees the raw stream of a bit generator for ever, but not what `Generator` makes of it; so the world is
built from raw Philox words only. Row i of a stream does not depend on how many rows are drawn.
"""

from __future__ import annotations

import hashlib

import numpy as np

MAX_COLUMNS = 64


class Columns:
    """Named random columns for `n` rows of one stream.

    Parameters
    ----------
    seed : int
        Seed of the world.
    stream : str
        Name of the stream ("mini-visu/train", ...): other names give independent numbers.
    n, start : int
        Rows `start` to `start + n` of the stream.
    """

    def __init__(self, *, seed: int, stream: str, n: int, start: int = 0) -> None:
        digest = hashlib.sha256(f"{seed}|{stream}".encode()).digest()
        generator = np.random.Philox(key=int.from_bytes(digest[:16], "little"))
        generator.advance(start * MAX_COLUMNS // 4)  # a Philox step yields four words
        self._raw = generator.random_raw(n * MAX_COLUMNS).reshape(n, MAX_COLUMNS)
        self._used = 0
        self.n = n

    def _next(self) -> np.ndarray:
        column = self._raw[:, self._used]
        self._used += 1
        return column

    def choice(self, k: int) -> np.ndarray:
        """Return int64 [n], uniform over 0..k-1."""
        return ((self._next() >> np.uint64(11)) % np.uint64(k)).astype(np.int64)

    def chance(self, probability: float) -> np.ndarray:
        """Return bool [n], True with the given probability."""
        return (self._next() >> np.uint64(11)).astype(np.float64) * 2.0**-53 < probability

    def integers(self, low: int, high: int) -> np.ndarray:
        """Return int64 [n], uniform over low..high inclusive."""
        return low + self.choice(high - low + 1)
