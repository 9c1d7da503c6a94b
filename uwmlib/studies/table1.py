"""The rows of Table 1 on one base: what a verdict over several bases is made of."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from uwmlib.comparison import Choice, Setting, choose_on_validation
from uwmlib.editing import Scores, WeightEdit, gradient_scores, single_tokens, word_list_edit
from uwmlib.evaluation import Evaluation, evaluate
from uwmlib.models.vlm import Vlm
from uwmlib.studies.controlled import EqualKnowledge, methods_compared
from uwmlib.tuples import Tuples

VALIDATED = "UWM, validated"


@dataclass(frozen=True)
class Readings:
    """How the edits of Table 1 are made: the parameters of its chapter.

    Attributes
    ----------
    tau, alpha : float
    variant : "released" or "paper"
        Reading of the score.
    baseline_reading : "released" or "paper"
        Of the gradient baselines.

    Examples
    --------
    >>> from uwmlib.studies import Readings
    >>> Readings(tau=0.05).variant
    'released'
    """

    tau: float = 0.02
    alpha: float = -1.0
    variant: str = "released"
    baseline_reading: str = "released"


#: Method of the curves -> reading of the score.
READINGS = {"UWM": "released", "UWM printed": "paper"}


def choose_uwm(
    curves: Mapping[str, Mapping[float, Setting]],
) -> tuple[Choice, tuple[str, float] | None]:
    """Pick reading and strength of UWM by the rule of `choose_on_validation`, among the settings of the curves.

    Parameters
    ----------
    curves : mapping of str to mapping of float to Setting
        What `uwm_curves` returns, or those of a study.

    Returns
    -------
    Choice, (str, float) or None
        The second is a key of `READINGS` and its strength; None where the base is kept.

    Examples
    --------
    >>> from uwmlib.manifests import manifest_path
    >>> from uwmlib.studies import choose_uwm
    >>> from uwmlib.studies.controlled import load_equal_knowledge
    >>> folder = manifest_path("studies", "equal_knowledge")
    >>> study, _ = load_equal_knowledge(folder / "mini-ViT-B-16.safetensors")
    >>> choice, place = choose_uwm(study.curves)
    >>> choice.name, place
    ('UWM, tau = 0.04', ('UWM', 0.04))
    """
    places = {
        f"{name}, tau = {strength:g}": (name, strength) for name in READINGS for strength in curves[name]
    }
    choice = choose_on_validation({row: curves[name][at] for row, (name, at) in places.items()})
    return choice, places.get(choice.name)


def edits_of_table1(
    scores: Scores,
    calibration: Tuples,
    study: EqualKnowledge,
    *,
    readings: Readings = Readings(),
    **options: Any,
) -> dict[str, WeightEdit]:
    """Return the edits of Table 1 and of the rows beside it, in the order of the table."""
    vlm, plan = scores.vlm, {"tau": readings.tau, "alpha": readings.alpha, "variant": readings.variant}
    losses = {"G-Safe-CLIP": "g-safe-clip", "G-Unsafe": "g-unsafe"}
    edits = {
        row: gradient_scores(
            vlm, calibration, loss=loss, variant=readings.baseline_reading, **options
        ).select()
        for row, loss in losses.items()
    }
    edits["UWM"] = scores.select(**plan)
    _, chosen = choose_uwm(study.curves)
    if chosen is not None:
        name, strength = chosen
        edits[VALIDATED] = methods_compared(scores)[name](strength)
    if words := list(single_tokens(vlm, sorted(set(calibration.concepts)))):
        edits["Word list"] = word_list_edit(vlm, words)
    return edits


def measure_rows(
    vlm: Vlm, edits: Mapping[str, WeightEdit], test: Tuples, *, others: Mapping[str, Vlm], **options: Any
) -> dict[str, Evaluation]:
    """Measure the base, the base under each edit, and other models, on the test tuples.

    Parameters
    ----------
    vlm : Vlm
        As it was before afterwards.
    edits : mapping of str to WeightEdit
    test : Tuples
    others : mapping of str to Vlm
        Such as the Safe-CLIP of this base.
    **options
        Of `evaluate`.

    Examples
    --------
    >>> import uwmlib as uwm
    >>> from uwmlib.editing import select_magnitude
    >>> from uwmlib.studies import measure_rows
    >>> vlm = uwm.load_model("mini-ViT-B-32")
    >>> few = uwm.load_tuples("mini-visu", n=8)
    >>> edits = {"magnitude": select_magnitude(vlm, tau=0.1)}
    >>> list(measure_rows(vlm, edits, few, others={}))
    ['CLIP', 'magnitude']
    """
    rows = {"CLIP": evaluate(vlm, test, **options)}
    for name, edit in edits.items():
        with edit.applied(vlm):
            rows[name] = evaluate(vlm, test, **options)
    return rows | {name: evaluate(other, test, **options) for name, other in others.items()}
