"""Recall@k over all tuples (Sec. 3.1, Eqs. 1-2; Tables 1 and 4): does a query find its own safe partner."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from uwmlib.metrics.embeddings import TIE, check_embeddings, unit_rows
from uwmlib.metrics.score import Measured, Score, share_of
from uwmlib.options import known, whole_number

DIRECTIONS = ("ts_vs", "vs_ts", "tu_vus", "vu_tus")
KS = (1, 5, 10, 20)  # cut-offs of the printed table
CHUNK = 1024  # products are taken in blocks of CHUNK x CHUNK cosines


@dataclass(frozen=True, eq=False, repr=False)
class Retrieval(Measured):
    """The rank of every query's own safe partner; `found["ts_vs"]` is the recall@1 of a direction.

    Attributes
    ----------
    ranks : dict of str to Tensor, shape [N], int64
        1 is best. Keys are `DIRECTIONS`.

    Examples
    --------
    >>> import torch
    >>> from uwmlib.metrics import DIRECTIONS, Retrieval
    >>> ranks = dict.fromkeys(DIRECTIONS, torch.tensor([1, 1, 3, 12]))
    >>> found = Retrieval(ranks)
    >>> found["ts_vs"].value, found.recall("ts_vs", 5).value
    (50.0, 75.0)
    """

    ranks: dict[str, Tensor]

    @property
    def n(self) -> int:
        """Number of tuples, hence of queries per direction."""
        return len(self.ranks[DIRECTIONS[0]])

    def recall(self, direction: str, k: int) -> Score:
        """Return recall@k: the share of queries that find their partner among the first k.

        Raises
        ------
        UwmError
            If the direction is unknown or k is below 1.
        """
        known(direction, DIRECTIONS, "direction")
        return share_of(self.ranks[direction] <= whole_number(k, "k of recall@k"))

    def __iter__(self) -> Iterator[str]:
        return iter(DIRECTIONS)

    def _score(self, direction: str) -> Score:
        """Return recall@1, a column of Table 1."""
        return self.recall(direction, 1)

    def __repr__(self) -> str:
        return f"Retrieval(n={self.n}, ts_vs@1={self['ts_vs'].value:.1f})"

    def __str__(self) -> str:
        lines = [f"Retrieval, n = {self.n}: recall in percent"]
        lines.append(" " * 7 + "".join(f"{f'@{k}':>7}" for k in KS))
        for direction in DIRECTIONS:
            values = (self.recall(direction, k).value for k in KS)
            lines.append(f"{direction:<7}" + "".join(f"{value:7.1f}" for value in values))
        return "\n".join(lines)


def retrieval(
    *,
    safe_text: Tensor,
    unsafe_text: Tensor,
    safe_image: Tensor,
    unsafe_image: Tensor,
) -> Retrieval:
    """Rank every query's own safe partner in the whole gallery.

    Directions: ts_vs asks with safe texts among the N safe images, vs_ts the reverse; tu_vus asks with unsafe
    texts among all 2N images and wants the own *safe* one; vu_tus asks with unsafe images among all 2N texts.
    Rank = better items + other tied items + 1, so a tie never helps (the released code sorts without a rule
    for ties).

    Rows are normalised here and compared in float64. Cosines nearer than 1e-12 are tied, which is more than
    rounding can part: duplicates tie whatever block of the product they fall in, and a hit at 1 implies the
    strict preference that SafeGround asks for (tu_vus <= p_u_t and vu_tus <= p_u_v).

    Parameters
    ----------
    safe_text, unsafe_text, safe_image, unsafe_image : Tensor, shape [N, D], any floating dtype
        Row i of all four belongs to tuple i.

    Returns
    -------
    Retrieval
        Ranks on the CPU.

    Raises
    ------
    UwmError
        If shapes differ, there is no row, or a row is zero or holds NaN or Inf.

    Examples
    --------
    The first unsafe image is the safe one again, and a tie never helps: the
    unsafe text finds its own safe image second.

    >>> import torch
    >>> import uwmlib as uwm
    >>> own = torch.tensor([[1.0, 0.0], [0.0, 1.0]])
    >>> found = uwm.retrieval(
    ...     safe_text=own,
    ...     unsafe_text=own,
    ...     safe_image=own,
    ...     unsafe_image=torch.tensor([[1.0, 0.0], [1.0, 1.0]]),
    ... )
    >>> found.ranks["tu_vus"]
    tensor([2, 1])
    >>> print(found)
    Retrieval, n = 2: recall in percent
                @1     @5    @10    @20
    ts_vs    100.0  100.0  100.0  100.0
    vs_ts    100.0  100.0  100.0  100.0
    tu_vus    50.0  100.0  100.0  100.0
    vu_tus     0.0  100.0  100.0  100.0
    """
    rows = check_embeddings(
        safe_text=safe_text, unsafe_text=unsafe_text, safe_image=safe_image, unsafe_image=unsafe_image
    )
    ts, tu, vs, vu = (unit_rows(name, each) for name, each in rows.items())
    safe_bar, text_bar, image_bar = ((q * own).sum(dim=1) - TIE for q, own in ((ts, vs), (tu, vs), (vu, ts)))
    ts_vs, vs_ts = _counts_reaching(ts, vs, safe_bar, safe_bar)
    among_safe_images, _ = _counts_reaching(tu, vs, text_bar, None)
    among_safe_texts, _ = _counts_reaching(vu, ts, image_bar, None)
    # The unsafe-unsafe product serves both directions: its rows are texts asking, its columns images asking.
    among_unsafe_images, among_unsafe_texts = _counts_reaching(tu, vu, text_bar, image_bar)
    ranks = (ts_vs, vs_ts, among_safe_images + among_unsafe_images, among_safe_texts + among_unsafe_texts)
    return Retrieval(dict(zip(DIRECTIONS, (r.cpu() for r in ranks), strict=True)))


def _counts_reaching(
    rows: Tensor, columns: Tensor, row_bar: Tensor, column_bar: Tensor | None
) -> tuple[Tensor, Tensor]:
    """Count, for each row, the columns whose cosine reaches its bar; and for each column, the rows.

    With the bar at the own partner's cosine less the tie width the partner itself counts one, so the count
    over the whole gallery is the rank.
    """
    by_row = torch.zeros(len(rows), dtype=torch.int64, device=rows.device)
    by_column = torch.zeros_like(by_row)
    for i in range(0, len(rows), CHUNK):
        for j in range(0, len(columns), CHUNK):
            block = rows[i : i + CHUNK] @ columns[j : j + CHUNK].T  # -> [CHUNK, CHUNK]
            by_row[i : i + CHUNK] += (block >= row_bar[i : i + CHUNK, None]).sum(dim=1)
            if column_bar is not None:
                by_column[j : j + CHUNK] += (block >= column_bar[j : j + CHUNK]).sum(dim=0)
    return by_row, by_column
