"""Files are whole or absent, and a file that was touched is refused."""

from __future__ import annotations

import os
import resource
import stat
import subprocess
import sys
from contextlib import contextmanager

import pytest
import torch
from safetensors.torch import save_file
from tiny_models import tiny_clip, tiny_tuples

import uwmlib as uwm
from uwmlib.errors import UwmError
from uwmlib.files import (
    atomic_path,
    load_tensors,
    require_writable,
    save_tensors,
    sha256_of_tensors,
    write_json,
    write_text,
)


def test_a_failed_write_leaves_the_old_file_and_nothing_else(tmp_path):
    path = tmp_path / "deep" / "a.json"
    write_json(path, {"a": 1})
    before = path.read_text()
    with pytest.raises(RuntimeError), atomic_path(path) as temporary:
        temporary.write_text("half")
        raise RuntimeError
    assert path.read_text() == before
    assert [entry.name for entry in path.parent.iterdir()] == ["a.json"]


def test_written_files_are_readable_like_others(tmp_path):
    with atomic_path(tmp_path / "w.safetensors") as temporary:
        save_file({"a": torch.zeros(2)}, temporary)
    umask = os.umask(0)
    os.umask(umask)
    assert stat.S_IMODE((tmp_path / "w.safetensors").stat().st_mode) == 0o666 & ~umask


def test_only_files_are_replaced(tmp_path):
    fifo = tmp_path / "pipe"
    os.mkfifo(fifo)
    for target in (tmp_path, fifo):
        with pytest.raises(UwmError, match="no file that could be replaced"), atomic_path(target):
            pass
    assert stat.S_ISFIFO(fifo.stat().st_mode)
    (tmp_path / "file").touch()
    with pytest.raises(UwmError, match="cannot be written"), atomic_path(tmp_path / "file" / "below"):
        pass


def test_links_are_followed_and_write_protected_files_stay(tmp_path):
    real, link = tmp_path / "real", tmp_path / "link"
    real.write_text("old")
    link.symlink_to(real)
    write_text(link, "new")
    assert link.is_symlink() and real.read_text() == "new"
    real.chmod(0o444)
    with pytest.raises(UwmError, match="write-protected"):
        write_text(link, "newer")
    assert real.read_text() == "new" and len(list(tmp_path.iterdir())) == 2
    (tmp_path / "circle").symlink_to(tmp_path / "circle")
    write_text(tmp_path / ("n" * 250), "a name of nearly the greatest length")
    with pytest.raises(UwmError, match="File name too long"):
        write_text(tmp_path / ("n" * 256), "too long a name")


