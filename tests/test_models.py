"""Loading, tokens, pixels and embeddings of every kind of model."""

from __future__ import annotations

import contextlib
import hashlib
import json
import logging
import pickle
import shutil
import subprocess
import sys
import textwrap
import types

import httpx
import numpy as np
import pytest
import torch
from architectures import (
    ARCHITECTURES,
    HALF,
    SMALL_TEXT,
    SMALL_VISION,
    TEXTS,
    encode,
    images_for,
    small_hf_model,
    small_hf_processor,
    small_open_clip,
)
from PIL import Image
from safetensors.torch import load_file, save_file

from uwmlib.errors import UwmError
from uwmlib.models import load_model, open_clip_backend, transformers_backend
from uwmlib.models.loading import load_weights
from uwmlib.models.tokens import not_padding, not_padding_and_class, up_to_end_of_text


@pytest.fixture(scope="module")
def small_config(tmp_path_factory) -> str:
    """Register a small architecture with open_clip, as its users do, and return its name."""
    import open_clip

    folder = tmp_path_factory.mktemp("configs")
    config = {"embed_dim": 40, "vision_cfg": SMALL_VISION, "text_cfg": SMALL_TEXT | {"vocab_size": 49408}}
    (folder / "uwm-small.json").write_text(json.dumps(config))
    open_clip.add_model_config(folder)
    return "uwm-small"


@pytest.fixture
def offline(monkeypatch):
    """Make hub lookups fail at once instead of after many retries."""
    import huggingface_hub.constants

    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)


def save_hf_folder(folder, family: str) -> None:
    """A complete local folder: model, tokenizer and image processor."""
    from tokenizers import Tokenizer, models, pre_tokenizers, processors
    from transformers import PreTrainedTokenizerFast

    small_hf_model(family).save_pretrained(folder)
    small_hf_processor(family).save_pretrained(folder)
    words = sorted({word for text in TEXTS for word in text.split()})
    vocabulary = {word: 10 + i for i, word in enumerate(words)} | {"<start>": 2, "<end>": 1, "<unk>": 3}
    end = "<end>"
    if family == "clip":
        vocabulary |= {"<start>": 298, "<end>": 299}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    start = ["<start>"] if family == "clip" else []
    tokenizer.post_processor = processors.TemplateProcessing(
        single=" ".join([*start, "$A", end]),
        special_tokens=[(token, vocabulary[token]) for token in [*start, end]],
    )
    PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, pad_token=end, eos_token=end, unk_token="<unk>"
    ).save_pretrained(folder)


# Embeddings


@pytest.mark.parametrize("name", ["small", "coca_ViT-B-32", "ViT-B-16-SigLIP", "hf-clip", "hf-siglip"])
def test_embeddings_are_the_models_own_at_unit_length(name):
    vlm = ARCHITECTURES[name]()
    pixels, tokens = vlm.preprocess(images_for(vlm)), vlm.tokenize(TEXTS)
    with torch.inference_mode():
        if vlm.backend == "open_clip":
            own = {"vision": vlm.model.encode_image(pixels, normalize=True)}
            own["text"] = vlm.model.encode_text(tokens, normalize=True)
        else:
            output = vlm.model(input_ids=tokens, pixel_values=pixels)
            own = {"vision": output.image_embeds, "text": output.text_embeds}
    for encoder, expected in own.items():
        got = encode(vlm, encoder)
        torch.testing.assert_close(got, expected, atol=1e-6, rtol=1e-5)
        torch.testing.assert_close(got.norm(dim=-1), torch.ones(2))


def test_features_may_also_come_as_a_tensor():
    """transformers before version 5 returns the projected features themselves."""
    vlm = ARCHITECTURES["hf-clip"]()
    model = small_hf_model("clip")
    model.load_state_dict(vlm.model.state_dict())
    image, text = model.get_image_features, model.get_text_features
    model.get_image_features = lambda pixel_values: image(pixel_values=pixel_values).pooler_output
    model.get_text_features = lambda input_ids: text(input_ids=input_ids).pooler_output
    old = transformers_backend.wrap(
        model, name="old", tokenizer=vlm.tokenize, image_processor=small_hf_processor("clip")
    )
    for encoder in ("text", "vision"):
        assert torch.equal(encode(old, encoder), encode(vlm, encoder))


def test_the_wrapper_leaves_requires_grad_alone_and_evaluates():
    vlm = small_open_clip()
    vlm.model.visual.proj.requires_grad_(False)
    vlm.model.train()
    wrapped = open_clip_backend.wrap(
        vlm.model, name="x", tokenizer=vlm.tokenize, image_size=32, mean=HALF, std=HALF
    )
    assert not wrapped.model.training
    frozen = [name for name, parameter in wrapped.model.named_parameters() if not parameter.requires_grad]
    assert frozen == ["visual.proj"]
    assert wrapped.encode_text(wrapped.tokenize(TEXTS)).requires_grad


