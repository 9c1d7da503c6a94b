"""An edit of a model's weights: which entries are multiplied by what, on which base."""

from __future__ import annotations

import math
import os
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np
import torch
from safetensors.torch import save_file

from uwmlib.editing.selection import RULES, check_tau, select
from uwmlib.errors import UwmError
from uwmlib.files import atomic_path, load_tensors, require_facts, save_tensors, sha256_of_tensors
from uwmlib.metrics.tensors import as_tensor
from uwmlib.models.sites import Site
from uwmlib.models.vlm import Vlm, require_vlm
from uwmlib.options import ENCODERS, known, number, per_encoder, whole_number

FORMAT_VERSION = 1
# A gap of 65535 or more is written as this code (move on, emit nothing) and the rest.
_SKIP = 65535


@dataclass(frozen=True)
class EditedParameter:
    """What an edit knows about one parameter.

    Attributes
    ----------
    encoder : "text" or "vision"
    alpha : float
        Factor of the selected weights.
    base_hash : str
        SHA-256 of the parameter before the edit (`parameter_hash`).
    numel : int
        Number of weights of the whole parameter.
    candidates : int
        Number of weights that were scored; less than `numel` where only some rows were (value projections).

    Raises
    ------
    UwmError
        If one of these is of another kind or out of range.
    """

    encoder: str
    alpha: float
    base_hash: str
    numel: int
    candidates: int

    def __post_init__(self) -> None:
        known(self.encoder, ENCODERS, "encoder for an edit,")
        check_alpha(self.alpha)
        if not isinstance(self.base_hash, str):
            raise UwmError(f"base_hash is {self.base_hash!r}: give the parameter_hash of what was scored.")
        whole_number(self.numel, "numel")
        whole_number(self.candidates, "candidates", most=self.numel)


