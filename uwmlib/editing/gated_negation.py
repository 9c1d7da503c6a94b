"""Gated neuron negation: the neurons whose negation leans most to the safe side for the knowledge that hangs on them.

Every input neuron i of the edited products has a gate g_i = 1. One pass says to first order what turning it does, to
the safe margins and to the contrast of safe pairs; the neurons that promise most are negated, g_i = -1. Ours.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from uwmlib.editing.gates import gate_edit
from uwmlib.editing.pairs import batches, contrast, embed_side
from uwmlib.editing.weight_edit import WeightEdit
from uwmlib.errors import UwmError
from uwmlib.models.sites import Site, encoders_of
from uwmlib.models.trainable import only_trainable
from uwmlib.models.vlm import Vlm, require_vlm
from uwmlib.options import check_batch_size, finite_number, known, whole_number
from uwmlib.tuples.tuples import Tuples, require_tuples

Gates = dict[Site, torch.Tensor]


@dataclass(frozen=True, eq=False)
class GatedNegation:
    """The order in which neurons are negated, found once; `edit` negates any share of them.

    Attributes
    ----------
    vlm : Vlm
        The model that it was fitted on.
    sites : tuple of Site
    order : dict of str to LongTensor [N]
        Encoder -> its neurons, the first to be negated first. They are numbered through all its sites.
    b, k : dict of str to FloatTensor [N]
        Encoder -> dB/dg and the root of the sum of (dK/dg)^2 at the unedited model.
    facts : dict
        How it was fitted.

    Examples
    --------
    >>> import uwmlib as uwm
    >>> from uwmlib.editing import fit_gated_negation
    >>> vlm = uwm.load_model("mini-ViT-L-14")
    >>> tuples = uwm.load_tuples("mini-visu", split="train", n=16)
    >>> negation = fit_gated_negation(vlm, tuples, progress=False)
    >>> negation.edit(0.25).share()
    {'text': 0.25, 'vision': 0.25}
    """

    vlm: Vlm
    sites: tuple[Site, ...]
    order: dict[str, torch.Tensor]
    b: dict[str, torch.Tensor]
    k: dict[str, torch.Tensor]
    facts: dict[str, Any]

    def edit(self, share: float | Mapping[str, float]) -> WeightEdit:
        """Return the edit that negates the first `share` of an encoder's neurons.

        Parameters
        ----------
        share : float in [0, 1], or mapping of encoder to float
            0 changes nothing; an encoder that a mapping leaves out is not edited.

        Raises
        ------
        UwmError
            If a share is no number from 0 to 1, or names another encoder.
        """
        given = dict(share) if isinstance(share, Mapping) else dict.fromkeys(self.order, share)
        gates: Gates = {}
        for encoder, part in given.items():
            order = self.order[known(encoder, self.order, "fitted encoder")]
            if not 0 <= finite_number(part, "share") <= 1:
                raise UwmError(f"share is {part:g}: give a number from 0 to 1, such as 0.02.")
            factors = torch.ones(len(order))
            factors[order[: round(part * len(order))]] = -1.0
            gates |= _by_site(self.vlm, [site for site in self.sites if site.encoder == encoder], factors)
        return gate_edit(self.vlm, gates, description=self.facts | {"share": given})


def fit_gated_negation(
    vlm: Vlm,
    tuples: Tuples,
    *,
    text: str | Sequence[str] | None = "out",
    vision: str | Sequence[str] | None = "fc2",
    ridge: float = 1.0,
    balance: float = 0.5,
    steps: int = 1,
    largest: float = 0.1,
    batch_size: int = 64,
    progress: bool = True,
) -> GatedNegation:
    """Order the neurons of each encoder by -b_i / (k_i + ridge mean(k)), the largest first.

    B is the mean over tuples of the four safe margins of SafeGround, (t_s + t_u).(v_s - v_u) + (v_s + v_u).(t_s - t_u),
    and b_i = dB/dg_i. K is the contrastive loss of a batch's safe pairs, at the model's own scale, and k_i the root of
    the sum over batches of (dK/dg_i)^2: how much knowledge hangs on the neuron. Neurons of all blocks of an encoder
    are ranked together. Sums alone are kept, so memory does not grow with the tuples.

    Parameters
    ----------
    vlm : Vlm
        Left as it is.
    tuples : Tuples
    text, vision : kind, list of kinds, or None
        As in `score`; None leaves the encoder out.
    ridge : float
        What is added to every k_i, as a share of the encoder's mean one. Larger: rather by b alone.
    balance : float in [0, 1]
        Weight of the text queries' margins, (t_s + t_u).(v_s - v_u), against those of the images; 0.5 counts both as
        printed above, 1 text queries alone.
    steps : int
        Passes. After each of several, the neurons found so far are negated and the others ordered anew, because a
        first order says less the more neurons are turned.
    largest : float in (0, 1]
        Share that is reached in equal steps; behind it the last pass orders the rest. Of no matter for one step.
    batch_size : int
        It matters: the contrastive loss compares inside a batch.
    progress : bool

    Returns
    -------
    GatedNegation

    Raises
    ------
    UwmError
        For a name in place of a model or of tuples, a number out of range, or a model on whose gates nothing hangs.

    Examples
    --------
    The first neuron of the vision encoder, and how far its gate moves the
    margins:

    >>> import uwmlib as uwm
    >>> from uwmlib.editing import fit_gated_negation
    >>> vlm = uwm.load_model("mini-ViT-L-14")
    >>> tuples = uwm.load_tuples("mini-visu", split="train", n=16)
    >>> found = fit_gated_negation(vlm, tuples, text=None, progress=False)
    >>> first = found.order["vision"][0]
    >>> bool(found.b["vision"][first] < 0)  # off with it, and the margins rise
    True
    """
    require_vlm(vlm)
    require_tuples(tuples)
    check_batch_size(batch_size)
    finite_number(ridge, "ridge", least=0)
    whole_number(steps, "steps")
    for name, value in (("balance", balance), ("largest", largest)):
        if not 0 <= finite_number(value, name) <= 1:
            raise UwmError(f"{name} is {value:g}: give a number from 0 to 1.")
    sites = tuple(vlm.sites(text=text, vision=vision))
    options = {"balance": balance, "batch_size": batch_size, "progress": progress}
    gates = {site: torch.ones(vlm.weight(site).shape[1]) for site in sites}
    order = {encoder: torch.empty(0, dtype=torch.long) for encoder in encoders_of(sites)}
    first: tuple[dict[str, torch.Tensor], dict[str, torch.Tensor]] | None = None
    for step in range(1, steps + 1):
        b, k = _slopes(vlm, tuples, gates, **options)
        first = first or (b, k)
        for encoder, done in order.items():
            score = -b[encoder] / _divisor(k[encoder], ridge, encoder)
            score[done] = -torch.inf
            upto = len(score) if step == steps else round(largest * step / steps * len(score))
            rest = score.argsort(descending=True, stable=True)[: len(score) - len(done)]
            order[encoder] = torch.cat([done, rest[: max(0, upto - len(done))]])
            factors = torch.ones(len(score))
            factors[order[encoder]] = -1.0
            gates |= _by_site(vlm, [site for site in sites if site.encoder == encoder], factors)
    facts = {
        "method": "gated-negation", "tuples": tuples.fingerprint, "n": len(tuples),
        "ridge": ridge, "balance": balance, "steps": steps, "largest": largest,
    }  # fmt: skip
    return GatedNegation(vlm, sites, order, *first, facts)


def _slopes(
    vlm: Vlm, tuples: Tuples, gates: Gates, *, balance: float, batch_size: int, progress: bool
) -> tuple[dict[str, torch.Tensor], dict[str, torch.Tensor]]:
    """Return b and k of every encoder's neurons at these gates, on the CPU."""
    b = {site: torch.zeros_like(gate) for site, gate in gates.items()}
    squares = {site: torch.zeros_like(gate) for site, gate in gates.items()}
    for batch in batches(tuples, batch_size, progress=progress, about="gates"):
        leaves = {site: gate.to(vlm.device, vlm.dtype).requires_grad_() for site, gate in gates.items()}
        with only_trainable(vlm.model, ()), torch.enable_grad():
            # A leaf in the product gives the gradient of the gate; the weights have none.
            with vlm.capture(list(gates), lambda site, z, leaves=leaves: z * leaves[site]):
                (v_s, t_s), (v_u, t_u) = (embed_side(vlm, batch, side) for side in ("safe", "unsafe"))
            of_texts = ((t_s + t_u) * (v_s - v_u)).sum(dim=1).mean()
            of_images = ((v_s + v_u) * (t_s - t_u)).sum(dim=1).mean()
            margins = 2 * (balance * of_texts + (1 - balance) * of_images)
            inputs = list(leaves.values())
            leaning = torch.autograd.grad(margins, inputs, retain_graph=True)
            cost = torch.autograd.grad(contrast(vlm, v_s, t_s), inputs)
        for site, slope, price in zip(leaves, leaning, cost, strict=True):
            b[site] += slope.float().cpu() * (len(batch) / len(tuples))
            squares[site] += price.float().cpu().square()
    return _by_encoder(b), {name: each.sqrt() for name, each in _by_encoder(squares).items()}


def _divisor(k: torch.Tensor, ridge: float, encoder: str) -> torch.Tensor:
    if not torch.isfinite(k).all() or not k.any():
        raise UwmError(
            f"No knowledge hangs on the gates of the {encoder} encoder, or it is no number: check the inputs."
        )
    return (k + ridge * k.mean()).clamp_min(torch.finfo(k.dtype).tiny)


def _by_encoder(values: Gates) -> dict[str, torch.Tensor]:
    """Number the neurons of an encoder through all its sites."""
    return {
        encoder: torch.cat([value for site, value in values.items() if site.encoder == encoder])
        for encoder in encoders_of(list(values))
    }


def _by_site(vlm: Vlm, sites: Sequence[Site], values: torch.Tensor) -> Gates:
    return dict(zip(sites, values.split([vlm.weight(site).shape[1] for site in sites]), strict=True))
