"""Classification sets from folders: a folder of images for each class, or a published set as its archive unpacks.

Nothing is downloaded and nothing is unpickled. Images stay in their files until they are looked at.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from uwmlib.errors import UwmError, in_one_line
from uwmlib.torchvision_shim import import_torchvision
from uwmlib.tuples.images import ImageFiles
from uwmlib.zero_shot.sets import ZeroShotSet
from uwmlib.zero_shot.shards import CLASSES, class_names

SUFFIXES = (".jpg", ".jpeg", ".png", ".webp", ".bmp", ".gif", ".tif", ".tiff", ".ppm", ".pgm")
# The folder of the Python version of CIFAR, and the pickle in it that holds the test images.
PICKLES = {"cifar10": ("cifar-10-batches-py", "test_batch"), "cifar100": ("cifar-100-python", "test")}
# Where the class folders of a set are as its archive unpacks, most special first.
INNER = {
    "imagenet": ("val", "validation"),
    "imagenet_v2": ("imagenetv2-matched-frequency-format-val", "imagenetv2-matched-frequency"),
    "imagenet_r": ("imagenet-r",),
    "imagenet_a": ("imagenet-a",),
    "imagenet_sketch": ("sketch", "imagenet-sketch", "ImageNet-Sketch"),
    "caltech101": (
        "caltech101/101_ObjectCategories", "caltech-101/101_ObjectCategories", "101_ObjectCategories",
    ),
    "cifar10": ("test",),
    "cifar100": ("test",),
    "eurosat": ("eurosat/2750", "EuroSAT/2750", "2750"),
    "ucf101": ("UCF-101-midframes",),
}  # fmt: skip
TEST_LISTS = "ucfTrainTestlist"
NO_CLASS = {"caltech101": "BACKGROUND_Google", "ucf101": TEST_LISTS}  # folders beside the classes
# Variants of ImageNet with all its 1,000 classes; -R and -A have 200 of them, among which a model chooses.
WHOLE_IMAGENET = ("imagenet", "imagenet_v2", "imagenet_sketch")
SYNSET = re.compile(r"n[0-9]{8}")  # how WordNet numbers its nouns, and ImageNet its folders

Read = tuple[Any, Sequence[int], Sequence[str]]  #: images, labels, what the files call the classes


def folder_set(name: str, folder: Path, *, template: str) -> ZeroShotSet:
    """Read a set from a folder.

    Parameters
    ----------
    name : str
        One of the paper's sets is also found as its archive unpacks and torchvision reads it; CIFAR only in its
        binary version, because the Python version is pickled.
    folder : Path
        Holds a folder of images for each of at least two classes, without folders in it. Or it is, or holds, the
        published set: `oxford-iiit-pet`, `dtd`, ... A `classnames.txt` in it (one name a line, in the order of the
        sorted class folders) replaces the names.
    template : str
        Prompt with one place for the class name.

    Returns
    -------
    ZeroShotSet
        Classes are called as in the published set, with blanks for underscores, or else as their folders: EuroSAT has
        "AnnualCrop", as in torchvision. UCF101 alone has its joined words apart ("Apply Eye Makeup"), and those of
        its middle frames that `ucfTrainTestlist` names for a test, where these lists are beside them. Folders named
        by ImageNet's synsets ("n01440764") or, for its variants, by the numbers of its classes get the class names
        that open_clip has for ImageNet.

    Raises
    ------
    UwmError
        If the set is damaged, incomplete or pickled, a listed image is missing, there are not two class folders, one
        of them has no image or holds a folder, an image is in none, or a class has no name or is no class of ImageNet.
    """
    folder = Path(os.path.abspath(folder))  # torchvision wants the name of a root, which "." does not tell
    if not folder.is_dir():
        raise UwmError(f"There is no folder {folder}: give the folder of {name}.")
    try:
        images, labels, classes = _read(name, folder)
    except UwmError:
        raise
    except Exception as error:  # torchvision and scipy raise anything for a set that is incomplete or damaged
        raise UwmError(
            f"{folder} is no whole copy of {name} ({in_one_line(error)}): copy or unpack it again."
        ) from error
    paths = images.paths if isinstance(images, ImageFiles) else []
    missing = next((path for path in paths if not path.is_file()), None)
    if missing is not None:
        raise UwmError(f"{missing} belongs to {name} but is not there: copy or unpack the set again.")
    labels = np.asarray(labels, dtype=np.int64)
    return ZeroShotSet(name, f"images in {folder.name}", images, labels, classes, template)


def published(name: str, folder: Path) -> Path | None:
    """Return where a set of the paper lies in `folder` as it is published, under a folder name of its own.

    Raises
    ------
    UwmError
        If its images are there without the files that tell their labels.
    """
    homes = [folder / root for root in LAYOUTS[name].roots] if name in LAYOUTS else []
    return _home(name, homes)


def pickled(name: str, folder: Path) -> Path | None:
    """Return where a set lies in a form that may hold code, and is not read."""
    if name not in PICKLES:
        return None
    root, test = PICKLES[name]
    if (folder / root).exists():
        return folder / root
    return folder if (folder / test).is_file() else None


def _home(name: str, homes: Sequence[Path]) -> Path | None:
    """Return the folder of a published set among `homes`; its images alone would pass for a class."""
    layout = LAYOUTS.get(name)
    for home in homes if layout else ():
        if (home / layout.sign).exists():
            return home
        if (home / layout.images).exists():
            raise UwmError(f"{home} is {name} without {layout.sign}: copy or unpack the whole set there.")
    return None


def _read(name: str, folder: Path) -> Read:
    """Read the set in the form in which it is there."""
    home = published(name, folder) or _home(name, [folder])
    if home:
        images, labels, keys = LAYOUTS[name].read(home)
    else:
        if code := pickled(name, folder):
            raise UwmError(
                f"{code} is pickled and may hold code, so it is not read: put the binary version of {name}, its "
                f"webdataset shards or class folders there."
            )
        home = next((folder / part for part in INNER.get(name, ()) if (folder / part).is_dir()), folder)
        images, labels, keys = _class_folders(name, home)
    return images, labels, _names(name, keys, home, folder)


# --- Class folders ---


def _class_folders(name: str, home: Path) -> Read:
    """Read a folder of images for each class; hidden folders and files are none."""
    entries = [entry for entry in _visible(home) if entry.name != NO_CLASS.get(name)]
    found = [entry.name for entry in entries if entry.is_dir()]
    if not found:
        raise UwmError(f"There is no image of {name} in {home}: give a folder of images for each class.")
    loose = next((entry.name for entry in entries if _is_image(entry)), None)
    if loose:
        raise UwmError(f"{home / loose} is in no class folder: move it into one, or elsewhere.")
    places, keys = _numbered(name, home, found)
    if len(keys) == 1:
        raise UwmError(
            f"{home} holds one class folder alone ({found[0]}): give the folder of all classes, or a manifest."
        )
    in_order = sorted(found, key=places.__getitem__)
    files = [(path, places[each]) for each in in_order for path in _images_in(home / each)]
    if name == "ucf101":
        files = _of_test_lists(files, home)
    return ImageFiles([path for path, _ in files]), [label for _, label in files], keys


def _visible(folder: Path) -> list[os.DirEntry]:
    with os.scandir(folder) as entries:
        return sorted(
            (entry for entry in entries if not entry.name.startswith((".", "__MACOSX"))),
            key=lambda entry: entry.name,
        )


def _is_image(entry: os.DirEntry) -> bool:
    return entry.name.lower().endswith(SUFFIXES) and not entry.is_dir()


def _images_in(folder: Path) -> list[Path]:
    entries = _visible(folder)
    inner = next((entry.name for entry in entries if entry.is_dir()), None)
    if inner:
        raise UwmError(
            f"{folder} is no class folder, because it holds the folder {inner}: give the folder of the classes."
        )
    images = [Path(entry.path) for entry in entries if _is_image(entry)]
    if not images:
        raise UwmError(f"The class folder {folder} has no image: fill it, or move it elsewhere.")
    return images


def _numbered(name: str, home: Path, found: Sequence[str]) -> tuple[dict[str, int], Sequence[str]]:
    """Return the number of each folder's class, and what all classes are called on the disk."""
    numbers = [each for each in found if each.isascii() and each.isdigit()]
    synsets = [each for each in found if SYNSET.fullmatch(each)]
    if not synsets and not (numbers and name in WHOLE_IMAGENET):
        keys = sorted(found, key=int if len(numbers) == len(found) else None)
        return {each: i for i, each in enumerate(keys)}, keys
    _, known = imagenet_classes()
    places = {synset: i for i, synset in enumerate(known)}
    if not synsets:
        places = {str(i): i for i in range(len(known))}
    elif name not in WHOLE_IMAGENET:
        known = sorted(synsets)
        places = {synset: i for i, synset in enumerate(known)}
    strange = next((each for each in found if each not in places), None)
    if strange:
        raise _no_class_of_imagenet(home / strange)
    return places, known


