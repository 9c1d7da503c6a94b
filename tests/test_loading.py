"""Every way in: names of open_clip and of transformers, each in the real format and equal to the model by hand."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from architectures import SMALL_TEXT, SMALL_VISION, TEXTS, images_for
from safetensors.torch import load_file, save_file
from tiny_models import tiny_tuples
from torch.nn import functional as F

import uwmlib as uwm
from uwmlib.errors import UwmError
from uwmlib.models import Vlm, load_model
from uwmlib.models.families import family_of
from uwmlib.torchvision_shim import import_torchvision

TEXT = SMALL_TEXT | {"vocab_size": 49408}
PIXELS = {
    "mean": [0.4, 0.5, 0.6],
    "std": [0.3, 0.2, 0.1],
    "interpolation": "bilinear",
    "resize_mode": "squash",
}


def open_clip_folder(folder: Path, vision: dict[str, Any], **config: Any) -> Path:
    """What open_clip saves of a model: its configuration and its weights, here random ones."""
    import_torchvision()
    import open_clip

    folder.mkdir(parents=True, exist_ok=True)
    model_cfg = {"embed_dim": 40, "vision_cfg": vision, "text_cfg": TEXT} | config
    saved = {"model_cfg": model_cfg, "preprocess_cfg": PIXELS | {"size": vision["image_size"]}}
    (folder / "open_clip_config.json").write_text(json.dumps(saved))
    torch.manual_seed(3)
    model = open_clip.create_model(f"local-dir:{folder}", load_weights=False, pretrained_text=False)
    save_file(model.state_dict(), folder / "open_clip_model.safetensors")
    return folder


def assert_own(vlm: Vlm, image: torch.Tensor, text: torch.Tensor) -> None:
    """Compare embeddings with features [B, D] that the bare model gave, bit for bit."""
    with torch.inference_mode():
        assert torch.equal(vlm.encode_image(vlm.preprocess(images_for(vlm))), F.normalize(image, dim=-1))
        assert torch.equal(vlm.encode_text(vlm.tokenize(TEXTS)), F.normalize(text, dim=-1))


def assert_open_clips_own(vlm: Vlm, folder: Path) -> None:
    import open_clip
    from PIL import Image

    model, _, transform = open_clip.create_model_and_transforms(f"local-dir:{folder}")
    model.eval()
    with torch.inference_mode():
        pixels = torch.stack([transform(Image.fromarray(image)) for image in images_for(vlm)])
        assert torch.allclose(vlm.preprocess(images_for(vlm)), pixels, atol=1e-6)
        tokens = open_clip.get_tokenizer(f"local-dir:{folder}")(TEXTS)
        assert_own(vlm, model.encode_image(vlm.preprocess(images_for(vlm))), model.encode_text(tokens))


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    return open_clip_folder(tmp_path_factory.mktemp("saved") / "clip", SMALL_VISION)


# open_clip's own names


@pytest.mark.parametrize("prefix", ["", "open_clip:"])
def test_a_folder_that_open_clip_saved(folder, prefix):
    vlm = load_model(f"{prefix}local-dir:{folder}")
    assert vlm.name == f"{prefix}local-dir:{folder}" and vlm.backend == "open_clip"
    assert_open_clips_own(vlm, folder)


@pytest.fixture
def hub(tmp_path, monkeypatch):
    """The part of the hub that is kept on this machine, empty; nothing else is reached."""
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)

    def keep(repository: str, folder: Path, *, without: str = "") -> Path:
        place = tmp_path / "hub" / f"models--{repository.replace('/', '--')}"
        snapshot = place / "snapshots" / ("0" * 40)
        snapshot.mkdir(parents=True)
        (place / "refs").mkdir()
        (place / "refs" / "main").write_text("0" * 40)
        for file in folder.iterdir():
            if file.name != without:
                (snapshot / file.name).write_bytes(file.read_bytes())
        return snapshot

    return keep


@pytest.mark.parametrize("prefix", ["", "open_clip:"])
def test_a_repository_of_the_hub(folder, hub, prefix):
    hub("someone/clip", folder)
    vlm = load_model(f"{prefix}hf-hub:someone/clip")
    assert vlm.weights_hash() == load_model(f"local-dir:{folder}").weights_hash()
    assert_open_clips_own(vlm, folder)


def test_of_the_hub_no_pickle_is_read(folder, hub, tmp_path):
    snapshot = hub("someone/clip", folder, without="open_clip_model.safetensors")
    tensors = load_file(folder / "open_clip_model.safetensors")
    torch.save(tensors, snapshot / "open_clip_pytorch_model.bin")
    with pytest.raises(UwmError, match="hf-hub:someone/clip could not be loaded"):
        load_model("hf-hub:someone/clip")
    changed = {key: tensor + 1 for key, tensor in tensors.items()}
    save_file(changed, tmp_path / "own.safetensors")
    vlm = load_model("hf-hub:someone/clip", weights=tmp_path / "own.safetensors")
    assert torch.equal(vlm.model.visual.proj, changed["visual.proj"])
    load_model("hf-hub:someone/clip", weights="random")


@pytest.mark.parametrize("place", ["local-dir", "hf-hub"])
@pytest.mark.parametrize("part", ["tokenizer", "encoder"])
def test_code_that_a_configuration_of_open_clip_asks_for_is_never_run(
    folder, hub, tmp_path, monkeypatch, part, place
):
    evil, mark = tmp_path / "evil", tmp_path / "was run"
    evil.mkdir()
    config = json.loads((folder / "open_clip_config.json").read_text())
    config["model_cfg"]["text_cfg"] |= {
        "tokenizer": {"hf_tokenizer_name": str(evil), "tokenizer_kwargs": {"trust_remote_code": True}},
        "encoder": {"hf_model_name": str(evil), "hf_proj_type": "mlp"},
    }[part]
    (evil / "open_clip_config.json").write_text(json.dumps(config))
    code = {"AutoTokenizer": ["code.Made", None], "AutoConfig": "code.Made"}
    (evil / "tokenizer_config.json").write_text(json.dumps({"auto_map": code, "tokenizer_class": "Made"}))
    (evil / "config.json").write_text(json.dumps({"model_type": "unheard-of", "auto_map": code}))
    (evil / "code.py").write_text(f"open({str(mark)!r}, 'w')\nclass Made: pass\n")
    monkeypatch.setattr("builtins.input", lambda *_: "y")  # nor is anyone asked
    if place == "hf-hub":
        hub("someone/evil", evil)
    with pytest.raises(UwmError, match="code of its own, which is never run"):
        load_model(f"local-dir:{evil}" if place == "local-dir" else "hf-hub:someone/evil", weights="random")
    assert not mark.exists()


@pytest.mark.parametrize("config", ["", "[]", "{}", '{"model_cfg": 3}', '{"model_cfg": {"text_cfg": []}}'])
def test_a_configuration_that_describes_no_model(tmp_path, config):
    (tmp_path / "open_clip_config.json").write_text(config)
    with pytest.raises(UwmError, match="open_clip_config.json describes no model"):
        load_model(f"local-dir:{tmp_path}", weights="random")


@pytest.mark.parametrize(
    "name", ["hf-hub:", "hf-hub:a b", "hf-hub:nobody/nothing", "local-dir:", "local-dir:/no"]
)
def test_places_that_hold_nothing_are_one_sentence(hub, name):
    with pytest.raises(UwmError, match="could not be loaded|no open_clip_config.json") as error:
        load_model(name)
    assert "\n" not in str(error.value)


@pytest.fixture
def tagged(folder, tmp_path, monkeypatch) -> str:
    """Give a small architecture a pretrained tag, whose file is the saved folder's; return its name."""
    import_torchvision()
    import open_clip

    config = {"embed_dim": 40, "vision_cfg": SMALL_VISION, "text_cfg": TEXT}
    (tmp_path / "uwm-door.json").write_text(json.dumps(config))
    open_clip.add_model_config(tmp_path)
    tag = {"url": "https://nowhere.invalid/door.safetensors", "quick_gelu": False} | PIXELS
    monkeypatch.setitem(open_clip.pretrained._PRETRAINED, "uwm-door", {"ours": tag})
    file = str(folder / "open_clip_model.safetensors")
    monkeypatch.setattr("open_clip.factory.download_pretrained", lambda *args, **options: file)
    monkeypatch.setattr("uwmlib.models.pretrained.httpx.head", lambda *args, **options: None)
    return "uwm-door"


