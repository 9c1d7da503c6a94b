"""What methods read off safe and unsafe pairs: embeddings batch by batch, and how well a batch finds its partners."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import torch
from tqdm.auto import tqdm

from uwmlib.errors import UwmError
from uwmlib.models.losses import symmetric_infonce
from uwmlib.models.trainable import gradients_of
from uwmlib.models.vlm import Vlm
from uwmlib.tuples.tuples import Tuples

LARGEST_SCALE = 100.0  #: CLIP clips its learned one there


def batches(tuples: Tuples, batch_size: int, *, progress: bool, about: str) -> Iterator[Tuples]:
    """Yield the tuples batch by batch, with a progress bar on stderr."""
    with tqdm(total=len(tuples), desc=about, unit="tuple", disable=not progress) as bar:
        for start in range(0, len(tuples), batch_size):
            batch = tuples[start : start + batch_size]
            yield batch
            bar.update(len(batch))


@torch.inference_mode()
def paired_features(
    vlm: Vlm, tuples: Tuples, *, batch_size: int, progress: bool, about: str = "embed"
) -> Iterator[tuple[str, torch.Tensor, torch.Tensor]]:
    """Yield encoder, safe and unsafe embeddings [B, D] before they are made unit vectors, batch by batch."""
    for part in batches(tuples, batch_size, progress=progress, about=about):
        texts = [vlm.text_features(vlm.tokenize(side)) for side in (part.safe_texts, part.unsafe_texts)]
        yield "text", *texts
        pictures = (part.safe_images[:], part.unsafe_images[:])
        yield "vision", *(vlm.image_features(vlm.preprocess(side)) for side in pictures)


def embed_side(vlm: Vlm, tuples: Tuples, side: str) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the images and the texts of one side, "safe" or "unsafe", as unit vectors [B, D]; gradients flow."""
    images = vlm.encode_image(vlm.preprocess(getattr(tuples, f"{side}_images")[:]))
    return images, vlm.encode_text(vlm.tokenize(getattr(tuples, f"{side}_texts")))


def contrast(vlm: Vlm, images: torch.Tensor, texts: torch.Tensor) -> torch.Tensor:
    """Return CLIP's symmetric cross-entropy of a batch against its own pairing, at the model's own scale.

    A SigLIP is measured by the same loss, for all models to be asked the same question.
    """
    scale = getattr(vlm.model, "logit_scale", None)
    factor = LARGEST_SCALE if scale is None else scale.exp().clamp(max=LARGEST_SCALE)
    return symmetric_infonce(images, texts, factor)


def pair_gradients(vlm: Vlm, batch: Tuples, side: str, names: Iterable[str]) -> dict[str, torch.Tensor]:
    """Return the gradient of the contrastive loss of a batch's safe or unsafe pairs in parameters by name."""
    found = gradients_of(vlm.model, names, lambda: contrast(vlm, *embed_side(vlm, batch, side)))
    wrong = next((name for name, gradient in found.items() if not torch.isfinite(gradient).all()), None)
    if wrong is not None:
        raise UwmError(f"The gradient of {wrong} is NaN or infinite: check the inputs, or use float32.")
    return found
