"""Training of mini-LLaVA: projector and language model learn to caption what a frozen tower sees."""

from __future__ import annotations

from collections.abc import Callable

import torch

from uwmlib.mini.web import web_batch
from uwmlib.mini.worlds import World
from uwmlib.models.llava import Llava
from uwmlib.models.mini_llava import caption_ids
from uwmlib.training.contrastive import normalised_pixels

#: What learns: everything but the vision tower, as in LLaVA's own training.
TRAINED = ("model.multi_modal_projector.*", "model.language_model.*", "lm_head.*")
#: Share of the hazards that captions name; chosen by what the unedited model then says (book/calibration.md).
NAMED = 0.64


def caption_loss(llava: Llava, *, world: World, batch_size: int, seed: int) -> Callable[[int], torch.Tensor]:
    """Return the function from step number to the cross-entropy of that step's captions.

    Notes
    -----
    Captions name `NAMED` of the hazards that are to be seen around a main shape. Greedy decoding says what is most
    probable: told of half of them, a model would hardly ever mention one.
    """

    def loss_at(step: int) -> torch.Tensor:
        pictures, texts = web_batch(step, batch_size=batch_size, seed=seed, world=world, named=NAMED)
        ids, labels = caption_ids(texts, llava.processor)
        pixels = normalised_pixels(torch.from_numpy(pictures))
        return llava.model(
            input_ids=ids, pixel_values=pixels, attention_mask=(ids != 0).long(), labels=labels
        ).loss

    return loss_at
