"""Edits that add and edits that gate, against what the encoders do when the same is done to their activations."""

from __future__ import annotations

import dataclasses
from functools import cache, partial

import pytest
import torch
from architectures import (
    ARCHITECTURES,
    HALF,
    SMALL_TEXT,
    SMALL_VISION,
    encode,
    images_for,
    small_hf_model,
    small_hf_processor,
    small_open_clip,
    word_tokenizer,
)
from tiny_models import TINY, bits, tiny_clip, tiny_coca, tiny_tuples

from uwmlib.editing import (
    Delta,
    Gates,
    Scaling,
    WeightEdit,
    choose_weights,
    delta_edit,
    gate_edit,
    residual_shift_edit,
    score,
    shift_edit,
)
from uwmlib.editing.weight_edit import parameter_hash
from uwmlib.errors import UwmError
from uwmlib.models import open_clip_backend, transformers_backend
from uwmlib.models.loading import load_weights
from uwmlib.models.sites import KINDS, find_blocks
from uwmlib.options import ENCODERS
from uwmlib.torchvision_shim import import_torchvision


def custom_text(**vision):
    """open_clip's CustomTextCLIP, with timm's vision transformer where `vision` names one."""
    import_torchvision()
    from open_clip.model import CustomTextCLIP

    torch.manual_seed(0)
    text = SMALL_TEXT | {"proj_bias": True, "pool_type": "last", "no_causal_mask": True}
    model = CustomTextCLIP(40, vision or SMALL_VISION, text)
    tokenizer = word_tokenizer(12, start=[1], end=[299], pad=1, vocabulary=299)
    side = 160 if vision else 32
    return open_clip_backend.wrap(
        model, name="custom", tokenizer=tokenizer, image_size=side, mean=HALF, std=HALF
    )


def timm(pool: str, proj: str, **options):
    return custom_text(timm_model_name="test_vit", image_size=160, timm_pool=pool, timm_proj=proj, **options)


def hf(family: str):
    tokens = (
        {"start": [1], "end": [299], "pad": 299} if family == "clip" else {"start": [], "end": [1], "pad": 1}
    )
    return transformers_backend.wrap(
        small_hf_model(family),
        name=family,
        tokenizer=word_tokenizer(12, vocabulary=299, **tokens),
        image_processor=small_hf_processor(family),
    )


# The bias that a shift shall go into, for text and vision.
BUILDERS = {
    "open_clip": (small_open_clip, "ln_final.bias", "visual.ln_post.bias"),
    "custom-text": (custom_text, "text.text_projection.bias", "visual.ln_post.bias"),
    "coca": (tiny_coca, "text.ln_final.bias", "visual.ln_post.bias"),
    "timm-siglip": (partial(timm, "map", "none"), None, "visual.trunk.attn_pool.mlp.fc2.bias"),
    "timm-map-head": (partial(timm, "map", ""), None, "visual.trunk.head.bias"),
    "timm-average": (partial(timm, "avg", "none"), None, "visual.trunk.fc_norm.bias"),
    "timm-token": (partial(timm, "token", "linear"), None, "visual.trunk.norm.bias"),
    "timm-biased": (partial(timm, "avg", "linear", timm_proj_bias=True), None, "visual.head.proj.bias"),
    "hf-clip": (partial(hf, "clip"), "text_model.final_layer_norm.bias", "vision_model.post_layernorm.bias"),
    "hf-siglip": (partial(hf, "siglip"), "text_model.head.bias", "vision_model.head.mlp.fc2.bias"),
}
MODELS = {name: build for name, (build, *_) in BUILDERS.items()} | {
    "custom-blocks": ARCHITECTURES["custom-blocks"]
}
SCALED = {"ls_init_value": 0.3}
MODELS["layer-scale"] = partial(small_open_clip, vision=SCALED, text=SCALED)
FAMILIES = ["open_clip", "custom-blocks", "coca", "timm-siglip", "hf-clip", "hf-siglip"]
model = cache(lambda name: MODELS[name]())