def test_device_and_dtype_follow_the_parameters():
    vlm = small_open_clip()
    assert (vlm.device, vlm.dtype) == (torch.device("cpu"), torch.float32)
    full = encode(vlm, "vision")
    vlm.model.to(torch.bfloat16)
    assert vlm.dtype == torch.bfloat16
    sites = vlm.sites(text=["value", "out"], vision=["value", "out"])
    seen = []
    with vlm.capture(sites, lambda site, z: seen.append(z.dtype)):
        half = encode(vlm, "vision")
        assert encode(vlm, "text").dtype == torch.bfloat16
    assert set(seen) == {torch.bfloat16}
    assert half.dtype == torch.bfloat16
    torch.testing.assert_close(half.float(), full, atol=0.02, rtol=0)


def test_weights_hash_covers_every_parameter_and_nothing_else():
    vlm = small_open_clip()
    first = vlm.weights_hash()
    digest = hashlib.sha256()
    for name, tensor in sorted(vlm.model.state_dict().items()):
        digest.update(f"{name}|{tensor.dtype}|{tuple(tensor.shape)}|".encode())
        digest.update(tensor.numpy().tobytes())
    assert first == digest.hexdigest() == small_open_clip().weights_hash()
    assert small_open_clip(seed=1).weights_hash() != first
    for parameter in (vlm.model.logit_scale, vlm.model.visual.ln_post.bias):
        with torch.no_grad():
            parameter.add_(1)
        assert vlm.weights_hash() != first
        with torch.no_grad():
            parameter.sub_(1)
    vlm.model.attn_mask.zero_()  # a buffer that is built, not stored
    assert vlm.weights_hash() == first


# Tokens


def test_clip_mask_ends_with_the_first_end_token():
    ids = torch.tensor([[9, 3, 4, 99, 0, 0], [9, 3, 4, 99, 99, 99], [9, 99, 0, 0, 0, 0], [9, 3, 4, 5, 6, 99]])
    expected = torch.tensor(
        [[1, 1, 1, 1, 0, 0], [1, 1, 1, 1, 0, 0], [1, 1, 0, 0, 0, 0], [1, 1, 1, 1, 1, 1]], dtype=torch.bool
    )
    assert torch.equal(up_to_end_of_text(ids), expected)
    # With an end id that is not the largest one, larger ids are text.
    ids = torch.tensor([[9, 88, 7, 0, 7], [9, 88, 5, 5, 5]])
    expected = torch.tensor([[1, 1, 1, 0, 0], [0, 0, 0, 0, 0]], dtype=torch.bool)
    assert torch.equal(up_to_end_of_text(ids, end_id=7), expected)


def test_siglip_mask_leaves_out_the_end_token_which_is_its_padding():
    ids = torch.tensor([[262, 266, 1, 1], [262, 266, 1304, 1]])
    expected = torch.tensor([[1, 1, 0, 0], [1, 1, 1, 0]], dtype=torch.bool)
    assert torch.equal(not_padding(ids, pad_id=1), expected)


def test_coca_mask_has_one_always_valid_entry():
    ids = torch.tensor([[9, 3, 99, 0]])
    front = not_padding_and_class(ids, pad_id=0, class_last=False)
    assert torch.equal(front, torch.tensor([[True, True, True, True, False]]))
    last = not_padding_and_class(ids, pad_id=0, class_last=True)
    assert torch.equal(last, torch.tensor([[True, True, True, False, True]]))


@pytest.mark.parametrize("correct", [False, True])
def test_coca_mask_is_the_models_own_attention_mask(correct, monkeypatch):
    vlm = ARCHITECTURES["coca_ViT-B-32"]()
    monkeypatch.setattr(vlm.model.text, "correct_cls_mask", correct)
    vlm = open_clip_backend.wrap(
        vlm.model, name="coca", tokenizer=vlm.tokenize, image_size=96, mean=HALF, std=HALF
    )
    tokens = vlm.tokenize(TEXTS)
    own = vlm.model.text._build_additive_mask(tokens, tokens.shape[1] + 1, torch.float32)
    own = own.view(2, -1, *own.shape[1:])[:, 0, 0] == 0  # [B * heads, T, T] -> [B, T]
    assert torch.equal(vlm.token_mask(tokens), own)


def test_real_tokenizer_and_mask_of_clip():
    vlm = ARCHITECTURES["ViT-L-14"]()
    tokens = vlm.tokenize(["a cat", ""])
    assert tokens.shape == (2, 77) and tokens.dtype == torch.long
    assert tokens[0, :5].tolist() == [49406, 320, 2368, 49407, 0]
    assert vlm.token_mask(tokens).sum(dim=1).tolist() == [4, 2]
    assert vlm.token_mask(tokens)[0, :4].all()


def test_masks_of_the_wrapped_families():
    lengths = {"ViT-B-16-SigLIP": [5, 8], "coca_ViT-B-32": [8, 11], "hf-clip": [7, 10], "hf-siglip": [5, 8]}
    for name, expected in lengths.items():
        vlm = ARCHITECTURES[name]()
        assert vlm.token_mask(vlm.tokenize(TEXTS)).sum(dim=1).tolist() == expected, name


