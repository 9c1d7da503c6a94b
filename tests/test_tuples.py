"""Tuples: what is paired stays paired, and what cannot be used is refused in one sentence."""

from __future__ import annotations

import csv
import json

import numpy as np
import pytest
from PIL import Image

from uwmlib.errors import UwmError
from uwmlib.reporting import describe_tuples
from uwmlib.tuples import Tuples, load_tuples
from uwmlib.tuples.loading import sample_rows


@pytest.fixture
def folder(tmp_path):
    """Five tuples as image files of flat colours, and their manifest rows."""
    rows = []
    for i in range(5):
        for side, value in (("safe", 10 * i), ("unsafe", 100 + 10 * i)):
            Image.new("RGB", (8, 6), (value, value, value)).save(tmp_path / f"{side}{i}.png")
        rows.append(
            {
                "safe_image": f"safe{i}.png",
                "unsafe_image": f"unsafe{i}.png",
                "safe_text": f"safe {i}",
                "unsafe_text": f"unsafe {i}",
                "concept": "ab"[i % 2],
                "split": "test" if i < 3 else "train",
            }  # fmt: skip
        )
    return tmp_path, rows


def write(path, rows):
    if path.suffix == ".csv":
        with open(path, "w", newline="", encoding="utf-8") as file:
            writer = csv.DictWriter(file, rows[0])
            writer.writeheader()
            writer.writerows(rows)
    else:
        path.write_text("\n".join(json.dumps(row) for row in rows), encoding="utf-8")
    return path


@pytest.mark.parametrize("suffix", [".jsonl", ".csv"])
def test_manifest_keeps_pairs_together(folder, suffix):
    root, rows = folder
    tuples = load_tuples(write(root / f"pairs{suffix}", rows), split="test", n=3, seed=4)
    assert sorted(tuples.safe_texts) == ["safe 0", "safe 1", "safe 2"]
    for row in range(3):
        i = int(tuples.safe_texts[row].split()[1])
        assert tuples.unsafe_texts[row] == f"unsafe {i}" and tuples.concepts[row] == "ab"[i % 2]
        assert tuples.safe_images[row].getpixel((0, 0)) == (10 * i,) * 3
        assert tuples.unsafe_images[row].getpixel((0, 0)) == (100 + 10 * i,) * 3


def test_slices_of_files_are_opened_images_and_slices_of_tuples_are_not(folder):
    root, rows = folder
    tuples = load_tuples(write(root / "pairs.jsonl", rows), split="train")
    assert [image.size for image in tuples.safe_images[0:2]] == [(8, 6)] * 2
    (root / "safe4.png").unlink()
    assert len(tuples[1:]) == 1  # nothing is opened yet
    with pytest.raises(UwmError, match="safe4.png"):
        tuples[1:].safe_images[0]


def test_manifest_without_split_is_used_whole(folder):
    root, rows = folder
    for row in rows:
        del row["split"]
    assert len(load_tuples(write(root / "pairs.jsonl", rows), split="anything")) == 5


def test_fingerprint_follows_contents(folder):
    root, rows = folder
    path = write(root / "pairs.jsonl", rows)
    before = load_tuples(path, split="test").fingerprint
    assert load_tuples(path, split="test").fingerprint == before
    Image.new("RGB", (8, 6), (1, 2, 3)).save(root / "unsafe1.png")
    after = load_tuples(path, split="test").fingerprint
    assert after != before
    rows[0]["safe_text"] = "other"
    assert load_tuples(write(path, rows), split="test").fingerprint not in (before, after)


def test_smaller_samples_begin_larger_ones_and_seeds_differ():
    assert np.array_equal(sample_rows(50, 10, seed=2), sample_rows(50, 50, seed=2)[:10])
    assert sorted(sample_rows(50, 50, seed=2)) == list(range(50))
    assert not np.array_equal(sample_rows(50, 10, seed=2), sample_rows(50, 10, seed=3))


def test_at_most_takes_what_there_is_and_nothing_else_changes():
    with pytest.raises(UwmError, match="n=51 .* at_most"):
        sample_rows(50, 51, seed=2)
    assert np.array_equal(sample_rows(50, 10**30, seed=2, at_most=True), sample_rows(50, 50, seed=2))
    assert np.array_equal(sample_rows(50, 7, seed=2, at_most=True), sample_rows(50, 50, seed=2)[:7])
    whole = load_tuples("mini-visu", split="validation", n=10**6, at_most=True)
    assert whole.fingerprint == load_tuples("mini-visu", split="validation", n=len(whole)).fingerprint


def test_row_selection_matches_the_whole():
    whole = load_tuples("mini-visu", split="validation")
    part = load_tuples("mini-visu", split="validation", n=20, seed=1)
    rows = sample_rows(len(whole), 20, seed=1)
    assert part.fingerprint == whole[rows].fingerprint


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda path: path.write_text("not json", encoding="utf-8"), "Row 1"),
        (
            lambda path: path.write_text('{"safe_image": "a.png"}', encoding="utf-8"),
            "lacks unsafe_image, safe_text, unsafe_text",
        ),
        (lambda path: path.write_text("[1]", encoding="utf-8"), "Row 1 .* no object"),
        (lambda path: path.write_text("", encoding="utf-8"), "no rows"),
        (lambda path: path.write_bytes(b"\xff\xfe\x00"), "UTF-8"),
        (lambda path: path.unlink(missing_ok=True), "no manifest"),
    ],
)
def test_bad_manifests_are_refused(tmp_path, change, words):
    path = tmp_path / "pairs.jsonl"
    path.touch()
    change(path)
    with pytest.raises(UwmError, match=words):
        load_tuples(path)


