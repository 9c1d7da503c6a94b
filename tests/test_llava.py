"""LLaVA: the converted tower sees what the encoder sees, edits reach captions, and the real format loads."""

from __future__ import annotations

import contextlib
import dataclasses
import json

import pytest
import torch
import torch.nn.functional as F
from PIL import Image

import uwmlib as uwm
from uwmlib.mini.tokenizer import split_words
from uwmlib.models.llava import Llava, tower_from_open_clip
from uwmlib.models.mini_llava import caption_ids, mini_llava, mini_processor, write_llava
from uwmlib.training import optimise
from uwmlib.training.captioning import TRAINED, caption_loss


@pytest.fixture(scope="module")
def base():
    return uwm.load_model("mini-ViT-L-14")


@pytest.fixture
def llava(base):
    return mini_llava(0, visual=base.model.visual)


@pytest.fixture(scope="module")
def tuples():
    return uwm.load_tuples("mini-visu", split="test", n=6)


def test_converted_tower_gives_the_encoders_embeddings(base, llava, tuples):
    pixels = base.preprocess(tuples.unsafe_images)
    assert torch.equal(llava.preprocess(tuples.unsafe_images), pixels)
    with torch.inference_mode():
        pooled = llava.tower(pixel_values=pixels).pooler_output  # [B, width], after the last norm
        ours = F.normalize(pooled @ base.model.visual.proj, dim=-1)
        assert torch.allclose(ours, base.encode_image(pixels), atol=1e-5)


def test_sites_are_the_towers_blocks_and_edits_come_undone(base, llava, tuples):
    scores = uwm.score(llava, tuples, text=None, vision=["fc2", "value"], progress=False)
    assert {site.layer for site in scores.sites} == {0, 1, 2, 3}
    before = llava.weights_hash()
    twin = uwm.score(base, tuples, text=None, vision="fc2", progress=False)
    for layer in range(4):
        ours, theirs = (s.score_of(f"vision.{layer}.fc2") for s in (scores, twin))
        assert torch.allclose(ours, theirs, rtol=1e-3)
    with scores.select(tau=0.3, alpha=-1.0).applied(llava):
        assert llava.weights_hash() != before
    assert llava.weights_hash() == before


def test_captions_read_the_layer_before_the_last_block(llava, tuples):
    """LLaVA-1.5's feature layer is -2: the last block may be destroyed, the one before may not."""
    captions = llava.caption(tuples.safe_images)
    for layer, same in ((3, True), (2, False)):
        weight = llava.tower.encoder.layers[layer].mlp.fc2.weight
        kept = weight.detach().clone()
        weight.data.mul_(-30)
        assert (llava.caption(tuples.safe_images) == captions) is same
        weight.data.copy_(kept)


def test_captions_do_not_depend_on_the_batch_and_are_kept(llava, tuples, tmp_path):
    cache = uwm.Cache(tmp_path)
    all_at_once = llava.caption(tuples.safe_images, cache=cache)
    assert llava.caption(tuples.safe_images, batch_size=1) == all_at_once
    assert llava.caption(tuples.safe_images, cache=cache) == all_at_once
    assert (cache.hits, cache.misses) == (1, 1) and len(all_at_once) == 6
    llava.caption(tuples.safe_images, cache=cache, max_new_tokens=3)
    llava.caption(tuples.unsafe_images, cache=cache)
    assert cache.misses == 3


def other_activation(llava):
    for layer in llava.model.model.language_model.layers:
        layer.mlp.act_fn = torch.nn.ReLU()


def other_pixels(llava):
    llava.pixels = dataclasses.replace(llava.pixels, mean=(0.0, 0.9, 0.5))


def other_question(llava):
    llava.processor.chat_template = llava.processor.chat_template.replace("<s>", "<s>red ")


def other_words(llava):
    decode = llava.processor.tokenizer.batch_decode
    llava.processor.tokenizer.batch_decode = lambda *a, **k: [text.upper() for text in decode(*a, **k)]


def other_end(llava):
    llava.model.generation_config.eos_token_id = 7


def other_feature_layer(llava):
    llava.model.config.vision_feature_layer = -1


@pytest.mark.parametrize(
    "change",
    [other_activation, other_pixels, other_question, other_words, other_end, other_feature_layer],
)
def test_captions_of_another_llava_of_the_same_weights_are_not_believed(
    llava, base, tuples, tmp_path, change
):
    other = mini_llava(0, visual=base.model.visual)
    change(other)
    assert other.weights_hash() == llava.weights_hash()
    images, options = tuples.safe_images[:2], {"max_new_tokens": 8}
    llava.caption(images, cache=tmp_path, **options)
    plain = other.caption(images, **options)
    assert other.caption(images, cache=tmp_path, **options) == plain
    assert other.caption(images, cache=str(tmp_path), **options) == plain
    # Kept are the ids, so that a tokenizer alone needs no other result.
    assert uwm.Cache(tmp_path).size()[0] == (1 if change is other_words else 2)


