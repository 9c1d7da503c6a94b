"""One setting of a method: what its edit does to knowledge and safety, beside the base."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from uwmlib.comparison.seeds import score_over_seeds
from uwmlib.editing import WeightEdit
from uwmlib.errors import UwmError
from uwmlib.evaluation import Evaluation, evaluate
from uwmlib.metrics import Measured, Score, knowledge, knowledge_kept, safe_bias, sensitivity
from uwmlib.models.vlm import Vlm
from uwmlib.tuples.tuples import Tuples

#: What a setting has besides the scores of its evaluation, each from that and from the base's.
DERIVED: dict[str, Callable[[Mapping[str, Score], Mapping[str, Score]], Score]] = {
    "knowledge": lambda found, base: knowledge(found),
    "knowledge_kept": knowledge_kept,
    "safe_bias": lambda found, base: safe_bias(found),
    "sensitivity": lambda found, base: sensitivity(found),
}


@dataclass(frozen=True, eq=False)
class Setting(Measured):
    """What was measured of one setting of a method, and of its base, on the same tuples.

    Its scores are those of the evaluation and "knowledge", "knowledge_kept" (as a share of the base's), "safe_bias"
    and "sensitivity" (over both query modalities); of several runs their means (`score_over_seeds`).

    Attributes
    ----------
    runs : tuple of Evaluation
        One of each seed; a single one where nothing is drawn. The base itself is `Setting((base,), base)`.
    base : Evaluation
        Of the model before the edit.
    n_weights : float
        How many weights are edited, on average over the runs.

    Raises
    ------
    UwmError
        If there is no run, one is no Evaluation, or runs and base were not measured on the same tuples.

    Examples
    --------
    >>> import uwmlib as uwm
    >>> from uwmlib.comparison import Setting
    >>> vlm = uwm.load_model("mini-ViT-L-14")
    >>> base = uwm.evaluate(vlm, uwm.load_tuples("mini-visu", n=8))
    >>> setting = Setting((base,), base)
    >>> print(setting["knowledge_kept"])
    100.0 [100.0, 100.0]
    >>> setting.split
    'test'
    """

    runs: tuple[Evaluation, ...]
    base: Evaluation
    n_weights: float = 0.0

    def __post_init__(self) -> None:
        object.__setattr__(self, "runs", tuple(self.runs))
        if not self.runs or not all(isinstance(each, Evaluation) for each in (*self.runs, self.base)):
            raise UwmError(
                "A setting is at least one Evaluation of its edit, and one of the base: give both."
            )
        if len({(each.data, each.split, each.safeground.n) for each in (*self.runs, self.base)}) > 1:
            raise UwmError(
                f"The edit and its base were not both measured on {self.base.data}: use the same tuples."
            )

    @property
    def split(self) -> str:
        """The split of the tuples; empty where they have none."""
        return self.base.split

    def __iter__(self) -> Iterator[str]:
        yield from self.runs[0]
        yield from DERIVED

    def _score(self, key: str) -> Score:
        derive = DERIVED.get(key)
        return score_over_seeds([derive(run, self.base) if derive else run[key] for run in self.runs])


def evaluate_edits(
    vlm: Vlm,
    edits: WeightEdit | Sequence[WeightEdit],
    tuples: Tuples,
    *,
    base: Evaluation,
    **options: Any,
) -> Setting:
    """Measure a model under an edit, or under each of several that differ in their seed.

    Parameters
    ----------
    vlm : Vlm
        As it was before afterwards.
    edits : WeightEdit or sequence of WeightEdit
    tuples : Tuples
    base : Evaluation
        Of `vlm` without an edit, on the same tuples.
    **options
        Of `evaluate`. With a `cache` an encoder that the edit leaves alone is not embedded again.

    Raises
    ------
    UwmError
        As `WeightEdit.applied`, `evaluate` and `Setting`.

    Examples
    --------
    >>> import uwmlib as uwm
    >>> from uwmlib.comparison import evaluate_edits
    >>> from uwmlib.editing import select_random
    >>> vlm = uwm.load_model("mini-ViT-L-14")
    >>> tuples = uwm.load_tuples("mini-visu", split="validation", n=50)
    >>> base = uwm.evaluate(vlm, tuples)
    >>> edits = [select_random(vlm, tau=0.1, seed=seed) for seed in (0, 1)]
    >>> setting = evaluate_edits(vlm, edits, tuples, base=base)
    >>> len(setting.runs), setting["knowledge_kept"].value < 100
    (2, True)
    """
    each = [edits] if isinstance(edits, WeightEdit) else list(edits)
    if not all(isinstance(edit, WeightEdit) for edit in each):
        raise UwmError("What is measured is an edit, or a list of them: give those that `select` made.")
    runs = []
    for edit in each:
        with edit.applied(vlm):
            runs.append(evaluate(vlm, tuples, **options))
    return Setting(tuple(runs), base, sum(edit.n_weights for edit in each) / max(1, len(each)))


def require_settings(settings: object, what: str) -> None:
    """Raise UwmError unless `settings` maps at least one name to a Setting, all beside one base."""
    if not isinstance(settings, Mapping) or not settings:
        raise UwmError(
            f"{what} are no settings by name: give a mapping such as `evaluate_strengths` returns."
        )
    if wrong := [name for name, each in settings.items() if not isinstance(each, Setting)]:
        raise UwmError(
            f"{wrong[0]!r} among {what} is no Setting, and does not say which tuples it was measured on: "
            "measure it with evaluate_edits."
        )
    bases = {
        (each.base.model, each.base.data, each.split, each.base.safeground.n) for each in settings.values()
    }
    if len(bases) > 1:
        raise UwmError(f"{what} are of more than one model or set of tuples: give those of one.")


def refuse_test(split: str) -> None:
    """Raise UwmError if a setting is about to be chosen on the tuples that it will be judged by."""
    if split.casefold() == "test":
        raise UwmError(
            "These are tuples of the split 'test', on which nothing may be chosen: use those of 'validation'."
        )