def _no_class_of_imagenet(folder: Path) -> UwmError:
    return UwmError(f"{folder} is no class of ImageNet's 1,000: move it elsewhere, or give a manifest.")


def _of_test_lists(files: list[tuple[Path, int]], home: Path) -> list[tuple[Path, int]]:
    """Keep the frames of the videos in UCF101's three test lists, where the lists are at hand."""
    lists = next((place / TEST_LISTS for place in (home, home.parent) if (place / TEST_LISTS).is_dir()), None)
    if lists is None:
        return files
    lines = [line for i in (1, 2, 3) for line in _lines(lists / f"testlist0{i}.txt")]
    videos = {Path(line.split()[0]).stem for line in lines}
    lacking = min(videos - {path.stem for path, _ in files}, default=None)
    if lacking:
        raise UwmError(
            f"The video {lacking} in {lists} has no frame: save its middle frame as {lacking}.jpg."
        )
    return [(path, label) for path, label in files if path.stem in videos]


# --- Names ---


def _names(name: str, keys: Sequence[str], home: Path, folder: Path) -> tuple[str, ...]:
    """Return the class names beside the images, or else the words in what the files call the classes."""
    words = [_words(key, name) for key in keys]
    given = [place / CLASSES for place in dict.fromkeys((home, folder)) if (place / CLASSES).is_file()]
    if len(given) > 1:
        raise UwmError(f"{given[0]} and {given[1]} both name the classes: keep one of them.")
    if given:
        return _given_names(given[0], words)
    if all(SYNSET.fullmatch(key) for key in keys):
        names = dict(zip(*reversed(imagenet_classes()), strict=True))
        strange = next((key for key in keys if key not in names), None)
        if strange:
            raise _no_class_of_imagenet(home / strange)
        return tuple(names[key] for key in keys)
    if all(key.isascii() and key.isdigit() for key in keys):
        raise UwmError(
            f"The class folders in {home} are numbers: write the names of the classes to a {CLASSES} there, in the "
            f"order of the numbers, or give a manifest."
        )
    return tuple(words)


