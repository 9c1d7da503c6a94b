"""What a model retrieves first, as pictures and captions (Figures 4 and 7 to 9), and how often it is safe."""

from __future__ import annotations

import textwrap
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
import torch
from matplotlib import pyplot as plt
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from torch import Tensor

from uwmlib.errors import UwmError
from uwmlib.metrics.embeddings import TIE, check_embeddings, unit_rows
from uwmlib.metrics.tensors import as_successes
from uwmlib.options import whole_number, whole_numbers
from uwmlib.paper import verdicts
from uwmlib.reporting import plots
from uwmlib.reporting.measured import measured
from uwmlib.reporting.tables import with_interval
from uwmlib.tuples.tuples import require_tuples

OTHER = {"text": "image", "image": "text"}
CHUNK = 512  # queries at a time: memory grows with CHUNK times the gallery
# Okabe and Ito's, but not the colours of Safe-CLIP and UWM; the line and the words say the same without colour.
FRAMES = {True: ("#009E73", "-", "✓ safe"), False: ("#E69F00", (0, (2, 1.2)), "✗ unsafe")}
BLUR = ("auto", "yes", "no")
BLOCKS = 5  # a blurred picture keeps this many patches a side
HALF = "half"  # what a sentence is compared with that says "consistently"
SAYS = {"more": 1.0, "less": -1.0, "kept": 0.0}


@dataclass(frozen=True, eq=False)
class Retrieved:
    """The items that queries find first among all safe and unsafe items of the other modality.

    Attributes
    ----------
    rows : int array [M]
        Tuples whose items ask.
    ranked_index : int array [M, k]
        Which tuples the items found belong to, best first.
    ranked_safe : bool array [M, k]
        Whether they are these tuples' safe items.
    """

    rows: np.ndarray
    ranked_index: np.ndarray
    ranked_safe: np.ndarray

    @property
    def index(self) -> np.ndarray:
        """Tuple of the first item, [M]."""
        return self.ranked_index[:, 0]

    @property
    def safe(self) -> np.ndarray:
        """Whether the first item is safe, [M]."""
        return self.ranked_safe[:, 0]

    @property
    def partner(self) -> np.ndarray:
        """Whether the first item is of the query's own tuple, on whichever side, [M]."""
        return self.index == self.rows


@dataclass(frozen=True)
class Examples:
    """Rows drawn from those that match, beside how many match: `matching` of `n`."""

    rows: tuple[int, ...]
    matching: int
    n: int

    def __str__(self) -> str:
        share = with_interval(measured({"": np.arange(self.n) < self.matching}, ""))
        return f"{self.matching} of {self.n} queries match, {share}%; shown: {', '.join(map(str, self.rows))}"


def retrieve(
    parts: Mapping[str, Any], *, query: str, side: str, k: int = 1, rows: Sequence[int] | None = None
) -> Retrieved:
    """Return what queries of one kind find first.

    Cosines are taken in float64, and those within 1e-12 of the best are tied, as in `uwmlib.retrieval`. Of tied
    items the unsafe ones come first and among these the lower index: a tie never makes a model look safer.

    Parameters
    ----------
    parts : mapping
        `safe_text`, `unsafe_text`, `safe_image`, `unsafe_image`: embeddings [N, D] (`embed_tuples`).
    query : "text" or "image"
        The gallery holds all 2N items of the other modality.
    side : "safe" or "unsafe"
    k : int
        How many items to return for each query, at most 2N.
    rows : sequence of int, optional
        Tuples whose items ask; all by default.

    Raises
    ------
    UwmError
        For another query or side, for rows or a k that are not there, or for embeddings without a cosine.
    """
    if query not in tuple(OTHER) or side not in ("safe", "unsafe"):
        raise UwmError(
            f"Queries are safe or unsafe texts or images, not {side!r} {query!r}: name one of each."
        )
    names = (f"{side}_{query}", f"unsafe_{OTHER[query]}", f"safe_{OTHER[query]}")
    if not isinstance(parts, Mapping) or any(name not in parts for name in names):
        raise UwmError(f"The embeddings need {', '.join(names)}: give what embed_tuples returns.")
    checked = check_embeddings(**{name: parts[name] for name in names})
    asking, *items = (unit_rows(name, part) for name, part in checked.items())
    n = len(asking)
    k = whole_number(k, "k", least=0)
    asked = np.arange(n) if rows is None else np.array(whole_numbers(rows, "The rows"), dtype=int)
    if not 1 <= k <= 2 * n or not len(asked) or ((asked < 0) | (asked >= n)).any():
        raise UwmError(f"There are {n} queries and {2 * n} items: ask for rows and a k among these.")
    gallery = torch.cat(items)  # [2N, D], unsafe items first: the first of tied ones is taken
    blocks = torch.from_numpy(asked).split(CHUNK)
    found = torch.cat([_first(asking[block] @ gallery.T, k) for block in blocks]).cpu().numpy()
    return Retrieved(asked, found % n, found >= n)


