"""LLaVA: the converted tower sees what the encoder sees, edits reach captions, and the real format loads."""

from __future__ import annotations

import contextlib
import dataclasses
import json

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image

import uwmlib as uwm
from uwmlib.editing import delta_edit, gate_edit
from uwmlib.mini.tokenizer import split_words
from uwmlib.mini.worlds import SECOND
from uwmlib.models.llava import Llava, LlavaNext, tower_from_open_clip
from uwmlib.models.mini_llava import bare_llava, caption_ids, mini_llava, mini_processor, write_llava
from uwmlib.torchvision_shim import import_torchvision
from uwmlib.training import optimise
from uwmlib.training.captioning import TRAINED, caption_loss
from uwmlib.tuples.images import ImageFiles


@pytest.fixture(scope="module")
def base():
    return uwm.load_model("mini-ViT-L-14")


@pytest.fixture
def llava(base):
    return mini_llava("mini-LLaVA", seed=0, visual=base.model.visual)


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


def other_resizing(llava):
    llava.processor.image_processor.resample = 0  # of pictures that have not the model's size


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
    [
        other_activation,
        other_pixels,
        other_resizing,
        other_question,
        other_words,
        other_end,
        other_feature_layer,
    ],
)
def test_captions_of_another_llava_of_the_same_weights_are_not_believed(
    llava, base, tuples, tmp_path, change
):
    other = mini_llava("mini-LLaVA", seed=0, visual=base.model.visual)
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
    write_llava(llava.model, tmp_path / "llava", "mini-LLaVA")
    loaded = uwm.load_model(f"hf:{tmp_path / 'llava'}")
    assert isinstance(loaded, Llava) and loaded.weights_hash() == llava.weights_hash()
    assert loaded.caption(tuples.safe_images) == llava.caption(tuples.safe_images)
    picture = Image.fromarray(tuples.safe_images[0]).resize((96, 64))
    assert loaded.preprocess([picture]).shape == (1, 3, 60, 60)


def test_another_clips_tower_can_take_its_place(llava, tmp_path):
    from transformers import CLIPConfig, CLIPModel

    write_llava(llava.model, tmp_path / "llava", "mini-LLaVA")
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
    write_llava(llava.model, folder, "mini-LLaVA")
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


# Log-probabilities

CAPTIONS = ["a red ring", "a photo of a small blue star", "a star"]


def by_hand(llava, images, captions, question="") -> list[float]:
    """Ask for one token after the other, each with all that went before, one image at a time and without padding."""
    totals = []
    for position, caption in enumerate(captions):
        ids = llava.processor.tokenizer.convert_tokens_to_ids([*split_words(caption), "</s>"])
        picture = images[position : position + 1]
        read = llava._inputs(picture, llava._prompt(question))
        total = 0.0
        for token in ids:
            logits = llava.model(**read).logits[0, -1].double()
            total += (logits[token] - logits.logsumexp(0)).item()
            read["input_ids"] = torch.cat([read["input_ids"], torch.tensor([[token]])], dim=1)
            read["attention_mask"] = torch.ones_like(read["input_ids"])
        totals.append(total)
    return totals


@pytest.fixture(params=["llava", "llava_next"])
def either(request) -> tuple[Llava, object]:
    """Both LLaVAs, and images for each: an array, and pictures of several shapes."""
    if request.param == "llava":
        return request.getfixturevalue("llava"), request.getfixturevalue("tuples").safe_images[:3]
    return request.getfixturevalue("llava_next"), pictures()


def test_log_prob_is_the_sum_over_a_captions_tokens(either):
    llava, images = either
    with torch.inference_mode():
        found = llava.log_prob(images, CAPTIONS)
        assert found.shape == (3,) and found.dtype == torch.float32 and (found < 0).all()
        torch.testing.assert_close(found.double(), torch.tensor(by_hand(llava, images, CAPTIONS)).double())
        # Neither the batch nor a longer neighbour plays a part.
        for batch_size in (1, 2):
            torch.testing.assert_close(llava.log_prob(images, CAPTIONS, batch_size=batch_size), found)


