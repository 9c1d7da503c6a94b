"""What can be named here: models, sets, methods, studies and notebooks, as rows of a table."""

from __future__ import annotations

import json
import os
from pathlib import Path

from uwmlib.manifests import manifest_path

Row = dict[str, str | int]
ELSEWHERE = {
    "open_clip:<architecture>": "--weights FILE, or a pretrained tag of open_clip",
    "<architecture>/<tag>": "that pretrained tag of open_clip",
    "hf-hub:<id>": "the checkpoint of that id, as open_clip saves it",
    "local-dir:<folder>": "the checkpoint of that folder, as open_clip saves it",
    "hf:<folder or id>": "the checkpoint of that folder or id",
}


def models() -> list[Row]:
    """Return the models that `load_model` takes, and where their weights are."""
    entries = json.loads(manifest_path("models.json").read_text(encoding="utf-8"))
    places = {
        name: f"ships with the library ({entry['file']})"
        if "file" in entry
        else f"ships with the library ({entry['base']} with the vision tower of {entry['vision']})"
        for name, entry in entries.items()
    }
    return [{"model": name, "weights": place} for name, place in (places | ELSEWHERE).items()]


def sets(folder: str | os.PathLike | None = None) -> list[Row]:
    """Return the data by name: the pairs and the benign uses of the mini world, then classification sets.

    Parameters
    ----------
    folder : path-like, optional
        Of classification sets of one's own (`load_zero_shot`); those that it holds are listed. Without one, the
        seventeen of the paper, each with its number of images and its prompt.

    Raises
    ------
    UwmError
        If a set in `folder` cannot be read.
    """
    from uwmlib.mini.benign import N
    from uwmlib.mini.pairs import SPLITS

    splits = ", ".join(f"{split} {n:,}" for split, n in SPLITS.items())
    drawn: list[Row] = [
        {"set": "mini-visu", "n": sum(SPLITS.values()), "what": f"pairs that are drawn: {splits}"},
        {"set": "mini-visu", "n": N, "what": "benign uses that are drawn"},
        {"set": "mini-visu-1", "n": sum(SPLITS.values()), "what": "pairs of the first mini world"},
    ]
    if folder is not None:
        from uwmlib.zero_shot import load_zero_shot

        held = load_zero_shot(folder).values()
        return [*drawn, *({"set": data.name, "n": len(data.labels), "what": data.about} for data in held)]
    entries = json.loads(manifest_path("zero_shot_sets.json").read_text(encoding="utf-8"))
    return [
        *drawn,
        *(
            {"set": name, "n": entry["n"], "what": f"{entry['template']} ({entry['images']})"}
            for name, entry in entries.items()
        ),
    ]


def methods() -> list[Row]:
    """Return the methods that `uwm edit` knows, each with its options and its variants."""
    from uwmlib.methods import METHODS

    return [
        {
            "method": name,
            "what": method.about,
            "options": ", ".join(method.options),
            "variants": ", ".join(method.variants),
        }
        for name, method in METHODS.items()
    ]


def studies() -> list[Row]:
    """Return the studies that `uwm study` makes, and of which models."""
    from uwmlib.studies import STUDIES

    of = {"model": "any mini model", "safe-clip": "a base that has a Safe-CLIP", "": "no model"}
    return [{"study": name, "of": of[study.of], "what": study.about} for name, study in STUDIES.items()]


def notebooks(folder: str | os.PathLike) -> list[Row]:
    """Return the numbered notebooks of a folder, each with its title."""
    from uwmlib.runner import list_notebooks

    return [{"notebook": path.stem, "title": _title(path)} for path in list_notebooks(folder)]


def _title(path: Path) -> str:
    """Return the first heading of a notebook; "" where there is none that can be read."""
    try:
        cells = json.loads(path.read_text(encoding="utf-8"))["cells"]
        lines = [line for cell in cells for line in "".join(cell["source"]).splitlines()]
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        return ""
    return next((" ".join(line[2:].split()) for line in lines if line.startswith("# ")), "")
