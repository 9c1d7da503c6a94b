"""Two settings against each other: what one has that the other has not, on the same tuples."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from itertools import product

import pandas as pd

from uwmlib.comparison.settings import Setting, require_settings
from uwmlib.errors import UwmError
from uwmlib.metrics import Difference, difference_between, label, mean_over_seeds
from uwmlib.metrics.catalogue import unit
from uwmlib.metrics.differences import of_each_seed

Rows = Mapping[str, Setting]
NOTE = "Left minus right, with the paired 95% interval over tuples and seeds, not corrected for their number."


def setting_difference(left: Setting, right: Setting, key: str) -> Difference | None:
    """Return left minus right in one score, paired over the tuples.

    Where one side has several seeds, each is compared with the other side and `mean_over_seeds` taken.

    Parameters
    ----------
    left, right : Setting
        Of one base; at least one of the two has a single run.
    key : str

    Returns
    -------
    Difference or None
        None where the score was not measured on both sides, or not item by item.

    Raises
    ------
    UwmError
        If both have several runs, or they are not of one model and set of tuples.

    Examples
    --------
    >>> import uwmlib as uwm
    >>> from uwmlib.comparison import evaluate_edits, setting_difference
    >>> from uwmlib.editing import select_magnitude, select_random
    >>> vlm = uwm.load_model("mini-ViT-L-14")
    >>> tuples = uwm.load_tuples("mini-visu", split="validation", n=50)
    >>> base = uwm.evaluate(vlm, tuples)
    >>> drawn = [select_random(vlm, tau=0.1, seed=seed) for seed in (0, 1)]
    >>> random = evaluate_edits(vlm, drawn, tuples, base=base)
    >>> largest = select_magnitude(vlm, tau=0.1)
    >>> magnitude = evaluate_edits(vlm, largest, tuples, base=base)
    >>> len(setting_difference(magnitude, random, "safe_bias").by_seed)
    2
    """
    require_settings({"left": left, "right": right}, "The two sides")
    if min(len(left.runs), len(right.runs)) > 1:
        raise UwmError("Both sides have several seeds: compare the runs of one with a single run.")
    found = [
        difference_between(Setting((one,), left.base), key, Setting((other,), right.base), key)
        for one, other in product(left.runs, right.runs)
    ]
    return None if None in found else mean_over_seeds(found)


def difference_table(
    settings: Rows | Mapping[int, Rows], pairs: Iterable[tuple[str, str]], keys: Iterable[str]
) -> pd.DataFrame:
    """Return the differences of pairs of settings in several scores, one row a pair.

    Parameters
    ----------
    settings : mapping of str to Setting, or of seed to such mappings
        By row; a pair of which one is not in it has dashes. Of several bases that differ in their seed, all measured
        on the same items, the differences are taken base by base, and their `mean_over_seeds` is shown.
    pairs : iterable of (str, str)
        Left row and right row.
    keys : iterable of str
        Scores.

    Returns
    -------
    DataFrame
        Index: "left − right". A cell such as "+0.12 [-0.01, +0.25]", in the unit of the score. Its `attrs["note"]`
        says how to read it.

    Raises
    ------
    UwmError
        As `setting_difference`.

    Examples
    --------
    >>> from uwmlib.comparison import difference_table
    >>> difference_table({}, [("UWM", "random")], ["safe_bias", "gs"]).T
    difference UWM − random
    $c$, both             –
    GS                    –
    """
    keys, bases = list(keys), of_each_seed(settings)
    rows = {
        f"{left} − {right}": {label(key): _shown(_over_bases(bases, left, right, key), key) for key in keys}
        for left, right in pairs
    }
    table = pd.DataFrame.from_dict(rows, orient="index", columns=[label(key) for key in keys])
    table = table.rename_axis("difference")
    table.attrs["note"] = NOTE
    return table


def _over_bases(bases: Sequence[Rows], left: str, right: str, key: str) -> Difference | None:
    """Return the mean difference of two rows over the bases; None where one of them lacks it."""
    if not all(left in rows and right in rows for rows in bases):
        return None
    found = [setting_difference(rows[left], rows[right], key) for rows in bases]
    return None if None in found else mean_over_seeds(found)


def _shown(found: Difference | None, key: str) -> str:
    return "–" if found is None else found.shown(unit(key).decimals)
