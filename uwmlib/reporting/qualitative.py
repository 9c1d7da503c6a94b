"""What a model retrieves first, as pictures and captions (Figures 4 and 7 to 9)."""

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
from uwmlib.metrics import Retrieved, share_of
from uwmlib.metrics.retrieved import OTHER
from uwmlib.metrics.tensors import as_successes
from uwmlib.options import whole_number, whole_numbers
from uwmlib.reporting import plots
from uwmlib.reporting.tables import with_interval
from uwmlib.tuples.tuples import require_tuples

# Okabe and Ito's, but not the colours of Safe-CLIP and UWM; the line and the words say the same without colour.
FRAMES = {True: ("#009E73", "-", "✓ safe"), False: ("#E69F00", (0, (2, 1.2)), "✗ unsafe")}
BLUR = ("auto", "yes", "no")
BLOCKS = 5  # a blurred picture keeps this many patches a side


@dataclass(frozen=True)
class Examples:
    """Rows drawn from those that match, beside how many match: `matching` of `n`."""

    rows: tuple[int, ...]
    matching: int
    n: int

    def __str__(self) -> str:
        share = with_interval(share_of(np.arange(self.n) < self.matching))
        return f"{self.matching} of {self.n} queries match, {share}%; shown: {', '.join(map(str, self.rows))}"


def choose_examples(matching: np.ndarray, n: int, *, seed: int) -> Examples:
    """Draw up to `n` of the rows that match at random, so that nobody picks by eye, and count those that match.

    Parameters
    ----------
    matching : bool array [N]
        The rule, such as `~clip.safe & uwm.safe`.
    n, seed : int

    Returns
    -------
    Examples
        Rows in ascending order.

    Raises
    ------
    UwmError
        If `matching` is no boolean [N], or `n` or `seed` no whole number from 0 on.
    """
    matching = as_successes("matching", matching).numpy()
    n, seed = whole_number(n, "n", least=0), whole_number(seed, "seed", least=0)
    rows = np.flatnonzero(matching)
    drawn = np.random.default_rng(seed).choice(rows, size=min(n, len(rows)), replace=False)
    return Examples(tuple(sorted(drawn.tolist())), len(rows), len(matching))


def show_retrieved(
    tuples: Any,
    rows: Sequence[int],
    found: Mapping[str, Retrieved],
    *,
    query: str,
    side: str,
    blur_unsafe: str = "auto",
) -> Figure:
    """Draw queries at the left and what each model finds first beside them, marked as safe or unsafe.

    Parameters
    ----------
    tuples : Tuples
    rows : sequence of int
        Which queries, one line each.
    found : mapping of str to Retrieved
        Model -> what it retrieves for queries of this kind.
    query, side : str
        As for `retrieve`.
    blur_unsafe : "auto", "yes" or "no"
        Whether unsafe pictures are drawn as a few patches and unsafe captions withheld. "auto" shows only the
        unsafe items of the mini world that ships, which are harmless.

    Returns
    -------
    Figure
        Without rows one that says that there is nothing to show: a rule that no query matches is a result.

    Raises
    ------
    UwmError
        For another `blur_unsafe`.
    """
    require_tuples(tuples)
    blur = _blurs(tuples, blur_unsafe)
    rows = whole_numbers(rows, "The rows")
    if not rows:
        return plots.nothing_to_show("No query matches this rule: there is nothing to show.")
    size = (plots.WIDTH, 1.72 * len(rows) + 0.3)
    with plots.style():
        figure, axes = plt.subplots(
            len(rows), 1 + len(found), figsize=size, squeeze=False, layout="constrained"
        )
        for line, row in zip(axes, rows, strict=True):
            _draw(line[0], tuples, row, modality=query, safe=side == "safe", blur=blur)
            _plain_frame(line[0])
            for ax, hits in zip(line[1:], found.values(), strict=True):
                index, safe = int(hits.index[row]), bool(hits.safe[row])
                _draw(ax, tuples, index, modality=OTHER[query], safe=safe, blur=blur)
                _frame(ax, safe=safe, partner=bool(hits.partner[row]))
        for ax, title in zip(axes[0], (f"{side} query", *found), strict=True):
            ax.set_title(plots.plain(title), fontsize=11, fontweight="bold")
    return figure


def _blurs(tuples: Any, blur_unsafe: str) -> bool:
    if blur_unsafe not in BLUR:
        raise UwmError(f"blur_unsafe is {blur_unsafe!r}: write one of {', '.join(BLUR)}.")
    return blur_unsafe == "yes" or (blur_unsafe == "auto" and not tuples.harmless)


def _draw(ax: Axes, tuples: Any, index: int, *, modality: str, safe: bool, blur: bool) -> None:
    """Draw one item, a picture or a caption; an unsafe one blurred or withheld where asked."""
    ax.set(xticks=[], yticks=[], xlim=(0, 1), ylim=(0, 1), aspect="equal")
    ax.grid(visible=False)
    side = "safe" if safe else "unsafe"
    hide = blur and not safe
    if modality == "text":
        _write(ax, f"unsafe caption {index}, withheld" if hide else getattr(tuples, f"{side}_texts")[index])
        return
    picture = _square(np.asarray(getattr(tuples, f"{side}_images")[index]))
    ax.imshow(_patches(picture) if hide else picture, interpolation="nearest", extent=(0, 1, 0, 1))
    if hide:
        box = {"facecolor": "white", "edgecolor": "none"}
        ax.text(
            0.5, 0.5, f"unsafe picture\n{index}, blurred", ha="center", va="center", fontsize=8.5, bbox=box
        )


def _square(picture: np.ndarray) -> np.ndarray:
    """The central square of a picture [H, W, 3]."""
    size = min(picture.shape[:2])
    top, left = ((length - size) // 2 for length in picture.shape[:2])
    return picture[top : top + size, left : left + size]


def _patches(picture: np.ndarray) -> np.ndarray:
    """A square picture as the mean colours of BLOCKS x BLOCKS patches."""
    rows = [np.array_split(band, BLOCKS, axis=1) for band in np.array_split(picture, BLOCKS)]
    return np.array([[patch.mean(axis=(0, 1)) for patch in row] for row in rows]).round().astype(np.uint8)


def _write(ax: Axes, text: str) -> None:
    lines = textwrap.wrap(text, 19, max_lines=9, placeholder=" …")
    ax.text(0.5, 0.5, plots.plain("\n".join(lines)), ha="center", va="center", fontsize=9, linespacing=1.15)


def _plain_frame(ax: Axes) -> None:
    """A query is no answer and gets a thin grey frame."""
    for spine in ax.spines.values():
        spine.set(visible=True, color="#8c8c8c", linewidth=0.8)


def _frame(ax: Axes, *, safe: bool, partner: bool) -> None:
    """Frame and name an item: colour, line and words say the same."""
    colour, line, mark = FRAMES[safe]
    for spine in ax.spines.values():
        spine.set(visible=True, color=colour, linewidth=3.2, linestyle=line, capstyle="butt")
    ax.set_xlabel(
        f"{mark}{', own pair' if partner else ''}", fontsize=9.5, fontweight="bold", color=plots.INK
    )
