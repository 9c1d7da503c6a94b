"""What a model retrieves first, as pictures and captions (Figures 4 and 7 to 9), and how often it is safe."""

from __future__ import annotations

import textwrap
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from matplotlib import pyplot as plt
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from uwmlib.errors import UwmError
from uwmlib.reporting import plots

OTHER = {"text": "image", "image": "text"}
CHUNK = 512  # queries at a time: memory grows with CHUNK times the gallery
FRAMES = {True: ("#0072B2", "✓ safe"), False: ("#D55E00", "✗ unsafe")}
HIDDEN = "not shown"


@dataclass(frozen=True)
class Retrieved:
    """The item that each query finds first among all safe and unsafe items of the other modality.

    Attributes
    ----------
    index : int array [N]
        Which tuple it belongs to.
    safe : bool array [N]
        Whether it is the tuple's safe item.
    """

    index: np.ndarray
    safe: np.ndarray


def retrieve(parts: Mapping[str, Any], *, query: str, side: str) -> Retrieved:
    """Return what every query of one kind finds first.

    Parameters
    ----------
    parts : mapping
        `safe_text`, `unsafe_text`, `safe_image`, `unsafe_image`: unit-norm tensors [N, D] (`embed_tuples`).
    query : "text" or "image"
        The gallery holds all 2N items of the other modality.
    side : "safe" or "unsafe"

    Returns
    -------
    Retrieved
        Of equal similarities the unsafe item comes first, as everywhere here; among these the lower index.

    Raises
    ------
    UwmError
        For another query or side.
    """
    if query not in OTHER or side not in ("safe", "unsafe"):
        raise UwmError(
            f"Queries are safe or unsafe texts or images, not {side!r} {query!r}: name one of each."
        )
    queries = np.asarray(parts[f"{side}_{query}"])
    items = [np.asarray(parts[f"{kind}_{OTHER[query]}"]) for kind in ("unsafe", "safe")]
    gallery = np.concatenate(items)  # [2N, D]; argmax takes the first of equals
    first = [(queries[i : i + CHUNK] @ gallery.T).argmax(axis=1) for i in range(0, len(queries), CHUNK)]
    found = np.concatenate(first)
    return Retrieved(found % len(items[0]), found >= len(items[0]))


def choose(matching: np.ndarray, n: int, *, seed: int) -> list[int]:
    """Draw up to `n` of the rows that match, at random and in ascending order: nobody picks by eye.

    Parameters
    ----------
    matching : bool array [N]
    n, seed : int
    """
    rows = np.flatnonzero(matching)
    drawn = np.random.default_rng(seed).choice(rows, size=min(n, len(rows)), replace=False)
    return sorted(drawn.tolist())


def show_retrieved(
    tuples: Any,
    rows: Sequence[int],
    found: Mapping[str, Retrieved],
    *,
    query: str,
    side: str,
    show_unsafe: bool | None = None,
) -> Figure:
    """Draw queries at the left and what each model finds first beside them, marked as safe or unsafe.

    Parameters
    ----------
    tuples : Tuples
    rows : sequence of int
        Which queries, one line each.
    found : mapping of str to Retrieved
        Model -> what it retrieves.
    query, side : str
        As for `retrieve`.
    show_unsafe : bool, optional
        Whether unsafe pictures and captions are shown. By default only those of the mini world; others are
        grey fields with the number of their tuple.

    Raises
    ------
    UwmError
        If there is no row to show.
    """
    if not len(rows):
        raise UwmError("No query matches, so there is nothing to show: ask for another combination.")
    shown = tuples.name.startswith("mini-") if show_unsafe is None else show_unsafe
    size = (plots.WIDTH, 1.55 * len(rows) + 0.3)
    with plots.style():
        figure, axes = plt.subplots(
            len(rows), 1 + len(found), figsize=size, squeeze=False, layout="constrained"
        )
        for line, row in zip(axes, rows, strict=True):
            _draw(line[0], tuples, row, modality=query, safe=side == "safe", shown=shown)
            for ax, retrieved in zip(line[1:], found.values(), strict=True):
                index, safe = int(retrieved.index[row]), bool(retrieved.safe[row])
                _draw(ax, tuples, index, modality=OTHER[query], safe=safe, shown=shown)
                _frame(ax, safe=safe, partner=index == row)
        for ax, title in zip(axes[0], (f"{side} query", *found), strict=True):
            ax.set_title(title, fontsize=9, fontweight="bold")
    return figure


def _draw(ax: Axes, tuples: Any, index: int, *, modality: str, safe: bool, shown: bool) -> None:
    """Draw one item, a picture or a caption, or a grey field in its place."""
    ax.set(xticks=[], yticks=[], xlim=(0, 1), ylim=(0, 1))
    ax.grid(visible=False)
    side = "safe" if safe else "unsafe"
    if not safe and not shown:
        ax.set_facecolor("#d9d9d9")
        _write(ax, f"unsafe {modality} of tuple {index}, {HIDDEN}")
    elif modality == "text":
        _write(ax, getattr(tuples, f"{side}_texts")[index])
    else:
        picture = np.asarray(getattr(tuples, f"{side}_images")[index])
        ax.imshow(picture, interpolation="nearest", extent=(0, 1, 0, 1), aspect="equal")


def _write(ax: Axes, text: str) -> None:
    ax.text(0.5, 0.5, textwrap.fill(text, 21), ha="center", va="center", fontsize=7.5, linespacing=1.15)


def _frame(ax: Axes, *, safe: bool, partner: bool) -> None:
    """Frame and name an item: colour and words say the same."""
    colour, mark = FRAMES[safe]
    for spine in ax.spines.values():
        spine.set(visible=True, color=colour, linewidth=2.5)
    ax.set_xlabel(f"{mark}{', own pair' if partner else ''}", fontsize=8, color=colour)
