"""Tuples: what is paired stays paired, and what cannot be used is refused in one sentence."""

from __future__ import annotations

import csv
import io
import json
import os
import struct

import numpy as np
import pandas as pd
import pytest
from PIL import Image
from tiny_models import tiny_tuples

from uwmlib.errors import UwmError
from uwmlib.reporting import describe_tuples
from uwmlib.tuples import ImageFiles, Tuples, load_tuples
from uwmlib.tuples.images import open_image
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


def test_tuples_know_their_split(folder):
    root, rows = folder
    whole = load_tuples(write(root / "pairs.jsonl", rows), split="train")
    assert whole.split == whole[1:].split == "train"
    assert load_tuples("mini-visu", split="validation", n=2).split == "validation"
    for row in rows:
        del row["split"]
    assert load_tuples(write(root / "pairs.jsonl", rows), split="anything").split == ""
    assert Tuples(**PARTS).split == ""
    assert Tuples(**PARTS, split="test").fingerprint == Tuples(**PARTS).fingerprint
    with pytest.raises(UwmError, match="split of tuples is 3"):
        Tuples(**PARTS, split=3)


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


def test_at_most_takes_what_there_is_and_nothing_else_changes(folder):
    with pytest.raises(UwmError, match="n=51 .* at_most"):
        sample_rows(50, 51, seed=2)
    assert np.array_equal(sample_rows(50, 10**30, seed=2, at_most=True), sample_rows(50, 50, seed=2))
    assert np.array_equal(sample_rows(50, 7, seed=2, at_most=True), sample_rows(50, 50, seed=2)[:7])
    root, rows = folder
    path = write(root / "pairs.jsonl", rows)
    assert load_tuples(path, n=9, at_most=True).safe_texts == load_tuples(path, n=3).safe_texts
    with pytest.raises(UwmError, match="n=9 .* there are 3"):
        load_tuples(path, n=9)


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


def test_a_row_without_its_image_is_refused_before_anything_is_opened(folder):
    root, rows = folder
    (root / "unsafe2.png").unlink()
    path = write(root / "pairs.jsonl", rows)
    with pytest.raises(UwmError, match="unsafe_image in row 3 of .* does not exist"):
        load_tuples(path, split="test")
    assert len(load_tuples(path, split="train")) == 2  # whose images are all there


RAMP = np.arange(256, dtype=np.uint16).reshape(16, 16)


def tiff(values, *, bits=16, white_is_zero=False, signed=False):
    """A TIFF of 16 x 16 grey values, written by hand."""
    short, long = 3, 4
    tags = [
        (256, short, 16),
        (257, short, 16),
        (258, short, bits),
        (259, short, 1),
        (262, short, 0 if white_is_zero else 1),
    ]
    tags += [
        (273, long, 8),
        (277, short, 1),
        (278, short, 16),
        (279, long, len(values)),
        (339, short, 2 if signed else 1),
    ]
    body = b"".join(struct.pack("<HHII", tag, kind, 1, value) for tag, kind, value in tags)
    return (
        b"II*\0"
        + struct.pack("<I", 8 + len(values))
        + values
        + struct.pack("<H", len(tags))
        + body
        + bytes(4)
    )


def encoded(image, kind):
    file = io.BytesIO()
    image.save(file, kind)
    return file.getvalue()


SIXTEEN = RAMP * 257  # 0 to 65535


@pytest.mark.parametrize(
    "content",
    [
        encoded(Image.fromarray(RAMP.astype(np.uint8)), "PNG"),
        encoded(Image.fromarray(SIXTEEN), "PNG"),
        encoded(Image.fromarray(SIXTEEN), "JPEG2000"),
        b"P5 16 16 65535\n" + SIXTEEN.astype(">u2").tobytes(),
        tiff(SIXTEEN.astype("<u2").tobytes()),
        tiff((255 - RAMP).astype(np.uint8).tobytes(), bits=8, white_is_zero=True),
        encoded(
            Image.merge("LA", (Image.fromarray(RAMP.astype(np.uint8)), Image.new("L", (16, 16), 9))), "PNG"
        ),
    ],
    ids=[
        "8 bit",
        "16 bit PNG",
        "16 bit JPEG 2000",
        "16 bit PGM",
        "16 bit TIFF",
        "white is zero",
        "with alpha",
    ],
)
def test_grey_values_of_any_depth_come_out_alike(tmp_path, content):
    (tmp_path / "ramp").write_bytes(content)
    found = open_image(tmp_path / "ramp")
    assert found.mode == "RGB"
    assert np.array_equal(np.asarray(found), np.repeat(RAMP[..., None], 3, axis=2))


