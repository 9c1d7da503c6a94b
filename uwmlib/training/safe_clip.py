"""Safe-CLIP's fine-tuning [Poppi et al., ECCV 2024]: eight losses against a separate, frozen reference."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch
from torch.nn import functional as F

from uwmlib.mini.randomness import Columns
from uwmlib.mini.tokenizer import MiniTokenizer
from uwmlib.mini.worlds import World
from uwmlib.models.losses import symmetric_infonce
from uwmlib.training.contrastive import normalised_pixels
from uwmlib.tuples import Tuples

SCALE = 100.0  #: fixed inverse temperature of the contrastive terms
#: Weight of each term, as in the released training scripts (there divided by their sum, which Adam does not see).
WEIGHTS = {
    "text_safe": 0.10, "text_unsafe": 0.10, "vision_safe": 0.10, "vision_unsafe": 0.20,
    "text_safe_to_image": 0.25, "text_unsafe_to_image": 0.25,
    "vision_safe_to_text": 0.25, "vision_unsafe_to_text": 0.50,
}  # fmt: skip


def mean_cosine_distance(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    """Return the mean over rows of 1 - cos(a, b); a, b of shape [B, D]."""
    return (1 - F.cosine_similarity(a, b, dim=-1)).mean()


def eight_losses(
    student: Mapping[str, torch.Tensor], reference: Mapping[str, torch.Tensor]
) -> dict[str, torch.Tensor]:
    """Return the eight terms of Safe-CLIP's loss.

    Parameters
    ----------
    student : mapping
        Unit-norm embeddings [B, D] of `safe_text`, `unsafe_text`, `safe_image`, `unsafe_image` under training.
    reference : mapping
        The frozen model's embeddings of `safe_text` and `safe_image`.

    Returns
    -------
    dict of str to scalar Tensor
        Preservation keeps safe items where they were; redirection moves unsafe items to their safe twins.

    Notes
    -----
    In the released code the reference is the very object that is being trained (PEFT injects its adapters in place),
    so nothing anchors to the original model. Here the reference is a separate copy, as the paper describes.
    """
    text, image = reference["safe_text"], reference["safe_image"]
    return {
        "text_safe": mean_cosine_distance(student["safe_text"], text),
        "text_unsafe": mean_cosine_distance(student["unsafe_text"], text),
        "vision_safe": mean_cosine_distance(student["safe_image"], image),
        "vision_unsafe": mean_cosine_distance(student["unsafe_image"], image),
        "text_safe_to_image": symmetric_infonce(student["safe_text"], image, SCALE),
        "text_unsafe_to_image": symmetric_infonce(student["unsafe_text"], image, SCALE),
        "vision_safe_to_text": symmetric_infonce(student["safe_image"], text, SCALE),
        "vision_unsafe_to_text": symmetric_infonce(student["unsafe_image"], text, SCALE),
    }


def safe_clip_loss(
    model: torch.nn.Module,
    reference: torch.nn.Module,
    tuples: Tuples,
    *,
    world: World,
    batch_size: int,
    seed: int,
) -> Callable[[int], torch.Tensor]:
    """Return the function from step number to Safe-CLIP's weighted loss on that step's tuples.

    Parameters
    ----------
    model : Module
        The mini CLIP to fine-tune (all weights; the original adapts most of them through LoRA).
    reference : Module
        A frozen copy of it as it was before.
    tuples : Tuples
        Training tuples of a mini world.
    world : World
        Theirs.
    """
    tokenizer = MiniTokenizer(world=world)

    def loss_at(step: int) -> torch.Tensor:
        rows = Columns(seed=seed, stream="safe-clip", n=batch_size, start=step * batch_size).choice(
            len(tuples)
        )
        batch = tuples[rows]
        pixels = {
            side: normalised_pixels(torch.from_numpy(getattr(batch, f"{side}_images")))
            for side in ("safe", "unsafe")
        }
        tokens = {side: tokenizer(getattr(batch, f"{side}_texts")) for side in ("safe", "unsafe")}
        student = {f"{side}_image": model.encode_image(pixels[side], normalize=True) for side in pixels}
        student |= {f"{side}_text": model.encode_text(tokens[side], normalize=True) for side in tokens}
        with torch.no_grad():
            anchors = {
                "safe_text": reference.encode_text(tokens["safe"], normalize=True),
                "safe_image": reference.encode_image(pixels["safe"], normalize=True),
            }
        terms = eight_losses(student, anchors)
        return sum(WEIGHTS[name] * term for name, term in terms.items())

    return loss_at
