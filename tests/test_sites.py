"""Sites and capture: the captured input is the one the layer really multiplied, on every architecture."""

from __future__ import annotations

import copy
from dataclasses import replace

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from architectures import ARCHITECTURES, TEXTS, encode, images_for, small_hf_model, small_open_clip
from torch import nn

from uwmlib.errors import UwmError
from uwmlib.models import Site, Vlm, transformers_backend
from uwmlib.models.sites import KINDS, as_kinds
from uwmlib.options import ENCODERS

# Blocks, width and MLP width of each encoder, from the published configurations (blocks as cut in architectures.py).
SIZES = {
    "ViT-B-32": {"text": (12, 512, 2048), "vision": (12, 768, 3072)},
    "ViT-L-14": {"text": (3, 768, 3072), "vision": (3, 1024, 4096)},
    "coca_ViT-B-32": {"text": (3, 512, 2048), "vision": (3, 768, 3072)},
    "coca_ViT-L-14": {"text": (2, 768, 3072), "vision": (2, 1024, 4096)},
    "ViT-B-16-SigLIP": {"text": (2, 768, 3072), "vision": (2, 768, 3072)},
    "small": {"text": (2, 48, 192), "vision": (2, 64, 256)},
    "custom-blocks": {"text": (2, 48, 192), "vision": (2, 64, 256)},
    "hf-clip": {"text": (2, 48, 192), "vision": (2, 64, 256)},
    "hf-siglip": {"text": (2, 64, 192), "vision": (2, 64, 256)},
}
# Tokens per sequence: context (one more in CoCa), and patches plus the class token (which SigLIP has not).
LENGTHS = {
    "ViT-B-32": (77, 50),
    "ViT-L-14": (77, 17),
    "coca_ViT-B-32": (77, 10),
    "coca_ViT-L-14": (77, 17),
    "ViT-B-16-SigLIP": (64, 196),
    "small": (12, 17),
    "custom-blocks": (12, 17),
    "hf-clip": (12, 17),
    "hf-siglip": (12, 16),
}


@pytest.fixture(params=ARCHITECTURES)
def architecture(request) -> str:
    return request.param


@pytest.fixture
def vlm(architecture) -> Vlm:
    return ARCHITECTURES[architecture]()


def captured(
    vlm: Vlm, sites: list[Site], encoder: str, n: int = 2
) -> tuple[dict[str, torch.Tensor], torch.Tensor]:
    """The inputs of `sites` by name, and the embeddings computed under capture."""
    inputs: dict[str, torch.Tensor] = {}

    def keep(site: Site, z: torch.Tensor) -> None:
        assert site.name not in inputs
        inputs[site.name] = z.clone()

    with vlm.capture(sites, keep):
        embeddings = encode(vlm, encoder, n)
    return inputs, embeddings


def produced(vlm: Vlm, sites: list[Site], encoder: str) -> dict[str, torch.Tensor]:
    """What every product gave in an untouched run, from outputs that plain forward hooks can see."""
    outputs: dict[str, torch.Tensor] = {}
    handles = []
    for site in sites:
        path = site.parameter.rpartition(".")[0]
        parent = vlm.model.get_submodule(path.rpartition(".")[0])
        if site.parameter.endswith("in_proj_weight"):
            handles.append(_see_value(vlm, site, path, outputs))
            continue
        # The output projection of nn.MultiheadAttention is the last step of the module: its output is the product's.
        module = parent if isinstance(parent, nn.MultiheadAttention) else vlm.model.get_submodule(path)

        def see(module, inputs, output, site=site):
            output = output[0] if isinstance(output, tuple) else output
            outputs[site.name] = output if site.rows is None else output[..., slice(*site.rows)]

        handles.append(module.register_forward_hook(see))
    encode(vlm, encoder)
    for handle in handles:
        handle.remove()
    return outputs


