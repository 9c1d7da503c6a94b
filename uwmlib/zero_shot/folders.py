"""Classification sets from folders: a folder of images for each class, or as torchvision lays a published set out.

Nothing is downloaded and nothing is unpickled. Images stay in their files until they are looked at.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from uwmlib.errors import UwmError
from uwmlib.torchvision_shim import import_torchvision
from uwmlib.tuples.images import ImageFiles
from uwmlib.zero_shot.sets import ZeroShotSet

# Name -> where its labels are, torchvision's class, and the options of the parts that are joined.
TORCHVISION: dict[str, tuple[str, str, list[dict[str, Any]]]] = {
    "food101": ("food-101/meta", "Food101", [{"split": "test"}]),
    "flowers102": ("flowers-102/imagelabels.mat", "Flowers102", [{"split": "test"}]),
    "eurosat": ("eurosat/2750", "EuroSAT", [{}]),
    "stanford_cars": ("stanford_cars/cars_test_annos_withlabels.mat", "StanfordCars", [{"split": "test"}]),
    "fgvc_aircraft": ("fgvc-aircraft-2013b/data", "FGVCAircraft", [{"split": "test"}]),
    "dtd": ("dtd/dtd/labels", "DTD", [{"split": "test", "partition": k} for k in range(1, 11)]),
    "sun397": ("SUN397/ClassName.txt", "SUN397", [{}]),
}
# Name -> the test file of the binary version, that of the class names, and the bytes of labels before each image.
CIFAR = {
    "cifar10": ("cifar-10-batches-bin/test_batch.bin", "cifar-10-batches-bin/batches.meta.txt", 1),
    "cifar100": ("cifar-100-binary/test.bin", "cifar-100-binary/fine_label_names.txt", 2),
}
PICKLES = {"cifar10": ("cifar-10-batches-py",), "cifar100": ("cifar-100-python",)}
PETS = "oxford-iiit-pet"
CALTECH = "caltech101/101_ObjectCategories"
CLUTTER = "BACKGROUND_Google"  # a folder of Caltech101 that is none of its classes
# Where a published archive keeps its class folders.
INNER = {
    "imagenet": ("val", "validation"),
    "imagenet_v2": ("imagenetv2-matched-frequency-format-val", "imagenetv2-matched-frequency"),
    "imagenet_r": ("imagenet-r",),
    "imagenet_a": ("imagenet-a",),
    "imagenet_sketch": ("sketch", "imagenet-sketch"),
    "caltech101": (CALTECH, "101_ObjectCategories"),
    "ucf101": ("UCF-101-midframes",),
}
# Variants of ImageNet with all its 1,000 classes; -R and -A have 200 of them, among which a model chooses.
WHOLE_IMAGENET = ("imagenet", "imagenet_v2", "imagenet_sketch")
JOINED_WORDS = ("eurosat", "ucf101")  # "AnnualCrop", "ApplyEyeMakeup"
SYNSET = re.compile(r"n\d{8}")  # how WordNet numbers its nouns, and ImageNet its folders


def folder_set(name: str, folder: Path, *, template: str) -> ZeroShotSet:
    """Read a set from a folder.

    Parameters
    ----------
    name : str
        One of the paper's sets is also found as torchvision lays it out, `folder` being the root that torchvision
        is given; CIFAR only in its binary version, because the Python version is pickled.
    folder : Path
        Or a folder for each class, with its images anywhere below.
    template : str
        Prompt with one place for the class name.

    Returns
    -------
    ZeroShotSet
        Classes are called as in the published set, with blanks for underscores, or else as their folders. Folders
        named by ImageNet's synsets ("n01440764") or, for its variants, by the numbers of its classes get the class
        names that open_clip has for ImageNet.

    Raises
    ------
    UwmError
        If there is no image, the set is damaged or pickled, or a class folder is no class of ImageNet.
    """
    try:
        images, labels, classes = _read(name, folder)
    except UwmError:
        raise
    except Exception as error:  # torchvision and scipy raise anything for a set that is incomplete or damaged
        reason = " ".join(str(error).split()) or type(error).__name__
        raise UwmError(f"{folder} is no whole copy of {name} ({reason}): copy or unpack it again.") from error
    if not len(images):
        raise UwmError(f"There is no image of {name} in {folder}: give a folder of images for each class.")
    labels = np.asarray(labels, dtype=np.int64)
    return ZeroShotSet(name, f"images in {folder.name}", images, labels, tuple(classes), template)


Read = tuple[Any, Sequence[int], Sequence[str]]  #: images, labels, classes


def is_published(name: str, folder: Path) -> bool:
    """Return whether a set of the paper is in `folder` as it is published, under a folder name of its own."""
    marks = {each: mark for each, (mark, *_) in (TORCHVISION | CIFAR).items()}
    marks |= {"oxford_pets": PETS, "caltech101": CALTECH}
    return name in marks and (folder / marks[name]).exists()


def pickled(name: str, folder: Path) -> Path | None:
    """Return where a set lies in a form that may hold code, and is not read."""
    return next((folder / part for part in PICKLES.get(name, ()) if (folder / part).exists()), None)


def _read(name: str, folder: Path) -> Read:
    """Read the set in the form in which it is there."""
    if is_published(name, folder):
        if name in TORCHVISION:
            return _torchvision(name, folder)
        if name in CIFAR:
            test, names, n_labels = CIFAR[name]
            return _cifar(folder / test, folder / names, n_labels)
        if name == "oxford_pets":
            return _oxford_pets(folder / PETS)
    if code := pickled(name, folder):
        raise UwmError(
            f"{code} is pickled and may hold code, so it is not read: put the binary version of {name}, its "
            f"webdataset shards or class folders there."
        )
    inner = [folder / part for part in INNER.get(name, ()) if (folder / part).is_dir()]
    return _class_folders(name, inner[0] if inner else folder)


def _torchvision(name: str, folder: Path) -> Read:
    """Read one of torchvision's data sets; its loader is given each file that would be opened, and opens none."""
    import_torchvision()
    from torchvision import datasets

    _, dataset, parts = TORCHVISION[name]
    samples: list[tuple[Path, str]] = []
    classes: dict[str, None] = {}
    for options in parts:
        found = getattr(datasets, dataset)(folder, loader=Path, **options)
        classes |= dict.fromkeys(found.classes)
        # Sorted, because SUN397 is listed in the order of the file system.
        labelled = sorted(found[i] for i in range(len(found)))
        samples += [(path, found.classes[int(label)]) for path, label in labelled]
    number = {of_class: i for i, of_class in enumerate(classes)}
    labels = [number[of_class] for _, of_class in samples]
    return ImageFiles([path for path, _ in samples]), labels, [_words(of_class, name) for of_class in classes]


