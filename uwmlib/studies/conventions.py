"""Every convention in which paper and released code differ, switched one at a time on one model."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from os import PathLike
from typing import Any

from uwmlib.comparison import Setting, evaluate_edits, setting_difference
from uwmlib.editing import Overlap, Scores, WeightEdit, gradient_scores, overlap_by_encoder, score
from uwmlib.errors import UwmError
from uwmlib.evaluation import evaluate
from uwmlib.metrics import Difference, mean_over_seeds
from uwmlib.models import Vlm
from uwmlib.options import ENCODERS, known
from uwmlib.profiles import Profile
from uwmlib.studies.evaluations import load_evaluations, save_evaluations
from uwmlib.studies.files import read_from, shipped
from uwmlib.tuples import Tuples, per_concept

UWM = "UWM"  #: as released
#: Rows of one calibration pass -> what `Scores.select` is asked for.
SELECTIONS: dict[str, dict[str, Any]] = {
    "ratio of the means": {"variant": "paper"},
    "fixed rule": {"rule": "fixed"},
    "no prior": {"prior": ()},
    "prior in both": {"prior": ("text", "vision")},
}
#: Rows with a pass of their own -> what `score` is asked for.
PASSES: dict[str, dict[str, Any]] = {
    "no epsilon": {"epsilon": 0.0},
    "batches alike": {"batch_size": 128, "weigh": "batches"},  # as in vision, for fc2
    "a last batch of two": {"batch_size": 333, "weigh": "batches"},  # of 2,000 tuples
}
UNSAFE = "unsafe only"  #: the second row of Tables 3 and 6
UNSAFE_ADAPTIVE = "unsafe only, adaptive"  #: the third row of Table 6, by its heading
#: Rows of the unsafe score alone -> what `Scores.select` is asked for.
UNSAFE_ROWS: dict[str, dict[str, Any]] = {
    UNSAFE: {"variant": "unsafe-only", "rule": "fixed"},
    "unsafe only, no prior": {"variant": "unsafe-only", "rule": "fixed", "prior": ()},
    UNSAFE_ADAPTIVE: {"variant": "unsafe-only"},
}
UNSAFE_MIXED = (
    "unsafe only, adaptive, ratio in text"  #: the third row of Table 6, as the released code has it
)
GRADIENTS = "G-Unsafe"  #: as released, but for its batches
#: Rows of the baseline -> what `gradient_scores` and then `select` are asked for.
_RULES = {"text": "fixed", "vision": "adaptive"}
GRADIENT_ROWS: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    GRADIENTS: ({}, {}),
    "printed targets": ({"variant": "paper"}, {"rule": _RULES}),
    "fixed rule in vision": ({}, {"rule": "fixed"}),
    "batches of 512 in text": ({"batch_size": {"text": 512, "vision": 64}}, {}),
    "gradient batches alike": ({"weigh": "batches"}, {}),
    "G-Unsafe as printed": ({"variant": "paper"}, {}),
}
ANOTHER = "draw 1"  #: the calibration set that the baseline and the unsafe score are made from once more
UNSAFE_AGAIN, GRADIENTS_AGAIN = f"{UNSAFE}, {ANOTHER}", f"{GRADIENTS}, {ANOTHER}"
#: Rows that one encoder alone is edited in -> what `Scores.select` is asked for.
ENCODERS_ALONE: dict[str, dict[str, Any]] = {"vision alone": {"text": None}, "text alone": {"vision": None}}
COCA = "CoCa"  #: class of the models of which `ENCODERS_ALONE` are measured, and nothing else
DRAWS = 3  #: of calibration tuples, besides the first


@dataclass(frozen=True, eq=False)
class Conventions:
    """What the study found of one model.

    Attributes
    ----------
    rows : dict of str to Setting
        Convention -> what was measured of the edit with it switched, on the test tuples; the unswitched edits stand
        among them ("UWM", "unsafe only", "unsafe only, adaptive", "G-Unsafe").
    masks : dict of str to dict of str to Overlap
        Convention -> encoder -> the weights that are chosen, beside those of the unswitched edit.

    Examples
    --------
    The study that ships:

    >>> from uwmlib.studies import beside, load_conventions, study_path
    >>> study, _ = load_conventions(study_path("conventions", "mini-ViT-L-14"))
    >>> list(study.rows)[:3]
    ['UWM', 'ratio of the means', 'fixed rule']
    >>> beside("ratio of the means"), beside("printed targets")
    ('UWM', 'G-Unsafe')
    """

    rows: dict[str, Setting]
    masks: dict[str, dict[str, Overlap]]

    @property
    def base(self) -> Setting:
        """The unedited model."""
        base = self.rows[UWM].base
        return Setting((base,), base)


def beside(row: str) -> str:
    """Return the unswitched row that a switched one is compared with.

    Examples
    --------
    >>> from uwmlib.studies import beside
    >>> beside("unsafe only, no prior")
    'unsafe only'
    """
    if row in (UNSAFE_MIXED, UNSAFE_ADAPTIVE):
        return UNSAFE_ADAPTIVE
    if row in UNSAFE_ROWS or row == UNSAFE_AGAIN:
        return UNSAFE
    return GRADIENTS if row in GRADIENT_ROWS or row == GRADIENTS_AGAIN else UWM


def convention_changes(
    found: Mapping[int, Conventions], rows: Iterable[str], keys: Iterable[str]
) -> dict[str, dict[str, Difference]]:
    """Return what each row changes in each score: a switched one against its unswitched row, that against the base.

    Parameters
    ----------
    found : mapping of int to Conventions
        Seed -> the study of its base, all on the same test tuples.
    rows, keys : iterable of str
        Rows of the studies, and scores of a `Setting`.

    Returns
    -------
    dict of str to dict of str to Difference
        Row -> score -> paired difference, of several bases their `mean_over_seeds`.

    Examples
    --------
    >>> from uwmlib.studies import (
    ...     convention_changes, load_conventions, study_path
    ... )
    >>> study, _ = load_conventions(study_path("conventions", "mini-ViT-L-14"))
    >>> changes = convention_changes({0: study}, ["no epsilon"], ["gs"])
    >>> changes["no epsilon"]["gs"].difference
    0.0
    """
    keys = list(keys)

    def change(study: Conventions, row: str, key: str) -> Difference:
        other = study.base if beside(row) == row else study.rows[beside(row)]
        return setting_difference(study.rows[row], other, key)

    return {
        row: {key: mean_over_seeds([change(study, row, key) for study in found.values()]) for key in keys}
        for row in rows
    }


def edits_switched(
    vlm: Vlm,
    calibration: Tuples,
    *,
    draws: Mapping[str, Tuples] | None = None,
    tau: float = 0.02,
    alpha: float = -1.0,
    only: Iterable[str] = (),
    **options: Any,
) -> dict[str, WeightEdit]:
    """Return the edits with one convention switched in each, and those that nothing is switched in.

    Parameters
    ----------
    vlm : Vlm
    calibration : Tuples
    draws : mapping of str to Tuples, optional
        Other calibration sets, by the names of their rows.
    tau, alpha : float
        Of UWM; the baseline has its own.
    only : iterable of str
        Rows; empty for all of them.
    **options
        `cache`, `progress` and `batch_size` of `score`.

    Returns
    -------
    dict of str to WeightEdit

    Raises
    ------
    UwmError
        For an unknown row, and as `score`, `gradient_scores` and `Scores.select`.

    Examples
    --------
    >>> import uwmlib as uwm
    >>> from uwmlib.studies import edits_switched
    >>> vlm = uwm.load_model("mini-ViT-B-32")
    >>> tuples = uwm.load_tuples("mini-visu", split="train", n=8)
    >>> edits = edits_switched(
    ...     vlm, tuples, only=["UWM", "fixed rule"], progress=False
    ... )
    >>> [round(edit.share()["text"], 3) for edit in edits.values()]
    [0.005, 0.02]
    """
    draws, asked = dict(draws or {}), {"tau": tau, "alpha": alpha}
    again = [UNSAFE_AGAIN, GRADIENTS_AGAIN] if ANOTHER in draws else []
    rows = [*SELECTIONS, *PASSES, *draws, *UNSAFE_ROWS, UNSAFE_MIXED, *GRADIENT_ROWS, *again]
    rows = [UWM, *([*draws, *ENCODERS_ALONE] if is_coca(vlm) else rows)]
    wanted = [known(row, [*rows, *ENCODERS_ALONE], "row of conventions") for row in only] or rows
    scores: dict[str, Scores] = {}

    def scored(row: str, tuples: Tuples, reading: Mapping[str, Any]) -> Scores:
        if row not in scores:
            scores[row] = score(vlm, tuples, **options | reading)
        return scores[row]

    def edit_of(row: str) -> WeightEdit:
        if row in PASSES or row in draws:
            return scored(row, draws.get(row, calibration), PASSES.get(row, {})).select(**asked)
        if beside(row) == GRADIENTS:
            reading, how = GRADIENT_ROWS.get(row, ({}, {}))
            tuples = draws[ANOTHER] if row == GRADIENTS_AGAIN else calibration
            return gradient_scores(vlm, tuples, **options | reading).select(**how)
        if row == UNSAFE_AGAIN:
            return scored(ANOTHER, draws[ANOTHER], {}).select(**asked, **UNSAFE_ROWS[UNSAFE])
        first = scored(UWM, calibration, {})
        if row == UNSAFE_MIXED:
            vision = first.select(**asked, **UNSAFE_ROWS[UNSAFE_ADAPTIVE], text=None)
            return first.select(**asked, vision=None).merged(vision)
        return first.select(**asked, **(SELECTIONS | UNSAFE_ROWS | ENCODERS_ALONE).get(row, {}))

    return {row: edit_of(row) for row in wanted}


def is_coca(vlm: Vlm) -> bool:
    """Say whether a model is one in which the released code edits one encoder alone."""
    return type(vlm.model).__name__ == COCA


def measure_conventions(
    vlm: Vlm, edits: Mapping[str, WeightEdit], test: Tuples, **options: Any
) -> Conventions:
    """Measure edits of one model on the test tuples, and compare which weights they choose.

    Parameters
    ----------
    vlm : Vlm
        As it was before afterwards.
    edits : mapping of str to WeightEdit
        As `edits_switched` returns them, each beside its unswitched one.
    test : Tuples
    **options
        Of `evaluate`.

    Examples
    --------
    >>> import uwmlib as uwm
    >>> from uwmlib.studies import edits_switched, measure_conventions
    >>> vlm = uwm.load_model("mini-ViT-B-32")
    >>> few = [
    ...     uwm.load_tuples("mini-visu", split=split, n=8)
    ...     for split in ("train", "test")
    ... ]
    >>> only = ["UWM", "no prior"]
    >>> edits = edits_switched(vlm, few[0], only=only, progress=False)
    >>> study = measure_conventions(vlm, edits, few[1])
    >>> study.masks["no prior"]["vision"].jaccard
    1.0
    """
    if UWM not in edits:
        raise UwmError(f"Every convention is switched in {UWM}: give its edit among them.")
    base = evaluate(vlm, test, **options)
    rows = {row: evaluate_edits(vlm, edit, test, base=base, **options) for row, edit in edits.items()}
    masks = {row: overlap_by_encoder(edit, edits[beside(row)]) for row, edit in edits.items()}
    return Conventions(rows, masks)


def save_conventions(path: str | PathLike, study: Conventions, *, facts: Mapping[str, Any]) -> None:
    """Save the study with the facts that it rests on; `load_conventions` reads it.

    Examples
    --------
    >>> import tempfile
    >>> from uwmlib import studies
    >>> path = studies.study_path("conventions", "mini-CoCa")
    >>> study, facts = studies.load_conventions(path)
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     studies.save_conventions(f"{folder}/mine", study, facts=facts)
    ...     again, _ = studies.load_conventions(f"{folder}/mine")
    >>> list(again.rows) == list(study.rows)
    True
    """
    masks = [
        [row, {encoder: asdict(each) for encoder, each in found.items()}]
        for row, found in study.masks.items()
    ]
    about = {"masks": masks, "n_weights": {row: each.n_weights for row, each in study.rows.items()}}
    evaluations = {"": study.base.base} | {row: each.runs[0] for row, each in study.rows.items()}
    save_evaluations(path, evaluations, facts=about | {"rests on": dict(facts)})


def load_conventions(path: str | PathLike) -> tuple[Conventions, dict[str, Any]]:
    """Load what `save_conventions` wrote; the second is what it rests on.

    Raises
    ------
    UwmError
        If the file is missing, damaged, or of another kind.

    Examples
    --------
    >>> from uwmlib.studies import load_conventions, study_path
    >>> study, facts = load_conventions(study_path("conventions", "mini-CoCa"))
    >>> study.rows["vision alone"].split, facts["tau"]
    ('test', 0.02)
    """
    found, facts = load_evaluations(path)
    base = found.pop("")
    rows = {row: Setting((each,), base, facts["n_weights"][row]) for row, each in found.items()}
    masks = {
        row: {encoder: Overlap(**each) for encoder, each in by_encoder.items()}
        for row, by_encoder in facts["masks"]
    }
    return Conventions(rows, masks), facts["rests on"]


def conventions_rest_on(
    vlm: Vlm, *, calibration: Tuples, test: Tuples, tau: float, alpha: float
) -> dict[str, Any]:
    """Return all that the study depends on, the library's code apart."""
    return {
        "model": {encoder: vlm.facts(encoder) for encoder in ENCODERS}, "tau": tau, "alpha": alpha,
        "calibration": calibration.fingerprint, "test": test.fingerprint,
    }  # fmt: skip


