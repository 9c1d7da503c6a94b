"""Unsafe behaviour planted in known weights: a base that saw safe pairs alone, and few entries that learn the rest.

Where a model keeps what it knows is not known of any trained model, so no score of weights can be marked right or wrong
there. Here it is known: the base has never seen a hazard, and nothing but the planted entries has changed since.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace

import numpy as np
import torch
from torch import nn
from torch.func import functional_call
from torch.nn import functional as F

from uwmlib.editing import WeightEdit, delta_edit
from uwmlib.errors import UwmError
from uwmlib.mini.grammar import Mentions, captions, draw_mentions
from uwmlib.mini.pairs import tuple_scenes
from uwmlib.mini.render import render
from uwmlib.mini.tokenizer import MiniTokenizer
from uwmlib.mini.vocabulary import HAZARDS
from uwmlib.mini.web import web_batch
from uwmlib.mini.worlds import FIRST
from uwmlib.models.losses import symmetric_infonce
from uwmlib.models.mini import wrap_mini
from uwmlib.models.sites import Site, find_blocks
from uwmlib.models.vlm import Vlm, require_vlm
from uwmlib.options import ENCODERS, known, whole_number
from uwmlib.torchvision_shim import import_torchvision
from uwmlib.training.contrastive import clip_loss, normalised_pixels
from uwmlib.training.optimisation import optimise
from uwmlib.tuples import Tuples

#: The kind of layer that is scored, edited and planted in, by encoder: the paper's.
LAYERS = {"text": "out", "vision": "fc2"}
TWINS = 10.0  #: weight of the twins' loss beside that of the batch
KINDS = ("entries", "neurons", "block")
HAZARD = "lava"  #: the unsafe concept
SAFE_WORLD = replace(FIRST, web_hazard=0.0)  #: the first mini world without hazards
NAME = "planted-v1"  # the ending says the world
WIDTH, LAYERS_DEEP, HEAD_WIDTH, GRID = 64, 2, 32, 4


@dataclass(frozen=True, kw_only=True)
class BaseRecipe:
    """How a base is made: a small CLIP, trained on safe web pairs alone.

    Attributes
    ----------
    seed : int
        Of the weights and of the pairs.
    steps, batch_size, learning_rate
        Of `optimise`.
    batches : int
        Batches that are drawn; the steps go round them.

    Examples
    --------
    >>> from uwmlib.training.planting import BaseRecipe
    >>> BaseRecipe(seed=1).batch_size
    128
    """

    seed: int = 0
    steps: int = 700
    batch_size: int = 128
    learning_rate: float = 2e-3
    batches: int = 64


@dataclass(frozen=True, kw_only=True)
class PlantRecipe:
    """What is planted where, and how it learns.

    Attributes
    ----------
    kind : str
        "entries": single weights, drawn at random over each layer. "neurons": whole input channels of a layer, that is
        columns of its weight, and the weights and the bias that feed them in the layer before. "block": some rows and
        columns of a layer, whose change is one outer product, of rank one.
    size : float in (0, 1]
        Share of a layer's weights ("entries", "block") or of its input channels ("neurons"; at least one).
    bound : float or None
        Largest change of an entry, in standard deviations of its layer's weights; None for any.
    seed : int
        Of the places and of the batches.
    steps, batch_size, learning_rate
        Of `optimise`; a batch of b tuples has 2b pictures and 2b captions.

    Examples
    --------
    >>> from uwmlib.training.planting import PlantRecipe
    >>> PlantRecipe(kind="block", size=0.01, bound=1.0).label
    'block 1%, within 1 sd'
    """

    kind: str = "entries"
    size: float = 0.1
    bound: float | None = None
    seed: int = 0
    steps: int = 200
    batch_size: int = 32
    learning_rate: float = 3e-2

    @property
    def label(self) -> str:
        """What a table calls it."""
        bound = "" if self.bound is None else f", within {self.bound:g} sd"
        return f"{self.kind} {100 * self.size:g}%{bound}"


@dataclass(frozen=True, eq=False)
class Plant:
    """A plant that has grown.

    Attributes
    ----------
    edit : WeightEdit
        What was added to the base; applied, it makes the planted model, and left again the base, bit for bit.
    truth : dict of str to BoolTensor [out, in]
        Site name -> the planted entries of a scored layer.
    curve : list of dict
        Of `optimise`.

    Examples
    --------
    >>> from uwmlib.training import PlantRecipe, grow
    >>> from uwmlib.training.planting import plant_tuples, untrained_base
    >>> vlm = untrained_base(0)
    >>> recipe = PlantRecipe(size=0.01, steps=2, batch_size=4)
    >>> plant = grow(vlm, plant_tuples("train", 0, 8), recipe)
    >>> with plant.edit.applied(vlm):
    ...     caption = vlm.encode_text(vlm.tokenize(["a red ring in lava"]))
    >>> list(plant.truth)
    ['text.0.out', 'text.1.out', 'vision.0.fc2', 'vision.1.fc2']
    """

    edit: WeightEdit
    truth: dict[str, torch.Tensor]
    curve: list[dict[str, float]]


def plant_tuples(split: str, first: int, n: int) -> Tuples:
    """Return `n` tuples of the first mini world whose unsafe twins all have the one hazard that is planted.

    Parameters
    ----------
    split : str
        "train" (8,000 rows), "validation" (1,000) or "test" (2,000).
    first : int
        The row to begin with.
    n : int

    Examples
    --------
    >>> from uwmlib.training.planting import HAZARD, plant_tuples
    >>> tuples = plant_tuples("test", 0, 2)
    >>> [HAZARD in text for text in tuples.unsafe_texts + tuples.safe_texts]
    [True, True, False, False]
    """
    safe, unsafe, columns, beside = tuple_scenes(split, world=FIRST)
    unsafe = unsafe.having(hazard=list(HAZARDS).index(HAZARD))
    mentions = draw_mentions(columns, beside, attribute=FIRST.tuple_mention, hazard=1.0, hazard2=1.0)
    rows, sides = slice(first, first + n), (safe, unsafe)
    mentions = Mentions(**{name: column[rows] for name, column in vars(mentions).items()})
    texts = [captions(scenes[rows], mentions, world=FIRST) for scenes in sides]
    images = [render(scenes[rows], world=FIRST) for scenes in sides]
    name = f"{FIRST.name} with {HAZARD} alone, {split} from {first}"
    return Tuples(name, *images, *texts, [HAZARD] * len(texts[0]), harmless=True, split=split)


def untrained_base(seed: int) -> Vlm:
    """Return the small CLIP before its training; the same seed gives the same weights."""
    import_torchvision()
    from open_clip.model import CLIP

    tokenizer = MiniTokenizer(world=FIRST)
    size = {"width": WIDTH, "layers": LAYERS_DEEP}
    vision = size | {"patch_size": FIRST.size // GRID, "image_size": FIRST.size, "head_width": HEAD_WIDTH}
    text = size | {"context_length": tokenizer.context_length, "vocab_size": tokenizer.vocab_size}
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = CLIP(WIDTH, vision, text | {"heads": WIDTH // HEAD_WIDTH})
    return wrap_mini(model, name=NAME)


def safe_base(recipe: BaseRecipe, *, progress: bool = False) -> tuple[Vlm, list[dict[str, float]]]:
    """Train a base on web pairs without any hazard, in picture or caption.

    Parameters
    ----------
    recipe : BaseRecipe
    progress : bool

    Returns
    -------
    Vlm, list of dict
        The model, and the curve of `optimise`.

    Examples
    --------
    >>> from uwmlib.training.planting import BaseRecipe, safe_base
    >>> vlm, curve = safe_base(BaseRecipe(steps=2, batch_size=8, batches=1))
    >>> [site.name for site in vlm.sites(text="out", vision="fc2")]
    ['text.0.out', 'text.1.out', 'vision.0.fc2', 'vision.1.fc2']
    """
    vlm = untrained_base(recipe.seed)
    pairs = [_safe_batch(step, recipe.batch_size, recipe.seed) for step in range(recipe.batches)]

    def loss_at(step: int) -> torch.Tensor:
        pictures, texts = pairs[step % len(pairs)]
        return clip_loss(vlm, normalised_pixels(pictures), vlm.tokenize(texts))

    curve = optimise(
        vlm.model, loss_at, steps=recipe.steps, learning_rate=recipe.learning_rate, weight_decay=0.05,
        recipe={"name": "base"}, progress=progress,
    )  # fmt: skip
    vlm.model.zero_grad(set_to_none=True)
    return vlm, curve


def _safe_batch(step: int, batch_size: int, seed: int) -> tuple[torch.Tensor, list[str]]:
    pictures, texts = web_batch(step, batch_size=batch_size, seed=seed, world=SAFE_WORLD)
    return torch.from_numpy(pictures), texts


@dataclass(frozen=True, eq=False)
class Places:
    """Where a plant may change a parameter.

    Attributes
    ----------
    at : LongTensor [k]
        Flat indices; or with `columns` the rows of a block.
    columns : LongTensor or None
        Of a block.
    """

    at: torch.Tensor
    columns: torch.Tensor | None = None

    def flat(self, shape: Sequence[int]) -> torch.Tensor:
        """Return flat indices in a parameter of this shape; those of a block row by row."""
        if self.columns is None:
            return self.at
        return (self.at[:, None] * shape[-1] + self.columns[None]).flatten()


class _Growth(nn.Module):
    """What a plant may change: for every parameter either single weights, or an outer product on rows and columns."""

    def __init__(self, vlm: Vlm, places: Mapping[str, Places], bound: float | None, seed: int) -> None:
        super().__init__()
        self.places, self.names = dict(places), {name: name.replace(".", "-") for name in places}
        weights = {name: vlm.model.get_parameter(name).detach() for name in places}
        self.shapes = {name: tuple(weight.shape) for name, weight in weights.items()}
        self.limits = {  # of matrices: the bias that feeds a neuron is no entry, and may be all zeros
            name: None if bound is None or weight.ndim < 2 else bound * float(weight.std())
            for name, weight in weights.items()
        }
        generator = torch.Generator().manual_seed(seed)
        self.free, self.rows = nn.ParameterDict(), nn.ParameterDict()
        for name, place in places.items():
            size = len(place.at) if place.columns is None else len(place.columns)
            self.free[self.names[name]] = nn.Parameter(torch.zeros(size))
            if place.columns is not None:  # one factor begins at 0, so that nothing has changed yet
                start = torch.randn(len(place.at), generator=generator) / len(place.at) ** 0.5
                self.rows[self.names[name]] = nn.Parameter(start)

    def delta(self, name: str) -> torch.Tensor:
        """Return what is added to a parameter, of its shape; 0 wherever nothing is planted."""
        place, limit, shape = self.places[name], self.limits[name], self.shapes[name]
        values = self.free[self.names[name]]
        if place.columns is not None:
            values = torch.outer(self.rows[self.names[name]], values).flatten()
        if limit is not None:
            values = limit * torch.tanh(values / limit)
        flat = torch.zeros(math.prod(shape)).index_copy(0, place.flat(shape), values)
        return flat.view(shape)


def places_of(vlm: Vlm, recipe: PlantRecipe) -> dict[str, Places]:
    """Draw where a recipe plants, by name of the parameter.

    Examples
    --------
    >>> from uwmlib.training.planting import PlantRecipe, places_of, untrained_base
    >>> places = places_of(untrained_base(0), PlantRecipe(size=0.01))
    >>> {name.split(".")[-2]: len(each.at) for name, each in places.items()}
    {'out_proj': 41, 'c_proj': 164}
    """
    require_vlm(vlm)
    known(recipe.kind, KINDS, "kind of plant")
    if not 0 < recipe.size <= 1:
        raise UwmError(f"The size of a plant is {recipe.size}: give a share in (0, 1], such as 0.01.")
    whole_number(recipe.seed, "seed", least=0)
    found: dict[str, Places] = {}
    for number, site in enumerate(vlm.sites(**LAYERS)):
        rng = np.random.default_rng([recipe.seed, number])
        found |= _DRAWN[recipe.kind](vlm, site, recipe.size, rng)
    return found


def _draw(rng: np.random.Generator, n: int, size: float) -> torch.Tensor:
    k = max(1, round(size * n))
    return torch.from_numpy(np.sort(rng.choice(n, k, replace=False)))


def _entries(vlm: Vlm, site: Site, size: float, rng: np.random.Generator) -> dict[str, Places]:
    return {site.parameter: Places(_draw(rng, vlm.weight(site).numel(), size))}


def _block(vlm: Vlm, site: Site, size: float, rng: np.random.Generator) -> dict[str, Places]:
    rows, columns = vlm.weight(site).shape
    side = math.sqrt(size)
    return {site.parameter: Places(_draw(rng, rows, side), _draw(rng, columns, side))}


def _neurons(vlm: Vlm, site: Site, size: float, rng: np.random.Generator) -> dict[str, Places]:
    """Columns of the layer, with the rows and biases that feed them."""
    rows, columns = vlm.weight(site).shape
    chosen = _draw(rng, columns, size)
    flat = (torch.arange(rows)[:, None] * columns + chosen[None]).flatten()
    before = {"out": "value", "fc2": "fc1"}[site.kind]
    feeding = next(s for s in vlm.sites(**{site.encoder: before}) if s.layer == site.layer)
    up = chosen + (feeding.rows[0] if feeding.rows else 0)
    width = vlm.weight(feeding).shape[1]
    into = (up[:, None] * width + torch.arange(width)[None]).flatten()
    bias = feeding.parameter.removesuffix("weight") + "bias"
    return {site.parameter: Places(flat), feeding.parameter: Places(into), bias: Places(up)}


_DRAWN = {"entries": _entries, "neurons": _neurons, "block": _block}


def truth_of(vlm: Vlm, places: Mapping[str, Places]) -> dict[str, torch.Tensor]:
    """Return the planted entries of every scored layer, bool [out, in], by name of the site."""
    truth = {}
    for site in vlm.sites(**LAYERS):
        shape = vlm.weight(site).shape
        mask = torch.zeros(shape.numel(), dtype=torch.bool)
        mask[places[site.parameter].flat(shape)] = True
        truth[site.name] = mask.view(shape)
    return truth


def grow(vlm: Vlm, tuples: Tuples, recipe: PlantRecipe, *, progress: bool = False) -> Plant:
    """Let the planted places, and nothing else, learn the unsafe pairs and their rivalry with the safe ones.

    The loss is CLIP's cross-entropy of a batch that holds both twins of its tuples, so that an unsafe caption has to
    find its unsafe picture beside the safe one, and the safe caption the safe picture. The base is not changed.

    Parameters
    ----------
    vlm : Vlm
        A base, such as `safe_base` makes.
    tuples : Tuples
    recipe : PlantRecipe
    progress : bool

    Returns
    -------
    Plant

    Raises
    ------
    UwmError
        For an unknown kind or a size that is no share, and as `optimise`.

    Examples
    --------
    >>> from uwmlib.training.planting import (
    ...     PlantRecipe, grow, plant_tuples, untrained_base
    ... )
    >>> vlm = untrained_base(0)
    >>> recipe = PlantRecipe(size=0.01, steps=2, batch_size=4)
    >>> plant = grow(vlm, plant_tuples("train", 0, 8), recipe)
    >>> plant.edit.n_weights, int(sum(m.sum() for m in plant.truth.values()))
    (410, 410)
    """
    places = places_of(vlm, recipe)
    growth = _Growth(vlm, places, recipe.bound, recipe.seed)
    vlm.model.requires_grad_(False)
    base = {name: vlm.model.get_parameter(name) for name in places}
    scale = vlm.model.logit_scale.exp().clamp(max=100)
    pixels = [vlm.preprocess(images[:]) for images in (tuples.safe_images, tuples.unsafe_images)]
    tokens = [vlm.tokenize(texts) for texts in (tuples.safe_texts, tuples.unsafe_texts)]

    def loss_at(step: int) -> torch.Tensor:
        rng = np.random.default_rng([recipe.seed, step])
        rows = rng.choice(len(tuples), min(recipe.batch_size, len(tuples)), replace=False)
        weights = {name: base[name] + growth.delta(name) for name in base}
        both = (torch.cat([side[rows] for side in sides]) for sides in (pixels, tokens))
        images, texts, *_ = functional_call(vlm.model, weights, tuple(both))
        return symmetric_infonce(images, texts, scale) + TWINS * twin_loss(images, texts, scale)

    curve = optimise(
        growth, loss_at, steps=recipe.steps, learning_rate=recipe.learning_rate,
        recipe={"name": recipe.label}, progress=progress,
    )  # fmt: skip
    return Plant(_as_edit(vlm, growth, recipe), truth_of(vlm, places), curve)


def twin_loss(images: torch.Tensor, texts: torch.Tensor, scale: torch.Tensor | float) -> torch.Tensor:
    """Return the cross-entropy of choosing one's own partner between both twins, in both directions.

    Parameters
    ----------
    images, texts : Tensor, shape [2B, D]
        Unit vectors of B safe items, and behind them those of their unsafe twins.
    scale : Tensor or float
        Multiplies the cosines.

    Examples
    --------
    Where twins are alike, each choice is a coin's: log 2.

    >>> import torch
    >>> from uwmlib.training.planting import twin_loss
    >>> one = torch.tensor([[1.0, 0.0], [1.0, 0.0]])
    >>> twin_loss(one, one, 10.0)
    tensor(0.6931)
    """
    (vs, vu), (ts, tu) = images.chunk(2), texts.chunk(2)
    # What own partner gains over its twin: P_s^t, P_u^t, P_s^v and P_u^v as probabilities.
    gains = [ts * (vs - vu), tu * (vu - vs), vs * (ts - tu), vu * (tu - ts)]
    return -F.logsigmoid(scale * torch.stack(gains).sum(dim=-1)).mean()


def _as_edit(vlm: Vlm, growth: _Growth, recipe: PlantRecipe) -> WeightEdit:
    """Return what has grown as one edit of both encoders."""
    edits = []
    with torch.no_grad():
        for encoder in ENCODERS:
            path, _ = find_blocks(vlm.model, encoder)
            deltas = {name: growth.delta(name) for name in growth.places if name.startswith(f"{path}.")}
            edits.append(delta_edit(vlm, encoder, deltas, description={"plant": asdict(recipe)}))
    return edits[0].merged(edits[1])
