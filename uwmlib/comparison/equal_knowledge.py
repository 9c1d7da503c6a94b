"""Methods at equal knowledge: the strength at which each keeps a stated share of what the base knows."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from itertools import takewhile
from typing import Any

import pandas as pd

from uwmlib.comparison.controls import EditAt
from uwmlib.comparison.settings import Setting, evaluate_edits, refuse_test, require_settings
from uwmlib.comparison.strengths import STRENGTHS, evaluate_strengths
from uwmlib.editing import WeightEdit
from uwmlib.errors import UwmError
from uwmlib.evaluation import evaluate
from uwmlib.models.vlm import Vlm
from uwmlib.options import finite_number, whole_number
from uwmlib.tuples.tuples import Tuples


@dataclass(frozen=True)
class AtKnowledge:
    """The strength at which a method keeps a stated share of the base's knowledge, on tuples that it may be chosen on.

    Attributes
    ----------
    share : float
        What was asked for, in percent of the base's knowledge.
    strength : float or None
        None where the method does not come to that share.
    setting : Setting or None
        What was measured there, on the same tuples.
    reason : str
        One sentence: what it keeps there, or why there is no such strength.

    Examples
    --------
    >>> from uwmlib.comparison import AtKnowledge
    >>> AtKnowledge(95.0, None, None, "keeps 99.0% at the strongest").strength
    """

    share: float
    strength: float | None
    setting: Setting | None
    reason: str


def at_knowledge(
    vlm: Vlm,
    method: EditAt,
    share: float,
    tuples: Tuples,
    *,
    points: Mapping[float, Setting],
    tolerance: float = 1.0,
    steps: int = 6,
    **options: Any,
) -> AtKnowledge:
    """Find the strength at which a method keeps `share` percent of the base's knowledge (`knowledge_kept`).

    It is the strength of an edit that was measured, not a value between two: the first crossing of a sweep is closed in
    on by Brent's method over the logarithm of the strength, until an edit keeps the share within the tolerance. Then
    that edit is to be measured on the test tuples, where it will keep a little more or less.

    Parameters
    ----------
    vlm : Vlm
        As it was before afterwards.
    method : callable (float) -> WeightEdit, or a list of them
        As in `evaluate_strengths`.
    share : float in (0, 100)
    tuples : Tuples
        Those that `points` were measured on, of the split "validation" or of any but "test".
    points : mapping of float to Setting
        What `evaluate_strengths` returned.
    tolerance : float
        How far an edit may be from the share, in points of it.
    steps : int
        How many further edits are measured at most. If none of them is within the tolerance, as where one more weight
        costs more than that, the nearest is taken and the reason says so.
    **options
        Of `evaluate`.

    Returns
    -------
    AtKnowledge
        Without a strength if the method keeps more than the share at its strongest point, or less at its weakest.

    Raises
    ------
    UwmError
        If the tuples are of the split "test", the points are none or of other tuples, or a number is out of range.

    Examples
    --------
    >>> import uwmlib as uwm
    >>> from uwmlib.comparison import at_knowledge, evaluate_strengths
    >>> from uwmlib.editing import select_magnitude
    >>> vlm = uwm.load_model("mini-ViT-L-14")
    >>> tuples = uwm.load_tuples("mini-visu", split="validation", n=100)
    >>> method = lambda tau: select_magnitude(vlm, tau=tau)
    >>> base = uwm.evaluate(vlm, tuples)
    >>> points = evaluate_strengths(
    ...     vlm, method, tuples, base=base, strengths=[0.01, 0.64]
    ... )
    >>> found = at_knowledge(vlm, method, 80, tuples, points=points, tolerance=3)
    >>> 0.01 < found.strength < 0.64
    True
    >>> abs(found.setting["knowledge_kept"].value - 80) <= 3
    True
    """
    require_settings(points, "The points")
    base = next(iter(points.values())).base
    refuse_test(tuples.split)
    if (base.data, base.split, base.safeground.n) != (tuples.name, tuples.split, len(tuples)):
        raise UwmError(
            f"The points were not measured on these {len(tuples)} tuples of {tuples.name}: use the same."
        )

    def measure(strength: float) -> Setting:
        return evaluate_edits(vlm, method(strength), tuples, base=base, **options)

    return strength_that_keeps(measure, share, points=points, tolerance=tolerance, steps=steps)


def strength_that_keeps(
    measure: Callable[[float], Setting],
    share: float,
    *,
    points: Mapping[float, Setting],
    tolerance: float = 1.0,
    steps: int = 6,
) -> AtKnowledge:
    """Find the strength at which whatever can be measured keeps `share` percent of the base's knowledge.

    The search of `at_knowledge`, for what is measured in another way than by applying an edit, such as from features.

    Parameters
    ----------
    measure : callable (float) -> Setting
        Beside the same base and on the same tuples as the points.
    share, points, tolerance, steps
        Of `at_knowledge`.

    Returns
    -------
    AtKnowledge

    Raises
    ------
    UwmError
        If the points are none or of the split "test", or a number is out of range.

    Examples
    --------
    >>> from uwmlib.comparison import strength_that_keeps
    >>> strength_that_keeps(lambda strength: None, 95, points={})
    Traceback (most recent call last):
    ...
    uwmlib.errors.UwmError: The points are no settings by name: give a mapping ...
    """
    share, tolerance = finite_number(share, "share"), finite_number(tolerance, "tolerance", least=0)
    steps = whole_number(steps, "steps")
    if not 0 < share < 100:
        raise UwmError(f"share is {share:g}: give a percentage between 0 and 100, such as 80.")
    require_settings(points, "The points")
    refuse_test(next(iter(points.values())).split)
    tried = dict(points)

    def surplus(strength: float) -> float:
        """How much more than the share is kept; 0 within the tolerance, where the search ends."""
        if strength not in tried:
            tried[strength] = measure(strength)
        more = _kept(tried[strength]) - share
        return 0.0 if abs(more) <= tolerance else more

    weaker = list(takewhile(lambda strength: surplus(strength) > 0, sorted(points)))
    stronger = sorted(points)[len(weaker) :]
    if not stronger:
        end = weaker[-1]
        return _without(share, f"it still keeps {_kept(points[end]):.1f}% at {end:g}, its strongest")
    if not weaker and surplus(stronger[0]):
        end = stronger[0]
        return _without(share, f"it keeps only {_kept(points[end]):.1f}% at {end:g}, its weakest")
    if surplus(stronger[0]):
        _close_in(surplus, weaker[-1], stronger[0], steps=steps)
    near = {strength: each for strength, each in tried.items() if strength <= stronger[0]}
    best = min(near, key=lambda strength: (abs(_kept(near[strength]) - share), strength))
    how = f", the nearest of {len(near)} edits tried" if surplus(best) else ""
    return AtKnowledge(share, best, near[best], f"keeps {_kept(near[best]):.1f}% at {best:g}{how}")


def edit_that_keeps(
    vlm: Vlm,
    method: Callable[[float], WeightEdit],
    share: float,
    tuples: Tuples,
    *,
    strengths: Iterable[float] = STRENGTHS,
    **options: Any,
) -> WeightEdit:
    """Return the edit of a method at the strength that keeps a share of the base's knowledge.

    Parameters
    ----------
    vlm : Vlm
        As it was before afterwards.
    method : callable (float) -> WeightEdit
        Such as `lambda tau: scores.select(tau=tau)`, or the `edit` of a `SafeShift`.
    share : float in (0, 100)
    tuples : Tuples
        Of the split "validation", or of any but "test".
    strengths : iterable of float
        Of the sweep in which the strength is looked for; it ends behind the first that keeps less.
    **options
        Of `at_knowledge` and `evaluate`.

    Returns
    -------
    WeightEdit

    Raises
    ------
    UwmError
        If there is no such strength, and as `evaluate_strengths` and `at_knowledge`.

    Examples
    --------
    >>> import uwmlib as uwm
    >>> from uwmlib.comparison import edit_that_keeps
    >>> from uwmlib.editing import select_magnitude
    >>> vlm = uwm.load_model("mini-ViT-L-14")
    >>> tuples = uwm.load_tuples("mini-visu", split="validation", n=100)
    >>> edit = edit_that_keeps(
    ...     vlm,
    ...     lambda tau: select_magnitude(vlm, tau=tau),
    ...     80,
    ...     tuples,
    ...     strengths=[0.01, 0.64],
    ...     tolerance=3,
    ... )
    >>> 0.01 < edit.description["tau"] < 0.64
    True
    """
    search = {key: options.pop(key) for key in ("tolerance", "steps") if key in options}
    base = evaluate(vlm, tuples, **options)
    sweep = {"base": base, "strengths": strengths, "least_kept": finite_number(share, "share")}
    points = evaluate_strengths(vlm, method, tuples, **sweep, **options)
    found = at_knowledge(vlm, method, share, tuples, points=points, **search, **options)
    if found.strength is None:
        raise UwmError(f"{found.reason}: ask for another share, or look among other strengths.")
    return method(found.strength)


def knowledge_table(found: Mapping[str, AtKnowledge], test: Mapping[str, Setting]) -> pd.DataFrame:
    """Say for each method at which strength it keeps the share, and what it keeps on the test tuples.

    Parameters
    ----------
    found : mapping of str to AtKnowledge
        What `at_knowledge` returned, by row.
    test : mapping of str to Setting
        The same edits measured on the test tuples, by row; rows without a strength are not in it.

    Returns
    -------
    DataFrame
        Index: row. Columns: share, strength, kept where it was found, kept on test, why.

    Raises
    ------
    UwmError
        If a row with a strength was not measured, or one that is measured was not asked for.

    Examples
    --------
    >>> from uwmlib.comparison import AtKnowledge, knowledge_table
    >>> none = AtKnowledge(95.0, None, None, "still 99.0% at 0.64")
    >>> knowledge_table({"reversed": none}, {}).T
    row                              reversed
    share (%)                            95.0
    strength                             None
    kept where found (%)                    –
    kept, test (%)                          –
    why                   still 99.0% at 0.64
    """
    lacking = {row for row, each in found.items() if each.strength is not None} ^ set(test)
    if lacking:
        raise UwmError(
            f"{min(lacking)} has a strength or a measurement, not both: measure the rows with a strength."
        )
    rows = {
        row: {
            "share (%)": each.share,
            "strength": each.strength,
            "kept where found (%)": str(each.setting["knowledge_kept"]) if each.setting else "–",
            "kept, test (%)": str(test[row]["knowledge_kept"]) if row in test else "–",
            "why": each.reason,
        }
        for row, each in found.items()
    }
    return pd.DataFrame(rows).T.rename_axis("row")


def _kept(setting: Setting) -> float:
    return setting["knowledge_kept"].value


def _without(share: float, why: str) -> AtKnowledge:
    return AtKnowledge(share, None, None, f"no strength: {why}")


def _close_in(surplus: Callable[[float], float], low: float, high: float, *, steps: int) -> None:
    """Try strengths of three digits between the two, until one has no surplus."""
    from scipy.optimize import brentq  # here, because it takes a second to load

    ends = {math.log(strength): strength for strength in (low, high)}
    brentq(lambda x: surplus(ends.get(x) or float(f"{math.exp(x):.3g}")), *ends, maxiter=steps, disp=False)
