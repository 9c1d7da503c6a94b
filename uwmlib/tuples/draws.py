"""Calibration sets that are drawn otherwise than at random."""

from __future__ import annotations

import numpy as np

from uwmlib.errors import UwmError
from uwmlib.options import whole_number
from uwmlib.tuples.loading import sample_rows
from uwmlib.tuples.tuples import Tuples, require_tuples


def per_concept(tuples: Tuples, *, n: int, seed: int = 0) -> Tuples:
    """Draw as many tuples of each concept, as the paper says of its calibration set (Sec. 5.1: 400 per concept).

    The released code draws at random from all of them (`load_tuples` with `n`), which is about as many of each.

    Parameters
    ----------
    tuples : Tuples
        From which is drawn.
    n : int
        How many of each concept.
    seed : int
        Of the draw.

    Returns
    -------
    Tuples
        In the order in which they stand in `tuples`.

    Raises
    ------
    UwmError
        If a concept has fewer than `n` tuples, or `n` or `seed` cannot be used.

    Examples
    --------
    >>> import uwmlib as uwm
    >>> from uwmlib.tuples import per_concept
    >>> pool = uwm.load_tuples("mini-visu", split="train", n=200)
    >>> drawn = per_concept(pool, n=2)
    >>> len(drawn), len(set(drawn.concepts))
    (40, 20)
    """
    require_tuples(tuples)
    whole_number(n, "n")
    shuffled = sample_rows(len(tuples), len(tuples), seed)
    rows: list[int] = []
    for concept in sorted(set(tuples.concepts)):
        of_concept = [row for row in shuffled.tolist() if tuples.concepts[row] == concept]
        if len(of_concept) < n:
            raise UwmError(
                f"Of {concept!r} there are {len(of_concept)} tuples, not {n}: ask for fewer of each concept."
            )
        rows += of_concept[:n]
    return tuples[np.sort(rows)]
