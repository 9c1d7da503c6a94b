"""An edit of a model's weights: what is done to which parameter, on which base."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, fields
from typing import Any

import torch
from safetensors.torch import save_file

from uwmlib.editing.changes import FLOATS, KINDS, Change, about
from uwmlib.errors import UwmError
from uwmlib.files import (
    atomic_path,
    json_of_facts,
    load_tensors,
    require_facts,
    save_tensors,
    sha256_of_tensors,
)
from uwmlib.models.vlm import Vlm, require_vlm
from uwmlib.options import known

FORMAT_VERSION = 2


@dataclass(frozen=True)
class WeightEdit:
    """Changes of a model's parameters, of any kind, which can be applied, undone, merged, saved and exported.

    `Scores.select` and `GradientScores.select` make edits that scale chosen weights (Eq. 11), `delta_edit`,
    `shift_edit` and `residual_shift_edit` edits that add, `gate_edit` edits that gate whole neurons. The
    released code puts a mask into replaced Linear modules; here the stored weights themselves are changed,
    which works for every layer, and undone bit for bit.

    Attributes
    ----------
    changes : dict of str to Scaling, Delta or Gates
        Parameter name -> what is done to it.
    description : dict
        JSON-able facts about how the edit came about.
    rests_on : dict of str to str
        Parameter name -> `parameter_hash` of parameters that the edit leaves alone but was made for, such as the
        projection behind a bias; it is refused where one differs.

    Raises
    ------
    UwmError
        If `changes` is not such a mapping, `rests_on` is none of text, or JSON cannot hold `description`.

    Examples
    --------
    >>> import uwmlib as uwm
    >>> vlm = uwm.load_model("mini-ViT-L-14")
    >>> tuples = uwm.load_tuples("mini-visu", split="train", n=8)
    >>> edit = uwm.score(vlm, tuples, progress=False).select(tau=0.02)
    >>> before = vlm.weights_hash()
    >>> with edit.applied(vlm):
    ...     vlm.weights_hash() == before
    False
    >>> vlm.weights_hash() == before
    True
    """

    changes: dict[str, Change]
    description: dict[str, Any] = field(default_factory=dict)
    rests_on: dict[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        pairs = self.changes.items() if isinstance(self.changes, Mapping) else [(None, None)]
        if not all(isinstance(name, str) and isinstance(change, Change) for name, change in pairs):
            raise UwmError("An edit needs one change for each parameter name: give Scaling, Delta or Gates.")
        facts = self.rests_on.items() if isinstance(self.rests_on, Mapping) else [(None, None)]
        if not all(isinstance(name, str) and isinstance(digest, str) for name, digest in facts):
            raise UwmError("What an edit rests on is the parameter_hash of each parameter, by its name.")
        as_facts(self.description)

    def __repr__(self) -> str:
        shares = ", ".join(f"{encoder} {share:.2%}" for encoder, share in self.share().items())
        return f"WeightEdit({self.n_weights} weights in {len(self.changes)} parameters: {shares})"

    @property
    def n_weights(self) -> int:
        """Number of edited weights."""
        return sum(change.n_weights for change in self.changes.values())

    def share(self) -> dict[str, float]:
        """Return, per encoder, the share of the edited layers' weights that the edit changes, in [0, 1].

        Where weights were scored, it is the share of those.
        """
        edited: dict[str, int] = {}
        candidates: dict[str, int] = {}
        for change in self.changes.values():
            edited[change.encoder] = edited.get(change.encoder, 0) + change.n_weights
            candidates[change.encoder] = candidates.get(change.encoder, 0) + change.n_candidates
        return {encoder: edited[encoder] / candidates[encoder] for encoder in edited}

    @contextmanager
    def applied(self, vlm: Vlm) -> Iterator[Vlm]:
        """Change the weights inside the `with` block, then put the exact old bits back.

        Edits of different parameters may be nested.

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
            Before anything is changed, if a parameter is missing or not, bit for bit, the one the edit is for. Else
            with all put back, if a weight would be too large for its number type. At the end, if the model was moved
            or converted inside the block, which leaves it edited.
        """
        self._check_base(vlm)
        originals: list[tuple[torch.Tensor, Any, torch.Tensor]] = []
        try:
            for name, change in self.changes.items():
                weight = vlm.model.get_parameter(name).detach()
                at = change.where(weight.device)
                before = weight[at].clone()
                originals.append((weight, at, before))
                after = change.after(before)
                if not torch.isfinite(after).all():
                    raise UwmError(
                        f"The edit makes weights of {name} too large for {weight.dtype}: make it with smaller numbers."
                    )
                weight[at] = after
            yield vlm
        finally:
            for weight, at, before in originals:
                weight[at] = before
        present = dict(vlm.model.named_parameters())
        for name, (weight, _, _) in zip(self.changes, originals, strict=True):
            if name not in present or present[name].data_ptr() != weight.data_ptr():
                raise UwmError(
                    f"{vlm.name} was moved or converted while it was edited and stays so ({name}): load it again."
                )

    def merged(self, other: WeightEdit) -> WeightEdit:
        """Return one edit that does what this and `other` do, whatever the kinds of their changes.

        Raises
        ------
        UwmError
            If both edit the same parameter, as one's result is not the other's base, or `other` is no edit.
        """
        if not isinstance(other, WeightEdit):
            raise UwmError(
                f"An edit is merged with another one, not with {other!r}: load that with WeightEdit.load."
            )
        both = self.changes.keys() & other.changes.keys()
        if both:
            raise UwmError(f"Both edits change {min(both)}, so they cannot be merged: make one edit of it.")
        facts = {"merged": [self.description, other.description]}
        return WeightEdit(self.changes | other.changes, facts, self.rests_on | other.rests_on)

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
        """Write the edit alone: four bytes per scaled weight or gate, a delta as it is."""
        kind_of = {kind: name for name, kind in KINDS.items()}
        tensors: dict[str, torch.Tensor] = {}
        facts: dict[str, dict[str, Any]] = {}
        for name, change in self.changes.items():
            facts[name] = {"kind": kind_of[type(change)]}
            for key, value in vars(change).items():
                if isinstance(value, torch.Tensor):
                    tensors[f"{name}|{key}"] = _narrowed(value)
                else:
                    facts[name][key] = value
        metadata = {"format_version": FORMAT_VERSION, "changes": facts, "description": self.description}
        metadata["rests_on"] = self.rests_on
        save_tensors(path, tensors, kind="weight-edit", metadata=metadata)

    @classmethod
    def load(cls, path: str | os.PathLike) -> WeightEdit:
        """Read what `save` wrote, whatever the kinds of its changes.

        Raises
        ------
        UwmError
            If the file is missing, damaged, of another kind or version, or what it holds is no edit.
        """
        tensors, metadata = load_tensors(path, kind="weight-edit")
        version = metadata.get("format_version") if isinstance(metadata, dict) else None
        if version != FORMAT_VERSION:
            raise UwmError(
                f"{path} has format version {version!r}, not {FORMAT_VERSION}: make the edit again, with this uwmlib."
            )
        metadata.setdefault("rests_on", {})  # files from before there was such a thing
        require_facts(path, metadata, format_version=int, changes=dict, description=dict, rests_on=dict)
        parts: dict[str, dict[str, torch.Tensor]] = {name: {} for name in metadata["changes"]}
        for key, tensor in tensors.items():
            name, _, part = key.rpartition("|")
            parts.setdefault(name, {})[part] = tensor.long() if tensor.dtype == torch.int32 else tensor
        changes: dict[str, Change] = {}
        for name, tensors_of in parts.items():
            with about(f"{name} in {path}"):
                changes[name] = _read_change(metadata["changes"].get(name), tensors_of)
        return cls(changes, metadata["description"], metadata["rests_on"])

    def _check_base(self, vlm: Vlm) -> None:
        require_vlm(vlm)
        present = dict(vlm.model.named_parameters())
        for name, change in self.changes.items():
            if name not in present or tuple(present[name].shape) != change.shape:
                raise UwmError(
                    f"{vlm.name} has no parameter {name} of shape {list(change.shape)}: "
                    f"this edit is for another model."
                )
            if present[name].dtype not in FLOATS:
                raise UwmError(
                    f"{name} holds {present[name].dtype}, not floating numbers of 16 bits or more: load it as such."
                )
            require_base(vlm, name, change.base_hash)
        for name, base_hash in self.rests_on.items():
            if name not in present:
                raise UwmError(f"{vlm.name} has no parameter {name}: this edit is for another model.")
            require_base(vlm, name, base_hash)


def as_facts(description: Any) -> dict[str, Any]:
    """Return the description of an edit as a dict; UwmError for what JSON cannot hold."""
    json_of_facts(description, "the description of an edit")
    return dict(description)


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


def _narrowed(tensor: torch.Tensor) -> torch.Tensor:
    """Return indices as int32, which `load` widens; those that do not fit, and other tensors, as they are."""
    fits = tensor.dtype == torch.long and (not len(tensor) or int(tensor[-1]) < 2**31)
    return tensor.int() if fits else tensor


def _read_change(facts: Any, tensors: Mapping[str, torch.Tensor]) -> Change:
    """Make a change of what a file says about one parameter; its class checks the values."""
    plain = dict(facts) if isinstance(facts, dict) else {}
    kind = KINDS[known(plain.pop("kind", None), KINDS, "kind of change")]
    values = {key: tuple(value) if isinstance(value, list) else value for key, value in plain.items()}
    wanted = {each.name for each in fields(kind)}
    if values.keys() & tensors.keys() or values.keys() | tensors.keys() != wanted:
        raise UwmError(
            f"A change of kind {facts['kind']!r} has {', '.join(sorted(wanted))}: make the file again."
        )
    return kind(**values, **tensors)
