"""The cache: the same numbers as without it, nothing twice, and never a stale one."""

from __future__ import annotations

import dataclasses
import os
import shutil
import signal
import subprocess
import sys
from functools import partial
from importlib import metadata
from pathlib import Path

import numpy as np
import pytest
import torch
from architectures import small_hf_model, small_hf_processor, small_open_clip, word_tokenizer
from tiny_models import tiny_clip, tiny_tuples
from torch import nn

import uwmlib as uwm
from uwmlib import cache as cache_module
from uwmlib.editing import calibration
from uwmlib.evaluation import embed_images, embed_texts
from uwmlib.files import atomic_path
from uwmlib.models import transformers_backend
from uwmlib.models import vlm as vlm_module


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


def test_other_images_and_captions_are_noticed(vlm, tuples, cache):
    embed_images(vlm, tuples.safe_images, cache=cache)
    changed = np.array(tuples.safe_images)
    changed[0, 0, 0, 0] ^= 1
    embed_images(vlm, changed, cache=cache)
    embed_texts(vlm, tuples.safe_texts, cache=cache)
    embed_texts(vlm, list(reversed(tuples.safe_texts)), cache=cache)
    assert (cache.hits, cache.misses) == (0, 4)


def test_the_order_of_facts_does_not_matter(cache):
    assert cache.path({"a": 1, "b": {"c": 2, "d": 3}}) == cache.path({"b": {"d": 3, "c": 2}, "a": 1})


@pytest.mark.parametrize(
    "package", ["torch", "torchvision", "pillow", "open_clip_torch", "timm", "transformers"]
)
def test_another_version_of_a_library_has_results_of_its_own(cache, monkeypatch, package):
    here, version = cache.path({"a": 1}), metadata.version
    monkeypatch.setattr(metadata, "version", lambda name: "0" if name == package else version(name))
    cache_module._versions.cache_clear()
    there = cache.path({"a": 1})
    cache_module._versions.cache_clear()
    assert there != here


def test_another_processor_or_number_of_threads_has_results_of_its_own(cache, monkeypatch):
    here, threads = cache.path({"a": 1}), torch.get_num_threads()
    torch.set_num_threads(threads + 1)
    try:
        assert cache.path({"a": 1}) != here
    finally:
        torch.set_num_threads(threads)
    monkeypatch.setattr(torch.backends.cpu, "get_cpu_capability", lambda: "none")
    assert cache.path({"a": 1}) != here


@pytest.mark.parametrize(
    "part",
    [
        "evaluation.py",
        "tuples/images.py",
        "models/pixels.py",
        "editing/gradients.py",
        "editing/calibration.py",
    ],
)
def test_other_code_has_results_of_its_own(cache, monkeypatch, tmp_path, part):
    package = Path(cache_module.__file__).parent
    copy = shutil.copytree(
        package, tmp_path / "copy", ignore=shutil.ignore_patterns("weights", "__pycache__")
    )
    monkeypatch.setattr(cache_module, "code_hash", lambda *parts: cache_module._code_hash.__wrapped__(parts))
    here = cache.path({"a": 1})
    monkeypatch.setattr(cache_module, "__file__", str(copy / "cache.py"))
    assert cache.path({"a": 1}) == here
    with open(copy / part, "a") as file:
        file.write("# another version")
    assert cache.path({"a": 1}) != here


