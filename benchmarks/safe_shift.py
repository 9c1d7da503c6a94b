"""What a safe shift of a model of real size costs beside the forward passes over its calibration pairs.

    python benchmarks/safe_shift.py [--tuples 8] [--many 2000] [--threads 1]

ViT-L-14 of open_clip with random weights and pairs of noise.

1. The forward passes of a few pairs, which grow with their number, against all that a fit does with the embeddings and
   what folding it into the weights takes. This is timed on as many *embeddings* as a real calibration has, drawn at
   random, because it needs no model; the passes are scaled up to that number.
2. Peak memory of the closed form's moments, over the number of pairs, fed batch by batch as in a real fit.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from measure import peak_mib

from uwmlib.editing import Features, collect_features, fit_safe_shift
from uwmlib.editing.safe_shift import SIDES, _Moments
from uwmlib.models import Vlm, load_model
from uwmlib.tuples import Tuples

BATCH, WIDTH = 64, 768


def noise_tuples(n: int) -> Tuples:
    """Return pairs of noise images of 224 pixels, each with a caption of its own."""
    images = np.random.default_rng(0).integers(0, 256, (2, n, 224, 224, 3), dtype=np.uint8)
    texts = {side: [f"a {side} picture of number {i}" for i in range(n)] for side in ("plain", "dark")}
    return Tuples(
        name="noise", safe_images=images[0], unsafe_images=images[1], safe_texts=texts["plain"],
        unsafe_texts=texts["dark"], concepts=["noise"] * n,
    )  # fmt: skip


def drawn_features(vlm: Vlm, n: int) -> Features:
    """Return features of the model's width, the unsafe ones apart from their safe twins."""
    generator = torch.Generator().manual_seed(0)
    parts = {}
    for safe, unsafe in SIDES.values():
        parts[safe] = torch.randn(n, WIDTH, generator=generator)
        parts[unsafe] = parts[safe] + 0.3 * torch.randn(n, WIDTH, generator=generator) + 0.05
    return Features(vlm.name, "drawn", "train", parts)


def moments_work(n: int) -> Callable[[], Any]:
    """Prepare the closed form on n pairs that come batch by batch."""

    def work() -> torch.Tensor:
        moments, generator = _Moments(), torch.Generator().manual_seed(0)
        for _ in range(0, n, BATCH):
            safe = torch.randn(BATCH, WIDTH, generator=generator, dtype=torch.float64)
            moments.add(safe, safe + 0.1)
        return moments.spread(0.05)

    return work


def seconds(work: Callable[[], Any]) -> tuple[float, Any]:
    """Return the wall time of one call, and what it returned."""
    started = time.perf_counter()
    made = work()
    return time.perf_counter() - started, made


def main() -> None:
    """Print the comparison."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--tuples", type=int, default=8, help="pairs that run through the model")
    parser.add_argument("--many", type=int, default=2000, help="pairs of a calibration")
    parser.add_argument("--threads", type=int, default=1)
    given = parser.parse_args()
    torch.set_num_threads(given.threads)
    vlm = load_model("open_clip:ViT-L-14", weights="random")
    few = noise_tuples(given.tuples)
    collect_features(vlm, few[:2])  # warm
    passes, _ = seconds(lambda: collect_features(vlm, few, batch_size=given.tuples))
    passes *= given.many / given.tuples
    print(f"forward passes over {given.many} pairs (scaled up from {given.tuples}): {passes:.0f} s")
    features = drawn_features(vlm, given.many)
    for name, how in (
        ("closed form", {}),
        ("fitted", {"how": "fitted"}),
        ("map of rank 1", {"how": "fitted", "rank": 1}),
    ):
        fit, shift = seconds(lambda how=how: fit_safe_shift(vlm, features, **how))
        fold, _ = seconds(lambda shift=shift: shift.edit(0.5))
        share = (fit + fold) / passes
        print(f"{name}: fit {fit:.2f} s, fold {fold:.2f} s, {share:.2%} of the forward passes")
    for n in (given.many, 8 * given.many):
        print(f"peak memory of the moments of {n} pairs: {peak_mib(moments_work, n=n):.0f} MiB")


if __name__ == "__main__":
    main()
