"""Settings of several methods held against each other, on the same tuples."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

import pandas as pd

from uwmlib.comparison.settings import Setting, require_settings
from uwmlib.metrics import CATALOGUE, Difference, difference_between, mean_over_seeds, safe_bias_difference
from uwmlib.metrics.catalogue import label
from uwmlib.options import known

KEYS = ("safe_bias", "gs", "benign")


def setting_difference(left: Setting, right: Setting, key: str) -> Difference | None:
    """Return left minus right of one score: paired over the tuples, and of several runs the mean over their seeds.

    Parameters
    ----------
    left, right : Setting
        Measured on the same tuples.
    key : str
        "safe_bias" (`safe_bias_difference`) or a score of the evaluations (`difference_between`).

    Returns
    -------
    Difference or None
        With the interval of `mean_over_seeds`, over all pairs of runs; None if a side was not measured.

    Raises
    ------
    UwmError
        As those three.

    Examples
    --------
    >>> import uwmlib as uwm
    >>> from uwmlib.comparison import evaluate_edits, setting_difference
    >>> from uwmlib.editing import select_random
    >>> vlm = uwm.load_model("mini-ViT-L-14")
    >>> tuples = uwm.load_tuples("mini-visu", split="validation", n=50)
    >>> base = uwm.evaluate(vlm, tuples)
    >>> weak, strong = (
    ...     evaluate_edits(vlm, select_random(vlm, tau=tau), tuples, base=base) for tau in (0.01, 0.5)
    ... )
    >>> setting_difference(strong, weak, "vs_ts").hi < 0
    True
    """
    found = [
        safe_bias_difference(mine, theirs)
        if key == "safe_bias"
        else difference_between(mine, key, theirs, key)
        for mine in left.runs
        for theirs in right.runs
    ]
    return None if any(one is None for one in found) else mean_over_seeds(found)


def difference_table(
    settings: Mapping[str, Setting], pairs: Iterable[Sequence[str]], keys: Sequence[str] = KEYS
) -> pd.DataFrame:
    """Say how settings differ in a few scores, each with its paired interval.

    Parameters
    ----------
    settings : mapping of str to Setting
        Of one model on the same tuples.
    pairs : iterable of (left, right)
        Names among them; right is subtracted from left.
    keys : sequence of str
        Scores, as `setting_difference` takes them; one that was measured for no pair has no column.

    Returns
    -------
    DataFrame
        Index: comparison. Columns: one a score, in its own unit.

    Raises
    ------
    UwmError
        If a name is not among the settings, or they are not of one model and set of tuples.

    Examples
    --------
    >>> import uwmlib as uwm
    >>> from uwmlib.comparison import Setting, difference_table
    >>> base = uwm.evaluate(uwm.load_model("mini-ViT-L-14"), uwm.load_tuples("mini-visu", n=8))
    >>> same = {name: Setting((base,), base) for name in "ab"}
    >>> list(difference_table(same, [("a", "b")], ["safe_bias"]).index)
    ['a − b']
    """
    require_settings(settings, "What is compared")
    rows = {
        f"{left} − {right}": {
            label(key): _shown(setting_difference(settings[left], settings[right], key), key) for key in keys
        }
        for left, right in ([known(name, settings, "setting") for name in pair] for pair in pairs)
    }
    table = pd.DataFrame(rows).T.rename_axis("comparison")
    return table.loc[:, (table != "–").any()]


def _shown(found: Difference | None, key: str) -> str:
    if found is None:
        return "–"
    digits = CATALOGUE[key].unit.decimals if key in CATALOGUE else 1
    value, low, high = (f"{x:+.{digits}f}" for x in (found.difference, found.lo, found.hi))
    return f"{value} [{low}, {high}]"
