"""Scores of groups of tuples, such as those of one concept, which add up to the scores of all."""

from __future__ import annotations

import hashlib
from collections.abc import Hashable, Sequence
from typing import Any

import numpy as np

from uwmlib.editing.calibration import score
from uwmlib.editing.saliency import PairSums
from uwmlib.editing.scores import Scores
from uwmlib.errors import UwmError
from uwmlib.models.vlm import Vlm
from uwmlib.tuples.tuples import Tuples, require_tuples


def score_groups(
    vlm: Vlm, tuples: Tuples, labels: Sequence[Hashable], **options: Any
) -> dict[Hashable, Scores]:
    """Score every group of tuples by itself.

    Parameters
    ----------
    vlm : Vlm
    tuples : Tuples
    labels : sequence, one a tuple
        Its group, such as `tuples.concepts`.
    **options
        Of `score`.

    Returns
    -------
    dict of label to Scores
        In the order in which the labels first come. `pool_scores` adds them up.

    Raises
    ------
    UwmError
        If there is not one label a tuple, and as `score`.

    Examples
    --------
    >>> import uwmlib as uwm
    >>> from uwmlib.editing import score_groups
    >>> vlm = uwm.load_model("mini-ViT-L-14")
    >>> tuples = uwm.load_tuples("mini-visu", split="train", n=8)
    >>> found = score_groups(
    ...     vlm, tuples, "aabbbaab", vision=None, progress=False
    ... )
    >>> {label: scores.n for label, scores in found.items()}
    {'a': 4, 'b': 4}
    """
    require_tuples(tuples)
    if len(labels) != len(tuples):
        raise UwmError(f"There are {len(labels)} labels of {len(tuples)} tuples: give one for each.")
    rows: dict[Hashable, list[int]] = {}
    for row, label in enumerate(labels):
        rows.setdefault(label, []).append(row)
    found = {}
    for label, members in rows.items():
        of_group = np.zeros(len(tuples), dtype=bool)
        of_group[members] = True
        found[label] = score(vlm, tuples[of_group], **options)
    return found


def pool_scores(parts: Sequence[Scores]) -> Scores:
    """Add the scores of groups of tuples up to those of all of them: every tuple weighs the same.

    Parameters
    ----------
    parts : sequence of Scores
        Finished passes over tuples of one model and the same sites.

    Returns
    -------
    Scores

    Raises
    ------
    UwmError
        For none, an unfinished pass, or another model or other sites.

    Examples
    --------
    >>> import torch
    >>> import uwmlib as uwm
    >>> from uwmlib.editing import pool_scores
    >>> vlm = uwm.load_model("mini-ViT-L-14")
    >>> tuples = uwm.load_tuples("mini-visu", split="train", n=8)
    >>> halves = [
    ...     uwm.score(vlm, half, vision=None, progress=False)
    ...     for half in (tuples[:4], tuples[4:])
    ... ]
    >>> whole = uwm.score(vlm, tuples, vision=None, progress=False)
    >>> found = pool_scores(halves)
    >>> name = "text.0.out"
    >>> torch.allclose(found.score_of(name), whole.score_of(name), rtol=1e-4)
    True
    """
    parts = list(parts)
    if not parts or not all(isinstance(each, Scores) and each.complete for each in parts):
        raise UwmError("There is nothing to add up: give the scores of finished passes.")
    first = parts[0]
    if any(each.sites != first.sites or each.base_hashes != first.base_hashes for each in parts):
        raise UwmError("The scores are of other models or sites: add up those of one.")
    sums = {
        name: PairSums(
            *(sum(getattr(each.sums[name], part) for each in parts) for part in ("unsafe", "safe", "ratio"))
        )
        for name in first.sums
    }
    n = sum(each.n for each in parts)
    tuples = hashlib.sha256("|".join(each.provenance["tuples"] for each in parts).encode()).hexdigest()
    return Scores(
        first.vlm,
        first.sites,
        sums,
        n,
        first.base_hashes,
        first.provenance | {"tuples": tuples, "n_tuples": n},
    )
