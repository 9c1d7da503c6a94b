"""Evaluations as a file: what every tuple, benign use and picture answered, so that pairs can be compared later."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from os import PathLike
from typing import Any

import numpy as np
import torch
from torch import Tensor

from uwmlib.errors import UwmError
from uwmlib.evaluation import Evaluation
from uwmlib.files import json_of_facts, load_tensors, save_tensors
from uwmlib.metrics import DIRECTIONS, BenignUse, Retrieval, SafeGround, Score, share_of
from uwmlib.metrics.benign import COMPARISONS
from uwmlib.metrics.signal_detection import PREFERENCE_KEYS

KIND = "evaluations"


def save_evaluations(
    path: str | PathLike, evaluations: Mapping[str, Evaluation], *, facts: Mapping[str, Any] | None = None
) -> None:
    """Save what was measured, item by item: 5 to 20 kilobytes for an evaluation on 2,000 tuples.

    Parameters
    ----------
    path : path-like
        A safetensors file, written whole or not at all.
    evaluations : mapping of str to Evaluation
    facts : mapping, optional
        JSON-able facts that `load_evaluations` returns with them.

    Raises
    ------
    UwmError
        If one is no Evaluation, JSON cannot hold the facts, or the file cannot be written.

    Examples
    --------
    >>> import tempfile
    >>> import uwmlib as uwm
    >>> from uwmlib.studies import load_evaluations, save_evaluations
    >>> vlm = uwm.load_model("mini-ViT-L-14")
    >>> before = uwm.evaluate(vlm, uwm.load_tuples("mini-visu", n=8))
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     save_evaluations(f"{folder}/base", {"CLIP": before}, facts={"seed": 0})
    ...     found, facts = load_evaluations(f"{folder}/base")
    >>> print(found["CLIP"]["p_s_t"] == before["p_s_t"], facts)
    True {'seed': 0}
    """
    json_of_facts(facts or {}, "the facts of evaluations")
    tensors, about = {}, []  # a list, because a mapping comes back in another order
    for name, each in evaluations.items():
        if not isinstance(each, Evaluation):
            raise UwmError(f"{name!r} is a {type(each).__name__}: give what `evaluate` returned.")
        parts = _parts(each)
        tensors |= {f"{name}|{part}": tensor for part, tensor in parts.items()}
        about.append({
            "name": name, "model": each.model, "data": each.data, "split": each.split, "n": each.safeground.n,
            "benign": each.benign.n if each.benign else None, "match": each.match is not None,
            "zero_shot": [[key, score.n] for key, score in each.zero_shot.items()],
        })  # fmt: skip
    save_tensors(path, tensors, kind=KIND, metadata={"evaluations": about, "facts": dict(facts or {})})


def load_evaluations(path: str | PathLike) -> tuple[dict[str, Evaluation], dict[str, Any]]:
    """Load what `save_evaluations` wrote; the second is its facts.

    Raises
    ------
    UwmError
        If the file is missing, damaged, or holds no evaluations.

    Examples
    --------
    The rows of Table 1 on the base of seed 1, as they ship:

    >>> from uwmlib.manifests import manifest_path
    >>> from uwmlib.studies import load_evaluations
    >>> folder = manifest_path("studies", "table1")
    >>> rows, facts = load_evaluations(folder / "mini-ViT-L-14-seed1.safetensors")
    >>> list(rows)[:4]
    ['CLIP', 'G-Safe-CLIP', 'G-Unsafe', 'UWM']
    >>> rows["CLIP"]["gs"].n, facts["readings"]["tau"]
    (2000, 0.02)
    """
    tensors, metadata = load_tensors(path, kind=KIND)
    try:
        found = {each["name"]: _evaluation(tensors, each) for each in metadata["evaluations"]}
        return found, metadata["facts"]
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise UwmError(f"{path} lacks a part of its evaluations: make the file again.") from error


def _parts(evaluation: Evaluation) -> dict[str, Tensor]:
    """Return ranks and answers of one evaluation, the answers eight to a byte."""
    ranks = torch.stack([evaluation.retrieval.ranks[key] for key in DIRECTIONS])  # [4, N]
    small = torch.int16 if int(ranks.max()) < 2**15 else torch.int64
    preferences = [getattr(evaluation.safeground, key) for key in PREFERENCE_KEYS]
    parts = {"ranks": ranks.to(small), "preferences": _packed(preferences)}
    if evaluation.benign is not None:
        parts["benign"] = _packed([getattr(evaluation.benign, key) for key in COMPARISONS])
    if evaluation.match is not None:
        parts["match"] = _packed([torch.from_numpy(evaluation.match.items.copy())])
    if evaluation.zero_shot:
        right = np.concatenate([score.items for score in evaluation.zero_shot.values()])
        parts["zero_shot"] = _packed([torch.from_numpy(right)])
    return parts


def _packed(rows: list[Tensor]) -> Tensor:
    """Pack booleans, K rows [N] -> [K, ceil(N / 8)] bytes."""
    return torch.from_numpy(np.packbits(torch.stack(list(rows)).cpu().numpy(), axis=1))


def _unpacked(packed: Tensor, n: int) -> Tensor:
    """Undo `_packed`: [K, ceil(N / 8)] bytes -> [K, N] booleans."""
    if packed.shape[1] != math.ceil(n / 8):
        raise ValueError("another number of items")
    return torch.from_numpy(np.unpackbits(packed.numpy(), axis=1, count=n).astype(bool))


def _evaluation(tensors: Mapping[str, Tensor], about: Mapping[str, Any]) -> Evaluation:
    name, n = about["name"], about["n"]
    ranks = tensors[f"{name}|ranks"].long()
    if ranks.shape != (len(DIRECTIONS), n):
        raise ValueError("another number of ranks")
    benign = about["benign"]
    return Evaluation(
        model=about["model"],
        data=about["data"],
        split=about["split"],
        safeground=SafeGround(*_unpacked(tensors[f"{name}|preferences"], n)),
        retrieval=Retrieval(dict(zip(DIRECTIONS, ranks, strict=True))),
        zero_shot=_accuracies(tensors.get(f"{name}|zero_shot"), about["zero_shot"]),
        benign=benign and BenignUse(*_unpacked(tensors[f"{name}|benign"], benign)),
        match=share_of(_unpacked(tensors[f"{name}|match"], n)[0]) if about.get("match") else None,
    )


def _accuracies(packed: Tensor | None, sets: Sequence[tuple[str, int]]) -> dict[str, Score]:
    if not sets:
        return {}
    sizes = [n for _, n in sets]
    right = _unpacked(packed, sum(sizes))[0].split(sizes)
    return {name: share_of(items) for (name, _), items in zip(sets, right, strict=True)}
