"""Does a score rise or fall along a sweep, as the paper says of its Figures 5 and 6?"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from uwmlib.errors import UwmError
from uwmlib.options import known
from uwmlib.paper.verdicts import Difference, as_difference, marked, verdict
from uwmlib.reporting.measured import mean_of, measured, outcomes
from uwmlib.reporting.tables import LABELS

SIGNS = {"rises": 1.0, "falls": -1.0}


def change_along(points: Sequence[Any], key: str) -> Difference:
    """How much a rate changes from the first point of a sweep to the last, by a straight line through all.

    Every item has its own least-squares line through its outcomes, the points equally far apart; the change is
    the mean over items and its interval is the normal one over items. So it is paired, and it uses all points
    where a difference of the two ends would use two.

    Parameters
    ----------
    points : sequence of Evaluation, SafeGround, Retrieval or mapping
        What was measured along the sweep, on the same items in the same order.
    key : str

    Returns
    -------
    Difference
        In points.

    Raises
    ------
    UwmError
        If there are fewer than two points, or the items of one are unknown or not as many as the others'.
    """
    if len(points) < 2:
        raise UwmError(f"A sweep of {len(points)} points has no direction: give at least two.")
    held = [outcomes(point, key) for point in points]
    if any(found is None or len(found) != 1 for found in held):
        raise UwmError(f"{key} lacks one outcome per item somewhere on the sweep: measure it at every point.")
    rows = [next(iter(found.values())) for found in held]
    if len({len(row) for row in rows}) > 1:
        raise UwmError(f"{key} was not measured on equally many items along the sweep: use the same items.")
    along = np.arange(len(rows)) - (len(rows) - 1) / 2
    weights = along * (len(rows) - 1) / (along**2).sum()
    return as_difference(mean_of(100 * weights @ np.stack(rows).astype(float)))


def trend_table(
    sweeps: Mapping[str, Sequence[Any]],
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
    """
    lines = []
    for name, points in sweeps.items():
        for key, word in expected.items():
            sign = SIGNS[known(word, SIGNS, "direction of a trend")]
            found = change_along(points, key)
            steps = np.diff([measured(point, key).value for point in points])
            ends = (paper_ends or {}).get(key)
            lines.append(
                {
                    "sweep": f"{name}, {LABELS.get(key, key)}",
                    "text says": word,
                    "paper, ends": "–" if ends is None else f"{ends:+.1f}",
                    "here, line": str(found),
                    "steps against": f"{int((sign * steps < -1e-9).sum())} of {len(steps)}",
                    "verdict": marked(verdict(sign, found.difference, (found.lo, found.hi))),
                }
            )
    return pd.DataFrame(lines).set_index("sweep")
