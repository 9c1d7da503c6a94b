"""Small bases of other worlds: a shipped mini model whose edited layers are learned from nothing in such a world."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from typing import Any

import numpy as np
import torch
from torch import nn

from uwmlib.errors import UwmError
from uwmlib.mini.pairs import SPLITS, draw_tuples
from uwmlib.mini.web import web_batch
from uwmlib.mini.worlds import SECOND, World
from uwmlib.models import Vlm
from uwmlib.models.mini import build_mini
from uwmlib.training.allocator import keep_freed_memory
from uwmlib.training.contrastive import clip_loss, normalised_pixels
from uwmlib.training.optimisation import optimise
from uwmlib.tuples import Tuples

#: The layers that UWM edits: drawn anew and trained, while everything else stays as it was inherited.
LEARNED = ("visual.*.mlp.c_proj.*", "transformer.*.attn.out_proj.*")
SPREAD = 0.05  #: standard deviation of the weights that are drawn anew; biases begin at 0
DRAWN_AT_ONCE = 256  #: pairs drawn in one go, which takes less time than small batches


@dataclass(frozen=True, kw_only=True)
class Base:
    """How a base is made.

    Attributes
    ----------
    ancestor : str
        The shipped mini model from which all but the edited layers come; of the open_clip CLIP kind.
    world : mapping of str to number
        What differs from the world of the ancestor: fields of `World`.
    neurons : int or None
        Of each vision MLP: the first so many of the ancestor's; None for all.
    steps, batch_size, pool : int
        Of the training: the batches are taken in turn from a pool of so many.
    learning_rate : float
        At the peak (`optimise`).
    seed : int
        Of the new weights and of the pairs.

    Examples
    --------
    >>> from uwmlib.training import Base
    >>> Base(world={"web_named": 0.25}, seed=1).facts()["world"]
    {'web_named': 0.25}
    """

    ancestor: str = "mini-ViT-B-32"
    world: Mapping[str, float] = field(default_factory=dict)
    neurons: int | None = None
    steps: int = 150
    batch_size: int = 64
    pool: int = 64
    learning_rate: float = 3e-3
    seed: int = 0

    def facts(self) -> dict[str, Any]:
        """Return the recipe as JSON gives it back."""
        return asdict(self) | {"world": dict(self.world)}


def world_with(changes: Mapping[str, float]) -> World:
    """Return the world of the shipped models with some fields changed; UwmError for a field that it has not."""
    try:
        return replace(SECOND, name="changed", **changes)
    except TypeError:
        raise UwmError(f"A world has no such fields: {', '.join(changes)}.") from None


def base_tuples(changes: Mapping[str, float], split: str, *, n: int) -> Tuples:
    """Return the first `n` tuples of a split of the changed world.

    Parameters
    ----------
    changes : mapping of str to number
        Fields of `World`; none for the world that ships.
    split : "train", "validation" or "test"
    n : int

    Examples
    --------
    Without harmless uses no hazard belongs to a bystander:

    >>> from uwmlib.training import base_tuples
    >>> tuples = base_tuples({"containers": 0.0, "own": 0.0}, "test", n=4)
    >>> len(tuples), tuples.split
    (4, 'test')
    """
    if split not in SPLITS:
        raise UwmError(f"The world has no split {split!r}: choose one of {', '.join(SPLITS)}.")
    world = world_with(changes)
    # Of another world of the same streams, so that two levels of a factor share what the factor leaves alone.
    drawn = draw_tuples(split, np.arange(n), world=world)
    return Tuples(name=f"{world.name}/{split}", **drawn, harmless=True, split=split)


def train_base(base: Base, *, progress: bool = False) -> tuple[Vlm, list[dict[str, float]]]:
    """Make a base: draw its edited layers anew, and train them alone on pairs of its world.

    Parameters
    ----------
    base : Base
    progress : bool

    Returns
    -------
    Vlm
    list of dict
        The curve of `optimise`: the mean loss of every 50 steps.

    Raises
    ------
    UwmError
        If the ancestor has no such layers, or the world no such fields.

    Examples
    --------
    >>> from uwmlib.training import Base, train_base
    >>> quick = Base(steps=2, batch_size=8, pool=2)
    >>> vlm, curve = train_base(quick)
    >>> vlm.name, [point["step"] for point in curve]
    ('mini-ViT-B-32', [2])
    """
    world = world_with(base.world)
    vlm = build_mini(base.ancestor)
    if type(vlm.model).__name__ != "CLIP":
        raise UwmError(f"{base.ancestor} is no CLIP of open_clip: take mini-ViT-B-32 or mini-ViT-B-16.")
    keep_freed_memory()
    draw_anew(vlm.model, seed=base.seed, neurons=base.neurons)
    pairs = _pool(vlm, world, base)

    def loss_at(step: int) -> torch.Tensor:
        pictures, tokens = pairs[step % len(pairs)]
        return clip_loss(vlm, normalised_pixels(pictures), tokens)

    options = {"learning_rate": base.learning_rate, "weight_decay": 0.05, "progress": progress}
    curve = optimise(vlm.model, loss_at, steps=base.steps, trained=LEARNED, **options)
    vlm.model.eval()
    return vlm, curve


def draw_anew(model: nn.Module, *, seed: int, neurons: int | None = None) -> None:
    """Draw the edited layers of an open_clip CLIP anew, after cutting each vision MLP to its first neurons."""
    generator = torch.Generator().manual_seed(seed)
    layers = []
    for block in model.visual.transformer.resblocks:
        mlp = block.mlp
        if neurons is not None:
            mlp.c_fc, mlp.c_proj = _first_rows(mlp.c_fc, neurons), nn.Linear(neurons, mlp.c_proj.out_features)
        layers.append(mlp.c_proj)
    layers += [block.attn.out_proj for block in model.transformer.resblocks]
    with torch.no_grad():
        for layer in layers:
            layer.weight.copy_(SPREAD * torch.randn(layer.weight.shape, generator=generator))
            layer.bias.zero_()


def _first_rows(layer: nn.Linear, rows: int) -> nn.Linear:
    """Return a layer with the first output neurons of another."""
    cut = nn.Linear(layer.in_features, rows)
    with torch.no_grad():
        cut.weight.copy_(layer.weight[:rows])
        cut.bias.copy_(layer.bias[:rows])
    return cut


def _pool(vlm: Vlm, world: World, base: Base) -> list[tuple[torch.Tensor, torch.Tensor]]:
    """Return the batches of a training: pictures [B, H, W, 3] and tokens [B, L], drawn once."""
    size, pairs = base.batch_size, []
    together = max(1, min(DRAWN_AT_ONCE // size, base.pool))  # batches that are drawn in one go
    for number in range(-(-base.pool // together)):
        pictures, texts = web_batch(number, batch_size=together * size, seed=base.seed, world=world)
        tokens = vlm.tokenize(texts)
        for at in range(0, len(tokens), size):
            pairs.append((torch.from_numpy(pictures[at : at + size]), tokens[at : at + size]))
    return pairs[: base.pool]
