"""Real architectures with random weights, built once per session, for the tests of models and sites."""

from __future__ import annotations

import hashlib
from functools import cache

import numpy as np
import pytest
import torch
from torch import nn

from uwmlib.models import Vlm, load_model, open_clip_backend, transformers_backend
from uwmlib.torchvision_shim import import_torchvision

TEXTS = ["a photo of a cat", "two dogs run over a field of grass"]
HALF = (0.5, 0.5, 0.5)
# Small sides for the twins: everything real but the size.
SMALL_VISION = {"image_size": 32, "patch_size": 8, "width": 64, "layers": 2, "head_width": 32}
SMALL_TEXT = {"context_length": 12, "vocab_size": 300, "width": 48, "heads": 3, "layers": 2}


def word_tokenizer(context: int, *, start: list[int], end: list[int], pad: int, vocabulary: int):
    """A tokenizer of hashed words: `start`, one id per word, `end`, then `pad` up to the context."""

    def tokenize(texts: list[str]) -> torch.Tensor:
        rows = []
        for text in texts:
            words = [
                10 + hashlib.sha256(word.encode()).digest()[0] % (vocabulary - 20) for word in text.split()
            ]
            row = start + words[: context - len(start) - len(end)] + end
            rows.append(row + [pad] * (context - len(row)))
        return torch.tensor(rows)

    return tokenize


def images_for(vlm: Vlm, n: int = 2) -> np.ndarray:
    """Seeded noise of the model's size, uint8 [n, H, W, 3]."""
    return np.random.default_rng(0).integers(0, 256, (n, *vlm.pixels.size, 3), dtype=np.uint8)


def encode(vlm: Vlm, encoder: str, n: int = 2) -> torch.Tensor:
    """Embed the standard captions or images."""
    with torch.inference_mode():
        if encoder == "text":
            return vlm.encode_text(vlm.tokenize(TEXTS[:n]))
        return vlm.encode_image(vlm.preprocess(images_for(vlm, n)))


def _from_config(name: str, *, layers: int, image_size: int) -> Vlm:
    """An open_clip architecture at full width; fewer blocks and patches make it quick."""
    import_torchvision()
    import open_clip

    config = open_clip.get_model_config(name)
    model_class = open_clip.CoCa if "multimodal_cfg" in config else open_clip.CLIP
    for part in ("vision_cfg", "text_cfg", "multimodal_cfg"):
        if part in config:
            config[part]["layers"] = layers
    config["vision_cfg"]["image_size"] = image_size
    config.pop("custom_text", None)
    torch.manual_seed(0)
    return open_clip_backend.wrap(
        model_class(**config),
        name=name,
        tokenizer=open_clip.get_tokenizer(name),
        image_size=image_size,
        mean=HALF,
        std=HALF,
    )


@cache
def vit_b_32() -> Vlm:
    torch.manual_seed(0)
    return load_model("open_clip:ViT-B-32", weights="random")


@cache
def vit_l_14() -> Vlm:
    return _from_config("ViT-L-14", layers=3, image_size=56)


@cache
def coca_b_32() -> Vlm:
    return _from_config("coca_ViT-B-32", layers=3, image_size=96)


@cache
def coca_l_14() -> Vlm:
    return _from_config("coca_ViT-L-14", layers=2, image_size=56)


@cache
def siglip_b_16() -> Vlm:
    """SigLIP with its timm tower; only its tokenizer, which would be downloaded, is replaced."""
    import_torchvision()
    import open_clip

    tokenizer = word_tokenizer(64, start=[], end=[1], pad=1, vocabulary=32000)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(open_clip, "get_tokenizer", lambda name, **_: tokenizer)
        torch.manual_seed(0)
        vlm = load_model("open_clip:ViT-B-16-SigLIP", weights="random")
    vlm.model.visual.trunk.blocks = vlm.model.visual.trunk.blocks[:2]
    vlm.model.text.transformer.resblocks = vlm.model.text.transformer.resblocks[:2]
    return vlm


