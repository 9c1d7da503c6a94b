"""Which classification sets are at hand in a folder, and in which form."""

from __future__ import annotations

import json
from dataclasses import replace
from functools import lru_cache
from os import PathLike
from pathlib import Path
from typing import Any

from uwmlib.errors import UwmError
from uwmlib.manifests import manifest_path
from uwmlib.rows import SUFFIXES
from uwmlib.zero_shot.folders import LAYOUTS, folder_set, pickled, published
from uwmlib.zero_shot.own import manifest_set
from uwmlib.zero_shot.sets import PHOTO, ZeroShotSet
from uwmlib.zero_shot.shards import CLASSES, first_prompt, shard_set


@lru_cache(maxsize=1)
def _paper_sets() -> dict[str, dict[str, Any]]:
    return json.loads(manifest_path("zero_shot_sets.json").read_text(encoding="utf-8"))


def paper_templates() -> dict[str, str]:
    """Return the prompt template of each of the paper's seventeen sets, by name, in the order of its Table 2.

    Examples
    --------
    >>> from uwmlib.zero_shot import paper_templates
    >>> templates = paper_templates()
    >>> len(templates), templates["oxford_pets"]
    (17, 'a photo of a {}, a type of pet.')
    """
    return {name: entry["template"] for name, entry in _paper_sets().items()}


def load_zero_shot(folder: str | PathLike) -> dict[str, ZeroShotSet]:
    """Return the sets that are at hand in a folder, those of the paper first.

    A set called NAME is, in this order, a manifest `NAME.csv` or `NAME.jsonl` (see `manifest_set`); a set of the
    paper as its archive unpacks, such as `oxford-iiit-pet` (`folder_set`); a folder `NAME` of webdataset shards
    (`shard_set`), of class folders or with what an archive unpacks; a folder of shards as CLIP_benchmark calls
    them, such as `wds_vtab-pets`. A name of the paper's Table 2 brings its prompt template; any other
    manifest, or folder with a `classnames.txt`, is a set of its own. Nothing is downloaded or unpickled.

    Parameters
    ----------
    folder : path-like

    Returns
    -------
    dict of str to ZeroShotSet
        A name of the paper that is not at hand is left out: it is not measured. Where the number of images is not
        the paper's, `about` says so.

    Raises
    ------
    UwmError
        If there is no such folder, or a set that is at hand cannot be read, or is there under two names or in two
        forms.

    Examples
    --------
    >>> import tempfile
    >>> from pathlib import Path
    >>> from PIL import Image
    >>> import uwmlib as uwm
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     for name in ("sushi", "waffles"):
    ...         place = Path(folder, "food101", name)
    ...         place.mkdir(parents=True)
    ...         Image.new("RGB", (8, 8)).save(place / "1.png")
    ...     sets = uwm.load_zero_shot(folder)
    >>> list(sets)
    ['food101']
    >>> sets["food101"].prompts
    ['a photo of sushi, a type of food.', 'a photo of waffles, a type of food.']
    """
    root = Path(folder)
    if not root.is_dir():
        raise UwmError(f"There is no folder {root}: give the folder that holds your classification sets.")
    found = {name: _load(name, root) for name in [*_paper_sets(), *_own_names(root)]}
    return {name: data for name, data in found.items() if data is not None}


def not_at_hand(found: dict[str, ZeroShotSet], folder: str | PathLike) -> str:
    """Return a sentence on the paper's sets that are not in `folder`; empty if all were found.

    Examples
    --------
    >>> from uwmlib.zero_shot import not_at_hand
    >>> print(not_at_hand({}, "my/sets"))
    Not measured, because not found in my/sets: imagenet, imagenet_v2, ...
    """
    missing = [name for name in _paper_sets() if name not in found]
    if not missing:
        return ""
    places = [(name, place) for name in missing for place in (Path(folder), Path(folder) / name)]
    code = [str(path) for name, path in ((name, pickled(name, place)) for name, place in places) if path]
    why = f" ({', '.join(code)}: pickled, may hold code and is not read)" if code else ""
    return f"Not measured, because not found in {folder}: {', '.join(missing)}{why}."


def _own_names(root: Path) -> list[str]:
    """Return the names of what is in the folder and not in the paper."""
    manifests = [path.stem for path in root.iterdir() if path.suffix in SUFFIXES]
    named = [path.parent.name for path in root.glob(f"*/{CLASSES}")]
    of_paper = {*_paper_sets(), *(entry["shards"] for entry in _paper_sets().values())}
    published_as = {root for layout in LAYOUTS.values() for root in layout.roots}
    return sorted({*manifests, *named} - of_paper - published_as)


def _load(name: str, root: Path) -> ZeroShotSet | None:
    entry = _paper_sets().get(name, {})
    template = entry.get("template", PHOTO)
    manifests = [root / f"{name}{suffix}" for suffix in SUFFIXES if (root / f"{name}{suffix}").is_file()]
    if len(manifests) > 1:
        raise UwmError(f"{root} holds {name} twice ({', '.join(map(str, manifests))}): keep one of them.")
    if manifests:
        return _beside_the_paper(manifest_set(name, manifests[0], template=template), entry)
    if place := published(name, root):
        return _beside_the_paper(folder_set(name, place, template=template), entry)
    places = [root / place for place in (name, entry.get("shards", "")) if place]
    filled = [folder for folder in places if folder.is_dir() and any(folder.iterdir())]
    if len(filled) > 1:
        raise UwmError(f"{root} holds {name} twice ({', '.join(map(str, filled))}): keep one of them.")
    return _beside_the_paper(_from_folder(name, filled[0], entry), entry) if filled else None


def _from_folder(name: str, folder: Path, entry: dict[str, Any]) -> ZeroShotSet | None:
    shards = any(folder.glob("*.tar")) or any(folder.glob("test/*.tar"))
    if shards or ((folder / CLASSES).is_file() and not any(path.is_dir() for path in folder.iterdir())):
        return shard_set(name, folder, template=entry.get("template") or first_prompt(folder) or PHOTO)
    # A pickled set is passed over, like one that is not there, instead of ending what the others can show.
    if pickled(name, folder) and not published(name, folder):
        return None
    return folder_set(name, folder, template=entry.get("template", PHOTO))


def _beside_the_paper(data: ZeroShotSet | None, entry: dict[str, Any]) -> ZeroShotSet | None:
    """Say so where there are not as many images as the paper has."""
    if data is None or entry.get("n", len(data.labels)) == len(data.labels):
        return data
    return replace(data, about=f"{data.about}; the paper takes {entry['images']}, {entry['n']:,} images")
