"""Models of the open_clip library."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial

import torch
from torch import nn

from uwmlib.errors import UwmError
from uwmlib.models.pixels import Pixels
from uwmlib.models.tokens import SIGLIP_PAD_ID, not_padding, not_padding_and_class, up_to_end_of_text
from uwmlib.models.vlm import Vlm
from uwmlib.torchvision_shim import import_torchvision


def wrap(
    model: nn.Module,
    *,
    name: str,
    tokenizer: Callable[[list[str]], torch.Tensor],
    image_size: int | Sequence[int],
    mean: Sequence[float],
    std: Sequence[float],
    interpolation: str = "bicubic",
    resize_mode: str = "shortest",
) -> Vlm:
    """Wrap an open_clip CLIP, CustomTextCLIP or CoCa.

    Parameters
    ----------
    model : nn.Module
    name : str
    tokenizer : callable, list of str -> LongTensor [B, L]
    image_size : int or (height, width)
    mean, std : three floats
        Normalisation of pixels in [0, 1].
    interpolation : "bicubic" or "bilinear"
    resize_mode : "shortest", "longest" or "squash"
        As in `open_clip.image_transform`.

    Raises
    ------
    UwmError
        If the text encoder is of a family whose text tokens are not known.
    """
    import_torchvision()
    from open_clip.transform import image_transform

    size = (image_size, image_size) if isinstance(image_size, int) else tuple(image_size)
    transform = image_transform(
        size,
        is_train=False,
        mean=tuple(mean),
        std=tuple(std),
        interpolation=interpolation,
        resize_mode=resize_mode,
    )
    return Vlm(
        model,
        name=name,
        backend="open_clip",
        tokenizer=tokenizer,
        mask_rule=_mask_rule(model, tokenizer),
        pixels=Pixels(size, tuple(mean), tuple(std), transform),
        # CoCa's methods normalise already, the others' do not; Vlm normalises them all.
        image_features=model.encode_image,
        text_features=model.encode_text,
    )


def _mask_rule(model: nn.Module, tokenizer: Callable) -> Callable[[torch.Tensor], torch.Tensor]:
    """Choose the family's rule for tokens that carry text by what the text encoder pools."""
    text = getattr(model, "text", model)
    pool = getattr(text, "pool_type", getattr(text, "text_pool_type", None))
    if getattr(text, "cls_emb", None) is not None:
        return partial(not_padding_and_class, pad_id=text.pad_id, class_last=text.correct_cls_mask)
    if pool == "argmax":
        return up_to_end_of_text
    if pool == "eos":
        return partial(up_to_end_of_text, end_id=getattr(text, "eos_id", getattr(text, "text_eos_id", None)))
    if pool == "last" and text.attn_mask is None:
        pad_id = getattr(getattr(tokenizer, "tokenizer", None), "pad_token_id", None)
        return partial(not_padding, pad_id=SIGLIP_PAD_ID if pad_id is None else pad_id)
    raise UwmError(
        f"No rule says which tokens of the text encoder {type(text).__name__} (pooling {pool!r}) carry text: "
        f"use a model with the text encoder of CLIP, SigLIP or CoCa."
    )