@contextmanager
def full_disk(limit: int):
    """Let no file grow beyond `limit` bytes, which libraries see as they see a full disk."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


@pytest.mark.parametrize("limit", [0, 10, 3000])
def test_a_full_disk_is_one_sentence_and_leaves_what_there_was(tmp_path, limit):
    vlm = tiny_clip()
    scores = uwm.score(vlm, tiny_tuples(2), progress=False)
    edit = scores.select(tau=0.5)
    path, cache = tmp_path / "old", uwm.Cache(tmp_path / "cache")
    path.write_text("old")
    cache.folder.mkdir()
    writers = {
        "text": lambda: write_text(path, "x" * 9999),
        "json": lambda: write_json(path, ["x" * 9999]),
        "tensors": lambda: save_tensors(path, {"a": torch.zeros(9999)}, kind="thing", metadata={}),
        "edit": lambda: edit.save(path),
        "export": lambda: edit.export(vlm, path),
        "scores": lambda: scores.save(path),
        "cache": lambda: cache.tensors({"a": 1}, lambda: {"x": torch.zeros(9999)}),
    }
    for writer in writers.values():
        with (
            full_disk(limit),
            pytest.raises(UwmError, match=r"cannot be written \(.*\): make room, or choose"),
        ):
            writer()
    assert (
        path.read_text() == "old" and not list(cache.folder.iterdir()) and len(list(tmp_path.iterdir())) == 2
    )


def test_text_that_no_file_can_hold_is_one_sentence(tmp_path):
    with pytest.raises(UwmError, match="cannot be written .*surrogates"):
        write_text(tmp_path / "a", "\ud800")
    assert not list(tmp_path.iterdir())


def test_a_place_can_be_tried_before_a_long_computation(tmp_path):
    require_writable(tmp_path / "new" / "file")
    assert not list((tmp_path / "new").iterdir())
    (tmp_path / "file").touch()
    for place in (tmp_path / "file" / "below", "/proc/nowhere/file"):
        with pytest.raises(UwmError, match="cannot be written"):
            require_writable(place)


SAVE = """
import sys, torch
from uwmlib.files import save_tensors, write_json
names = sys.argv[2].split()
facts = {name: [1, 2.5] for name in names}
save_tensors(sys.argv[1], {name: torch.full((3,), ord(name)) for name in names}, kind="k", metadata=facts)
write_json(sys.argv[1] + ".json", facts)
"""


def test_same_content_is_same_bytes_in_every_process_and_order(tmp_path):
    environ = os.environ | {"PYTHONHASHSEED": "2", "PYTHONPATH": os.pathsep.join(sys.path)}
    subprocess.run([sys.executable, "-c", SAVE, tmp_path / "there", "c b a"], env=environ, check=True)
    tensors = {name: torch.full((3,), ord(name)) for name in "abc"}
    facts = {name: [1, 2.5] for name in "abc"}
    for _ in range(8):  # the order of safetensors' own header would change here
        save_tensors(tmp_path / "here", tensors, kind="k", metadata=facts)
        assert (tmp_path / "here").read_bytes() == (tmp_path / "there").read_bytes()
    write_json(tmp_path / "here.json", facts)
    assert (tmp_path / "here.json").read_bytes() == (tmp_path / "there.json").read_bytes()


def test_tensors_round_trip_in_every_dtype(tmp_path):
    tensors = {
        "b": torch.tensor([1.5, -2.0], dtype=torch.bfloat16),
        "i": torch.arange(3),
        "e": torch.zeros(0, 4),
    }
    save_tensors(tmp_path / "t", tensors, kind="thing", metadata={"n": 3})
    loaded, metadata = load_tensors(tmp_path / "t", kind="thing")
    assert metadata == {"n": 3}
    assert all(
        torch.equal(loaded[key], tensors[key]) and loaded[key].dtype == tensors[key].dtype for key in tensors
    )


def test_hash_depends_on_name_dtype_shape_and_content():
    base = torch.arange(4.0)
    hashes = {
        sha256_of_tensors({"a": base}),
        sha256_of_tensors({"b": base}),
        sha256_of_tensors({"a": base.view(2, 2)}),
        sha256_of_tensors({"a": base.view(torch.int32)}),
        sha256_of_tensors({"a": base + 1}),
    }
    assert len(hashes) == 5


@pytest.mark.parametrize(
    "fault", ["missing", "truncated", "other kind", "flipped", "relabelled", "renamed kind", "header"]
)
def test_damaged_files_are_refused(tmp_path, fault):
    path = tmp_path / "t.safetensors"
    save_tensors(path, {"a": torch.arange(8.0)}, kind="thing", metadata={"alpha": 1})
    content = path.read_bytes()
    match fault:
        case "missing":
            path.unlink()
        case "truncated":
            path.write_bytes(content[:-4])
        case "flipped":
            path.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
        case "relabelled":
            path.write_bytes(content.replace(rb"alpha\": 1", rb"alpha\": 2"))
        case "renamed kind":
            path.write_bytes(content.replace(rb"\"thing\"", rb"\"thinG\""))
        case "header":
            path.write_bytes(content.replace(rb"{\"kind", rb"[\"kind"))
    words = {
        "missing": "no file",
        "truncated": "not a whole",
        "other kind": "not 'edit'",
        "header": "no kind that is known",
    }
    with pytest.raises(UwmError, match=words.get(fault, "changed after it was written")):
        load_tensors(path, kind={"other kind": "edit", "renamed kind": "thinG"}.get(fault, "thing"))
