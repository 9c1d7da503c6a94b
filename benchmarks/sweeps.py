"""What the content cache saves on Table 8 and Figure 6, side by side in one run.

    python benchmarks/sweeps.py [--test 500] [--calibration 500]

*Loop*: for every setting score the calibration tuples, edit, embed both encoders, measure. *Ours*: the same calls
with a cache that is empty at first. Both must give the same metrics, or the run stops. Seconds and ratios are
printed, and how many embeddings each side computed.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Iterable, Iterator
from typing import Any

import uwmlib as uwm
from uwmlib.models import Vlm
from uwmlib.models.sites import KINDS
from uwmlib.tuples import Tuples

PARTS = 4  # embeddings a tuple: two texts and two images
Metrics = list[dict[str, float]]


def table_8() -> Iterator[dict[str, Any]]:
    """The sixteen pairs of layers at tau = 0.02, alpha = -1."""
    for text in KINDS:
        for vision in KINDS:
            yield {"text": text, "vision": vision, "alpha": -1.0}


def figure_6() -> Iterator[dict[str, Any]]:
    """The twenty-one values of alpha for the paper's pair of layers."""
    for step in range(21):
        yield {"text": "out", "vision": "fc2", "alpha": round(-1 + step / 10, 1)}


def run(
    vlm: Vlm, test: Tuples, calibration: Tuples, settings: Iterable[dict[str, Any]], cache: uwm.Cache | None
) -> tuple[Metrics, float]:
    """Measure every setting; return the metrics and the seconds they took."""
    started = time.perf_counter()
    metrics = []
    for setting in settings:
        sites = {encoder: setting[encoder] for encoder in ("text", "vision")}
        scores = uwm.score(vlm, calibration, **sites, progress=False, cache=cache)
        with scores.select(tau=0.02, alpha=setting["alpha"], **sites).applied(vlm):
            metrics.append(uwm.evaluate(vlm, test, cache=cache).as_percent())
    return metrics, time.perf_counter() - started


def compare(name: str, settings: list[dict[str, Any]], vlm: Vlm, test: Tuples, calibration: Tuples) -> None:
    """Print both sides of one sweep; stop if they disagree."""
    plain, slow = run(vlm, test, calibration, settings, None)
    with tempfile.TemporaryDirectory() as folder:
        cache = uwm.Cache(folder)
        kept, fast = run(vlm, test, calibration, settings, cache)
        _, again = run(vlm, test, calibration, settings, cache)
        files, size = cache.size()
        scored = len({(kind, setting[kind]) for setting in settings for kind in ("text", "vision")})
    if plain != kept:
        raise SystemExit(f"{name}: the cached metrics differ from those of the loop.")
    print(f"{name}: {len(settings)} settings, {len(test)} test and {len(calibration)} calibration tuples")
    print(
        f"  loop  {slow:7.1f} s   {PARTS * len(settings):4d} embedded parts, {len(settings)} calibration passes"
    )
    print(f"  ours  {fast:7.1f} s   {files - scored:4d} embedded parts, {scored} kinds of layer scored once")
    print(f"  ours, all kept already {again:.1f} s, {size / 2**20:.0f} MiB on disk")
    print(f"  ratio {slow / fast:7.1f}     the same metrics in all settings\n")


def main() -> None:
    """Run both sweeps."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--test", type=int, default=500)
    parser.add_argument("--calibration", type=int, default=500)
    arguments = parser.parse_args()
    vlm = uwm.load_model("mini-ViT-L-14")
    test = uwm.load_tuples("mini-visu", split="test", n=arguments.test)
    calibration = uwm.load_tuples("mini-visu", split="train", n=arguments.calibration)
    uwm.evaluate(vlm, test)  # warm up
    compare("Table 8", list(table_8()), vlm, test, calibration)
    compare("Figure 6", list(figure_6()), vlm, test, calibration)


if __name__ == "__main__":
    main()
