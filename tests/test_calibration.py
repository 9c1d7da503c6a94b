"""The scoring pass on real (tiny) models, against the naive form of Eq. 8-10 fed one tuple at a time."""

from __future__ import annotations

import copy
import dataclasses
import math

import pytest
import torch
from PIL import Image
from tiny_models import TINY, indices_of, naive_score, site_inputs, tiny_clip, tiny_tuples

import uwmlib.editing.calibration as calibration
from uwmlib.editing import Scores, score
from uwmlib.editing.saliency import VARIANTS
from uwmlib.errors import UwmError
from uwmlib.files import load_tensors, save_tensors
from uwmlib.models.sites import KINDS
from uwmlib.models.vlm import Vlm
from uwmlib.tuples import ImageFiles


@pytest.fixture(scope="module", params=TINY)
def family(request) -> str:
    return request.param


@pytest.fixture(scope="module")
def scored(family) -> Scores:
    return score(TINY[family](), tiny_tuples(7), text=KINDS, vision=KINDS, batch_size=3, progress=False)


def sums_of(scores: Scores) -> dict[str, torch.Tensor]:
    return {
        f"{site}|{part}": tensor for site, sums in scores.sums.items() for part, tensor in vars(sums).items()
    }


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("encoder", ["text", "vision"])
def test_every_variant_equals_the_naive_form(scored, encoder, kind):
    vlm, tuples = scored.vlm, tiny_tuples(7)
    site = next(site for site in scored.sites if site.name == f"{encoder}.1.{kind}")
    safe, unsafe = (site_inputs(vlm, site, tuples, side) for side in ("safe", "unsafe"))
    for variant in VARIANTS:
        for prior in ((), ("text",), ("text", "vision")):
            expected = naive_score(safe, unsafe, vlm.weight(site), variant, prior=encoder in prior)
            got = scored.score_of(site.name, variant=variant, prior=prior).double()
            # The difference of two sums has the rounding error of the sums.
            scale = float(expected.abs().max())
            assert torch.allclose(
                got, expected, rtol=2e-3 if variant == "difference" else 2e-4, atol=2e-4 * scale
            )


def test_prior_is_by_default_that_of_the_paper(scored):
    for encoder, site in (("text", "text.0.out"), ("vision", "vision.0.fc2")):
        assert torch.equal(scored.score_of(site), scored.score_of(site, variant="released", prior=["text"]))
        plain = scored.score_of(site, prior=())
        assert torch.equal(scored.score_of(site), plain) == (encoder == "vision")
    assert torch.equal(scored.score_of("text.0.out", prior="text"), scored.score_of("text.0.out"))


def test_batch_size_changes_rounding_only(family, scored):
    for batch_size in (1, 64):
        other = score(
            TINY[family](), tiny_tuples(7), text=KINDS, vision=KINDS, batch_size=batch_size, progress=False
        )
        assert other.n == scored.n == 7
        for name, tensor in sums_of(scored).items():
            assert torch.allclose(sums_of(other)[name], tensor, rtol=1e-4), name


def test_sites_are_scored_alike_alone_and_together(family, scored):
    alone = score(TINY[family](), tiny_tuples(7), text=None, vision="value", batch_size=3, progress=False)
    assert {site.encoder for site in alone.sites} == {"vision"}
    for name, tensor in sums_of(alone).items():
        assert torch.allclose(tensor, sums_of(scored)[name], rtol=1e-5)


def test_model_is_left_alone(family):
    vlm = TINY[family]()
    before, flags = vlm.weights_hash(), [p.requires_grad for p in vlm.model.parameters()]
    score(vlm, tiny_tuples(2), progress=False)
    assert vlm.weights_hash() == before
    assert [p.requires_grad for p in vlm.model.parameters()] == flags


@pytest.fixture
def embedded(monkeypatch) -> dict[str, list[int]]:
    """How many texts and images each forward pass from now on embeds."""
    counts = {"encode_text": [], "encode_image": []}

    def counting(usual, seen):
        def counted(vlm, batch):
            seen.append(len(batch))
            return usual(vlm, batch)

        return counted

    for name, seen in counts.items():
        monkeypatch.setattr(Vlm, name, counting(getattr(Vlm, name), seen))
    return counts


def test_a_pass_embeds_the_tuples_and_nothing_else(embedded):
    score(tiny_clip(), tiny_tuples(5), batch_size=3, progress=False)
    assert embedded == {"encode_text": [6, 4], "encode_image": [6, 4]}


