"""Which setting of a method is taken, by a rule stated beforehand and on validation tuples alone."""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from dataclasses import dataclass

import pandas as pd

from uwmlib.comparison.settings import Setting, refuse_test, require_settings
from uwmlib.options import finite_number

LEAST_KEPT = 80.0  #: percent of the base's knowledge; the paper's UWM keeps 80.9 in Table 1


@dataclass(frozen=True)
class Choice:
    """What the rule chose, why, and among what.

    Attributes
    ----------
    name : hashable or None
        Name of the chosen setting; None where the base is kept.
    setting : Setting
        What was measured of it; of the base where that is kept.
    reason : str
    table : DataFrame
        One row for each candidate: weights edited, knowledge kept and safe bias with their intervals, whether it keeps
        enough, and whether it was chosen.

    Examples
    --------
    >>> from uwmlib.comparison import Choice
    >>> Choice.__dataclass_fields__.keys() >= {"name", "reason", "table"}
    True
    """

    name: Hashable | None
    setting: Setting
    reason: str
    table: pd.DataFrame


def choose_on_validation(candidates: Mapping[Hashable, Setting], *, least_kept: float = LEAST_KEPT) -> Choice:
    """Take the most safe bias among the settings that keep at least `least_kept` percent of the base's knowledge.

    The bias is the sum of c over both query modalities (`safe_bias`), knowledge the mean recall@1 of both directions of
    safe pairs (`knowledge_kept`). Of equal biases the smaller edit is taken, then the first. If no setting keeps
    enough, the base is kept.

    Parameters
    ----------
    candidates : mapping of name to Setting
        Of one model on the same tuples; what `evaluate_strengths` returns, or settings of several methods.
    least_kept : float

    Returns
    -------
    Choice

    Raises
    ------
    UwmError
        If the candidates were measured on the split "test", are none, or not of one model and set of tuples.

    Examples
    --------
    >>> import uwmlib as uwm
    >>> from uwmlib.comparison import choose_on_validation, evaluate_strengths
    >>> from uwmlib.editing import select_magnitude
    >>> vlm = uwm.load_model("mini-ViT-L-14")
    >>> tuples = uwm.load_tuples("mini-visu", split="validation", n=50)
    >>> points = evaluate_strengths(
    ...     vlm,
    ...     lambda tau: select_magnitude(vlm, tau=tau),
    ...     tuples,
    ...     base=uwm.evaluate(vlm, tuples),
    ...     strengths=[0.01, 0.9],
    ... )
    >>> choice = choose_on_validation(points)
    >>> choice.name
    0.01
    >>> list(choice.table["keeps enough"])
    ['yes', 'no']
    """
    require_settings(candidates, "The candidates")
    least_kept = finite_number(least_kept, "least_kept")
    base = next(iter(candidates.values())).base
    refuse_test(base.split)
    enough = {name: each for name, each in candidates.items() if each["knowledge_kept"].value >= least_kept}
    name = max(enough, key=lambda one: (enough[one]["safe_bias"].value, -enough[one].n_weights), default=None)
    setting = Setting((base,), base) if name is None else candidates[name]
    rows = {
        one: {
            "weights edited": round(each.n_weights),
            "knowledge kept (%)": str(each["knowledge_kept"]),
            "safe bias": str(each["safe_bias"]),
            "keeps enough": "yes" if one in enough else "no",
            "chosen": "yes" if one == name else "",
        }
        for one, each in candidates.items()
    }
    table = pd.DataFrame(rows).T.rename_axis("setting")
    return Choice(name, setting, _reason(name, setting, len(enough), len(candidates), least_kept), table)


def _reason(name: Hashable | None, setting: Setting, enough: int, total: int, least_kept: float) -> str:
    rule = f"at least {least_kept:g}% of the base's knowledge"
    where = f"{setting.base.safeground.n:,} tuples of {setting.base.data}"
    known = "" if setting.split else ", which have no split and may be those of the test"
    bias = f"{Setting((setting.base,), setting.base)['safe_bias'].value:+.2f}"
    if name is None:
        return f"None of {total} settings keeps {rule} on {where}{known}: the base is kept, with a bias of {bias}."
    found = (
        f"{setting['safe_bias'].value:+.2f} (base {bias}), with {setting['knowledge_kept'].value:.1f}% kept"
    )
    return f"{name} has the most safe bias, {found}, of the {enough} of {total} settings with {rule} on {where}{known}."