def _see_value(vlm: Vlm, site: Site, path: str, outputs: dict[str, torch.Tensor]):
    """Values of a stacked projection: the block's first norm feeds it, and the values are its last third."""
    attention = vlm.model.get_submodule(path)

    def see(module, inputs, output):
        outputs[site.name] = F.linear(output, attention.in_proj_weight, attention.in_proj_bias).chunk(
            3, dim=-1
        )[2]

    return vlm.model.get_submodule(path.rpartition(".")[0]).ln_1.register_forward_hook(see)


def bias_of(vlm: Vlm, site: Site) -> torch.Tensor:
    name = site.parameter.replace("in_proj_weight", "in_proj_bias").replace(".weight", ".bias")
    bias = vlm.model.get_parameter(name)
    return bias if site.rows is None else bias[slice(*site.rows)]


def ignore(site: Site, z: torch.Tensor) -> None:
    """Observe nothing."""


def all_sites(vlm: Vlm, encoder: str) -> list[Site]:
    return vlm.sites(**{encoder: list(KINDS)})


@pytest.mark.parametrize("encoder", ENCODERS)
def test_captured_input_times_weight_is_what_the_layer_produced(vlm, architecture, encoder):
    sites = all_sites(vlm, encoder)
    before = encode(vlm, encoder)
    inputs, embeddings = captured(vlm, sites, encoder)
    torch.testing.assert_close(embeddings, before, atol=1e-5, rtol=0)
    outputs = produced(vlm, sites, encoder)
    assert torch.equal(encode(vlm, encoder), before)
    length = LENGTHS[architecture][ENCODERS.index(encoder)]
    assert inputs.keys() == outputs.keys() == {site.name for site in sites}
    for site in sites:
        z, weight = inputs[site.name], vlm.weight(site)
        assert z.shape == (2, length, weight.shape[1])
        with torch.inference_mode():
            product = F.linear(z, weight, bias_of(vlm, site))
        torch.testing.assert_close(product, outputs[site.name], atol=2e-5, rtol=1e-4, msg=site.name)


@pytest.mark.parametrize("encoder", ENCODERS)
def test_every_site_reaches_the_embedding(vlm, architecture, encoder):
    """Changing a site's weight changes the encoder's output: the trap of the released code on CoCa."""
    sites = all_sites(vlm, encoder)
    # Every site of the models that were cut; two blocks of the full one, to save time.
    sites = [site for site in sites if architecture != "ViT-B-32" or site.layer in (0, 11)]
    before = encode(vlm, encoder, 1)
    for site in sites:
        with torch.no_grad():
            kept = vlm.weight(site).clone()
            # Not a scaling, which a norm behind the product would undo.
            vlm.weight(site).copy_(kept.flip(1))
            changed = encode(vlm, encoder, 1)
            vlm.weight(site).copy_(kept)
        assert (changed - before).norm() > 1e-4, site.name
    assert torch.equal(encode(vlm, encoder, 1), before)


def test_counts_names_and_shapes(vlm, architecture):
    sites = vlm.sites(text=list(KINDS), vision=list(KINDS))
    parameters = dict(vlm.model.named_parameters())
    assert len({site.name for site in sites}) == len(sites)
    assert [site.encoder for site in sites] == sorted(site.encoder for site in sites)  # text, then vision
    for encoder in ENCODERS:
        blocks, width, hidden = SIZES[architecture][encoder]
        shapes = {
            "fc1": (hidden, width),
            "fc2": (width, hidden),
            "value": (width, width),
            "out": (width, width),
        }
        mine = [site for site in sites if site.encoder == encoder]
        assert [(site.layer, site.kind) for site in mine] == [
            (i, kind) for i in range(blocks) for kind in KINDS
        ]
        for site in mine:
            assert site.name == f"{encoder}.{site.layer}.{site.kind}"
            assert site.parameter in parameters
            assert tuple(vlm.weight(site).shape) == shapes[site.kind]
            assert (
                vlm.weight(site).untyped_storage().data_ptr()
                == parameters[site.parameter].untyped_storage().data_ptr()
            )


