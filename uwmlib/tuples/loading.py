"""Tuples and benign uses by name, or from a manifest of one's own."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from uwmlib.errors import UwmError
from uwmlib.mini.benign import N as N_BENIGN
from uwmlib.mini.benign import draw_benign
from uwmlib.mini.pairs import SPLITS, draw_tuples
from uwmlib.mini.worlds import WORLDS, World
from uwmlib.options import whole_number
from uwmlib.rows import SUFFIXES, file_of_row, gaps, read_rows, rows_of_split
from uwmlib.tuples.benign import BenignUses
from uwmlib.tuples.images import ImageFiles
from uwmlib.tuples.tuples import Tuples


@dataclass(frozen=True)
class Columns:
    """The columns of a manifest, for `read_rows` and in messages."""

    what: str  #: of its rows
    images: tuple[str, ...]
    texts: tuple[str, ...]
    label: str  #: a column that may be left out, as `split` may
    forms: str  #: that may not share an image or a text
    flags: tuple[str, ...] = ()

    @property
    def table(self) -> dict[str, tuple[str, ...]]:
        """The options of `read_rows`."""
        columns = (*self.images, *self.texts)
        return {
            "columns": columns,
            "optional": (self.label, "split"),
            "prose": self.texts,
            "flags": self.flags,
        }


TUPLES = Columns(
    "tuples",
    ("safe_image", "unsafe_image"),
    ("safe_text", "unsafe_text"),
    label="concept",
    forms="both sides",
)
BENIGN = Columns(
    "benign uses",
    ("harmless_image", "unsafe_image", "clean_image"),
    ("harmless_text", "unsafe_text", "clean_text"),
    label="marked",
    forms="two forms",
    flags=("marked",),
)
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
            f"n={n} were asked for, but there are {total}: ask for 1 to {total}, or with at_most=True for "
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
        "mini-visu" ("mini-visu-1" for the first mini world), or a manifest of your own: a `.jsonl` or `.csv` file
        with the columns `safe_image`, `unsafe_image` (paths, absolute or relative to the manifest), `safe_text`,
        `unsafe_text` and optionally `concept`, `split`; see `uwmlib.rows.read_rows` for what is refused.
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
    >>> tuples.safe_texts[1]
    'a moon next to a sign showing rust on the left'
    >>> tuples.unsafe_texts[1]
    'a moon surrounded by rust next to a sign on the left'
    >>> tuples.safe_images.shape
    (3, 60, 60, 3)
    """
    sample = {"n": n, "seed": seed, "at_most": at_most}
    _check_split(split)
    world = WORLDS.get(str(name))
    if world:
        return _mini_visu(world, split, **sample)
    path = _manifest(name, TUPLES, "'mini-visu'")
    rows = read_rows(path, **TUPLES.table)
    chosen = _sampled(rows, split, path, **sample)
    concepts = [rows[i].get("concept", "unnamed") for i in chosen]
    of = split if any("split" in row for row in rows) else ""
    return Tuples(name=path.name, **_parts(TUPLES, rows, chosen, path), concepts=concepts, split=of)


def load_benign(
    name: str | Path, *, split: str = "test", n: int | None = None, seed: int = 0, at_most: bool = False
) -> BenignUses:
    """Load benign uses.

    Parameters
    ----------
    name : str or path
        "mini-visu", or a manifest of your own as `load_tuples` takes it, with the columns `harmless_image`,
        `unsafe_image`, `clean_image`, `harmless_text`, `unsafe_text`, `clean_text` and optionally `marked` (true or
        false), `split`.
    split : str
        "train", "validation" or "test"; of those that are drawn there are 2,000 of each. A manifest without a `split`
        column is used whole.
    n, seed, at_most
        As for `load_tuples`.

    Returns
    -------
    BenignUses

    Raises
    ------
    UwmError
        If the name, the split or the manifest cannot be used, or an image of a chosen row is no file.

    Examples
    --------
    >>> import uwmlib as uwm
    >>> uses = uwm.load_benign("mini-visu", n=2)
    >>> uses.harmless_images.shape, uses.marked.dtype
    ((2, 60, 60, 3), dtype('bool'))
    """
    sample = {"n": n, "seed": seed, "at_most": at_most}
    _check_split(split)
    world = WORLDS.get(str(name))
    if world:
        return _mini_benign(world, split, **sample)
    path = _manifest(name, BENIGN, "'mini-visu'")
    rows = read_rows(path, **BENIGN.table)
    for _, problem in gaps(rows, "marked", path):
        raise problem
    chosen = _sampled(rows, split, path, **sample)
    marked = [rows[i]["marked"] == "true" for i in chosen if "marked" in rows[i]]
    return BenignUses(name=path.name, **_parts(BENIGN, rows, chosen, path), marked=marked or None)


def _check_split(split: object) -> None:
    if not isinstance(split, str):
        raise UwmError(f"split is {split!r}: give the name of one, such as 'test'.")


def _check_drawn(world: World, split: str) -> None:
    if split not in SPLITS:
        raise UwmError(f"{world.name} has no split {split!r}: choose one of {', '.join(SPLITS)}.")


def _manifest(name: str | Path, columns: Columns, drawn: str) -> Path:
    path = Path(str(name))
    if path.suffix.lower() not in SUFFIXES:
        raise UwmError(
            f"There are no {columns.what} called {str(name)!r}: give {drawn} or a manifest ending in .jsonl or .csv."
        )
    return path


def _sampled(
    rows: Sequence[dict[str, str]], split: str, path: Path, *, n: int | None, seed: int, at_most: bool
) -> list[int]:
    """Return the positions of some of a split's rows."""
    of_split = rows_of_split(rows, split, path)
    return [of_split[i] for i in sample_rows(len(of_split), n, seed, at_most=at_most).tolist()]


def _parts(columns: Columns, rows: Sequence[dict[str, str]], chosen: list[int], path: Path) -> dict[str, Any]:
    """Return the columns of some rows as parts: files under "safe_image" as "safe_images"."""
    images = {
        f"{name}s": ImageFiles([file_of_row(rows, i, name, path) for i in chosen]) for name in columns.images
    }
    return images | {f"{name}s": [rows[i][name] for i in chosen] for name in columns.texts}


def _mini_benign(world: World, split: str, *, n: int | None, seed: int, at_most: bool) -> BenignUses:
    _check_drawn(world, split)
    rows = sample_rows(N_BENIGN, n, seed, at_most=at_most)
    name = f"{world.name}/benign" + ("" if split == "test" else f"/{split}")
    return BenignUses(name=name, **draw_benign(world=world, split=split, rows=rows), harmless=True)


def _mini_visu(world: World, split: str, *, n: int | None, seed: int, at_most: bool) -> Tuples:
    _check_drawn(world, split)
    rows = sample_rows(SPLITS[split], n, seed, at_most=at_most)
    drawn = draw_tuples(split, rows, world=world)
    return Tuples(name=f"{world.name}/{split}", **drawn, harmless=True, split=split)
