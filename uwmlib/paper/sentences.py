"""What the paper says of its pictures (Figures 4 and 7 to 9): how often the first item found is safe."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping

import pandas as pd

from uwmlib.errors import UwmError
from uwmlib.metrics import Difference, Score, difference_between
from uwmlib.paper.rules import direction_verdict, judged, preservation_verdict
from uwmlib.paper.verdicts import HALF, against_half, counted, note

SAYS = {"more": 1.0, "less": -1.0, "kept": 0.0}


def judge_sentences(
    safe_first: Mapping[str, Mapping[str, Score]],
    sentences: Iterable[tuple[str, str, str, str]],
    *,
    margin: float,
    correction: str = "bh",
    level: float = 0.05,
) -> pd.DataFrame:
    """Judge sentences about the share of queries whose first item is safe.

    Parameters
    ----------
    safe_first : mapping
        Model -> kind of query -> share of queries whose first item is safe.
    sentences : iterable of (model, base, kind, word)
        The word says what the paper says: "more", "less" or "kept". The base "half" stands for 50%, that is for
        "mostly".
    margin : float
        In points. "Kept" is "preserved" where the interval lies above -margin, and "not preserved" where it lies below.
    correction, level
        As in `verdict_table`. The family is the comparisons of this table.

    Returns
    -------
    DataFrame
        Index: comparison. Columns: the paper says; here (points and 95% interval, paired between models); verdict
        (`direction_verdict` or `preservation_verdict`). Its `attrs["note"]` says what the correction is.

    Raises
    ------
    UwmError
        For another word; as `verdict_table`.

    Examples
    --------
    >>> from uwmlib.metrics import share_of
    >>> from uwmlib.paper import judge_sentences
    >>> safe_first = {
    ...     "CLIP": {"unsafe text": share_of([False] * 20)},
    ...     "UWM": {"unsafe text": share_of([True] * 15 + [False] * 5)},
    ... }
    >>> sentences = [("UWM", "CLIP", "unsafe text", "more")]
    >>> judge_sentences(safe_first, sentences, margin=1.0).T
    comparison     UWM − CLIP, unsafe text queries
    the paper says                            more
    here                      +75.0 [+46.8, +88.8]
    verdict                       ↑ same direction
    """
    sentences = list(sentences)
    for *_, word in sentences:
        if word not in SAYS:
            raise UwmError(f"A sentence says {word!r}: write one of {', '.join(SAYS)}.")
    found = [_against(safe_first, model, base, kind) for model, base, kind, _ in sentences]
    counting = counted(found, correction=correction, level=level)
    lines = []
    for (model, base, kind, word), one, counts in zip(sentences, found, counting, strict=True):
        named = f"{model} − {base}, {kind} queries"
        lines.append((named, word, str(one), str(judged(one, counts, _rule(word, margin)))))
    columns = ["comparison", "the paper says", "here", "verdict"]
    table = pd.DataFrame(lines, columns=columns).set_index("comparison")
    table.attrs["note"] = note(found, correction=correction, level=level)
    return table


def _rule(word: str, margin: float) -> Callable[[Difference, bool], str]:
    """Return the rule of one word of the paper's."""
    if word == "kept":
        return lambda ours, _: preservation_verdict(ours, loss=margin)
    return lambda ours, counts: direction_verdict(SAYS[word], ours, counts=counts)


def _against(safe_first: Mapping[str, Mapping[str, Score]], model: str, base: str, kind: str) -> Difference:
    """Share of a model minus that of its base, or minus one half."""
    if base != HALF:
        return difference_between(safe_first[model], kind, safe_first[base], kind)
    return against_half(safe_first[model][kind])
