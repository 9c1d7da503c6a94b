"""Edits: applied and undone bit for bit, refused on anything but their base, and small whole files."""

from __future__ import annotations

import dataclasses
import math

import numpy as np
import pytest
import torch
from tiny_models import TINY, bits, indices_of, tiny_clip, tiny_tuples

from uwmlib.editing import Scaling, WeightEdit, choose_weights, score
from uwmlib.editing.weight_edit import parameter_hash
from uwmlib.errors import UwmError
from uwmlib.files import load_tensors, save_tensors
from uwmlib.models.loading import load_weights


def edit_of(vlm, *, alpha=-1.0, tau=0.2, **options) -> WeightEdit:
    return score(vlm, tiny_tuples(4), progress=False, **options).select(tau=tau, alpha=alpha)


def changed(edit: WeightEdit, **facts) -> WeightEdit:
    """The same edit with other facts about its parameters."""
    changes = {name: dataclasses.replace(old, **facts) for name, old in edit.changes.items()}
    return WeightEdit(changes, edit.description)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("alpha", [-1.0, 0.0, 0.3, 1.0])
def test_applied_multiplies_and_undoes_bit_for_bit(alpha, dtype):
    vlm = tiny_clip()
    vlm.model.to(dtype)
    edit = edit_of(vlm, alpha=alpha, text=["value", "out"])
    assert {change.alpha for change in edit.changes.values()} == {alpha}
    before = bits(vlm)
    expected = {}
    for name, parameter in vlm.model.named_parameters():
        expected[name] = parameter.detach().clone()
        for index in indices_of(edit).get(name, torch.empty(0)).tolist():
            expected[name].view(-1)[index] *= alpha
    with edit.applied(vlm) as same:
        assert same is vlm
        for name, parameter in vlm.model.named_parameters():
            assert torch.equal(parameter, expected[name]), name
        assert (bits(vlm) == before) == (alpha == 1.0)
    assert bits(vlm) == before


@pytest.mark.parametrize("family", TINY)
def test_edit_changes_what_the_model_computes(family):
    vlm, tuples = TINY[family](), tiny_tuples(4)
    edit = edit_of(vlm, text="out", vision="fc2")

    def embed() -> torch.Tensor:
        with torch.inference_mode():
            text = vlm.encode_text(vlm.tokenize(tuples.safe_texts))
            return torch.cat([text, vlm.encode_image(vlm.preprocess(tuples.safe_images))])

    before = embed()
    with edit.applied(vlm):
        inside = embed()
    assert ((inside - before).abs().amax(dim=1) > 1e-6).all()  # every text and every image
    assert torch.equal(embed(), before)


def test_exception_inside_the_block_still_undoes():
    vlm = tiny_clip()
    edit, before = edit_of(vlm, alpha=0.0), bits(vlm)
    with pytest.raises(KeyError, match="inside"), edit.applied(vlm):
        assert bits(vlm) != before
        raise KeyError("inside")
    assert bits(vlm) == before


def test_failure_while_applying_undoes_the_part_that_was_done():
    vlm = tiny_clip()
    edit, before = edit_of(vlm), bits(vlm)
    # No edit can be made with such a factor, so that nothing finds it before the last parameter's turn.
    object.__setattr__(list(edit.changes.values())[-1], "alpha", "half")
    with pytest.raises(TypeError), edit.applied(vlm):
        pass
    assert bits(vlm) == before


def test_gradients_and_inference_mode_do_not_matter():
    vlm = tiny_clip()
    edit, before = edit_of(vlm), bits(vlm)
    with edit.applied(vlm):
        loss = vlm.encode_text(vlm.tokenize(["a word"])).sum()
        loss.backward()
    assert all(parameter.grad_fn is None and parameter.is_leaf for parameter in vlm.model.parameters())
    with torch.inference_mode(), edit.applied(vlm):
        pass
    assert bits(vlm) == before


