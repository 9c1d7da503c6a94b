"""Sets from folders: what was written is what is read, or it is refused; nothing is unpickled."""

from __future__ import annotations

import pickle
from pathlib import Path

import numpy as np
import pytest
import set_files
from set_files import fgvc_aircraft, folders, food101, oxford_pets, picture, read, stanford_cars

import uwmlib as uwm
from uwmlib.zero_shot.folders import folder_set, imagenet_classes

PHOTO = "a photo of a {}."


def load(name: str, root: Path):
    return folder_set(name, root, template=PHOTO)


# --- Folders of images ---


def test_class_folders_are_classes_and_hidden_things_are_none(tmp_path):
    root = folders(tmp_path, {"pug_dog": [10, 20], "cat": [30], ".cache": [99], "__MACOSX": [98]})
    picture(root / "cat" / "._0.png", 97)
    (root / "cat" / "notes.txt").write_text("no image")
    (root / "README.md").write_text("no class")
    data = load("own", root)
    assert data.classes == ("cat", "pug dog")
    assert read(data) == [(30, "cat"), (10, "pug dog"), (20, "pug dog")]


def test_folders_of_own_sets_that_are_numbers_are_refused(tmp_path):
    with pytest.raises(uwm.UwmError, match="are numbers: .* manifest"):
        load("own", folders(tmp_path, {"0": [1], "1": [2], "10": [3]}))


@pytest.mark.parametrize(("name", "n"), [("imagenet", 1000), ("imagenet_sketch", 1000), ("imagenet_r", 2)])
def test_synsets_get_the_names_of_imagenet(tmp_path, name, n):
    data = load(name, folders(tmp_path, {"n01443537": [50], "n01440764": [40]}))
    assert read(data) == [(40, "tench"), (50, "goldfish")]
    assert len(data.classes) == n


def test_imagenet_v2_counts_its_folders_as_numbers_and_not_as_text(tmp_path):
    inner = tmp_path / "imagenetv2-matched-frequency-format-val"
    data = load("imagenet_v2", folders(inner, {str(i): [i % 251] for i in (0, 1, 2, 10, 999)}))
    names, _ = imagenet_classes()
    assert sorted(read(data)) == sorted((i % 251, names[i]) for i in (0, 1, 2, 10, 999))
    assert len(data.classes) == 1000


def test_the_synsets_of_imagenet_stand_in_the_order_of_its_names():
    names, synsets = imagenet_classes()
    assert len(names) == len(synsets) == 1000 and list(synsets) == sorted(synsets)
    known = {"n01440764": "tench", "n02504458": "African bush elephant", "n15075141": "toilet paper"}
    assert {synset: names[synsets.index(synset)] for synset in known} == known


def test_a_synset_outside_imagenet_is_refused(tmp_path):
    with pytest.raises(uwm.UwmError, match="n00000001 is no class of ImageNet"):
        load("imagenet_a", folders(tmp_path, {"n00000001": [1], "n01440764": [2]}))


def test_a_broken_image_is_named_when_it_is_opened(tmp_path):
    root = folders(tmp_path, {"cat": [1, 2], "dog": [3]})
    (root / "cat" / "1.png").write_bytes((root / "cat" / "1.png").read_bytes()[:40])
    data = load("own", root)
    assert np.asarray(data.images[0])[0, 0, 0] == 1
    with pytest.raises(uwm.UwmError, match="1.png is not a readable image"):
        data.images[:]


