"""The table of methods: each shipped row can do what it says, and a row is all that a further method takes."""

from __future__ import annotations

import json

import pytest
import torch
from tiny_models import bits, tiny_clip, tiny_tuples
from typer.testing import CliRunner

import uwmlib
from uwmlib.cache import Cache
from uwmlib.cli import app
from uwmlib.editing import WeightEdit, gate_edit
from uwmlib.errors import UwmError
from uwmlib.methods import FAMILIES, METHODS, Method

VALUES = {"text": "fc1", "vision": "out", "tau": 0.3, "alpha": 0.5, "prior": False, "seed": 1}


@pytest.mark.parametrize("name", METHODS)
def test_every_option_and_variant_of_a_method_makes_another_edit(name):
    method, vlm, tuples = METHODS[name], tiny_clip(), tiny_tuples(4)
    before = bits(vlm)

    def edited(**options):
        edit = method.edit(vlm, tuples, **options)
        with edit.applied(vlm):
            return bits(vlm)

    plain = edited()
    assert plain != before == bits(vlm)
    values = VALUES | {"rule": "positive" if name.startswith("g-") else "fixed"}
    for option in method.options:
        assert edited(**{option: values[option]}) != plain, option
    by_variant = [edited(variant=variant) for variant in method.variants]
    assert by_variant[:1] == [plain][: len(method.variants)]
    assert method.edit(vlm, tuples).description["method"] == name


@pytest.mark.parametrize("name", FAMILIES)
def test_a_family_is_a_curve_from_next_to_nothing(name, tmp_path):
    family, vlm, tuples = FAMILIES[name], tiny_clip(), tiny_tuples(12)
    assert list(family.strengths) == sorted(family.strengths) and family.strengths[0] > 0
    before = bits(vlm)
    weights = torch.cat([parameter.detach().flatten() for parameter in vlm.model.parameters()])
    edit_at = family.fit(vlm, tuples, cache=Cache(tmp_path), progress=False)
    assert bits(vlm) == before

    def moved(strength):
        """How far the edit moves the weights, and whether they come back."""
        with edit_at(strength).applied(vlm):
            now = torch.cat([parameter.detach().flatten() for parameter in vlm.model.parameters()])
        assert bits(vlm) == before
        return float((now - weights).norm())

    distances = [moved(strength) for strength in (1e-4, *family.strengths)]
    assert distances[-1] > 0 and distances == sorted(distances)
    assert distances[0] < 0.05 * float(weights.norm())


def test_every_method_is_a_family():
    assert METHODS.keys() - FAMILIES.keys() == set()


@pytest.fixture
def made_up(monkeypatch):
    """A method that silences the first neurons, and notes what it is asked for."""
    asked = []

    def edit(vlm, tuples, *, vision="fc2", tau=0.5):
        asked.append({"vision": vision, "tau": tau, "n": len(tuples)})
        gates = {}
        for site in vlm.sites(vision=vision):
            gates[site] = torch.ones(vlm.weight(site).shape[1])
            gates[site][: int(tau * len(gates[site]))] = 0
        return gate_edit(vlm, gates, description={"method": "made-up"})

    monkeypatch.setitem(METHODS, "made-up", Method("neurons, silenced", edit, ("vision", "tau")))
    return asked


def test_a_new_method_is_one_row(made_up, tmp_path, monkeypatch):
    """With it, and nothing else, `uwm ls methods` and `uwm edit` know the method."""
    monkeypatch.chdir(tmp_path)
    listed = json.loads(CliRunner().invoke(app, ["ls", "methods", "--json"]).stdout)
    assert listed[-1] == {
        "method": "made-up", "what": "neurons, silenced", "options": "vision, tau", "variants": "",
    }  # fmt: skip
    command = ["edit", "mini-ViT-L-14", "--method", "made-up", "--n", "3"]
    done = CliRunner().invoke(app, [*command, "--tau", "0.25"], catch_exceptions=False)
    assert done.stdout.splitlines()[-1] == "Result: edit.safetensors"
    assert made_up == [{"vision": "fc2", "tau": 0.25, "n": 3}]  # its own default, and what was given
    edit, vlm = WeightEdit.load("edit.safetensors"), uwmlib.load_model("mini-ViT-L-14")
    with edit.applied(vlm):
        for site in vlm.sites(vision="fc2"):
            silent = (vlm.weight(site) == 0).all(dim=0)
            assert silent.nonzero().flatten().tolist() == list(range(len(silent) // 4))


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--alpha", "0"], "made-up has no alpha: leave that option out; it has vision, tau."),
        (["--variant", "paper"], "made-up has no variant"),
        (["--text", "none"], "made-up has no text"),
        (["--tau", "1"], "tau is 1.0"),
        (["--vision", "fc3"], "no kind of vision layers 'fc3'"),
    ],
)
def test_what_a_method_does_not_take_is_refused_before_any_work(made_up, arguments, words):
    with pytest.raises(UwmError, match=words):
        CliRunner().invoke(
            app, ["edit", "nowhere", "--method", "made-up", *arguments], catch_exceptions=False
        )
    assert made_up == []