class TestBase:
    def test_edit_is_refused_on_other_weights_and_nothing_changes(self):
        edit, other = edit_of(tiny_clip()), tiny_clip(seed=1)
        before = bits(other)
        with pytest.raises(UwmError, match="not those that were scored"), edit.applied(other):
            pass
        assert bits(other) == before

    def test_all_parameters_are_checked_before_the_first_changes(self):
        vlm = tiny_clip()
        edit = edit_of(vlm)
        with torch.no_grad():
            vlm.model.get_parameter(list(edit.changes)[-1])[0, 0] += 1
        before = bits(vlm)
        with pytest.raises(UwmError, match="not those that were scored"), edit.applied(vlm):
            pass
        assert bits(vlm) == before

    def test_edit_is_refused_in_another_precision(self):
        vlm = tiny_clip()
        edit = edit_of(vlm)
        vlm.model.bfloat16()
        with pytest.raises(UwmError, match="another precision"), edit.applied(vlm):
            pass

    def test_edit_is_refused_on_another_architecture(self):
        edit = edit_of(tiny_clip())
        with (
            pytest.raises(UwmError, match="this edit is for another model"),
            edit.applied(TINY["transformers"]()),
        ):
            pass
        wider = changed(edit, shape=(10**3, 10**3))
        with pytest.raises(UwmError, match="this edit is for another model"), wider.applied(tiny_clip()):
            pass


class TestSeveral:
    def test_disjoint_edits_nest_and_merge(self):
        vlm = tiny_clip()
        text, vision = edit_of(vlm, vision=None, alpha=0.0), edit_of(vlm, text=None, alpha=-1)
        before = bits(vlm)
        with text.applied(vlm):
            with vision.applied(vlm):
                nested = bits(vlm)
            assert bits(vlm) != nested
        assert bits(vlm) == before
        for merged in (text.merged(vision), vision.merged(text)):
            with merged.applied(vlm):
                assert bits(vlm) == nested
            assert merged.n_weights == text.n_weights + vision.n_weights
            assert merged.changes == text.changes | vision.changes

    def test_two_edits_of_one_parameter_are_refused(self):
        vlm = tiny_clip()
        first, second = edit_of(vlm), edit_of(vlm, tau=0.1)
        before = bits(vlm)
        with first.applied(vlm):
            inside = bits(vlm)
            with pytest.raises(UwmError, match="another edit may be applied"), second.applied(vlm):
                pass
            assert bits(vlm) == inside
        assert bits(vlm) == before
        with pytest.raises(UwmError, match="cannot be merged"):
            first.merged(second)


class TestShare:
    def test_share_counts_the_scored_weights_of_each_encoder(self):
        vlm = tiny_clip()
        scores = score(vlm, tiny_tuples(4), text=["value"], vision="fc2", progress=False)
        edit = scores.select(tau={"text": 0.25, "vision": 0.125}, rule="fixed")
        # 2 layers of 32 x 32 value weights, 2 layers of 32 x 128 in fc2; no ties.
        assert edit.n_weights == 2 * (256 + 512)
        assert edit.share() == {"text": 0.25, "vision": 0.125}
        assert "1536 weights in 4 parameters: text 25.00%, vision 12.50%" in repr(edit)

    def test_one_encoder_alone(self):
        assert set(edit_of(tiny_clip(), vision=None).share()) == {"text"}


