"""The cache: the same numbers as without it, nothing twice, and never a stale one."""

from __future__ import annotations

import numpy as np
import pytest
import torch

import uwmlib as uwm
from uwmlib import cache as cache_module
from uwmlib import evaluation


@pytest.fixture(scope="module")
def vlm():
    return uwm.load_model("mini-ViT-L-14")


@pytest.fixture(scope="module")
def tuples():
    return uwm.load_tuples("mini-visu", split="test", n=24)


@pytest.fixture(scope="module")
def scores(vlm):
    return uwm.score(vlm, uwm.load_tuples("mini-visu", split="train", n=16), progress=False)


@pytest.fixture
def cache(tmp_path):
    return uwm.Cache(tmp_path / "cache")


def test_kept_tensors_are_made_once(cache):
    calls = []

    def make():
        calls.append(1)
        return {"x": torch.arange(3.0)}

    for _ in range(3):
        assert torch.equal(cache.tensors({"a": 1}, make)["x"], torch.arange(3.0))
    cache.tensors({"a": 2}, make)
    assert len(calls) == 2 and (cache.hits, cache.misses) == (2, 2)


def test_evaluation_is_the_same_with_and_without(vlm, tuples, cache):
    plain = uwm.evaluate(vlm, tuples)
    for _ in range(2):
        assert uwm.evaluate(vlm, tuples, cache=cache).as_percent() == plain.as_percent()
    assert (cache.hits, cache.misses) == (4, 4)


@pytest.mark.parametrize("encoder", ["text", "vision"])
def test_the_other_encoder_is_not_embedded_again(vlm, tuples, scores, cache, encoder):
    uwm.embed_tuples(vlm, tuples, cache=cache)
    other = {"text": "vision", "vision": "text"}[encoder]
    with scores.select(tau=0.2, **{other: None}).applied(vlm):
        edited = uwm.embed_tuples(vlm, tuples, cache=cache)
        direct = uwm.embed_tuples(vlm, tuples)
    # two parts of the edited encoder are new, the two of the other one are found
    assert (cache.hits, cache.misses) == (2, 6)
    assert all(torch.equal(edited[part], direct[part]) for part in direct)


def test_any_change_of_weights_is_noticed(vlm, tuples, cache):
    before = uwm.embed_tuples(vlm, tuples, cache=cache)
    parameter = vlm.model.get_parameter("logit_scale")
    kept = parameter.detach().clone()
    try:
        parameter.data += 1  # belongs to neither encoder's blocks, so it counts on both sides
        uwm.embed_tuples(vlm, tuples, cache=cache)
    finally:
        parameter.data.copy_(kept)
    assert cache.misses == 8
    assert torch.equal(uwm.embed_tuples(vlm, tuples, cache=cache)["safe_text"], before["safe_text"])
    assert cache.hits == 4


def test_other_images_captions_and_code_are_noticed(vlm, tuples, cache, monkeypatch):
    evaluation.embed_images(vlm, tuples.safe_images, cache=cache)
    changed = np.array(tuples.safe_images)
    changed[0, 0, 0, 0] ^= 1
    evaluation.embed_images(vlm, changed, cache=cache)
    evaluation.embed_texts(vlm, tuples.safe_texts, cache=cache)
    evaluation.embed_texts(vlm, list(reversed(tuples.safe_texts)), cache=cache)
    monkeypatch.setattr(evaluation, "code_hash", lambda *parts: "another version")
    evaluation.embed_images(vlm, changed, cache=cache)
    assert (cache.hits, cache.misses) == (0, 5)


def test_another_machine_or_version_has_results_of_its_own(cache, monkeypatch):
    here = cache.path({"a": 1})
    monkeypatch.setattr(cache_module, "environment", lambda: {"capability": "none"})
    assert cache.path({"a": 1}) != here


def test_code_hash_follows_the_sources(tmp_path, monkeypatch):
    (tmp_path / "part").mkdir()
    (tmp_path / "part" / "a.py").write_text("x = 1")
    monkeypatch.setattr(cache_module, "__file__", str(tmp_path / "cache.py"))
    first = cache_module._code_hash.__wrapped__(("part",))
    (tmp_path / "part" / "a.py").write_text("x = 2")
    assert cache_module._code_hash.__wrapped__(("part",)) != first


def test_damaged_results_are_made_again(cache):
    cache.tensors({"a": 1}, lambda: {"x": torch.ones(4)})
    path = cache.path({"a": 1})
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)
    assert torch.equal(cache.tensors({"a": 1}, lambda: {"x": torch.ones(4)})["x"], torch.ones(4))
    assert cache.misses == 2


def sums_of(scores):
    return {f"{name}.{part}": x for name, sums in scores.sums.items() for part, x in vars(sums).items()}


def test_one_pass_serves_every_later_choice_of_sites(vlm, tuples, cache, monkeypatch):
    from uwmlib.models.vlm import Vlm

    plain = uwm.score(vlm, tuples, text=["out", "fc1"], vision="fc2", progress=False)
    uwm.score(vlm, tuples, text="out", vision="fc2", progress=False, cache=cache)
    first = cache.misses
    later = uwm.score(vlm, tuples, text=["out", "fc1"], vision="fc2", progress=False, cache=cache)
    assert first == 2 and cache.misses == 3
    assert later.sites == plain.sites and later.base_hashes == plain.base_hashes
    ours, theirs = sums_of(later), sums_of(plain)
    assert all(torch.equal(ours[key], theirs[key]) for key in theirs)
    monkeypatch.setattr(Vlm, "encode_image", None)
    uwm.score(vlm, tuples, text=["fc1"], vision="fc2", progress=False, cache=cache)


def test_interrupted_pass_goes_on(vlm, tuples, cache, monkeypatch):
    from uwmlib.editing import calibration

    whole = uwm.score(vlm, tuples, batch_size=8, progress=False)
    add, calls = calibration._add_batch, []

    def interrupted(*arguments):
        if len(calls) == 2:
            raise KeyboardInterrupt
        calls.append(1)
        add(*arguments)

    monkeypatch.setattr(calibration, "_add_batch", interrupted)
    options = {"batch_size": 8, "progress": False, "cache": cache, "save_every": 0.0}
    monkeypatch.setattr(calibration.time, "monotonic", iter(range(0, 10**6, 100)).__next__)
    with pytest.raises(KeyboardInterrupt):
        uwm.score(vlm, tuples, **options)
    monkeypatch.setattr(calibration, "_add_batch", lambda *a: (calls.append(1), add(*a)))
    resumed = uwm.score(vlm, tuples, **options)
    assert len(calls) < 6  # 24 tuples are 3 batches; at least one was not done again
    ours, theirs = sums_of(resumed), sums_of(whole)
    assert all(torch.equal(ours[key], theirs[key]) for key in theirs)
    assert cache.size()[0] == 2


def test_size_and_clear_touch_results_only(cache, monkeypatch, tmp_path):
    cache.tensors({"a": 1}, lambda: {"x": torch.ones(4)})
    other = cache.folder / "mine.safetensors"
    other.write_bytes(b"x")
    assert cache.size()[0] == 1 and cache.size()[1] > 16
    cache.clear()
    assert cache.size() == (0, 0) and other.exists()
    monkeypatch.setenv("UWM_CACHE", str(tmp_path / "elsewhere"))
    assert uwm.Cache().folder == tmp_path / "elsewhere"