def test_sites_take_one_kind_or_a_list():
    vlm = ARCHITECTURES["hf-clip"]()
    names = [site.name for site in vlm.sites(text="out", vision=["fc2", "value"])]
    assert names == [
        "text.0.out",
        "text.1.out",
        "vision.0.fc2",
        "vision.0.value",
        "vision.1.fc2",
        "vision.1.value",
    ]
    assert [site.name for site in vlm.sites(vision=["fc2", "fc2"])] == ["vision.0.fc2", "vision.1.fc2"]


def test_value_rows_leave_query_and_key_alone():
    vlm = small_open_clip()
    site = vlm.sites(vision="value")[0]
    before = vlm.model.get_parameter(site.parameter).detach().clone()
    with torch.no_grad():
        vlm.weight(site).zero_()
    query, key, value = vlm.model.get_parameter(site.parameter).detach().chunk(3)
    assert torch.equal(torch.cat([query, key]), before[:128])
    assert not value.any()


def restored(vlm: Vlm) -> bool:
    """Whether no module carries a hook or a forward of its own."""
    return not any(
        module._forward_pre_hooks or module._forward_hooks or "forward" in vars(module)
        for module in vlm.model.modules()
    )


@pytest.mark.parametrize("architecture", ["small", "custom-blocks", "hf-clip", "hf-siglip"])
def test_nothing_is_left_behind(vlm):
    sites = vlm.sites(text=list(KINDS), vision=list(KINDS))
    names = [name for name, _ in vlm.model.named_modules()]
    before = vlm.weights_hash(), encode(vlm, "text"), encode(vlm, "vision")
    with vlm.capture(sites, ignore):
        assert not restored(vlm)
        encode(vlm, "text")
    assert restored(vlm)

    def stumble(site, z):
        raise KeyError(site.name)

    with pytest.raises(KeyError), vlm.capture(sites, stumble):
        encode(vlm, "vision")
    assert restored(vlm)
    assert names == [name for name, _ in vlm.model.named_modules()]
    assert vlm.weights_hash() == before[0]
    assert torch.equal(encode(vlm, "text"), before[1])
    assert torch.equal(encode(vlm, "vision"), before[2])


def test_an_error_of_the_caller_is_not_replaced_by_a_complaint_about_missing_data():
    vlm = small_open_clip()
    with pytest.raises(ZeroDivisionError), vlm.capture(vlm.sites(text="out"), ignore):
        1 / 0  # noqa: B018
    assert restored(vlm)


def test_hooks_of_others_survive():
    vlm = small_open_clip()
    calls = []
    attention = vlm.model.visual.transformer.resblocks[0].attn
    handle = attention.register_forward_hook(lambda module, inputs, output: calls.append(output[1]))
    captured(vlm, vlm.sites(vision="out"), "vision")
    assert calls == [None]
    encode(vlm, "vision")
    assert calls == [None, None]
    handle.remove()


def test_gradients_flow_through_a_captured_encoder():
    vlm = small_open_clip()
    sites = vlm.sites(text=list(KINDS))
    tokens = vlm.tokenize(TEXTS)
    gradients = []
    for capture in (True, False):
        vlm.model.zero_grad()
        if capture:
            with vlm.capture(sites, ignore):
                vlm.encode_text(tokens)[:, 0].sum().backward()
        else:
            vlm.encode_text(tokens)[:, 0].sum().backward()
        gradients.append([vlm.model.get_parameter(site.parameter).grad.clone() for site in sites])
    for with_capture, without in zip(*gradients, strict=True):
        assert with_capture.abs().sum() > 0
        torch.testing.assert_close(with_capture, without, atol=1e-6, rtol=1e-4)


