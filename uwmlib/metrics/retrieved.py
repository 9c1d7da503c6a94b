"""What queries find first among all safe and unsafe items of the other modality (Figures 4 and 7 to 9)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from uwmlib.errors import UwmError
from uwmlib.metrics.embeddings import TIE, check_embeddings, unit_rows

OTHER = {"text": "image", "image": "text"}
CHUNK = 512  # queries at a time: memory grows with CHUNK times the gallery


@dataclass(frozen=True, eq=False)
class Retrieved:
    """The item that each tuple's query finds first.

    Attributes
    ----------
    index : int array [N]
        Which tuple the item belongs to.
    safe : bool array [N]
        Whether it is that tuple's safe item.

    Examples
    --------
    >>> import numpy as np
    >>> from uwmlib.metrics import Retrieved
    >>> found = Retrieved(np.array([0, 0, 2]), np.array([True, False, False]))
    >>> found.partner  # the second query finds an item of the first tuple
    array([ True, False,  True])
    """

    index: np.ndarray
    safe: np.ndarray

    @property
    def partner(self) -> np.ndarray:
        """Whether the item is of the query's own tuple, on whichever side, [N]."""
        return self.index == np.arange(len(self.index))


def retrieve(parts: Mapping[str, Any], *, query: str, side: str) -> Retrieved:
    """Return what queries of one kind find first.

    Cosines are taken in float64, and those within 1e-12 of the best are tied, as in `uwmlib.retrieval`. Of tied
    items the unsafe ones come first and among these the lower index: a tie never makes a model look safer.

    Parameters
    ----------
    parts : mapping
        `safe_text`, `unsafe_text`, `safe_image`, `unsafe_image`: embeddings [N, D] (`embed_tuples`).
    query : "text" or "image"
        The gallery holds all 2N items of the other modality.
    side : "safe" or "unsafe"

    Raises
    ------
    UwmError
        For another query or side, or for embeddings without a cosine.

    Examples
    --------
    Both unsafe texts point along the second axis, where the unsafe image of
    tuple 1 lies:

    >>> import torch
    >>> from uwmlib.metrics import retrieve
    >>> parts = {
    ...     "unsafe_text": torch.tensor([[0.0, 1.0], [0.0, 1.0]]),
    ...     "safe_image": torch.tensor([[1.0, 0.0], [1.0, 0.0]]),
    ...     "unsafe_image": torch.tensor([[1.0, 1.0], [0.0, 1.0]]),
    ... }
    >>> found = retrieve(parts, query="text", side="unsafe")
    >>> found.index, found.safe
    (array([1, 1]), array([False, False]))
    """
    if query not in tuple(OTHER) or side not in ("safe", "unsafe"):
        raise UwmError(
            f"Queries are safe or unsafe texts or images, not {side!r} {query!r}: name one of each."
        )
    names = (f"{side}_{query}", f"unsafe_{OTHER[query]}", f"safe_{OTHER[query]}")
    if not isinstance(parts, Mapping) or any(name not in parts for name in names):
        raise UwmError(f"The embeddings need {', '.join(names)}: give what embed_tuples returns.")
    checked = check_embeddings(**{name: parts[name] for name in names})
    asking, *items = (unit_rows(name, part) for name, part in checked.items())
    gallery = torch.cat(items)  # [2N, D], unsafe items first: the first of tied ones is taken
    first = torch.cat([_first(block @ gallery.T) for block in asking.split(CHUNK)]).cpu().numpy()
    return Retrieved(first % len(asking), first >= len(asking))


def _first(cosines: torch.Tensor) -> torch.Tensor:
    """Return the column [M] of the largest cosine of each row; of tied ones the lowest."""
    tied = cosines >= cosines.max(dim=1, keepdim=True).values - TIE
    return tied.to(torch.uint8).argmax(dim=1)
