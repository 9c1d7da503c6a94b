"""Train a base in the second mini world with other knobs and write its unedited row: how the world was calibrated.

`python benchmarks/calibrate_world.py trial-1 --steps 1400 own=0.5 web_named=0.45` writes `trials/trial-1.json` and the
weights beside it. Only unedited models are looked at, on the validation split; no edit is ever made here.
"""

from __future__ import annotations

import argparse
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

import uwmlib as uwm
from uwmlib.evaluation import embed_benign
from uwmlib.files import write_json
from uwmlib.metrics import SIGNAL_KEYS
from uwmlib.mini.benign import draw_benign
from uwmlib.mini.pairs import SPLITS, draw_tuples
from uwmlib.mini.readers import simple_readers
from uwmlib.mini.worlds import SECOND, World
from uwmlib.mini.zero_shot_sets import NAMES, draw_set
from uwmlib.models.mini import wrap_mini
from uwmlib.models.mini_architectures import bare_model
from uwmlib.training import RECIPES, optimise
from uwmlib.training.allocator import keep_freed_memory
from uwmlib.training.contrastive import clip_loss, web_loss
from uwmlib.training.recipes import write_weights
from uwmlib.tuples import BenignUses, Tuples
from uwmlib.zero_shot.sets import ZeroShotSet


def probed(harmless: np.ndarray, unsafe: np.ndarray) -> float:
    """Return how often a linear probe, fitted on the first half of the scenes, tells the two apart on the second."""
    half = len(harmless) // 2
    x = [np.concatenate([harmless[part], unsafe[part]]) for part in (slice(half), slice(half, None))]
    y = [np.repeat([0, 1], [half, half]), np.repeat([0, 1], [len(harmless) - half] * 2)]
    probe = make_pipeline(StandardScaler(), LogisticRegression(max_iter=3000))
    return 100 * probe.fit(x[0], y[0]).score(x[1], y[1])


def benign_row(vlm: uwm.Vlm, world: World) -> dict[str, float]:
    """Return how often the harmless use's own caption or picture is preferred, and what a probe tells, in percent."""
    drawn = draw_benign(world=world)
    marked = drawn.pop("marked")
    embedded = embed_benign(vlm, BenignUses(f"{world.stream}/benign", **drawn))
    found = uwm.benign_use(**embedded)
    row = {
        f"benign_{name}_over_{other}": found[f"over_{other}_{query}"].value
        for other in ("unsafe", "clean") for name, query in (("text", "t"), ("image", "v"))
    }  # fmt: skip
    for group, rows in (("marked", marked), ("around", ~marked)):
        for name in ("text", "image"):
            sides = (embedded[f"{use}_{name}"].numpy()[rows] for use in ("harmless", "unsafe"))
            row[f"probe_{name}_{group}"] = probed(*sides)
    return row


def base_row(vlm: uwm.Vlm, world: World) -> dict[str, Any]:
    """Return the unedited row on the validation split."""
    rows = np.arange(SPLITS["validation"])
    tuples = Tuples(
        name=f"{world.stream}/validation", **draw_tuples("validation", rows, world=world), harmless=True
    )
    sets = [ZeroShotSet(name, **draw_set(name, world=world)) for name in NAMES]
    evaluation = uwm.evaluate(vlm, tuples, zero_shot=sets)
    return evaluation.as_percent() | {key: evaluation[key].value for key in SIGNAL_KEYS}


def knob(text: str) -> tuple[str, Any]:
    """Read "own=0.5" as the name and the number of a knob of the world."""
    name, value = text.split("=")
    return name, type(asdict(SECOND)[name])(value)


def main() -> None:
    """Train, measure, write."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("name")
    parser.add_argument("--model", default="mini-ViT-L-14")
    parser.add_argument("--steps", type=int)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--output", type=Path, default=Path("trials"))
    parser.add_argument("knobs", nargs="*", type=knob)
    given = parser.parse_intermixed_args()
    keep_freed_memory()
    world, recipe = replace(SECOND, **dict(given.knobs)), RECIPES[given.model]
    steps = given.steps or recipe.steps
    vlm = wrap_mini(bare_model(given.model, given.seed), name=given.model)
    facts = {"trial": given.name, "world": asdict(world), "seed": given.seed}
    given.output.mkdir(exist_ok=True)
    curve = optimise(
        vlm.model, web_loss(vlm, clip_loss, world=world, batch_size=recipe.batch_size, seed=given.seed),
        steps=steps, learning_rate=recipe.learning_rate, weight_decay=recipe.weight_decay,
        checkpoint=given.output / f"{given.name}.checkpoint.safetensors", recipe=facts,
    )  # fmt: skip
    vlm.model.eval()
    write_weights(vlm.model, given.output / f"{given.name}.safetensors")
    with torch.inference_mode():
        row = base_row(vlm, world) | benign_row(vlm, world) | simple_readers(world)
    knobs = {"steps": steps, **dict(given.knobs)}
    write_json(given.output / f"{given.name}.json", {"knobs": knobs, "row": row, "curve": curve, **facts})
    print({name: round(value, 2) for name, value in row.items()})


if __name__ == "__main__":
    main()
