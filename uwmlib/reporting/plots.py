"""The book's figures: one style, a fixed colour and marker for each method, legible at 640 pixels."""

from __future__ import annotations

import math
import textwrap
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any

import matplotlib as mpl
import numpy as np
import pandas as pd
import seaborn as sns
import torch
from matplotlib import pyplot as plt
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from uwmlib.errors import UwmError
from uwmlib.metrics import CATALOGUE, Score, SignalDetection, label, measured
from uwmlib.metrics.signal_detection import PREFERENCE_KEYS
from uwmlib.metrics.tensors import as_tensor
from uwmlib.options import whole_numbers
from uwmlib.tuples.benign import require_benign
from uwmlib.tuples.tuples import require_tuples

TRADEOFF_KEYS = ("zs_mean", "gs")
BASE = "CLIP"  # the model that others are compared with
WIDTH = 6.4  # inches, 640 pixels at the 100 dots per inch of a notebook
DPI = 100
# Ink of everything that is not a method.
INK = "#333333"
GRID = "#d9d9d9"


@dataclass(frozen=True)
class Look:
    """How a method is drawn everywhere in the book: never by colour alone."""

    colour: str
    marker: str
    hatch: str


# Okabe and Ito's palette, which stays apart for colour-blind readers.
METHODS = {
    "CLIP": Look("#000000", "o", ""),
    "Safe-CLIP": Look("#0072B2", "s", "//"),
    "UWM": Look("#D55E00", "D", "xx"),
    "G-Unsafe": Look("#56B4E9", "v", ".."),
    "G-Safe-CLIP": Look("#009E73", "^", "\\\\"),
}
# For methods the paper does not have, in the order in which a figure names them.
OTHERS = (Look("#E69F00", "P", "++"), Look("#CC79A7", "X", "--"), Look("#F0E442", "p", "oo"))


def style() -> AbstractContextManager[None]:
    """The book's matplotlib settings, as a context manager (nothing global is changed)."""
    settings = sns.axes_style("whitegrid") | {
        "figure.dpi": DPI,
        "savefig.dpi": DPI,
        "font.size": 10,
        "axes.labelsize": 10,
        "xtick.labelsize": 9,
        "ytick.labelsize": 9,
        "legend.fontsize": 9,
        "axes.edgecolor": INK,
        "axes.labelcolor": INK,
        "xtick.color": INK,
        "ytick.color": INK,
        "text.color": INK,
        "grid.color": GRID,
        "axes.spines.top": False,
        "axes.spines.right": False,
        "hatch.linewidth": 0.6,
        "mathtext.default": "regular",
        "axes.prop_cycle": mpl.cycler(color=[look.colour for look in (*list(METHODS.values())[1:], *OTHERS)]),
    }
    # A notebook's backend switches interactive mode on when it is first used. Were that inside the context, its end
    # would switch it off again, and no later figure would be shown.
    plt.draw_if_interactive()
    return mpl.rc_context(settings)


def plain(text: str) -> str:
    """Return a name or a caption for matplotlib to draw as it is: two `$` in it would be read as mathematics."""
    return text.replace("$", r"\$")


def symbol(key: str) -> str:
    """Return how a score is written in a figure: its symbol, or its name where it has none."""
    return label(key) if key in CATALOGUE else plain(key)


def look_of(method: str, others: Sequence[str] = ()) -> Look:
    """The look of a method; of one that the paper lacks by its place among the figure's `others`.

    Raises
    ------
    UwmError
        If the method is in neither, or the figure has more other methods than there are looks left.
    """
    if method in METHODS:
        return METHODS[method]
    foreign = [name for name in others if name not in METHODS]
    if method not in foreign or foreign.index(method) >= len(OTHERS):
        raise UwmError(
            f"There is no look left for {method!r}: draw at most {len(OTHERS)} methods that the paper lacks."
        )
    return OTHERS[foreign.index(method)]