def test_half_precision_is_summed_in_float32():
    vlm = tiny_clip()
    exact = score(vlm, tiny_tuples(6), progress=False)
    vlm.model.bfloat16()
    rough = score(vlm, tiny_tuples(6), progress=False)
    for name, tensor in sums_of(rough).items():
        assert tensor.dtype == torch.float32
        assert torch.allclose(tensor, sums_of(exact)[name], rtol=0.2)
    assert rough.select(tau=0.1).n_weights > 0


def test_images_in_files(tmp_path):
    tuples = tiny_tuples(4)
    paths = {}
    for side, images in (("safe", tuples.safe_images), ("unsafe", tuples.unsafe_images)):
        paths[side] = [tmp_path / f"{side}{number}.png" for number in range(len(tuples))]
        for path, image in zip(paths[side], images, strict=True):
            Image.fromarray(image).save(path)
    files = {f"{side}_images": ImageFiles(paths[side]) for side in paths}
    from_files = score(
        tiny_clip(), dataclasses.replace(tuples, **files), text=None, batch_size=3, progress=False
    )
    from_arrays = score(tiny_clip(), tuples, text=None, batch_size=3, progress=False)
    for name, tensor in sums_of(from_arrays).items():
        assert torch.allclose(sums_of(from_files)[name], tensor, rtol=1e-4)


class Interrupted(Exception):
    pass


class StopsAt:
    """Tuples whose reading fails from row `stop` on, as a power cut would."""

    def __init__(self, tuples, stop: int) -> None:
        self.tuples, self.stop, self.fingerprint = tuples, stop, tuples.fingerprint
        self.safe_texts = tuples.safe_texts

    def __len__(self) -> int:
        return len(self.tuples)

    def __getitem__(self, rows: slice):
        if rows.start >= self.stop:
            raise Interrupted
        return self.tuples[rows]


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """The file of a finished pass over four tuples."""
    path = tmp_path_factory.mktemp("scores") / "scores.safetensors"
    score(tiny_clip(), tiny_tuples(4), text="value", progress=False).save(path)
    return path