@pytest.mark.parametrize(
    "content",
    [
        encoded(Image.fromarray(RAMP.astype(np.float32)), "TIFF"),
        encoded(Image.fromarray((RAMP / 255).astype(np.float32)), "TIFF"),
        encoded(Image.fromarray(RAMP.astype(np.int32)), "TIFF"),
        tiff(bytes(384), bits=12),
        tiff(SIXTEEN.astype("<u2").tobytes(), white_is_zero=True),
        tiff(RAMP.astype("<i2").tobytes(), signed=True),
    ],
    ids=["float", "float up to 1", "32 bit", "12 bit", "white is zero", "signed"],
)
def test_grey_values_of_an_unknown_range_are_refused(tmp_path, content):
    (tmp_path / "ramp").write_bytes(content)
    with pytest.raises(UwmError, match="unknown range"):
        open_image(tmp_path / "ramp")


def test_what_is_stored_beside_the_pixels_is_left_aside_as_in_the_released_pipelines(tmp_path):
    path = tmp_path / "image.png"
    palette = Image.new("P", (4, 2), 1)
    palette.putpalette([0, 0, 0, 10, 20, 30])
    palette.save(path, transparency=1)
    assert open_image(path).getpixel((0, 0)) == (10, 20, 30)
    Image.new("RGBA", (4, 2), (9, 8, 7, 0)).save(path)
    assert open_image(path).getpixel((0, 0)) == (9, 8, 7)
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned by 90 degrees
    Image.new("RGB", (4, 2)).save(path, exif=exif)
    assert open_image(path).size == (4, 2)
    first, second = (Image.new("RGB", (4, 2), colour) for colour in ("red", "lime"))
    first.save(path, save_all=True, append_images=[second])
    assert open_image(path).getpixel((0, 0)) == (255, 0, 0)
    Image.new("1", (4, 2), 1).save(path)
    assert open_image(path).getpixel((0, 0)) == (255, 255, 255)


@pytest.mark.filterwarnings("ignore")  # Pillow's, of damaged TIFFs
@pytest.mark.parametrize("kind", ["PNG", "JPEG", "GIF", "TIFF", "WEBP", "ICO"])
def test_damaged_images_are_read_or_refused_in_one_line(tmp_path, kind):
    generator = np.random.default_rng(0)
    whole = encoded(Image.fromarray(generator.integers(0, 255, (16, 16, 3), dtype=np.uint8)), kind)
    for _ in range(60):
        damaged = bytearray(whole[: generator.integers(1, len(whole) + 1)])
        for at in generator.integers(0, len(damaged), 3):
            damaged[at] = generator.integers(256)
        (tmp_path / "image").write_bytes(damaged)
        try:
            open_image(tmp_path / "image")
        except UwmError as error:
            assert "\n" not in str(error)


def test_a_pipe_is_no_image_and_one_path_no_list(tmp_path):
    os.mkfifo(tmp_path / "pipe.png")
    for files in (
        ImageFiles([tmp_path / "pipe.png"]),
        ImageFiles([tmp_path]),
        ImageFiles([str(tmp_path / "none.png")]),
    ):
        for use in (files.digest, lambda files=files: files[0]):
            with pytest.raises(UwmError, match="image"):
                use()
    for wrong in ("a.png", None, [None], 3):
        with pytest.raises(UwmError, match="list of paths"):
            ImageFiles(wrong)


def test_unreadable_image_is_named(folder):
    root, rows = folder
    (root / "safe0.png").write_bytes(b"no image")
    tuples = load_tuples(write(root / "pairs.jsonl", rows), split="test")
    with pytest.raises(UwmError, match="safe0.png is not a readable image"):
        tuples.safe_images[0]


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"name": "mini-vizu"}, "no tuples called 'mini-vizu': give 'mini-visu' or"),
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


IMAGES = np.zeros((2, 4, 4, 3), dtype=np.uint8)
PARTS = {
    "name": "mine",
    "safe_images": IMAGES,
    "unsafe_images": IMAGES,
    "safe_texts": ["a", "b"],
    "unsafe_texts": ["c", "d"],
    "concepts": ["", "e"],
}


