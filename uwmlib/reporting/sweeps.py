"""Curves over one setting (the layout of the paper's Figures 5 and 6), over knowledge, and changes side by side."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import pandas as pd
from matplotlib import pyplot as plt
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from uwmlib.errors import UwmError
from uwmlib.metrics import Difference, Score, measured
from uwmlib.reporting import plots

# Curves and rows take their looks in this order; the first is the method itself.
LOOKS = (plots.METHODS["UWM"], plots.METHODS["Safe-CLIP"], *plots.OTHERS)


def sweep(
    curves: Mapping[str, Mapping[float, Mapping[str, Score]]],
    keys: Sequence[str],
    *,
    base: Mapping[str, Score],
    star: float,
    paper_base: Mapping[str, float],
    paper_star: Mapping[str, float],
    xlabel: str,
    log: bool = False,
) -> Figure:
    """Draw each score over a setting with its 95% band, beside the little that the paper prints of it.

    Parameters
    ----------
    curves : mapping of name to mapping
        Name -> setting -> what was measured there: names and scores.
    keys : sequence of str
        Scores, one panel each, in two columns.
    base : mapping of name to Score
        The unedited model: a dashed line.
    star : float
        The chosen setting: a star on the first curve.
    paper_base, paper_star : mapping of score to float
        The paper's numbers of the unedited model (a dotted line) and at the chosen setting (an open star). Scores
        that the paper does not print are in neither.
    xlabel : str
    log : bool
        A logarithmic axis.

    Raises
    ------
    UwmError
        If the first curve was not measured at the chosen setting, there are more curves than looks, or a score
        is unknown.
    """
    first = next(iter(curves.values()), {})
    if star not in first:
        raise UwmError(f"The first curve has no point at the chosen setting {star:g}: measure it there.")
    if len(curves) > len(LOOKS):
        raise UwmError(f"{len(curves)} curves cannot be told apart: draw at most {len(LOOKS)}.")
    rows = (len(keys) + 1) // 2
    with plots.style():
        figure, axes = plt.subplots(
            rows, 2, figsize=(plots.WIDTH, 0.8 + 2.3 * rows), sharex=True, squeeze=False, layout="constrained"
        )
        for ax, key in zip(axes.flat, keys, strict=False):
            for (name, points), look in zip(curves.items(), LOOKS, strict=False):
                _curve(ax, {x: _measured(points[x], key, interval=True) for x in sorted(points)}, look, name)
            _anchors(ax, star, _measured(base, key).value, _measured(first[star], key).value)
            if key in paper_base:
                _printed(ax, star, paper_base[key], paper_star[key])
            ax.set(ylabel=f"{plots.symbol(key)} (%)", xscale="log" if log else "linear")
        for ax in axes.flat[len(keys) :]:
            ax.remove()
        figure.supxlabel(xlabel, fontsize=10)
        handles, names = axes[0][0].get_legend_handles_labels()
        figure.legend(handles, names, loc="outside upper center", ncols=3, frameon=False)
    return figure


def change_dots(
    panels: Mapping[str, Mapping[str, Mapping[str, Difference | float]]], *, xlabel: str = "change (points)"
) -> Figure:
    """Draw changes of several rows side by side, one line a score: with its interval, or open where none is known.

    Parameters
    ----------
    panels : mapping of title to mapping
        Title -> row -> score -> Difference, or a number alone, as the paper prints it (NaN is
        not drawn). Each panel has its own scale and the rows and scores of the first.
    xlabel : str

    Raises
    ------
    UwmError
        If there is no panel, a panel has other rows or scores, or there are more rows than looks.
    """
    names = {title: [(row, *scores) for row, scores in rows.items()] for title, rows in panels.items()}
    if not panels or any(found != next(iter(names.values())) for found in names.values()):
        raise UwmError(
            f"The panels {list(panels)} need the same rows and scores in the same order: give both."
        )
    rows, keys = (list(next(iter(panels.values()))), list(next(iter(next(iter(panels.values())).values()))))
    if len(rows) > len(LOOKS):
        raise UwmError(f"{len(rows)} rows cannot be told apart: draw at most {len(LOOKS)}.")
    with plots.style():
        figure, axes = plt.subplots(
            1,
            len(panels),
            figsize=(plots.WIDTH, 1.2 + 0.5 * len(keys)),
            sharey=True,
            squeeze=False,
            layout="constrained",
        )
        for ax, (title, held) in zip(axes[0], panels.items(), strict=True):
            for index, (row, look) in enumerate(zip(rows, LOOKS, strict=False)):
                shift = 0.5 * (index - (len(rows) - 1) / 2) / len(rows)
                for place, key in enumerate(keys):
                    _dot(ax, held[row][key], place + shift, look)
            ax.axvline(0, color=plots.INK, linewidth=0.8)
            ax.set_title(plots.plain(title), fontsize=10)
        axes[0][0].set(yticks=range(len(keys)), yticklabels=[plots.symbol(key) for key in keys])
        axes[0][0].invert_yaxis()
        figure.supxlabel(xlabel, fontsize=10)
        handles = [_handle(row, look) for row, look in zip(rows, LOOKS, strict=False)]
        figure.legend(handles=handles, loc="outside upper center", ncols=len(rows), frameon=False)
    return figure


def safety_against_knowledge(
    curves: Mapping[str, Mapping[float, Mapping[str, Score]]],
    *,
    base: Mapping[str, Score],
    keys: Sequence[str] = ("safe_bias", "gs"),
    marked: Mapping[str, Sequence[Mapping[str, Score]]] | None = None,
    shares: Sequence[float] = (95, 80),
) -> Figure:
    """Draw safety against the knowledge that is kept: one curve a method, from the base to its strongest edit.

    At one place of the x axis all methods have cost the same; what is higher there is safer for that cost.

    Parameters
    ----------
    curves : mapping of name to mapping
        Method -> strength -> what was measured there: "knowledge_kept" and `keys`, such as `comparison.Setting`. A bar
        is the 95% interval of a point, where one is known.
    base : mapping of name to Score
        The same of the unedited model, where every curve begins.
    keys : sequence of str
        Scores, one panel each.
    marked : mapping of name to sequence, optional
        Method -> edits that keep the stated shares: larger, open, with the interval of their knowledge too.
    shares : sequence of float
        Stated shares of knowledge, in percent: dotted lines.

    Raises
    ------
    UwmError
        If there are more methods than looks, or a score was not measured.
    """
    looks = _looks_of([*curves, *(marked or {})])
    with plots.style():
        figure, axes = plt.subplots(
            1, len(keys), figsize=(plots.WIDTH, 3.8), sharex=True, squeeze=False, layout="constrained"
        )
        for ax, key in zip(axes[0], keys, strict=True):
            for name, points in curves.items():
                _path(ax, [base, *(points[x] for x in sorted(points))], key, looks[name], name)
            for name, found in (marked or {}).items():
                for point in found:
                    _mark(ax, point, key, looks[name])
            start = _measured(base, key)
            ax.plot(100, start.value, "o", color=plots.INK, ms=7, zorder=4, label="not edited")
            for share in shares:
                ax.axvline(share, color=plots.INK, linewidth=1.2, linestyle=":", zorder=1)
            ax.set(ylabel=f"{plots.symbol(key)}, {start.unit.words}")
        figure.supxlabel("knowledge kept (% of the base's)", fontsize=10)
        handles, names = axes[0][0].get_legend_handles_labels()
        figure.legend(handles, names, loc="outside upper center", ncols=3, frameon=False)
    return figure


def curve_table(
    curves: Mapping[str, Mapping[float, Mapping[str, Score]]], keys: Sequence[str]
) -> pd.DataFrame:
    """Return every point of every curve as rows of a tidy table.

    Parameters
    ----------
    curves : mapping of name to mapping
        Method -> strength -> what was measured there: names and scores.
    keys : sequence of str
        Scores; those that a point does not have are left out.

    Returns
    -------
    DataFrame
        Columns: method, strength, score (its name), value, low, high (its 95% interval, NaN where none is known), n.

    Examples
    --------
    >>> from uwmlib.metrics import Score
    >>> from uwmlib.reporting.sweeps import curve_table
    >>> curve_table({"UWM": {0.02: {"gs": Score(4.5, (4.0, 5.1), n=9)}}}, ["gs"])
      method  strength score  value  low  high  n
    0    UWM      0.02    gs    4.5  4.0   5.1  9
    """
    rows = []
    for method, points in curves.items():
        for strength in sorted(points):
            for key in keys:
                score = measured(points[strength], key)
                if score is not None:
                    low, high = score.interval or (math.nan, math.nan)
                    rows.append((method, strength, key, score.value, low, high, score.n))
    return pd.DataFrame(rows, columns=["method", "strength", "score", "value", "low", "high", "n"])


def _looks_of(names: Sequence[str]) -> dict[str, plots.Look]:
    """A look for each method: its own, or one that no other of them has."""
    named = {name: plots.METHODS[name] for name in names if name in plots.METHODS}
    free = [look for name, look in plots.METHODS.items() if name not in named and name != plots.BASE]
    others = [name for name in dict.fromkeys(names) if name not in named]
    if len(others) > len(plots.OTHERS) + len(free):
        raise UwmError(f"{len(others)} methods that the paper lacks cannot be told apart: draw fewer.")
    return named | dict(zip(others, (*plots.OTHERS, *free), strict=False))


def _path(ax: Axes, along: Sequence[Mapping[str, Score]], key: str, look: plots.Look, name: str) -> None:
    """A curve that begins at the base, whose own marker is another."""
    x = [_measured(point, "knowledge_kept").value for point in along]
    scores = [_measured(point, key) for point in along]
    marks = {"marker": look.marker, "ms": 5, "markevery": list(range(1, len(along)))}
    ax.plot(x, [score.value for score in scores], color=look.colour, lw=1.2, label=plots.plain(name), **marks)
    for at, score in zip(x[1:], scores[1:], strict=True):
        if score.interval:
            ax.vlines(at, *score.interval, color=look.colour, linewidth=0.8, alpha=0.7)


def _mark(ax: Axes, point: Mapping[str, Score], key: str, look: plots.Look) -> None:
    """An edit that keeps a stated share of knowledge: open, with both its intervals."""
    x, y = _measured(point, "knowledge_kept"), _measured(point, key)
    for line, at, score in ((ax.hlines, y, x), (ax.vlines, x, y)):
        if score.interval:
            line(at.value, *score.interval, color=look.colour, linewidth=1.2)
    face = {"markerfacecolor": "white", "markeredgecolor": look.colour, "markeredgewidth": 1.5}
    ax.plot(x.value, y.value, look.marker, ms=10, linestyle="none", zorder=5, **face)


def _dot(ax: Axes, found: Difference | float, y: float, look: plots.Look) -> None:
    """One change: filled with its interval, open without."""
    known = isinstance(found, Difference)
    if known:
        ax.hlines(y, found.lo, found.hi, color=look.colour, linewidth=1.4)
    face = look.colour if known else "white"
    ax.plot(
        found.difference if known else found,
        y,
        look.marker,
        color=look.colour,
        markerfacecolor=face,
        markersize=6,
    )


def _curve(ax: Axes, points: Mapping[float, Score], look: plots.Look, name: str) -> None:
    x = list(points)
    values = [score.value for score in points.values()]
    ax.plot(x, values, look.marker + "-", color=look.colour, ms=4, lw=1.2, label=plots.plain(name))
    limits = zip(*(score.interval for score in points.values()), strict=True)
    ax.fill_between(x, *limits, color=look.colour, alpha=0.15, linewidth=0)


def _anchors(ax: Axes, star: float, unedited: float, chosen: float) -> None:
    """What was measured here at the two settings that have names."""
    ax.axhline(unedited, color=plots.INK, linewidth=1, linestyle="--", label="not edited")
    ax.plot(star, chosen, "*", color=plots.INK, ms=13, linestyle="none", zorder=4, label="chosen setting")


def _printed(ax: Axes, star: float, unedited: float, chosen: float) -> None:
    """The paper's two points, open and dotted."""
    ax.axhline(unedited, color=plots.INK, linewidth=1.2, linestyle=":", label="paper, not edited")
    open_star = {"markerfacecolor": "white", "markeredgecolor": plots.INK, "ms": 13}
    ax.plot(star, chosen, "*", linestyle="none", zorder=5, label="paper, chosen setting", **open_star)


def _measured(source: Mapping[str, Score], key: str, *, interval: bool = False) -> Score:
    """Return a score that was measured, with its interval if that is needed; UwmError for one that was not."""
    score = measured(source, key)
    if score is None or (interval and score.interval is None):
        how = " with an interval" if interval else ""
        raise UwmError(f"{key} was not measured{how} at every setting: measure it or leave it out.")
    return score


def _handle(label: str, look: plots.Look) -> Line2D:
    return Line2D([], [], linestyle="none", marker=look.marker, color=look.colour, label=plots.plain(label))