def test_log_prob_is_that_of_an_answer_to_the_question(either):
    llava, images = either
    llava.processor.chat_template = (
        "{% for part in messages[0]['content'] %}"
        "{% if part['type'] == 'image' %}<s><image>{% else %}{{ part['text'] }}{% endif %}{% endfor %}"
    )
    with torch.inference_mode():
        found = [llava.log_prob(images, CAPTIONS, question=q) for q in ("a blue star", "ring")]
        own = torch.tensor(by_hand(llava, images, CAPTIONS, "ring")).float()
    torch.testing.assert_close(found[1], own)
    assert not torch.allclose(*found)


def test_log_prob_is_what_training_makes_smaller(llava, tuples):
    """The loss of the language model by transformers itself is minus the mean over all tokens."""
    ids, labels = caption_ids(CAPTIONS, llava.processor)
    pixels = llava.preprocess(tuples.safe_images[:3])
    with torch.inference_mode():
        loss = llava.model(
            input_ids=ids, labels=labels, pixel_values=pixels, attention_mask=(ids != 0).long()
        ).loss  # fmt: skip
        total = llava.log_prob(tuples.safe_images[:3], CAPTIONS).sum()
    torch.testing.assert_close(total, -loss * (labels != -100).sum())


def test_gradients_of_log_prob_reach_language_and_tower(llava, tuples):
    llava.log_prob(tuples.safe_images[:3], CAPTIONS, batch_size=2).sum().backward()
    language, vision = (llava.sites(language="fc2"), llava.sites(vision="fc2"))
    for site in (*language, *vision[:-1]):
        assert llava.model.get_parameter(site.parameter).grad.abs().sum() > 0, site.name
    assert llava.model.get_parameter(vision[-1].parameter).grad is None  # behind the layer that is read
    with torch.inference_mode():
        assert not llava.log_prob(tuples.safe_images[:1], CAPTIONS[:1]).requires_grad


@pytest.mark.parametrize(
    ("captions", "message"),
    [
        (CAPTIONS[:2], "3 images and 2 captions"),
        (["a", "b", " "], "Caption 2 has no visible character"),
        (["a", "the <image> of a ring", "b"], "Caption 1 stands for an image"),
        ("a red ring", "non-empty list of strings"),
        (["a", None, "b"], "Text 1 must be a string"),
        (["a", "b", "\ud800"], "Caption 2 has half a surrogate pair"),
        (["a", "b\0", "c"], "Caption 1 has a NUL"),
        (["a", "b", "a red ring " * 5000], "and mini-LLaVA reads [0-9]+: shorten the caption"),
    ],
)
def test_captions_that_have_no_probability(llava, tuples, captions, message):
    with pytest.raises(uwm.UwmError, match=message):
        llava.log_prob(tuples.safe_images[:3], captions)
    with pytest.raises(uwm.UwmError, match="batch_size"):
        llava.log_prob(tuples.safe_images[:3], CAPTIONS, batch_size=0)


@pytest.mark.parametrize("question", [None, 5, "a\0b", " ", "what is <image>?"])
def test_questions_that_are_no_text_alone(llava, tuples, question):
    for ask in (llava.caption, lambda images, **options: llava.log_prob(images, CAPTIONS[:2], **options)):
        with pytest.raises(uwm.UwmError, match="The question .* give it text alone"):
            ask(tuples.safe_images[:2], question=question)


def test_captions_of_nothing_or_of_no_length_are_refused(llava, tuples):
    for images in (None, tuples.safe_images[:0], []):
        with pytest.raises(uwm.UwmError, match="give at least one"):
            llava.caption(images)
    for most in (0, -1, "3", None, 1.5):
        with pytest.raises(uwm.UwmError, match="max_new_tokens"):
            llava.caption(tuples.safe_images[:1], max_new_tokens=most)


# Sites of the language model

LLAMA = {
    "fc1": "mlp.up_proj",
    "fc2": "mlp.down_proj",
    "value": "self_attn.v_proj",
    "out": "self_attn.o_proj",
}


