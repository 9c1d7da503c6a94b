"""Does a score rise or fall along a sweep, as the paper says of its Figures 5 and 6?"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial

import numpy as np
import pandas as pd

from uwmlib.metrics import Difference, Score, change_along, label
from uwmlib.options import known
from uwmlib.paper.rules import MARGIN, direction_verdict, judged
from uwmlib.paper.verdicts import counted, note

SIGNS = {"rises": 1.0, "falls": -1.0}


def trend_table(
    sweeps: Mapping[str, Sequence[Mapping[str, Score]]],
    expected: Mapping[str, str],
    *,
    paper_ends: Mapping[str, float] | None = None,
    correction: str = "bh",
    level: float = 0.05,
) -> pd.DataFrame:
    """Verdicts on what a text says about a figure: each score "rises" or "falls" along each sweep.

    Parameters
    ----------
    sweeps : mapping of name to sequence
        What was measured along each sweep, in order.
    expected : mapping of score to "rises" or "falls"
        What the text says.
    paper_ends : mapping of score to float, optional
        Last minus first as far as it is printed anywhere, in points: the size that "no effect here" excludes, which
        is one point for other scores.
    correction, level
        As in `verdict_table`. The family is the trends of this table.

    Returns
    -------
    DataFrame
        Index: sweep and score. Columns: text says; paper, ends; here, line (`change_along`); steps against
        (how many of the steps go the other way); verdict (`direction_verdict`). Its `attrs["note"]` says what the
        correction is.

    Raises
    ------
    UwmError
        For a word that is neither, and as `change_along` and `verdict_table`.

    Examples
    --------
    >>> from uwmlib.metrics import share_of
    >>> from uwmlib.paper import trend_table
    >>> sweep = [
    ...     {"gs": share_of([True] * hits + [False] * (20 - hits))}
    ...     for hits in (2, 9, 8, 16)
    ... ]
    >>> trend_table({"larger tau": sweep}, {"gs": "rises"}).T
    sweep                larger tau, GS
    text says                     rises
    paper, ends                       –
    here, line     +61.5 [+43.2, +79.8]
    steps against                1 of 3
    verdict            ↑ same direction
    """
    wanted = [(name, key) for name in sweeps for key in expected]
    signs = {key: SIGNS[known(word, SIGNS, "direction of a trend")] for key, word in expected.items()}
    found = [change_along(sweeps[name], key) for name, key in wanted]
    counting = counted(found, correction=correction, level=level)
    lines = []
    for (name, key), one, counts in zip(wanted, found, counting, strict=True):
        steps = np.diff([point[key].value for point in sweeps[name]])
        ends = (paper_ends or {}).get(key)
        size = MARGIN.points if ends is None else abs(ends)
        lines.append(
            {
                "sweep": f"{name}, {label(key)}",
                "text says": expected[key],
                "paper, ends": "–" if ends is None else f"{ends:+.1f}",
                "here, line": str(one),
                "steps against": f"{int((signs[key] * steps < -1e-9).sum())} of {len(steps)}",
                "verdict": str(judged(one, counts, partial(_rule, signs[key], size))),
            }
        )
    table = pd.DataFrame(lines).set_index("sweep")
    table.attrs["note"] = note(found, correction=correction, level=level)
    return table


def _rule(sign: float, size: float, ours: Difference, counts: bool) -> str:
    return direction_verdict(sign, ours, size=size, counts=counts)
