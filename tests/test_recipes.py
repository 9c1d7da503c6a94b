"""The recipes of CONTRIBUTING.md: their code, as it stands there, does what they say."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest
import torch
from architectures import small_hf_processor, word_tokenizer
from PIL import Image
from tiny_models import bits, naive_score, site_inputs, tiny_clip, tiny_tuples
from torch.nn import functional as F

import uwmlib as uwm
from uwmlib.methods import METHODS
from uwmlib.metrics import catalogue, difference_between
from uwmlib.models import families, transformers_backend
from uwmlib.paper import paper_table, verdict
from uwmlib.reporting import paper_beside_ours
from uwmlib.torchvision_shim import import_torchvision

PAGE = (Path(__file__).parents[1] / "CONTRIBUTING.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"^```python\n# (\S+?\.py)([^\n]*)\n(.*?)^```", PAGE, flags=re.MULTILINE | re.DOTALL)


def module(path: str) -> dict:
    """Run the block that is a file of its own."""
    (code,) = [code for name, rest, code in BLOCKS if name == path and not rest]
    space = {"__name__": "recipe", "__file__": path}
    exec(compile(code, path, "exec"), space)
    return space


def row(path: str, word: str) -> str:
    """Return the row that a recipe adds to the table in `path`."""
    (code,) = [
        code for name, rest, code in BLOCKS if name == path and rest.startswith(", in") and word in code
    ]
    return code


def add_method(monkeypatch, name: str, path: str):
    """Put a method into the table as its recipe says."""
    space = module(path) | {"Method": type(METHODS["uwm"])}
    monkeypatch.setitem(METHODS, name, eval("{" + row("uwmlib/methods.py", f'"{name}"') + "}", space)[name])
    return METHODS[name].edit


def test_a_margin_is_right_by_hand_and_stands_in_a_table_and_a_verdict(monkeypatch):
    space = module("uwmlib/metrics/margins.py") | {"Entry": catalogue.Entry}
    entries = eval("{" + row("uwmlib/metrics/catalogue.py", "margin") + "}", space)
    monkeypatch.setitem(catalogue.CATALOGUE, "margin", entries["margin"])
    query = torch.tensor([[1.0, 0.0], [1.0, 0.0], [0.0, 1.0]])
    safe = torch.tensor([[1.0, 0.0], [0.6, 0.8], [0.0, 1.0]])
    unsafe = torch.tensor([[0.0, 1.0], [0.8, 0.6], [0.6, 0.8]])
    sides = {"before": (unsafe, safe), "after": (safe, unsafe)}
    ours = {name: {"margin": space["margin"](query, *pair)} for name, pair in sides.items()}
    assert ours["after"]["margin"].value == pytest.approx((100 - 20 + 20) / 3)
    table = paper_beside_ours(list(ours), ["margin"], ours, paper_table(1), caption="Margins.", name="tab-m")
    assert table.frame.at["after", "margin"].startswith("33.3")
    assert "as 100 times the cosine. n = 3." in table.caption
    found = difference_between(ours["after"], "margin", ours["before"], "margin")
    assert found.difference == pytest.approx(200 / 3)
    assert verdict(1.0, found) == "cannot tell"


def test_a_family_is_scored_as_the_equations_say_and_edited(monkeypatch):
    import_torchvision()
    from transformers import CLIPSegConfig, CLIPSegModel

    record = eval(row("uwmlib/models/families.py", "clipseg").strip().rstrip(","), vars(families))
    monkeypatch.setattr(families, "FAMILIES", [*families.FAMILIES, record])
    size = {
        "hidden_size": 32,
        "intermediate_size": 64,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
    }
    text = size | {"vocab_size": 300, "max_position_embeddings": 12, "eos_token_id": 299}
    vision = size | {"image_size": 32, "patch_size": 16}
    torch.manual_seed(0)
    vlm = transformers_backend.wrap(
        CLIPSegModel(CLIPSegConfig(text_config=text, vision_config=vision, projection_dim=32)),
        name="clipseg",
        tokenizer=word_tokenizer(12, start=[1], end=[299], pad=299, vocabulary=299),
        image_processor=small_hf_processor("clip"),
    )
    tuples, before = tiny_tuples(5), bits(vlm)
    scores = uwm.score(vlm, tuples, progress=False)
    assert len(scores.sites) == 4
    for site in scores.sites:
        inputs = [site_inputs(vlm, site, tuples, kind) for kind in ("safe", "unsafe")]
        truth = naive_score(*inputs, vlm.weight(site), "released", prior=site.encoder == "text")
        torch.testing.assert_close(scores.score_of(site.name).double(), truth, rtol=1e-3, atol=1e-6)
    with scores.select(tau=0.3).applied(vlm):
        assert bits(vlm) != before
    assert bits(vlm) == before


def test_gates_silence_the_neuron_that_differs_most(monkeypatch):
    edit = add_method(monkeypatch, "neuron-gates", "uwmlib/editing/neuron_gates.py")
    vlm, tuples = tiny_clip(), tiny_tuples(5)
    changes = edit(vlm, tuples, tau=0.001, alpha=0.0).changes
    for site in vlm.sites(vision="fc2"):
        unsafe, safe = (
            torch.stack(site_inputs(vlm, site, tuples, kind)).mean(dim=(0, 1)) for kind in ("unsafe", "safe")
        )
        expected = torch.ones(len(safe))
        expected[(unsafe - safe).argmax()] = 0
        assert torch.equal(changes[site.parameter].factors, expected)


def test_a_shift_moves_every_image_by_the_mean_difference(monkeypatch):
    edit = add_method(monkeypatch, "mean-shift", "uwmlib/editing/mean_shift.py")
    vlm, tuples = tiny_clip(), tiny_tuples(5)
    safe, unsafe = (vlm.preprocess(images) for images in (tuples.safe_images, tuples.unsafe_images))
    with torch.inference_mode():
        shift = (vlm.encode_image(safe) - vlm.encode_image(unsafe)).mean(dim=0)
        expected = F.normalize(vlm.model.encode_image(unsafe) + 3 * shift, dim=-1)
        with edit(vlm, tuples, alpha=3.0).applied(vlm):
            torch.testing.assert_close(vlm.encode_image(unsafe), expected, rtol=1e-4, atol=1e-5)


def test_data_of_ones_own_are_what_was_drawn(tmp_path):
    (code,) = [code for name, _, code in BLOCKS if name == "own/make.py"]
    exec(compile(code, "make.py", "exec"), {"__file__": str(tmp_path / "make.py")})
    drawn, read = uwm.load_tuples("mini-visu", n=40), uwm.load_tuples(tmp_path / "pairs.jsonl")
    assert read.unsafe_texts == drawn.unsafe_texts
    assert np.array_equal(np.asarray(read.safe_images[7].convert("RGB")), drawn.safe_images[7])
    (hazards,) = uwm.load_zero_shot(tmp_path / "sets").values()
    assert hazards.prompts == ["a safe picture.", "a unsafe picture."] and len(hazards.labels) == 80
    assert hazards.images[1].tobytes() == Image.fromarray(drawn.unsafe_images[0]).tobytes()


def test_unlearning_makes_unsafe_captions_improbable_and_leaves_the_base(monkeypatch):
    unlearn = add_method(monkeypatch, "npo", "uwmlib/training/unlearning.py")
    llava, tuples = uwm.load_model("mini-LLaVA"), uwm.load_tuples("mini-visu", split="train", n=8)
    before, unsafe = llava.weights_hash(), (tuples.unsafe_images, tuples.unsafe_texts)
    edit = unlearn(llava, tuples, steps=5)
    assert llava.weights_hash() == before and edit.share().keys() == {"language"}
    with torch.inference_mode():
        probable = llava.log_prob(*unsafe).mean()
        with edit.applied(llava):
            assert llava.log_prob(*unsafe).mean() < probable
