"""Everything that a user of the paper profile brings, tiny and in the real formats: models, pairs, sets, a judge."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import torch
from architectures import small_hf_model, small_hf_processor
from PIL import Image
from safetensors.torch import save_file

from uwmlib.models.mini_llava import bare_llava, write_llava
from uwmlib.torchvision_shim import import_torchvision

WORDS = ("red", "blue", "house", "tree", "dog", "near", "under", "small", "large", "road")
CONCEPTS = ("violence", "weapons")
UNSAFE = "grimword"  # stands in every unsafe caption, and nowhere else
SIDE = 32
VISION = {"image_size": SIDE, "patch_size": 16, "width": 32, "layers": 2, "head_width": 16}
TEXT = {"context_length": 77, "vocab_size": 49408, "width": 32, "heads": 2, "layers": 2}
PIXELS = {
    "size": SIDE,
    "mean": [0.5] * 3,
    "std": [0.5] * 3,
    "interpolation": "bicubic",
    "resize_mode": "shortest",
}


def write_models(folder: Path) -> dict[str, str]:
    """Write every kind of model that the paper profile loads; return the name of each for `load_model`."""
    names = {}
    for seed, (name, family) in enumerate((("clip", "clip"), ("safe-clip", "clip"), ("siglip", "siglip"))):
        _write_transformers(folder / name, family, seed=seed)
        names[name] = f"hf:{folder / name}"
    for name, config in (("open-clip", _open_clip_config()), ("coca", _coca_config())):
        _write_open_clip(folder / name, config)
        names[name] = f"open_clip:local-dir:{folder / name}"
    llava = bare_llava("mini-LLaVA", seed=5)
    write_llava(llava, folder / "llava", "mini-LLaVA")
    _write_tower(folder / "tower", llava.config.vision_config)
    return names | {"llava": f"hf:{folder / 'llava'}", "tower": str(folder / "tower")}


def write_pairs(folder: Path, *, n: int, concepts: bool = True) -> Path:
    """Write `n` tuples of noise pictures, the unsafe ones brighter, and captions of random words."""
    folder.mkdir(parents=True)
    rng = np.random.default_rng(0)
    rows = []
    for i in range(n):
        row = {"concept": CONCEPTS[i % 2]} if concepts else {}
        for side, light, marks in (("safe", 0, []), ("unsafe", 80, [UNSAFE])):
            _write_noise(folder / f"{i}-{side}.png", rng, light)
            row[f"{side}_image"] = f"{i}-{side}.png"
            row[f"{side}_text"] = " ".join([*marks, *rng.choice(WORDS, rng.integers(2, 7))])
        rows.append(row)
    manifest = folder / "pairs.jsonl"
    manifest.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return manifest


def _write_noise(path: Path, rng: np.random.Generator, light: int) -> None:
    noise = rng.integers(light, light + 170, (SIDE + 8, SIDE + 14, 3), dtype=np.uint8)
    Image.fromarray(noise).save(path)


def _write_transformers(folder: Path, family: str, *, seed: int) -> None:
    """A folder as transformers saves it: model, tokenizer of words, image processor."""
    from tokenizers import Tokenizer, models, pre_tokenizers, processors
    from transformers import PreTrainedTokenizerFast

    model = small_hf_model(family)
    _randomise(model, seed)
    model.save_pretrained(folder)
    small_hf_processor(family).save_pretrained(folder)
    start, end = ("<start>", 299) if family == "clip" else (None, 1)
    vocabulary = {word: 10 + i for i, word in enumerate(WORDS)} | {"<start>": 298, "<end>": end, "<unk>": 3}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    frame = [token for token in (start, "$A", "<end>") if token]
    ids = [(token, vocabulary[token]) for token in frame if token != "$A"]
    tokenizer.post_processor = processors.TemplateProcessing(single=" ".join(frame), special_tokens=ids)
    PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, pad_token="<end>", eos_token="<end>", unk_token="<unk>"
    ).save_pretrained(folder)


def _randomise(model: torch.nn.Module, seed: int) -> None:
    """Large enough weights that models of different seeds answer differently."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim >= 2:
                parameter.normal_(0, parameter.shape[-1] ** -0.5, generator=generator)