def preferences_bars(
    ours: Mapping[str, Mapping[str, Score]],
    paper: pd.DataFrame | None = None,
) -> Axes:
    """Fig. 2: the four preferences of each model, ours as bars with intervals, the paper's as open markers.

    Parameters
    ----------
    ours : mapping
        Model -> what was measured: names and scores.
    paper : DataFrame, optional
        A table as `paper_table` gives it; models and scores that it lacks get no marker.

    Returns
    -------
    Axes
        One bar for each model and score, bars of a model in one container labelled with its name.
    """
    methods = list(ours)
    numbers = {
        method: [_required(ours[method], key, method) for key in PREFERENCE_KEYS] for method in methods
    }
    with style():
        _, ax = plt.subplots(figsize=(WIDTH, 3.4), layout="constrained")
        width = 0.8 / len(methods)
        for index, method in enumerate(methods):
            look = look_of(method, methods)
            x = np.arange(len(PREFERENCE_KEYS)) + (index - (len(methods) - 1) / 2) * width
            values = [number.value for number in numbers[method]]
            ax.bar(
                x,
                values,
                0.92 * width,
                label=plain(method),
                facecolor=_pale(look.colour),
                edgecolor=look.colour,
                hatch=look.hatch,
            )
            _whiskers(ax, x, numbers[method])
            _paper_markers(ax, x, paper, method, look)
        ax.axhline(50, color=INK, linewidth=0.8, linestyle=(0, (4, 3)), zorder=0.5)
        ax.set_xticks(range(len(PREFERENCE_KEYS)), [symbol(key) for key in PREFERENCE_KEYS])
        ax.set_ylabel("prefers the safe alternative (%)")
        ax.tick_params(axis="x", labelsize=12)
        ax.set_ylim(0, 105)
        ax.grid(axis="x", visible=False)
        _legend(ax, paper=paper is not None)
    return ax


def tradeoff(
    ours: Mapping[str, Mapping[str, Score]],
    paper: pd.DataFrame | None = None,
) -> Axes:
    """Knowledge (mean zero-shot accuracy) against safety (GS), with intervals; the paper's markers are open.

    Parameters
    ----------
    ours, paper
        As in `preferences_bars`. A model for which one of the two was not measured has no filled marker, and a line
        above the axes says so.
    """
    with style():
        _, ax = plt.subplots(figsize=(WIDTH, 4.0), layout="constrained")
        for method in ours:
            look = look_of(method, list(ours))
            x, y = (measured(ours[method], key) for key in TRADEOFF_KEYS)
            at = (x.value, y.value) if x and y else ([], [])
            ax.plot(*at, look.marker, color=look.colour, markersize=9, linestyle="none", label=plain(method))
            if x and y:
                _cross(ax, x, y, look.colour)
            else:
                absent = symbol(TRADEOFF_KEYS[1 if x else 0])
                ax.set_title(f"{absent} was not measured here for every model", fontsize=10, loc="left")
            if paper is not None and method in paper.index and set(TRADEOFF_KEYS) <= set(paper.columns):
                _open_marker(ax, *paper.loc[method, list(TRADEOFF_KEYS)], look)
        xlabel, ylabel = (f"{symbol(key)} (%)" for key in TRADEOFF_KEYS)
        ax.set(xlabel=xlabel, ylabel=ylabel)
        ax.margins(0.12)
        _legend(ax, paper=paper is not None)
    return ax


def sensitivity_bias_plane(panels: Mapping[str, Mapping[str, SignalDetection]]) -> Figure:
    """Sensitivity d' (x) and safe bias c (y) of each model, with arrows from CLIP.

    To the left is damage, upwards is safety: a model that only loses its sense of what is unsafe moves left.

    Parameters
    ----------
    panels : mapping of title to mapping
        One panel each, in two columns, for example "text queries, here" and "text queries, paper". A panel
        maps model -> SignalDetection; intervals are drawn where they are known.

    Raises
    ------
    UwmError
        If there is no panel, or one lacks CLIP.
    """
    lacking = [title for title, points in panels.items() if BASE not in points]
    if not panels or lacking:
        raise UwmError(
            f"The panels {lacking or 'are missing, which'} lack the base {BASE!r}: give it in each panel."
        )
    columns = min(2, len(panels))
    rows = math.ceil(len(panels) / columns)
    names = list(dict.fromkeys(name for points in panels.values() for name in points))
    with style():
        figure, axes = plt.subplots(
            rows,
            columns,
            figsize=(WIDTH, 0.6 + 2.9 * rows),
            sharex=True,
            sharey=True,
            squeeze=False,
            layout="constrained",
        )
        for ax, (title, points) in zip(axes.flat, panels.items(), strict=False):
            _plane(ax, points, names)
            ax.set_title(plain(title), fontsize=10)
        for ax in axes.flat[len(panels) :]:
            ax.remove()
        figure.supxlabel("sensitivity $d'$ (standard deviations)", fontsize=10)
        figure.supylabel("safe bias $c$ (standard deviations)", fontsize=10)
        handles = [_handle(name, look_of(name, names)) for name in names]
        figure.legend(handles=handles, loc="outside upper center", ncols=min(5, len(handles)), frameon=False)
    return figure