def test_clip_that_pools_a_given_end_token_follows_it():
    vlm = small_open_clip(text={"pool_type": "eos", "eos_id": 7})
    tokens = torch.tensor([[1, 250, 7, 0, 0, 0, 0, 0, 0, 0, 0, 0]])
    assert vlm.token_mask(tokens).sum() == 3


def test_transformers_clip_with_the_legacy_end_id_takes_the_largest():
    model = small_hf_model("clip")
    model.config.text_config.eos_token_id = 2
    processor = small_hf_processor("clip")
    vlm = transformers_backend.wrap(
        model, name="old", tokenizer=lambda texts: None, image_processor=processor
    )
    assert vlm.token_mask(torch.tensor([[1, 2, 40, 299, 299]])).sum() == 4
    model.config.text_config.eos_token_id = 40
    vlm = transformers_backend.wrap(
        model, name="new", tokenizer=lambda texts: None, image_processor=processor
    )
    assert vlm.token_mask(torch.tensor([[1, 2, 40, 299, 299]])).sum() == 3


def test_siglip_padding_is_that_of_the_tokenizer():
    class Wrapped:
        """The shape of open_clip's HFTokenizer around a tokenizer whose padding id is 0 (SigLIP 2)."""

        class tokenizer:
            pad_token_id = 0

        def __call__(self, texts):
            return torch.tensor([[5, 1, 0, 0]])

    model = ARCHITECTURES["ViT-B-16-SigLIP"]().model
    vlm = open_clip_backend.wrap(model, name="v2", tokenizer=Wrapped(), image_size=224, mean=HALF, std=HALF)
    assert vlm.token_mask(vlm.tokenize(["x"])).tolist() == [[True, True, False, False]]


def test_siglip_padding_of_a_transformers_tokenizer():
    class Tokenizer:
        pad_token_id = 0

    processor = small_hf_processor("siglip")
    vlm = transformers_backend.wrap(
        small_hf_model("siglip"), name="v2", tokenizer=Tokenizer(), image_processor=processor
    )
    assert vlm.token_mask(torch.tensor([[5, 1, 0, 0]])).tolist() == [[True, True, False, False]]


def test_caption_without_text_is_named():
    vlm = ARCHITECTURES["hf-siglip"]()
    with pytest.raises(UwmError, match="Caption 1 "):
        vlm.token_mask(vlm.tokenize(["a cat", "", "a dog"]))


@pytest.mark.parametrize("texts", ["a cat", [], ["a cat", None], ("a cat", 3), None])
def test_bad_texts(texts):
    with pytest.raises(UwmError, match="string"):
        ARCHITECTURES["small"]().tokenize(texts)


@pytest.mark.parametrize("tokens", [torch.zeros(3).long(), torch.zeros(2, 12), [[1, 2]]])
def test_bad_tokens(tokens):
    vlm = ARCHITECTURES["small"]()
    with pytest.raises(UwmError, match="LongTensor"):
        vlm.encode_text(tokens)
    with pytest.raises(UwmError, match="LongTensor"):
        vlm.token_mask(tokens)


def test_text_encoders_of_other_families_are_refused():
    with pytest.raises(UwmError, match="'first'"):
        small_open_clip(text={"pool_type": "first"})


# Pixels


def pictures() -> list[Image.Image]:
    noise = np.random.default_rng(1).integers(0, 256, (70, 50, 3), dtype=np.uint8)
    wide = Image.fromarray(noise).resize((90, 41))
    return [Image.fromarray(noise), wide, wide.convert("L"), wide.convert("RGBA")]


@pytest.mark.parametrize("name", ["small", "hf-clip", "hf-siglip"])
def test_arrays_of_the_right_size_skip_the_pipeline_without_a_difference(name):
    vlm = ARCHITECTURES[name]()
    images = images_for(vlm, 3)
    fast = vlm.preprocess(images)
    assert fast.shape == (3, 3, 32, 32) and fast.dtype == torch.float32
    slow = vlm.preprocess([Image.fromarray(image) for image in images])
    torch.testing.assert_close(fast, slow, atol=1e-6, rtol=1e-6)
    mean, std = np.array(vlm.pixels.mean), np.array(vlm.pixels.std)
    by_hand = ((images / 255 - mean) / std).transpose(0, 3, 1, 2)
    np.testing.assert_allclose(fast.numpy(), by_hand, atol=1e-6)


@pytest.mark.parametrize("family", ["clip", "siglip"])
def test_other_pictures_take_the_image_processor(family):
    vlm, processor = ARCHITECTURES[f"hf-{family}"](), small_hf_processor(family)
    expected = processor(
        images=[image.convert("RGB") for image in pictures()], return_tensors="pt"
    ).pixel_values
    assert torch.equal(vlm.preprocess(pictures()), expected)
    large = np.stack([np.asarray(image.convert("RGB").resize((64, 48))) for image in pictures()])
    expected = processor(images=list(large), return_tensors="pt").pixel_values
    assert torch.equal(vlm.preprocess(large), expected)


