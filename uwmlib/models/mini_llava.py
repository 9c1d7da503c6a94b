"""mini-LLaVA: transformers' LLaVA at toy size, with a tokenizer and a processor of the mini world."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file

from uwmlib.files import atomic_path
from uwmlib.mini.tokenizer import split_words
from uwmlib.models.llava import Llava, tower_from_open_clip
from uwmlib.models.mini_architectures import HEAD_WIDTH, vision_size, world_of_model
from uwmlib.torchvision_shim import import_torchvision

SPECIAL = ("<pad>", "<unk>", "<s>", "</s>", "<image>")
#: LLaVA -> the model whose vision tower it looks through
TOWER = {"mini-LLaVA": "mini-ViT-L-14"}
WIDTH, LAYERS = 128, 3
# The question is not in the mini world's vocabulary: an image alone asks for its caption.
CHAT_TEMPLATE = (
    "{% for message in messages %}{% for part in message['content'] %}"
    "{% if part['type'] == 'image' %}<s><image>{% endif %}{% endfor %}{% endfor %}"
)


def bare_llava(name: str, *, seed: int) -> torch.nn.Module:
    """Return an untrained LLaVA: seeded projector and language model, and a tower that is to be replaced."""
    import_torchvision()
    from transformers import CLIPVisionConfig, LlamaConfig, LlavaConfig, LlavaForConditionalGeneration

    size = vision_size(TOWER[name])
    vision = CLIPVisionConfig(
        hidden_size=size["width"], intermediate_size=4 * size["width"], num_hidden_layers=size["layers"],
        num_attention_heads=size["width"] // HEAD_WIDTH, image_size=size["image_size"], patch_size=size["patch_size"],
        hidden_act="gelu",
    )  # fmt: skip
    text = LlamaConfig(
        vocab_size=len(SPECIAL) + len(world_of_model(name).words), hidden_size=WIDTH, intermediate_size=2 * WIDTH,
        num_hidden_layers=LAYERS, num_attention_heads=WIDTH // HEAD_WIDTH, max_position_embeddings=128,
        pad_token_id=0, bos_token_id=2, eos_token_id=3,
    )  # fmt: skip
    config = LlavaConfig(vision_config=vision, text_config=text, image_token_index=4, pad_token_id=0)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = LlavaForConditionalGeneration(config)
    model.generation_config.update(bos_token_id=2, eos_token_id=3, pad_token_id=0)
    return model


def mini_processor(name: str) -> Any:
    """Return a LlavaProcessor whose tokenizer has one id for every word of the mini world."""
    import_torchvision()
    from tokenizers import Tokenizer, models, normalizers, pre_tokenizers
    from transformers import LlavaProcessor, PreTrainedTokenizerFast
    from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil

    ids = {word: index for index, word in enumerate((*SPECIAL, *world_of_model(name).words))}
    tokenizer = Tokenizer(models.WordLevel(ids, unk_token="<unk>"))
    tokenizer.normalizer = normalizers.Lowercase()
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    fast = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, pad_token="<pad>", unk_token="<unk>", bos_token="<s>", eos_token="</s>",
        additional_special_tokens=["<image>"],
    )  # fmt: skip
    size = vision_size(TOWER[name])
    half, square = (0.5, 0.5, 0.5), {"height": size["image_size"], "width": size["image_size"]}
    images = CLIPImageProcessorPil(
        size={"shortest_edge": size["image_size"]}, crop_size=square, image_mean=half, image_std=half
    )
    return LlavaProcessor(
        image_processor=images, tokenizer=fast, patch_size=size["patch_size"],
        vision_feature_select_strategy="default", num_additional_image_tokens=1, chat_template=CHAT_TEMPLATE,
    )  # fmt: skip


def mini_llava(name: str, *, seed: int, visual: torch.nn.Module) -> Llava:
    """Return an untrained mini-LLaVA that looks through open_clip's vision transformer `visual`."""
    llava = Llava(bare_llava(name, seed=seed), name=name, processor=mini_processor(name))
    llava.replace_tower(tower_from_open_clip(visual))
    return llava


def write_llava(model: torch.nn.Module, folder: Path, name: str) -> None:
    """Write a folder that transformers loads as it loads llava-1.5: weights, configuration, processor.

    The weights come last and are renamed into place: a folder without them is an unfinished one.
    """
    folder.mkdir(parents=True, exist_ok=True)
    mini_processor(name).save_pretrained(folder)
    model.config.save_pretrained(folder)
    model.generation_config.save_pretrained(folder)
    with atomic_path(folder / "model.safetensors") as temporary:
        save_file(
            {key: value.contiguous() for key, value in model.state_dict().items()}, temporary,
            metadata={"format": "pt"},
        )  # fmt: skip


def caption_ids(texts: list[str], processor: Any) -> tuple[torch.Tensor, torch.Tensor]:
    """Return training ids and labels [B, L]: start, image patches, caption, end; only caption and end are learnt."""
    tokenizer = processor.tokenizer
    patches = (processor.image_processor.crop_size["height"] // processor.patch_size) ** 2
    prompt = [tokenizer.bos_token_id] + [tokenizer.convert_tokens_to_ids("<image>")] * patches
    answers = [
        [*tokenizer.convert_tokens_to_ids(split_words(text)), tokenizer.eos_token_id] for text in texts
    ]
    longest = max(map(len, answers))
    ids = torch.tensor(
        [prompt + answer + [tokenizer.pad_token_id] * (longest - len(answer)) for answer in answers]
    )
    labels = ids.masked_fill(ids == tokenizer.pad_token_id, -100)
    labels[:, : len(prompt)] = -100
    return ids, labels
