"""Files are whole or absent, and a file that was touched is refused."""

from __future__ import annotations

import os
import stat

import pytest
import torch
from safetensors.torch import save_file

from uwmlib.errors import UwmError
from uwmlib.files import atomic_path, load_tensors, save_tensors, sha256_of_tensors, write_json


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


@pytest.mark.parametrize("fault", ["missing", "truncated", "other kind", "flipped", "relabelled"])
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
    words = {"missing": "no file", "truncated": "not a whole", "other kind": "not 'edit'"}
    with pytest.raises(UwmError, match=words.get(fault, "changed after it was written")):
        load_tensors(path, kind="edit" if fault == "other kind" else "thing")