class TestIdentity:
    """Two models of the same weights that differ in one fact never get each other's results."""

    def small(self):
        return small_open_clip()

    def quick_gelu(self, vlm):
        from open_clip.transformer import QuickGELU

        for block in [*vlm.model.visual.transformer.resblocks, *vlm.model.transformer.resblocks]:
            block.mlp.gelu = QuickGELU()

    def heads(self, vlm):
        for block in [*vlm.model.visual.transformer.resblocks, *vlm.model.transformer.resblocks]:
            block.attn.num_heads *= 2
            block.attn.head_dim //= 2

    def eps(self, vlm):
        for module in vlm.model.modules():
            if isinstance(module, nn.LayerNorm):
                module.eps = 0.1

    def no_causal_mask(self, vlm):
        vlm.model.attn_mask = torch.zeros_like(vlm.model.attn_mask)

    def text_pooling(self, vlm):
        vlm.model.text_pool_type = "last"

    def vision_pooling(self, vlm):
        vlm.model.visual.pool_type = "avg"

    def hook(self, vlm):
        vlm.model.visual.transformer.register_forward_hook(lambda module, inputs, out: out * out)

    def replaced_function(self, vlm):
        inner = vlm._image_features
        vlm._image_features = lambda pixels: inner(pixels.flip(-1))

    def normalisation(self, vlm):
        vlm.pixels = dataclasses.replace(vlm.pixels, mean=(0.4, 0.5, 0.6))

    def tokenizer(self, vlm):
        vlm._tokenizer = word_tokenizer(12, start=[1], end=[299], pad=0, vocabulary=200)

    @pytest.mark.parametrize(
        "fact",
        ["quick_gelu", "heads", "eps", "no_causal_mask", "text_pooling", "vision_pooling", "hook",
         "replaced_function", "normalisation", "tokenizer"],
    )  # fmt: skip
    def test_embeddings_scores_and_gradients(self, cache, fact):
        one, other, tuples = self.small(), self.small(), tiny_tuples(4)
        getattr(self, fact)(other)
        assert other.weights_hash() == one.weights_hash()
        for results in (uwm.embed_tuples, scored, gradients):
            results(one, tuples, cache=cache)
            plain, through = results(other, tuples), results(other, tuples, cache=cache)
            assert plain.keys() == through.keys() and all(torch.equal(plain[k], through[k]) for k in plain)
        without = uwm.embed_tuples(one, tuples)
        assert any(not torch.equal(without[k], v) for k, v in uwm.embed_tuples(other, tuples).items())

    def test_hidden_act_of_a_configuration(self, cache, tmp_path):
        tokenizer = word_tokenizer(12, start=[1], end=[299], pad=299, vocabulary=299)
        wrap = partial(
            transformers_backend.wrap,
            name="hf",
            tokenizer=tokenizer,
            image_processor=small_hf_processor("clip"),
        )
        model = small_hf_model("clip")
        embed_texts(wrap(model), ["a red ring"], cache=cache)
        config = type(model.config).from_dict(model.config.to_dict())
        config.text_config.hidden_act = "quick_gelu"
        twin = type(model)(config)
        twin.load_state_dict(model.state_dict())
        found = embed_texts(wrap(twin), ["a red ring"], cache=cache)
        assert torch.equal(found, embed_texts(wrap(twin), ["a red ring"])) and cache.hits == 0

    def test_pictures_that_are_resized_otherwise(self, cache):
        one, other = self.small(), self.small()
        squash = small_hf_processor("siglip")
        other.pixels = dataclasses.replace(
            other.pixels, transform=lambda image: squash(images=image, return_tensors="pt").pixel_values[0]
        )
        pictures = np.random.default_rng(0).integers(0, 256, (2, 40, 90, 3), dtype=np.uint8)
        embed_images(one, pictures, cache=cache)
        assert torch.equal(embed_images(other, pictures, cache=cache), embed_images(other, pictures))

    def test_rule_for_text_tokens(self, cache):
        one, other, tuples = self.small(), self.small(), tiny_tuples(4)
        other._mask_rule = lambda ids: torch.ones_like(ids, dtype=torch.bool)
        scored(one, tuples, cache=cache)
        plain, through = scored(other, tuples), scored(other, tuples, cache=cache)
        assert all(torch.equal(plain[key], through[key]) for key in plain)
        assert not all(torch.equal(plain[key], value) for key, value in scored(one, tuples).items())

    def test_rule_that_differs_for_a_rare_token(self, cache):
        one, other, tuples = self.small(), self.small(), tiny_tuples(4)
        usual, rare = other._mask_rule, other.tokenize(tuples.safe_texts)[2, 1]
        other._mask_rule = lambda ids: usual(ids) & (ids != rare)
        assert one.identity("text") == other.identity("text")
        scored(one, tuples, cache=cache)
        plain, through = scored(other, tuples), scored(other, tuples, cache=cache)
        assert all(torch.equal(plain[key], through[key]) for key in plain)
        assert not all(torch.equal(plain[key], value) for key, value in scored(one, tuples).items())

    def test_tokenizer_that_differs_in_a_rare_word(self, cache):
        one, other, tuples = self.small(), self.small(), tiny_tuples(4)
        usual, rare = other._tokenizer, tuples.safe_texts[2].split()[0]
        other._tokenizer = lambda texts: usual([text.replace(rare, "zebra") for text in texts])
        assert one.identity("text") == other.identity("text")  # the probes hold no such word
        for results in (uwm.embed_tuples, scored, gradients):
            results(one, tuples, cache=cache)
            plain, through = results(other, tuples), results(other, tuples, cache=cache)
            assert all(torch.equal(plain[key], through[key]) for key in plain)

    def test_what_no_probe_shows_is_read_off(self):
        one, other = self.small(), self.small()
        other.model.visual.register_forward_hook(lambda module, inputs, out: out.clamp(max=1e6))
        ours, theirs = one.identity("vision"), other.identity("vision")
        assert {key for key in ours if ours[key] != theirs[key]} == {"architecture"}
        assert one.identity("text") != other.identity("text")  # the tower is no block of the vision encoder's

    def test_a_change_inside_one_encoder_leaves_the_other_as_it_was(self):
        one, other = self.small(), self.small()
        other.model.transformer.resblocks[0].register_forward_hook(lambda module, inputs, out: 2 * out)
        assert one.identity("text") != other.identity("text")
        assert one.identity("vision") == other.identity("vision")

    def test_another_number_type_or_device(self, monkeypatch):
        vlm = self.small()
        before = vlm.identity("vision")
        monkeypatch.setattr(vlm_module, "device_name", lambda device: "another GPU")
        assert vlm.identity("vision") != before
        monkeypatch.undo()
        assert vlm.identity("vision") == before
        with torch.autocast("cpu", dtype=torch.bfloat16):
            assert vlm.identity("vision") != before
        vlm.model.double()
        assert vlm.identity("vision") != before

    @pytest.mark.parametrize("encoder", ["text", "vision"])
    def test_facts_are_the_identity_without_the_machine(self, encoder):
        vlm = self.small()
        here = {
            key: value for key, value in vlm.identity(encoder).items() if key not in ("behaviour", "device")
        }
        with torch.autocast("cpu", dtype=torch.bfloat16):
            assert vlm.facts(encoder) == here
        assert here.keys() == {"weights", "architecture", "preprocessing"}

    def test_use_changes_nothing(self):
        vlm = self.small()
        before = [vlm.identity(encoder) for encoder in ("text", "vision")]
        uwm.embed_tuples(vlm, tiny_tuples(2))
        gradients(vlm, tiny_tuples(2))
        assert [vlm.identity(encoder) for encoder in ("text", "vision")] == before

    @pytest.mark.parametrize("fact", ["architecture", "preprocessing"])
    def test_saved_scores_of_another_model_are_refused(self, tmp_path, fact):
        path, tuples, other = tmp_path / "scores", tiny_tuples(3), self.small()
        uwm.score(self.small(), tuples, save_to=path, progress=False)
        {"architecture": self.quick_gelu, "preprocessing": self.normalisation}[fact](other)
        with pytest.raises(uwm.UwmError, match=f"another pass \\(its {fact} differ"):
            uwm.score(other, tuples, save_to=path, progress=False)
        with pytest.raises(uwm.UwmError, match=f"scores of other {fact} than small"):
            uwm.Scores.load(path, other)


