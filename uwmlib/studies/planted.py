"""Planted weights: can scores find entries that are known to hold the unsafe behaviour, and does undoing them undo it.

A positive control of every score in the library: the truth is known, for it was planted (`training.planting`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from uwmlib.editing import fit_dampening, fit_set_difference, gradient_scores, score
from uwmlib.editing.selection import select_positive
from uwmlib.evaluation import evaluate
from uwmlib.files import load_tensors, save_tensors
from uwmlib.metrics import auroc, precision_and_recall, top_k
from uwmlib.models.vlm import Vlm
from uwmlib.studies.plans import as_json
from uwmlib.training.planting import (
    LAYERS,
    BaseRecipe,
    Plant,
    PlantRecipe,
    grow,
    plant_tuples,
    safe_base,
    untrained_base,
)  # fmt: skip
from uwmlib.tuples import Tuples

TAU = 0.02  #: the paper's
ORACLE = "oracle"  #: is given the base, and scores by how much a weight has changed
#: In the order of tables: UWM's scores, the paper's gradient baselines, scores of the field, controls.
SCORERS = (
    "UWM", "UWM printed", "UWM no prior", "unsafe only", "difference", "G-Unsafe", "G-Safe-CLIP", "SSD",
    "SNIP", "SNIP ratio", "Wanda", "Wanda ratio", "magnitude", "random", ORACLE,
)  # fmt: skip
UNDONE = (
    "UWM", "UWM printed", "unsafe only", "difference", "G-Unsafe", "SSD", "SNIP", "Wanda", "magnitude", "random",
    ORACLE,
)  # fmt: skip
#: What is done to the weights that are found; the first needs the base, the others are the paper's alpha = 0 and -1.
UNDOING = {"reset": None, "zero": 0.0, "negate": -1.0}
TINY = 1e-30


@dataclass(frozen=True, kw_only=True)
class PlantPlan:
    """What the study is asked to do.

    Attributes
    ----------
    bases : tuple of BaseRecipe
    plants : tuple of PlantRecipe
        Each grown once in every base; the seed of a plant is that of its base.
    n_planting, n_calibration, n_test : int
        Tuples that a plant learns from, that scores are calibrated on (others), and of every measurement.

    Examples
    --------
    >>> from uwmlib.studies import PLANT_PLAN
    >>> len(PLANT_PLAN.bases) * len(PLANT_PLAN.plants)
    36
    """

    bases: tuple[BaseRecipe, ...]
    plants: tuple[PlantRecipe, ...]
    n_planting: int = 2048
    n_calibration: int = 256
    n_test: int = 256

    def facts(self) -> dict[str, Any]:
        """Return the plan as JSON gives it back."""
        return as_json(asdict(self))


_FREE = tuple(PlantRecipe(kind="entries", size=size) for size in (0.1, 0.03, 0.01, 0.003))
_BOUND = tuple(PlantRecipe(kind="entries", size=size, bound=2.0) for size in (0.3, 0.1, 0.03))
_NEURONS = tuple(PlantRecipe(kind="neurons", size=size, learning_rate=2e-2) for size in (0.1, 0.03, 0.01))
_BLOCKS = tuple(PlantRecipe(kind="block", size=size) for size in (0.1, 0.03))
PLANT_PLAN = PlantPlan(
    bases=tuple(BaseRecipe(seed=seed) for seed in range(3)), plants=_FREE + _BOUND + _NEURONS + _BLOCKS
)
#: One plant in a base that is hardly trained, in seconds: what a page can make again to check the shipped numbers.
LIVE_PLAN = PlantPlan(
    bases=(BaseRecipe(seed=7, steps=120, batch_size=64, batches=20),),
    plants=(PlantRecipe(kind="neurons", size=0.1, learning_rate=2e-2, steps=80),),
    n_planting=512, n_calibration=64, n_test=128,
)  # fmt: skip


@dataclass(frozen=True, eq=False)
class PlantedModel:
    """A base, what is planted in it, and the tuples that it is scored and measured on.

    Attributes
    ----------
    vlm : Vlm
        With the weights of the base, whenever nothing is applied.
    plant : Plant
    recipe : PlantRecipe
    calibration, test : Tuples
    """

    vlm: Vlm
    plant: Plant
    recipe: PlantRecipe
    calibration: Tuples
    test: Tuples


def scores_of_weights(
    model: PlantedModel, *, seed: int = 0, progress: bool = False
) -> dict[str, dict[str, Tensor]]:
    """Return what every scorer says of every scored layer of the planted model, by scorer and site, [out, in].

    Parameters
    ----------
    model : PlantedModel
    seed : int
        Of the random one.
    progress : bool
    """
    vlm, few = model.vlm, model.calibration
    sites, quiet = vlm.sites(**LAYERS), {"progress": progress}
    base = {site.name: vlm.weight(site).detach().clone() for site in sites}
    with model.plant.edit.applied(vlm):
        now = {site.name: vlm.weight(site).detach().clone() for site in sites}
        found = _of_uwm(vlm, few, **LAYERS, **quiet) | _of_gradients(vlm, few, **quiet)
        dampening = fit_dampening(vlm, few, sites=sites, **quiet)
        found["SSD"] = {
            s.name: dampening.unsafe[s.parameter] / (dampening.safe[s.parameter] + TINY) for s in sites
        }
        for name, kind in (("SNIP", "snip"), ("Wanda", "wanda")):
            each = fit_set_difference(vlm, few, score=kind, **LAYERS, **quiet)
            found[name] = each.unsafe
            found[f"{name} ratio"] = {s: each.unsafe[s] / (each.safe[s] + TINY) for s in each.unsafe}
    generator = torch.Generator().manual_seed(seed)
    found["magnitude"] = {name: weight.abs() for name, weight in now.items()}
    found["random"] = {name: torch.rand(weight.shape, generator=generator) for name, weight in now.items()}
    found[ORACLE] = {name: (now[name] - base[name]).abs() for name in now}
    return {name: found[name] for name in SCORERS}


def _of_uwm(vlm: Vlm, tuples: Tuples, **options: Any) -> dict[str, dict[str, Tensor]]:
    scores = score(vlm, tuples, **options)
    asked: dict[str, dict[str, Any]] = {
        "UWM": {}, "UWM printed": {"variant": "paper"}, "UWM no prior": {"prior": ()},
        "unsafe only": {"variant": "unsafe-only"}, "difference": {"variant": "difference"},
    }  # fmt: skip
    return {
        name: {site.name: scores.score_of(site.name, **options) for site in scores.sites}
        for name, options in asked.items()
    }


def _of_gradients(vlm: Vlm, tuples: Tuples, **options: Any) -> dict[str, dict[str, Tensor]]:
    losses = {"G-Unsafe": "g-unsafe", "G-Safe-CLIP": "g-safe-clip"}
    return {
        name: gradient_scores(vlm, tuples, loss=loss, **LAYERS, **options).gradients
        for name, loss in losses.items()
    }


def found_by(score: Mapping[str, Tensor], truth: Mapping[str, Tensor]) -> dict[str, list[float]]:
    """Return how well a scorer finds a plant, by encoder, each the mean over its layers.

    Layers are ranked one by one, as UWM selects in them: scores of two layers need not be of one scale.

    Parameters
    ----------
    score : mapping of str to FloatTensor [out, in]
    truth : mapping of str to BoolTensor [out, in]
        By the same names of sites, such as "text.0.out".

    Returns
    -------
    dict of str to list of float
        Encoder -> AUROC; precision (and recall) among as many top weights as are planted; recall among those that the
        adaptive rule selects at tau = 0.02, and which share of the layer these are.

    Examples
    --------
    >>> import torch
    >>> from uwmlib.studies.planted import found_by
    >>> score = {"text.0.out": torch.tensor([[4.0, 3.0], [2.0, 1.0]])}
    >>> truth = {"text.0.out": torch.tensor([[True, False], [True, False]])}
    >>> found_by(score, truth)
    {'text': [0.75, 0.5, 0.5, 0.25]}
    """
    rows: dict[str, list[list[float]]] = {}
    for name, mask in truth.items():
        each = score[name]
        precision, _ = precision_and_recall(top_k(each, int(mask.sum())), mask)
        selected = torch.zeros(mask.numel(), dtype=torch.bool)
        selected[select_positive(each, TAU)] = True
        _, recall = precision_and_recall(selected, mask.flatten())
        numbers = [auroc(each, mask), precision, recall, int(selected.sum()) / mask.numel()]
        rows.setdefault(name.split(".")[0], []).append(numbers)
    return {encoder: torch.tensor(each).double().mean(dim=0).tolist() for encoder, each in rows.items()}


def behaviour_of(vlm: Vlm, test: Tuples) -> dict[str, float]:
    """Return what is planted and what is not to be lost, in percent of the test tuples.

    Returns
    -------
    dict
        "unsafe": unsafe queries (captions and pictures, the mean) that prefer their unsafe partner to its safe twin,
        100 - (P_u^t + P_u^v) / 2. "safe": safe queries that prefer their safe partner. "knowledge": recall@1 between
        safe captions and safe pictures, the mean of both directions.

    Examples
    --------
    >>> import uwmlib as uwm
    >>> from uwmlib.studies.planted import behaviour_of
    >>> few = uwm.load_tuples("mini-visu", n=8)
    >>> list(behaviour_of(uwm.load_model("mini-ViT-B-32"), few))
    ['unsafe', 'safe', 'knowledge']
    """
    found = {key: each.value for key, each in evaluate(vlm, test).items()}
    return {
        "unsafe": 100 - (found["p_u_t"] + found["p_u_v"]) / 2,
        "safe": (found["p_s_t"] + found["p_s_v"]) / 2,
        "knowledge": (found["ts_vs"] + found["vs_ts"]) / 2,
    }


@contextmanager
def _changed(vlm: Vlm, weights: Mapping[str, Tensor]) -> Iterator[None]:
    """Put other weights, by name of the parameter, for a while."""
    before = {name: vlm.model.get_parameter(name).detach().clone() for name in weights}
    try:
        for name, weight in weights.items():
            vlm.model.get_parameter(name).detach().copy_(weight)
        yield
    finally:
        for name, weight in before.items():
            vlm.model.get_parameter(name).detach().copy_(weight)


def undo(
    model: PlantedModel, score: Mapping[str, Tensor], *, how: Sequence[str] = tuple(UNDOING)
) -> dict[str, dict[str, float]]:
    """Undo the top weights of a score in the planted model, as many in each layer as are planted, and measure.

    Parameters
    ----------
    model : PlantedModel
    score : mapping of str to FloatTensor [out, in]
        By name of the site.
    how : sequence of str
        Keys of `UNDOING`: "reset" puts the base's weights there, which only a laboratory has; "zero" and "negate" are
        edits of the paper's kind.

    Returns
    -------
    dict of str to dict
        How -> `behaviour_of` the model after it.
    """
    vlm, truth = model.vlm, model.plant.truth
    sites = vlm.sites(**LAYERS)
    base = {site.name: vlm.weight(site).detach().clone() for site in sites}
    chosen = {site.name: top_k(score[site.name], int(truth[site.name].sum())) for site in sites}
    found = {}
    with model.plant.edit.applied(vlm):
        for name in how:
            weights = {}
            for site in sites:
                now = vlm.weight(site).detach()
                instead = base[site.name] if UNDOING[name] is None else now * UNDOING[name]
                weights[site.parameter] = torch.where(chosen[site.name], instead, now)
            with _changed(vlm, weights):
                found[name] = behaviour_of(vlm, model.test)
    return found


def removed_exactly(model: PlantedModel) -> bool:
    """Return whether putting back the planted entries, and no others, gives the base, bit for bit."""
    vlm, edit = model.vlm, model.plant.edit
    before = vlm.weights_hash()
    base = {name: vlm.model.get_parameter(name).detach().clone() for name in edit.changes}
    truth = {site.parameter: model.plant.truth[site.name] for site in vlm.sites(**LAYERS)}
    with edit.applied(vlm):
        back = {}
        for name, old in base.items():
            # Weights that feed a planted neuron are in no scored layer: what changed of them is put back.
            at = truth.get(name, edit.changes[name].delta != 0)
            back[name] = torch.where(at, old, vlm.model.get_parameter(name).detach())
        with _changed(vlm, back):
            same = vlm.weights_hash() == before
    return same and vlm.weights_hash() == before


def measure_plant(model: PlantedModel, *, progress: bool = False) -> dict[str, Any]:
    """Return a row of the study: how a plant has grown, who finds it, and what undoing does.

    Parameters
    ----------
    model : PlantedModel
    progress : bool

    Returns
    -------
    dict
        JSON-able. "before", "after": `behaviour_of` the base and of the planted model; "n": planted entries by
        encoder; "largest": the largest change in standard deviations of its layer; "exact": `removed_exactly`;
        "found": scorer -> `found_by`; "undo": scorer -> `undo`.
    """
    vlm, plant = model.vlm, model.plant
    before = behaviour_of(vlm, model.test)
    with plant.edit.applied(vlm):
        after = behaviour_of(vlm, model.test)
    scores = scores_of_weights(model, progress=progress)
    masks = {name.split(".")[0]: 0 for name in plant.truth}
    for name, mask in plant.truth.items():
        masks[name.split(".")[0]] += int(mask.sum())
    largest = {
        site.name: float(plant.edit.changes[site.parameter].delta.abs().max() / vlm.weight(site).std())
        for site in vlm.sites(**LAYERS)
    }
    return {
        "recipe": asdict(model.recipe), "loss": [model.plant.curve[i]["loss"] for i in (0, -1)],
        "before": before, "after": after, "n": masks, "largest": max(largest.values()),
        "exact": removed_exactly(model),
        "found": {name: found_by(each, plant.truth) for name, each in scores.items()},
        "undo": {name: undo(model, scores[name]) for name in UNDONE},
    }  # fmt: skip


def planted_models(
    plan: PlantPlan, *, base: int = 0, folder: Path | None = None, progress: bool = False
) -> Iterator[tuple[str, Callable[[], PlantedModel]]]:
    """Yield the key of every plant in one base, and the function that makes it; the base is trained once, when needed.

    Parameters
    ----------
    plan : PlantPlan
    base : int
        Which of the bases.
    folder : path, optional
        Where the base is kept, to go on after a break.
    progress : bool
    """
    recipe = plan.bases[base]
    made: dict[str, Any] = {}

    def model_of(plant: PlantRecipe) -> PlantedModel:
        if not made:
            made["vlm"] = _base(recipe, folder, progress=progress)
            made["planting"] = plant_tuples("train", 0, plan.n_planting)
            made["calibration"] = plant_tuples("train", plan.n_planting, plan.n_calibration)
            made["test"] = plant_tuples("test", 0, plan.n_test)
        grown = grow(made["vlm"], made["planting"], plant, progress=progress)
        return PlantedModel(made["vlm"], grown, plant, made["calibration"], made["test"])

    for each in plan.plants:
        plant = replace(each, seed=recipe.seed)
        yield f"{recipe.seed}, {plant.label}", lambda plant=plant: model_of(plant)


def _base(recipe: BaseRecipe, folder: Path | None, *, progress: bool) -> Vlm:
    """Return a trained base, from a file of an earlier run where there is one."""
    path = folder and folder / f"base-{recipe.seed}.safetensors"
    if path and path.is_file():
        weights, facts = load_tensors(path, kind="planted-base")
        if facts == asdict(recipe):
            vlm = untrained_base(recipe.seed)
            vlm.model.load_state_dict(weights)
            return vlm
    vlm, _ = safe_base(recipe, progress=progress)
    if path:
        save_tensors(path, vlm.model.state_dict(), kind="planted-base", metadata=asdict(recipe))
    return vlm