class TestFiles:
    @pytest.fixture
    def edit(self) -> WeightEdit:
        scores = score(tiny_clip(), tiny_tuples(4), text="value", progress=False)
        return scores.select(tau=0.2, alpha={"text": 0.5, "vision": -1})

    def test_round_trip(self, edit, tmp_path):
        path = tmp_path / "edit.safetensors"
        edit.save(path)
        loaded = WeightEdit.load(path)
        assert loaded.description == edit.description
        assert loaded.changes.keys() == edit.changes.keys()
        for name, change in edit.changes.items():
            found = vars(loaded.changes[name]) | {"indices": loaded.changes[name].indices.tolist()}
            assert found == vars(change) | {"indices": change.indices.tolist()}
        vlm = tiny_clip()
        with edit.applied(vlm):
            expected = bits(vlm)
        with loaded.applied(vlm):
            assert bits(vlm) == expected

    def test_tampered_and_truncated_files_are_refused(self, edit, tmp_path):
        path = tmp_path / "edit.safetensors"
        edit.save(path)
        whole = path.read_bytes()
        path.write_bytes(whole[:-10])
        with pytest.raises(UwmError, match="not a whole safetensors file"):
            WeightEdit.load(path)
        path.write_bytes(whole[:-1] + bytes([whole[-1] ^ 1]))
        with pytest.raises(UwmError, match="was changed after it was written"):
            WeightEdit.load(path)
        at = whole.index(b"0.5")
        path.write_bytes(whole[:at] + b"9.5" + whole[at + 3 :])
        with pytest.raises(UwmError, match="was changed after it was written"):
            WeightEdit.load(path)

    def test_size_of_a_file(self, tmp_path):
        # The ViT-L-14's vision fc2 layers hold 4.2 million weights each, of which the paper edits some 2%.
        indices = torch.arange(0, 2**22, 50)
        facts = {"encoder": "vision", "base_hash": "", "alpha": -1.0, "candidates": 2**22}
        edit = WeightEdit({"w": Scaling(indices=indices, shape=(2**10, 2**12), **facts)})
        edit.save(tmp_path / "edit.safetensors")
        assert (tmp_path / "edit.safetensors").stat().st_size < 4.02 * len(indices)
        assert torch.equal(WeightEdit.load(tmp_path / "edit.safetensors").changes["w"].indices, indices)

    def test_indices_beyond_int32_survive(self, tmp_path):
        indices = torch.tensor([5, 2**31 + 7])
        facts = {"encoder": "vision", "base_hash": "", "alpha": -1.0, "candidates": 2**32}
        edit = WeightEdit({"w": Scaling(indices=indices, shape=(2**16, 2**16), **facts)})
        edit.save(tmp_path / "edit.safetensors")
        assert torch.equal(WeightEdit.load(tmp_path / "edit.safetensors").changes["w"].indices, indices)

    @pytest.mark.parametrize("indices", [[1, 0], [5000, 60000], [-3, 5]])
    def test_indices_out_of_order_or_range_are_refused(self, edit, tmp_path, indices):
        # A whole file with a right hash, as a faulty program might write it.
        path = tmp_path / "edit.safetensors"
        edit.save(path)
        tensors, metadata = load_tensors(path, kind="weight-edit")
        name = next(iter(tensors))
        tensors[name] = torch.tensor(indices, dtype=torch.int32)
        save_tensors(path, tensors, kind="weight-edit", metadata=metadata)
        with pytest.raises(UwmError, match="Parameter .* in .*edit.safetensors: .*ascend strictly"):
            WeightEdit.load(path)

    def test_other_version_is_refused(self, edit, tmp_path):
        path = tmp_path / "edit.safetensors"
        edit.save(path)
        tensors, metadata = load_tensors(path, kind="weight-edit")
        save_tensors(path, tensors, kind="weight-edit", metadata=metadata | {"format_version": 1})
        with pytest.raises(UwmError, match="has format version 1, not 2: make the edit again"):
            WeightEdit.load(path)

    @pytest.mark.parametrize("key", ["kind", "encoder", "alpha", "base_hash", "shape", "candidates"])
    @pytest.mark.parametrize("value", ["lacking", None, "x", [], {}, True, 10**30, math.nan, -3, 0, 1.5])
    def test_facts_that_no_edit_has_are_refused(self, edit, tmp_path, key, value):
        finite = type(value) in (int, float) and value == value
        if (key, value) == ("base_hash", "x") or (key == "alpha" and finite):
            return  # nothing wrong with these, or nothing that the file alone can tell
        path = tmp_path / "edit.safetensors"
        edit.save(path)
        tensors, metadata = load_tensors(path, kind="weight-edit")
        facts = next(iter(metadata["changes"].values()))
        facts.pop(key)
        if value != "lacking":
            facts[key] = value
        save_tensors(path, tensors, kind="weight-edit", metadata=metadata)
        with pytest.raises(UwmError):
            WeightEdit.load(path)

    @pytest.mark.parametrize("key", ["changes", "description", "format_version", "more"])
    @pytest.mark.parametrize("value", ["lacking", None, "x", [], [[1, 2]], {"x": 3}, 3])
    def test_headers_that_no_edit_has_are_refused(self, edit, tmp_path, key, value):
        if (key, value) in (("description", {"x": 3}), ("more", "lacking")):
            return
        path = tmp_path / "edit.safetensors"
        edit.save(path)
        tensors, metadata = load_tensors(path, kind="weight-edit")
        metadata.pop(key, None)
        if value != "lacking":
            metadata[key] = value
        save_tensors(path, tensors, kind="weight-edit", metadata=metadata)
        with pytest.raises(UwmError):
            WeightEdit.load(path)

    @pytest.mark.parametrize(
        "change", [torch.Tensor.float, torch.Tensor.bfloat16, lambda indices: indices[None]]
    )
    def test_indices_of_another_kind_are_refused(self, edit, tmp_path, change):
        path = tmp_path / "edit.safetensors"
        edit.save(path)
        tensors, metadata = load_tensors(path, kind="weight-edit")
        name = next(iter(tensors))
        save_tensors(path, tensors | {name: change(tensors[name])}, kind="weight-edit", metadata=metadata)
        with pytest.raises(UwmError, match="Parameter .* in .*edit.safetensors: .*int64"):
            WeightEdit.load(path)

    @pytest.mark.parametrize("key", ["nobody|indices", "w", "{}|delta", "{}|alpha"])
    def test_tensors_that_no_edit_has_are_refused(self, edit, tmp_path, key):
        path = tmp_path / "edit.safetensors"
        edit.save(path)
        tensors, metadata = load_tensors(path, kind="weight-edit")
        tensors[key.format(next(iter(edit.changes)))] = torch.ones(3)
        save_tensors(path, tensors, kind="weight-edit", metadata=metadata)
        with pytest.raises(UwmError, match="Parameter .* in .*edit.safetensors: "):
            WeightEdit.load(path)

    def test_scores_file_is_refused(self, tmp_path):
        path = tmp_path / "scores.safetensors"
        score(tiny_clip(), tiny_tuples(2), save_to=path, progress=False)
        with pytest.raises(UwmError, match="'scores', not 'weight-edit'"):
            WeightEdit.load(path)

    @pytest.mark.parametrize("family", TINY)
    def test_export_is_the_edited_model(self, family, tmp_path):
        vlm, path = TINY[family](), tmp_path / "edited.safetensors"
        edit, before = edit_of(vlm), bits(vlm)
        edit.export(vlm, path)
        assert bits(vlm) == before
        fresh = TINY[family](seed=1)
        load_weights(fresh.model, path)
        with edit.applied(vlm):
            assert bits(fresh) == bits(vlm)
            assert fresh.weights_hash() == vlm.weights_hash()

    def test_export_on_the_wrong_model_writes_nothing(self, edit, tmp_path):
        with pytest.raises(UwmError, match="not those that were scored"):
            edit.export(tiny_clip(seed=1), tmp_path / "edited.safetensors")
        assert list(tmp_path.iterdir()) == []