def test_a_value_is_replaced_without_its_query_and_key():
    vlm = small_open_clip()
    value, out = vlm.sites(vision=["value", "out"])[:2]
    seen = {}

    def observe(site, z):
        seen[site.name] = z.clone()
        return z.flip(1) * 2 if site == value else None

    with vlm.capture([value, out], observe):
        encode(vlm, "vision")
    attention, x = vlm.model.visual.transformer.resblocks[0].attn, seen[value.name]
    with torch.inference_mode():
        q, k, _ = F.linear(x, attention.in_proj_weight, attention.in_proj_bias).chunk(3, dim=-1)
        v = F.linear(2 * x.flip(1), attention.in_proj_weight[128:], attention.in_proj_bias[128:])
        heads = [
            (q[..., i : i + 32] @ k[..., i : i + 32].mT / 32**0.5).softmax(dim=-1) @ v[..., i : i + 32]
            for i in (0, 32)
        ]
    torch.testing.assert_close(seen[out.name], torch.cat(heads, dim=-1), atol=1e-5, rtol=1e-4)


def test_sequence_first_transformers_take_batch_first_replacements():
    from open_clip.transformer import Transformer

    vlm, twin = small_open_clip(), small_open_clip()
    text = Transformer(48, 2, 3, batch_first=False)
    text.load_state_dict(twin.model.transformer.state_dict())
    twin.model.transformer = text
    answers = []
    for stack in (vlm, twin):
        with stack.capture(
            all_sites(stack, "text"), lambda site, z: z * torch.arange(z.shape[1])[:, None] / 9
        ):
            answers.append(encode(stack, "text"))
    torch.testing.assert_close(*answers, atol=1e-6, rtol=1e-5)
    assert not torch.allclose(answers[0], encode(vlm, "text"), atol=1e-3)


def test_replacements_that_do_not_fit_are_refused():
    vlm = small_open_clip()
    for found, words in (
        (torch.zeros(2, 12, 47), r"torch.float32 \[2, 12, 47\] on cpu for text.0.out"), (0, "0 for text.0.out"),
        (torch.zeros(2, 12, 48).double(), "torch.float64"), (np.zeros((40, 40)), r"array\(\[\[0., 0"),
        (torch.zeros(2, 12, 48, device="meta"), "on meta"), (torch.zeros(2, 12, 48).to_sparse(), "sparse"),
    ):  # fmt: skip
        with (
            pytest.raises(UwmError, match=words) as error,
            vlm.capture(vlm.sites(text="out"), lambda s, z, f=found: f),
        ):
            encode(vlm, "text")
        assert "\n" not in str(error.value)
        assert restored(vlm)
    custom = ARCHITECTURES["custom-blocks"]()
    with (
        pytest.raises(UwmError, match=r"input of text\.0\.value cannot be replaced"),
        custom.capture(custom.sites(text="value"), lambda site, z: z),
    ):
        encode(custom, "text")


def test_sequence_first_transformers_give_batch_first_inputs():
    from open_clip.transformer import Transformer

    vlm = small_open_clip()
    twin = small_open_clip()
    text = Transformer(48, 2, 3, batch_first=False)
    text.load_state_dict(twin.model.transformer.state_dict())
    twin.model.transformer = text
    for stack in (vlm, twin):
        assert stack.model.transformer.batch_first is (stack is vlm)
    expected, embeddings = captured(vlm, all_sites(vlm, "text"), "text")
    got, embeddings_twin = captured(twin, all_sites(twin, "text"), "text")
    torch.testing.assert_close(embeddings_twin, embeddings, atol=1e-6, rtol=1e-5)
    assert got.keys() == expected.keys()
    for name in expected:
        torch.testing.assert_close(got[name], expected[name], atol=1e-5, rtol=1e-4)


