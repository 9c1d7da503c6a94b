"""Models of the transformers library with two encoders: CLIP, SigLIP, MetaCLIP 2."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from PIL import Image
from torch import nn

from uwmlib.errors import UwmError
from uwmlib.models.families import family_of
from uwmlib.models.pixels import Pixels
from uwmlib.models.vlm import Vlm


def wrap(model: nn.Module, *, name: str, tokenizer: Callable, image_processor: Any) -> Vlm:
    """Wrap a CLIPModel, SiglipModel or MetaClip2Model.

    Parameters
    ----------
    model : CLIPModel, SiglipModel or MetaClip2Model
    name : str
    tokenizer : transformers tokenizer, or callable, list of str -> LongTensor [B, L]
        A tokenizer pads and cuts to the model's full context.
    image_processor : transformers image processor
        With the PIL backend the pixels are those of the processor the paper's models were trained with.

    Raises
    ------
    UwmError
        For a model of another family, or a tokenizer that cannot pad.
    """
    family = family_of(model)
    if family.mask_rule is None:
        raise UwmError(f"A model of type {family.name!r} has no text encoder: load it by its name.")
    side = model.config.vision_config.image_size
    return Vlm(
        model,
        name=name,
        backend="transformers",
        tokenizer=_tokenize_with(tokenizer, model.config.text_config, name, lowercase=family.lowercase),
        mask_rule=family.mask_rule(model, tokenizer),
        pixels=Pixels(
            (side, side),
            tuple(image_processor.image_mean),
            tuple(image_processor.image_std),
            partial(_processed, image_processor),
        ),
        image_features=partial(_image_features, model),
        text_features=partial(_text_features, model),
    )


def _tokenize_with(
    tokenizer: Callable, config: Any, name: str, *, lowercase: bool
) -> Callable[[list[str]], torch.Tensor]:
    if not hasattr(tokenizer, "pad_token_id"):
        return tokenizer
    if tokenizer.pad_token_id is None:
        raise UwmError(
            f"The tokenizer of {name} has no padding token: name one in its tokenizer_config.json."
        )
    options = {"padding": "max_length", "max_length": config.max_position_embeddings, "truncation": True}

    def tokenize(texts: list[str]) -> torch.Tensor:
        # SigLIP's own tokenizer does this itself, the Gemma tokenizer of SigLIP 2 does not.
        texts = [text.lower() for text in texts] if lowercase else texts
        ids = tokenizer(texts, return_tensors="pt", **options).input_ids
        if ids.max() >= config.vocab_size:
            raise UwmError(
                f"The tokenizer does not belong to {name}: it has token {ids.max()} of {config.vocab_size}."
            )
        return ids

    return tokenize


def _processed(image_processor: Any, image: Image.Image) -> torch.Tensor:
    return image_processor(images=image, return_tensors="pt").pixel_values[0]


def _image_features(model: nn.Module, pixels: torch.Tensor) -> torch.Tensor:
    return _as_tensor(model.get_image_features(pixel_values=pixels))


def _text_features(model: nn.Module, tokens: torch.Tensor) -> torch.Tensor:
    # No attention mask, as in the released code: CLIP is causal, and SigLIP was trained to see its padding.
    return _as_tensor(model.get_text_features(input_ids=tokens))


def _as_tensor(features: Any) -> torch.Tensor:
    # transformers 5 returns the whole encoder output with the projected features as its pooled part.
    return features if isinstance(features, torch.Tensor) else features.pooler_output