@pytest.mark.parametrize("name", ["{}/ours", "open_clip:{}/ours"])
def test_architecture_and_tag_in_one_name(folder, tagged, name):
    vlm = load_model(name.format(tagged))
    assert vlm.name == name.format(tagged)
    assert_open_clips_own(vlm, folder)
    twin = load_model(f"open_clip:{tagged}", weights="ours")
    assert vlm.weights_hash() == twin.weights_hash() and vlm.pixels.mean == twin.pixels.mean == (
        0.4,
        0.5,
        0.6,
    )


def test_a_tag_that_is_none_or_is_said_twice(tagged):
    with pytest.raises(UwmError, match="no pretrained tag of uwm-door 'our': did you mean 'ours'"):
        load_model(f"{tagged}/our")
    with pytest.raises(UwmError, match="uwm-door/ours says its weights already"):
        load_model(f"{tagged}/ours", weights="random")
    with pytest.raises(UwmError, match="no model 'openai/clip': names start with"):
        load_model("openai/clip")


# Towers that are no plain transformers


OTHER_TOWERS = {
    "RN50": ({"image_size": 64, "layers": [1, 1, 1, 1], "width": 8, "head_width": 32}, "it has a ModifiedResNet"),
    "ConvNeXt": ({"timm_model_name": "convnext_atto", "timm_pool": "", "timm_proj": "linear"}, "it has a ConvNeXt"),
    "MobileCLIP": ({"timm_model_name": "fastvit_t8", "timm_pool": "avg", "timm_proj": None}, "it has a FastVit"),
    "EVA-02": (
        {"timm_model_name": "uwm_eva02", "timm_pool": "token", "timm_proj": None},
        r"a EvaBlock, is no plain one \(it has no mlp.fc1.weight\)",
    ),
}  # fmt: skip