def test_transformers_twin_with_the_same_weights_captures_the_same_inputs():
    ours = small_open_clip()
    model = small_hf_model("clip")
    _copy_clip(ours.model, model)
    processor = ARCHITECTURES["hf-clip"]().pixels.transform.args[0]
    twin = transformers_backend.wrap(model, name="twin", tokenizer=ours.tokenize, image_processor=processor)
    pixels, tokens = ours.preprocess(images_for(ours)), ours.tokenize(TEXTS)
    sites = {vlm.backend: vlm.sites(text=list(KINDS), vision=list(KINDS)) for vlm in (ours, twin)}
    assert [site.name for site in sites["open_clip"]] == [site.name for site in sites["transformers"]]
    inputs: dict[str, dict[str, torch.Tensor]] = {"open_clip": {}, "transformers": {}}
    for vlm in (ours, twin):
        mine = inputs[vlm.backend]
        with (
            torch.inference_mode(),
            vlm.capture(sites[vlm.backend], lambda s, z, mine=mine: mine.update({s.name: z})),
        ):
            vlm.encode_text(tokens)
            vlm.encode_image(pixels)
    for name, z in inputs["open_clip"].items():
        torch.testing.assert_close(inputs["transformers"][name], z, atol=1e-5, rtol=1e-4, msg=name)
    for a, b in zip(sites["open_clip"], sites["transformers"], strict=True):
        assert torch.equal(ours.weight(a), twin.weight(b))


def _copy_clip(ours: nn.Module, theirs: nn.Module) -> None:
    """Copy open_clip's weights into a transformers CLIPModel of the same size."""
    state = {
        "text_model.embeddings.token_embedding.weight": ours.token_embedding.weight,
        "text_model.embeddings.position_embedding.weight": ours.positional_embedding,
        "vision_model.embeddings.class_embedding": ours.visual.class_embedding,
        "vision_model.embeddings.patch_embedding.weight": ours.visual.conv1.weight,
        "vision_model.embeddings.position_embedding.weight": ours.visual.positional_embedding,
        "text_projection.weight": ours.text_projection.T,
        "visual_projection.weight": ours.visual.proj.T,
        "logit_scale": ours.logit_scale,
    }
    norms = {
        "text_model.final_layer_norm": ours.ln_final,
        "vision_model.pre_layrnorm": ours.visual.ln_pre,
        "vision_model.post_layernorm": ours.visual.ln_post,
    }
    stacks = {"text_model": ours.transformer, "vision_model": ours.visual.transformer}
    for prefix, stack in stacks.items():
        for i, block in enumerate(stack.resblocks):
            path = f"{prefix}.encoder.layers.{i}"
            norms |= {f"{path}.layer_norm1": block.ln_1, f"{path}.layer_norm2": block.ln_2}
            norms |= {f"{path}.mlp.fc1": block.mlp.c_fc, f"{path}.mlp.fc2": block.mlp.c_proj}
            norms |= {f"{path}.self_attn.out_proj": block.attn.out_proj}
            for name, weight, bias in zip(
                "qkv", block.attn.in_proj_weight.chunk(3), block.attn.in_proj_bias.chunk(3), strict=True
            ):
                state[f"{path}.self_attn.{name}_proj.weight"] = weight
                state[f"{path}.self_attn.{name}_proj.bias"] = bias
    for path, module in norms.items():
        state |= {f"{path}.weight": module.weight, f"{path}.bias": module.bias}
    theirs.load_state_dict({name: tensor.detach() for name, tensor in state.items()})


def attend(attention: nn.MultiheadAttention, x: torch.Tensor, **kwargs) -> torch.Tensor:
    return attention(x, x, x, need_weights=False, **kwargs)[0]


