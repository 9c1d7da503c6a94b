"""Contrastive pre-training of a mini CLIP on web-like pairs."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch.nn import functional as F

from uwmlib.mini.tokenizer import MiniTokenizer
from uwmlib.mini.web import web_batch


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


def normalised_pixels(pictures: torch.Tensor) -> torch.Tensor:
    """Map uint8 pictures [B, H, W, 3] to floats [B, 3, H, W] in [-1, 1] (mean and deviation 0.5)."""
    return pictures.permute(0, 3, 1, 2).float() / 127.5 - 1


def web_loss(model: torch.nn.Module, *, batch_size: int, seed: int) -> Callable[[int], torch.Tensor]:
    """Return the function from step number to CLIP's loss on that step's web batch."""
    tokenizer = MiniTokenizer()

    def loss_at(step: int) -> torch.Tensor:
        pictures, texts = web_batch(step, batch_size=batch_size, seed=seed)
        images = model.encode_image(normalised_pixels(torch.from_numpy(pictures)), normalize=True)
        captions = model.encode_text(tokenizer(texts), normalize=True)
        return symmetric_infonce(images, captions, model.logit_scale.exp().clamp(max=100))

    return loss_at
