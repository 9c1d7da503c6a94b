"""Classification sets in webdataset shards: tar files of images and labels, read where they lie."""

from __future__ import annotations

import filecmp
import hashlib
import io
import tarfile
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path, PurePosixPath

import numpy as np
from PIL import Image

from uwmlib.errors import UwmError
from uwmlib.tuples.images import decode_image
from uwmlib.zero_shot.sets import ZeroShotSet

IMAGES = (".jpg", ".jpeg", ".png", ".webp")
LABEL = ".cls"
CLASSES = "classnames.txt"
PROMPTS = "zeroshot_classification_templates.txt"
BLOCK = tarfile.BLOCKSIZE


@dataclass(frozen=True)
class Member:
    """Where an image lies: `size` bytes from `offset` on in the file `shard`."""

    shard: Path
    name: str
    offset: int
    size: int

    def __str__(self) -> str:
        return f"{self.name} in {self.shard}"

    def read(self) -> bytes:
        """Return the bytes of the image; nothing is unpacked."""
        try:
            with open(self.shard, "rb") as file:
                file.seek(self.offset)
                held = file.read(self.size)
        except OSError as error:
            raise UwmError(f"{self.shard} cannot be read ({error.strerror}): put it back.") from error
        if len(held) != self.size:
            raise UwmError(f"{self.shard} has become shorter since it was listed: copy it again.")
        return held


class ShardImages:
    """A sequence of images in tar files; an index opens one as a PIL image, a slice opens a list of them."""

    def __init__(self, members: Sequence[Member]) -> None:
        self.members = list(members)

    def __len__(self) -> int:
        return len(self.members)

    def __getitem__(self, index: int | slice) -> Image.Image | list[Image.Image]:
        if isinstance(index, slice):
            return [_open(member) for member in self.members[index]]
        return _open(self.members[index])

    def digest(self) -> bytes:
        """Return a SHA-256 over the contents of all images, in order."""
        contents = (hashlib.sha256(member.read()).hexdigest() for member in self.members)
        return hashlib.sha256("".join(contents).encode()).digest()


def _open(member: Member) -> Image.Image:
    return decode_image(io.BytesIO(member.read()), member)


def shard_set(name: str, folder: Path, *, template: str) -> ZeroShotSet:
    """Read a set from webdataset shards as CLIP_benchmark publishes them.

    Parameters
    ----------
    name : str
    folder : Path
        With `classnames.txt` (one class a line) and the shards `0.tar`, `1.tar`, ..., beside it or in `test`, where
        `nshards.txt` may say how many there are. A sample is an image and a `.cls` with its class's number.
    template : str
        Prompt with one place for the class name; the folder's own list of prompts is for ensembles.

    Returns
    -------
    ZeroShotSet
        Its images stay in the shards until they are looked at.

    Raises
    ------
    UwmError
        If a shard is missing, damaged, compressed or there twice, a sample lacks its image or its label, or images in
        folders or other shards lie beside the shards.
    """
    shards = _shards(_place(folder))
    samples = [sample for shard in shards for sample in _samples(shard)]
    if not samples:
        raise UwmError(f"The shards in {folder} hold no image: copy them again.")
    labels = np.array([label for _, label in samples], dtype=np.int64)
    classes = class_names(folder / CLASSES)
    images = ShardImages([member for member, _ in samples])
    return ZeroShotSet(name, f"shards in {folder.name}", images, labels, classes, template)


def first_prompt(folder: Path) -> str:
    """Return the first of the folder's own prompts as a template; empty if it has none."""
    path = folder / PROMPTS
    lines = path.read_text(encoding="utf-8-sig", errors="replace").split("\n") if path.is_file() else [""]
    return lines[0].strip().replace("{c}", "{}")


def class_names(path: Path) -> tuple[str, ...]:
    """Return the class names in a text file, one a line in the order of the labels."""
    if not path.is_file():
        raise UwmError(f"There is no {path}: write the names of the classes there, one a line.")
    try:
        lines = path.read_text(encoding="utf-8-sig").rstrip("\n").split("\n")
    except (OSError, UnicodeDecodeError) as error:
        raise UwmError(f"{path} is no UTF-8 text ({type(error).__name__}): write it again.") from error
    return tuple(line.strip() for line in lines)