def test_code_hash_follows_the_sources(tmp_path, monkeypatch):
    (tmp_path / "part").mkdir()
    (tmp_path / "part" / "a.py").write_text("x = 1")
    monkeypatch.setattr(cache_module, "__file__", str(tmp_path / "cache.py"))
    first = cache_module._code_hash.__wrapped__(("part",))
    (tmp_path / "part" / "a.py").write_text("x = 2")
    assert cache_module._code_hash.__wrapped__(("part",)) != first


class TestDamage:
    """Whatever stands under a result's name, the answer is the right one and stands there afterwards."""

    @pytest.mark.parametrize(
        "left", [0, 1, 7, 8, 9, 100, -1, "flipped", "a folder's link to nowhere", "text"]
    )
    def test_file(self, cache, left):
        def ones():
            return cache.tensors({"a": 1}, lambda: {"x": torch.ones(4)})["x"]

        ones()
        path = cache.path({"a": 1})
        content = path.read_bytes()
        if left == "flipped":
            path.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
        elif left == "text":
            path.write_text("nothing of the kind")
        elif isinstance(left, str):
            path.unlink()
            path.symlink_to(cache.folder / "nowhere")
        else:
            path.write_bytes(content[:left])
        assert torch.equal(ones(), torch.ones(4)) and (cache.hits, cache.misses) == (0, 2)
        assert torch.equal(ones(), torch.ones(4)) and cache.hits == 1

    def test_results_under_each_others_names(self, cache):
        vlm, tuples = tiny_clip(), tiny_tuples(3)
        plain, sums = uwm.embed_tuples(vlm, tuples), scored(vlm, tuples)
        uwm.embed_tuples(vlm, tuples, cache=cache)
        scored(vlm, tuples, cache=cache)
        paths = sorted(cache.folder.iterdir())
        contents = [path.read_bytes() for path in paths]
        for path, content in zip(paths, contents[1:] + contents[:1], strict=True):
            path.write_bytes(content)
        for results, expected in ((uwm.embed_tuples, plain), (scored, sums)):
            found = results(vlm, tuples, cache=cache)
            assert all(torch.equal(found[key], expected[key]) for key in expected)
        assert cache.hits == 0 and [path.read_bytes() for path in sorted(cache.folder.iterdir())] == contents

    def unfinished(self, cache, monkeypatch, tuples):
        """Leave an unfinished pass in the cache, and return its path."""
        add, seen = calibration._add_batch, []

        def stops(*arguments, **options):
            if len(seen) == 2:
                raise KeyboardInterrupt
            seen.append(add(*arguments, **options))

        with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
            patch.setattr(calibration, "_add_batch", stops)
            scored(tiny_clip(), tuples, batch_size=1, save_every=-1e9, cache=cache)
        (path,) = cache.folder.iterdir()
        return path

    @pytest.mark.parametrize("damage", [0, 100, -1, "another's", "another result's"])
    def test_unfinished_pass(self, cache, monkeypatch, tmp_path, damage):
        tuples = tiny_tuples(4)
        path = self.unfinished(cache, monkeypatch, tuples)
        if damage == "another's":
            other = uwm.Cache(tmp_path / "other")
            path.write_bytes(self.unfinished(other, monkeypatch, tiny_tuples(4, seed=1)).read_bytes())
        elif damage == "another result's":
            cache.keep({"a": 1}, {"x": torch.ones(2)})
            cache.path({"a": 1}).replace(path)
        else:
            path.write_bytes(path.read_bytes()[:damage])
        found, expected = (
            scored(tiny_clip(), tuples, batch_size=1, cache=cache),
            scored(tiny_clip(), tuples, batch_size=1),
        )
        assert all(torch.equal(found[key], expected[key]) for key in expected)
        assert not path.exists() and len(list(cache.folder.iterdir())) == 2