@pytest.mark.parametrize("batch_first", [True, False])
@pytest.mark.parametrize("mask", ["none", "additive", "per-head", "forbidding"])
def test_explicit_attention_equals_the_module(mask, batch_first):
    vlm = small_open_clip()
    attention = vlm.model.transformer.resblocks[0].attn
    nn.init.normal_(attention.in_proj_bias)
    nn.init.normal_(attention.out_proj.bias)
    attention.batch_first = batch_first
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(2, 5, 48, generator=generator)
    masks = {
        "none": None,
        "additive": torch.randn(5, 5, generator=generator),
        "per-head": torch.randn(2 * 3, 5, 5, generator=generator),
        "forbidding": torch.ones(5, 5).triu(1).bool(),
    }
    x = x if batch_first else x.transpose(0, 1)
    expected = attend(attention, x, attn_mask=masks[mask])
    seen = {}
    # Only the attention is called, not its encoder, so the other block's silence is no error.
    with vlm.capture(vlm.sites(text=["value", "out"]), lambda s, z: seen.update({s.name: z})):
        torch.testing.assert_close(
            attend(attention, x, attn_mask=masks[mask]), expected, atol=1e-5, rtol=1e-4
        )
    assert torch.equal(seen["text.0.value"], x if batch_first else x.transpose(0, 1))
    assert seen["text.0.out"].shape == (2, 5, 48)


def test_attention_that_is_not_plain_self_attention_is_refused():
    vlm = small_open_clip()
    attention = vlm.model.transformer.resblocks[0].attn
    x, other = torch.randn(2, 5, 48), torch.randn(2, 5, 48)
    calls = {
        "other keys": lambda: attention(x, other, other, need_weights=False),
        "key padding": lambda: attention(
            x, x, x, need_weights=False, key_padding_mask=torch.zeros(2, 5).bool()
        ),
        "returned weights": lambda: attention(x, x, x),
        "implied": lambda: attention(x, x, x, need_weights=False, is_causal=True),
    }
    for call in calls.values():
        with pytest.raises(UwmError, match="be captured"), vlm.capture(vlm.sites(text="out"), ignore):
            call()
    assert restored(vlm)


@pytest.mark.parametrize("options", [{"kdim": 32}, {"add_bias_kv": True}, {"add_zero_attn": True}])
def test_attention_of_another_make_is_refused_at_the_start(options):
    vlm = small_open_clip()
    sites = vlm.sites(text="out")
    vlm.model.transformer.resblocks[1].attn = nn.MultiheadAttention(48, 3, batch_first=True, **options)
    with pytest.raises(UwmError, match="cannot be captured"), vlm.capture(sites, ignore):
        encode(vlm, "text")
    assert restored(vlm)


class _BareWeights(nn.Module):
    """An MLP that reads its children's weights without calling them, as nn.MultiheadAttention does."""

    def __init__(self, mlp: nn.Module) -> None:
        super().__init__()
        self.c_fc, self.c_proj = mlp.c_fc, mlp.c_proj

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        hidden = F.gelu(F.linear(x, self.c_fc.weight, self.c_fc.bias))
        return F.linear(hidden, self.c_proj.weight, self.c_proj.bias)


def test_a_site_without_data_is_an_error_that_names_it():
    vlm = small_open_clip()
    block = vlm.model.visual.transformer.resblocks[1]
    block.mlp = _BareWeights(block.mlp)
    with (
        pytest.raises(UwmError, match=r"vision\.1\.fc2"),
        vlm.capture(vlm.sites(vision="fc2"), ignore),
    ):
        encode(vlm, "vision")


def test_one_encoder_may_stay_idle_but_not_all():
    vlm = small_open_clip()
    seen = []
    with vlm.capture(vlm.sites(text="fc1", vision="fc1"), lambda site, z: seen.append(site.name)):
        encode(vlm, "text")
    assert seen == ["text.0.fc1", "text.1.fc1"]
    with (
        pytest.raises(UwmError, match=r"text\.0\.fc1"),
        vlm.capture(vlm.sites(text="fc1"), ignore),
    ):
        encode(vlm, "vision")
    with pytest.raises(UwmError, match="no site"), vlm.capture([], ignore):
        encode(vlm, "vision")