def noise(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def some_gates(vlm, sites) -> dict:
    """Every third neuron negated, every fifth silenced, one halved."""
    gates = {}
    for site in sites:
        factors = torch.ones(vlm.weight(site).shape[1])
        factors[::3], factors[::5], factors[1] = -1, 0, 0.5
        gates[site] = factors
    return gates


def one_of_each(vlm) -> WeightEdit:
    """An edit of both encoders with all three kinds of change, on different parameters."""
    scaled = score(vlm, tiny_tuples(4), text="out", vision=None, progress=False).select(tau=0.2, alpha=0.5)
    gated = gate_edit(vlm, some_gates(vlm, vlm.sites(text="value", vision="fc2")))
    name = vlm.sites(vision="fc1")[0].parameter
    rows = torch.tensor([1, 4])
    added = delta_edit(
        vlm, "vision", {name: noise(2, vlm.model.get_parameter(name).shape[1])}, rows={name: rows}
    )
    return scaled.merged(gated).merged(added).merged(residual_shift_edit(vlm, "vision", 1, noise(32)))


class TestDelta:
    @pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
    def test_adds_to_whole_parameters_and_undoes(self, dtype):
        vlm = tiny_clip()
        vlm.model.to(dtype)
        names = ["text_projection", "visual.ln_post.bias", "logit_scale"]
        deltas = {name: noise(*vlm.model.get_parameter(name).shape) for name in names}
        edit, before = delta_edit(vlm, "vision", deltas), bits(vlm)
        expected = {name: (vlm.model.get_parameter(name).float() + deltas[name]).to(dtype) for name in names}
        with edit.applied(vlm):
            for name in names:
                assert torch.equal(vlm.model.get_parameter(name), expected[name])
            inside = bits(vlm)
        assert bits(vlm) == before
        assert {name for name in before if before[name] != inside[name]} == {*names} - {"logit_scale"}
        assert edit.n_weights == sum(delta.numel() for delta in deltas.values())
        assert edit.share() == {"vision": 1.0}

    def test_adds_to_rows_alone(self):
        vlm = tiny_clip()
        name, rows = "token_embedding.weight", torch.tensor([3, 7, 299])
        delta = noise(3, 32)
        edit = delta_edit(vlm, "text", {name: delta}, rows={name: rows})
        expected = vlm.model.get_parameter(name).detach().clone()
        for row, added in zip(rows.tolist(), delta, strict=True):
            expected[row] += added
        before = bits(vlm)
        with edit.applied(vlm):
            assert torch.equal(vlm.model.get_parameter(name), expected)
        assert bits(vlm) == before
        assert edit.share() == {"text": 3 / 300}

    def test_a_task_vector_turns_one_model_into_the_other(self):
        base, tuned = tiny_clip(), tiny_clip(seed=1)
        deltas = {name: p.detach() - base.model.get_parameter(name).detach()
                  for name, p in tuned.model.named_parameters() if name.startswith("visual.")}  # fmt: skip
        with delta_edit(base, "vision", deltas).applied(base):
            torch.testing.assert_close(encode(base, "vision"), encode(tuned, "vision"), atol=1e-5, rtol=1e-5)

    @pytest.mark.parametrize(
        ("deltas", "rows", "words"),
        [
            ({"text_projectoin": torch.zeros(32, 40)}, None, "'text_projection'"),
            ({"text_projection": torch.zeros(40, 32)}, None, r"\[40, 32\] where \[32, 40\]"),
            ({"text_projection": torch.full((32, 40), torch.inf)}, None, "NaN or infinite"),
            ({"text_projection": torch.zeros(32, 40).long()}, None, "floating"),
            ({"text_projection": None}, None, "Parameter text_projection: The delta is no dense tensor"),
            (
                {"text_projection": torch.zeros(1, 40)},
                {"text_projection": "last"},
                "text_projection: The row numbers",
            ),
            ({"text_projection": torch.zeros(1, 40)}, {"text_projection": torch.tensor([32])}, "0 to 31"),
            ({"text_projection": torch.zeros(2, 40)}, {"text_projection": torch.tensor([2, 2])}, "ascend"),
            ({"text_projection": torch.zeros(2, 40)}, {"text_projection": torch.tensor([2])}, r"\[1, 40\]"),
            ({"text_projection": torch.zeros(32, 40)}, {"ln_final.bias": torch.tensor([2])}, "ln_final.bias"),
        ],
    )
    def test_what_does_not_fit_is_refused(self, deltas, rows, words):
        with pytest.raises(UwmError, match=words):
            delta_edit(tiny_clip(), "text", deltas, rows=rows)


class TestGates:
    @pytest.mark.parametrize("encoder", ENCODERS)
    @pytest.mark.parametrize("family", FAMILIES)
    def test_gating_activations_is_the_edit(self, family, encoder):
        """Through capture, without touching a weight, and folded into the columns of the weights."""
        vlm = model(family)
        # Custom attention has no place for another value: see test_sites.
        kinds = [kind for kind in KINDS if (family, kind) != ("custom-blocks", "value")]
        gates = some_gates(vlm, vlm.sites(**{encoder: kinds}))
        plain, before = encode(vlm, encoder), vlm.weights_hash()
        with vlm.capture(list(gates), lambda site, z: z * gates[site]):
            tried = encode(vlm, encoder)
        assert vlm.weights_hash() == before
        with gate_edit(vlm, gates).applied(vlm):
            folded = encode(vlm, encoder)
        torch.testing.assert_close(tried, folded, atol=2e-6, rtol=1e-4)
        assert (folded - plain).abs().amax() > 1e-4
        assert torch.equal(encode(vlm, encoder), plain)

    def test_gradients_reach_gates_that_are_tried(self):
        """First-order gate scores: d loss / d g at g = 1, against finite differences of the folded edit."""
        vlm = tiny_clip()
        vlm.model.double()
        sites, tokens = vlm.sites(text="out"), vlm.tokenize(["a photo of a cat", "two dogs"])
        gates = {site: torch.ones(32, dtype=torch.float64, requires_grad=True) for site in sites}
        with vlm.capture(sites, lambda site, z: z * gates[site]):
            vlm.encode_text(tokens)[:, 0].sum().backward()
        for site, step in zip(sites, (1e-5, -1e-5), strict=True):
            for neuron in (0, 7, 31):
                factors = torch.ones(32, dtype=torch.float64)
                factors[neuron] += step
                with torch.no_grad():
                    plain = vlm.encode_text(tokens)[:, 0].sum()
                    with gate_edit(vlm, {site: factors}).applied(vlm):
                        moved = vlm.encode_text(tokens)[:, 0].sum() - plain
                assert float(moved / step) == pytest.approx(
                    float(gates[site].grad[neuron]), rel=1e-3, abs=1e-9
                )

    def test_columns_by_hand(self):
        vlm = tiny_clip()
        site = vlm.sites(text="value")[1]
        factors = torch.ones(32)
        factors[3], factors[8] = -1, 0.25
        edit, before = gate_edit(vlm, {site: factors}), bits(vlm)
        expected = vlm.model.get_parameter(site.parameter).detach().clone()
        for row in range(64, 96):  # query and key stand above
            expected[row, 3] *= -1
            expected[row, 8] *= 0.25
        with edit.applied(vlm):
            assert torch.equal(vlm.model.get_parameter(site.parameter), expected)
        assert bits(vlm) == before
        assert edit.n_weights == 2 * 32 and edit.share() == {"text": 2 / 32}

    def test_what_does_not_fit_is_refused(self):
        vlm = tiny_clip()
        site = vlm.sites(vision="fc2")[0]
        for wrong, words in (
            (torch.ones(32), r"\[32\] where \[128\]"), (torch.full((128,), torch.nan), "NaN"),
            ("all", "no dense tensor"),
        ):  # fmt: skip
            with pytest.raises(UwmError, match=f"Parameter visual.*: The gates .*{words}"):
                gate_edit(vlm, {site: wrong})
        with pytest.raises(UwmError, match="no parameter"):
            gate_edit(vlm, {TINY["transformers"]().sites(text="out")[0]: torch.ones(48)})
        again = dataclasses.replace(site, layer=7)
        with pytest.raises(UwmError, match="gated twice"):
            gate_edit(vlm, {site: torch.ones(128), again: torch.ones(128)})
        facts = {"encoder": "text", "base_hash": "", "factors": torch.ones(4)}
        with pytest.raises(UwmError, match="belong to a matrix"):
            Gates(shape=(4,), **facts)
        for rows in ((0, 7), (3, 3), (-1, 2), (0, 1, 2), "ab"):
            with pytest.raises(UwmError, match="The rows of an edit"):
                Gates(shape=(6, 4), rows=rows, **facts)


def raw_embedding(vlm, encoder: str) -> torch.Tensor:
    """What an encoder gives before it is made a unit vector, by each library's own call."""
    if encoder == "text":
        tokens = vlm.tokenize(["a photo of a cat", "two dogs run over a field of grass", "x"])
        if vlm.backend == "transformers":
            return vlm.model.get_text_features(input_ids=tokens).pooler_output
        return vlm.model.encode_text(tokens, normalize=False)
    pixels = vlm.preprocess(images_for(vlm, 3))
    if vlm.backend == "transformers":
        return vlm.model.get_image_features(pixel_values=pixels).pooler_output
    return vlm.model.encode_image(pixels, normalize=False)


def reachable(name: str, encoder: str):
    """A model of its own with random biases, wide enough for any shift, and one shift."""
    vlm = BUILDERS[name][0]()
    generator = torch.Generator().manual_seed(3)
    with torch.no_grad():
        for key, parameter in vlm.model.named_parameters():
            if key.endswith("bias") and parameter.ndim == 1 and len(parameter) > 1:
                parameter.normal_(0, 0.3, generator=generator)
        width = raw_embedding(vlm, encoder).shape[1]
    return vlm, noise(width, seed=4)


SHIFTED = [
    (name, encoder)
    for name, (_, *biases) in BUILDERS.items()
    for encoder, bias in zip(ENCODERS, biases, strict=True)
    if bias
]


class TestShift:
    @pytest.mark.parametrize(("name", "encoder"), SHIFTED)
    def test_the_raw_embedding_is_shifted(self, name, encoder):
        vlm, shift = reachable(name, encoder)
        edit, before = shift_edit(vlm, encoder, shift), bits(vlm)
        assert list(edit.changes) == [BUILDERS[name][1 + ENCODERS.index(encoder)]]
        with torch.inference_mode():
            plain = raw_embedding(vlm, encoder)
            with edit.applied(vlm):
                shifted = raw_embedding(vlm, encoder)
        torch.testing.assert_close(shifted, plain + shift, rtol=1e-5, atol=2e-5)
        assert bits(vlm) == before
        assert set(edit.share()) == {encoder}
        other = ENCODERS[encoder == "text"]
        with edit.applied(vlm):
            inside = encode(vlm, other)
        assert torch.equal(encode(vlm, other), inside)

    def test_what_is_out_of_reach_is_refused(self):
        vlm = tiny_clip()  # 32 wide, embeddings of 40
        with pytest.raises(
            UwmError, match=r"text encoder of small cannot reach this shift .*\[32, 40\] misses"
        ):
            shift_edit(vlm, "text", noise(40))
        within = noise(32) @ vlm.model.text_projection.detach()
        plain = raw_embedding(vlm, "text")
        with shift_edit(vlm, "text", within).applied(vlm):
            torch.testing.assert_close(raw_embedding(vlm, "text"), plain + within, rtol=1e-5, atol=2e-5)
        wide = small_open_clip()
        with torch.no_grad():
            # Of rank 39, were the sum not rounded.
            wide.model.text_projection[:, 5] = wide.model.text_projection[:, 6:9].sum(dim=1)
        with pytest.raises(UwmError, match="cannot reach"):
            shift_edit(wide, "text", noise(40))

    def test_other_ends_of_an_encoder_are_refused(self):
        perceptron = timm("avg", "mlp")
        with pytest.raises(UwmError, match=r"visual\.head\.mlp, a Mlp, ends the vision encoder"):
            shift_edit(perceptron, "vision", noise(40))
        resnet = small_open_clip(vision={"layers": [1, 1, 1, 1], "width": 8, "head_width": 32})
        with pytest.raises(UwmError, match="CLIP has no vision encoder whose last layers are known"):
            shift_edit(resnet, "vision", noise(40))

    @pytest.mark.parametrize(
        ("encoder", "shift", "words"),
        [
            ("image", torch.ones(40), "no encoder 'image'"),
            ("text", torch.ones(39), r"\[39\] where \[40\]"),
            ("text", torch.ones(40).long(), "floating"),
            ("text", torch.full((40,), torch.nan), "NaN"),
            ("text", "far", "The shift"),
        ],
    )
    def test_bad_shifts_are_refused(self, encoder, shift, words):
        with pytest.raises(UwmError, match=words):
            shift_edit(small_open_clip(), encoder, shift)


class TestResidualShift:
    @pytest.mark.parametrize("encoder", ENCODERS)
    @pytest.mark.parametrize("family", [*FAMILIES, "layer-scale"])
    def test_it_is_added_behind_the_block(self, family, encoder):
        vlm = model(family)
        path, blocks = find_blocks(vlm.model, encoder)
        shift = noise(vlm.weight(vlm.sites(**{encoder: "fc2"})[0]).shape[0])
        plain = encode(vlm, encoder)

        def add(module, inputs, output):
            return (output[0] + shift, *output[1:]) if isinstance(output, tuple) else output + shift

        handle = blocks[0].register_forward_hook(add)
        expected = encode(vlm, encoder)
        handle.remove()
        edit = residual_shift_edit(vlm, encoder, 0, shift)
        with edit.applied(vlm):
            torch.testing.assert_close(encode(vlm, encoder), expected, rtol=1e-4, atol=2e-6)
        assert (expected - plain).abs().amax() > 1e-4
        assert edit.n_weights == len(shift) and all(name.startswith(f"{path}.0.") for name in edit.changes)

    def test_bad_layers_shapes_and_missing_biases_are_refused(self):
        vlm = small_open_clip()
        with pytest.raises(UwmError, match="layer is 2: give a whole number from 0 to 1"):
            residual_shift_edit(vlm, "text", 2, noise(48))
        with pytest.raises(UwmError, match=r"\[47\] where \[48\]"):
            residual_shift_edit(vlm, "text", 1, noise(47))
        vlm.model.transformer.resblocks[1].mlp.c_proj.bias = None
        with pytest.raises(UwmError, match="no parameter of small to add to, .*c_proj.bias"):
            residual_shift_edit(vlm, "text", 1, noise(48))


class TestOneProtocol:
    def test_kinds_merge_and_nest(self):
        vlm = tiny_clip()
        edit, before = one_of_each(vlm), bits(vlm)
        assert {type(change) for change in edit.changes.values()} == {Scaling, Delta, Gates}
        with edit.applied(vlm):
            inside = bits(vlm)
        first = gate_edit(vlm, some_gates(vlm, vlm.sites(text="fc2")))
        with first.applied(vlm), edit.applied(vlm):
            assert bits(vlm) != inside
        assert bits(vlm) == before
        with pytest.raises(UwmError, match="cannot be merged"):
            edit.merged(gate_edit(vlm, some_gates(vlm, vlm.sites(vision="fc1"))))

    def test_file_and_export_hold_every_kind(self, tmp_path):
        vlm = tiny_clip()
        edit = one_of_each(vlm)
        edit.save(tmp_path / "edit.safetensors")
        loaded = WeightEdit.load(tmp_path / "edit.safetensors")
        assert loaded.share() == edit.share() and loaded.description == edit.description
        loaded.export(vlm, tmp_path / "edited.safetensors")
        fresh = tiny_clip(seed=1)
        load_weights(fresh.model, tmp_path / "edited.safetensors")
        with edit.applied(vlm):
            assert bits(fresh) == bits(vlm)
        with loaded.applied(vlm):
            assert bits(fresh) == bits(vlm)
        assert bits(fresh) != bits(vlm)

    def test_every_kind_is_refused_on_another_base(self):
        vlm, other = tiny_clip(), tiny_clip(seed=1)
        for edit in (
            gate_edit(vlm, some_gates(vlm, vlm.sites(text="fc2"))),
            delta_edit(vlm, "text", {"text_projection": noise(32, 40)}),
        ):
            before = bits(other)
            with pytest.raises(UwmError, match="another edit may be applied"), edit.applied(other):
                pass
            assert bits(other) == before
            with edit.applied(vlm), pytest.raises(UwmError, match="another edit"), edit.applied(vlm):
                pass

    @pytest.mark.parametrize(
        "facts",
        [{"encoder": "image"}, {"base_hash": None}, {"shape": [4]}, {"shape": (0,)}, {"shape": (2.0,)}],
    )
    def test_facts_about_a_parameter_are_checked(self, facts):
        right = {"encoder": "text", "base_hash": "", "shape": (4,), "delta": torch.ones(4)}
        assert Delta(**right).n_weights == 4
        with pytest.raises(UwmError):
            Delta(**right | facts)


# What an attacker, or a tired reader, would try


def test_numbers_too_large_for_the_weights_are_refused_and_all_is_put_back():
    vlm = tiny_clip()
    before = vlm.weights_hash()
    site = vlm.sites(vision="fc2")[0]
    name, weight = site.parameter, vlm.weight(site)
    facts = {"encoder": "vision", "shape": tuple(weight.shape), "base_hash": parameter_hash(vlm, name)}
    for change in (
        Scaling(indices=torch.arange(9), alpha=1e300, candidates=9, **facts),
        Delta(delta=torch.full(weight.shape, 1e300, dtype=torch.float64), **facts),
        Gates(factors=torch.full(weight.shape[1:], 1e300, dtype=torch.float64), **facts),
    ):
        last = delta_edit(vlm, "text", {"ln_final.bias": torch.ones(32)})
        with (
            pytest.raises(UwmError, match=f"weights of {name} too large for torch.float32"),
            last.merged(WeightEdit({name: change})).applied(vlm),
        ):
            pass
        assert vlm.weights_hash() == before


@pytest.mark.parametrize("dtype", [torch.int8, torch.float8_e4m3fn])
def test_weights_of_eight_bits_are_not_edited(dtype):
    vlm = tiny_clip()
    rounded = vlm.model.ln_final.bias.detach().to(dtype)
    vlm.model.ln_final.bias = torch.nn.Parameter(rounded, requires_grad=False)
    edit = delta_edit(vlm, "text", {"ln_final.bias": torch.full((32,), 0.3)})
    with pytest.raises(UwmError, match=r"ln_final.bias holds torch\.\w+8\w*, not"), edit.applied(vlm):
        pass
    with pytest.raises(UwmError, match="floating numbers of 16 bits or more"):
        delta_edit(vlm, "text", {"ln_final.weight": torch.zeros(32).to(dtype)})


def test_a_model_without_values_is_refused():
    vlm = tiny_clip()
    vlm.model.to("meta")
    with pytest.raises(UwmError, match="ln_final.bias has no values"):
        delta_edit(vlm, "text", {"ln_final.bias": torch.ones(32)})


def test_a_model_that_is_converted_while_it_is_edited_is_not_believed_to_be_restored():
    convert = {
        "half": lambda vlm: vlm.model.half(),
        "replaced": lambda vlm: setattr(vlm.model.ln_final, "bias", torch.nn.Parameter(torch.ones(32))),
        "removed": lambda vlm: vlm.model.ln_final.register_parameter("bias", None),
    }
    for change in convert.values():
        vlm = tiny_clip()
        edit = delta_edit(vlm, "text", {"ln_final.bias": torch.ones(32)})
        with pytest.raises(UwmError, match="moved or converted while it was edited"), edit.applied(vlm):
            change(vlm)


def test_an_edit_shares_no_memory_with_what_it_was_made_of(tmp_path):
    vlm = tiny_clip()
    site = vlm.sites(vision="fc2")[0]
    delta, factors = torch.ones(32), torch.full((vlm.weight(site).shape[1],), 0.5)
    edit = delta_edit(vlm, "text", dict.fromkeys(["ln_final.bias", "ln_final.weight"], delta))
    gated = gate_edit(vlm, {site: factors})
    delta += 5
    factors += float("nan")
    assert bool((edit.changes["ln_final.bias"].delta == 1).all())
    assert bool((gated.changes[site.parameter].factors == 0.5).all())
    edit.save(tmp_path / "e.safetensors")
    # by hand two parameters may well have one tensor
    shared = {name: dataclasses.replace(change, delta=delta) for name, change in edit.changes.items()}
    WeightEdit(shared).save(tmp_path / "s.safetensors")
    again = WeightEdit.load(tmp_path / "s.safetensors")
    assert [change.delta.tolist() for change in again.changes.values()] == 2 * [[6.0] * 32]


def test_what_makes_no_edit_is_one_sentence_at_once(tmp_path):
    vlm = tiny_clip()
    bias = {"ln_final.bias": torch.ones(32)}
    site = vlm.sites(vision="fc2")[0]
    make = partial(delta_edit, vlm, "text")

    def unasked(site):
        raise AssertionError("scored before the check")

    chosen = partial(choose_weights, vlm, tau=0.1, alpha=0, rule="fixed")
    language = dataclasses.replace(site, encoder="language")
    for call, words in (
        (lambda: make({}), "nothing to add"), (lambda: make(None), "nothing to add"),
        (lambda: make(bias, rows=[1]), "nothing to add"), (lambda: gate_edit(vlm, {}), "nothing to gate"),
        (lambda: gate_edit(vlm, [site]), "nothing to gate"),
        (lambda: gate_edit(vlm, {"vision.0.fc2": torch.ones(1)}), "give a list of sites"),
        (lambda: make(bias, description={"tau": torch.ones(1)}), "JSON cannot hold"),
        (lambda: make(bias, description={1: 0, "a": 0}), "JSON cannot hold"),
        (lambda: make(bias, description="abc"), "description of an edit is 'abc'"),
        (lambda: WeightEdit({}, None), "description of an edit is None"),
        (lambda: WeightEdit({5: make(bias).changes["ln_final.bias"]}), "one change for each parameter name"),
        (lambda: make(bias).save(None), "path of a file is None"), (lambda: make(bias).save("a\0b"), "without NUL"),
        (lambda: make(bias).export(vlm, 5), "path of a file is 5"),
        (lambda: chosen(["vision.0.fc2"], unasked, base_hashes={}), "give a list of sites"),
        (lambda: chosen([site], unasked, base_hashes=None), "no base hashes"),
        (lambda: chosen([site, language], unasked, base_hashes={}), "language.0.fc2 is in neither encoder"),
        (lambda: chosen([site], unasked, base_hashes={}, description={"x": {1}}), "JSON cannot hold"),
        (lambda: choose_weights("mini", [site], unasked, base_hashes={}, tau=0.1, alpha=0, rule="fixed"), "load_model"),
    ):  # fmt: skip
        with pytest.raises(UwmError, match=words):
            call()


def test_shapes_beyond_any_memory_and_rows_of_a_number_are_refused():
    facts = {"encoder": "text", "base_hash": ""}
    one = torch.tensor([0])
    with pytest.raises(UwmError, match="shape of an edited parameter") as error:
        Scaling(shape=(10**4000, 10**4000), indices=one, alpha=0.0, candidates=0, **facts)
    assert len(str(error.value)) < 300
    with pytest.raises(UwmError, match="one number has no rows"):
        Delta(shape=(), delta=torch.zeros(0), rows=one[:0], **facts)