@pytest.mark.parametrize("kind", ["a file", "below a file", "nowhere"])
def test_a_cache_that_cannot_be_written_is_refused_before_computing(tmp_path, monkeypatch, kind):
    (tmp_path / "file").write_text("mine")
    folder = {
        "a file": tmp_path / "file",
        "below a file": tmp_path / "file" / "x",
        "nowhere": "/proc/nowhere",
    }[kind]
    vlm, tuples, images = tiny_clip(), tiny_tuples(2), tiny_tuples(2).safe_images
    monkeypatch.setattr(calibration, "_add_batch", None)
    monkeypatch.setattr("uwmlib.editing.gradients._sums", None)
    monkeypatch.setattr("uwmlib.evaluation._in_batches", None)
    calls = {
        "score": lambda: uwm.score(vlm, tuples, progress=False, cache=folder),
        "gradient_scores": lambda: uwm.gradient_scores(vlm, tuples, progress=False, cache=folder),
        "evaluate": lambda: uwm.evaluate(vlm, tuples, cache=folder),
        "embed_images": lambda: embed_images(vlm, images, cache=folder),
        "score to a file": lambda: uwm.score(vlm, tuples, progress=False, save_to=Path(folder) / "scores"),
    }
    for call in calls.values():
        with pytest.raises(uwm.UwmError, match="cannot be written"):
            call()
    assert (tmp_path / "file").read_text() == "mine" and len(list(tmp_path.iterdir())) == 1
    assert uwm.Cache(folder).size() == (0, 0)
    uwm.Cache(folder).clear()


