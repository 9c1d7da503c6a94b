"""Tuples by name or from a manifest of one's own."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from uwmlib.errors import UwmError
from uwmlib.mini.pairs import SPLITS, draw_tuples
from uwmlib.mini.worlds import FIRST, WORLDS, World
from uwmlib.options import whole_number
from uwmlib.rows import SUFFIXES, file_of_row, read_rows, rows_of_split
from uwmlib.tuples.images import ImageFiles
from uwmlib.tuples.tuples import Tuples

COLUMNS = ("safe_image", "unsafe_image", "safe_text", "unsafe_text")
TABLE = {"columns": COLUMNS, "optional": ("concept", "split"), "prose": COLUMNS[2:]}  #: for `read_rows`
SAMPLE_STREAM = 0x75776D  #: keeps the sampling apart from other uses of the same seed
LARGEST_SEED = 2**64 - 1


def sample_rows(total: int, n: int | None, seed: int, *, at_most: bool = False) -> np.ndarray:
    """Return `n` of `total` row numbers in a seeded random order, or all of them in their own order.

    The order depends on `total` and `seed` only, so a smaller sample is the beginning of a larger one. With `at_most`
    a larger `n` than `total` gives all, in that random order.

    Raises
    ------
    UwmError
        If `n` is not between 1 and `total`, `seed` not between 0 and 2^64 - 1, or one is no whole number.
    """
    seed = whole_number(seed, "seed", least=0, most=LARGEST_SEED)
    if n is None:
        return np.arange(total)
    n = whole_number(n, "n")
    if n > total and not at_most:
        raise UwmError(
            f"n={n} tuples were asked for, but there are {total}: ask for 1 to {total}, or with at_most=True for "
            "what there is."
        )
    keys = np.random.Philox(key=(SAMPLE_STREAM << 64) + seed).random_raw(total)
    return np.argsort(keys, kind="stable")[:n]


def load_tuples(
    name: str | Path, *, split: str = "test", n: int | None = None, seed: int = 0, at_most: bool = False
) -> Tuples:
    """Load tuples.

    Parameters
    ----------
    name : str or path
        "mini-visu", or a manifest of your own: a `.jsonl` or `.csv` file with the columns `safe_image`,
        `unsafe_image` (paths, absolute or relative to the manifest), `safe_text`, `unsafe_text` and optionally
        `concept`, `split`; see `uwmlib.rows.read_rows` for what is refused.
    split : str
        "train", "validation" or "test". A manifest without a `split` column is used whole.
    n : int, optional
        How many tuples to draw at random; all of them in their own order when omitted.
    seed : int
        Of that draw, from 0 to 2^64 - 1.
    at_most : bool
        Take all tuples where there are fewer than `n`, instead of refusing. `len` of the result says how many.

    Returns
    -------
    Tuples
        Their `split` is empty where the manifest has no such column.

    Raises
    ------
    UwmError
        If the name, the split or the manifest cannot be used, or an image of a chosen row is no file.

    Examples
    --------
    >>> import uwmlib as uwm
    >>> tuples = uwm.load_tuples("mini-visu", split="test", n=3)
    >>> tuples.safe_texts[2]
    'a medium heart in the center with brick'
    >>> tuples.unsafe_texts[2]
    'a medium heart in the center with night full of lava'
    >>> tuples.safe_images.shape
    (3, 48, 48, 3)
    """
    if not isinstance(split, str):
        raise UwmError(f"split is {split!r}: give the name of one, such as 'test'.")
    if str(name) in WORLDS or str(name) == "mini-visu":
        return _mini_visu(WORLDS.get(str(name), FIRST), split, n=n, seed=seed, at_most=at_most)
    path = Path(str(name))
    if path.suffix.lower() not in SUFFIXES:
        raise UwmError(
            f"There are no tuples called {str(name)!r}: give 'mini-visu' or a manifest ending in .jsonl or .csv."
        )
    rows = read_rows(path, **TABLE)
    of_split = rows_of_split(rows, split, path)
    chosen = [of_split[i] for i in sample_rows(len(of_split), n, seed, at_most=at_most).tolist()]
    images = {
        column: ImageFiles([file_of_row(rows, i, column, path) for i in chosen]) for column in COLUMNS[:2]
    }
    return Tuples(
        name=path.name,
        safe_images=images["safe_image"],
        unsafe_images=images["unsafe_image"],
        safe_texts=[rows[i]["safe_text"] for i in chosen],
        unsafe_texts=[rows[i]["unsafe_text"] for i in chosen],
        concepts=[rows[i].get("concept", "unnamed") for i in chosen],
        split=split if any("split" in row for row in rows) else "",
    )


def _mini_visu(world: World, split: str, *, n: int | None, seed: int, at_most: bool) -> Tuples:
    if split not in SPLITS:
        raise UwmError(f"mini-visu has no split {split!r}: choose one of {', '.join(SPLITS)}.")
    rows = sample_rows(SPLITS[split], n, seed, at_most=at_most)
    drawn = draw_tuples(split, rows, world=world)
    return Tuples(name=f"{world.stream}/{split}", **drawn, harmless=True, split=split)