class TestConstruction:
    FACTS = {"encoder": "text", "base_hash": "", "shape": (2, 5), "alpha": -1.0, "candidates": 10}

    @pytest.mark.parametrize("indices", [[-1, 2], [2, 10], [3, 3], [4, 2]])
    def test_bad_indices(self, indices):
        with pytest.raises(UwmError, match="ascend strictly within 0 to 9"):
            Scaling(indices=torch.tensor(indices), **self.FACTS)

    def test_more_edited_than_scored_is_refused(self):
        with pytest.raises(UwmError, match="3 weights are edited but 2 were scored"):
            Scaling(indices=torch.tensor([1, 2, 5]), **self.FACTS | {"candidates": 2})

    @pytest.mark.parametrize(
        "indices", [[1, 2], None, "a", np.array([1]), torch.tensor([1], dtype=torch.int32), torch.ones(1)]
    )
    def test_indices_are_a_long_tensor(self, indices):
        with pytest.raises(UwmError, match="int64"):
            Scaling(indices=indices, **self.FACTS)

    def test_what_is_no_edit_or_no_model_is_named(self):
        edit = WeightEdit({"w": Scaling(indices=torch.tensor([1]), **self.FACTS)})
        with pytest.raises(UwmError, match="WeightEdit.load"):
            edit.merged("edit.safetensors")
        with pytest.raises(UwmError, match="load_model"), edit.applied("mini-ViT-L-14"):
            pass
        for changes in (None, {"w": torch.tensor([1])}, [edit.changes["w"]]):
            with pytest.raises(UwmError, match="one change for each parameter"):
                WeightEdit(changes)

    @pytest.mark.parametrize("alpha", [float("nan"), float("inf"), -float("inf")])
    def test_alpha_must_be_finite(self, alpha):
        with pytest.raises(UwmError, match="alpha"):
            edit_of(tiny_clip(), alpha=alpha)

    def test_no_weights_at_all(self):
        vlm = tiny_clip()
        edit = WeightEdit({})
        before = bits(vlm)
        with edit.applied(vlm):
            assert bits(vlm) == before
        assert edit.n_weights == 0 and edit.share() == {}

    def test_scores_must_fit_the_weights(self):
        vlm = tiny_clip()
        site = vlm.sites(text="out")[0]
        options = {"tau": 0.5, "alpha": 0, "rule": "fixed"}
        hashes = {site.parameter: parameter_hash(vlm, site.parameter)}
        with pytest.raises(UwmError, match="one score per weight"):
            choose_weights(vlm, [site], lambda _: torch.ones(2, 2), base_hashes=hashes, **options)
        with pytest.raises(UwmError, match="scored twice"):
            choose_weights(vlm, [site, site], lambda _: torch.rand(32, 32), base_hashes=hashes, **options)
        with pytest.raises(UwmError, match="no base hash"):
            choose_weights(vlm, [site], lambda _: torch.rand(32, 32), base_hashes={}, **options)