class TestSaving:
    def test_resumed_pass_equals_uninterrupted_one(self, tmp_path):
        path, tuples = tmp_path / "scores.safetensors", tiny_tuples(10)
        whole = score(tiny_clip(), tuples, batch_size=2, progress=False)
        with pytest.raises(Interrupted):
            score(tiny_clip(), StopsAt(tuples, 6), batch_size=2, save_to=path, save_every=0, progress=False)
        kept = load_tensors(path, kind="scores")[1]["n"]
        assert 0 < kept <= 6
        with pytest.raises(UwmError, match=f"unfinished pass \\({kept} of 10"):
            Scores.load(path, tiny_clip())
        resumed = score(tiny_clip(), tuples, batch_size=2, save_to=path, progress=False)
        assert resumed.complete
        for name, tensor in sums_of(whole).items():
            assert torch.equal(sums_of(resumed)[name], tensor)

    def test_failure_inside_a_batch_leaves_the_last_whole_state(self, tmp_path):
        # A NaN image in the last batch fails after the text sites have been added.
        path, tuples = tmp_path / "scores.safetensors", tiny_tuples(4)
        vlm = tiny_clip()
        whole = score(vlm, tuples, batch_size=2, progress=False)

        broken = tiny_clip()
        embed = broken.model.encode_image
        calls = []

        def fails_second_time(*args, **kwargs):
            calls.append(1)
            if len(calls) == 2:
                raise Interrupted
            return embed(*args, **kwargs)

        broken._image_features = lambda pixels: fails_second_time(pixels, normalize=False)
        with pytest.raises(Interrupted):
            score(broken, tuples, batch_size=2, save_to=path, save_every=0, progress=False)
        resumed = score(vlm, tuples, batch_size=2, save_to=path, progress=False)
        for name, tensor in sums_of(whole).items():
            assert torch.equal(sums_of(resumed)[name], tensor)

    def test_finished_file_needs_no_forward_pass(self, tmp_path, embedded):
        path, tuples = tmp_path / "scores.safetensors", tiny_tuples(4)
        first = score(tiny_clip(), tuples, save_to=path, progress=False)
        assert embedded == {"encode_text": [8], "encode_image": [8]}
        again = score(tiny_clip(), StopsAt(tuples, 0), save_to=path, progress=False)
        loaded = Scores.load(path, tiny_clip())
        assert embedded == {"encode_text": [8], "encode_image": [8]}
        for other in (again, loaded):
            assert other.sites == first.sites and other.n == 4 and other.base_hashes == first.base_hashes
            for name, tensor in sums_of(first).items():
                assert torch.equal(sums_of(other)[name], tensor)

    def test_value_rows_survive_the_file(self, tmp_path):
        path = tmp_path / "scores.safetensors"
        first = score(tiny_clip(), tiny_tuples(3), text="value", vision=None, save_to=path, progress=False)
        assert first.sites[0].rows is not None
        loaded = Scores.load(path, tiny_clip())
        assert loaded.sites == first.sites
        a, b = (indices_of(scores.select(tau=0.1)) for scores in (first, loaded))
        assert all(torch.equal(a[name], b[name]) for name in a)

    @pytest.mark.parametrize("changed", ["weights", "tuples", "sites", "code"])
    def test_file_of_another_pass_is_refused(self, tmp_path, changed, monkeypatch):
        path = tmp_path / "scores.safetensors"
        score(tiny_clip(), tiny_tuples(3), save_to=path, progress=False)
        before = path.read_bytes()
        vlm = tiny_clip(seed=1 if changed == "weights" else 0)
        tuples = tiny_tuples(3, seed=1 if changed == "tuples" else 0)
        if changed == "code":
            monkeypatch.setattr(calibration, "code_hash", lambda *parts: "another version")
        with pytest.raises(UwmError, match=f"another pass \\(its {changed} differ"):
            score(vlm, tuples, vision="fc1" if changed == "sites" else "fc2", save_to=path, progress=False)
        assert path.read_bytes() == before

    def test_scores_are_refused_for_other_weights(self, tmp_path):
        path = tmp_path / "scores.safetensors"
        score(tiny_clip(), tiny_tuples(3), progress=False).save(path)
        with pytest.raises(UwmError, match="other weights"):
            Scores.load(path, tiny_clip(seed=1))

    @pytest.fixture
    def crafted(self, tmp_path, finished):
        """Write a finished pass after a change of its tensors and metadata, and return the path."""

        def crafted(change):
            tensors, metadata = load_tensors(finished, kind="scores")
            change(tensors, metadata)
            save_tensors(tmp_path / "crafted.safetensors", tensors, kind="scores", metadata=metadata)
            return tmp_path / "crafted.safetensors"

        return crafted

    @pytest.mark.parametrize("key", ["n", "sites", "base_hashes", "provenance", "more"])
    @pytest.mark.parametrize(
        "value", ["lacking", None, "x", [], {}, [1], {"x": 3}, -1, 1.5, True, 10**30, math.nan]
    )
    def test_headers_that_no_pass_has_are_refused(self, crafted, key, value):
        if (key, value) == ("more", "lacking"):
            return

        def change(_, metadata):
            metadata.pop(key, None)
            if value != "lacking":
                metadata[key] = value

        with pytest.raises(UwmError):
            Scores.load(crafted(change), tiny_clip())

    @pytest.mark.parametrize(
        ("key", "values"),
        [
            ("encoder", (None, "audio", "vision", 3)),
            ("layer", (None, -1, "0", 1.5, 1, 99, 10**30)),
            ("kind", (None, "out", 3)),
            ("parameter", (None, "none", 3, "logit_scale", "visual.conv1.weight")),
            ("rows", (None, "ab", [1], [0, 32], [-32, -1], [0, 10**30], [3, 1], 3, [0.5, 2], [[64], [96]])),
            ("more", (1,)),
        ],
    )
    def test_sites_that_the_model_does_not_have_are_refused(self, crafted, key, values):
        path = crafted(lambda tensors, metadata: None)
        tensors, metadata = load_tensors(path, kind="scores")
        site = metadata["sites"][0]
        for value in values:
            sites = [site | {key: value}, *metadata["sites"][1:]]
            save_tensors(path, tensors, kind="scores", metadata=metadata | {"sites": sites})
            with pytest.raises(UwmError):
                Scores.load(path, tiny_clip())

    @pytest.mark.parametrize("n", [0, -4, 1.5, "4", True, None])
    def test_numbers_of_tuples_that_no_pass_has_are_refused(self, crafted, n):
        def change(_, metadata):
            metadata["n"] = metadata["provenance"]["n_tuples"] = n

        with pytest.raises(UwmError):
            Scores.load(crafted(change), tiny_clip())

    @pytest.mark.parametrize(
        "change",
        [
            torch.Tensor.double,
            torch.Tensor.int,
            torch.Tensor.flatten,
            torch.Tensor.sum,
            lambda sums: sums[:1],
            None,
        ],
    )
    def test_sums_of_another_kind_are_refused_also_by_a_pass_that_goes_on(self, crafted, change):
        def change_first(tensors, metadata):
            metadata["n"] = 2
            first = next(iter(tensors))
            sums = tensors.pop(first)
            if change:
                tensors[first] = change(sums)

        path = crafted(change_first)
        with pytest.raises(UwmError, match="does not hold"):
            score(tiny_clip(), tiny_tuples(4), text="value", save_to=path, progress=False)

    def test_damaged_file_is_refused(self, tmp_path):
        path = tmp_path / "scores.safetensors"
        score(tiny_clip(), tiny_tuples(3), save_to=path, progress=False)
        path.write_bytes(path.read_bytes()[:-40])
        with pytest.raises(UwmError, match="not a whole safetensors file"):
            score(tiny_clip(), tiny_tuples(3), save_to=path, progress=False)

    def test_other_kind_of_file_is_refused(self, tmp_path):
        path = tmp_path / "edit.safetensors"
        save_tensors(path, {}, kind="weight-edit", metadata={})
        with pytest.raises(UwmError, match="'weight-edit', not 'scores'"):
            score(tiny_clip(), tiny_tuples(3), save_to=path, progress=False)


