"""Pre-training of the mini models on web-like pairs, each by the loss of its family."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch.nn import functional as F

from uwmlib.mini.web import web_batch
from uwmlib.mini.worlds import World
from uwmlib.models import Vlm
from uwmlib.models.losses import symmetric_infonce

Loss = Callable[[Vlm, torch.Tensor, torch.Tensor], torch.Tensor]  #: of a model, its pixels and its tokens


def normalised_pixels(pictures: torch.Tensor) -> torch.Tensor:
    """Map uint8 pictures [B, H, W, 3] to floats [B, 3, H, W] in [-1, 1] (mean and deviation 0.5)."""
    return pictures.permute(0, 3, 1, 2).float() / 127.5 - 1


def pairwise_sigmoid(
    images: torch.Tensor, texts: torch.Tensor, scale: torch.Tensor | float, bias: torch.Tensor | float
) -> torch.Tensor:
    """Return SigLIP's loss: every one of the B x B pairs is a yes-or-no question; summed, divided by B.

    Parameters
    ----------
    images, texts : Tensor, shape [B, D]
        Unit-norm embeddings; row i of one belongs to row i of the other.
    scale, bias : Tensor or float
        Logit = scale * cosine + bias.
    """
    logits = scale * images @ texts.T + bias  # [B, D] x [D, B] -> [B, B]
    signs = 2 * torch.eye(len(logits), device=logits.device) - 1
    return -F.logsigmoid(signs * logits).sum() / len(logits)


def clip_loss(vlm: Vlm, pixels: torch.Tensor, tokens: torch.Tensor) -> torch.Tensor:
    """Return CLIP's symmetric cross-entropy of a batch: pixels [B, 3, H, W], tokens [B, L]."""
    scale = vlm.model.logit_scale.exp().clamp(max=100)
    return symmetric_infonce(vlm.encode_image(pixels), vlm.encode_text(tokens), scale)


def siglip_loss(vlm: Vlm, pixels: torch.Tensor, tokens: torch.Tensor) -> torch.Tensor:
    """Return SigLIP's sigmoid loss of a batch: pixels [B, 3, H, W], tokens [B, L]."""
    scale, bias = vlm.model.logit_scale.exp(), vlm.model.logit_bias
    return pairwise_sigmoid(vlm.encode_image(pixels), vlm.encode_text(tokens), scale, bias)


def coca_loss(vlm: Vlm, pixels: torch.Tensor, tokens: torch.Tensor) -> torch.Tensor:
    """Return CLIP's loss and twice the captioning loss, the weights of open_clip's recipe for CoCa."""
    out = vlm.model(pixels, tokens)
    logits, labels = out["logits"], out["labels"]  # [B, L - 1, V], [B, L - 1]
    caption = F.cross_entropy(logits.flatten(0, 1), labels.flatten(), ignore_index=vlm.model.pad_id)
    scale = out["logit_scale"].clamp(max=100)
    return symmetric_infonce(out["image_features"], out["text_features"], scale) + 2 * caption


def web_loss(
    vlm: Vlm, loss: Loss, *, world: World, batch_size: int, seed: int
) -> Callable[[int], torch.Tensor]:
    """Return the function from step number to a pre-training loss (`clip_loss`, ...) on that step's web batch."""

    def loss_at(step: int) -> torch.Tensor:
        pictures, texts = web_batch(step, batch_size=batch_size, seed=seed, world=world)
        return loss(vlm, normalised_pixels(torch.from_numpy(pictures)), vlm.tokenize(texts))

    return loss_at
