"""Scores of a model's weights, kept as sums from which every variant and every edit follows."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import torch

from uwmlib.editing.saliency import VARIANTS, PairSums, combine
from uwmlib.editing.weight_edit import WeightEdit, require_base
from uwmlib.errors import UwmError
from uwmlib.files import load_tensors, save_tensors
from uwmlib.models.sites import KINDS, Site
from uwmlib.models.vlm import Vlm
from uwmlib.options import ENCODERS, as_list, known, numbers


@dataclass(frozen=True)
class Scores:
    """What one calibration pass of `score` has seen.

    Attributes
    ----------
    vlm : Vlm
        The scored model; its weights enter the scores and must stay as they were.
    sites : tuple of Site
    sums : dict of str to PairSums
        Site name -> sums over pairs, float32.
    n : int
        Number of pairs summed.
    base_hashes : dict of str to str
        Parameter name -> SHA-256 when it was scored.
    provenance : dict
        What the sums depend on: "tuples", "n_tuples", "code", and what `model_facts` says.
    """

    vlm: Vlm
    sites: tuple[Site, ...]
    sums: dict[str, PairSums]
    n: int
    base_hashes: dict[str, str]
    provenance: dict[str, Any]

    def __repr__(self) -> str:
        return (
            f"Scores({self.vlm.name!r}, {len(self.sites)} sites, n={self.n} of {self.provenance['n_tuples']})"
        )

    @property
    def complete(self) -> bool:
        """Whether the pass has seen every tuple."""
        return self.n == self.provenance["n_tuples"]

    def score_of(
        self, site_name: str, *, variant: str = "released", prior: str | Sequence[str] = ("text",)
    ) -> torch.Tensor:
        """Return one score per weight of a site.

        Parameters
        ----------
        site_name : str
            Such as "vision.3.fc2".
        variant : "released", "paper", "unsafe-only" or "difference"
            See `saliency.combine`. The paper prints a ratio of means, released is a mean of ratios.
        prior : encoder or sequence of encoders
            Where to multiply by |W|: the text encoder in the paper, `()` for nowhere (Table 7).

        Returns
        -------
        FloatTensor, shape [out, in]

        Raises
        ------
        UwmError
            For an unknown site, variant or encoder, or if the live weights are not those that were scored.
        """
        site = self._site(site_name)
        prior = _encoders(prior)
        require_base(self.vlm, site.parameter, self.base_hashes[site.parameter])
        magnitude = self.vlm.weight(site).detach().abs().float()
        return combine(self.sums[site_name], self.n, magnitude, variant=variant, prior=site.encoder in prior)

    def select(
        self,
        *,
        tau: float | Mapping[str, float],
        alpha: float | Mapping[str, float] = -1.0,
        variant: str = "released",
        rule: str | Mapping[str, str] = "adaptive",
        prior: str | Sequence[str] = ("text",),
        text: str | Sequence[str] | None = "all",
        vision: str | Sequence[str] | None = "all",
    ) -> WeightEdit:
        """Select the weights to edit, layer by layer (Eq. 11).

        Parameters
        ----------
        tau : float in (0, 1), or mapping of encoder to float
            Adaptive rule: share of a layer's score that the selected weights hold. Fixed rule: share of its
            weights.
        alpha : float, or mapping of encoder to float
            Factor of the selected weights: -1 flips, 0 removes, 1 changes nothing.
        variant, prior
            See `score_of`.
        rule : "adaptive", "fixed" or "positive", or mapping of encoder to rule
            See `select_adaptive`, `select_fixed` and `select_positive` of `uwmlib.editing.selection`.
        text, vision : "all", kind, list of kinds, or None
            Which of the scored sites to use; None leaves the encoder out.

        Raises
        ------
        UwmError
            For tau outside (0, 1), an unknown name, kinds that were not scored, no site at all, or live
            weights that are not those that were scored.

        Examples
        --------
        >>> edit = scores.select(tau=0.02, alpha=-1)  # doctest: +SKIP
        """
        known(variant, VARIANTS, "variant")
        sites = choose_sites(self.sites, text=text, vision=vision)
        description = {
            "method": "uwm",
            "model": self.vlm.name,
            "tuples": self.provenance["tuples"],
            "n": self.n,
            "sites": [site.name for site in sites],
            "variant": variant,
            "prior": list(_encoders(prior)),
            "tau": numbers(tau, "tau"),
            "rule": rule,
        }
        scores = ((site, self.score_of(site.name, variant=variant, prior=prior)) for site in sites)
        return WeightEdit.from_scores(
            self.vlm,
            scores,
            base_hashes=self.base_hashes,
            tau=tau,
            alpha=alpha,
            rule=rule,
            description=description,
        )

    def save(self, path: str | os.PathLike) -> None:
        """Write the sums, three float32 values per scored weight."""
        tensors = {
            f"{name}|{part}": tensor
            for name, sums in self.sums.items()
            for part, tensor in vars(sums).items()
        }
        metadata = {
            "n": self.n,
            "sites": [asdict(site) for site in self.sites],
            "base_hashes": self.base_hashes,
            "provenance": self.provenance,
        }
        save_tensors(path, tensors, kind="scores", metadata=metadata)

    @classmethod
    def load(cls, path: str | os.PathLike, vlm: Vlm) -> Scores:
        """Read what `save` wrote, for the same model.

        Raises
        ------
        UwmError
            If the file is missing or damaged, holds an unfinished pass, or was made from another model.
        """
        scores = read_scores(path, vlm)
        ours = model_facts({site.encoder: vlm.identity(site.encoder) for site in scores.sites})
        differing = " and ".join(key for key in ours if ours[key] != scores.provenance.get(key))
        if differing:
            raise UwmError(
                f"{path} holds scores of other {differing} than {vlm.name} has now: score it anew."
            )
        if not scores.complete:
            seen = f"{scores.n} of {scores.provenance['n_tuples']} tuples"
            raise UwmError(f"{path} holds an unfinished pass ({seen}): call score with save_to={path}.")
        return scores

    def _site(self, name: str) -> Site:
        known(name, [site.name for site in self.sites], "scored site")
        return next(site for site in self.sites if site.name == name)


def read_scores(path: str | os.PathLike, vlm: Vlm) -> Scores:
    """Read a finished or unfinished pass without comparing it with `vlm`."""
    tensors, metadata = load_tensors(path, kind="scores")
    sites = tuple(
        Site(**(facts | {"rows": facts["rows"] and tuple(facts["rows"])})) for facts in metadata["sites"]
    )
    sums = {
        site.name: PairSums(
            *(tensors[f"{site.name}|{part}"].to(vlm.device) for part in ("unsafe", "safe", "ratio"))
        )
        for site in sites
    }
    return Scores(vlm, sites, sums, metadata["n"], metadata["base_hashes"], metadata["provenance"])


def model_facts(identities: Mapping[str, Mapping[str, str]]) -> dict[str, dict[str, str]]:
    """Return that part of the identities of encoders which is the same on every machine."""
    return {
        key: {encoder: identity[key] for encoder, identity in identities.items()}
        for key in ("weights", "architecture", "preprocessing")
    }


def choose_sites(
    sites: Sequence[Site], *, text: str | Sequence[str] | None, vision: str | Sequence[str] | None
) -> list[Site]:
    """Keep the sites of the wanted kinds.

    Parameters
    ----------
    sites : sequence of Site
    text, vision : "all", kind, list of kinds, or None
        None leaves the encoder out.

    Raises
    ------
    UwmError
        If a kind is not among the sites, or no site is left.
    """
    chosen = []
    for encoder, wanted in (("text", text), ("vision", vision)):
        of_encoder = [site for site in sites if site.encoder == encoder]
        scored = list(dict.fromkeys(site.kind for site in of_encoder))
        kinds = scored if wanted == "all" else as_list(wanted)
        for kind in kinds:
            known(kind, KINDS, f"kind of {encoder} site")
            if kind not in scored:
                raise UwmError(
                    f"No {encoder} sites of kind {kind!r} were scored: score with {encoder}={kind!r}."
                )
        chosen += [site for site in of_encoder if site.kind in kinds]
    if not chosen:
        raise UwmError("No site is left to select from: give text=..., vision=... or both.")
    return chosen


def _encoders(prior: str | Sequence[str]) -> tuple[str, ...]:
    names = tuple(as_list(prior))
    for name in names:
        known(name, ENCODERS, "encoder for the prior,")
    return names
