"""Where may be written: never over an input, by whatever name, and nothing is made by asking."""

from __future__ import annotations

import os

import pytest

from uwmlib.errors import UwmError
from uwmlib.manifests import PACKAGE, manifests_dir
from uwmlib.outputs import check_folder, check_output


@pytest.fixture
def folder(tmp_path, monkeypatch):
    (tmp_path / "input.txt").write_text("mine")
    (tmp_path / "inputs").mkdir()
    (tmp_path / "inputs" / "one.txt").write_text("mine")
    (tmp_path / "soft").symlink_to("input.txt")
    (tmp_path / "hard").hardlink_to(tmp_path / "input.txt")
    (tmp_path / "way").symlink_to("inputs")
    (tmp_path / "loop").symlink_to("loop")
    (tmp_path / "read-only").write_text("mine")
    (tmp_path / "read-only").chmod(0o444)
    os.mkfifo(tmp_path / "pipe")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def names(folder):
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*"))


@pytest.mark.parametrize(
    ("path", "words"),
    [
        ("input.txt", "read from input.txt"),
        ("./inputs/../input.txt", "read from input.txt"),
        ("soft", "read from input.txt"),
        ("hard", "read from input.txt"),
        ("inputs/one.txt", "read from inputs"),
        ("way/one.txt", "read from inputs"),
        ("", "a folder or a device"),
        ("inputs", "a folder or a device"),
        ("pipe", "a folder or a device"),
        ("loop", "a folder or a device"),
        ("/dev/null", "a folder or a device"),
        ("read-only", "a read-only file"),
        ("input.txt/x", "cannot be written in"),
        ("/proc/x", "cannot be written in"),
        ("x" * 300, "File name too long"),
        ("new/" + "x" * 300 + "/y", "File name too long"),
        ("a\0b", "null byte"),
        ("a\ud800b", "cannot be written"),
        (PACKAGE / "cli.py", "replace what is read"),
        (manifests_dir() / "models.json", "replace what is read"),
    ],
)
def test_what_may_not_be_written_is_refused(folder, path, words):
    before = names(folder)
    with pytest.raises(UwmError, match=words):
        check_output(path, inputs=["input.txt", "inputs", None, "mini-ViT-L-14", "x" * 300, "nul\0"])
    assert names(folder) == before


def test_what_may_be_written_is_named_with_its_links_followed(folder):
    before = names(folder)
    (folder / "result").symlink_to("inputs/one.txt")
    (folder / "later").symlink_to("new/later.txt")
    for path, target in {
        "a/{b}/c.txt": "a/{b}/c.txt", "input.txt": "input.txt", "result": "inputs/one.txt",
        "later": "new/later.txt", "x" * 255: "x" * 255, "inputs/two.txt": "inputs/two.txt",
    }.items():  # fmt: skip
        inputs = ["inputs"] if path == "inputs/two.txt" else ["read-only"]
        assert check_output(path, inputs=inputs) == folder / target
    assert names(folder) == sorted([*before, "result", "later"])


def test_folders_are_rehearsed_and_not_made(folder):
    before = names(folder)
    check_folder("inputs")
    check_folder("way/deep/er")
    for bad in ("input.txt", "input.txt/x", "loop", "/proc", "x" * 300, "a\0"):
        with pytest.raises(UwmError):
            check_folder(bad)
    assert names(folder) == before
