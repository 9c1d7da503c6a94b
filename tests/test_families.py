"""Families as records: each model is of one, and one record is all that a new one takes."""

from __future__ import annotations

import copy
from functools import partial

import numpy as np
import pytest
import torch
from architectures import ARCHITECTURES
from tiny_models import naive_score, site_inputs, tiny_tuples
from torch import nn
from torch.nn import functional as F

import uwmlib as uwm
from uwmlib.errors import UwmError
from uwmlib.models import families
from uwmlib.models.families import FAMILIES, Family, Layout, family_of, register
from uwmlib.models.mini_llava import bare_llava
from uwmlib.models.pixels import Pixels
from uwmlib.models.vlm import Vlm

EXPECTED = {
    "ViT-B-32": ("open_clip", "clip"),
    "ViT-L-14": ("open_clip", "clip"),
    "coca_ViT-B-32": ("open_clip", "coca"),
    "coca_ViT-L-14": ("open_clip", "coca"),
    "ViT-B-16-SigLIP": ("open_clip", "siglip"),
    "small": ("open_clip", "clip"),
    "custom-blocks": ("open_clip", "clip"),
    "hf-clip": ("transformers", "clip"),
    "hf-siglip": ("transformers", "siglip"),
}


class Block(nn.Module):
    """A block whose parameters are called as nowhere else."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.read, self.write = nn.Linear(width, width), nn.Linear(width, width)
        self.wide, self.narrow = nn.Linear(width, 3 * width), nn.Linear(3 * width, width)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        mixed = (x @ x.mT / x.shape[-1]).softmax(-1) @ self.read(x)
        x = x + self.write(mixed)
        return x + self.narrow(F.gelu(self.wide(x)))


class Tower(nn.Module):
    def __init__(self, enter: nn.Module, width: int) -> None:
        super().__init__()
        self.enter = enter
        self.steps = nn.ModuleList(Block(width) for _ in range(2))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.enter(x)
        for step in self.steps:
            x = step(x)
        return x.mean(dim=1)


class Toy(nn.Module):
    """Two towers of a make that no library has."""

    def __init__(self) -> None:
        super().__init__()
        self.ears = Tower(nn.Embedding(51, 24), 24)
        self.eyes = Tower(nn.Sequential(nn.Conv2d(3, 24, 8, stride=8), nn.Flatten(2), Turned()), 24)


class Turned(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x.mT  # [B, D, T] -> [B, T, D]


LAYOUT = Layout(fc1="wide.weight", fc2="narrow.weight", value="read.weight", out="write.weight")
TOY = Family(
    name="toy",
    library="ours",
    recognises=lambda model: isinstance(model, Toy),
    blocks={"text": {"ears.steps": LAYOUT}, "vision": {"eyes.steps": LAYOUT}},
    mask_rule=lambda model, tokenizer: partial(torch.ne, other=0),
)


def words(texts: list[str]) -> torch.Tensor:
    rows = [[1 + sum(map(ord, word)) % 49 for word in text.split()][:7] + [50] for text in texts]
    return torch.tensor([row + [0] * (8 - len(row)) for row in rows])


@pytest.fixture
def toy():
    register(TOY)
    torch.manual_seed(0)
    model = Toy()
    half = (0.5, 0.5, 0.5)
    yield Vlm(
        model,
        name="toy",
        backend="ours",
        tokenizer=words,
        mask_rule=family_of(model).mask_rule(model, words),
        pixels=Pixels((32, 32), half, half, lambda image: torch.zeros(3, 32, 32)),
        image_features=model.eyes,
        text_features=model.ears,
    )
    FAMILIES.remove(TOY)


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_every_model_is_of_one_family(name):
    model = ARCHITECTURES[name]().model
    recognised = [(each.library, each.name) for each in FAMILIES if each.recognises(model)]
    assert recognised == [EXPECTED[name]]
    assert family_of(model) is next(each for each in FAMILIES if each.recognises(model))


def test_a_new_family_is_one_record(toy):
    """Registered and nothing else, a model is scored, edited and put back."""
    tuples = tiny_tuples(5)
    scores = uwm.score(toy, tuples, text="out", vision=["fc1", "fc2"], batch_size=2, progress=False)
    assert [site.name for site in scores.sites] == [
        "text.0.out", "text.1.out", "vision.0.fc1", "vision.0.fc2", "vision.1.fc1", "vision.1.fc2",
    ]  # fmt: skip
    for site in scores.sites:
        inputs = [site_inputs(toy, site, tuples, kind) for kind in ("safe", "unsafe")]
        naive = naive_score(*inputs, toy.weight(site), "released", prior=site.encoder == "text")
        torch.testing.assert_close(scores.score_of(site.name).double(), naive, rtol=1e-3, atol=1e-6)
    before, embedded = toy.weights_hash(), uwm.evaluate(toy, tuples)
    with scores.select(tau=0.3, alpha=-1).applied(toy):
        assert toy.weights_hash() != before
        assert uwm.evaluate(toy, tuples).as_percent() != embedded.as_percent()
    assert toy.weights_hash() == before


def test_captured_inputs_of_a_new_family_are_those_of_its_layers(toy):
    pixels = toy.preprocess(np.random.default_rng(0).integers(0, 256, (2, 32, 32, 3), dtype=np.uint8))
    seen = {}
    with torch.inference_mode():
        with toy.capture(toy.sites(vision=["fc1", "fc2"]), lambda site, z: seen.update({site.name: z})):
            toy.encode_image(pixels)
        x = toy.model.eyes.enter(pixels)
        for layer, block in enumerate(toy.model.eyes.steps):
            mixed = (x @ x.mT / 24).softmax(-1) @ block.read(x)
            x = x + block.write(mixed)
            torch.testing.assert_close(seen[f"vision.{layer}.fc1"], x)
            hidden = F.gelu(block.wide(x))
            torch.testing.assert_close(seen[f"vision.{layer}.fc2"], hidden)
            x = x + block.narrow(hidden)


def test_a_family_is_asked_before_the_shipped_ones_and_named_once(toy):
    with pytest.raises(UwmError, match="a family 'toy' of ours already"):
        register(TOY)
    assert FAMILIES[0] is TOY


def test_an_unknown_model_is_told_what_is_known():
    with pytest.raises(UwmError, match="Toy is of no known family.*families.register"):
        family_of(Toy())
    llava = bare_llava("mini-LLaVA", seed=0)
    assert family_of(llava).name == "llava"
    other = copy.copy(llava)
    other.config = copy.copy(llava.config)
    other.config.model_type = "parrot"
    with pytest.raises(UwmError, match="of type 'parrot' is of no known family"):
        family_of(other)


def test_families_are_found_by_the_type_of_their_configuration():
    assert families.family_named("metaclip_2", name="hf:x").model_class == "MetaClip2Model"
    with pytest.raises(UwmError, match="hf:x is a SigLIP 2 with NaFlex.*google/siglip2-base-patch16-224"):
        families.family_named("siglip2", name="hf:x")
    with pytest.raises(UwmError, match="hf:x is of type 'bert': take a model of type clip, siglip, "):
        families.family_named("bert", name="hf:x")


@pytest.mark.parametrize(
    "family", [None, "clip", Family, Family(5, "mine", bool, {}), Family("x", "mine", None, {})]
)
def test_what_is_no_family_is_refused(family):
    held = list(FAMILIES)
    with pytest.raises(UwmError, match="no family of models"):
        register(family)
    assert held == FAMILIES


def test_a_family_without_its_class_in_transformers_is_refused(monkeypatch, tmp_path):
    monkeypatch.setattr(families, "FAMILIES", list(FAMILIES))
    register(Family("bert", "transformers", lambda model: False, {}, model_class="NoSuch"))
    (tmp_path / "config.json").write_text('{"model_type": "bert"}')
    with pytest.raises(UwmError, match="no class 'NoSuch': name that of the family bert"):
        uwm.load_model(f"hf:{tmp_path}", weights="random")