def _given_names(path: Path, words: Sequence[str]) -> tuple[str, ...]:
    names = class_names(path)
    if len(names) != len(words):
        raise UwmError(
            f"{path} names {len(names)} classes, but there are {len(words)}: give each one a line."
        )
    for line, (given, own) in enumerate(zip(names, words, strict=True), start=1):
        if given != own and given in words:  # the names in another order, which would exchange classes
            raise UwmError(
                f"Line {line} of {path} is {given}, but class {line} is {own}: order its lines alike."
            )
    return names


def imagenet_classes() -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Return the names of ImageNet's 1,000 classes, as open_clip has them, and their synsets, as timm has them."""
    import_torchvision()
    from open_clip import IMAGENET_CLASSNAMES
    from timm.data import ImageNetInfo

    return tuple(IMAGENET_CLASSNAMES), tuple(ImageNetInfo("imagenet-1k").label_names())


def _words(key: str, name: str) -> str:
    """Return what the files call a class as words."""
    words = key.replace("_", " ").replace("/", " " if name == "sun397" else "/")  # an aircraft is the F/A-18
    return re.sub(r"(?<=[a-z])(?=[A-Z])", " ", words) if name == "ucf101" else words


def _lines(path: Path) -> list[str]:
    return [line.strip() for line in path.read_text(encoding="utf-8").splitlines() if line.strip()]


# --- Published sets ---


class Layout(NamedTuple):
    """How a published set lies on the disk.

    Attributes
    ----------
    roots : tuple of str
        What its folder is called, most special first.
    sign, images : str
        In there, a file that tells labels or classes, and where the images are.
    read : callable
        Reads the set from its folder.
    """

    roots: tuple[str, ...]
    sign: str
    images: str
    read: Callable[[Path], Read]


