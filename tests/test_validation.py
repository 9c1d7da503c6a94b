"""Validation of a manifest: every problem at once, by row, and nothing for what `load_tuples` takes."""

from __future__ import annotations

import json

import numpy as np
import pytest
from PIL import Image

from uwmlib import cli
from uwmlib.errors import UwmError
from uwmlib.tuples import load_tuples, validate


def pair(i, **changes):
    row = {
        "safe_image": f"s{i}.png", "unsafe_image": f"u{i}.png", "safe_text": f"safe {i}", "unsafe_text": f"unsafe {i}",
        "concept": "ab"[i % 2], "split": "train" if i < 3 else "test",
    }  # fmt: skip
    return {name: value for name, value in (row | changes).items() if value is not None}


@pytest.fixture
def write(tmp_path):
    for i in range(5):
        for side in "su":
            Image.new("RGB", (4, 4), (i, ord(side), 0)).save(tmp_path / f"{side}{i}.png")

    def manifest(*rows, name="pairs.jsonl"):
        lines = [row if isinstance(row, str) else json.dumps(row) for row in rows]
        (tmp_path / name).write_text("\n".join(lines), encoding="utf-8")
        return tmp_path / name

    return manifest


def test_a_sound_manifest_has_no_problem_and_is_counted(write):
    path = write(*map(pair, range(5)))
    found = validate(path)
    assert (found.rows, found.problems, found.notes) == (5, [], {})
    assert found.counts == {"train": {"a": 2, "b": 1}, "test": {"b": 1, "a": 1}}
    assert sum(found.counts["test"].values()) == len(load_tuples(path, split="test"))


def test_every_problem_is_named_once_with_its_row(write, tmp_path):
    (tmp_path / "u1.png").write_bytes((tmp_path / "u1.png").read_bytes()[:40])
    path = write(
        pair(0, safe_image="gone.png"),
        pair(1, safe_text=" "),
        "{not json",
        pair(3, split=None),
        pair(4),
        pair(4),
        pair(2, unsafe_image="s2.png", unsafe_text="safe 2", concept=7),
        [1, 2],
        pair(2, unsafe_text="half \ud800"),
    )
    expected = [
        "safe_image in row 1 of {} does not exist",
        "Row 2 of {} lacks safe_text",
        "unsafe_image in row 2 of {}: ",
        "Row 3 of {} is not JSON",
        "Row 4 of {} has no split but other rows have one",
        "Row 6 of {} repeats row 5",
        "concept in row 7 of {} is 7: give text",
        "Row 7 of {} has one image for both sides ('s2.png')",
        "Row 7 of {} has one caption for both sides ('safe 2')",
        "Row 8 of {} is no object",
        "unsafe_text in row 9 of {} has half a surrogate pair",
    ]
    found = validate(path)
    assert len(found.problems) == len(expected), found.problems
    for problem, words in zip(found.problems, expected, strict=True):
        assert problem.startswith(words.format(path)), problem
        assert "\n" not in problem
    assert "u1.png is not a readable image" in found.problems[2]
    with pytest.raises(UwmError, match="safe_image in row 1|Row 2 of"):
        load_tuples(path)


def test_what_is_wrong_in_every_row_is_said_once(write, tmp_path):
    header = "safe_image,unsafe_image,safe_text,unsafetext"
    path = write(header, *(f"s{i}.png,u{i}.png,safe {i},unsafe {i}" for i in range(3)), name="pairs.csv")
    (problem,) = validate(path).problems
    assert problem.startswith(f"Every row of {path} has 'unsafetext' for 'unsafe_text'")
    path = write(
        header.replace("unsafetext", "caption"), "s0.png,u0.png,a,b", "s1.png,u1.png,c,d", name="b.csv"
    )
    (problem,) = validate(path).problems
    assert problem.startswith(f"Every row of {path} lacks unsafe_text")


def test_a_split_in_two_spellings_is_a_problem(write):
    path = write(pair(0), pair(1, split="Train"))
    assert validate(path).problems == [
        f"{path} spells a split in two ways (Train, train): write each in one way."
    ]


def test_what_of_an_image_is_not_used_is_noted(write, tmp_path):
    Image.fromarray(np.full((4, 4), 40_000, np.uint16)).save(tmp_path / "s0.png")
    Image.new("RGBA", (4, 4)).save(tmp_path / "u0.png")
    turned = Image.new("RGB", (4, 4))
    turned.getexif()[274] = 6
    turned.save(tmp_path / "s1.png", exif=turned.getexif())
    frames = [Image.new("L", (4, 4), shade) for shade in (0, 99)]
    frames[0].save(tmp_path / "u1.gif", save_all=True, append_images=frames[1:])
    Image.new("F", (4, 4)).save(tmp_path / "deep.tif")
    found = validate(
        write(pair(0), pair(1, unsafe_image="u1.gif"), pair(2, unsafe_image="deep.tif"), pair(3))
    )
    assert list(found.notes.values()) == [1, 1, 1, 1]
    notes = " ".join(found.notes)
    assert all(word in notes for word in ("16 bits", "transparency", "orientation", "several pictures"))
    (problem,) = found.problems
    assert "deep.tif has pixels of an unknown range (mode F)" in problem


@pytest.mark.parametrize(
    ("content", "words"),
    [(b"\xff\xfe", "is not UTF-8"), (b"", "has no rows"), (None, "There is no manifest")],
)
def test_what_is_no_table_at_all_is_refused(tmp_path, content, words):
    if content is not None:
        (tmp_path / "pairs.jsonl").write_bytes(content)
    with pytest.raises(UwmError, match=words):
        validate(tmp_path / "pairs.jsonl")


@pytest.mark.parametrize("split", [5, True, ["a"], {"b": 1}])
def test_a_split_that_is_no_text_is_named_beside_others(write, split):
    problems = validate(write(pair(0, split=split), pair(1))).problems
    assert any("split in row 1 of" in problem and "give text" in problem for problem in problems)


def test_no_line_ends_within_a_problem_and_no_colours_reach_the_terminal(write, capsys, monkeypatch):
    name = "a\n\x1b[31mb.png"
    row = pair(0, safe_image=name, unsafe_image=name, safe_text="one\ntext", unsafe_text="one\ntext")
    path = write(row, name="line\nend.jsonl")
    found = validate(path)
    monkeypatch.setattr("sys.argv", ["uwm", "validate", str(path)])
    with pytest.raises(SystemExit) as stop:
        cli.main()
    lines = capsys.readouterr().out.splitlines()
    assert stop.value.code == 1 and len(lines) == len(found.problems) + 1
    assert all(line.isprintable() for line in lines)
    monkeypatch.setattr("sys.argv", ["uwm", "validate", f"{path}\n.csv"])
    with pytest.raises(SystemExit):
        cli.main()
    assert len(capsys.readouterr().err.splitlines()) == 1
