"""A method measured over its strength."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

from uwmlib.comparison.controls import EditAt
from uwmlib.comparison.settings import Setting, evaluate_edits
from uwmlib.errors import UwmError
from uwmlib.evaluation import Evaluation
from uwmlib.models.vlm import Vlm
from uwmlib.options import finite_number, shown
from uwmlib.tuples.tuples import Tuples

STRENGTHS = (0.005, 0.01, 0.02, 0.04, 0.08, 0.16, 0.32, 0.64)  #: of tau, each twice the one before


def evaluate_strengths(
    vlm: Vlm,
    method: EditAt,
    tuples: Tuples,
    *,
    base: Evaluation,
    strengths: Iterable[float] = STRENGTHS,
    least_kept: float = 0.0,
    **options: Any,
) -> dict[float, Setting]:
    """Measure a method from its weakest strength to its strongest.

    Parameters
    ----------
    vlm : Vlm
        As it was before afterwards.
    method : callable (float) -> WeightEdit, or a list of them
        Such as `lambda tau: scores.select(tau=tau)`, or one of `with_controls`. Of a list, edits that differ in their
        seed, each is measured, and their means are the scores.
    tuples : Tuples
        Fewer of them take less time, as in `validation[:500]`, but are an easier gallery (see `knowledge`).
    base : Evaluation
        Of `vlm` without an edit, on the same tuples.
    strengths : iterable of float
        Positive.
    least_kept : float
        Stop behind the first strength that keeps less than this share of the base's knowledge, in percent.
    **options
        Of `evaluate`. With a `cache` an encoder that the edit leaves alone is not embedded again.

    Returns
    -------
    dict of float to Setting
        In ascending order of strength.

    Raises
    ------
    UwmError
        For a method that cannot be called, no strength or one that is not positive, and as `evaluate_edits`.

    Examples
    --------
    >>> import uwmlib as uwm
    >>> from uwmlib.comparison import  evaluate_strengths
    >>> from uwmlib.editing import select_magnitude
    >>> vlm = uwm.load_model("mini-ViT-L-14")
    >>> tuples = uwm.load_tuples("mini-visu", split="validation", n=50)
    >>> base = uwm.evaluate(vlm, tuples)
    >>> points = evaluate_strengths(
    ...     vlm,
    ...     lambda tau: select_magnitude(vlm, tau=tau),
    ...     tuples,
    ...     base=base,
    ...     strengths=[0.5, 0.1, 0.9],
    ...     least_kept=50,
    ... )
    >>> list(points)  # the second keeps less than half of the knowledge
    [0.1, 0.5]
    """
    if not callable(method):
        raise UwmError(f"The method is {shown(method)}: give a function from a strength to an edit.")

    def measure(strength: float) -> Setting:
        return evaluate_edits(vlm, method(strength), tuples, base=base, **options)

    return sweep(measure, strengths, least_kept=least_kept)


def sweep(
    measure: Callable[[float], Setting], strengths: Iterable[float], *, least_kept: float = 0.0
) -> dict[float, Setting]:
    """Measure whatever has a strength from its weakest to its strongest, as `evaluate_strengths` does.

    Parameters
    ----------
    measure : callable (float) -> Setting
    strengths : iterable of float
        Positive.
    least_kept : float

    Raises
    ------
    UwmError
        For no strength, or one that is not positive.

    Examples
    --------
    >>> from uwmlib.comparison import sweep
    >>> sweep(lambda strength: None, [])
    Traceback (most recent call last):
    ...
    uwmlib.errors.UwmError: The strengths are []: give positive numbers, ...
    """
    ordered = sorted({finite_number(strength, "A strength") for strength in strengths})
    if not ordered or ordered[0] <= 0:
        raise UwmError(f"The strengths are {shown(ordered)}: give positive numbers, such as 0.01 and 0.02.")
    points: dict[float, Setting] = {}
    for strength in ordered:
        points[strength] = measure(strength)
        if points[strength]["knowledge_kept"].value < least_kept:
            break
    return points