@pytest.mark.parametrize("alpha", ["x", "-1", None, [1], float("nan")])
def test_an_alpha_that_is_no_finite_number_is_refused_by_its_name(alpha):
    with pytest.raises(UwmError, match="^alpha is .*: give a (finite )?number"):
        edit_of(tiny_clip(), alpha=alpha)


@pytest.mark.parametrize(
    "tau", [np.float32(0.25), torch.tensor(0.25), {"text": 0.25, "vision": np.float32(0.25)}]
)
def test_numbers_of_numpy_and_torch_select_and_can_be_saved(tmp_path, tau):
    edit = edit_of(tiny_clip(), tau=tau, alpha=np.float32(-1))
    edit.save(tmp_path / "edit.safetensors")
    found = WeightEdit.load(tmp_path / "edit.safetensors")
    want = {"text": 0.25, "vision": 0.25} if isinstance(tau, dict) else 0.25
    assert found.description["tau"] == want
    assert {name: indices.tolist() for name, indices in indices_of(found).items()} == {
        name: indices.tolist() for name, indices in indices_of(edit_of(tiny_clip(), tau=0.25)).items()
    }


@pytest.mark.parametrize("options", [{"text": 3}, {"vision": [3]}, {"prior": 3}])
def test_names_that_are_no_text_are_refused(options):
    scores = score(tiny_clip(), tiny_tuples(2), progress=False)
    with pytest.raises(UwmError, match="3"):
        scores.select(tau=0.2, **options)
