"""Losses of embeddings that more than one layer of the library takes."""

from __future__ import annotations

import torch
from torch.nn import functional as F


def symmetric_infonce(images: torch.Tensor, texts: torch.Tensor, scale: torch.Tensor | float) -> torch.Tensor:
    """Return the mean of both directions' cross-entropies of a batch against its own pairing.

    Parameters
    ----------
    images, texts : Tensor, shape [B, D]
        Unit-norm embeddings; row i of one belongs to row i of the other.
    scale : Tensor or float
        Multiplies the cosine similarities (the inverse temperature).
    """
    logits = scale * images @ texts.T  # [B, D] x [D, B] -> [B, B]
    labels = torch.arange(len(logits), device=logits.device)
    return (F.cross_entropy(logits, labels) + F.cross_entropy(logits.T, labels)) / 2
