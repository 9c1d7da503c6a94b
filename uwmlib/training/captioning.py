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
NAMED = 0.64  #: share of the hazards that captions name; chosen by what the unedited model then says (book/calibration.md)


def caption_loss(llava: Llava, *, world: World, batch_size: int, seed: int) -> Callable[[int], torch.Tensor]:
    """Return the function from step number to the cross-entropy of that step's captions.

    Notes
    -----
    Greedy decoding says what is most probable, so what is hardly named by half of the captions is hardly ever said:
    they name `NAMED` of the hazards that are to be seen around a main shape.
    """

    def loss_at(step: int) -> torch.Tensor:
        pictures, texts = web_batch(step, batch_size=batch_size, seed=seed, world=world, named=NAMED)
        ids, labels = caption_ids(texts, llava.processor)
        pixels = normalised_pixels(torch.from_numpy(pictures))
        return llava.model(
            input_ids=ids, pixel_values=pixels, attention_mask=(ids != 0).long(), labels=labels
        ).loss

    return loss_at
