"""A safe shift measured from features: no pass of the model, at any strength."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace

from uwmlib.comparison.equal_knowledge import AtKnowledge, strength_that_keeps
from uwmlib.comparison.settings import Setting
from uwmlib.comparison.strengths import sweep
from uwmlib.editing import Features, SafeShift
from uwmlib.evaluation import Evaluation, evaluate_features

SHIFTS = (0.05, 0.1, 0.2, 0.4, 0.8, 1.6, 3.2)  #: strengths of a safe shift among which one is looked for


def shifted_setting(
    shift: SafeShift, alpha: float | Mapping[str, float], features: Features, *, base: Evaluation
) -> Setting:
    """Return what `evaluate_edits` would of `shift.edit(alpha)`, up to the rounding of its weights.

    Parameters
    ----------
    shift : SafeShift
    alpha : float, or mapping of encoder to float
    features : Features
        Of the unedited model, or of one under an edit that leaves the last bias and the projection alone.
    base : Evaluation
        Of the model before any edit, on the same items.

    Returns
    -------
    Setting

    Examples
    --------
    >>> import uwmlib as uwm
    >>> from uwmlib.comparison import shifted_setting
    >>> from uwmlib.editing import collect_features, fit_safe_shift
    >>> from uwmlib.evaluation import evaluate_features
    >>> vlm = uwm.load_model("mini-ViT-L-14")
    >>> validation = uwm.load_tuples("mini-visu", split="validation", n=50)
    >>> features = collect_features(vlm, validation)
    >>> base = evaluate_features(features)
    >>> shift = fit_safe_shift(vlm, features)
    >>> found = shifted_setting(shift, 0.5, features, base=base)
    >>> found["safe_bias"].value > 0, found.n_weights
    (True, 224)
    """
    run = evaluate_features(features.changed(shift.changes(alpha)))
    return Setting((run,), base, shift.edit(alpha).n_weights)


def shift_that_keeps(
    shift: SafeShift,
    share: float,
    features: Features,
    *,
    strengths: Iterable[float] = SHIFTS,
    tolerance: float = 0.5,
    steps: int = 12,
) -> AtKnowledge:
    """Find the strength at which a safe shift keeps `share` percent of the base's knowledge.

    Parameters
    ----------
    shift : SafeShift
    share : float in (0, 100)
    features : Features
        Of the unedited model, on tuples of the split "validation" or of any but "test".
    strengths : iterable of float
        Of the sweep in which the strength is looked for; it ends behind the first that keeps less.
    tolerance, steps
        Of `at_knowledge`.

    Returns
    -------
    AtKnowledge
        Its setting has no zero-shot accuracy and no benign use: these choose nothing.

    Raises
    ------
    UwmError
        As `strength_that_keeps`.

    Examples
    --------
    >>> import uwmlib as uwm
    >>> from uwmlib.comparison import shift_that_keeps
    >>> from uwmlib.editing import collect_features, fit_safe_shift
    >>> vlm = uwm.load_model("mini-ViT-L-14")
    >>> tuples = uwm.load_tuples("mini-visu", split="train", n=100)
    >>> validation = uwm.load_tuples("mini-visu", split="validation", n=100)
    >>> features = collect_features(vlm, validation)
    >>> found = shift_that_keeps(
    ...     fit_safe_shift(vlm, tuples, progress=False), 80, features, tolerance=3
    ... )
    >>> abs(found.setting["knowledge_kept"].value - 80) <= 3
    True
    """
    few = replace(features, benign={}, zero_shot={})
    base = evaluate_features(few)

    def measure(alpha: float) -> Setting:
        return shifted_setting(shift, alpha, few, base=base)

    points = sweep(measure, strengths, least_kept=share)
    return strength_that_keeps(measure, share, points=points, tolerance=tolerance, steps=steps)
