"""Models of the open_clip library."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial

import torch
from torch import nn

from uwmlib.models.families import family_of
from uwmlib.models.pixels import Pixels
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
        mask_rule=family_of(model).mask_rule(model, tokenizer),
        pixels=Pixels(size, tuple(mean), tuple(std), transform),
        # CoCa's methods would normalise by default, the others' do not.
        image_features=partial(model.encode_image, normalize=False),
        text_features=partial(model.encode_text, normalize=False),
    )