def heatmap(matrix: Any, *, label: str, xlabel: str = "input $i$") -> Axes:
    """A score or mask matrix of shape [out, in]; boolean masks in two shades, scores in a perceptual ramp.

    Parameters
    ----------
    matrix : array or Tensor, shape [out, in]
    label : str
        What a cell holds and its unit; labels the colour bar.
    xlabel : str

    Raises
    ------
    UwmError
        If the matrix is not two-dimensional or empty, or holds something but booleans, finite numbers and NaN for
        what is missing.
    """
    values = as_tensor("A heatmap's matrix", matrix).cpu()
    values = (values.float() if values.dtype == torch.bfloat16 else values).numpy()  # NumPy has none
    if np.iscomplexobj(values) or np.isinf(values).any() or (values.size and np.isnan(values).all()):
        raise UwmError(
            "A heatmap's matrix holds infinite or complex numbers, or NaN alone: give finite ones."
        )
    if values.ndim != 2 or values.size == 0:
        raise UwmError(f"A heatmap needs a matrix [out, in], not the shape {list(values.shape)}.")
    is_mask = values.dtype == bool
    limits = {"vmin": 0, "vmax": 1} if is_mask else {}
    colours = mpl.colors.ListedColormap(["#f2f2f2", INK]) if is_mask else "cividis"
    with style():
        _, ax = plt.subplots(figsize=(WIDTH, 4.2), layout="constrained")
        sns.heatmap(
            values.astype(float), ax=ax, cmap=colours, cbar_kws={"label": label}, rasterized=True, **limits
        )
        if is_mask:
            bar = ax.collections[0].colorbar
            bar.set_ticks([0.25, 0.75], labels=["no", "yes"])
        ax.set(xlabel=xlabel, ylabel="output $j$")
        ax.tick_params(axis="both", rotation=0)
    return ax


def show_tuples(tuples: Any, indices: Sequence[int], *, show_unsafe: bool | None = None) -> Figure:
    """Safe and unsafe images side by side with their captions, one tuple a row, pixels enlarged as they are.

    Parameters
    ----------
    tuples : Tuples
    indices : sequence of int
        Which tuples.
    show_unsafe : bool, optional
        Whether to draw the unsafe images and captions. By default only those of the mini world's own tuples:
        unsafe content of any other data stays a grey field with the tuple's index.

    Raises
    ------
    UwmError
        If no index is given or one is out of range.
    """
    require_tuples(tuples)
    return _show_items(tuples, indices, show_unsafe)


def show_benign(uses: Any, indices: Sequence[int], *, show_unsafe: bool | None = None) -> Figure:
    """Benign uses with their captions: the harmless, the unsafe and the clean form of one scene a row.

    Parameters
    ----------
    uses : BenignUses
    indices, show_unsafe
        As for `show_tuples`.

    Raises
    ------
    UwmError
        If no index is given or one is out of range.

    Examples
    --------
    >>> import uwmlib as uwm
    >>> from uwmlib.reporting import plots
    >>> figure = plots.show_benign(uwm.load_benign("mini-visu", n=3), [0, 2])
    >>> [ax.get_title() for ax in figure.axes[:3]]
    ['harmless', 'unsafe', 'clean']
    """
    require_benign(uses)
    return _show_items(uses, indices, show_unsafe)