def test_other_pictures_take_open_clips_pipeline(small_config):
    import open_clip

    vlm = load_model(f"open_clip:{small_config}", weights="random")
    _, _, transform = open_clip.create_model_and_transforms(small_config)
    expected = torch.stack([transform(image.convert("RGB")) for image in pictures()])
    assert torch.equal(vlm.preprocess(pictures()), expected)


def test_pixels_of_random_weights_are_those_of_the_architectures_tags():
    """SigLIP squashes the image and normalises by one half; open_clip's default would be OpenAI's numbers."""
    vlm = ARCHITECTURES["ViT-B-16-SigLIP"]()
    assert (vlm.pixels.mean, vlm.pixels.std) == (HALF, HALF)
    bar = np.zeros((40, 160, 3), dtype=np.uint8)
    bar[:, :20] = 255  # cut off by a centre crop, kept by squashing
    assert vlm.preprocess([Image.fromarray(bar)]).max() > 0.9
    clip = ARCHITECTURES["ViT-B-32"]()
    assert clip.pixels.mean == pytest.approx((0.48145466, 0.4578275, 0.40821073))


@pytest.mark.parametrize(
    "images",
    [
        np.zeros((2, 32, 32, 3), dtype=np.float32),
        np.zeros((2, 3, 32, 32), dtype=np.uint8),
        np.zeros((32, 32, 3), dtype=np.uint8),
        np.zeros((0, 32, 32, 3), dtype=np.uint8),
        [],
        Image.new("RGB", (32, 32)),
        [np.zeros((32, 32, 3), dtype=np.uint8)],
        torch.zeros(2, 3, 32, 32),
    ],
)
def test_bad_images(images):
    with pytest.raises(UwmError, match="[Ii]mage"):
        ARCHITECTURES["small"]().preprocess(images)


@pytest.mark.parametrize("shape", [(3, 32, 32), (2, 3, 32, 31), (2, 1, 32, 32)])
def test_bad_pixels(shape):
    vlm = ARCHITECTURES["small"]()
    with pytest.raises(UwmError, match=r"\[B, 3, 32, 32\]"):
        vlm.encode_image(torch.zeros(shape))
    with pytest.raises(UwmError, match="uint8"):
        vlm.encode_image(torch.zeros(2, 3, 32, 32, dtype=torch.uint8))


# Loading


def test_open_clip_weights_from_a_safetensors_file(small_config, tmp_path):
    torch.manual_seed(1)
    first = load_model(f"open_clip:{small_config}", weights="random")
    save_file(first.model.state_dict(), tmp_path / "weights.safetensors")
    second = load_model(f"open_clip:{small_config}", weights=tmp_path / "weights.safetensors")
    assert second.weights_hash() == first.weights_hash()
    assert torch.equal(encode(second, "text"), encode(first, "text"))
    assert second.name == f"open_clip:{small_config}"
    third = load_model(f"open_clip:{small_config}", weights="random", dtype=torch.float64)
    assert third.dtype == torch.float64
    assert third.weights_hash() != first.weights_hash()


def test_random_weights_that_were_asked_for_are_not_warned_about(small_config, caplog):
    load_model(f"open_clip:{small_config}", weights="random")
    assert not caplog.records
    logging.getLogger().warning("No pretrained weights loaded, says another")
    assert len(caplog.records) == 1  # the silence ends with the loading


def spoil(path, how: str) -> str:
    """Write a broken variant of a weights file and return what the error must name."""
    tensors = load_file(path)
    if how == "missing":
        del tensors["visual.proj"]
        named = r"visual\.proj \(absent in the file"
    elif how == "extra":
        tensors["another"] = torch.zeros(2)
        named = r"another \(\[2\] in the file, absent in the model\)"
    else:
        tensors["positional_embedding"] = torch.zeros(6, 48)
        named = r"positional_embedding \(\[6, 48\] in the file, \[12, 48\] in the model\)"
    save_file(tensors, path)
    return named


@pytest.mark.parametrize("how", ["missing", "extra", "shape"])
def test_weights_that_do_not_fit_are_refused(small_config, tmp_path, how):
    path = tmp_path / "weights.safetensors"
    save_file(load_model(f"open_clip:{small_config}", weights="random").model.state_dict(), path)
    named = spoil(path, how)
    with pytest.raises(UwmError, match=named):
        load_model(f"open_clip:{small_config}", weights=path)


def test_weights_files_that_cannot_be_read(small_config, tmp_path):
    name = f"open_clip:{small_config}"
    with pytest.raises(UwmError, match="no weights file"):
        load_model(name, weights=tmp_path / "absent.safetensors")
    damaged = tmp_path / "damaged.safetensors"
    damaged.write_bytes(b"\x10\x00\x00\x00\x00\x00\x00\x00{")
    with pytest.raises(UwmError, match="not a whole safetensors file"):
        load_model(name, weights=damaged)
    pickled = tmp_path / "model.pt"
    torch.save({}, pickled)
    with pytest.raises(UwmError, match="pickle"):
        load_model(name, weights=pickled)


