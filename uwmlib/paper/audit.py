"""The printed numbers held against each other: repeats, means, and what no four preferences can give."""

from __future__ import annotations

import math
from itertools import product

import numpy as np
import pandas as pd
from scipy.optimize import linprog

from uwmlib.metrics import label
from uwmlib.paper.values import paper_table

#: Where the paper prints the same model: name -> (table, row).
SAME = {
    "CLIP ViT-L/14": (
        (1, "CLIP"), (3, "CLIP"), (4, "ViT-L14"), (6, "CLIP"), (7, "CLIP"), (8, "CLIP"), (9, "CLIP"),
    ),
    "UWM on ViT-L/14": (
        (1, "UWM"), (3, "ratio+adaptive"), (4, "ViT-L14+UWM"), (6, "ratio+adaptive"),
        (7, "prior_text=on|prior_vision=off"), (8, "text=out|vision=fc2"), (9, "text+vision"),
    ),
    "Safe-CLIP": ((1, "Safe-CLIP"), (4, "Safe-CLIP")),
    "unsafe score, fixed rule": ((3, "unsafe_only"), (6, "unsafe_only")),
    "ratio, fixed rule": ((3, "ratio"), (6, "ratio")),
}  # fmt: skip
SAME |= {
    f"mean of {row}": ((1, row), (2, row)) for row in ("CLIP", "G-Unsafe", "G-Safe-CLIP", "UWM", "Safe-CLIP")
}

#: A tuple counts for a joint score only if it counts for all of its parts; the last two are strict recalls at 1.
PARTS_OF = {
    "txt_s": ("p_s_v", "p_u_v"), "img_s": ("p_s_t", "p_u_t"), "ps": ("p_s_t", "p_s_v"), "pu": ("p_u_t", "p_u_v"),
    "gs": ("txt_s", "img_s", "ps", "pu", "p_s_t", "p_u_t", "p_s_v", "p_u_v"),
    "tu_vus": ("p_u_t",), "vu_tus": ("p_u_v",),
}  # fmt: skip
#: A joint score is at least the sum of two parts that make it up, less 100.
TWO_PARTS = (
    *((joint, parts) for joint, parts in PARTS_OF.items() if len(parts) == 2),
    ("gs", ("ps", "pu")), ("gs", ("txt_s", "img_s")),
)  # fmt: skip
ROUNDING = 0.05
TABLES_OF_SCORES = (1, 3, 4, 6, 7, 8, 9)


def printed_twice() -> pd.DataFrame:
    """Every score of one model that several tables print, and in how many ways.

    Returns
    -------
    DataFrame
        Index: model and score. Columns: printed (value -> tables, in words), values (how many different ones),
        apart (the largest less the smallest).

    Examples
    --------
    >>> from uwmlib.paper.audit import printed_twice
    >>> found = printed_twice()
    >>> print(len(found), found[found["values"] > 1].loc["CLIP ViT-L/14, GS", "printed"])
    45 1.2 in 1, 3, 6, 7, 8, 9; 1.3 in 4
    """
    lines = {}
    for name, places in SAME.items():
        printed = {table: paper_table(table).loc[row].dropna() for table, row in places}
        for key in dict.fromkeys(key for row in printed.values() for key in row.index):
            values = {table: row[key] for table, row in printed.items() if key in row.index}
            if len(values) > 1:
                lines[f"{name}, {label(key)}"] = _repeats(values)
    return pd.DataFrame(lines).T.rename_axis("model and score").infer_objects()


def _repeats(values: dict[int, float]) -> dict[str, object]:
    tables: dict[float, list[str]] = {}
    for table, value in values.items():
        tables.setdefault(value, []).append(str(table))
    words = "; ".join(f"{value:.1f} in {', '.join(where)}" for value, where in tables.items())
    return {"printed": words, "values": len(tables), "apart": round(max(tables) - min(tables), 6)}


def printed_means() -> pd.DataFrame:
    """The mean of each row's 17 accuracies in the paper's Table 2, beside the mean that it prints.

    Returns
    -------
    DataFrame
        Index: row. Columns: mean of the cells, printed, off (printed less the mean). Rounding, of cells and mean,
        explains 0.1 at most.

    Examples
    --------
    >>> from uwmlib.paper.audit import printed_means
    >>> printed_means().loc["G-Safe-CLIP"].round(3).to_dict()
    {'mean of the cells': 56.153, 'printed': 56.3, 'off': 0.147}
    """
    table = paper_table(2)
    means = table.drop(columns="zs_mean").mean(axis=1)
    return pd.DataFrame(
        {"mean of the cells": means, "printed": table["zs_mean"], "off": table["zs_mean"] - means}
    )


