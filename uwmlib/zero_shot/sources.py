"""Which classification sets are at hand in a folder, and in which form."""

from __future__ import annotations

import json
from functools import lru_cache
from os import PathLike
from pathlib import Path

from uwmlib.errors import UwmError
from uwmlib.manifests import manifest_path
from uwmlib.rows import SUFFIXES
from uwmlib.zero_shot.folders import folder_set
from uwmlib.zero_shot.own import manifest_set
from uwmlib.zero_shot.sets import PHOTO, ZeroShotSet
from uwmlib.zero_shot.shards import shard_set


@lru_cache(maxsize=1)
def paper_templates() -> dict[str, str]:
    """Return the prompt template of each of the paper's seventeen sets, by name, in the order of its Table 2."""
    entries = json.loads(manifest_path("zero_shot_sets.json").read_text(encoding="utf-8"))
    return {name: entry["template"] for name, entry in entries.items()}


def load_zero_shot(folder: str | PathLike) -> dict[str, ZeroShotSet]:
    """Return the sets that are at hand in a folder, those of the paper first.

    A set called NAME is, in this order, a manifest `NAME.csv` or `NAME.jsonl` (see `manifest_set`), or a folder
    `NAME` of webdataset shards (`shard_set`), of class folders or as torchvision lays it out (`folder_set`). A name of
    the paper's Table 2 brings its prompt template; any other manifest is a set of its own. Nothing is downloaded.

    Parameters
    ----------
    folder : path-like

    Returns
    -------
    dict of str to ZeroShotSet
        A name of the paper that is not at hand is left out: it is not measured.

    Raises
    ------
    UwmError
        If there is no such folder, or a set that is at hand cannot be read.
    """
    root = Path(folder)
    if not root.is_dir():
        raise UwmError(f"There is no folder {root}: give the folder that holds your classification sets.")
    own = sorted(path.stem for path in root.iterdir() if path.suffix in SUFFIXES)
    names = dict.fromkeys([*paper_templates(), *own])
    found = {name: _load(name, root) for name in names}
    return {name: data for name, data in found.items() if data is not None}


def _load(name: str, root: Path) -> ZeroShotSet | None:
    template = paper_templates().get(name, PHOTO)
    manifests = [root / f"{name}{suffix}" for suffix in SUFFIXES if (root / f"{name}{suffix}").is_file()]
    if len(manifests) > 1:
        raise UwmError(f"{root} holds {name} twice ({', '.join(map(str, manifests))}): keep one of them.")
    if manifests:
        return manifest_set(name, manifests[0], template=template)
    folder = root / name
    if not folder.is_dir() or not any(folder.iterdir()):
        return None
    shards = any(folder.glob("*.tar")) or any(folder.glob("test/*.tar"))
    return (shard_set if shards else folder_set)(name, folder, template=template)