@pytest.fixture(scope="module")
def scores() -> Scores:
    return score(tiny_clip(), tiny_tuples(6), text=["out", "value"], vision=["fc1", "fc2"], progress=False)


class TestSelecting:
    @pytest.mark.parametrize("prior", [(), ("text", "vision")])
    def test_indices_are_the_top_of_each_layer(self, scores, prior):
        edit = scores.select(tau=0.2, alpha=-1, rule="fixed", variant="paper", prior=prior)
        for site in scores.sites:
            flat = scores.score_of(site.name, variant="paper", prior=prior).flatten()
            top = flat.sort(descending=True).indices[: flat.numel() - int(0.8 * flat.numel())].sort().values
            start = site.rows[0] * scores.vlm.weight(site).shape[1] if site.rows else 0
            assert torch.equal(edit.changes[site.parameter].indices - start, top)

    def test_value_indices_point_at_value_rows(self, scores):
        edit = scores.select(tau=0.2, text="value", vision=None)
        for name, indices in indices_of(edit).items():
            parameter = scores.vlm.model.get_parameter(name)
            assert parameter.shape[0] == 3 * parameter.shape[1]  # query, key and value rows
            assert indices.min() >= parameter.numel() * 2 // 3
            assert edit.changes[name].candidates == parameter.numel() // 3

    def test_encoders_and_kinds_can_be_left_out(self, scores):
        def names(**options) -> set[str]:
            return set(scores.select(tau=0.1, **options).changes)

        everything = names()
        assert everything == {site.parameter for site in scores.sites}
        only_text, only_vision = names(vision=None), names(text=None)
        assert only_text | only_vision == everything and not only_text & only_vision
        assert names(text="out", vision=["fc2"]) == {
            site.parameter for site in scores.sites if site.kind in ("out", "fc2")
        }

    def test_tau_alpha_and_rule_per_encoder(self, scores):
        edit = scores.select(
            tau={"text": 0.1, "vision": 0.3},
            alpha={"text": 0.0, "vision": -0.5},
            rule={"text": "fixed", "vision": "adaptive"},
        )
        text = scores.select(tau=0.1, alpha=0.0, rule="fixed", vision=None)
        vision = scores.select(tau=0.3, alpha=-0.5, text=None)
        for part in (text, vision):
            for name, change in part.changes.items():
                assert torch.equal(edit.changes[name].indices, change.indices)
                assert edit.changes[name].alpha == change.alpha

    def test_edited_weights_cannot_be_selected_from(self, scores):
        with scores.select(tau=0.1, alpha=-1, vision=None).applied(scores.vlm):
            scores.select(tau=0.1, text=None)  # the other encoder is as scored
            with pytest.raises(UwmError, match="another edit may be applied"):
                scores.select(tau=0.1)
            with pytest.raises(UwmError, match="another edit may be applied"):
                scores.score_of("text.0.out")
        scores.select(tau=0.1)

    @pytest.mark.parametrize(
        ("options", "message"),
        [
            ({"tau": 1.0}, "tau is 1.0"),
            ({"tau": {"text": 0.1}}, "tau has no value for the vision encoder"),
            ({"tau": {"txt": 0.1, "vision": 0.1}}, "'text'"),
            ({"tau": 0.1, "variant": "ratio"}, "There is no variant 'ratio'"),
            ({"tau": 0.1, "rule": "fix"}, "'fixed'"),
            ({"tau": 0.1, "prior": ["txt"]}, "'text'"),
            ({"tau": 0.1, "alpha": float("nan")}, "alpha"),
            ({"tau": 0.1, "text": "fc2"}, "No text sites of kind 'fc2' were scored"),
            ({"tau": 0.1, "text": "outt"}, "'out'"),
            ({"tau": 0.1, "text": None, "vision": None}, "No site is left"),
        ],
    )
    def test_bad_options_are_refused(self, scores, options, message):
        with pytest.raises(UwmError, match=message):
            scores.select(**options)

    def test_unknown_site_is_answered_with_the_nearest(self, scores):
        with pytest.raises(UwmError, match=r"'vision\.0\.fc2'"):
            scores.score_of("vision.0.fc22")