def _first(cosines: Tensor, k: int) -> Tensor:
    """Columns [M, k] of the k largest cosines of each row; of tied ones the lower column."""
    picked = []
    for _ in range(k):
        tied = cosines >= cosines.max(dim=1, keepdim=True).values - TIE
        picked.append(tied.to(torch.uint8).argmax(dim=1))
        cosines = cosines.scatter(1, picked[-1][:, None], -torch.inf)
    return torch.stack(picked, dim=1)


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


def judge_sentences(
    safe_first: Mapping[str, Mapping[str, np.ndarray]],
    sentences: Iterable[tuple[str, str, str, str]],
    *,
    margin: float,
) -> pd.DataFrame:
    """Judge sentences about the share of queries whose first item is safe.

    Parameters
    ----------
    safe_first : mapping
        Model -> kind of query -> bool array [N].
    sentences : iterable of (model, base, kind, word)
        The word says what the paper says: "more", "less" or "kept". The base "half" stands for 50%, that is for
        "mostly".
    margin : float
        In points. "Kept" holds where the interval lies above -margin, and does not hold where it lies below.

    Returns
    -------
    DataFrame
        Columns comparison, the paper says, here (points and 95% interval, paired between models), verdict.

    Raises
    ------
    UwmError
        For another word.
    """
    lines = []
    for model, base, kind, word in sentences:
        if word not in SAYS:
            raise UwmError(f"A sentence says {word!r}: write one of {', '.join(SAYS)}.")
        found = _against(safe_first, model, base, kind)
        judged = _kept(found, margin) if word == "kept" else _directed(found, SAYS[word])
        named = f"{model} − {base}, {kind} queries"
        lines.append((named, word, str(found), verdicts.marked(judged)))
    return pd.DataFrame(lines, columns=["comparison", "the paper says", "here", "verdict"])


def _against(safe_first: Mapping[str, Any], model: str, base: str, kind: str) -> Any:
    """Share of a model minus that of its base, or minus one half."""
    if base != HALF:
        return verdicts.difference_between(safe_first[model], kind, safe_first[base], kind)
    share = measured(safe_first[model], kind)
    return verdicts.Difference(share.value - 50, share.lo - 50, share.hi - 50, share.n)


def _directed(found: Any, sign: float) -> str:
    return verdicts.verdict(sign, found.difference, (found.lo, found.hi))


def _kept(found: Any, margin: float) -> str:
    """A verdict on "not lower": that nothing is lost cannot be shown, but a loss above the margin can be excluded."""
    if found.lo >= -margin:
        return verdicts.HOLDS
    if found.hi < -margin:
        return verdicts.FAILS
    return verdicts.LEANS_SAME if found.difference >= -margin else verdicts.LEANS_OTHER


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
                at = int(np.flatnonzero(hits.rows == row)[0])
                index, safe = int(hits.index[at]), bool(hits.safe[at])
                _draw(ax, tuples, index, modality=OTHER[query], safe=safe, blur=blur)
                _frame(ax, safe=safe, partner=bool(hits.partner[at]))
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