def _open_clip_config() -> dict[str, Any]:
    return {"embed_dim": 32, "vision_cfg": VISION, "text_cfg": TEXT}


def _coca_config() -> dict[str, Any]:
    """CoCa with everything that the full one has: attentional pooling, class token, text decoder."""
    pooled = {"attentional_pool": True, "attn_pooler_heads": 2, "output_tokens": True}
    text = TEXT | {"context_length": 76}
    return {
        "embed_dim": 32, "vision_cfg": VISION | pooled,
        "text_cfg": text | {"embed_cls": True, "output_tokens": True},
        "multimodal_cfg": text | {"attn_pooler_heads": 2}, "custom_text": True,
    }  # fmt: skip


def _write_open_clip(folder: Path, config: dict[str, Any]) -> None:
    """A folder as open_clip saves it for the hub; its own tokenizer needs no file."""
    import_torchvision()
    import open_clip

    folder.mkdir(parents=True)
    saved = {"model_cfg": config, "preprocess_cfg": PIXELS}
    (folder / "open_clip_config.json").write_text(json.dumps(saved), encoding="utf-8")
    model = open_clip.create_model(f"local-dir:{folder}", load_weights=False, pretrained_text=False)
    save_file(model.state_dict(), folder / "open_clip_model.safetensors")


def _write_tower(folder: Path, vision: Any) -> None:
    """A CLIP of transformers whose vision tower fits the LLaVA with the configuration `vision`."""
    from transformers import CLIPConfig, CLIPModel

    text = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 1, "num_attention_heads": 2}
    torch.manual_seed(6)
    CLIPModel(CLIPConfig(text_config=text, vision_config=vision.to_dict())).save_pretrained(folder)


def write_sets(folder: Path) -> None:
    """Two sets of noise: one of a name of the paper, with a class that no image shows, and one of a single class."""
    folder.mkdir(parents=True)
    rng = np.random.default_rng(1)
    for name, shown, classes in (("oxford_pets", 3, ["cat", "dog", "bird", "fish"]), ("roads", 1, ["road"])):
        rows = ["image,label"]
        for i in range(6):
            _write_noise(folder / f"{name}-{i}.png", rng, 0)
            rows.append(f"{name}-{i}.png,{classes[i % shown]}")
        (folder / f"{name}.csv").write_text("\n".join(rows) + "\n", encoding="utf-8")
        (folder / f"{name}.json").write_text(json.dumps({"classes": classes}), encoding="utf-8")


def block_network(folder: Path) -> Path:
    """Write a module that every Python which finds it loads first: it allows this machine alone; return its log."""
    log = folder / "refused.txt"
    folder.mkdir(parents=True)
    (folder / "sitecustomize.py").write_text(_BLOCK.format(log=str(log)), encoding="utf-8")
    return log


_BLOCK = """
import socket

LOCAL = ("localhost", "127.0.0.1", "::1", "0.0.0.0", "")
connect, resolve = socket.socket.connect, socket.getaddrinfo


def refuse(host):
    with open({log!r}, "a") as file:
        file.write(f"{{host}}\\n")
    raise OSError(f"the network is blocked: {{host}}")


def guarded_connect(self, address):
    if self.family != socket.AF_UNIX and address[0] not in LOCAL:
        refuse(address[0])
    return connect(self, address)


def guarded_resolve(host, *args, **kwargs):
    if host is not None and host not in LOCAL:
        refuse(host)
    return resolve(host, *args, **kwargs)


socket.socket.connect, socket.getaddrinfo = guarded_connect, guarded_resolve
"""