class TestErrors:
    @pytest.mark.parametrize("batch_size", [0, -1, 2.0])
    def test_batch_size(self, batch_size):
        with pytest.raises(UwmError, match="batch_size"):
            score(tiny_clip(), tiny_tuples(2), batch_size=batch_size, progress=False)

    def test_unknown_kind(self):
        with pytest.raises(UwmError, match="out"):
            score(tiny_clip(), tiny_tuples(2), text="out_proj", progress=False)
        with pytest.raises(UwmError, match="No kind of site"):
            score(tiny_clip(), tiny_tuples(2), text=None, vision=None, progress=False)

    def test_nan_activations_name_site_and_tuples(self):
        vlm, tuples = tiny_clip(), tiny_tuples(6)
        ids = vlm.tokenize(tuples[4:5].unsafe_texts)[0]
        others = torch.cat([vlm.tokenize(tuples[:4].safe_texts), vlm.tokenize(tuples[:4].unsafe_texts)])
        own = next(word for word in ids.tolist() if 1 < word < 299 and word not in others)
        with torch.no_grad():
            vlm.model.token_embedding.weight[own] = float("nan")
        with pytest.raises(UwmError, match=r"text\.0\.out has NaN or infinite inputs in tuples 4 to 5"):
            score(vlm, tuples, batch_size=2, progress=False)

    @pytest.mark.parametrize("side", ["safe", "unsafe"])
    def test_caption_with_one_token_is_named(self, side):
        vlm, tuples = tiny_clip(), tiny_tuples(5)
        full = vlm._mask_rule
        texts = getattr(tuples, f"{side}_texts")
        texts[3] = "lonely"
        lonely = vlm.tokenize(["lonely"])[0]

        def first_token_only(tokens):
            mask = full(tokens)
            alone = (tokens == lonely).all(dim=1)
            mask[alone, 1:] = False
            return mask

        vlm._mask_rule = first_token_only
        with pytest.raises(UwmError, match=f"The {side} caption of tuple 3 has fewer than two tokens"):
            score(vlm, tuples, batch_size=2, vision=None, progress=False)

    def test_layer_that_is_never_called(self):
        vlm = tiny_clip()
        block = vlm.model.visual.transformer.resblocks[1]
        idle = copy.deepcopy(block.mlp)
        block.mlp.forward = lambda x: idle(x)  # the registered layers see nothing
        with pytest.raises(UwmError, match=r"vision\.1\.fc2"):
            score(vlm, tiny_tuples(2), text=None, progress=False)


def test_progress_goes_to_stderr(capsys):
    score(tiny_clip(), tiny_tuples(2))
    shown = capsys.readouterr()
    assert shown.out == "" and "2/2" in shown.err


def test_names_in_place_of_what_they_name_are_refused():
    for vlm, tuples, words in (
        ("mini-ViT-L-14", None, "load_model"),
        (tiny_clip(), "mini-visu", "load_tuples"),
    ):
        with pytest.raises(UwmError, match=words):
            score(vlm, tuples, progress=False)
