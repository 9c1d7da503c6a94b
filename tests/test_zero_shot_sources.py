"""Classification sets from real files in the layouts in which they are published, and from broken ones."""

from __future__ import annotations

import io
import json
import os
import tarfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from set_files import dtd, folders, food101, picture, read

import uwmlib as uwm
from uwmlib.evaluation import evaluate_zero_shot
from uwmlib.zero_shot.folders import folder_set
from uwmlib.zero_shot.shards import shard_set

PHOTO = "a photo of a {}."


# --- Webdataset shards ---


def encoded(shade: int, form: str = "PNG") -> bytes:
    held = io.BytesIO()
    Image.new("RGB", (20, 12), (shade,) * 3).save(held, form)
    return held.getvalue()


def shard(path: Path, files: dict[str, bytes]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w") as archive:
        for name, content in files.items():
            entry = tarfile.TarInfo(name)
            entry.size = len(content)
            archive.addfile(entry, io.BytesIO(content))
    return path


def samples(*labelled: tuple[int, int], first: int = 0) -> dict[str, bytes]:
    files = {}
    for i, (shade, label) in enumerate(labelled, start=first):
        files |= {f"s{i:07d}.cls": str(label).encode(), f"s{i:07d}.png": encoded(shade)}
    return files


@pytest.fixture
def wds(tmp_path):
    """Eleven shards of one image each, so that 10.tar must come after 2.tar."""
    for i in range(11):
        path = shard(tmp_path / "test" / f"{i}.tar", samples((10 * i, i % 2), first=i))
        os.utime(path, (0, 0))  # as big and as old as each other, and yet not the same
    (tmp_path / "test" / "nshards.txt").write_text("11\n")
    (tmp_path / "classnames.txt").write_text("cat\ndog\n")
    (tmp_path / "zeroshot_classification_templates.txt").write_text("a bad photo of a {c}.\n")
    return tmp_path


def shards(folder):
    return shard_set("own", folder, template=PHOTO)


def test_shards_are_read_in_order_and_where_they_lie(wds):
    before = sorted(wds.rglob("*"))
    data = shards(wds)
    assert read(data) == [(10 * i, ("cat", "dog")[i % 2]) for i in range(11)]
    assert data.prompts == ["a photo of a cat.", "a photo of a dog."]
    assert sorted(wds.rglob("*")) == before
    assert [np.asarray(image)[0, 0, 0] for image in data.images[3:5]] == [30, 40]


def test_other_forms_of_images_and_other_files_in_a_shard(wds):
    files = {
        "a.webp": encoded(9, "WEBP"),
        "a.cls": b"1\n",
        "a.json": b"{}",
        "b.cls": b"0",
        "b.jpg": encoded(8, "JPEG"),
    }
    for path in (wds / "test").glob("*"):
        path.unlink()
    shard(wds / "test" / "0.tar", files)
    assert [name for _, name in read(shards(wds))] == ["dog", "cat"]


@pytest.mark.parametrize(
    ("images", "labels"),
    [
        (("a.1.png", "a.2.png"), ("a.2.cls", "a.1.cls")),  # two samples by their last dots
        (("a.seg.png", "b.png"), ("b.cls", "a.cls")),  # webdataset cuts at the first
        (("a..png", "x.y/b.png"), ("x.y/b.cls", "a.cls")),
    ],
)
def test_the_dots_in_the_name_of_a_sample(tmp_path, images, labels):
    files = {image: encoded(10 * i) for i, image in enumerate(images)}
    files |= {labels[0]: b"1", labels[1]: b"0"}
    shard(tmp_path / "0.tar", files)
    (tmp_path / "classnames.txt").write_text("cat\ndog\n")
    assert read(shards(tmp_path)) == [(0, "cat"), (10, "dog")]


def test_the_digest_of_shards_is_that_of_what_they_hold(wds, tmp_path_factory):
    digest = shards(wds).images.digest()
    one = tmp_path_factory.mktemp("one")
    shard(
        one / "0.tar", {"x/" + k: v for i in range(11) for k, v in samples((10 * i, i % 2), first=i).items()}
    )
    (one / "classnames.txt").write_text("cat\ndog\n")
    assert shards(one).images.digest() == digest
    shard(one / "0.tar", samples(*((10 * i + (i == 7), i % 2) for i in range(11))))
    assert shards(one).images.digest() != digest


def change(path: Path, make) -> None:
    path.write_bytes(make(path.read_bytes()))


def damaged_header(content: bytes) -> bytes:
    """The second file's header with one byte flipped: tarfile takes this for the end."""
    return content[:1024] + bytes([content[1024] ^ 1]) + content[1025:]


@pytest.mark.parametrize(
    ("damage", "words"),
    [
        (lambda folder: (folder / "test" / "5.tar").unlink(), "10 shards but should hold 11"),
        (lambda folder: (folder / "classnames.txt").unlink(), "classnames.txt"),
        (lambda folder: (folder / "classnames.txt").write_text("cat\n"), "no number from 0 to 0"),
        (lambda folder: (folder / "classnames.txt").write_text("cat\n\ndog\n"), "Class 1 .* no name"),
        (lambda folder: (folder / "classnames.txt").write_bytes(b"\xff"), "no UTF-8"),
        (
            lambda folder: change(folder / "test" / "5.tar", damaged_header),
            "5.tar is damaged or cut off after 1",
        ),
        (lambda folder: change(folder / "test" / "5.tar", lambda b: b[:1024]), "5.tar is damaged or cut off"),
        (lambda folder: change(folder / "test" / "5.tar", lambda b: b[:1100]), "5.tar is"),
        (lambda folder: change(folder / "test" / "5.tar", lambda b: b[:700]), "5.tar is"),
        (lambda folder: change(folder / "test" / "5.tar", lambda b: b""), "5.tar is"),
        (lambda folder: change(folder / "test" / "5.tar", lambda b: b"no tar" * 99), "5.tar is no whole"),
        (lambda folder: shard(folder / "test" / "5.tar", {"a.png": encoded(1)}), "sample a .* no label"),
        (lambda folder: shard(folder / "test" / "5.tar", {"a.cls": b"1"}), "sample a .* no image"),
        (
            lambda folder: shard(
                folder / "test" / "5.tar", {"a.1.png": b"", "a.2.png": b"", "a.1.cls": b"1"}
            ),
            "sample a.2 .* no label",
        ),
        (
            lambda folder: shard(folder / "test" / "5.tar", {"a.png": b"", "a.cls": b"1", "a..cls": b"0"}),
            "a.cls twice",
        ),
        (
            lambda folder: shard(folder / "test" / "5.tar", {"a.png": b"", "a.jpg": b"", "a.cls": b"1"}),
            "twice",
        ),
        (
            lambda folder: shard(folder / "test" / "5.tar", {"a.png": b"", "a.cls": b"-1"}),
            "no class's number",
        ),
        (
            lambda folder: shard(folder / "test" / "5.tar", {"a.png": b"", "a.cls": b"9" * 30}),
            "no class's number",
        ),
        (
            lambda folder: shard(folder / "test" / "5.tar", {"a.png": b"", "a.cls": b"7"}),
            "no number from 0 to 1",
        ),
    ],
)
def test_damaged_shards_are_refused(wds, damage, words):
    damage(wds)
    with pytest.raises(uwm.UwmError, match=words):
        shards(wds)


def test_compressed_shards_and_links_are_no_images(wds):
    with tarfile.open(wds / "test" / "5.tar", "w:gz") as archive:
        archive.addfile(tarfile.TarInfo("a.cls"))
    with pytest.raises(uwm.UwmError, match="uncompressed"):
        shards(wds)
    with tarfile.open(wds / "test" / "5.tar", "w") as archive:
        link = tarfile.TarInfo("a.png")
        link.type, link.linkname = tarfile.SYMTYPE, "/etc/hostname"
        archive.addfile(link)
        label = tarfile.TarInfo("a.cls")
        label.size = 1
        archive.addfile(label, io.BytesIO(b"1"))
    with pytest.raises(uwm.UwmError, match="a.png in .* is a link or no plain file"):
        shards(wds)


def test_a_header_that_leads_backwards_ends_the_reading(wds):
    path = wds / "test" / "5.tar"
    whole = path.read_bytes()
    with tarfile.open(path) as archive:
        end = archive.getmembers()[-1].offset_data + 512
    header = bytearray(tarfile.TarInfo("notes.json").tobuf())
    header[124:136] = (2**96 - 512).to_bytes(12, "big")  # -512 in base 256
    header[148:156] = b" " * 8
    header[148:156] = b"%06o\0 " % sum(header)
    path.write_bytes(whole[:end] + bytes(header) + whole[end:])
    with pytest.raises(uwm.UwmError, match="negative size"):
        shards(wds)


def test_files_that_macos_adds_to_a_shard_are_none_of_its_samples(wds):
    extra = {"._s0000005.png": b"x", "._s0000005.cls": b"x"}
    shard(wds / "test" / "5.tar", samples((50, 1), first=5) | extra)
    assert len(shards(wds).images) == 11


def test_a_broken_image_in_a_shard_is_named_when_it_is_opened(wds):
    shard(wds / "test" / "5.tar", {"a.png": encoded(1)[:30], "a.cls": b"1"})
    data = shards(wds)
    with pytest.raises(uwm.UwmError, match=r"a\.png in .*5\.tar is not a readable image"):
        data.images[5]
    (wds / "test" / "0.tar").write_bytes(b"")
    with pytest.raises(uwm.UwmError, match="shorter since it was listed"):
        data.images[0]


def test_one_set_measures_alike_in_every_form(tmp_path):
    """The mini world's textures as an array, as files and in shards, and one class alone."""
    drawn = uwm.zero_shot_set("dtd")
    chosen = range(8)
    for i in chosen:
        path = tmp_path / "files" / drawn.classes[drawn.labels[i]] / f"{i}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(drawn.images[i]).save(path)
    files = folder_set("own", tmp_path / "files", template=drawn.template)
    order = [int(path.stem) for path in files.images.paths]
    held = {}
    for i in order:
        path = tmp_path / "files" / drawn.classes[drawn.labels[i]] / f"{i}.png"
        held |= {f"{i}.png": path.read_bytes(), f"{i}.cls": str(drawn.labels[i]).encode()}
    shard(tmp_path / "0.tar", held)
    (tmp_path / "classnames.txt").write_text("\n".join(drawn.classes))
    sharded = shard_set("own", tmp_path, template=drawn.template)
    vlm = uwm.load_model("mini-ViT-L-14")
    found = evaluate_zero_shot(vlm, files, batch_size=3)
    assert found.items.tolist() == evaluate_zero_shot(vlm, sharded, batch_size=3).items.tolist()
    whole = evaluate_zero_shot(vlm, drawn)
    assert found.items.tolist() == whole.items[order].tolist()


# --- Manifests of one's own ---


def manifest(folder: Path, name: str, rows: list[tuple], facts: dict | None = None) -> Path:
    """Write a CSV of image and label, an image for each row, and what is said beside it."""
    for image, *_ in rows:
        picture(folder / image, int(Path(image).stem))
    lines = ["image,label", *(",".join(map(str, row)) for row in rows)]
    (folder / f"{name}.csv").write_text("\n".join(lines) + "\n")
    if facts is not None:
        (folder / f"{name}.json").write_text(json.dumps(facts))
    return folder


def one(folder: Path):
    (data,) = uwm.load_zero_shot(folder).values()
    return data


def test_a_manifest_alone_names_its_classes(tmp_path):
    data = one(
        manifest(tmp_path, "own", [("img/10.png", "dog"), ("img/20.png", "cat"), ("img/30.png", "dog")])
    )
    assert data.classes == ("cat", "dog") and data.labels.dtype == np.int64
    assert read(data) == [(10, "dog"), (20, "cat"), (30, "dog")]
    assert data.prompts == ["a photo of a cat.", "a photo of a dog."]


def test_labels_are_names_or_numbers_and_two_classes_may_share_a_name(tmp_path):
    facts = {"classes": ["crane", "tit", "crane", "unused"], "template": "a {}, drawn", "about": "birds"}
    data = one(manifest(tmp_path, "own", [("1.png", 2), ("2.png", "tit"), ("3.png", 0)], facts))
    assert data.labels.tolist() == [2, 1, 0] and data.classes == tuple(facts["classes"])
    assert (data.prompts[1], data.about) == ("a tit, drawn", "birds")
    assert data.chance == pytest.approx(100 / 3)


def test_numbers_in_json_lines_are_labels_too(tmp_path):
    manifest(tmp_path, "own", [("1.png", 1), ("2.png", 0)], {"classes": ["a", "b"]})
    (tmp_path / "own.csv").unlink()
    lines = [{"image": "1.png", "label": 1}, {"image": "2.png", "label": "a"}]
    (tmp_path / "own.jsonl").write_text("\n".join(map(json.dumps, lines)))
    assert one(tmp_path).labels.tolist() == [1, 0]


def test_digits_may_be_the_names_of_their_own_numbers(tmp_path):
    data = one(manifest(tmp_path, "own", [("7.png", 7)], {"classes": list("0123456789")}))
    assert read(data) == [(7, "7")] and data.chance == 100.0


@pytest.mark.parametrize(
    ("labels", "facts", "words"),
    [
        ([2], {"classes": ["cat", "dog"]}, "'2' in row 1 .* is none of the 2"),
        (["00"], {"classes": ["cat", "dog"]}, "'00' in row 1"),
        (["1.0"], {"classes": ["cat", "dog"]}, "'1.0' in row 1"),
        (["crane"], {"classes": ["crane", "crane"]}, "name of two classes"),
        (["0"], {"classes": ["1", "0"]}, "number of another"),
        (["3", "4"], None, "are numbers: name their classes in own.json"),
        (["a"], {"template": None}, "one {} for the class"),
        ([], None, "no rows"),
        ([""], None, "lacks label"),
    ],
)
def test_manifests_that_cannot_be_meant_are_refused(tmp_path, labels, facts, words):
    rows = [(f"{i}.png", label) for i, label in enumerate(labels)]
    with pytest.raises(uwm.UwmError, match=words):
        uwm.load_zero_shot(manifest(tmp_path, "own", rows, facts))


# --- What is at hand in a folder ---


def test_every_form_is_found_under_the_papers_names(tmp_path):
    manifest(tmp_path, "oxford_pets", [("1.png", "pug")])
    textures = dtd(tmp_path)  # at the root, as torchvision leaves it
    food101(tmp_path / "food101")  # in a folder of its own
    folders(tmp_path / "imagenet_a", {"n01440764": [4], "n01443537": [5]})
    for place in ("wds_cars", "mine"):
        shard(tmp_path / place / "test" / "0.tar", samples((10, 1)))
        (tmp_path / place / "classnames.txt").write_text("cat\ndog\n")
    (tmp_path / "mine" / "zeroshot_classification_templates.txt").write_text("my {c}.\na {c}.\n")
    (tmp_path / "sun397").mkdir()
    found = uwm.load_zero_shot(tmp_path)
    assert list(found) == ["imagenet_a", "oxford_pets", "food101", "stanford_cars", "dtd", "mine"]
    assert {name: data.template for name, data in found.items()} == {
        "imagenet_a": "a photo of a {}.", "oxford_pets": "a photo of a {}, a type of pet.",
        "food101": "a photo of {}, a type of food.", "stanford_cars": "a photo of a {}.",
        "dtd": "a photo of a {} texture.", "mine": "my {}.",
    }  # fmt: skip
    assert all(data.name == name for name, data in found.items())
    assert read(found["dtd"]) == textures and read(found["imagenet_a"]) == [(4, "tench"), (5, "goldfish")]
    assert "the paper takes test, 3,669 images" in found["oxford_pets"].about
    assert "paper" not in found["mine"].about


def two_forms(root):
    shard(root / "own" / "0.tar", samples((10, 1)))
    folders(root / "own", {"cat": [1], "dog": [2]})


def two_forms_below(root):
    shard(root / "own" / "test" / "0.tar", samples((10, 1)))
    folders(root / "own" / "test", {"cat": [1], "dog": [2]})


def two_places(root):
    shard(root / "own" / "0.tar", samples((10, 1)))
    shard(root / "own" / "test" / "0.tar", samples((20, 1)))


def the_same_shard(root):
    shard(root / "own" / "0.tar", samples((10, 1)))
    shard(root / "own" / "1.tar", samples((20, 1)))
    shard(root / "own" / "copy.tar", samples((10, 1)))


def two_names(root):
    for name in ("dtd", "wds_vtab-dtd"):
        shard(root / name / "0.tar", samples((10, 1)))


@pytest.mark.parametrize(
    ("make", "words"),
    [(two_forms, "own holds shards and the folder of images cat"),
     (two_forms_below, "own holds shards and the folder of images cat"),
     (two_places, "own holds shards and so does its folder test"),
     (the_same_shard, "copy.tar is 0.tar once more"), (two_names, "holds dtd twice .*wds_vtab-dtd")],
)  # fmt: skip
def test_a_set_in_two_forms_or_under_two_names_is_refused(tmp_path, make, words):
    (tmp_path / "own").mkdir()
    (tmp_path / "own" / "classnames.txt").write_text("cat\ndog\n")
    (tmp_path / "own" / "train").mkdir()
    make(tmp_path)
    if make is two_names:
        (tmp_path / "own" / "classnames.txt").unlink()
    with pytest.raises(uwm.UwmError, match=words):
        uwm.load_zero_shot(tmp_path)


def test_class_folders_with_names_beside_them_are_a_set_of_its_own(tmp_path):
    folders(tmp_path / "mine", {"a": [1], "b": [2]})
    (tmp_path / "mine" / "classnames.txt").write_text("cat\ndog\n")
    expected = food101(tmp_path)
    (tmp_path / "food-101" / "classnames.txt").write_text("pie\nfish\n")
    found = uwm.load_zero_shot(tmp_path)
    assert list(found) == ["food101", "mine"] and found["mine"].prompts == [
        "a photo of a cat.",
        "a photo of a dog.",
    ]
    assert read(found["food101"]) == [(expected[0][0], "pie"), (expected[1][0], "fish")]


def test_a_published_set_without_its_lists_is_not_passed_over(tmp_path):
    folders(tmp_path / "stanford_cars", {"cars_test": [1], "cars_train": [2]})
    with pytest.raises(uwm.UwmError, match="without cars_test_annos_withlabels.mat"):
        uwm.load_zero_shot(tmp_path)


def test_a_set_of_the_papers_size_is_said_to_be_nothing_else(tmp_path):
    rows = 3669 * [("1.png", "pug")]
    (tmp_path / "oxford_pets.csv").write_text("image,label\n" + "1.png,pug\n" * len(rows))
    picture(tmp_path / "1.png", 1)
    assert "paper" not in one(tmp_path).about


def test_the_paper_profile_takes_what_is_at_hand_and_says_what_is_not(tmp_path, monkeypatch, capsys):
    sets = manifest(tmp_path / "zero_shot", "dtd", [("1.png", "a")])
    (sets / "cifar10" / "cifar-10-batches-py").mkdir(parents=True)
    monkeypatch.setenv("UWM_DATA", str(tmp_path))
    for parts in ({}, {"zero_shot": str(sets)}):
        assert list(uwm.profile("paper", data="pairs.jsonl", **parts).load_zero_shot()) == ["dtd"]
        line = capsys.readouterr().out
        assert line.count("\n") == 1 and str(sets) in line and line.count("imagenet") == 5
        assert "cifar-10-batches-py: pickled" in line and "dtd" not in line
    for place in ("", str(tmp_path / "nowhere")):
        monkeypatch.setenv("UWM_DATA", place)
        assert uwm.profile("paper", data="pairs.jsonl").load_zero_shot() == {}
        assert "UWM_DATA" in capsys.readouterr().out or place
    assert list(uwm.profile("mini", zero_shot=str(sets)).load_zero_shot()) == ["dtd"]