@pytest.fixture(scope="module")
def small_eva_02() -> None:
    """Tell timm of the tower of EVA02-B-16 with two narrow blocks."""
    import_torchvision()
    import timm

    @timm.models.register_model
    def uwm_eva02(pretrained: bool = False, **options: Any) -> torch.nn.Module:
        size = {"embed_dim": 48, "depth": 2, "num_heads": 3}
        return timm.create_model("eva02_base_patch16_clip_224", pretrained=pretrained, **size, **options)


@pytest.mark.usefixtures("small_eva_02")
@pytest.mark.parametrize("name", OTHER_TOWERS)
def test_towers_that_are_no_plain_transformers_are_measured_and_not_scored(name, tmp_path):
    vision, reason = OTHER_TOWERS[name]
    saved = open_clip_folder(
        tmp_path / name, {"image_size": 224} | vision, custom_text="timm_model_name" in vision
    )
    vlm = load_model(f"local-dir:{saved}")
    assert_open_clips_own(vlm, saved)
    tuples = tiny_tuples(3)
    assert uwm.evaluate(vlm, tuples).as_percent()
    assert uwm.score(vlm, tuples, text="out", vision=None, progress=False).n == 3
    with pytest.raises(
        UwmError, match=f"{reason}.*no( vision)? sites to score or edit; what .* still be measured"
    ):
        uwm.score(vlm, tuples, text=None, vision="fc2", progress=False)


# transformers


def save_tokenizer(family: str, folder: Path) -> None:
    """The tokenizer that the family's checkpoints name, with a vocabulary of a few words or letters."""
    from transformers import GemmaTokenizer, XLMRobertaTokenizer

    words = sorted({word for text in TEXTS for word in text.split()})
    if family == "metaclip_2":
        special = ["<s>", "<pad>", "</s>", "<unk>"]
        vocabulary = [(piece, 0.0) for piece in special] + [(f"▁{word}", -1.0) for word in words]
        tokenizer = XLMRobertaTokenizer(vocab=[*vocabulary, ("<mask>", 0.0)])
    else:
        pieces = ["<pad>", "<eos>", "<bos>", "<unk>", *sorted({*"".join(words), "▁"})]
        tokenizer = GemmaTokenizer(
            vocab={piece: number for number, piece in enumerate(pieces)}, merges=[],
            padding_side="right", add_bos_token=False, add_eos_token=True, do_lower_case=True,
        )  # fmt: skip
    tokenizer.save_pretrained(folder)