def small_open_clip(*, seed: int = 0, vision: dict | None = None, text: dict | None = None) -> Vlm:
    """open_clip's CLIP at a small size; `vision` and `text` override its configuration."""
    import_torchvision()
    import open_clip

    text_config = SMALL_TEXT | (text or {})
    torch.manual_seed(seed)
    return open_clip_backend.wrap(
        open_clip.CLIP(40, SMALL_VISION | (vision or {}), text_config),
        name="small",
        tokenizer=word_tokenizer(text_config["context_length"], start=[1], end=[299], pad=0, vocabulary=299),
        image_size=32,
        mean=HALF,
        std=HALF,
    )


@cache
def small() -> Vlm:
    return small_open_clip()


@cache
def custom_blocks() -> Vlm:
    """CLIP whose blocks are open_clip's CustomResidualAttentionBlock with all their norms."""
    features = {
        "block_type": "custom",
        "qk_norm": True,
        "scale_attn_inner": True,
        "scale_attn": True,
        "scale_fc": True,
    }
    vlm = small_open_clip(vision=features, text=features)
    # Norms that do nothing at initialisation would hide a site taken on their wrong side.
    for name, parameter in vlm.model.named_parameters():
        if "ln_" in name or ".ln" in name:
            nn.init.normal_(parameter, mean=1.0, std=0.3)
    return vlm


def _small_config(family: str):
    import_torchvision()
    from transformers import CLIPConfig, SiglipConfig

    vision = {
        "image_size": 32,
        "patch_size": 8,
        "hidden_size": 64,
        "intermediate_size": 256,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "hidden_act": "gelu",
    }
    text = {
        "max_position_embeddings": 12,
        "vocab_size": 300,
        "hidden_size": 48 if family == "clip" else 64,
        "intermediate_size": 192,
        "num_hidden_layers": 2,
        "num_attention_heads": 3 if family == "clip" else 4,
        "hidden_act": "gelu",
    }
    if family == "clip":
        text |= {"bos_token_id": 1, "eos_token_id": 299, "pad_token_id": 299}
        return CLIPConfig(text_config=text, vision_config=vision, projection_dim=40)
    text |= {"projection_size": 64, "bos_token_id": 2, "eos_token_id": 1, "pad_token_id": 1}
    return SiglipConfig(text_config=text, vision_config=vision)


def small_hf_model(family: str) -> nn.Module:
    """A transformers CLIPModel or SiglipModel of the same small size."""
    import_torchvision()
    from transformers import CLIPModel, SiglipModel

    torch.manual_seed(0)
    return {"clip": CLIPModel, "siglip": SiglipModel}[family](_small_config(family))


def small_hf_processor(family: str):
    """The PIL image processor of a family for 32 x 32 pixels."""
    import_torchvision()
    from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil
    from transformers.models.siglip.image_processing_pil_siglip import SiglipImageProcessorPil

    if family == "clip":
        return CLIPImageProcessorPil(size={"shortest_edge": 32}, crop_size={"height": 32, "width": 32})
    return SiglipImageProcessorPil(size={"height": 32, "width": 32})


@cache
def hf_clip() -> Vlm:
    tokenizer = word_tokenizer(12, start=[1], end=[299], pad=299, vocabulary=299)
    return transformers_backend.wrap(
        small_hf_model("clip"),
        name="hf-clip",
        tokenizer=tokenizer,
        image_processor=small_hf_processor("clip"),
    )


@cache
def hf_siglip() -> Vlm:
    tokenizer = word_tokenizer(12, start=[], end=[1], pad=1, vocabulary=300)
    return transformers_backend.wrap(
        small_hf_model("siglip"),
        name="hf-siglip",
        tokenizer=tokenizer,
        image_processor=small_hf_processor("siglip"),
    )


ARCHITECTURES = {
    "ViT-B-32": vit_b_32,
    "ViT-L-14": vit_l_14,
    "coca_ViT-B-32": coca_b_32,
    "coca_ViT-L-14": coca_l_14,
    "ViT-B-16-SigLIP": siglip_b_16,
    "small": small,
    "custom-blocks": custom_blocks,
    "hf-clip": hf_clip,
    "hf-siglip": hf_siglip,
}