def test_a_cache_may_be_given_by_its_path(tmp_path):
    vlm, tuples = tiny_clip(), tiny_tuples(2)
    for folder in (str(tmp_path / "kept"), tmp_path / "kept"):
        uwm.evaluate(vlm, tuples, cache=folder)
        scored(vlm, tuples, cache=folder)
        gradients(vlm, tuples, cache=folder)
    cache = uwm.Cache(tmp_path / "kept")
    assert cache.size()[0] == 7
    for results in (uwm.embed_tuples, scored, gradients):
        results(vlm, tuples, cache=cache)
        for wrong in (True, 3, {"folder": "x"}):
            with pytest.raises(
                uwm.UwmError, match="The cache is .*: give a Cache, or the path of its folder"
            ):
                results(vlm, tuples, cache=wrong)
    assert (cache.hits, cache.misses) == (7, 0)
    with pytest.raises(uwm.UwmError, match="The cache's folder is None: give a path"):
        uwm.Cache(None)


WORKERS = """
import multiprocessing, os, signal, sys, tempfile
import torch
import uwmlib as uwm
from tiny_models import tiny_clip, tiny_tuples
from uwmlib import files
from uwmlib.editing import calibration

def score(folder, **options):
    return uwm.score(tiny_clip(), tiny_tuples(3), batch_size=1, progress=False, cache=folder, **options)

def race(barrier, folder):
    for turn in range(8):
        barrier.wait()
        score(f"{folder}/raced-{turn}", save_every=-1e9 if turn % 2 else 30)

def die(*_):
    os.kill(os.getpid(), signal.SIGKILL)

def dies_after(function, n):
    left = iter(range(n))
    return lambda *a, **k: function(*a, **k) if next(left, None) is not None else die()

def killed(moment, folder):
    if moment == "batch":
        calibration._add_batch = dies_after(calibration._add_batch, 2)
    elif moment == "writing":
        files.save_file = dies_after(files.save_file, 1)
    else:
        uwm.Cache.keep = dies_after(uwm.Cache.keep, 1)
    score(f"{folder}/killed-{moment}", save_every=-1e9)

if __name__ == "__main__":
    tiny_clip()  # imports once what all five need
    context, folder = multiprocessing.get_context("fork"), sys.argv[1]
    barrier = context.Barrier(2, timeout=600)
    runs = [context.Process(target=race, args=(barrier, folder)) for _ in range(2)]
    runs += [context.Process(target=killed, args=(moment, folder)) for moment in ("batch", "writing", "keeping")]
    for run in runs: run.start()
    for run in runs: run.join()
    print(*[run.exitcode for run in runs])
"""