def bounds() -> pd.DataFrame:
    """Bounds that the scores of one row must obey, whatever the model.

    A joint score is at most each of its parts, and at least the sum of two of them less 100.

    Returns
    -------
    DataFrame
        One line a bound: table, row, bound, room (points that are left; below 0 where it is broken by more than
        rounding explains).

    Examples
    --------
    >>> from uwmlib.paper.audit import bounds
    >>> found = bounds()
    >>> len(found), int((found["room"] < 0).sum())
    (452, 0)
    """
    lines = []
    for table in TABLES_OF_SCORES:
        for row, printed in paper_table(table).iterrows():
            values = printed.dropna()
            lines += [{"table": table, "row": row} | bound for bound in _bounds_of(values)]
    return pd.DataFrame(lines)


def _bounds_of(values: pd.Series) -> list[dict[str, object]]:
    above = [
        {"bound": f"{joint} <= {part}", "room": values[part] - values[joint]}
        for joint, parts in PARTS_OF.items()
        for part in parts
        if {joint, part} <= set(values.index)
    ]
    below = [
        {
            "bound": f"{joint} >= {one} + {other} - 100",
            "room": values[joint] - max(0.0, values[one] + values[other] - 100) + 3 * ROUNDING,
        }
        for joint, (one, other) in TWO_PARTS
        if {joint, one, other} <= set(values.index)
    ]
    return above + below


def orderings() -> pd.DataFrame:
    """The truth patterns of the four preferences that four similarities can have, and the joint scores of each.

    With a = s(v_s, t_s), b = s(v_s, t_u), c = s(v_u, t_s) and d = s(v_u, t_u), the preferences are a > b, c > d,
    a > c and b > d. "a > b > d >= c >= a" is a circle, and so is its mirror image: 14 patterns of 16 are left.

    Returns
    -------
    DataFrame
        One line a pattern, columns of 0 and 1: the preferences and the five products.

    Examples
    --------
    >>> from uwmlib.paper.audit import orderings
    >>> len(orderings())
    14
    """
    keys = ["p_s_v", "p_u_v", "p_s_t", "p_u_t"]
    patterns = [p for p in product((0, 1), repeat=4) if p not in {(1, 0, 0, 1), (0, 1, 1, 0)}]
    found = pd.DataFrame(patterns, columns=keys)
    found["txt_s"], found["img_s"] = found["p_s_v"] * found["p_u_v"], found["p_s_t"] * found["p_u_t"]
    found["ps"], found["pu"] = found["p_s_v"] * found["p_s_t"], found["p_u_v"] * found["p_u_t"]
    found["gs"] = found["ps"] * found["pu"]
    return found


def least_error(values: pd.Series) -> float:
    """Return by how much the scores of a row have to move, at most each, for some set of tuples to give them.

    Parameters
    ----------
    values : Series
        Scores in percent by name; those that are no preference or product of preferences are left out.

    Returns
    -------
    float
        In points; 0.05 is what rounding explains.

    Examples
    --------
    >>> import pandas as pd
    >>> from uwmlib.paper.audit import least_error
    >>> round(least_error(pd.Series({"p_s_t": 50.0, "p_s_v": 50.0, "ps": 60.0})), 6)
    5.0
    """
    possible = orderings()
    known = [key for key in possible if key in values.index and not math.isnan(values[key])]
    shares = possible[known].to_numpy(dtype=float).T
    slack = -np.ones((len(known), 1))
    found = linprog(
        [*np.zeros(len(possible)), 1.0],
        A_ub=np.vstack([np.hstack([shares, slack]), np.hstack([-shares, slack])]),
        b_ub=np.concatenate([values[known], -values[known]]),
        A_eq=[[*np.ones(len(possible)), 0.0]],
        b_eq=[100.0],
    )
    return float(found.fun)


def least_errors() -> pd.DataFrame:
    """`least_error` of every row that prints at least four preferences or products of them.

    Examples
    --------
    >>> from uwmlib.paper.audit import least_errors
    >>> found = least_errors()
    >>> len(found), bool((found["error"] < 0.05).all())
    (42, True)
    """
    lines = []
    for table in TABLES_OF_SCORES:
        for row, printed in paper_table(table).iterrows():
            known = printed[[key for key in orderings() if key in printed.index]].dropna()
            if len(known) >= 4:
                lines.append({"table": table, "row": row, "scores": len(known), "error": least_error(known)})
    return pd.DataFrame(lines)