@pytest.mark.parametrize(
    ("name", "files", "words"),
    [
        ("own", [], "no image of own .* a folder of images for each class"),
        ("own", ["x.png"], "no image of own"),
        ("own", ["jpg/x.png", "jpg/y.png"], "one class folder alone .jpg"),
        (
            "own",
            ["train/cat/x.png", "val/dog/x.png"],
            "train is no class folder, because it holds the folder cat",
        ),
        ("own", ["cat/x.png", "dog/deep/x.png"], "dog is no class folder"),
        ("own", ["cat/x.png", "dog/x.txt"], "dog has no image"),
        ("own", ["cat/x.png", "dog/._x.png"], "dog has no image"),
        ("own", ["cat/x.png", "dog/x.png", "y.PNG"], "y.PNG is in no class folder"),
        ("imagenet_r", ["n01440764/x.png", "misc/x.png"], "misc is no class of ImageNet"),
        ("own", ["n01440764/x.png", "misc/x.png"], "misc is no class of ImageNet"),
        ("imagenet", ["n01440764/x.png", "n99999999/x.png"], "n99999999 is no class of ImageNet"),
        ("imagenet_r", ["n01440764/x.png", "n99999999/x.png"], "n99999999 is no class of ImageNet"),
        ("imagenet_v2", ["0/x.png", "1000/x.png"], "1000 is no class of ImageNet"),
        ("imagenet_v2", ["0/x.png", "01/x.png"], "01 is no class of ImageNet"),
        ("imagenet_v2", ["0/x.png", "tench/x.png"], "tench is no class of ImageNet"),
    ],
)
def test_folders_that_would_be_misread_are_refused(tmp_path, name, files, words):
    for file in files:
        path = picture(tmp_path / Path(file).with_suffix(".png"), 1)
        path.rename(tmp_path / file)
    with pytest.raises(uwm.UwmError, match=words) as caught:
        load(name, tmp_path)
    assert "\n" not in str(caught.value)


def test_a_folder_that_is_not_there_is_refused(tmp_path):
    with pytest.raises(uwm.UwmError, match="no folder .*: give the folder of own"):
        load("own", tmp_path / "none")


def test_names_beside_the_class_folders_replace_theirs(tmp_path):
    root = folders(tmp_path / "imagenet-a", {"n01440764": [1], "n01443537": [2]})
    for beside, given in ((root, root), (root, tmp_path), (tmp_path, tmp_path)):
        (beside / "classnames.txt").write_bytes("\ufeffgreen fish\r\ngold fish\r\n".encode())
        assert read(load("imagenet_a", given)) == [(1, "green fish"), (2, "gold fish")]
        if given != beside:
            (given / "classnames.txt").write_text("a\nb\n")
            with pytest.raises(uwm.UwmError, match="both name the classes"):
                load("imagenet_a", given)
        for place in (root, tmp_path):
            (place / "classnames.txt").unlink(missing_ok=True)


def test_numbers_with_names_beside_them_are_counted_as_numbers(tmp_path):
    root = folders(tmp_path, {str(i): [i] for i in (0, 1, 2, 10)})
    (root / "classnames.txt").write_text("zero\none\ntwo\nten\n")
    assert read(load("own", root)) == [(0, "zero"), (1, "one"), (2, "two"), (10, "ten")]


@pytest.mark.parametrize(
    ("names", "words"),
    [
        ("dog\ncat\n", "Line 1 .* is dog, but class 1 is cat"),
        ("a\nb\nc\n", "names 3 classes, but there are 2"),
    ],
)
def test_names_that_do_not_fit_the_class_folders_are_refused(tmp_path, names, words):
    root = folders(tmp_path, {"cat": [1], "dog": [2]})
    (root / "classnames.txt").write_text(names)
    with pytest.raises(uwm.UwmError, match=words):
        load("own", root)


# --- Published layouts ---


NAMES = [
    "food101",
    "eurosat",
    "fgvc_aircraft",
    "dtd",
    "sun397",
    "stanford_cars",
    "caltech101",
    "oxford_pets",
    "ucf101",
]


@pytest.mark.parametrize("name", NAMES)
def test_published_layouts_from_above_and_from_their_own_root(tmp_path, monkeypatch, name):
    expected = getattr(set_files, name)(tmp_path)
    before = sorted(tmp_path.rglob("*"))
    (root,) = tmp_path.iterdir()
    assert read(load(name, tmp_path)) == expected
    assert read(load(name, root)) == expected
    monkeypatch.chdir(root)
    assert read(load(name, Path("."))) == expected
    assert sorted(tmp_path.rglob("*")) == before


def test_dtd_as_its_archive_unpacks(tmp_path):
    expected = set_files.dtd(tmp_path)
    (tmp_path / "dtd").rename(tmp_path / "outer")
    for folder in (tmp_path / "outer", tmp_path / "outer" / "dtd"):
        assert read(load("dtd", folder)) == expected