def shipped_conventions(vlm: Vlm, **parts: Any) -> tuple[Conventions | None, str]:
    """Return the study of a model from a shipped file if one rests on just this.

    Parameters
    ----------
    vlm : Vlm
    **parts
        The `calibration` and `test` tuples, `tau` and `alpha`.

    Returns
    -------
    Conventions or None, str
        The second says where the first comes from.

    Examples
    --------
    >>> import uwmlib as uwm
    >>> from uwmlib.studies import shipped_conventions
    >>> vlm = uwm.load_model("mini-ViT-L-14")
    >>> few = uwm.load_tuples("mini-visu", n=8)
    >>> parts = {"calibration": few, "test": few, "tau": 0.02, "alpha": -1.0}
    >>> shipped_conventions(vlm, **parts)
    (None, 'Nothing ships that rests on this model, these tuples and settings.')
    """
    held = shipped("conventions", vlm.name, load_conventions, lambda: conventions_rest_on(vlm, **parts))
    if held is None:
        return None, "Nothing ships that rests on this model, these tuples and settings."
    return held, read_from("conventions", vlm.name)


def draws_of(setup: Profile, n: int, *, sizes: bool = True) -> dict[str, Tuples]:
    """Return other calibration sets: tuples that the first draw does not have, as many of each concept, all of them.

    Examples
    --------
    >>> import uwmlib as uwm
    >>> from uwmlib.studies import draws_of
    >>> draws = draws_of(uwm.profile("mini"), n=100, sizes=False)
    >>> [(row, len(tuples)) for row, tuples in draws.items()]
    [('draw 1', 100), ('draw 2', 100), ('draw 3', 100)]
    """
    pool = setup.load_tuples("train", n=(DRAWS + 1) * n)
    draws = {f"draw {k}": pool[k * n : (k + 1) * n] for k in range(1, DRAWS + 1)}
    if sizes:
        everything = setup.load_tuples("train")
        draws["alike per concept"] = per_concept(everything, n=n // len(set(everything.concepts)))
        draws["four times as many"] = pool
    return {row: tuples for row, tuples in draws.items() if len(tuples)}


def make_conventions(setup: Profile, path: PathLike, *, n: int = 2000, **options: Any) -> None:
    """Measure the study of a profile's base model and write its file."""
    vlm = setup.load_base()
    parts = {"calibration": setup.load_tuples("train", n=n), "test": setup.load_tuples("test")}
    asked = {"tau": 0.02, "alpha": -1.0}
    draws = draws_of(setup, n, sizes=not is_coca(vlm))
    edits = edits_switched(vlm, parts["calibration"], draws=draws, **asked, **options)
    study = measure_conventions(vlm, edits, parts["test"], **options)
    save_conventions(path, study, facts=conventions_rest_on(vlm, **parts, **asked))