def small_config(family: str):
    """MetaCLIP 2, or a SigLIP 2 of a fixed size, which is a SigLIP in transformers."""
    from transformers import MetaClip2Config, SiglipConfig

    size = {"hidden_size": 64, "intermediate_size": 96, "num_hidden_layers": 2, "num_attention_heads": 2}
    vision = size | {"image_size": 32, "patch_size": 8}
    text = size | {"max_position_embeddings": 40, "vocab_size": 60}
    if family == "metaclip_2":
        text |= {"bos_token_id": 0, "pad_token_id": 1, "eos_token_id": 2}
        return MetaClip2Config(text_config=text, vision_config=vision, projection_dim=40)
    return SiglipConfig(text_config=text | {"projection_size": 64}, vision_config=vision)


@pytest.fixture(scope="module", params=["metaclip_2", "siglip2"])
def checkpoint(request, tmp_path_factory):
    """A folder as the family's checkpoints are saved, and the model in it."""
    import_torchvision()
    import transformers
    from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil
    from transformers.models.siglip.image_processing_pil_siglip import SiglipImageProcessorPil

    family, folder = request.param, tmp_path_factory.mktemp(request.param)
    config = small_config(family)
    torch.manual_seed(0)
    if family == "metaclip_2":
        model = transformers.MetaClip2Model(config)
        images = CLIPImageProcessorPil(size={"shortest_edge": 32}, crop_size={"height": 32, "width": 32})
    else:
        model = transformers.SiglipModel(config)
        images = SiglipImageProcessorPil(size={"height": 32, "width": 32})
    for part in (model, images):
        part.save_pretrained(folder)
    save_tokenizer(family, folder)
    return family, folder, model.eval()


def test_checkpoints_of_transformers_embed_as_the_model_by_hand(checkpoint):
    family, folder, model = checkpoint
    vlm = load_model(f"hf:{folder}")
    assert type(vlm.model) is type(model) and family_of(vlm.model).name in (family, "siglip")
    tokens, pixels = vlm.tokenize(TEXTS), vlm.preprocess(images_for(vlm))
    with torch.inference_mode():
        output = model(input_ids=tokens, pixel_values=pixels)
        image, text = model.get_image_features(pixels), model.get_text_features(tokens)
    assert_own(vlm, image.pooler_output, text.pooler_output)
    torch.testing.assert_close(vlm.encode_text(tokens), output.text_embeds)
    torch.testing.assert_close(vlm.encode_image(pixels), output.image_embeds)


def test_checkpoints_of_transformers_are_scored(checkpoint):
    _, folder, _ = checkpoint
    vlm, tuples = load_model(f"hf:{folder}"), tiny_tuples(3)
    scores = uwm.score(vlm, tuples, text="out", vision=["fc2", "value"], progress=False)
    assert len(scores.sites) == 6
    with scores.select(tau=0.2).applied(vlm):
        pass


def test_text_of_the_new_tokenizers(checkpoint):
    """MetaCLIP 2 ends with token 2, which for an old CLIP means the largest; SigLIP 2 reads small letters."""
    family, folder, _ = checkpoint
    vlm = load_model(f"hf:{folder}")
    tokens = vlm.tokenize(["a photo", "Two Dogs"])
    counts = vlm.token_mask(tokens).sum(dim=1).tolist()
    if family == "metaclip_2":
        assert tokens[0, :6].tolist() == [0, 4, 11, 2, 1, 1]
        assert counts == [4, 4]
    else:
        assert torch.equal(tokens[1], vlm.tokenize(["two dogs"])[0]) and tokens[1, 8:10].tolist() == [1, 0]
        assert counts == [8, 9]  # the letters, the space between the words, and the end


def test_a_siglip_2_without_a_fixed_size_is_refused(tmp_path):
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "siglip2"}))
    with pytest.raises(UwmError, match=r"SigLIP 2 with NaFlex.*hf:google/siglip2-base-patch16-224\."):
        load_model(f"hf:{tmp_path}")