@pytest.mark.parametrize("family", ["clip", "siglip"])
def test_transformers_folder(family, tmp_path):
    save_hf_folder(tmp_path, family)
    vlm = load_model(f"hf:{tmp_path}")
    twin = transformers_backend.wrap(
        small_hf_model(family), name="x", tokenizer=vlm.tokenize, image_processor=small_hf_processor(family)
    )
    assert vlm.weights_hash() == twin.weights_hash()
    for encoder in ("text", "vision"):
        torch.testing.assert_close(encode(vlm, encoder), encode(twin, encoder))
    own = small_hf_processor(family)(images=pictures()[:2], return_tensors="pt").pixel_values
    assert torch.equal(vlm.preprocess(pictures()[:2]), own)
    tokens = vlm.tokenize([TEXTS[0], " ".join(TEXTS * 4)])
    assert tokens.shape == (2, 12)
    specials = 2 if family == "clip" else 0
    assert vlm.token_mask(tokens).sum(dim=1).tolist() == [5 + specials, 12 if family == "clip" else 11]
    assert load_model(f"hf:{tmp_path}", weights="random").weights_hash() != vlm.weights_hash()


def test_transformers_weights_from_elsewhere(tmp_path):
    """Safe-CLIP's way: tokenizer and processor from one folder, weights from another, or from one file."""
    save_hf_folder(tmp_path / "base", "clip")
    model = small_hf_model("clip")
    with torch.no_grad():
        model.text_projection.weight.zero_()
    model.save_pretrained(tmp_path / "safe")
    single = tmp_path / "safe" / "model.safetensors"
    # Files of that age hold the position numbers too, which are no weights.
    numbers = {"text_model.embeddings.position_ids": torch.arange(12)[None]}
    save_file(load_file(single) | numbers, single, metadata={"format": "pt"})
    for weights in (tmp_path / "safe", single):
        vlm = load_model(f"hf:{tmp_path / 'base'}", weights=weights)
        assert not vlm.model.text_projection.weight.any()
        assert vlm.model.visual_projection.weight.any()


def test_transformers_folder_without_some_weights_is_refused(tmp_path):
    save_hf_folder(tmp_path, "clip")
    path = tmp_path / "model.safetensors"
    tensors = load_file(path)
    del tensors["visual_projection.weight"]
    save_file(tensors, path, metadata={"format": "pt"})
    with pytest.raises(UwmError, match=r"lacks visual_projection\.weight"):
        load_model(f"hf:{tmp_path}")


def test_transformers_weights_must_be_safetensors(tmp_path, offline):
    save_hf_folder(tmp_path, "clip")
    torch.save(load_file(tmp_path / "model.safetensors"), tmp_path / "pytorch_model.bin")
    (tmp_path / "model.safetensors").unlink()
    with pytest.raises(UwmError, match="could not be loaded"):
        load_model(f"hf:{tmp_path}")


def test_transformers_models_of_another_type_are_refused(tmp_path):
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "bert"}))
    with pytest.raises(
        UwmError, match="is of type 'bert': take a model of type clip, siglip, metaclip_2, llava, "
    ):
        load_model(f"hf:{tmp_path}")
    from transformers import BertConfig, BertModel

    bert = BertModel(
        BertConfig(hidden_size=8, num_hidden_layers=1, num_attention_heads=1, intermediate_size=8)
    )
    with pytest.raises(UwmError, match="'bert'"):
        transformers_backend.wrap(bert, name="bert", tokenizer=None, image_processor=None)


def test_unknown_names_point_to_the_nearest(offline):
    cases = {
        ("ViT-L-14", None): "'mini-', 'open_clip:' or 'hf:'",
        ("open_clip:ViT-L-41", "random"): "no architecture of open_clip 'ViT-L-41': did you mean 'ViT-L-",
        ("open_clip:ViT-B-32", "opena"): "tag of ViT-B-32 'opena': did you mean 'openai'",
        ("open_clip:ViT-B-32", None): r"\(openai, .*random",
        ("hf:openai/clip-vit-large-patch41", None): "did you mean 'openai/clip-vit-large-patch14'\\?$",
    }
    for (name, weights), message in cases.items():
        with pytest.raises(UwmError, match=message) as raised:
            load_model(name, weights=weights)
        assert name in str(raised.value) or name.partition(":")[2] in str(raised.value)


def test_a_download_that_fails_is_one_sentence(offline):
    with pytest.raises(UwmError, match="open_clip:ViT-B-16-SigLIP could not be loaded") as raised:
        load_model("open_clip:ViT-B-16-SigLIP", weights="random")
    assert "\n" not in str(raised.value)


