"""The pass over a model against activations kept whole, and edits that plant outliers without changing an answer."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from architectures import ARCHITECTURES, encode
from tiny_models import TINY, bits, indices_of, site_inputs, tiny_clip, tiny_tuples

import uwmlib as uwm
from uwmlib.editing import rescaling_edit
from uwmlib.errors import UwmError
from uwmlib.metrics import ActivationSums, weight_concentration
from uwmlib.models.capture import capture_blocks
from uwmlib.models.sites import find_blocks
from uwmlib.outliers import outlier_records

BOTH = {"text": ["out", "fc2"], "vision": ["fc2", "fc1"]}


def stream_of(vlm, site, one, kind):
    """What the block of a site puts out for one tuple, [T, width], by a hook of our own and without padding."""
    seen = []
    block = find_blocks(vlm.model, site.encoder)[1][site.layer]
    handle = block.register_forward_hook(
        lambda *call: seen.append(call[2][0] if isinstance(call[2], tuple) else call[2])
    )
    with torch.inference_mode():
        if site.encoder == "text":
            tokens = vlm.tokenize(getattr(one, f"{kind}_texts"))
            vlm.encode_text(tokens)
        else:
            vlm.encode_image(vlm.preprocess(getattr(one, f"{kind}_images")))
    handle.remove()
    (x,) = seen
    x = x.reshape(-1, x.shape[-1])  # one sample: [1, T, D] or [T, 1, D]
    return x[vlm.token_mask(tokens)[0]] if site.encoder == "text" else x


def one_by_one(inputs):
    """What the sums say of samples of any length, each added alone."""
    sums = ActivationSums.zeros(inputs[0].shape[-1])
    for x in inputs:
        sums.add(x.unsqueeze(0))
    return sums.concentration()


@pytest.mark.parametrize("family", TINY)
def test_a_pass_in_batches_sees_what_single_samples_show(family):
    vlm, tuples = TINY[family](), tiny_tuples(5)
    found = outlier_records(vlm, tuples, **BOTH, batch_size=2, progress=False)
    for site in (*vlm.sites(text="out"), *vlm.sites(vision="fc2")):
        inputs = [x for kind in ("safe", "unsafe") for x in site_inputs(vlm, site, tuples, kind)]
        stream = [
            stream_of(vlm, site, tuples[i : i + 1], kind) for kind in ("safe", "unsafe") for i in range(5)
        ]
        for place, seen in ((site.name, inputs), (f"{site.encoder}.{site.layer}.stream", stream)):
            expected = one_by_one(seen)
            # Batches round otherwise than single samples; near a threshold a token may change sides.
            assert found.loc[place, list(expected)].to_dict() == pytest.approx(
                expected, rel=2e-3, abs=1e-5
            ), place
        weights = weight_concentration(vlm.weight(site))
        assert {name: found.at[site.name, f"weight_{name}"] for name in weights} == weights


@pytest.mark.parametrize("name", ["small", "custom-blocks", "hf-siglip"])
def test_every_block_and_site_has_its_row(name):
    vlm = ARCHITECTURES[name]()
    found = outlier_records(vlm, tiny_tuples(2), **BOTH, progress=False)
    assert list(found.index) == [
        f"{encoder}.{layer}.{kind}"
        for encoder, kinds in (("text", ["stream", "out", "fc2"]), ("vision", ["stream", "fc2", "fc1"]))
        for kind in kinds
        for layer in (0, 1)
    ]
    assert found["weight_kurtosis"].isna().sum() == 4  # the streams have no weight
    assert np.isfinite(found.drop(columns=["encoder", "kind"]).dropna().to_numpy(float)).all()


def test_one_encoder_may_be_left_out_and_nothing_is_left_behind():
    vlm = tiny_clip()
    before = bits(vlm)
    found = outlier_records(vlm, tiny_tuples(2), text=None, progress=False)
    assert set(found["encoder"]) == {"vision"}
    assert bits(vlm) == before
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in vlm.model.modules())


def test_what_the_stream_gets_is_what_the_block_puts_out():
    vlm, seen = tiny_clip(), {}
    with capture_blocks(vlm.model, "vision", lambda layer, x: seen.setdefault(layer, x.clone())):
        encode(vlm, "vision", n=2)
    assert {layer: list(x.shape) for layer, x in seen.items()} == {0: [2, 5, 32], 1: [2, 5, 32]}
    with torch.inference_mode():
        ahead = find_blocks(vlm.model, "vision")[1][1](seen[0])
    assert torch.allclose(ahead, seen[1], atol=1e-5)


def test_an_attention_outlier_that_is_planted_is_found():
    vlm, tuples = tiny_clip(), tiny_tuples(4)
    site = vlm.sites(text="out")[1]
    before = outlier_records(vlm, tuples, vision=None, progress=False)
    with rescaling_edit(vlm, {site: [3]}, factor=256.0).applied(vlm):
        found = outlier_records(vlm, tuples, vision=None, progress=False)
    assert before.at["text.1.out", "channel_ratio"] < 10 < 50 < found.at["text.1.out", "channel_ratio"]
    assert found.at["text.1.out", "top_channel"] > 0.99
    others = [place for place in before.index if place != "text.1.out"]
    columns = [name for name in before if name not in ("encoder", "kind")]
    assert np.allclose(before.loc[others, columns], found.loc[others, columns], rtol=1e-4, equal_nan=True)


@pytest.mark.parametrize("factor", [64.0, 1 / 64])
@pytest.mark.parametrize("kind", ["out", "fc1"])
@pytest.mark.parametrize("name", ["small", "hf-clip", "hf-siglip"])
def test_rescaling_changes_weights_and_no_answer(name, kind, factor):
    vlm = ARCHITECTURES[name]()
    sites = vlm.sites(text=kind, vision=kind)
    before, at_first = {encoder: encode(vlm, encoder) for encoder in ("text", "vision")}, bits(vlm)
    with rescaling_edit(vlm, {site: [0, 7] for site in sites}, factor=factor).applied(vlm):
        assert bits(vlm) != at_first
        for encoder, expected in before.items():
            assert torch.allclose(encode(vlm, encoder), expected, atol=1e-6)
    assert bits(vlm) == at_first


@pytest.mark.parametrize("family", ["open_clip", "coca"])
def test_the_weights_of_the_channel_alone_shrink(family):
    vlm = TINY[family]()
    site = vlm.sites(vision="out")[0]
    (value,) = [each for each in vlm.sites(vision="value") if each.layer == 0]
    before, rows = vlm.weight(site).detach().clone(), vlm.weight(value).detach().clone()
    with rescaling_edit(vlm, {site: [4]}, factor=8.0).applied(vlm):
        change, grown = vlm.weight(site) / before, vlm.weight(value) / rows
    assert torch.equal(change.unique(), torch.tensor([0.125, 1.0])) and (change[:, 4] == 0.125).all()
    assert torch.equal(grown.unique(), torch.tensor([1.0, 8.0])) and (grown[4] == 8).all()


def test_the_ratio_score_does_not_see_a_channels_scale_and_the_prior_does():
    vlm, tuples = tiny_clip(), tiny_tuples(12)
    sites = vlm.sites(text="out")
    options = {"text": "out", "vision": None, "progress": False}
    base = uwm.score(vlm, tuples, **options)
    expected = {prior: indices_of(base.select(tau=0.1, prior=prior)) for prior in ("text", ())}
    ratio = {site.name: base.score_of(site.name, prior=()) for site in sites}
    with rescaling_edit(vlm, {site: [2] for site in sites}, factor=1 / 64).applied(vlm):
        scores = uwm.score(vlm, tuples, **options)
        for site in sites:
            assert torch.allclose(scores.score_of(site.name, prior=()), ratio[site.name], rtol=1e-4)
        alone, prior = (indices_of(scores.select(tau=0.1, prior=each)) for each in ((), "text"))
    for site in sites:
        assert torch.equal(alone[site.parameter], expected[()][site.parameter])
        # 64 times as large, the channel's weights hold the tenth of the score that is edited.
        assert (prior[site.parameter] % 32 == 2).all()
        assert not (expected["text"][site.parameter] % 32 == 2).all()


@pytest.mark.parametrize(
    ("kind", "chosen", "factor", "words"),
    [
        ("fc2", [0], 2.0, "cannot be rescaled"),
        ("value", [0], 2.0, "cannot be rescaled"),
        ("out", [32], 2.0, "has 32 inputs"),
        ("out", [1, 1], 2.0, "has 32 inputs"),
        ("out", [], 2.0, "has 32 inputs"),
        ("out", [-1], 2.0, "Channel of"),
        ("out", [0], 0.0, "factor is 0.0"),
        ("out", [0], float("nan"), "factor"),
    ],
)
def test_what_cannot_be_rescaled_is_refused(kind, chosen, factor, words):
    vlm = tiny_clip()
    with pytest.raises(UwmError, match=words):
        rescaling_edit(vlm, {vlm.sites(text=kind)[0]: chosen}, factor=factor)


def test_a_norm_inside_the_attention_is_refused():
    vlm = ARCHITECTURES["custom-blocks"]()
    with pytest.raises(UwmError, match="plain blocks"):
        rescaling_edit(vlm, {vlm.sites(vision="out")[0]: [0]}, factor=2.0)


def test_nothing_to_rescale_is_refused():
    with pytest.raises(UwmError, match="nothing to rescale"):
        rescaling_edit(tiny_clip(), {}, factor=2.0)