def test_processes_that_share_a_cache_or_are_killed_leave_right_results(tmp_path):
    environ = os.environ | {
        "OMP_NUM_THREADS": str(torch.get_num_threads()), "PYTHONHASHSEED": "7",
        "PYTHONPATH": os.pathsep.join([str(Path(__file__).parent), *sys.path]),
    }  # fmt: skip
    told = subprocess.run(
        [sys.executable, "-c", WORKERS, tmp_path], env=environ, text=True, capture_output=True
    )
    assert told.stdout.split() == ["0", "0"] + [str(-signal.SIGKILL)] * 3, told.stderr
    expected = scored(tiny_clip(), tiny_tuples(3), batch_size=1)
    folders = sorted(tmp_path.iterdir())
    assert len(folders) == 11
    for folder in folders:
        cache = uwm.Cache(folder)
        if folder.name.startswith("raced"):
            assert len(list(folder.iterdir())) == 2  # both kinds of site, nothing else
        found = scored(tiny_clip(), tiny_tuples(3), batch_size=1, cache=cache)
        assert all(torch.equal(found[key], expected[key]) for key in expected)
        # what another process kept is found by this one
        assert cache.hits == (2 if folder.name.startswith("raced") else folder.name == "killed-keeping")
        cache.clear()
        assert not list(folder.iterdir())


def scored(vlm, tuples, **options):
    return sums_of(uwm.score(vlm, tuples, progress=False, **options))


def gradients(vlm, tuples, **options):
    return uwm.gradient_scores(vlm, tuples, progress=False, **options).gradients


def sums_of(scores):
    return {f"{name}.{part}": x for name, sums in scores.sums.items() for part, x in vars(sums).items()}


def test_one_pass_serves_every_later_choice_of_sites(vlm, tuples, cache, monkeypatch):
    plain = uwm.score(vlm, tuples, text=["out", "fc1"], vision="fc2", progress=False)
    uwm.score(vlm, tuples, text="out", vision="fc2", progress=False, cache=cache)
    first = cache.misses
    later = uwm.score(vlm, tuples, text=["out", "fc1"], vision="fc2", progress=False, cache=cache)
    assert first == 2 and cache.misses == 3
    assert later.sites == plain.sites and later.base_hashes == plain.base_hashes
    ours, theirs = sums_of(later), sums_of(plain)
    assert all(torch.equal(ours[key], theirs[key]) for key in theirs)
    monkeypatch.setattr(calibration, "_add_batch", None)
    uwm.score(vlm, tuples, text=["fc1"], vision="fc2", progress=False, cache=cache)


def test_interrupted_pass_goes_on(vlm, tuples, cache, monkeypatch):
    whole = uwm.score(vlm, tuples, batch_size=8, progress=False)
    add, calls = calibration._add_batch, []

    def interrupted(*arguments, **options):
        if len(calls) == 2:
            raise KeyboardInterrupt
        calls.append(1)
        add(*arguments, **options)

    monkeypatch.setattr(calibration, "_add_batch", interrupted)
    options = {"batch_size": 8, "progress": False, "cache": cache, "save_every": 0.0}
    monkeypatch.setattr(calibration.time, "monotonic", iter(range(0, 10**6, 100)).__next__)
    with pytest.raises(KeyboardInterrupt):
        uwm.score(vlm, tuples, **options)
    monkeypatch.setattr(calibration, "_add_batch", lambda *a, **o: (calls.append(1), add(*a, **o)))
    resumed = uwm.score(vlm, tuples, **options)
    assert len(calls) < 6  # 24 tuples are 3 batches; at least one was not done again
    ours, theirs = sums_of(resumed), sums_of(whole)
    assert all(torch.equal(ours[key], theirs[key]) for key in theirs)
    assert cache.size()[0] == 2


def test_size_and_clear_touch_results_only(cache, monkeypatch, tmp_path):
    cache.tensors({"a": 1}, lambda: {"x": torch.ones(4)})
    other = cache.folder / "mine.safetensors"
    other.write_bytes(b"x")
    with pytest.raises(KeyboardInterrupt), atomic_path(cache.path({"a": 2})) as temporary:
        left = shutil.copy(cache.path({"a": 1}), cache.folder / f"{temporary.stem}x.safetensors")
        raise KeyboardInterrupt  # as if this process had been killed: `left` stays
    assert Path(left).exists()
    assert cache.size()[0] == 1 and cache.size()[1] > 16
    cache.clear()
    assert cache.size() == (0, 0) and list(cache.folder.iterdir()) == [other]
    monkeypatch.setenv("UWM_CACHE", str(tmp_path / "elsewhere"))
    assert uwm.Cache().folder == tmp_path / "elsewhere"