def test_unknown_mini_model_points_to_the_nearest():
    with pytest.raises(UwmError, match="no mini model 'mini-ViT-L-41': did you mean 'mini-ViT-L-14'"):
        load_model("mini-ViT-L-41")
    with pytest.raises(UwmError, match="its own weights"):
        load_model("mini-ViT-L-14", weights="random")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"device": "abacus"}, "device 'abacus'"),
        ({"device": "meta:x"}, "device 'meta:x' cannot be used here"),
        ({"dtype": torch.int8}, "torch.int8"),
        ({"dtype": "float32"}, "number type"),
    ],
)
def test_bad_device_and_dtype(options, message):
    with pytest.raises(UwmError, match=message):
        load_model("open_clip:ViT-B-32", weights="random", **options)


# Folders and files of unknown origin


class Harmful:
    """What a pickle may bring: reading it makes a file."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return open, (str(self.path), "w")


@pytest.fixture(scope="module")
def clip_folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("clip")
    save_hf_folder(folder, "clip")
    return folder


def change_json(path, **changes) -> None:
    path.write_text(json.dumps((json.loads(path.read_text()) if path.exists() else {}) | changes))


OWN_CODE = """
from pathlib import Path
from transformers import PretrainedConfig, PreTrainedTokenizerFast
Path({ran!r}).touch()
class Own(PretrainedConfig):
    model_type = "own"
class OwnTokenizer(PreTrainedTokenizerFast):
    pass