def test_nested_and_repeated_captures_are_refused():
    vlm = small_open_clip()
    sites = vlm.sites(text="out")
    outer = vlm.capture(sites, ignore)
    with pytest.raises(UwmError, match="captured already"), outer, vlm.capture(sites, ignore):
        encode(vlm, "text")
    assert restored(vlm)
    twice = vlm.capture([sites[0], sites[0]], ignore)
    with pytest.raises(UwmError, match=r"text\.0\.out is asked for twice"), twice:
        encode(vlm, "text")


@pytest.mark.parametrize(
    ("kind", "near"),
    [
        ("out_proj", "did you mean 'out'"),
        ("v_proj", "did you mean 'value'"),
        ("c_fc", "did you mean 'fc1'"),
        ("down_proj", "did you mean 'fc2'"),
        ("fc3", "did you mean 'fc"),
        ("values", "did you mean 'value'"),
        ("attention", "choose one of 'fc1', 'fc2', 'value', 'out'"),
    ],
)
def test_unknown_kind_names_the_nearest_or_the_allowed(kind, near):
    vlm = small_open_clip()
    with pytest.raises(UwmError, match=rf"no kind of site '{kind}': {near}"):
        vlm.sites(text=kind)
    with pytest.raises(UwmError, match=kind):
        vlm.sites(vision=["fc2", kind])


def test_no_kind_at_all_is_refused():
    with pytest.raises(UwmError, match="No kind"):
        small_open_clip().sites()


def test_encoders_without_a_known_layout_have_no_sites():
    resnet = small_open_clip(vision={"layers": [1, 1, 1, 1], "width": 8, "head_width": 32})
    assert [site.name for site in resnet.sites(text="out")] == ["text.0.out", "text.1.out"]
    with pytest.raises(UwmError, match="no vision transformer"):
        resnet.sites(vision="out")
    strange = small_open_clip()
    strange.model.transformer.resblocks[1] = nn.TransformerEncoderLayer(48, 3)
    with pytest.raises(UwmError, match="Block 1 of the text encoder, a TransformerEncoderLayer"):
        strange.sites(text="out")


def test_a_site_of_another_model_is_refused():
    ours, theirs = small_open_clip(), ARCHITECTURES["hf-clip"]()
    with pytest.raises(UwmError, match="no parameter"):
        ours.weight(theirs.sites(text="out")[0])
    with (
        pytest.raises(UwmError, match="no parameter"),
        ours.capture(theirs.sites(text="out"), ignore),
    ):
        encode(ours, "text")


def test_what_is_no_list_of_sites_or_no_observer_is_refused():
    vlm = small_open_clip()
    site = vlm.sites(text="out")[0]
    for sites, words in (
        (["text.0.out"], "give a list of sites"), (site, "give a list of sites"), (None, "give a list of sites"),
        ([replace(site, parameter="logit_scale")], "no matrix"), ([replace(site, rows=(0, 999))], "no matrix"),
    ):  # fmt: skip
        with pytest.raises(UwmError, match=words), vlm.capture(sites, ignore):
            encode(vlm, "text")
    with pytest.raises(UwmError, match="observer is 5"), vlm.capture([site], 5):
        encode(vlm, "text")
    assert restored(vlm)


def test_a_copied_model_is_captured_on_its_own():
    vlm = small_open_clip()
    twin = copy.deepcopy(vlm)
    with torch.no_grad():
        twin.weight(twin.sites(text="out")[0]).zero_()
    assert not torch.allclose(encode(vlm, "text"), encode(twin, "text"), atol=1e-4)
    inputs, _ = captured(twin, twin.sites(text="out"), "text")
    assert len(inputs) == 2
    assert restored(vlm)


@pytest.mark.parametrize("kind", [3, [3]])
def test_a_kind_that_is_no_text_is_refused(kind):
    with pytest.raises(UwmError, match="no kind of site 3"):
        as_kinds(kind)