@pytest.mark.parametrize(
    ("name", "sign", "below"),
    [
        ("food101", "food-101/meta/test.json", "food-101"),
        ("fgvc_aircraft", "fgvc-aircraft-2013b/data/variants.txt", "fgvc-aircraft-2013b"),
        ("stanford_cars", "stanford_cars/cars_test_annos_withlabels.mat", "stanford_cars"),
        ("oxford_pets", "oxford-iiit-pet/annotations/test.txt", "oxford-iiit-pet"),
        ("dtd", "dtd/dtd/labels/test1.txt", "dtd"),
        ("sun397", "SUN397/ClassName.txt", "SUN397"),
    ],
)
def test_images_without_the_file_of_their_labels_are_no_classes(tmp_path, name, sign, below):
    getattr(set_files, name)(tmp_path)
    (tmp_path / sign).unlink()
    for folder in (tmp_path, tmp_path / below):
        with pytest.raises(uwm.UwmError, match=f"is {name} without"):
            load(name, folder)


@pytest.mark.parametrize("folder", ["", "flowers-102"])
def test_flowers_without_their_lists_are_no_class_called_jpg(tmp_path, folder):
    folders(tmp_path / "flowers-102", {"jpg": [1, 2]}, ".jpg")
    with pytest.raises(uwm.UwmError, match="flowers102 without imagelabels.mat"):
        load("flowers102", tmp_path / folder)


@pytest.mark.parametrize("name", ["food101", "fgvc_aircraft", "dtd", "stanford_cars", "oxford_pets"])
def test_a_listed_image_that_is_missing_is_refused_when_the_set_is_loaded(tmp_path, name):
    getattr(set_files, name)(tmp_path)
    path = load(name, tmp_path).images.paths[0]
    path.unlink()
    with pytest.raises(uwm.UwmError, match=f"{path.name} belongs to {name} but is not there"):
        load(name, tmp_path)


def test_a_link_that_leads_nowhere_is_a_missing_image(tmp_path):
    root = folders(tmp_path, {"cat": [1], "dog": [2]})
    (root / "dog" / "1.png").symlink_to(tmp_path / "nowhere.png")
    with pytest.raises(uwm.UwmError, match="1.png belongs to own but is not there"):
        load("own", root)


def test_a_scene_without_images_is_refused(tmp_path):
    set_files.sun397(tmp_path)
    (tmp_path / "SUN397" / "a" / "apartment_building" / "outdoor" / "sun_b.jpg").unlink()
    with pytest.raises(uwm.UwmError, match="apartment_building/outdoor has no image"):
        load("sun397", tmp_path)


def test_a_renamed_root_of_torchvision_is_refused(tmp_path):
    food101(tmp_path)
    with pytest.raises(uwm.UwmError, match="rename it to food-101"):
        load("food101", (tmp_path / "food-101").rename(tmp_path / "food"))
    oxford_pets(tmp_path)
    assert len(load("oxford_pets", (tmp_path / "oxford-iiit-pet").rename(tmp_path / "pets")).images) == 2


@pytest.mark.parametrize(
    "lines", ["Abyssinian_201 1 1 1\nBirman_1 3 1 2", "Abyssinian_201 1 1 1\nBirman_1 1 1 2"]
)
def test_breeds_whose_numbers_do_not_fit_are_refused(tmp_path, lines):
    oxford_pets(tmp_path)
    (tmp_path / "oxford-iiit-pet" / "annotations" / "test.txt").write_text(lines)
    with pytest.raises(uwm.UwmError, match="lacks a breed"):
        load("oxford_pets", tmp_path)


def test_ucf101_takes_the_middle_frames_of_its_test_lists(tmp_path):
    frames = tmp_path / "UCF-101-midframes"
    for group in (1, 8, 15, 22):
        picture(frames / "ApplyEyeMakeup" / f"v_ApplyEyeMakeup_g{group:02d}_c01.png", group)
        picture(frames / "Yo_Yo" / f"v_YoYo_g{group:02d}_c01.png", 100 + group)
    assert len(load("ucf101", tmp_path).images) == 8
    (tmp_path / "ucfTrainTestlist").mkdir()
    for i, group in enumerate((1, 8, 15), start=1):
        lines = [
            f"{place}_g{group:02d}_c01.avi" for place in ("ApplyEyeMakeup/v_ApplyEyeMakeup", "YoYo/v_YoYo")
        ]
        (tmp_path / "ucfTrainTestlist" / f"testlist0{i}.txt").write_text("\r\n".join([*lines, ""]))
    for folder in (tmp_path, frames):
        data = load("ucf101", folder)
        assert [shade for shade, _ in read(data)] == [1, 8, 15, 101, 108, 115]
        assert data.classes == ("Apply Eye Makeup", "Yo Yo")
    data.images.paths[0].unlink()
    with pytest.raises(uwm.UwmError, match="v_ApplyEyeMakeup_g01_c01 .* has no frame"):
        load("ucf101", tmp_path)