@pytest.mark.parametrize("kind", LLAMA)
def test_inputs_of_the_language_models_layers_are_seen_and_their_weights_count(either, kind):
    llava, images = either
    sites = llava.sites(language=kind)
    layers = llava.model.model.language_model.layers
    assert [site.name for site in sites] == [f"language.{i}.{kind}" for i in range(len(layers))]
    outputs, seen = {}, {}
    modules = {site.name: layers[site.layer].get_submodule(LLAMA[kind]) for site in sites}
    handles = [
        module.register_forward_hook(lambda module, z, out, name=name: outputs.update({name: out}))
        for name, module in modules.items()
    ]
    with torch.inference_mode(), llava.capture(sites, lambda site, z: seen.update({site.name: z})):
        before = llava.log_prob(images, CAPTIONS)
    for handle in handles:
        handle.remove()
    with torch.inference_mode():
        for site in sites:
            assert torch.equal(F.linear(seen[site.name], llava.weight(site)), outputs[site.name])
    with torch.no_grad():
        llava.weight(sites[0]).mul_(-1)
        assert not torch.allclose(llava.log_prob(images, CAPTIONS), before)


def test_an_edit_of_the_language_model_is_saved_applied_and_undone(either, tmp_path):
    """Gates in its weights do what gates on its activations do, and a delta is what is added."""
    llava, images = either
    site, other = llava.sites(language="fc2")[:2]
    factors = torch.linspace(-1, 1, llava.weight(site).shape[1])
    delta = torch.full_like(llava.weight(other), 0.01)
    edit = gate_edit(llava, {site: factors}).merged(delta_edit(llava, "language", {other.parameter: delta}))
    edit.save(tmp_path / "edit.safetensors")
    before = llava.weights_hash()
    with torch.no_grad(), llava.capture([site], lambda _, z: z * factors):
        kept = llava.weight(other).clone()
        llava.weight(other).add_(delta)
        expected = llava.log_prob(images, CAPTIONS)
        llava.weight(other).copy_(kept)
    again = uwm.WeightEdit.load(tmp_path / "edit.safetensors")
    assert again.share().keys() == {"language"}
    assert llava.weights_hash() == before
    with again.applied(llava), torch.inference_mode():
        torch.testing.assert_close(llava.log_prob(images, CAPTIONS), expected)
    assert llava.weights_hash() == before


def test_language_sites_are_given_only_where_they_are_asked_for(llava, base):
    assert {site.encoder for site in llava.sites(vision="fc2")} == {"vision"}
    with pytest.raises(uwm.UwmError, match="CLIP has no language transformer .*no language sites"):
        base.sites(language="fc2")
    with pytest.raises(uwm.UwmError, match="no kind of site 'down_proj': did you mean 'fc2'"):
        llava.sites(language="down_proj")


def test_an_edit_of_the_language_model_is_another_language_model(llava):
    before = {part: llava.identity(part) for part in ("vision", "language", "captions")}
    with torch.no_grad():
        llava.weight(llava.sites(language="fc2")[1]).mul_(-1)
    for part, identity in before.items():
        assert llava.identity(part)["weights"] != identity["weights"]
    assert llava.identity("vision")["behaviour"] == before["vision"]["behaviour"]
    changed = llava.identity("language")
    assert changed["behaviour"] != before["language"]["behaviour"]
    # What the language model answers depends on the tower too.
    with torch.no_grad():
        llava.weight(llava.sites(vision="fc2")[0]).mul_(-1)
    assert llava.identity("language")["weights"] != changed["weights"]


# LLaVA-NeXT

GRID = [[60, 120], [120, 60], [120, 120]]


@pytest.fixture(scope="module")
def next_folder(tmp_path_factory):
    """A small random LLaVA-NeXT in the real format, that reads an image whole and in up to four crops."""
    import_torchvision()
    from transformers import LlavaNextConfig, LlavaNextForConditionalGeneration, LlavaNextProcessor
    from transformers.models.llava_next.image_processing_pil_llava_next import LlavaNextImageProcessorPil

    folder, mini, half = tmp_path_factory.mktemp("next"), mini_processor("mini-LLaVA"), [0.5, 0.5, 0.5]
    old = bare_llava("mini-LLaVA", seed=0).config
    torch.manual_seed(0)
    model = LlavaNextForConditionalGeneration(
        LlavaNextConfig(
            vision_config=old.vision_config, text_config=old.text_config, image_token_index=4,
            image_grid_pinpoints=GRID, pad_token_id=0,
        )
    )  # fmt: skip
    model.generation_config.update(bos_token_id=2, eos_token_id=3, pad_token_id=0)
    model.save_pretrained(folder)
    images = LlavaNextImageProcessorPil(
        size={"shortest_edge": 60}, crop_size={"height": 60, "width": 60}, image_grid_pinpoints=GRID,
        image_mean=half, image_std=half,
    )  # fmt: skip
    LlavaNextProcessor(
        image_processor=images, tokenizer=mini.tokenizer, patch_size=10, num_additional_image_tokens=1,
        vision_feature_select_strategy="default", chat_template=mini.chat_template,
    ).save_pretrained(folder)  # fmt: skip
    return folder


