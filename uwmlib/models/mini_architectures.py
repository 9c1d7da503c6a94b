"""The mini models' architectures: classes of open_clip and transformers at toy size, with seeded random weights."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import torch
from torch import nn

from uwmlib.mini.tokenizer import MiniSiglipTokenizer, MiniTokenizer
from uwmlib.mini.worlds import FIRST, SECOND, World
from uwmlib.torchvision_shim import import_torchvision

#: Width, layers and patches on a side of each vision tower; B-16 and B-32 differ in the patch alone, as in CLIP.
VISION: dict[str, dict[str, int]] = {
    "mini-ViT-L-14": {"width": 128, "layers": 4, "grid": 6},
    "mini-Safe-CLIP": {"width": 128, "layers": 4, "grid": 6},
    "mini-ViT-B-16": {"width": 96, "layers": 3, "grid": 6},
    "mini-ViT-B-32": {"width": 96, "layers": 3, "grid": 4},
    "mini-CoCa": {"width": 96, "layers": 3, "grid": 6},
    "mini-SigLIP": {"width": 96, "layers": 3, "grid": 6},
}
#: Width and layers of each text tower.
TEXT: dict[str, dict[str, int]] = {
    "mini-ViT-L-14": {"width": 96, "layers": 4},
    "mini-Safe-CLIP": {"width": 96, "layers": 4},
    "mini-ViT-B-16": {"width": 64, "layers": 3},
    "mini-ViT-B-32": {"width": 64, "layers": 3},
    "mini-CoCa": {"width": 64, "layers": 3},
    "mini-SigLIP": {"width": 64, "layers": 3},
}
EMBED_DIM = 96
HEAD_WIDTH = 32


def world_of_model(name: str) -> World:
    """Return the world that a mini model belongs to."""
    return FIRST if name.endswith("-v1") else SECOND


def _plain(name: str) -> str:
    """Return the name under which the sizes of a model stand: without its world and its seed."""
    return re.sub("-(seed[0-9]+|v1)$", "", name)


def vision_size(name: str) -> dict[str, int]:
    """Return width, layers, patch size and picture size of a mini model's vision tower."""
    size = VISION[_plain(name)]
    pixels = world_of_model(name).size
    return {
        "width": size["width"], "layers": size["layers"], "patch_size": pixels // size["grid"], "image_size": pixels,
    }  # fmt: skip


def bare_model(name: str, seed: int) -> nn.Module:
    """Return the untrained model of that name; the same seed gives the same weights."""
    import_torchvision()
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return _BUILDERS.get(_plain(name), _clip)(name)


def _vision(name: str) -> dict[str, Any]:
    return vision_size(name) | {"head_width": HEAD_WIDTH}


def _text(name: str) -> dict[str, Any]:
    size, tokenizer = TEXT[_plain(name)], MiniTokenizer(world=world_of_model(name))
    return size | {
        "heads": size["width"] // HEAD_WIDTH, "context_length": tokenizer.context_length,
        "vocab_size": tokenizer.vocab_size,
    }  # fmt: skip


def _clip(name: str) -> nn.Module:
    from open_clip.model import CLIP

    return CLIP(EMBED_DIM, _vision(name), _text(name))


def _coca(name: str) -> nn.Module:
    """CoCa as open_clip configures it: class token behind the text, pooled image tokens, a captioning decoder."""
    from open_clip import CoCa

    pooled = {
        "attentional_pool": True,
        "attn_pooler_queries": 16,
        "attn_pooler_heads": 2,
        "output_tokens": True,
    }
    width = TEXT[_plain(name)]["width"]
    model = CoCa(
        # The decoder reads pooled image tokens of the embedding's width, so that is the text's width here.
        width,
        multimodal_cfg=_text(name) | {"layers": 2, "attn_pooler_heads": 2},
        text_cfg=_text(name) | {"embed_cls": True, "output_tokens": True},
        vision_cfg=_vision(name) | pooled,
    )
    # open_clip leaves the decoder's output projection as uninitialised memory (its own initialiser fails).
    nn.init.normal_(model.text_decoder.text_projection, std=width**-0.5)
    return model


def _siglip(name: str) -> nn.Module:
    """SigLIP of transformers: attention pooling, text without causal mask, padding seen and not masked."""
    from transformers import SiglipConfig, SiglipModel

    def tower(size: dict[str, int]) -> dict[str, Any]:
        return {
            "hidden_size": size["width"], "intermediate_size": 4 * size["width"],
            "num_hidden_layers": size["layers"], "num_attention_heads": size["width"] // HEAD_WIDTH,
        }  # fmt: skip

    tokenizer, sizes = MiniSiglipTokenizer(world=world_of_model(name)), vision_size(name)
    text = tower(TEXT[_plain(name)]) | {
        "vocab_size": tokenizer.vocab_size, "max_position_embeddings": tokenizer.context_length,
        "projection_size": sizes["width"], "pad_token_id": 1, "bos_token_id": 1, "eos_token_id": 1,
    }  # fmt: skip
    vision = tower(sizes) | {"image_size": sizes["image_size"], "patch_size": sizes["patch_size"]}
    model = SiglipModel(SiglipConfig(text_config=text, vision_config=vision))
    # The paper of SigLIP starts from a scale of 10 and a bias of -10; transformers leaves both random.
    model.logit_scale.data.fill_(torch.log(torch.tensor(10.0)))
    model.logit_bias.data.fill_(-10.0)
    return model


_BUILDERS: dict[str, Callable[[str], nn.Module]] = {"mini-CoCa": _coca, "mini-SigLIP": _siglip}