def test_flowers_are_numbered_from_1_in_their_file(tmp_path, monkeypatch):
    from scipy.io import savemat

    from uwmlib.torchvision_shim import import_torchvision

    flowers = import_torchvision().datasets.Flowers102
    monkeypatch.setattr(
        flowers, "_check_integrity", lambda self: True
    )  # the checksums are those of the real files
    base = tmp_path / "flowers-102"
    for i in (1, 2, 3):
        picture(base / "jpg" / f"image_0000{i}.jpg", 10 * i)
    savemat(base / "imagelabels.mat", {"labels": np.array([[77, 1, 102]])})
    savemat(
        base / "setid.mat", {"trnid": np.array([[1]]), "valid": np.array([[1]]), "tstid": np.array([[2, 3]])}
    )
    data = load("flowers102", tmp_path)
    assert read(data) == [(20, "pink primrose"), (30, "blackberry lily")] and len(data.classes) == 102


@pytest.mark.parametrize(
    ("make", "broken"),
    [
        (food101, "food-101/meta/test.json"),
        (fgvc_aircraft, "fgvc-aircraft-2013b/data/images_variant_test.txt"),
        (stanford_cars, "stanford_cars/cars_test_annos_withlabels.mat"),
        (oxford_pets, "oxford-iiit-pet/annotations/test.txt"),
    ],
)
def test_a_damaged_copy_is_refused_in_one_sentence(tmp_path, make, broken):
    make(tmp_path)
    (tmp_path / broken).write_text("nonsense\n")
    with pytest.raises(
        uwm.UwmError, match=rf"no whole copy of {make.__name__} \(.+\): copy or unpack it again\.$"
    ):
        load(make.__name__, tmp_path)


@pytest.mark.parametrize(
    ("name", "test", "names", "n_labels"),
    [
        ("cifar10", "cifar-10-batches-bin/test_batch.bin", "cifar-10-batches-bin/batches.meta.txt", 1),
        ("cifar100", "cifar-100-binary/test.bin", "cifar-100-binary/fine_label_names.txt", 2),
    ],
)
def test_binary_cifar_is_read_as_its_authors_describe_it(tmp_path, name, test, names, n_labels):
    images = np.random.default_rng(0).integers(0, 256, (3, 32, 32, 3), dtype=np.uint8)
    labels = [1, 0, 1]
    (tmp_path / test).parent.mkdir()
    # The fine label stands last; then all of red, row by row, then green, then blue.
    rows = [
        bytes([9, label][-n_labels:]) + b"".join(image[:, :, channel].tobytes() for channel in range(3))
        for image, label in zip(images, labels, strict=True)
    ]
    (tmp_path / test).write_bytes(b"".join(rows))
    (tmp_path / names).write_text("airplane\nautomobile\n\n")
    for folder in (tmp_path, (tmp_path / test).parent):
        data = load(name, folder)
        assert np.array_equal(data.images, images) and data.labels.tolist() == labels
        assert data.classes == ("airplane", "automobile")
    (tmp_path / test).write_bytes(b"".join(rows)[:-1])
    with pytest.raises(uwm.UwmError, match="ends within an image"):
        load(name, tmp_path)


class Trap:
    """Unpickled, it makes a file."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return Path.touch, (self.path,)


def test_pickled_cifar_is_refused_and_never_unpickled(tmp_path):
    folder = tmp_path / "cifar-10-batches-py"
    folder.mkdir()
    for name in ("test_batch", "batches.meta"):
        (folder / name).write_bytes(pickle.dumps(Trap(tmp_path / "sprung")))
    with pytest.raises(uwm.UwmError, match="pickled and may hold code"):
        load("cifar10", tmp_path)
    with pytest.raises(uwm.UwmError, match="pickled and may hold code"):
        load("cifar10", folder)
    assert not (tmp_path / "sprung").exists()