def _place(folder: Path) -> Path:
    """Return the folder of the shards; UwmError where the set lies there in two forms."""
    places = [place for place in (folder, folder / "test") if place.is_dir()]
    if len(places) == 2 and any(folder.glob("*.tar")) and any(places[1].glob("*.tar")):
        raise UwmError(f"{folder} holds shards and so does its folder test: keep one of them.")
    for beside in (path for place in places for path in sorted(place.iterdir()) if path.is_dir()):
        if any(path.suffix.lower() in IMAGES for path in beside.iterdir()):
            raise UwmError(f"{folder} holds shards and the folder of images {beside.name}: keep one form.")
    return places[-1]


def _shards(folder: Path) -> list[Path]:
    """Return the shards in the order of their numbers; UwmError if some are missing or two are the same."""
    found = sorted(folder.glob("*.tar"), key=lambda path: (len(path.stem), path.stem))
    said = folder / "nshards.txt"
    count = said.read_text(errors="replace").strip() if said.is_file() else str(len(found))
    if count != str(len(found)) or not found:
        raise UwmError(f"{folder} holds {len(found)} shards but should hold {count}: copy them all.")
    for one, other in combinations(found, 2):
        if filecmp.cmp(one, other, shallow=False):
            raise UwmError(f"{other} is {one.name} once more, so its images would count twice: remove one.")
    return found


def _samples(shard: Path) -> list[tuple[Member, int]]:
    """List the images of a shard with their labels, in the order in which they lie there."""
    images: list[Member] = []
    labels: list[Member] = []
    try:
        with tarfile.open(shard, "r:") as archive:
            for entry in archive:
                path = PurePosixPath(entry.name)
                suffix = path.suffix.lower()
                held = images if suffix in IMAGES else labels if suffix == LABEL else None
                if entry.size < 0:  # which would lead tarfile backwards, for ever
                    raise tarfile.ReadError(f"{entry.name} has a negative size")
                if held is None or path.name.startswith("._"):  # macOS adds such files
                    continue
                if not entry.isreg() or entry.issparse():
                    raise UwmError(
                        f"{entry.name} in {shard} is a link or no plain file: put the file itself there."
                    )
                held.append(Member(shard, entry.name, entry.offset_data, entry.size))
            _require_end(archive, shard)
    except (tarfile.TarError, OSError, EOFError) as error:
        raise UwmError(f"{shard} is no whole, uncompressed tar file ({error}): copy it again.") from error
    return [(image, _label(member)) for image, member in _paired(images, labels, shard)]


def _paired(images: list[Member], labels: list[Member], shard: Path) -> list[tuple[Member, Member]]:
    """Pair images and labels whose names are alike up to the last dot; or else, as in webdataset, up to the first."""
    for members in (images, labels):
        keys = Counter(map(_to_last_dot, members))
        twice = next((member.name for member in members if keys[_to_last_dot(member)] > 1), None)
        if twice:
            raise UwmError(f"{shard} holds {twice} twice: leave one of them out.")
    for key in (_to_last_dot, _to_first_dot):
        by_key = {key(member): member for member in labels}
        keys = [key(member) for member in images]
        if len(by_key) == len(labels) and sorted(keys) == sorted(by_key):
            return [(image, by_key[each]) for image, each in zip(images, keys, strict=True)]
    labelled = set(map(_to_last_dot, labels))
    alone = min(labelled ^ set(map(_to_last_dot, images)))
    lacks = "image" if alone in labelled else "label"
    raise UwmError(f"The sample {alone} in {shard} has no {lacks}: add it or leave the sample out.")


def _to_last_dot(member: Member) -> str:
    return str(PurePosixPath(member.name).with_suffix("")).rstrip(".")  # some writers put two dots


def _to_first_dot(member: Member) -> str:
    path = PurePosixPath(member.name)
    return str(path.parent / path.name.split(".")[0])


def _label(member: Member) -> int:
    text = member.read().strip() if member.size < BLOCK else b"?"
    if not text.isdigit() or len(text) > 9:
        raise UwmError(f"{member} is no class's number: write one, from 0 on.")
    return int(text)


def _require_end(archive: tarfile.TarFile, shard: Path) -> None:
    """Raise UwmError unless only zeros follow: tarfile takes a damaged header or a cut for the end of the file."""
    last = archive.getmembers()[-1:]
    end = max((entry.offset_data + -(-entry.size // BLOCK) * BLOCK for entry in last), default=0)
    with open(shard, "rb") as file:
        file.seek(end)
        rest = file.read()
    if len(rest) < BLOCK or rest.strip(b"\0"):
        raise UwmError(
            f"{shard} is damaged or cut off after {len(archive.getmembers())} files: copy it again."
        )