def _oxford_pets(folder: Path) -> Read:
    """Read the test images of the Oxford-IIIT pets: torchvision's class opens an image to tell its label."""
    lines = [line.split() for line in (folder / "annotations" / "test.txt").read_text().splitlines()]
    labels = [int(number) - 1 for _, number, *_ in lines]
    breeds = {label: image.rpartition("_")[0] for (image, *_), label in zip(lines, labels, strict=True)}
    if sorted(breeds) != list(range(len(breeds))):
        raise ValueError("annotations/test.txt lacks a breed")
    files = [folder / "images" / f"{image}.jpg" for image, *_ in lines]
    return (
        ImageFiles(files),
        labels,
        [_words(breeds[label], "oxford_pets").title() for label in range(len(breeds))],
    )


def _cifar(test: Path, names: Path, n_labels: int) -> Read:
    """Read the binary version of CIFAR: the labels (coarse and fine in CIFAR-100), then 3 x 32 x 32 pixels."""
    size = n_labels + 3 * 32 * 32
    held = np.fromfile(test, dtype=np.uint8)
    if len(held) % size:
        raise ValueError(f"{test.name} ends within an image")
    rows = held.reshape(-1, size)
    images = rows[:, n_labels:].reshape(-1, 3, 32, 32).transpose(0, 2, 3, 1)  # [N, 3, H, W] -> [N, H, W, 3]
    return np.ascontiguousarray(images), rows[:, n_labels - 1].astype(np.int64), _lines(names)


def _class_folders(name: str, folder: Path) -> Read:
    """Read a folder of images for each class; hidden folders and files are none."""
    import_torchvision()
    from torchvision.datasets import ImageFolder
    from torchvision.datasets.folder import is_image_file

    found = ImageFolder(
        folder,
        is_valid_file=lambda path: is_image_file(path) and not Path(path).name.startswith("."),
        allow_empty=True,
    )
    left_out = {of_class for of_class in found.classes if of_class.startswith((".", "__MACOSX"))}
    left_out |= {CLUTTER} if name == "caltech101" else set()
    folders = [of_class for of_class in found.classes if of_class not in left_out]
    places, classes = _numbered(name, folder, folders)
    samples = [(path, found.classes[label]) for path, label in found.samples]
    samples = [(path, of_class) for path, of_class in samples if of_class in places]
    return ImageFiles([path for path, _ in samples]), [places[of_class] for _, of_class in samples], classes


def _numbered(name: str, folder: Path, folders: Sequence[str]) -> tuple[dict[str, int], list[str]]:
    """Return the number of each folder's class, and what the classes are called."""
    numbers = all(each.isascii() and each.isdigit() for each in folders)
    if all(SYNSET.fullmatch(each) for each in folders) or (numbers and name in WHOLE_IMAGENET):
        return _imagenet(name, folder, folders)
    if numbers:
        raise UwmError(
            f"The class folders in {folder} are numbers: call them by the names of the classes, or give a manifest."
        )
    return {each: i for i, each in enumerate(folders)}, [_words(each, name) for each in folders]


def _imagenet(name: str, folder: Path, folders: Sequence[str]) -> tuple[dict[str, int], list[str]]:
    words, synsets = imagenet_classes()
    numbers = {synset: i for i, synset in enumerate(synsets)} | {str(i): i for i in range(len(synsets))}
    unknown = next((each for each in folders if each not in numbers), None)
    if unknown is not None:
        raise UwmError(
            f"{folder / unknown} is no class of ImageNet's 1,000: move it elsewhere, or give a manifest."
        )
    present = range(len(words)) if name in WHOLE_IMAGENET else sorted(numbers[each] for each in folders)
    places = {number: i for i, number in enumerate(present)}
    return {each: places[numbers[each]] for each in folders}, [words[number] for number in present]


def imagenet_classes() -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Return the names of ImageNet's 1,000 classes, as open_clip has them, and their synsets, as timm has them."""
    import_torchvision()
    from open_clip import IMAGENET_CLASSNAMES
    from timm.data import ImageNetInfo

    return tuple(IMAGENET_CLASSNAMES), tuple(ImageNetInfo("imagenet-1k").label_names())


def _words(of_class: str, name: str) -> str:
    """Return a published class name or the name of a class folder as words."""
    words = of_class.replace("_", " ").replace("/", " " if name == "sun397" else "/")
    return re.sub(r"(?<=[a-z])(?=[A-Z])", " ", words) if name in JOINED_WORDS else words


def _lines(path: Path) -> list[str]:
    return [line.strip() for line in path.read_text(encoding="utf-8").splitlines() if line.strip()]