@pytest.mark.parametrize("part", ["safe_texts", "unsafe_texts", "concepts"])
@pytest.mark.parametrize(
    "wrong", ["ab", b"ab", None, 3, {"a": 1, "b": 2}, ["a", "b\0"], ["a", "\udc00"], ["a", " "]]
)
def test_captions_and_concepts_are_lists_of_usable_text(part, wrong):
    with pytest.raises(UwmError, match=rf"{part}(\[1\])? of mine"):
        Tuples(**PARTS | {part: wrong})


@pytest.mark.parametrize("part", ["safe_images", "unsafe_images"])
@pytest.mark.parametrize(
    "wrong",
    [
        None,
        "ab",
        [Image.new("RGB", (4, 4))] * 2,
        IMAGES / 255,
        IMAGES[..., 0],
        IMAGES[..., :2],
        IMAGES[:, :0],
    ],
    ids=["None", "text", "pictures", "floats", "grey", "two channels", "no pixels"],
)
def test_images_are_arrays_of_colours_or_files(part, wrong):
    with pytest.raises(UwmError, match=f"{part} of mine are"):
        Tuples(**PARTS | {part: wrong})


def test_captions_of_a_series_keep_their_order():
    tuples = Tuples(**PARTS | {"safe_texts": pd.Series(["a", "b"], index=[1, 0])})
    assert tuples[[0]].safe_texts == ["a"]


@pytest.mark.parametrize("rows", [9, 0, [9], "x", [True, False], [0.5], None, [[0], [1, 2]]])
def test_rows_that_are_not_there_or_no_list_are_refused(rows):
    with pytest.raises(UwmError, match="row"):
        load_tuples("mini-visu", split="validation", n=4)[rows]


@pytest.mark.parametrize(
    "arguments",
    [{"n": 2.5}, {"n": "3"}, {"n": True}, {"n": 3.0}, {"n": -1}, {"seed": "3"}, {"seed": 0.5}, {"seed": None}]
    + [{"n": n, "seed": seed} for n in (None, 3) for seed in (-1, 2**64, 2**200, True)],
)
def test_counts_and_seeds_are_whole_numbers(arguments):
    with pytest.raises(UwmError, match="whole number"):
        load_tuples("mini-visu", split="validation", **arguments)


def test_whole_numbers_of_numpy_count_as_pythons_do():
    whole = [
        load_tuples("mini-visu", n=n, seed=seed).fingerprint
        for n, seed in ((3, 7), (np.int64(3), np.uint8(7)))
    ]
    assert whole[0] == whole[1]
    assert len(load_tuples("mini-visu", n=3, seed=2**64 - 1)) == 3


@pytest.mark.parametrize("split", [None, 3, ["test"]])
def test_a_split_is_a_name(folder, split):
    root, rows = folder
    for name in ("mini-visu", write(root / "pairs.csv", rows)):
        with pytest.raises(UwmError, match="split is"):
            load_tuples(name, split=split)


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
    mini = load_tuples("mini-visu", n=2)
    assert mini.harmless and mini[:1].harmless
    claims = [row | {"harmless": "true", "name": "mini-visu/test"} for row in rows]
    own = load_tuples(write(path / "mini-visu.jsonl", claims))
    assert not own.harmless and not own[:1].harmless
    assert not Tuples(**PARTS | {"name": "mini-visu/test"}).harmless


def test_a_page_says_how_many_tuples_were_both_calibrated_and_tested_on(folder):
    mini = [load_tuples("mini-visu", split=split, n=20) for split in ("test", "train")]
    assert describe_tuples(test=mini[0], calibration=mini[1]) == "20 test tuples, 20 calibration tuples"
    both = describe_tuples(test=mini[0], calibration=mini[0][:7])
    assert both == "20 test tuples, 7 calibration tuples, of which 7 have the captions of test tuples"


def test_what_is_printed_of_tuples_shows_no_caption():
    tuples = tiny_tuples(3)
    assert repr(tuples) == f"Tuples({tuples.name!r}, n=3, {len(set(tuples.concepts))} concepts)"
    assert not any(text in repr(tuples) for text in [*tuples.safe_texts, *tuples.unsafe_texts])