def test_captions_need_a_cache_that_can_be_written(llava, tuples, tmp_path, monkeypatch):
    (tmp_path / "file").touch()
    monkeypatch.setattr(Llava, "_generate", None)
    with pytest.raises(uwm.UwmError, match="cannot be written"):
        llava.caption(tuples.safe_images, cache=tmp_path / "file")
    with pytest.raises(uwm.UwmError, match="give a Cache, or the path"):
        llava.caption(tuples.safe_images, cache=7)


def test_the_folder_loads_by_the_call_that_loads_llava(llava, tuples, tmp_path):
    write_llava(llava.model, tmp_path / "llava")
    loaded = uwm.load_model(f"hf:{tmp_path / 'llava'}")
    assert isinstance(loaded, Llava) and loaded.weights_hash() == llava.weights_hash()
    assert loaded.caption(tuples.safe_images) == llava.caption(tuples.safe_images)
    picture = Image.fromarray(tuples.safe_images[0]).resize((96, 64))
    assert loaded.preprocess([picture]).shape == (1, 3, 48, 48)


def test_another_clips_tower_can_take_its_place(llava, tmp_path):
    from transformers import CLIPConfig, CLIPModel

    write_llava(llava.model, tmp_path / "llava")
    text = {"hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2, "vocab_size": 50,
            "bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 0}  # fmt: skip
    vision = llava.model.config.vision_config.to_dict()
    clip = CLIPModel(CLIPConfig(vision_config=vision, text_config=text))
    clip.save_pretrained(tmp_path / "clip")
    swapped = uwm.load_model(f"hf:{tmp_path / 'llava'}", vision_weights=tmp_path / "clip")
    state = clip.vision_model.state_dict()
    assert all(torch.equal(tensor, state[key]) for key, tensor in swapped.tower.state_dict().items())
    small = CLIPModel(CLIPConfig(vision_config=vision | {"num_hidden_layers": 2}, text_config=text))
    small.save_pretrained(tmp_path / "small")
    with pytest.raises(uwm.UwmError, match="does not fit"):
        uwm.load_model(f"hf:{tmp_path / 'llava'}", vision_weights=tmp_path / "small")
    with pytest.raises(uwm.UwmError, match="takes no vision_weights"):
        uwm.load_model("mini-LLaVA", vision_weights=tmp_path / "clip")


def test_code_of_a_processor_is_never_run(llava, tmp_path, monkeypatch):
    folder, ran = tmp_path / "llava", tmp_path / "ran"
    write_llava(llava.model, folder)
    (folder / "own.py").write_text(f"from pathlib import Path\nPath({str(ran)!r}).touch()\nclass Own: pass")
    for file in ("processor_config.json", "tokenizer_config.json"):
        settings = json.loads((folder / file).read_text()) | {"processor_class": "Own"}
        (folder / file).write_text(json.dumps(settings | {"auto_map": {"AutoProcessor": "own.Own"}}))
    monkeypatch.setattr("builtins.input", lambda *prompt: "y")
    with contextlib.suppress(uwm.UwmError):
        uwm.load_model(f"hf:{folder}")
    assert not ran.exists()


def test_there_is_no_text_encoder(llava, tuples):
    with pytest.raises(uwm.UwmError, match="no text encoder"):
        llava.encode_text(torch.zeros(1, 4, dtype=torch.long))
    with pytest.raises(uwm.UwmError, match="text sites"):
        uwm.score(llava, tuples, text="out", progress=False)


def test_only_the_caption_and_its_end_are_learnt():
    processor = mini_processor()
    tokenizer = processor.tokenizer
    ids, labels = caption_ids(["a red ring", "a photo of a small blue star"], processor)
    assert ids.shape == labels.shape == (2, 1 + 36 + 8)
    assert (labels[:, :37] == -100).all() and (
        ids[:, 1:37] == tokenizer.convert_tokens_to_ids("<image>")
    ).all()
    assert tokenizer.decode(labels[0, 37:41]) == "a red ring </s>" and (labels[0, 41:] == -100).all()
    for text, row in zip(["a red ring", "a photo of a small blue star"], ids[:, 37:], strict=True):
        assert tokenizer.decode(row, skip_special_tokens=True).split() == split_words(text)


def test_training_leaves_the_tower_alone_and_nothing_else(base):
    llava = mini_llava(0, visual=base.model.visual)
    before = {name: tensor.clone() for name, tensor in llava.model.state_dict().items()}
    optimise(
        llava.model, caption_loss(llava, batch_size=4, seed=0), steps=1, learning_rate=0.1, weight_decay=0.1,
        trained=TRAINED, progress=False,
    )  # fmt: skip
    after = llava.model.state_dict()
    same = {name for name in before if torch.equal(before[name], after[name])}
    assert same == {name for name in before if name.startswith("model.vision_tower.")}


def test_tower_names_are_complete(base):
    state = tower_from_open_clip(base.model.visual)
    assert sum(tensor.numel() for tensor in state.values()) == sum(
        parameter.numel() for name, parameter in base.model.visual.named_parameters() if name != "proj"
    )
