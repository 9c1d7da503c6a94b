"""Scores of a model's weights, kept as sums from which every variant and every edit follows."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import torch

from uwmlib.editing.choice import choose_weights
from uwmlib.editing.saliency import VARIANTS, PairSums, combine
from uwmlib.editing.weight_edit import WeightEdit, require_base
from uwmlib.errors import UwmError
from uwmlib.files import load_tensors, require_facts, save_tensors
from uwmlib.models.sites import KINDS, Site, encoders_of
from uwmlib.models.vlm import Vlm, require_vlm
from uwmlib.options import ENCODERS, as_list, known, whole_number

PARTS = ("unsafe", "safe", "ratio")


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

    Examples
    --------
    One pass serves any number of edits:

    >>> import uwmlib as uwm
    >>> vlm = uwm.load_model("mini-ViT-L-14")
    >>> tuples = uwm.load_tuples("mini-visu", split="train", n=8)
    >>> scores = uwm.score(vlm, tuples, progress=False)
    >>> scores
    Scores('mini-ViT-L-14', 8 sites, n=8 of 8)
    >>> flipped = scores.select(tau=0.02, alpha=-1)
    >>> pruned = scores.select(tau=0.02, alpha=0, text=None)
    >>> list(flipped.share()), list(pruned.share())
    (['text', 'vision'], ['vision'])
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
        known(site_name, [site.name for site in self.sites], "scored site")
        site = next(site for site in self.sites if site.name == site_name)
        require_base(self.vlm, site.parameter, self.base_hashes[site.parameter])
        return self._combined(site, variant, encoders_with_prior(prior))

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
        >>> import uwmlib as uwm
        >>> vlm = uwm.load_model("mini-ViT-L-14")
        >>> tuples = uwm.load_tuples("mini-visu", split="train", n=8)
        >>> scores = uwm.score(vlm, tuples, progress=False)
        >>> edit = scores.select(tau={"text": 0.25, "vision": 0.5}, rule="fixed")
        >>> {name: round(share, 2) for name, share in edit.share().items()}
        {'text': 0.25, 'vision': 0.5}
        """
        known(variant, VARIANTS, "variant")
        prior = encoders_with_prior(prior)
        return choose_weights(
            self.vlm,
            self.sites,
            lambda site: self._combined(site, variant, prior),
            base_hashes=self.base_hashes,
            tau=tau,
            alpha=alpha,
            rule=rule,
            text=text,
            vision=vision,
            description={
                "method": "uwm",
                "tuples": self.provenance["tuples"],
                "n": self.n,
                "variant": variant,
                "prior": list(prior),
            },
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
        ours = model_facts({encoder: vlm.facts(encoder) for encoder in encoders_of(scores.sites)})
        differing = " and ".join(key for key in ours if ours[key] != scores.provenance.get(key))
        if differing:
            raise UwmError(
                f"{path} holds scores of other {differing} than {vlm.name} has now: score it anew."
            )
        if not scores.complete:
            seen = f"{scores.n} of {scores.provenance['n_tuples']} tuples"
            raise UwmError(f"{path} holds an unfinished pass ({seen}): call score with save_to={path}.")
        return scores

    def _combined(self, site: Site, variant: str, prior: Sequence[str]) -> torch.Tensor:
        """Return the score [out, in] of a site whose live weights are those that were scored."""
        magnitude = self.vlm.weight(site).detach().abs().float()
        return combine(self.sums[site.name], self.n, magnitude, variant=variant, prior=site.encoder in prior)


def read_scores(path: str | os.PathLike, vlm: Vlm) -> Scores:
    """Read a finished or unfinished pass over sites that `vlm` has; whether it was this model's is not compared.

    Raises
    ------
    UwmError
        If the file is missing or damaged, or what it holds are no sums over sites of `vlm`.
    """
    require_vlm(vlm)
    tensors, metadata = load_tensors(path, kind="scores")
    require_facts(path, metadata, n=int, sites=list, base_hashes=dict, provenance=dict)
    provenance, base_hashes = metadata["provenance"], metadata["base_hashes"]
    n_tuples = whole_number(provenance.get("n_tuples"), f"n_tuples in {path}")
    n = whole_number(metadata["n"], f"n in {path}", least=0, most=n_tuples)
    sites = _read_sites(path, metadata["sites"], vlm)
    hashed = all(isinstance(base_hashes.get(site.parameter), str) for site in sites)
    if not hashed or not isinstance(provenance.get("tuples"), str):
        raise UwmError(f"{path} does not say which weights and tuples were scored: score them anew.")
    names = {site.name: [f"{site.name}|{part}" for part in PARTS] for site in sites}
    if tensors.keys() != {name for parts in names.values() for name in parts}:
        raise UwmError(f"{path} does not hold three sums for each of its sites: score them anew.")
    for site in sites:
        shape = vlm.weight(site).shape
        if any(
            tensors[name].shape != shape or tensors[name].dtype != torch.float32 for name in names[site.name]
        ):
            raise UwmError(f"{path} does not hold float32 {list(shape)} for {site.name}: score it anew.")
    sums = {
        name: PairSums(*(tensors[part].to(vlm.device) for part in parts)) for name, parts in names.items()
    }
    return Scores(vlm, sites, sums, n, base_hashes, provenance)


def _read_sites(path: str | os.PathLike, listed: Sequence[Any], vlm: Vlm) -> tuple[Site, ...]:
    """Return the sites of `vlm` that a file lists; each is compared as a whole, for a name alone proves nothing."""
    read = []
    for facts in listed:
        require_facts(path, facts, encoder=str, layer=int, kind=str, parameter=str, rows=(list, type(None)))
        known(facts["encoder"], ENCODERS, "encoder")
        read.append(Site(**facts | {"rows": facts["rows"] and tuple(facts["rows"])}))
    kinds = {encoder: KINDS for encoder in ENCODERS if any(site.encoder == encoder for site in read)}
    own = vlm.sites(**kinds) if kinds else []
    foreign = next((site.name for site in read if site not in own), None)
    if foreign is not None or not read or len({site.name for site in read}) < len(read):
        what = f"a site that {vlm.name} does not have ({foreign})" if foreign else "no sites, or one twice"
        raise UwmError(f"{path} holds scores of {what}: score this model anew.")
    return tuple(own[own.index(site)] for site in read)


def model_facts(facts: Mapping[str, Mapping[str, str]]) -> dict[str, dict[str, str]]:
    """Return the facts (or identities) of encoders by what they say, without what hangs on the machine."""
    return {
        key: {encoder: each[key] for encoder, each in facts.items()}
        for key in ("weights", "architecture", "preprocessing")
    }


def encoders_with_prior(prior: str | Sequence[str]) -> tuple[str, ...]:
    """Return the encoders that a prior is asked for in, checked."""
    names = tuple(as_list(prior))
    for name in names:
        known(name, ENCODERS, "encoder for the prior,")
    return names
