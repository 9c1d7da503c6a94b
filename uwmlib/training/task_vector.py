"""Task-vector negation (Ilharco et al. 2023, arXiv 2212.04089): what fine-tuning on unsafe pairs adds, taken away."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from uwmlib.editing import WeightEdit, delta_edit
from uwmlib.editing.pairs import contrast, embed_side
from uwmlib.editing.weight_edit import parameter_hash, require_base
from uwmlib.models.trainable import parameters_of
from uwmlib.models.vlm import Vlm, require_vlm
from uwmlib.options import ENCODERS, check_batch_size, finite_number, whole_number
from uwmlib.training.optimisation import optimise
from uwmlib.tuples.tuples import Tuples, require_tuples

STEPS = 100
LEARNING_RATE = 1e-4


@dataclass(frozen=True, eq=False)
class TaskVector:
    """What fine-tuning added to every weight, trained once; `edit` takes any multiple of it away.

    Attributes
    ----------
    vlm : Vlm
        The model that was fine-tuned; its weights are as they were.
    deltas : dict of str to dict of str to FloatTensor
        Encoder -> parameter name -> theta_u - theta, on the CPU. What both encoders depend on is the text's.
    base_hashes : dict of str to str
        Parameter name -> SHA-256 before the training.
    curve : list of dict
        Of `optimise`: the mean loss of every 50 steps.
    facts : dict
        How it was trained.

    Examples
    --------
    >>> import uwmlib as uwm
    >>> from uwmlib.training import fit_task_vector
    >>> vlm = uwm.load_model("mini-ViT-L-14")
    >>> tuples = uwm.load_tuples("mini-visu", split="train", n=32)
    >>> vector = fit_task_vector(
    ...     vlm, tuples, steps=2, batch_size=16, progress=False
    ... )
    >>> vector.edit(0.5).description["strength"]
    0.5
    """

    vlm: Vlm
    deltas: dict[str, dict[str, torch.Tensor]]
    base_hashes: dict[str, str]
    curve: list[dict[str, float]]
    facts: dict[str, Any]

    def edit(self, strength: float = 1.0) -> WeightEdit:
        """Return the edit theta - lambda (theta_u - theta).

        Parameters
        ----------
        strength : float
            lambda; 0 changes nothing.

        Raises
        ------
        UwmError
            If the strength is negative, or the live weights are not those that were fine-tuned.
        """
        factor = finite_number(strength, "strength", least=0)
        changes = {}
        for encoder, deltas in self.deltas.items():
            for name in deltas:
                require_base(self.vlm, name, self.base_hashes[name])
            changes |= delta_edit(
                self.vlm, encoder, {name: -factor * d for name, d in deltas.items()}
            ).changes
        return WeightEdit(changes, self.facts | {"strength": factor})


def fit_task_vector(
    vlm: Vlm,
    tuples: Tuples,
    *,
    steps: int = STEPS,
    learning_rate: float = LEARNING_RATE,
    batch_size: int = 64,
    seed: int = 0,
    progress: bool = True,
) -> TaskVector:
    """Fine-tune the model on unsafe pairs, note what that added to its weights, and put them back.

    The task vector is theta_u - theta, and is negated to forget (Sec. 3). Theirs is fine-tuned for classification, of
    the image encoder alone; ours by CLIP's cross-entropy of batches of unsafe pairs, at the model's own scale, which is
    not trained: every parameter of both encoders is.

    Parameters
    ----------
    vlm : Vlm
        Trained in place, and as it was before afterwards, also after an error.
    tuples : Tuples
        Their unsafe pairs are read alone.
    steps, learning_rate
        Of `optimise`: AdamW over one cycle.
    batch_size : int
        Pairs of a step, drawn without repetition; at most as many as there are.
    seed : int
        Of the batches.
    progress : bool

    Returns
    -------
    TaskVector

    Raises
    ------
    UwmError
        For a name in place of a model or of tuples, and as `optimise`.

    Examples
    --------
    >>> import uwmlib as uwm
    >>> from uwmlib.training import fit_task_vector
    >>> vlm = uwm.load_model("mini-ViT-L-14")
    >>> before = vlm.weights_hash()
    >>> tuples = uwm.load_tuples("mini-visu", split="train", n=32)
    >>> vector = fit_task_vector(
    ...     vlm, tuples, steps=2, batch_size=16, progress=False
    ... )
    >>> vlm.weights_hash() == before
    True
    >>> list(vector.deltas)
    ['text', 'vision']
    """
    require_vlm(vlm)
    require_tuples(tuples)
    check_batch_size(batch_size)
    whole_number(seed, "seed", least=0)
    owner = {name: encoder for encoder in reversed(ENCODERS) for name in parameters_of(vlm, encoder)}
    hashes = {name: parameter_hash(vlm, name) for name in owner}

    def loss_at(step: int) -> torch.Tensor:
        rng = np.random.default_rng([seed, step])
        batch = tuples[rng.choice(len(tuples), min(batch_size, len(tuples)), replace=False)]
        return contrast(vlm, *embed_side(vlm, batch, "unsafe"))

    numbers = {"steps": steps, "learning_rate": learning_rate, "batch_size": batch_size, "seed": seed}
    with _put_back(vlm, owner) as before:
        curve = optimise(
            vlm.model, loss_at, steps=steps, learning_rate=learning_rate, trained=list(owner),
            recipe={"name": "task vector"}, progress=progress,
        )  # fmt: skip
        deltas: dict[str, dict[str, torch.Tensor]] = {encoder: {} for encoder in ENCODERS}
        for name, encoder in owner.items():
            after = vlm.model.get_parameter(name).detach()
            deltas[encoder][name] = (after.float() - before[name].float()).cpu()
    facts = {"method": "task-vector", "model": vlm.name, "tuples": tuples.fingerprint, "n": len(tuples)}
    return TaskVector(vlm, deltas, hashes, curve, facts | numbers)


@contextmanager
def _put_back(vlm: Vlm, names: Mapping[str, str]) -> Iterator[dict[str, torch.Tensor]]:
    """Keep the bits of parameters, yield them by name, and put them back; drop the gradients that training leaves."""
    before = {name: vlm.model.get_parameter(name).detach().clone() for name in names}
    try:
        yield before
    finally:
        for name, value in before.items():
            parameter = vlm.model.get_parameter(name)
            parameter.detach().copy_(value)
            parameter.grad = None
