"""What the paper says of its pictures (Figures 4 and 7 to 9): how often the first item found is safe."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import pandas as pd

from uwmlib.errors import UwmError
from uwmlib.metrics import Difference, Score, difference_between
from uwmlib.paper.verdicts import FAILS, HOLDS, LEANS_OTHER, LEANS_SAME, marked, verdict

HALF = "half"  # what a sentence is compared with that says "consistently"
SAYS = {"more": 1.0, "less": -1.0, "kept": 0.0}


def judge_sentences(
    safe_first: Mapping[str, Mapping[str, Score]],
    sentences: Iterable[tuple[str, str, str, str]],
    *,
    margin: float,
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
        In points. "Kept" holds where the interval lies above -margin, and does not hold where it lies below.

    Returns
    -------
    DataFrame
        Index: comparison. Columns: the paper says; here (points and 95% interval, paired between models); verdict.

    Raises
    ------
    UwmError
        For another word.

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
    verdict                                ▲ holds
    """
    lines = []
    for model, base, kind, word in sentences:
        if word not in SAYS:
            raise UwmError(f"A sentence says {word!r}: write one of {', '.join(SAYS)}.")
        found = _against(safe_first, model, base, kind)
        judged = _kept(found, margin) if word == "kept" else _directed(found, SAYS[word])
        named = f"{model} − {base}, {kind} queries"
        lines.append((named, word, str(found), marked(judged)))
    columns = ["comparison", "the paper says", "here", "verdict"]
    return pd.DataFrame(lines, columns=columns).set_index("comparison")


def _against(safe_first: Mapping[str, Mapping[str, Score]], model: str, base: str, kind: str) -> Difference:
    """Share of a model minus that of its base, or minus one half."""
    if base != HALF:
        return difference_between(safe_first[model], kind, safe_first[base], kind)
    share = safe_first[model][kind]
    lo, hi = share.interval
    return Difference(share.value - 50, lo - 50, hi - 50, share.n)


def _directed(found: Difference, sign: float) -> str:
    return verdict(sign, found.difference, (found.lo, found.hi))


def _kept(found: Difference, margin: float) -> str:
    """A verdict on "not lower": that nothing is lost cannot be shown, but a loss above the margin can be excluded."""
    if found.lo >= -margin:
        return HOLDS
    if found.hi < -margin:
        return FAILS
    return LEANS_SAME if found.difference >= -margin else LEANS_OTHER
