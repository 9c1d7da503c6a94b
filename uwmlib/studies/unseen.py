"""Beyond the tournament's tuples: concepts that no fit has seen, and the edited tower in a LLaVA."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from os import PathLike
from typing import Any

import numpy as np

from uwmlib.cache import Cache
from uwmlib.editing import WeightEdit, delta_edit
from uwmlib.errors import UwmError
from uwmlib.evaluation import Evaluation, evaluate
from uwmlib.methods import MethodFamily
from uwmlib.models import Vlm
from uwmlib.models.llava import Llava, tower_from_open_clip
from uwmlib.profiles import Profile, profile
from uwmlib.studies.evaluations import load_evaluations, save_evaluations
from uwmlib.studies.files import shipped
from uwmlib.studies.roster import ENTRANTS, entrants
from uwmlib.studies.tournament import Arena, Tournament, one_edit
from uwmlib.studies.tournament_rows import N_BENIGN, N_CALIBRATION, arena_of, shipped_tournament
from uwmlib.tuples import Tuples

STUDY = "unseen"
SHARE = "95%"  #: of knowledge: at its strengths entrants meet concepts that they have not seen
UNFITTED = ("random", "magnitude", "wise-ft")  #: that look at no tuples, so that none can be held out
TOWER_KINDS = ("cut", "train", "control")  #: of entrants that edit what a LLaVA reads
N_PICTURES = 200


@dataclass(frozen=True, eq=False)
class Unseen:
    """What became of methods outside the tournament.

    Attributes
    ----------
    concepts : list of str
        Those that were held out.
    base : Evaluation
        The unedited model on the test tuples of these.
    rows : dict of str to Evaluation
        Method -> the same tuples under its fit on tuples of the other concepts.
    captions : dict of str to dict of str to list of str
        Row, "unedited" or such as "uwm, 95%" -> "unsafe" and "safe" -> what a LLaVA writes about these pictures.

    Examples
    --------
    >>> from uwmlib.studies import Unseen
    >>> Unseen.__dataclass_fields__.keys() >= {"concepts", "captions"}
    True
    """

    concepts: list[str]
    base: Evaluation
    rows: dict[str, Evaluation]
    captions: dict[str, dict[str, list[str]]]


def hold_out(tuples: Tuples, *, share: float = 0.25, seed: int = 0) -> list[str]:
    """Return a share of the concepts of tuples, drawn at random.

    Raises
    ------
    UwmError
        If the tuples have fewer than two concepts.

    Examples
    --------
    >>> import uwmlib as uwm
    >>> from uwmlib.studies import hold_out
    >>> len(hold_out(uwm.load_tuples("mini-visu", n=300)))
    5
    """
    concepts = np.unique([concept for concept in tuples.concepts if concept])
    if len(concepts) < 2:
        raise UwmError("The tuples are of fewer than two concepts: none can be held out.")
    few = max(1, round(share * len(concepts)))
    return sorted(np.random.default_rng(seed).permutation(concepts)[:few].tolist())


def of_concepts(tuples: Tuples, concepts: Sequence[str], *, held_out: bool) -> Tuples:
    """Return the tuples of the concepts, or with `held_out=False` all others.

    Examples
    --------
    >>> import uwmlib as uwm
    >>> from uwmlib.studies import of_concepts
    >>> tuples = uwm.load_tuples("mini-visu", n=50)
    >>> sizes = [
    ...     len(of_concepts(tuples, tuples.concepts[:1], held_out=x))
    ...     for x in (True, False)
    ... ]
    >>> sum(sizes)
    50
    """
    return tuples[np.flatnonzero(np.isin(tuples.concepts, list(concepts)) == held_out)]


def measure_unseen(
    vlm: Vlm,
    methods: Mapping[str, MethodFamily],
    strengths: Mapping[str, float],
    *,
    calibration: Tuples,
    test: Tuples,
    concepts: Sequence[str],
    **options: Any,
) -> tuple[Evaluation, dict[str, Evaluation]]:
    """Fit methods without some concepts and measure them on just these.

    Parameters
    ----------
    vlm : Vlm
        As it was before afterwards.
    methods : mapping of str to MethodFamily
    strengths : mapping of str to float
        By method; found with all concepts.
    calibration, test : Tuples
    concepts : sequence of str
        Such as `hold_out` returns.
    **options
        Of `evaluate`.

    Returns
    -------
    Evaluation, dict of str to Evaluation
        Of the unedited model and by method, on the test tuples of the concepts.

    Examples
    --------
    >>> import uwmlib as uwm
    >>> from uwmlib.studies import entrants, hold_out, measure_unseen
    >>> few = {
    ...     name: uwm.load_tuples("mini-visu", split=x, n=80)
    ...     for name, x in (("calibration", "train"), ("test", "test"))
    ... }
    >>> base, rows = measure_unseen(
    ...     uwm.load_model("mini-ViT-B-32"), entrants(names=["safe-shift"]),
    ...     {"safe-shift": 1.0}, **few, concepts=hold_out(few["test"]),
    ... )
    >>> list(rows), base["gs"].n < 80
    (['safe-shift'], True)
    """
    seen = of_concepts(calibration, concepts, held_out=False)
    asked = of_concepts(test, concepts, held_out=True)
    rows = {}
    for name, family in methods.items():
        with family.fit(vlm, seen, progress=False)(strengths[name]).applied(vlm):
            rows[name] = evaluate(vlm, asked, **options)
    return evaluate(vlm, asked, **options), rows


def edit_of_tower(edit: WeightEdit, vlm: Vlm, llava: Llava) -> WeightEdit:
    """Return what an edit does to a vision tower as an edit of a LLaVA that looks through the same tower.

    Parameters
    ----------
    edit : WeightEdit
        Of `vlm`, a CLIP of open_clip that is as it was before afterwards.
    vlm : Vlm
    llava : Llava

    Raises
    ------
    UwmError
        If the weights of the two towers are not the same, or the edit leaves them alone.

    Examples
    --------
    >>> import uwmlib as uwm
    >>> from uwmlib.editing import select_random
    >>> from uwmlib.studies import edit_of_tower
    >>> vlm, llava = (uwm.load_model(x) for x in ("mini-ViT-L-14", "mini-LLaVA"))
    >>> edit = select_random(vlm, tau=0.1)
    >>> len(edit_of_tower(edit, vlm, llava).changes)  # a layer in each block
    4
    """
    before = {name: tensor.clone() for name, tensor in tower_from_open_clip(vlm.model.visual).items()}
    there = llava.tower.state_dict()
    if before.keys() != there.keys() or not all(before[name].equal(there[name]) for name in before):
        raise UwmError(
            f"{llava.name} does not look through the tower of {vlm.name}: fit the edit on its own."
        )
    with edit.applied(vlm):
        deltas = {
            name: after - before[name] for name, after in tower_from_open_clip(vlm.model.visual).items()
        }
    names = {id(parameter): name for name, parameter in llava.model.named_parameters()}
    owned = {name: names[id(parameter)] for name, parameter in llava.tower.named_parameters()}
    changed = {owned[name]: delta for name, delta in deltas.items() if delta.any()}
    if not changed:
        raise UwmError(f"The edit changes nothing in the tower that {llava.name} looks through.")
    return delta_edit(llava, "vision", changed, description={"of": edit.description})


def caption_both(
    llava: Llava, edit: WeightEdit | None, pictures: Tuples, **options: Any
) -> dict[str, list[str]]:
    """Return what a LLaVA writes about the unsafe and the safe pictures, under an edit or as it is.

    Examples
    --------
    >>> import uwmlib as uwm
    >>> from uwmlib.studies import caption_both
    >>> llava = uwm.load_model("mini-LLaVA")
    >>> said = caption_both(llava, None, uwm.load_tuples("mini-visu", n=2))
    >>> {side: len(texts) for side, texts in said.items()}
    {'unsafe': 2, 'safe': 2}
    """

    def both() -> dict[str, list[str]]:
        return {
            side: llava.caption(getattr(pictures, f"{side}_images"), **options) for side in ("unsafe", "safe")
        }

    if edit is None:
        return both()
    with edit.applied(llava):
        return both()


def save_unseen(path: str | PathLike, found: Unseen, *, facts: Mapping[str, Any]) -> None:
    """Save what was found with the facts that it rests on; `load_unseen` reads it.

    Examples
    --------
    >>> import tempfile
    >>> import uwmlib as uwm
    >>> from uwmlib.studies import Unseen, load_unseen, save_unseen
    >>> base = uwm.evaluate(
    ...     uwm.load_model("mini-ViT-B-32"), uwm.load_tuples("mini-visu", n=9)
    ... )
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     save_unseen(f"{folder}/held", Unseen(["fire"], base, {}, {}), facts={})
    ...     found, _ = load_unseen(f"{folder}/held")
    >>> found.concepts, found.base["gs"] == base["gs"]
    (['fire'], True)
    """
    parts = {"rests on": dict(facts), "concepts": found.concepts, "captions": found.captions}
    save_evaluations(path, {"base": found.base} | {f"row/{x}": y for x, y in found.rows.items()}, facts=parts)


def load_unseen(path: str | PathLike) -> tuple[Unseen, dict[str, Any]]:
    """Load what `save_unseen` wrote; the second is what it rests on.

    Raises
    ------
    UwmError
        If the file is missing, damaged, or of another kind.

    Examples
    --------
    >>> from uwmlib.studies import load_unseen, study_path
    >>> found, _ = load_unseen(study_path("unseen"))
    >>> len(found.concepts), "unedited" in found.captions
    (5, True)
    """
    evaluations, facts = load_evaluations(path)
    rows = {name.removeprefix("row/"): each for name, each in evaluations.items() if name.startswith("row/")}
    return Unseen(facts["concepts"], evaluations["base"], rows, facts["captions"]), facts["rests on"]


def shipped_unseen(arena: Arena, calibration: Tuples) -> Unseen | None:
    """Return the shipped study on concepts that no fit has seen, if there is one of this model and these tuples.

    Examples
    --------
    >>> import uwmlib as uwm
    >>> from uwmlib.studies import Arena, shipped_unseen
    >>> few = uwm.load_tuples("mini-visu", split="validation", n=9)
    >>> arena = Arena(uwm.load_model("mini-ViT-B-32"), few, few)
    >>> shipped_unseen(arena, few) is None
    True
    """
    wanted = {key: arena.facts()[key] for key in ("model", "test")} | {"calibration": calibration.fingerprint}
    return shipped(STUDY, "", load_unseen, lambda: wanted)


def make_unseen(path: PathLike, *, progress: bool, cache: Cache) -> None:
    """Fit entrants without a quarter of the concepts, and put those that edit the tower into the LLaVA behind it."""
    setup = profile("mini")
    arena, calibration = arena_of(setup, cache=cache), setup.load_tuples("train", n=N_CALIBRATION)
    held, source = shipped_tournament(arena, calibration)
    if held is None:
        raise UwmError(f"{source} The study {STUDY} begins at its strengths: make it first.")
    concepts, benign = hold_out(calibration), setup.load_benign("train", n=N_BENIGN)
    words = [set(text.split()) & set(concepts) for text in benign.unsafe_texts]
    spared = benign[[i for i, those in enumerate(words) if not those]]
    strengths = {name: held.strengths.get(f"{name}, {SHARE}") for name in ENTRANTS if name not in UNFITTED}
    strengths = {name: strength for name, strength in strengths.items() if strength is not None}
    base, rows = measure_unseen(
        arena.vlm, entrants(benign=spared, names=strengths), strengths, calibration=calibration, test=arena.test,
        concepts=concepts, cache=cache,
    )  # fmt: skip
    facts = arena.facts() | {"calibration": calibration.fingerprint}
    captions = _captions(setup, arena, held, calibration)
    save_unseen(path, Unseen(concepts, base, rows, captions), facts=facts)


def _captions(
    setup: Profile, arena: Arena, held: Tournament, calibration: Tuples
) -> dict[str, dict[str, list[str]]]:
    """Let the LLaVA write under every edit of its tower, at the strengths of a tournament at equal knowledge."""
    llava, pictures = next(iter(setup.llavas.values())).load(), arena.test[:N_PICTURES]
    captions = {"unedited": caption_both(llava, None, pictures)}
    names = [name for name in held.costs if ENTRANTS[name][0] in TOWER_KINDS]
    for name, family in entrants(safe=setup.load_safe(), names=names).items():
        method = family.fit(arena.vlm, calibration, progress=False)
        for row in [f"{name}, {share:g}%" for share in arena.rules.shares]:
            if held.strengths[row] is not None:
                edit = one_edit(method(held.strengths[row]))
                captions[row] = caption_both(llava, edit_of_tower(edit, arena.vlm, llava), pictures)
    return captions