@dataclass(frozen=True)
class WeightEdit:
    """Weights to multiply by alpha (Eq. 11), each addressed by its flat index in the full parameter.

    The released code puts a mask into replaced Linear modules; here the stored weights themselves are
    changed, which works for every layer, and undone bit for bit.

    Attributes
    ----------
    entries : dict of str to LongTensor
        Parameter name -> strictly ascending flat indices.
    parameters : dict of str to EditedParameter
        The same names.
    description : dict
        JSON-able facts about how the edit came about.

    Raises
    ------
    UwmError
        If indices and facts are not of the same parameters, or the indices are no ascending LongTensor within the
        parameter, or more than were scored.
    """

    entries: dict[str, torch.Tensor]
    parameters: dict[str, EditedParameter]
    description: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        mappings = isinstance(self.entries, Mapping) and isinstance(self.parameters, Mapping)
        if not mappings or self.entries.keys() != self.parameters.keys():
            raise UwmError(
                "An edit needs indices and facts for the same parameters: give both for every parameter."
            )
        for name, indices in self.entries.items():
            _check_indices(name, indices, self.parameters[name])

    def __repr__(self) -> str:
        shares = ", ".join(f"{encoder} {share:.2%}" for encoder, share in self.share().items())
        return f"WeightEdit({self.n_weights} weights in {len(self.entries)} parameters: {shares})"

    @classmethod
    def from_scores(
        cls,
        vlm: Vlm,
        scores: Iterable[tuple[Site, torch.Tensor]],
        *,
        base_hashes: Mapping[str, str],
        tau: float | Mapping[str, float],
        alpha: float | Mapping[str, float],
        rule: str | Mapping[str, str],
        description: Mapping[str, Any] | None = None,
    ) -> WeightEdit:
        """Select the top weights of every site.

        Parameters
        ----------
        vlm : Vlm
        scores : iterable of (Site, Tensor [out, in])
            One score per weight, site by site; an iterator is read one site at a time.
        base_hashes : mapping of str to str
            Parameter name -> `parameter_hash` of the weights that were scored.
        tau, alpha, rule : value or mapping of encoder to value
            See `Scores.select`.
        description : mapping, optional

        Raises
        ------
        UwmError
            For tau outside (0, 1), an unknown rule, an infinite alpha, or scores that cannot be ordered.
        """
        tau, alpha, rule = per_encoder(tau, "tau"), per_encoder(alpha, "alpha"), per_encoder(rule, "rule")
        for name in rule.values():
            known(name, RULES, "selection rule")
        for share in tau.values():
            check_tau(share)
        for factor in alpha.values():
            check_alpha(factor)
        entries: dict[str, torch.Tensor] = {}
        parameters: dict[str, EditedParameter] = {}
        for site, given in scores:
            score = as_tensor(f"The score of {site.name}", given)
            parameter = vlm.model.get_parameter(site.parameter)
            if score.shape != vlm.weight(site).shape:
                raise UwmError(f"{site.name} does not have one score per weight: give [out, in] scores.")
            if site.parameter not in base_hashes:
                raise UwmError(
                    f"There is no base hash of {site.parameter}: give the parameter_hash of each scored one."
                )
            if site.parameter in entries:
                raise UwmError(f"Parameter {site.parameter} is scored twice: give every site once.")
            first_row = site.rows[0] if site.rows else 0
            indices = select(score, tau[site.encoder], rule=rule[site.encoder]) + first_row * score.shape[1]
            entries[site.parameter] = indices.cpu()
            parameters[site.parameter] = EditedParameter(
                encoder=site.encoder,
                alpha=float(alpha[site.encoder]),
                base_hash=base_hashes[site.parameter],
                numel=parameter.numel(),
                candidates=score.numel(),
            )
        return cls(entries, parameters, dict(description or {}))

    @property
    def alpha(self) -> dict[str, float]:
        """Factor per parameter."""
        return {name: facts.alpha for name, facts in self.parameters.items()}

    @property
    def base_hashes(self) -> dict[str, str]:
        """SHA-256 per parameter before the edit."""
        return {name: facts.base_hash for name, facts in self.parameters.items()}

    @property
    def n_weights(self) -> int:
        """Number of edited weights."""
        return sum(len(indices) for indices in self.entries.values())

    def share(self) -> dict[str, float]:
        """Return, per encoder, the share of the scored layers' weights that the edit changes, in [0, 1]."""
        edited: dict[str, int] = {}
        candidates: dict[str, int] = {}
        for name, facts in self.parameters.items():
            edited[facts.encoder] = edited.get(facts.encoder, 0) + len(self.entries[name])
            candidates[facts.encoder] = candidates.get(facts.encoder, 0) + facts.candidates
        return {encoder: edited[encoder] / candidates[encoder] for encoder in edited}

    @contextmanager
    def applied(self, vlm: Vlm) -> Iterator[Vlm]:
        """Multiply the selected weights by alpha inside the `with` block, then put the exact old bits back.

        Edits of different parameters may be nested. alpha = 1 is the identity.

        Parameters
        ----------
        vlm : Vlm

        Yields
        ------
        Vlm
            The same object, edited in place.

        Raises
        ------
        UwmError
            Before anything is changed, if a parameter is missing or not, bit for bit, the scored one.
        """
        self._check_base(vlm)
        originals: list[tuple[torch.Tensor, tuple[torch.Tensor, torch.Tensor], torch.Tensor]] = []
        try:
            for name, indices in self.entries.items():
                weight = vlm.model.get_parameter(name).detach()
                width = weight.shape[-1]
                at = (indices.to(weight.device) // width, indices.to(weight.device) % width)
                before = weight[at]
                originals.append((weight, at, before))
                weight[at] = before * self.parameters[name].alpha
            yield vlm
        finally:
            for weight, at, before in originals:
                weight[at] = before

    def merged(self, other: WeightEdit) -> WeightEdit:
        """Return one edit that does what this and `other` do.

        Raises
        ------
        UwmError
            If both edit the same parameter, as one's result is not the other's base, or `other` is no edit.
        """
        if not isinstance(other, WeightEdit):
            raise UwmError(
                f"An edit is merged with another one, not with {other!r}: load that with WeightEdit.load."
            )
        both = self.entries.keys() & other.entries.keys()
        if both:
            raise UwmError(
                f"Both edits change {min(both)}, so they cannot be merged: select the weights in one go."
            )
        description = {"merged": [self.description, other.description]}
        return WeightEdit(self.entries | other.entries, self.parameters | other.parameters, description)

    def export(self, vlm: Vlm, path: str | os.PathLike) -> None:
        """Write the whole edited state dict as plain safetensors, for `load_model(..., weights=path)`.

        `vlm` is as before afterwards.

        Raises
        ------
        UwmError
            As `applied`.
        """
        with self.applied(vlm), atomic_path(path) as temporary:
            # clone: tied parameters share memory, which safetensors refuses.
            state = {
                name: tensor.detach().cpu().clone(memory_format=torch.contiguous_format)
                for name, tensor in vlm.model.state_dict().items()
            }
            save_file(state, temporary, metadata={"format": "pt"})

    def save(self, path: str | os.PathLike) -> None:
        """Write the edit alone, about two bytes per edited weight."""
        tensors = {
            name: torch.from_numpy(encode_indices(indices.numpy())) for name, indices in self.entries.items()
        }
        facts = {name: asdict(parameter) for name, parameter in self.parameters.items()}
        metadata = {"format_version": FORMAT_VERSION, "parameters": facts, "description": self.description}
        save_tensors(path, tensors, kind="weight-edit", metadata=metadata)

    @classmethod
    def load(cls, path: str | os.PathLike) -> WeightEdit:
        """Read what `save` wrote.

        Raises
        ------
        UwmError
            If the file is missing, damaged, of another kind or version, its indices are not in order, or its facts
            are not those of an edit.
        """
        tensors, metadata = load_tensors(path, kind="weight-edit")
        version = metadata.get("format_version") if isinstance(metadata, dict) else None
        if version != FORMAT_VERSION:
            raise UwmError(f"{path} has format version {version!r}, not {FORMAT_VERSION}: update uwmlib.")
        require_facts(path, metadata, format_version=int, parameters=dict, description=dict)
        for facts in metadata["parameters"].values():
            require_facts(
                path, facts, encoder=str, alpha=(int, float), base_hash=str, numel=int, candidates=int
            )
        parameters = {name: EditedParameter(**facts) for name, facts in metadata["parameters"].items()}
        entries = {
            name: torch.from_numpy(decode_indices(_as_codes(codes))) for name, codes in tensors.items()
        }
        return cls(entries, parameters, metadata["description"])

    def _check_base(self, vlm: Vlm) -> None:
        require_vlm(vlm)
        present = dict(vlm.model.named_parameters())
        for name, facts in self.parameters.items():
            if name not in present or present[name].numel() != facts.numel or present[name].ndim != 2:
                raise UwmError(
                    f"{vlm.name} has no matrix {name} of {facts.numel} weights: this edit is for another model."
                )
            require_base(vlm, name, facts.base_hash)


def check_alpha(alpha: float, what: str = "alpha") -> None:
    """Raise UwmError unless alpha is a finite number."""
    if not math.isfinite(number(alpha, what)):
        raise UwmError(f"{what} is {alpha}: give a finite number, such as -1.")


def require_base(vlm: Vlm, name: str, base_hash: str) -> None:
    """Raise UwmError unless a parameter is, bit for bit, the one that was scored."""
    if parameter_hash(vlm, name) != base_hash:
        raise UwmError(
            f"The weights of {name} are not those that were scored: another edit may be applied (leave its "
            f"block first), or {vlm.name} has other weights or another precision."
        )


def parameter_hash(vlm: Vlm, name: str) -> str:
    """Return the SHA-256 of one parameter: its name, number type, shape and bytes."""
    return sha256_of_tensors({name: vlm.model.get_parameter(name)})


def encode_indices(indices: np.ndarray) -> np.ndarray:
    """Write ascending indices as uint16 gaps.

    Parameters
    ----------
    indices : int64 array, shape [k]
        Strictly ascending, not negative.

    Returns
    -------
    uint16 array
        Gap after gap, the first from zero. The code 65535 moves on by 65535 and emits no index, so a larger
        gap takes several codes.
    """
    gaps = np.diff(indices, prepend=0)
    skips = gaps // _SKIP
    codes = np.full(len(gaps) + int(skips.sum()), _SKIP, dtype=np.uint16)
    codes[np.cumsum(skips + 1) - 1] = gaps % _SKIP
    return codes


def decode_indices(codes: np.ndarray) -> np.ndarray:
    """Read what `encode_indices` wrote.

    Raises
    ------
    UwmError
        If the codes are not uint16, or end in a skip that belongs to no index.
    """
    if codes.dtype != np.uint16 or codes.ndim != 1 or (len(codes) and codes[-1] == _SKIP):
        raise UwmError("The indices of an edit are not whole: copy or make the file again.")
    return np.cumsum(codes, dtype=np.int64)[codes != _SKIP]


def _as_codes(codes: torch.Tensor) -> np.ndarray:
    """Return codes as an array; types that NumPy lacks become one that `decode_indices` refuses."""
    return codes.numpy() if codes.dtype == torch.uint16 else np.empty(0)


def _check_indices(name: str, indices: torch.Tensor, facts: EditedParameter) -> None:
    if not isinstance(facts, EditedParameter):
        raise UwmError(f"The facts about {name} are a {type(facts).__name__}: give an EditedParameter.")
    if not isinstance(indices, torch.Tensor) or indices.dtype != torch.long or indices.ndim != 1:
        raise UwmError(f"The indices of {name} are not a list of int64: give flat indices.")
    ascending = bool((indices[1:] > indices[:-1]).all())
    if len(indices) and (int(indices[0]) < 0 or int(indices[-1]) >= facts.numel or not ascending):
        raise UwmError(
            f"The indices of {name} do not ascend strictly within 0 to {facts.numel - 1}: make the edit again."
        )
    if len(indices) > facts.candidates:
        raise UwmError(
            f"{len(indices)} weights of {name} are edited but {facts.candidates} were scored: make the edit again."
        )
