"""Small images of one grey in the layouts in which classification sets are published, and what a set shows of them."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
from PIL import Image


def picture(path, shade: int) -> Path:
    """Write a small image of one grey; its shade says later which one was read."""
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (20, 12), (shade,) * 3).save(path, **({"quality": 100} if path.suffix == ".jpg" else {}))
    return path


def read(data) -> list[tuple[int, str]]:
    """What a set holds: the shade of each image, and the name of its class."""
    shades = [int(np.asarray(image)[0, 0, 0]) for image in data.images[:]]
    return [(shade, data.classes[label]) for shade, label in zip(shades, data.labels, strict=True)]


def folders(root: Path, contents: dict[str, list[int]], suffix: str = ".png") -> Path:
    for name, shades in contents.items():
        (root / name).mkdir(parents=True, exist_ok=True)
        for i, shade in enumerate(shades):
            picture(root / name / f"{i}{suffix}", shade)
    return root


def food101(root):
    for i, (name, shade) in enumerate({"apple_pie": 10, "sushi": 20}.items()):
        picture(root / "food-101" / "images" / name / f"{i}.jpg", shade)
    meta = root / "food-101" / "meta"
    meta.mkdir()
    (meta / "test.json").write_text(json.dumps({"sushi": ["sushi/1"], "apple_pie": ["apple_pie/0"]}))
    return [(10, "apple pie"), (20, "sushi")]


def eurosat(root):
    folders(root / "eurosat" / "2750", {"SeaLake": [7], "AnnualCrop": [5]}, ".jpg")
    return [(5, "AnnualCrop"), (7, "SeaLake")]


def fgvc_aircraft(root):
    data = root / "fgvc-aircraft-2013b" / "data"
    for i in (1, 2):
        picture(data / "images" / f"000000{i}.jpg", 10 * i)
    (data / "variants.txt").write_text("F/A-18\n747-400\n")
    (data / "images_variant_test.txt").write_text("0000001 747-400\n0000002 F/A-18\n")
    return [(10, "747-400"), (20, "F/A-18")]


def dtd(root):
    folder = root / "dtd" / "dtd"
    for name, shade in {"banded": 10, "zigzagged": 20}.items():
        picture(folder / "images" / name / f"{name}_1.jpg", shade)
    (folder / "labels").mkdir()
    for k in range(1, 11):
        lines = ["zigzagged/zigzagged_1.jpg"] if k == 1 else ["banded/banded_1.jpg"]
        (folder / "labels" / f"test{k}.txt").write_text("\n".join(lines) + "\n")
    return [(20, "zigzagged")] + 9 * [(10, "banded")]


def sun397(root):
    (root / "SUN397").mkdir()
    (root / "SUN397" / "ClassName.txt").write_text("/a/abbey\n/a/apartment_building/outdoor\n")
    picture(root / "SUN397" / "a" / "apartment_building" / "outdoor" / "sun_b.jpg", 20)
    picture(root / "SUN397" / "a" / "abbey" / "sun_a.jpg", 10)
    return [(10, "abbey"), (20, "apartment building outdoor")]


def stanford_cars(root):
    from scipy.io import savemat

    base = root / "stanford_cars"
    (base / "devkit").mkdir(parents=True)
    names = np.array(["McLaren MP4-12C Coupe 2012", "smart fortwo Convertible 2012"], dtype=object)
    savemat(base / "devkit" / "cars_meta.mat", {"class_names": names})
    annotations = np.array([("2.jpg", 2), ("1.jpg", 1)], dtype=[("fname", object), ("class", object)])
    savemat(base / "cars_test_annos_withlabels.mat", {"annotations": annotations})
    for i in (1, 2):
        picture(base / "cars_test" / f"{i}.jpg", 10 * i)
    return [(10, names[0]), (20, names[1])]


def caltech101(root):
    inner = root / "caltech101" / "101_ObjectCategories"
    folders(inner, {"Faces_easy": [10], "BACKGROUND_Google": [99], "accordion": [20]}, ".jpg")
    return [(10, "Faces easy"), (20, "accordion")]


def oxford_pets(root):
    base = root / "oxford-iiit-pet"
    (base / "annotations").mkdir(parents=True)
    lines = ["american_bulldog_3 2 2 1", "Abyssinian_201 1 1 1"]
    (base / "annotations" / "test.txt").write_text("\n".join(lines) + "\n")
    picture(base / "images" / "american_bulldog_3.jpg", 10)
    picture(base / "images" / "Abyssinian_201.jpg", 20)
    return [(10, "American Bulldog"), (20, "Abyssinian")]


def ucf101(root):
    folders(root / "UCF-101-midframes", {"Apply_Eye_Makeup": [10], "TaiChi": [20]}, ".jpg")
    return [(10, "Apply Eye Makeup"), (20, "Tai Chi")]
