"""Methods in their order at one budget, over several bases, each against a rival with the number of tests corrected."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from uwmlib.comparison.differences import setting_difference
from uwmlib.comparison.settings import Setting
from uwmlib.errors import UwmError
from uwmlib.metrics import Difference, adjusted, mean_over_seeds
from uwmlib.metrics.differences import of_each_seed
from uwmlib.options import finite_number

LEVEL = 0.05  #: of the corrected tests


@dataclass(frozen=True)
class Place:
    """One row of a ranking.

    Attributes
    ----------
    row : str
    gain : Difference
        Of the row against its base, over all bases, with the 95% interval for new tuples and a new base.
    ahead : Difference or None
        Of the row against the rival; None of the rival itself.
    p_value : float or None
        Of "no difference to the rival", corrected by Holm for all rows.

    Examples
    --------
    >>> from uwmlib.comparison import Place
    >>> from uwmlib.metrics import Difference
    >>> gain = Difference(0.5, 0.4, 0.6)
    >>> Place("shift", gain, Difference(0.3, 0.2, 0.4), 0.01).verdict
    'ahead'
    >>> Place("shift", gain, Difference(0.3, -0.1, 0.7), 0.14).verdict
    'cannot tell'
    """

    row: str
    gain: Difference
    ahead: Difference | None = None
    p_value: float | None = None

    @property
    def verdict(self) -> str:
        """Whether it is "ahead" of the rival or "behind" at 5%, or one "cannot tell"; "rival" of the rival itself."""
        if self.ahead is None or self.p_value is None:
            return "rival"
        if self.p_value > LEVEL:
            return "cannot tell"
        return "ahead" if self.ahead.difference > 0 else "behind"


def ranking(
    bases: Mapping[str, Setting] | Mapping[int, Mapping[str, Setting]],
    rows: Iterable[str],
    *,
    rival: str,
    key: str = "safe_bias",
) -> list[Place]:
    """Order rows by what they gain against their base, the mean over the bases, the most first.

    Of each row the difference to its base and to the rival are taken base by base, paired over the tuples, and put
    together by `mean_over_seeds`. The tests against the rival are corrected for their number by Holm's method. A row
    that was not measured on every base has no place.

    Parameters
    ----------
    bases : mapping of seed to mapping of str to Setting
        Every base's rows, on the same test tuples; or the rows of one base.
    rows : iterable of str
    rival : str
        One of the rows.
    key : str
        The score.

    Returns
    -------
    list of Place

    Raises
    ------
    UwmError
        If the rival was not measured on every base, and as `setting_difference`.

    Examples
    --------
    >>> import uwmlib as uwm
    >>> from uwmlib.comparison import evaluate_edits, ranking
    >>> from uwmlib.editing import fit_safe_shift, select_random
    >>> vlm = uwm.load_model("mini-ViT-L-14")
    >>> tuples = uwm.load_tuples("mini-visu", split="validation", n=100)
    >>> base = uwm.evaluate(vlm, tuples)
    >>> train = uwm.load_tuples("mini-visu", split="train", n=100)
    >>> edits = {
    ...     "random": select_random(vlm, tau=0.05),
    ...     "shift": fit_safe_shift(vlm, train, progress=False).edit(0.8),
    ... }
    >>> rows = {
    ...     row: evaluate_edits(vlm, edit, tuples, base=base)
    ...     for row, edit in edits.items()
    ... }
    >>> [(x.row, x.verdict) for x in ranking(rows, rows, rival="random")]
    [('shift', 'ahead'), ('random', 'rival')]
    """
    each = of_each_seed(bases)
    measured = [row for row in dict.fromkeys(rows) if each and all(row in rows for rows in each)]
    if rival not in measured:
        raise UwmError(f"{rival!r} was not measured on every base: name a rival that was.")
    gains = {row: _mean(each, row, None, key) for row in measured}
    ahead = {row: _mean(each, row, rival, key) for row in measured if row != rival}
    tests = dict(
        zip(ahead, adjusted([one.p_value for one in ahead.values()], correction="holm"), strict=True)
    )
    places = [
        Place(row, gains[row], ahead.get(row), float(tests[row]) if row in tests else None)
        for row in measured
    ]
    return sorted(places, key=lambda place: -finite_number(place.gain.difference, "A gain"))


def _mean(each: list[Mapping[str, Setting]], row: str, rival: str | None, key: str) -> Difference:
    """Return the difference of a row to a rival, or to its base, over all bases."""
    found = []
    for rows in each:
        left = rows[row]
        right = Setting((left.base,), left.base) if rival is None else rows[rival]
        found.append(setting_difference(left, right, key))
    if None in found:
        raise UwmError(f"{key} was not measured item by item of {row!r}: rank by another score.")
    return mean_over_seeds(found)