def test_unreadable_image_is_named(folder):
    root, rows = folder
    (root / "safe0.png").write_bytes(b"no image")
    tuples = load_tuples(write(root / "pairs.jsonl", rows), split="test")
    with pytest.raises(UwmError, match="safe0.png is not a readable image"):
        tuples.safe_images[0]


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"name": "mini-vizu"}, "did you mean 'mini-visu'"),
        ({"name": "mini-visu", "split": "dev"}, "train, validation, test"),
        ({"name": "mini-visu", "n": 0}, "at least 1"),
        ({"name": "mini-visu", "n": 2001}, "1 to 2000"),
    ],
)
def test_bad_requests_are_refused(arguments, words):
    with pytest.raises(UwmError, match=words):
        load_tuples(**arguments)


def test_unknown_split_of_a_manifest_is_refused(folder):
    root, rows = folder
    with pytest.raises(UwmError, match="test, train"):
        load_tuples(write(root / "pairs.jsonl", rows), split="validation")


def test_unpaired_parts_are_refused():
    images = np.zeros((2, 4, 4, 3), dtype=np.uint8)
    parts = {
        "safe_images": images,
        "unsafe_images": images,
        "safe_texts": ["a", "b"],
        "unsafe_texts": ["a"],
        "concepts": ["", ""],
    }
    with pytest.raises(UwmError, match="unsafe_texts 1"):
        Tuples(name="mine", **parts)
    with pytest.raises(UwmError, match=r"unsafe_texts\[1\]"):
        Tuples(name="mine", **(parts | {"unsafe_texts": ["a", None]}))


@pytest.mark.parametrize("rows", [9, 0, [9], "x", [True, False]])
def test_rows_that_are_not_there_or_no_list_are_refused(rows):
    with pytest.raises(UwmError, match="row"):
        load_tuples("mini-visu", split="validation", n=4)[rows]


@pytest.mark.parametrize("arguments", [{"n": 2.5}, {"n": "3"}, {"seed": "3"}, {"seed": 0.5}])
def test_counts_and_seeds_are_whole_numbers(arguments):
    with pytest.raises(UwmError, match="whole number"):
        load_tuples("mini-visu", split="validation", **arguments)


@pytest.mark.parametrize("suffix", [".jsonl", ".csv"])
def test_captions_keep_line_separators_and_a_byte_order_mark_is_no_caption(folder, suffix):
    root, rows = folder
    rows[0]["safe_text"] = "one\u2028two\nthree\x0cfour"
    path = root / f"pairs{suffix}"
    if suffix == ".csv":
        write(path, rows)
    else:
        path.write_text("\n".join(json.dumps(row, ensure_ascii=False) for row in rows), encoding="utf-8")
    path.write_text(path.read_text(encoding="utf-8"), encoding="utf-8-sig")
    assert load_tuples(path, split="test").safe_texts[0] == rows[0]["safe_text"]


@pytest.mark.parametrize("column", ["safe_image", "unsafe_text", "concept", "split"])
def test_a_manifest_value_that_is_no_text_is_named(folder, column):
    root, rows = folder
    rows[1][column] = 3
    with pytest.raises(UwmError, match=f"{column} in row 2 of .* is 3"):
        load_tuples(write(root / "pairs.jsonl", rows))


def test_a_folder_and_a_broken_csv_are_no_manifest(tmp_path):
    (tmp_path / "folder.jsonl").mkdir()
    with pytest.raises(UwmError, match="folder.jsonl cannot be read"):
        load_tuples(tmp_path / "folder.jsonl")
    (tmp_path / "long.csv").write_text("safe_image\n" + "x" * (csv.field_size_limit() + 1))
    with pytest.raises(UwmError, match="long.csv is not a CSV file"):
        load_tuples(tmp_path / "long.csv")
    with pytest.raises(UwmError, match="no tuples called 'None'"):
        load_tuples(None)


def test_an_image_of_absurd_size_is_refused(folder, monkeypatch):
    root, rows = folder
    monkeypatch.setattr(
        Image, "MAX_IMAGE_PIXELS", 20
    )  # Pillow refuses more than twice as many; 8 x 6 is more
    tuples = load_tuples(write(root / "pairs.jsonl", rows), split="test")
    with pytest.raises(UwmError, match="safe0.png is not a readable image"):
        tuples.safe_images[0]


def test_concepts_are_text():
    images = np.zeros((1, 4, 4, 3), dtype=np.uint8)
    with pytest.raises(UwmError, match=r"concepts\[0\]"):
        Tuples("mine", images, images, ["a"], ["b"], [None])


def test_only_the_mini_worlds_own_tuples_are_harmless(folder):
    path, rows = folder
    write(path / "mini-visu.jsonl", rows)
    assert load_tuples("mini-visu", n=2).harmless
    assert not load_tuples(path / "mini-visu.jsonl").harmless


def test_a_page_says_how_many_tuples_were_both_calibrated_and_tested_on(folder):
    mini = [load_tuples("mini-visu", split=split, n=20) for split in ("test", "train")]
    assert describe_tuples(test=mini[0], calibration=mini[1]) == "20 test tuples, 20 calibration tuples"
    both = describe_tuples(test=mini[0], calibration=mini[0][:7])
    assert both == "20 test tuples, 7 calibration tuples, of which 7 have the captions of test tuples"
