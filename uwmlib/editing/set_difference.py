"""Set difference (Wei et al. 2024, arXiv 2402.05162): weights that unsafe pairs need and safe ones do not.

They find what an aligned language model refuses with, and remove it to show how brittle it is; here what unsafe pairs
are matched with. Importance is SNIP's or Wanda's.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch

from uwmlib.editing.changes import Scaling, check_alpha
from uwmlib.editing.pairs import batches, pair_gradients
from uwmlib.editing.weight_edit import WeightEdit, parameter_hash, require_base
from uwmlib.errors import UwmError
from uwmlib.models.sites import KINDS, Site
from uwmlib.models.vlm import Vlm, require_vlm
from uwmlib.options import check_batch_size, finite_number, known
from uwmlib.tuples.tuples import Tuples, require_tuples

SCORES = ("snip", "wanda")
P = 0.1  #: share of the weights that safe pairs need most, as in the public code's example
SIDES = ("safe", "unsafe")


@dataclass(frozen=True, eq=False)
class SetDifference:
    """The importance of every weight for safe and for unsafe pairs, found once; `edit` takes any share.

    Attributes
    ----------
    vlm : Vlm
        The model that it was fitted on.
    sites : tuple of Site
    safe, unsafe : dict of str to FloatTensor [out, in]
        Site name -> importance.
    base_hashes : dict of str to str
        Parameter name -> SHA-256 when it was scored.
    facts : dict
        How it was fitted.

    Examples
    --------
    >>> import uwmlib as uwm
    >>> from uwmlib.editing import fit_set_difference
    >>> vlm = uwm.load_model("mini-ViT-L-14")
    >>> tuples = uwm.load_tuples("mini-visu", split="train", n=16)
    >>> found = fit_set_difference(vlm, tuples, score="wanda", progress=False)
    >>> found.edit(0.1).n_weights < found.edit(0.2).n_weights
    True
    """

    vlm: Vlm
    sites: tuple[Site, ...]
    safe: dict[str, torch.Tensor]
    unsafe: dict[str, torch.Tensor]
    base_hashes: dict[str, str]
    facts: dict[str, Any]

    def edit(self, q: float, *, p: float = P, alpha: float = 0.0) -> WeightEdit:
        """Scale, in every matrix, the top share q on unsafe pairs less the top share p on safe pairs.

        Parameters
        ----------
        q : float in [0, 1]
            The strength; 0 changes nothing, and with p fixed a weaker edit is part of a stronger one. (With p = q, as
            the paper has it too, an edit would shrink again towards q = 1.)
        p : float in [0, 1]
        alpha : float
            0 removes, as in the paper; -1 negates.

        Raises
        ------
        UwmError
            If a share is out of range, alpha is infinite, or the live weights are not those that were scored.
        """
        for name, share in (("q", q), ("p", p)):
            if not 0 <= finite_number(share, name) <= 1:
                raise UwmError(f"{name} is {share:g}: give a share from 0 to 1, such as 0.1.")
        check_alpha(alpha)
        changes = {}
        for site in self.sites:
            require_base(self.vlm, site.parameter, self.base_hashes[site.parameter])
            safe, unsafe = self.safe[site.name], self.unsafe[site.name]
            first = (site.rows[0] if site.rows else 0) * unsafe.shape[1]
            changes[site.parameter] = Scaling(
                encoder=site.encoder,
                base_hash=self.base_hashes[site.parameter],
                shape=tuple(self.vlm.model.get_parameter(site.parameter).shape),
                indices=set_difference(safe, unsafe, p=p, q=q).cpu() + first,
                alpha=float(alpha),
                candidates=unsafe.numel(),
            )
        return WeightEdit(changes, self.facts | {"q": float(q), "p": float(p), "alpha": float(alpha)})


def set_difference(safe: torch.Tensor, unsafe: torch.Tensor, *, p: float, q: float) -> torch.Tensor:
    """Return the flat indices of the top share q of `unsafe` that are not in the top share p of `safe`.

    Parameters
    ----------
    safe, unsafe : FloatTensor, of one shape
        Importance of a matrix's weights; of equal ones the lower index is taken first.
    p, q : float in [0, 1]
        int(p numel) and int(q numel) weights.

    Returns
    -------
    LongTensor, shape [k]
        Ascending.

    Examples
    --------
    >>> import torch
    >>> from uwmlib.editing import set_difference
    >>> safe = torch.tensor([[9.0, 1.0], [2.0, 3.0]])
    >>> unsafe = torch.tensor([[8.0, 7.0], [1.0, 2.0]])
    >>> set_difference(safe, unsafe, p=0.25, q=0.5)
    tensor([1])
    """
    chosen = torch.zeros(unsafe.numel(), dtype=torch.bool, device=unsafe.device)
    chosen[_top(unsafe, q)] = True
    chosen[_top(safe, p)] = False
    return chosen.nonzero().flatten()


def fit_set_difference(
    vlm: Vlm,
    tuples: Tuples,
    *,
    score: str = "snip",
    text: str | Sequence[str] | None = KINDS,
    vision: str | Sequence[str] | None = KINDS,
    batch_size: int = 16,
    progress: bool = True,
) -> SetDifference:
    """Score every weight on safe and on unsafe pairs.

    "snip": the mean of |W dL/dW|, per weight. The paper takes it per sample, of a language model's loss; ours is
    CLIP's cross-entropy of a batch of pairs at the model's own scale, which is contrastive, so the mean is over
    batches. "wanda": |W| ||x||_2, x the inputs of a weight over all tokens; no gradient. Matrices are ranked one by
    one, as in the public code. Sums alone are kept, so memory does not grow with the tuples.

    Parameters
    ----------
    vlm : Vlm
        Left as it is.
    tuples : Tuples
    score : "snip" or "wanda"
    text, vision : kind, list of kinds, or None
        By default all kinds, as the paper scores all linear layers; query and key are no sites.
    batch_size : int
        Of matter for "snip" alone.
    progress : bool

    Returns
    -------
    SetDifference

    Raises
    ------
    UwmError
        For a name in place of a model or of tuples, an unknown score or kind, or an importance that is not finite.

    Examples
    --------
    >>> import uwmlib as uwm
    >>> from uwmlib.editing import fit_set_difference
    >>> vlm = uwm.load_model("mini-ViT-L-14")
    >>> tuples = uwm.load_tuples("mini-visu", split="train", n=16)
    >>> found = fit_set_difference(vlm, tuples, text="out", progress=False)
    >>> found.unsafe["text.0.out"].shape
    torch.Size([96, 96])
    """
    require_vlm(vlm)
    require_tuples(tuples)
    check_batch_size(batch_size)
    known(score, SCORES, "score")
    sites = tuple(vlm.sites(text=text, vision=vision))
    hashes = {site.parameter: parameter_hash(vlm, site.parameter) for site in sites}
    take = {"snip": _snip, "wanda": _wanda}[score]
    sums: dict[str, dict[str, Any]] = {side: {site.name: 0.0 for site in sites} for side in SIDES}
    for batch in batches(tuples, batch_size, progress=progress, about=score):
        for side in SIDES:
            take(vlm, batch, side, sites, sums[side], len(batch) / len(tuples))
    if score == "wanda":
        for importance in sums.values():
            for site in sites:
                norm = importance[site.name].sqrt()
                importance[site.name] = vlm.weight(site).detach().abs().float() * norm  # [out, in] x [in]
    for side in SIDES:
        if wrong := [name for name, each in sums[side].items() if not torch.isfinite(each).all()]:
            raise UwmError(f"{wrong[0]} is NaN or infinite on {side} pairs: check those, or use float32.")
    facts = {"method": score, "model": vlm.name, "tuples": tuples.fingerprint, "n": len(tuples)}
    return SetDifference(vlm, sites, sums["safe"], sums["unsafe"], hashes, facts)


def _snip(
    vlm: Vlm, batch: Tuples, side: str, sites: Sequence[Site], sums: dict[str, Any], share: float
) -> None:
    """Add |W dL/dW| of a batch, by its share of the tuples."""
    gradients = pair_gradients(vlm, batch, side, dict.fromkeys(site.parameter for site in sites))
    for site in sites:
        gradient = gradients[site.parameter][slice(*(site.rows or (None,)))]
        sums[site.name] = sums[site.name] + share * (vlm.weight(site).detach() * gradient).abs().float()


def _wanda(
    vlm: Vlm, batch: Tuples, side: str, sites: Sequence[Site], sums: dict[str, Any], share: float
) -> None:
    """Add the squared inputs of a batch, [in]; of captions those of tokens that carry text."""
    tokens = vlm.tokenize(getattr(batch, f"{side}_texts"))
    mask = vlm.token_mask(tokens).to(vlm.device)

    def add(site: Site, z: torch.Tensor) -> None:
        kept = z[mask] if site.encoder == "text" else z.flatten(0, 1)  # [B, T, in] -> [tokens, in]
        sums[site.name] = sums[site.name] + kept.float().square().sum(dim=0)

    with torch.inference_mode(), vlm.capture(sites, add):
        if any(site.encoder == "text" for site in sites):
            vlm.encode_text(tokens)
        if any(site.encoder == "vision" for site in sites):
            vlm.encode_image(vlm.preprocess(getattr(batch, f"{side}_images")[:]))


def _top(importance: torch.Tensor, share: float) -> torch.Tensor:
    flat = importance.flatten()
    return flat.argsort(descending=True, stable=True)[: int(share * len(flat))]
