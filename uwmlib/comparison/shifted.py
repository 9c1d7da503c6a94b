"""A safe shift measured from features: no pass of the model, at any strength."""

from __future__ import annotations

from collections.abc import Mapping

from uwmlib.comparison.settings import Setting
from uwmlib.editing import Features, SafeShift
from uwmlib.evaluation import Evaluation, evaluate_features


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