@pytest.fixture
def llava_next(next_folder):
    return uwm.load_model(f"hf:{next_folder}")


def pictures() -> list[Image.Image]:
    """Noise of three shapes, which are cut into one, two and three crops."""
    random = np.random.default_rng(0)
    return [
        Image.fromarray(random.integers(0, 256, (*size, 3), dtype=np.uint8))
        for size in ((60, 60), (75, 162), (188, 50))
    ]


def test_llava_next_captions_as_transformers_does(llava_next):
    """One image at a time, without padding, by transformers' own calls."""
    assert type(llava_next) is LlavaNext
    captions = llava_next.caption(pictures(), max_new_tokens=6)
    assert len(set(captions)) == 3
    for batch_size in (1, 2):
        assert llava_next.caption(pictures(), max_new_tokens=6, batch_size=batch_size) == captions
    processor, prompt = llava_next.processor, llava_next._prompt("Please, provide a caption for the image.")
    for picture, caption in zip(pictures(), captions, strict=True):
        read = processor(text=prompt, images=picture, return_tensors="pt")
        out = llava_next.model.generate(**read, do_sample=False, max_new_tokens=6)
        own = processor.tokenizer.decode(out[0, read["input_ids"].shape[1] :], skip_special_tokens=True)
        assert own.strip() == caption


def test_llava_next_is_scored_on_whole_images(llava_next, tuples):
    """Whole images make the same scores as a LLaVA-1.5 with that tower has."""
    whole = llava_next.preprocess(pictures())
    crops = llava_next.processor.image_processor(images=pictures(), return_tensors="pt").pixel_values
    assert crops.shape[:2] == (3, 3) and torch.equal(whole, crops[:, 0])
    array = np.asarray(pictures()[0])[None].copy()
    assert torch.allclose(llava_next.preprocess(array), whole[:1], atol=1e-6)
    with torch.inference_mode():
        own = llava_next.model.model.vision_tower(pixel_values=whole).pooler_output
        assert torch.equal(llava_next.encode_image(whole), F.normalize(own, dim=-1))
    old = Llava(bare_llava("mini-LLaVA", seed=0), name="old", processor=mini_processor("mini-LLaVA"))
    old.replace_tower(llava_next.tower.state_dict())
    ours, theirs = (
        uwm.score(vlm, tuples, text=None, vision="fc2", progress=False) for vlm in (llava_next, old)
    )
    for site in ours.sites:
        torch.testing.assert_close(ours.score_of(site.name), theirs.score_of(site.name))


def test_captions_of_a_llava_next_with_other_crops_are_not_believed(llava_next, next_folder, tmp_path):
    paths = [tmp_path / f"{position}.png" for position in range(3)]
    for path, picture in zip(paths, pictures(), strict=True):
        picture.save(path)
    images, cache = ImageFiles(paths), uwm.Cache(tmp_path / "cache")
    captions = llava_next.caption(images, cache=cache, max_new_tokens=3)
    again = uwm.load_model(f"hf:{next_folder}").caption(images, cache=cache, max_new_tokens=3)
    assert (cache.hits, cache.misses) == (1, 1) and again == captions
    assert captions == llava_next.caption(pictures(), max_new_tokens=3)
    llava_next.processor.image_processor.image_grid_pinpoints = GRID[:2]
    llava_next.model.config.image_grid_pinpoints = GRID[:2]
    other = llava_next.caption(images, cache=cache, max_new_tokens=3)
    assert cache.misses == 2 and other == llava_next.caption(pictures(), max_new_tokens=3)


def test_only_the_caption_and_its_end_are_learnt():
    processor = mini_processor("mini-LLaVA")
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
    llava = mini_llava("mini-LLaVA", seed=0, visual=base.model.visual)
    before = {name: tensor.clone() for name, tensor in llava.model.state_dict().items()}
    optimise(
        llava.model, caption_loss(llava, world=SECOND, batch_size=4, seed=0), steps=1,
        learning_rate=0.1, weight_decay=0.1,
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