def _of_torchvision(root: str, sign: str, images: str, dataset: str, **options: Any) -> Layout:
    return Layout((root,), sign, images, partial(_torchvision, root=root, dataset=dataset, **options))


def _torchvision(home: Path, *, root: str, dataset: str, **options: Any) -> Read:
    """Read one of torchvision's data sets; its loader is given each file that would be opened, and opens none."""
    if home.name != root:
        raise UwmError(f"{home} holds torchvision's {dataset} under another name: rename it to {root}.")
    data = getattr(import_torchvision().datasets, dataset)(home.parent, loader=Path, **options)
    # Sorted, because SUN397 is listed in the order of the file system.
    labelled = sorted(data[i] for i in range(len(data)))
    labels = [int(label) for _, label in labelled]
    lacking = set(range(len(data.classes))) - set(labels)
    if dataset == "SUN397" and lacking:  # it has no list, but takes the files that are there
        raise ValueError(f"{data.classes[min(lacking)]} has no image")
    return ImageFiles([path for path, _ in labelled]), labels, data.classes


def _oxford_pets(home: Path) -> Read:
    """Read the test images of the Oxford-IIIT pets: torchvision's class opens an image to tell its label."""
    lines = [line.split() for line in _lines(home / "annotations" / "test.txt")]
    labels = [int(number) - 1 for _, number, *_ in lines]
    breeds = sorted({(label, line[0].rpartition("_")[0]) for label, line in zip(labels, lines, strict=True)})
    if [label for label, _ in breeds] != list(range(len(breeds))):
        raise ValueError("annotations/test.txt lacks a breed, or has two under one number")
    files = [home / "images" / f"{image}.jpg" for image, *_ in lines]
    return ImageFiles(files), labels, [breed.replace("_", " ").title() for _, breed in breeds]


def _textures(home: Path) -> Read:
    """Read the test images of the ten partitions, one after the other; torchvision wants a folder more around it."""
    parts = [sorted(_lines(home / "labels" / f"test{k}.txt")) for k in range(1, 11)]
    images = [image for part in parts for image in part]
    keys = sorted({image.split("/")[0] for image in images})
    labels = [keys.index(image.split("/")[0]) for image in images]
    return ImageFiles([home / "images" / image for image in images]), labels, keys


def _cifar(home: Path, *, test: str, names: str, n_labels: int) -> Read:
    """Read the binary version of CIFAR: the labels (coarse and fine in CIFAR-100), then 3 x 32 x 32 pixels."""
    size = n_labels + 3 * 32 * 32
    held = np.fromfile(home / test, dtype=np.uint8)
    if len(held) % size or not len(held):
        raise ValueError(f"{test} ends within an image")
    rows = held.reshape(-1, size)
    images = rows[:, n_labels:].reshape(-1, 3, 32, 32).transpose(0, 2, 3, 1)  # [N, 3, H, W] -> [N, H, W, 3]
    return np.ascontiguousarray(images), rows[:, n_labels - 1].astype(np.int64), _lines(home / names)


def _of_cifar(root: str, names: str, test: str, n_labels: int) -> Layout:
    return Layout((root,), names, test, partial(_cifar, test=test, names=names, n_labels=n_labels))


LAYOUTS = {
    "oxford_pets": Layout(("oxford-iiit-pet",), "annotations/test.txt", "images", _oxford_pets),
    "food101": _of_torchvision("food-101", "meta/test.json", "images", "Food101", split="test"),
    "flowers102": _of_torchvision("flowers-102", "imagelabels.mat", "jpg", "Flowers102", split="test"),
    "cifar10": _of_cifar("cifar-10-batches-bin", "batches.meta.txt", "test_batch.bin", 1),
    "cifar100": _of_cifar("cifar-100-binary", "fine_label_names.txt", "test.bin", 2),
    "stanford_cars": _of_torchvision(
        "stanford_cars", "cars_test_annos_withlabels.mat", "cars_test", "StanfordCars", split="test"
    ),
    "fgvc_aircraft": _of_torchvision(
        "fgvc-aircraft-2013b", "data/variants.txt", "data", "FGVCAircraft", split="test"
    ),
    "dtd": Layout(("dtd/dtd", "dtd"), "labels/test1.txt", "images", _textures),
    "sun397": _of_torchvision("SUN397", "ClassName.txt", "a/abbey", "SUN397"),
}
