"""How far two edits choose the same weights."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from uwmlib.editing.changes import Scaling
from uwmlib.editing.weight_edit import WeightEdit
from uwmlib.errors import UwmError


@dataclass(frozen=True)
class Agreement:
    """Two sets of weights, one of each edit, over all layers of an encoder.

    Attributes
    ----------
    left, right : int
        Number of weights that each edit chooses.
    both : int
        Number that both choose.
    expected : float
        How many both would choose on average if each drew as many weights of every layer at random.

    Examples
    --------
    >>> from uwmlib.editing import Agreement
    >>> found = Agreement(left=10, right=10, both=5, expected=1.0)
    >>> round(found.jaccard, 2), round(found.chance, 2)
    (0.33, 0.05)
    """

    left: int
    right: int
    both: int
    expected: float

    @property
    def jaccard(self) -> float:
        """The share of the weights chosen by either that both choose, in [0, 1]; 1 where neither chooses any."""
        either = self.left + self.right - self.both
        return self.both / either if either else 1.0

    @property
    def chance(self) -> float:
        """The Jaccard index at the expected overlap of random choices of the same sizes."""
        either = self.left + self.right - self.expected
        return self.expected / either if either else 1.0


def mask_agreement(left: WeightEdit, right: WeightEdit) -> dict[str, Agreement]:
    """Compare which weights two edits choose, encoder by encoder.

    Parameters
    ----------
    left, right : WeightEdit
        Of one model, both scaling chosen weights. A layer that only one of them edits counts as one from which the
        other chooses nothing.

    Returns
    -------
    dict of str to Agreement
        By encoder, of those that one of the two edits.

    Raises
    ------
    UwmError
        If an edit does anything but scale chosen weights, or the two are of different weights.

    Examples
    --------
    The largest 4 and the largest 6 percent of each layer share two thirds:

    >>> import uwmlib as uwm
    >>> from uwmlib.editing import mask_agreement, select_random
    >>> vlm = uwm.load_model("mini-ViT-L-14")
    >>> small, large = (
    ...     select_random(vlm, tau=share, text=None) for share in (0.04, 0.06)
    ... )
    >>> found = mask_agreement(small, large)["vision"]
    >>> round(found.jaccard, 2), round(found.chance, 2)
    (0.67, 0.02)
    """
    found: dict[str, Agreement] = {}
    for name in left.changes | right.changes:
        sides = [edit.changes[name] for edit in (left, right) if name in edit.changes]
        if not all(isinstance(side, Scaling) for side in sides):
            raise UwmError(f"{name} is not scaled weight by weight: compare edits that `select` made.")
        if len({(side.base_hash, side.shape) for side in sides}) > 1:
            raise UwmError(f"The two edits are for different weights of {name}: compare edits of one model.")
        chosen = [
            edit.changes[name].indices if name in edit.changes else sides[0].indices[:0]
            for edit in (left, right)
        ]
        both = int(torch.isin(*chosen).sum())
        expected = len(chosen[0]) * len(chosen[1]) / sides[0].candidates
        before = found.get(sides[0].encoder, Agreement(0, 0, 0, 0.0))
        found[sides[0].encoder] = Agreement(
            before.left + len(chosen[0]), before.right + len(chosen[1]), before.both + both,
            before.expected + expected,
        )  # fmt: skip
    return found