"""
BRINGS_CODE = {
    "config.json": {"model_type": "own", "auto_map": {"AutoConfig": "own.Own", "AutoModel": "own.Own"}},
    "tokenizer_config.json": {
        "tokenizer_class": "OwnTokenizer",
        "auto_map": {"AutoTokenizer": ["own.OwnTokenizer", "own.OwnTokenizer"]},
    },
    "preprocessor_config.json": {
        "image_processor_type": "Own",
        "auto_map": {"AutoImageProcessor": "own.Own"},
    },
}


@pytest.mark.parametrize("answer", ["y", "n"])
@pytest.mark.parametrize("file", BRINGS_CODE)
def test_code_in_a_folder_is_never_run_nor_asked_about(clip_folder, tmp_path, monkeypatch, file, answer):
    folder = tmp_path / "own"
    shutil.copytree(clip_folder, folder)
    ran, asked = tmp_path / "ran", []
    (folder / "own.py").write_text(OWN_CODE.format(ran=str(ran)))
    if file == "preprocessor_config.json":
        for other in ("preprocessor_config.json", "processor_config.json"):
            (folder / other).unlink(missing_ok=True)
    change_json(folder / file, **BRINGS_CODE[file])
    monkeypatch.setattr("builtins.input", lambda *prompt: asked.append(prompt) or answer)
    with contextlib.suppress(UwmError):  # a tokenizer is read without its own class
        load_model(f"hf:{folder}")
    assert not ran.exists() and asked == []


def test_own_code_is_named_as_the_reason(clip_folder, tmp_path):
    shutil.copytree(clip_folder, tmp_path / "own")
    (tmp_path / "own" / "own.py").write_text(OWN_CODE.format(ran=str(tmp_path / "ran")))
    change_json(tmp_path / "own" / "config.json", **BRINGS_CODE["config.json"])
    with pytest.raises(UwmError, match="code of its own, which is never run here"):
        load_model(f"hf:{tmp_path / 'own'}")


@pytest.mark.parametrize("pickled", ["harmless", "harmful"])
def test_a_pickle_in_a_folder_is_not_read(clip_folder, tmp_path, pickled):
    for index in (False, True):
        folder = tmp_path / str(index)
        shutil.copytree(clip_folder, folder)
        tensors = load_file(folder / "model.safetensors")
        (folder / "model.safetensors").unlink()
        torch.save(
            tensors if pickled == "harmless" else Harmful(tmp_path / "ran"), folder / "pytorch_model.bin"
        )
        if index and pickled == "harmful":
            weight_map = {"metadata": {}, "weight_map": dict.fromkeys(tensors, "pytorch_model.bin")}
            (folder / "model.safetensors.index.json").write_text(json.dumps(weight_map))
        with pytest.raises(UwmError, match="could not be loaded") as error:
            load_model(f"hf:{folder}")
        assert "\n" not in str(error.value) and not (tmp_path / "ran").exists()


@pytest.mark.parametrize("plain", [False, True])
def test_a_pickle_behind_a_tag_brings_no_code(small_config, tmp_path, monkeypatch, plain):
    """Tags may be pickles; whatever is downloaded, reading it makes no file."""
    path = tmp_path / "tag.bin"
    harmful = Harmful(tmp_path / "ran")
    path.write_bytes(pickle.dumps(harmful)) if plain else torch.save({"a": harmful}, path)
    monkeypatch.setattr("open_clip.factory.download_pretrained", lambda *args, **options: str(path))
    monkeypatch.setattr("uwmlib.models.pretrained.httpx.head", lambda *args, **options: None)
    with pytest.raises(UwmError, match="could not be loaded"):
        load_model("open_clip:ViT-B-32", weights="openai")
    assert not (tmp_path / "ran").exists()


def spoil_values(tensors, how: str) -> str:
    """Change tensors of a CLIP of transformers in place and return what the error must name."""
    key = "text_projection.weight"
    if how == "layer":
        for name in [name for name in tensors if ".layers.1." in name]:
            tensors[name.replace(".layers.1.", ".layers.7.")] = tensors[name].clone()
        return r"layers\.7\."
    if how == "int8":
        tensors[key] = tensors[key].mul(100).to(torch.int8)
        return r"of torch\.int8 in the file"
    tensors[key][0, 0] = float(how)
    return f"NaN or infinity in {key}"


@pytest.mark.parametrize("how", ["nan", "inf", "int8", "layer"])
def test_weights_that_are_no_numbers_of_this_model_are_refused(clip_folder, tmp_path, how):
    folder = tmp_path / "spoilt"
    shutil.copytree(clip_folder, folder)
    tensors = load_file(folder / "model.safetensors")
    named = spoil_values(tensors, how)
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(UwmError, match=named):
        load_model(f"hf:{clip_folder}", weights=folder / "model.safetensors")
    if how != "int8":  # transformers itself turns integers into the model's type
        with pytest.raises(UwmError, match=named):
            load_model(f"hf:{folder}")


def test_a_refused_file_leaves_the_model_as_it_was(tmp_path):
    vlm = small_open_clip()
    before = vlm.weights_hash()
    state = {key: tensor + 1 for key, tensor in vlm.model.state_dict().items()}
    state["positional_embedding"][0, 0] = float("nan")
    save_file(state, tmp_path / "nan.safetensors")
    with pytest.raises(UwmError, match="NaN or infinity in positional_embedding"):
        load_weights(vlm.model, tmp_path / "nan.safetensors")
    assert vlm.weights_hash() == before


def header(text: bytes) -> bytes:
    return len(text).to_bytes(8, "little") + text


@pytest.mark.parametrize(
    "content",
    [b"", b"<!DOCTYPE html><html>404</html>", (2**62).to_bytes(8, "little") + b"{}", b"\xff" * 64,
     pickle.dumps(Harmful("ran")), header(b'{"a":' * 50_000), header(b"{}"),
     header(b'{"a":{"dtype":"F32","shape":[-1],"data_offsets":[0,4]}}') + b"0000",
     header(b'{"a":{"dtype":"F32","shape":[4294967296,4294967296],"data_offsets":[0,4]}}') + b"0000",
     header(b'{"a":{"dtype":"Q99","shape":[1],"data_offsets":[0,4]}}') + b"0000"],
)  # fmt: skip
def test_files_of_any_content_are_one_sentence(tmp_path, content):
    path = tmp_path / "weights.safetensors"
    path.write_bytes(content)
    with pytest.raises(UwmError, match="not a whole safetensors file|does not fit"):
        load_weights(small_open_clip().model, path)


def test_places_that_hold_no_weights_file(tmp_path):
    folder = tmp_path / "folder.safetensors"
    folder.mkdir()
    with pytest.raises(UwmError, match="is a folder, not a weights file"):
        load_model("mini-ViT-L-14", weights=folder)
    for weights in (5, b"x.safetensors", "", ["a"], "a\0b"):
        with pytest.raises(UwmError, match="weights is"):
            load_model("mini-ViT-L-14", weights=weights)
        with pytest.raises(UwmError, match="vision_weights is"):
            load_model("mini-ViT-L-14", vision_weights=weights)
    with pytest.raises(UwmError, match="pickled code"):
        load_model("mini-ViT-L-14", weights="MODEL.PT")


@pytest.mark.parametrize(
    "name", ["hf:", "hf:/no/such/folder", "hf:./none", "hf:a/b/c", "hf:a b", "hf:" + "a" * 5000]
)
def test_what_is_neither_a_folder_nor_a_hub_id_is_not_asked_for(name, monkeypatch):
    monkeypatch.setattr("uwmlib.models.pretrained.httpx.head", lambda *args, **options: pytest.fail("asked"))
    with pytest.raises(UwmError, match="neither a folder nor a name on the hub") as error:
        load_model(name)
    assert len(str(error.value)) < 500


def test_a_file_in_place_of_a_folder_is_named(tmp_path):
    (tmp_path / "model.bin").write_text("x")
    with pytest.raises(UwmError, match="is no folder"):
        load_model(f"hf:{tmp_path / 'model.bin'}")


@pytest.mark.parametrize(
    "text", ["[]", "null", "{}", "[" * 100_000, '{"model_type": "clip", "vision_config": 5}']
)
def test_configurations_of_any_content_are_one_sentence(clip_folder, tmp_path, text):
    shutil.copytree(clip_folder, tmp_path / "odd")
    (tmp_path / "odd" / "config.json").write_text(text)
    with pytest.raises(UwmError) as error:
        load_model(f"hf:{tmp_path / 'odd'}", weights="random")
    assert "\n" not in str(error.value)


def test_sizes_that_make_no_model_are_one_sentence(clip_folder, tmp_path):
    shutil.copytree(clip_folder, tmp_path / "odd")
    config = json.loads((tmp_path / "odd" / "config.json").read_text())
    change_json(tmp_path / "odd" / "config.json", vision_config=config["vision_config"] | {"patch_size": 0})
    with pytest.raises(UwmError, match="could not be loaded"):
        load_model(f"hf:{tmp_path / 'odd'}", weights="random")


def test_tokenizers_that_do_not_belong_to_the_model_are_named(clip_folder):
    class Tokenizer:
        pad_token_id = None

        def __call__(self, texts, **options):
            return types.SimpleNamespace(input_ids=torch.full((len(texts), 12), 300))

    given = {"name": "x", "image_processor": small_hf_processor("clip")}
    with pytest.raises(UwmError, match="no padding token"):
        transformers_backend.wrap(small_hf_model("clip"), tokenizer=Tokenizer(), **given)
    Tokenizer.pad_token_id = 0
    vlm = transformers_backend.wrap(small_hf_model("clip"), tokenizer=Tokenizer(), **given)
    with pytest.raises(UwmError, match="token 300 of 300"):
        vlm.tokenize(["a"])


@pytest.mark.parametrize("reached", [False, True])
@pytest.mark.parametrize("name", ["hf:nobody/nothing", "open_clip:ViT-B-16-SigLIP"])
def test_a_hub_that_does_not_answer_is_asked_once(monkeypatch, name, reached):
    """Six attempts for each file, with growing pauses, are what huggingface_hub would make of it."""
    import huggingface_hub.constants as constants

    offline, asked = [], []

    def head(address, timeout):
        asked.append(timeout)
        if not reached:
            raise httpx.ConnectTimeout("no answer")

    def load(*args, **options):
        offline.append(constants.HF_HUB_OFFLINE)
        raise OSError("stop here")

    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr("uwmlib.models.pretrained.httpx.head", head)
    monkeypatch.setattr("transformers.AutoConfig.from_pretrained", load)
    monkeypatch.setattr("open_clip.get_tokenizer", load)
    with pytest.raises(UwmError, match="stop here"):
        load_model(name, weights="random")
    assert offline == [not reached] and len(asked) == 1 and asked[0] <= 10
    assert constants.HF_HUB_OFFLINE is False


def test_the_hub_is_not_asked_where_nothing_is_wanted_of_it(clip_folder, small_config, monkeypatch):
    monkeypatch.setattr("uwmlib.models.pretrained.httpx.head", lambda *args, **options: pytest.fail("asked"))
    load_model(f"hf:{clip_folder}")
    load_model(f"open_clip:{small_config}", weights="random")


# torchvision

_TORCHVISION = {
    # Imports submodules first, then wants its operator, as the real one does over a torch it was not built for.
    "mismatched": """
        import torch, torchvision.transforms
        if not hasattr(torch.ops.torchvision, "nms"):
            raise RuntimeError("operator torchvision::nms does not exist")
    """,
    "matching": "import torchvision.transforms",
    "broken": "raise RuntimeError('out of memory')",
}


@pytest.mark.parametrize(
    ("kind", "printed"),
    [("mismatched", "imported True"), ("matching", "imported False"), ("broken", "out of memory")],
)
def test_torchvision_is_mended_only_where_its_operators_do_not_match(kind, printed, tmp_path):
    package = tmp_path / "torchvision"
    package.mkdir()
    (package / "__init__.py").write_text(textwrap.dedent(_TORCHVISION[kind]))
    (package / "transforms.py").write_text("import torchvision")
    script = f"""
        import sys
        sys.path.insert(0, {str(tmp_path)!r})
        import torch
        from uwmlib.torchvision_shim import import_torchvision
        try:
            module = import_torchvision()
        except RuntimeError as error:
            print(error)
        else:
            assert module.__file__.startswith({str(tmp_path)!r}) and module.transforms.torchvision is module
            print("imported", hasattr(torch.ops.torchvision, "nms"))
    """
    run = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(script)],
        capture_output=True,
        text=True,
        check=True,
        timeout=120,
    )
    assert run.stdout.strip() == printed


@pytest.mark.parametrize("options", [{"name": None}, {"name": 3}, {"name": "mini-ViT-L-14", "device": None}])
def test_a_name_or_device_that_is_none_is_refused(options):
    with pytest.raises(UwmError, match="name is|device None"):
        load_model(**options)


@pytest.mark.parametrize("pixels", [None, np.zeros((1, 3, 48, 48), dtype=np.float32)])
def test_pixels_that_are_no_tensor_are_refused(pixels):
    with pytest.raises(UwmError, match="Pixels must be a tensor"):
        load_model("mini-ViT-L-14").encode_image(pixels)
