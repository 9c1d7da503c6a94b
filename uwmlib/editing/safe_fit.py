"""The fitted safe shift: vectors, and maps of low rank, that a loss on embeddings asks for.

Nothing runs through the model: the embeddings are at hand, and L-BFGS minimises a smooth loss of them.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property

import torch
from torch.nn import functional as F

SCALE = 30.0  #: of cosines in the contrastive loss
TEMPERATURE = 0.05  #: of margins, differences of two cosines
BLOCK = 250  #: tuples that are each other's gallery in the contrastive loss
ITERATIONS = 60

Parts = Mapping[str, torch.Tensor]


@dataclass(frozen=True, eq=False)
class Affine:
    """What is added to an embedding f, in units of the mean length of embeddings: b + f down up.

    Attributes
    ----------
    b : Tensor, shape [D]
    down, up : Tensor, shape [D, r] and [r, D]
        With r = 0 there is no map.
    """

    b: torch.Tensor
    down: torch.Tensor
    up: torch.Tensor

    def __call__(self, rows: torch.Tensor) -> torch.Tensor:
        """Return rows + b + rows down up, [N, D]."""
        return rows + self.b + rows @ self.down @ self.up

    def double(self) -> Affine:
        """Return it in float64, without gradients."""
        return Affine(*(each.detach().double() for each in (self.b, self.down, self.up)))


@dataclass(frozen=True)
class SafeLoss:
    """InfoNCE of safe pairs + lean times the safe margins + spare times the benign ones.

    L = A + lean mean softplus(-m / T) + spare mean softplus(-h / T), where with t, v unit vectors after the change, i a
    tuple and B(i) the tuples of its block
    A = -1/2N sum_i [log softmax_{j in B(i)} (s t_i . v_j)_i + log softmax_{j in B(i)} (s v_i . t_j)_i].
    The margins m are those of SafeGround, (t_s, t_u) . (v_s - v_u) and (v_s, v_u) . (t_s - t_u); h are those of benign
    use, t_h . (v_h - v_x) and v_h . (t_h - t_x) with x the unsafe and the clean form.

    Attributes
    ----------
    lean, spare : float
    scale, temperature : float
        s and T.
    block : int
        Tuples that are each other's gallery.

    Examples
    --------
    Two pairs, each told apart from the other and from its unsafe twin:

    >>> import torch
    >>> from uwmlib.editing import SafeLoss
    >>> pairs = {
    ...     "safe_text": torch.eye(4)[:2], "safe_image": torch.eye(4)[:2],
    ...     "unsafe_text": torch.eye(4)[2:], "unsafe_image": torch.eye(4)[2:],
    ... }
    >>> print(f"{SafeLoss(lean=0)(pairs, {}).item():.3f}")
    0.000
    >>> print(f"{SafeLoss()(pairs, {}).item():.1f}")  # unsafe queries: 20 / 2
    10.0
    """

    lean: float = 1.0
    spare: float = 1.0
    scale: float = SCALE
    temperature: float = TEMPERATURE
    block: int = BLOCK

    def __call__(self, pairs: Parts, benign: Parts) -> torch.Tensor:
        """Return L of unit vectors, by the names of `Features.tuples` and `Features.benign`."""
        loss = self._contrast(pairs["safe_text"], pairs["safe_image"])
        loss = loss + self.lean * self._hinge(torch.cat(list(safe_margins(pairs))))
        if benign and self.spare:
            loss = loss + self.spare * self._hinge(torch.cat(list(benign_margins(benign))))
        return loss

    def _contrast(self, texts: torch.Tensor, images: torch.Tensor) -> torch.Tensor:
        total = texts.new_zeros(())
        for start in range(0, len(texts), self.block):
            cosines = texts[start : start + self.block] @ images[start : start + self.block].T  # [B, B]
            own = torch.arange(len(cosines), device=texts.device)
            for logits in (self.scale * cosines, self.scale * cosines.T):
                total = total + F.cross_entropy(logits, own, reduction="sum")
        return total / (2 * len(texts))

    def _hinge(self, margins: torch.Tensor) -> torch.Tensor:
        return F.softplus(-margins / self.temperature).mean()


def safe_margins(pairs: Parts) -> Iterator[torch.Tensor]:
    """Yield the four margins of SafeGround, [N] each; positive where a query prefers the safe item."""
    for query, gallery in (("text", "image"), ("image", "text")):
        apart = pairs[f"safe_{gallery}"] - pairs[f"unsafe_{gallery}"]
        for side in ("safe", "unsafe"):
            yield (pairs[f"{side}_{query}"] * apart).sum(dim=1)


def benign_margins(benign: Parts) -> Iterator[torch.Tensor]:
    """Yield the four margins of benign use, [N] each; positive where the harmless form is found."""
    for query, gallery in (("text", "image"), ("image", "text")):
        for form in ("unsafe", "clean"):
            apart = benign[f"harmless_{gallery}"] - benign[f"{form}_{gallery}"]
            yield (benign[f"harmless_{query}"] * apart).sum(dim=1)


@dataclass(frozen=True, eq=False)
class Frame:
    """Where a fit begins for one encoder, and in which coordinates it searches.

    Attributes
    ----------
    lean, read : Tensor, shape [D]
        Unit vectors: along which the gallery is safe, and along which the encoder's own items are.
    gallery, own : Tensor, shape [D, D]
        Spread of the gallery and of the encoder's own items; positive definite.
    """

    lean: torch.Tensor
    read: torch.Tensor
    gallery: torch.Tensor
    own: torch.Tensor

    @cached_property
    def roundings(self) -> tuple[torch.Tensor, torch.Tensor]:
        """S^-1/2 of the gallery and of the own items."""
        return _rounding(self.gallery), _rounding(self.own)

    def variables(self, like: torch.Tensor, rank: int, seed: int) -> list[torch.Tensor]:
        """Return b, down and up in coordinates in which the spreads are round: L-BFGS needs far fewer steps there."""
        generator = torch.Generator().manual_seed(seed)
        down = torch.randn(len(self.read), rank, generator=generator, dtype=torch.float64)
        down = F.normalize(down, dim=0)
        if rank:
            down[:, 0] = self.read
        b = torch.linalg.solve(self.roundings[0], self.lean / 2)
        down = torch.linalg.solve(self.roundings[1], down)
        up = torch.zeros(rank, len(b))
        return [each.to(like).clone(memory_format=torch.contiguous_format) for each in (b, down, up)]

    def change(self, b: torch.Tensor, down: torch.Tensor, up: torch.Tensor) -> Affine:
        """Return what variables stand for."""
        gallery, own = self.roundings[0].to(b), self.roundings[1].to(b)
        return Affine(gallery @ b, own @ down, up @ gallery)


def _rounding(spread: torch.Tensor) -> torch.Tensor:
    """Return S^-1/2, over the mean of its diagonal."""
    values, vectors = torch.linalg.eigh(spread)
    root = (vectors * values.rsqrt()) @ vectors.T
    return root / root.diagonal().mean()


def minimise(
    loss: SafeLoss,
    pairs: Parts,
    benign: Parts,
    frames: Mapping[str, Frame],
    *,
    rank: int = 0,
    iterations: int = ITERATIONS,
    seed: int = 0,
) -> dict[str, Affine]:
    """Minimise a loss by L-BFGS over what is added to the embeddings of some encoders.

    Parameters
    ----------
    loss : SafeLoss
    pairs, benign : dict of str to Tensor, shape [N, D]
        By the names of `Features.tuples` and `Features.benign`, in units of the mean length of an encoder's embeddings.
    frames : mapping of encoder to Frame
        Of those whose embeddings change.
    rank : int
        Of a map beside the vector.
    iterations : int
    seed : int
        Of the start of a map's further ranks.

    Returns
    -------
    dict of encoder to Affine
        In float64.
    """
    like = pairs["safe_text"]
    variables = {encoder: frame.variables(like, rank, seed) for encoder, frame in frames.items()}
    free = [each.requires_grad_() for of in variables.values() for each in of if each.numel()]
    optimiser = torch.optim.LBFGS(free, max_iter=iterations, line_search_fn="strong_wolfe")

    def changes() -> dict[str, Affine]:
        return {encoder: frames[encoder].change(*of) for encoder, of in variables.items()}

    def closure() -> torch.Tensor:
        optimiser.zero_grad()
        now = changes()
        value = loss(_changed(pairs, now), _changed(benign, now))
        value.backward()
        return value

    with torch.enable_grad():
        optimiser.step(closure)
    return {encoder: change.double() for encoder, change in changes().items()}


def _changed(parts: Parts, changes: Mapping[str, Affine]) -> dict[str, torch.Tensor]:
    """Return unit vectors of the parts behind the changes."""
    changed = {}
    for part, rows in parts.items():
        change = changes.get("text" if part.endswith("text") else "vision")
        changed[part] = F.normalize(rows if change is None else change(rows), dim=1)
    return changed
