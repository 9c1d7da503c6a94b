"""Three kinds of model at a tiny size, tuples for them, and the score written out as Eq. 8-10 print it."""

from __future__ import annotations

import numpy as np
import torch
from architectures import HALF, small_hf_model, small_hf_processor, small_open_clip, word_tokenizer

from uwmlib.editing import WeightEdit
from uwmlib.models import Site, Vlm, open_clip_backend, transformers_backend
from uwmlib.torchvision_shim import import_torchvision
from uwmlib.tuples import Tuples

WIDTH = 32


def tiny_clip(seed: int = 0) -> Vlm:
    """open_clip's CLIP: two layers of width 32 in each encoder."""
    size = {"width": WIDTH, "layers": 2}
    return small_open_clip(
        seed=seed, vision=size | {"head_width": 16, "patch_size": 16}, text=size | {"heads": 2}
    )


def tiny_coca(seed: int = 0) -> Vlm:
    """open_clip's CoCa with everything that the full one has: attentional pooling, class token, text decoder."""
    import_torchvision()
    import open_clip

    config = open_clip.get_model_config("coca_ViT-B-32")
    config["embed_dim"] = WIDTH
    config["vision_cfg"] |= {
        "image_size": 32,
        "patch_size": 16,
        "width": WIDTH,
        "layers": 2,
        "head_width": 16,
    }
    config["vision_cfg"] |= {"attn_pooler_heads": 2}
    config["text_cfg"] |= {"context_length": 11, "vocab_size": 300, "width": WIDTH, "heads": 2, "layers": 2}
    config["multimodal_cfg"] |= {
        "context_length": 11,
        "vocab_size": 300,
        "width": WIDTH,
        "heads": 2,
        "layers": 1,
    }
    config.pop("custom_text", None)
    torch.manual_seed(seed)
    model = open_clip.CoCa(**config)
    # open_clip leaves this one as it finds the memory, NaN included.
    torch.nn.init.normal_(model.text_decoder.text_projection, std=0.1)
    return open_clip_backend.wrap(
        model,
        name="tiny-coca",
        tokenizer=word_tokenizer(11, start=[1], end=[299], pad=0, vocabulary=299),
        image_size=32,
        mean=HALF,
        std=HALF,
    )


def tiny_hf(seed: int = 0) -> Vlm:
    """CLIPModel of transformers."""
    return transformers_backend.wrap(
        small_hf_model("clip"),
        name="tiny-hf",
        tokenizer=word_tokenizer(12, start=[1], end=[299], pad=299, vocabulary=299),
        image_processor=small_hf_processor("clip"),
    )


TINY = {"open_clip": tiny_clip, "coca": tiny_coca, "transformers": tiny_hf}


def tiny_tuples(n: int, seed: int = 0) -> Tuples:
    """Noise images of 32 pixels, the unsafe ones brighter, and captions of one to six words."""
    rng = np.random.default_rng(seed)
    images = rng.integers(0, 200, (2, n, 32, 32, 3), dtype=np.uint8)
    words = [f"word{number}" for number in range(40)]
    texts = [[" ".join(rng.choice(words, rng.integers(1, 7))) for _ in range(n)] for _ in range(2)]
    return Tuples(
        name="noise",
        safe_images=images[0],
        unsafe_images=images[1] + 50,
        safe_texts=texts[0],
        unsafe_texts=texts[1],
        concepts=["noise"] * n,
    )


def indices_of(edit: WeightEdit) -> dict[str, torch.Tensor]:
    """The flat indices of the scaled weights, by parameter."""
    return {name: change.indices for name, change in edit.changes.items()}


def bits(vlm: Vlm) -> dict[str, bytes]:
    """Every parameter as it lies in memory."""
    return {
        name: parameter.detach().contiguous().view(torch.uint8).numpy().tobytes()
        for name, parameter in vlm.model.named_parameters()
        if parameter.ndim
    }


def site_inputs(vlm: Vlm, site: Site, tuples: Tuples, kind: str) -> list[torch.Tensor]:
    """The site's input [T, in] of every tuple, float64, one tuple at a time and without padding."""
    seen: list[torch.Tensor] = []
    for row in range(len(tuples)):
        one = tuples[row : row + 1]
        with torch.inference_mode(), vlm.capture([site], lambda _, z: seen.append(z[0].double().clone())):
            if site.encoder == "text":
                tokens = vlm.tokenize(getattr(one, f"{kind}_texts"))
                vlm.encode_text(tokens)
                seen[-1] = seen[-1][vlm.token_mask(tokens)[0]]
            else:
                vlm.encode_image(vlm.preprocess(getattr(one, f"{kind}_images")))
    return seen


def naive_terms(inputs: list[torch.Tensor], weight: torch.Tensor) -> torch.Tensor:
    """phi / sigma of Eq. 8-9 as a full matrix per sample: [B, out, in]."""
    terms = []
    for z in inputs:
        flow = z.pow(2).sum(dim=0).sqrt() * weight.abs()  # |z_i| |theta_ji|, [out, in]
        phi = flow.mean(dim=1, keepdim=True) * flow.mean(dim=0, keepdim=True)
        terms.append(phi / z.std(dim=0, correction=1))
    return torch.stack(terms)


def naive_score(
    safe: list[torch.Tensor], unsafe: list[torch.Tensor], weight: torch.Tensor, variant: str, *, prior: bool
) -> torch.Tensor:
    """The score of every weight from [B, out, in] matrices, float64."""
    weight = weight.detach().double()
    safe_terms, unsafe_terms = naive_terms(safe, weight), naive_terms(unsafe, weight)
    score = {
        "released": (unsafe_terms / safe_terms).mean(dim=0),
        "paper": unsafe_terms.mean(dim=0) / safe_terms.mean(dim=0),
        "unsafe-only": unsafe_terms.mean(dim=0),
        "difference": (unsafe_terms - safe_terms).mean(dim=0),
    }[variant]
    return score * weight.abs() if prior else score