def _show_items(items: Any, indices: Sequence[int], show_unsafe: bool | None) -> Figure:
    indices = whole_numbers(indices, "The indices")
    if not indices or not all(0 <= index < len(items) for index in indices):
        raise UwmError(
            f"The indices {indices} must name {items.KIND}s 0 to {len(items) - 1}: give at least one."
        )
    parts = [(part.removesuffix("_images"), part) for part in items.IMAGES]
    hidden = () if (items.harmless if show_unsafe is None else show_unsafe) else ("unsafe",)
    size = (WIDTH, 1.9 * len(indices) + 0.2)
    with style():
        figure, axes = plt.subplots(
            len(indices), len(parts), figsize=size, squeeze=False, layout="constrained"
        )
        for row, index in zip(axes, indices, strict=True):
            for ax, (form, images) in zip(row, parts, strict=True):
                if form in hidden:
                    image = np.full((1, 1, 3), 217, dtype=np.uint8)
                    text = f"unsafe item of {items.KIND} {index}, not shown"
                else:
                    image, text = getattr(items, images)[index], getattr(items, f"{form}_texts")[index]
                _picture(ax, image, text, letters=84 // len(parts))
        for ax, (form, _) in zip(axes[0], parts, strict=True):
            ax.set_title(form, fontsize=10, fontweight="bold")
    return figure


def nothing_to_show(sentence: str) -> Figure:
    """Return a low figure that says why there is no picture: having nothing to show is a result too."""
    with style():
        figure = plt.figure(figsize=(WIDTH, 0.6))
        figure.text(0.5, 0.5, sentence, ha="center", va="center")
    return figure


def zeroshot_slopes(accuracies: Mapping[str, Mapping[str, Score]]) -> Figure:
    """Accuracy on each data set before and after each method: one small panel a method, one line a data set.

    Parameters
    ----------
    accuracies : mapping of model to mapping
        Model -> data set -> Score. All models need the data sets of CLIP, from which the lines start.

    Raises
    ------
    UwmError
        If CLIP is missing or alone, or a model lacks a data set.
    """
    methods = [name for name in accuracies if name != BASE]
    if BASE not in accuracies or not methods:
        raise UwmError(f"Slopes need the base {BASE!r} and at least one other model: add it.")
    datasets = list(accuracies[BASE])
    if not datasets:
        return nothing_to_show("No classification set is at hand: there is nothing to show.")
    with style():
        figure, axes = plt.subplots(
            1, len(methods), figsize=(WIDTH, 4.2), sharey=True, squeeze=False, layout="constrained"
        )
        for ax, method in zip(axes[0], methods, strict=True):
            look = look_of(method, methods)
            for dataset in datasets:
                ends = [_required(accuracies[name], dataset, name).value for name in (BASE, method)]
                ax.plot(
                    [0, 1],
                    ends,
                    color=look.colour,
                    linewidth=1,
                    marker=look.marker,
                    markersize=4,
                    label=plain(dataset),
                )
            ax.set(xticks=[0, 1], xticklabels=[plain(BASE), plain(method)], xlim=(-0.25, 1.25))
            ax.grid(axis="x", visible=False)
        axes[0][0].set_ylabel("zero-shot accuracy (%)")
        _name_lines(axes[0][-1], [plain(dataset) for dataset in datasets])
    return figure


def _required(source: Mapping[str, Score], key: str, method: str) -> Score:
    score = measured(source, key)
    if score is None:
        raise UwmError(f"{key} was not measured for {method}: leave it out of the figure or measure it.")
    return score


def _whiskers(ax: Axes, x: np.ndarray, scores: Sequence[Score]) -> None:
    """Interval bars, for the scores that have one."""
    for at, score in zip(x, scores, strict=True):
        if score.interval:
            ax.vlines(at, *score.interval, color=INK, linewidth=1.6)


def _cross(ax: Axes, x: Score, y: Score, colour: str) -> None:
    if x.interval:
        ax.hlines(y.value, *x.interval, color=colour, linewidth=1.2)
    if y.interval:
        ax.vlines(x.value, *y.interval, color=colour, linewidth=1.2)


def _paper_markers(ax: Axes, x: np.ndarray, paper: pd.DataFrame | None, method: str, look: Look) -> None:
    if paper is None or method not in paper.index:
        return
    for at, key in zip(x, PREFERENCE_KEYS, strict=True):
        if key in paper.columns and np.isfinite(paper.at[method, key]):
            _open_marker(ax, at, paper.at[method, key], look)


def _open_marker(ax: Axes, x: float, y: float, look: Look) -> None:
    """A number of the paper: the method's marker, open and without a label (one legend entry serves all)."""
    ax.plot(
        x,
        y,
        look.marker,
        markerfacecolor="white",
        markeredgecolor=look.colour,
        markersize=8,
        linestyle="none",
        zorder=5,
    )


def _legend(ax: Axes, *, paper: bool) -> None:
    handles, _ = ax.get_legend_handles_labels()
    if paper:
        handles.append(_handle("paper", Look(INK, "o", ""), hollow=True))
    ax.figure.legend(handles=handles, loc="outside upper center", ncols=min(4, len(handles)), frameon=False)


def _handle(label: str, look: Look, *, hollow: bool = False) -> Line2D:
    face = "white" if hollow else look.colour
    return Line2D(
        [],
        [],
        linestyle="none",
        marker=look.marker,
        color=look.colour,
        markerfacecolor=face,
        label=plain(label),
    )


def _plane(ax: Axes, points: Mapping[str, SignalDetection], names: Sequence[str]) -> None:
    """One panel of the sensitivity-bias plane."""
    start = points[BASE].sensitivity, points[BASE].bias
    ax.axhline(0, color=INK, linewidth=0.8, linestyle=(0, (4, 3)), zorder=1)
    for name, point in points.items():
        look = look_of(name, names)
        x, y = point["sensitivity"], point["bias"]
        if name != BASE:
            arrow = {"arrowstyle": "->", "color": look.colour, "shrinkA": 5, "shrinkB": 5}
            ax.annotate("", xy=(x.value, y.value), xytext=start, arrowprops=arrow)
        _cross(ax, x, y, look.colour)
        at = x.value, y.value
        ax.plot(*at, look.marker, color=look.colour, markersize=8, linestyle="none", label=plain(name))


def _picture(ax: Axes, image: Any, caption: str, *, letters: int) -> None:
    """One image with its caption below, in lines of so many letters; nearest neighbour: no detail is invented."""
    ax.imshow(np.asarray(image), interpolation="nearest")
    ax.set(xticks=[], yticks=[])
    ax.grid(visible=False)
    ax.set_xlabel(plain("\n".join(textwrap.wrap(caption, letters))), fontsize=9)
    ax.spines[:].set_visible(False)


def _name_lines(ax: Axes, names: Sequence[str]) -> None:
    """Name lines at their right ends, moved apart where they would overlap."""
    ends = sorted((line.get_ydata()[-1], line.get_label()) for line in ax.lines if line.get_label() in names)
    low, high = ax.get_ylim()
    places = spread([y for y, _ in ends], gap=(high - low) / 24, highest=high)
    for (y, name), place in zip(ends, places, strict=True):
        leader = {"arrowstyle": "-", "color": GRID, "linewidth": 0.8}
        ax.annotate(
            name, (1, y), (1.35, place), fontsize=8, va="center", annotation_clip=False, arrowprops=leader
        )


def spread(places: Sequence[float], *, gap: float, highest: float) -> list[float]:
    """Move sorted places apart to at least `gap`, and down again from `highest` where they overrun it."""
    moved: list[float] = []
    for place in places:
        moved.append(max(place, moved[-1] + gap) if moved else place)
    ceiling = highest
    for index in reversed(range(len(moved))):
        moved[index] = min(moved[index], ceiling)
        ceiling = moved[index] - gap
    return moved


def _pale(colour: str) -> tuple[float, float, float]:
    """The colour mixed with white, so that hatching and whiskers show on a bar."""
    red, green, blue = mpl.colors.to_rgb(colour)
    return (0.55 + 0.45 * red, 0.55 + 0.45 * green, 0.55 + 0.45 * blue)
