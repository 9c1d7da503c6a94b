"""Does a score rise or fall along a sweep, as the paper says of its Figures 5 and 6?"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd

from uwmlib.metrics import Score, change_along, label
from uwmlib.options import known
from uwmlib.paper.verdicts import marked, verdict

SIGNS = {"rises": 1.0, "falls": -1.0}


def trend_table(
    sweeps: Mapping[str, Sequence[Mapping[str, Score]]],
    expected: Mapping[str, str],
    *,
    paper_ends: Mapping[str, float] | None = None,
) -> pd.DataFrame:
    """Verdicts on what a text says about a figure: each score "rises" or "falls" along each sweep.

    Parameters
    ----------
    sweeps : mapping of name to sequence
        What was measured along each sweep, in order.
    expected : mapping of score to "rises" or "falls"
        What the text says.
    paper_ends : mapping of score to float, optional
        Last minus first as far as it is printed anywhere, in points.

    Returns
    -------
    DataFrame
        Index: sweep and score. Columns: text says; paper, ends; here, line (`change_along`); steps against
        (how many of the steps go the other way); verdict.

    Raises
    ------
    UwmError
        For a word that is neither, and as `change_along`.

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
    verdict                     ▲ holds
    """
    lines = []
    for name, points in sweeps.items():
        for key, word in expected.items():
            sign = SIGNS[known(word, SIGNS, "direction of a trend")]
            found = change_along(points, key)
            steps = np.diff([point[key].value for point in points])
            ends = (paper_ends or {}).get(key)
            lines.append(
                {
                    "sweep": f"{name}, {label(key)}",
                    "text says": word,
                    "paper, ends": "–" if ends is None else f"{ends:+.1f}",
                    "here, line": str(found),
                    "steps against": f"{int((sign * steps < -1e-9).sum())} of {len(steps)}",
                    "verdict": marked(verdict(sign, found.difference, (found.lo, found.hi))),
                }
            )
    return pd.DataFrame(lines).set_index("sweep")
