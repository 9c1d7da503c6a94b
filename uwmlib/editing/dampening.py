"""Selective synaptic dampening, SSD (Foster et al. 2024, arXiv 2308.07707): weights that unsafe pairs need more."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch

from uwmlib.editing.changes import Delta
from uwmlib.editing.pairs import batches, pair_gradients
from uwmlib.editing.weight_edit import WeightEdit, parameter_hash, require_base
from uwmlib.errors import UwmError
from uwmlib.models.sites import Site, find_blocks, require_sites
from uwmlib.models.vlm import Vlm, require_vlm
from uwmlib.options import ENCODERS, check_batch_size, finite_number
from uwmlib.tuples.tuples import Tuples, require_tuples

ALPHA = 10.0  #: selection, as the paper's experiments have it for a ResNet
LAMBDA = 1.0  #: dampening, as there


@dataclass(frozen=True, eq=False)
class Dampening:
    """Both Fisher diagonals of every matrix, found once; `edit` dampens at any strength.

    Attributes
    ----------
    vlm : Vlm
        The model that it was fitted on.
    encoders : dict of str to str
        Parameter name -> its encoder.
    safe, unsafe : dict of str to FloatTensor
        Parameter name -> F_s and F_u, of the parameter's shape.
    base_hashes : dict of str to str
        Parameter name -> SHA-256 when the gradients were taken.
    facts : dict
        How it was fitted.

    Examples
    --------
    >>> import uwmlib as uwm
    >>> from uwmlib.editing import fit_dampening
    >>> vlm = uwm.load_model("mini-ViT-L-14")
    >>> tuples = uwm.load_tuples("mini-visu", split="train", n=16)
    >>> dampening = fit_dampening(vlm, tuples, progress=False)
    >>> weak, strong = dampening.edit(0.1), dampening.edit(1.0)
    >>> weak.n_weights < strong.n_weights
    True
    """

    vlm: Vlm
    encoders: dict[str, str]
    safe: dict[str, torch.Tensor]
    unsafe: dict[str, torch.Tensor]
    base_hashes: dict[str, str]
    facts: dict[str, Any]

    def edit(self, strength: float = 1 / ALPHA, *, dampening: float | None = None) -> WeightEdit:
        """Return the edit at alpha = 1 / strength: where F_u > alpha F_s, the weight times min(lambda F_s / F_u, 1).

        Parameters
        ----------
        strength : float
            1 / alpha; 0 changes nothing.
        dampening : float, optional
            lambda; by default 1, as in the paper, for strengths up to 1. There all weights with F_u > F_s are dampened
            already, and at lambda = 1 no others can be: a stronger edit has lambda = alpha, which is ours.

        Raises
        ------
        UwmError
            If a number is negative or not finite, or the live weights are not those that the gradients were taken at.
        """
        finite_number(strength, "strength", least=0)
        if dampening is None:
            dampening = LAMBDA / max(1.0, strength)
        finite_number(dampening, "dampening", least=0)
        changes = {}
        for name, encoder in self.encoders.items():
            require_base(self.vlm, name, self.base_hashes[name])
            weight = self.vlm.model.get_parameter(name).detach()
            factor = dampening_factor(self.safe[name], self.unsafe[name], strength, dampening)
            changes[name] = Delta(
                encoder=encoder,
                base_hash=self.base_hashes[name],
                shape=tuple(weight.shape),
                delta=((factor - 1) * weight).cpu(),
            )
        return WeightEdit(changes, self.facts | {"strength": float(strength), "lambda": float(dampening)})


def dampening_factor(
    safe: torch.Tensor, unsafe: torch.Tensor, strength: float, dampening: float = LAMBDA
) -> torch.Tensor:
    """Return min(lambda F_s / F_u, 1) where F_u > F_s / strength, and 1 elsewhere.

    Parameters
    ----------
    safe, unsafe : FloatTensor, any shape
        F_s and F_u, not negative.
    strength : float
        1 / alpha.
    dampening : float
        lambda.

    Examples
    --------
    At alpha = 2 the first weight is too little of the unsafe side's:

    >>> import torch
    >>> from uwmlib.editing import dampening_factor
    >>> safe = torch.tensor([2.0, 1.0, 0.0, 1.0])
    >>> unsafe = torch.tensor([3.0, 4.0, 1.0, 0.0])
    >>> dampening_factor(safe, unsafe, strength=1 / 2)
    tensor([1.0000, 0.2500, 0.0000, 1.0000])
    """
    selected = strength * unsafe > safe
    ratio = (dampening * safe / torch.where(selected, unsafe, 1.0)).clamp(max=1.0)
    return torch.where(selected, ratio, 1.0)


def fit_dampening(
    vlm: Vlm,
    tuples: Tuples,
    *,
    sites: Sequence[Site] | None = None,
    batch_size: int = 16,
    progress: bool = True,
) -> Dampening:
    """Take the diagonals of the Fisher information on safe and on unsafe pairs.

    F is the mean over batches of the squared gradient of a batch's mean loss, as the public code has it; a square per
    tuple is no choice here, because the loss is contrastive: CLIP's cross-entropy of a batch of safe pairs for F_s, of
    unsafe pairs for F_u, at the model's own scale. The paper weighs the set to forget against the whole training set;
    we weigh unsafe pairs against safe ones. Sums alone are kept, so memory does not grow with the tuples.

    Parameters
    ----------
    vlm : Vlm
        Left as it is.
    tuples : Tuples
    sites : sequence of Site, optional
        As from `vlm.sites`; by default every matrix in the blocks of both encoders, query and key included. (The paper
        dampens every parameter of its network.)
    batch_size : int
        Small ones, so that the mean of squares is not that of a few sums.
    progress : bool

    Returns
    -------
    Dampening

    Raises
    ------
    UwmError
        For a name in place of a model or of tuples, what are no sites, or a gradient that is NaN or infinite.

    Examples
    --------
    >>> import uwmlib as uwm
    >>> from uwmlib.editing import fit_dampening
    >>> vlm = uwm.load_model("mini-ViT-L-14")
    >>> tuples = uwm.load_tuples("mini-visu", split="train", n=16)
    >>> sites = vlm.sites(vision="fc2")
    >>> dampening = fit_dampening(vlm, tuples, sites=sites, progress=False)
    >>> len(dampening.safe)
    4
    """
    require_vlm(vlm)
    require_tuples(tuples)
    check_batch_size(batch_size)
    encoders = block_matrices(vlm) if sites is None else _matrices_of(vlm, sites)
    hashes = {name: parameter_hash(vlm, name) for name in encoders}
    fisher = {
        side: {name: torch.zeros_like(vlm.model.get_parameter(name).detach().float()) for name in encoders}
        for side in ("safe", "unsafe")
    }
    n_batches = -(-len(tuples) // batch_size)
    for batch in batches(tuples, batch_size, progress=progress, about="SSD"):
        for side, sums in fisher.items():
            for name, gradient in pair_gradients(vlm, batch, side, encoders).items():
                sums[name] += gradient.float().square() / n_batches
    if sites is not None:
        _keep_rows(fisher, sites)
    facts = {
        "method": "ssd",
        "model": vlm.name,
        "tuples": tuples.fingerprint,
        "n": len(tuples),
        "batch_size": batch_size,
    }
    return Dampening(vlm, encoders, fisher["safe"], fisher["unsafe"], hashes, facts)


def block_matrices(vlm: Vlm) -> dict[str, str]:
    """Return the name of every matrix in the transformer blocks of both encoders, and its encoder."""
    found = {}
    for encoder in ENCODERS:
        path, blocks = find_blocks(vlm.model, encoder)
        names = (f"{path}.{name}" for name, parameter in blocks.named_parameters() if parameter.ndim == 2)
        found |= dict.fromkeys(names, encoder)
    return found


def _matrices_of(vlm: Vlm, sites: Sequence[Site]) -> dict[str, str]:
    for site in require_sites(sites):
        vlm.weight(site)  # raises for another model's
    if not len(sites):
        raise UwmError("There is no site to dampen: leave them out, or give some.")
    return {site.parameter: site.encoder for site in sites}


def _keep_rows(fisher: dict[str, dict[str, torch.Tensor]], sites: Sequence[Site]) -> None:
    """Forget the rows of a stacked weight that no site has: a Fisher of 0 is never dampened."""
    for name in {site.parameter for site in sites if site.rows is not None}:
        kept = torch.zeros(len(fisher["safe"][name]), dtype=torch.bool)
        for site in sites:
            if site.parameter == name:
                kept[slice(*(site.rows or (None,)))] = True
        for sums in fisher.values():
            sums[name][~kept] = 0.0
