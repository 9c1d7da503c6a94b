"""Many items, each with one word, as a mosaic of squares."""

from __future__ import annotations

from collections.abc import Mapping

import pandas as pd
from matplotlib import pyplot as plt
from matplotlib.axes import Axes
from matplotlib.patches import Rectangle

from uwmlib.errors import UwmError
from uwmlib.reporting.plots import INK, WIDTH, plain, style

#: Word of the scoreboard -> colour and sign. Signs and lightness tell them apart without colour.
LOOKS = {
    "verified": ("#56b4e9", "✓"), "falsified": ("#e69f00", "✗"), "toy": ("#b9e3d4", "~"),
    "inconclusive": ("#efefef", "?"),
}  # fmt: skip
SIDE = 0.255  #: of a square, in inches
LABELS = 1.8  #: room for the names of the groups, in inches


def mosaic(
    words: pd.Series, groups: pd.Series, *, looks: Mapping[str, tuple[str, str]] = LOOKS, columns: int = 18
) -> Axes:
    """Draw one square for each item, by group, in the order in which they come.

    Parameters
    ----------
    words : Series of str
        The word of each item.
    groups : Series of str
        Its group, in the same order; each group begins on a line of its own.
    looks : mapping of str to (colour, sign)
        Of each word.
    columns : int
        Squares on a line.

    Returns
    -------
    Axes

    Raises
    ------
    UwmError
        If a word has no look, or the two series are not equally long.

    Examples
    --------
    >>> import pandas as pd
    >>> from uwmlib.reporting.mosaic import mosaic
    >>> ax = mosaic(pd.Series(["toy", "verified"]), pd.Series(["3.1", "3.1"]))
    >>> len(ax.patches)
    4
    """
    if len(words) != len(groups) or (foreign := set(words) - set(looks)):
        raise UwmError(
            f"A mosaic needs a group and a known word for each item, not {foreign or len(groups)}."
        )
    places, lines = {}, 0
    for group in dict.fromkeys(groups):
        members = [word for word, of in zip(words, groups, strict=True) if of == group]
        places[group] = (lines, members)
        lines += -(-len(members) // columns)
    height = SIDE * (lines + 1.9)
    with style():
        figure, ax = plt.subplots(figsize=(WIDTH, height))
        figure.subplots_adjust(left=LABELS / WIDTH, right=1, bottom=0, top=1)
        for group, (line, members) in places.items():
            ax.text(-0.3, line + 0.5, plain(group), ha="right", va="center", fontsize=10.5)
            for at, word in enumerate(members):
                _square(ax, at % columns, line + at // columns, looks[word])
        _key(ax, words.value_counts(), lines + 0.7, looks, columns)
        ax.set(xlim=(0, columns), ylim=(lines + 1.9, 0))
        ax.axis("off")
    return ax


def _square(ax: Axes, x: float, y: float, look: tuple[str, str]) -> None:
    colour, sign = look
    square = Rectangle((x + 0.06, y + 0.06), 0.88, 0.88, facecolor=colour, edgecolor=INK, linewidth=0.4)
    ax.add_patch(square).set_clip_on(False)  # the key reaches below the names of the groups
    ax.text(
        x + 0.5, y + 0.52, sign, ha="center", va="center", fontsize=10, color=INK, fontfamily="DejaVu Sans"
    )


def _key(ax: Axes, counts: pd.Series, y: float, looks: Mapping[str, tuple[str, str]], columns: int) -> None:
    """The words with their counts, below the mosaic."""
    present = [word for word in looks if word in counts.index]
    start = -LABELS / WIDTH * columns
    step = (columns - start) / len(present)
    for at, word in enumerate(present):
        x = start + at * step
        _square(ax, x, y, looks[word])
        ax.text(x + 1.3, y + 0.5, f"{counts[word]} {word}", va="center", fontsize=10.5)
