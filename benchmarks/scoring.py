"""What scoring costs: against the bare forward passes, and against [B, out, in] arithmetic, in one run.

    python benchmarks/scoring.py [--tuples 96] [--repeats 5] [--threads 1 2]

1. `uwmlib.score` (text out and vision fc2 of ViT-B-32 with random weights, batches of 32 tuples, hashing and all)
   against embedding the same tuples without looking inside; with each number of threads, on the machine as it is
   and beside a process of ours that keeps one core busy. What is done once a pass, such as hashing the weights,
   is what one tuple takes above its forward passes; the last ratio spreads it over the 400 tuples of a concept.
2. One batch at one layer of the size of ViT-L-14's fc2: the library's sums against the direct form, which spells
   out every pair's [out, in] matrix. Both start from the same token statistics, whose time is shown beside them; the
   library makes the sums of all four variants, the direct form one. Answers that differ stop the run.

The two sides take turns, so that other work on the machine slows both; times are medians, and so are ratios.
"""

from __future__ import annotations

import argparse
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from typing import Any

import numpy as np
import torch
from measure import median_seconds, peak_mib

from uwmlib.editing import PairSums, score, token_statistics
from uwmlib.models import Vlm, load_model
from uwmlib.tuples import Tuples

Work = Callable[[], Any]
BATCH = 32
MANY = 400
FC2_IN, FC2_OUT, FC2_TOKENS = 4096, 1024, 257


def noise_tuples(n: int) -> Tuples:
    """Return tuples of noise images of 224 pixels, with captions of about COCO's length."""
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (2, n, 224, 224, 3), dtype=np.uint8)
    caption = "a man and a woman stand next to a table with a large cake on it"
    return Tuples(
        name="noise",
        safe_images=images[0],
        unsafe_images=images[1],
        safe_texts=[caption] * n,
        unsafe_texts=[f"{caption} in the dark"] * n,
        concepts=["noise"] * n,
    )


def load_vit() -> Vlm:
    """Return the model of the first comparison."""
    return load_model("open_clip:ViT-B-32", weights="random")


def forward_passes(vlm: Vlm, tuples: Tuples) -> None:
    """Embed all tuples as `score` does, and nothing else."""
    with torch.inference_mode():
        for start in range(0, len(tuples), BATCH):
            batch = tuples[start : start + BATCH]
            vlm.encode_text(vlm.tokenize([*batch.safe_texts, *batch.unsafe_texts]))
            vlm.encode_image(
                torch.cat([vlm.preprocess(batch.safe_images), vlm.preprocess(batch.unsafe_images)])
            )


def model_work(n: int, side: str) -> Work:
    """Prepare one side of the first comparison: "bare" or "score"."""
    vlm, tuples = load_vit(), noise_tuples(n)
    if side == "bare":
        return lambda: forward_passes(vlm, tuples)
    return lambda: score(vlm, tuples, text="out", vision="fc2", batch_size=BATCH, progress=False)


def add_direct(total: torch.Tensor, norm: torch.Tensor, std: torch.Tensor, magnitude: torch.Tensor) -> None:
    """Add the ratios of B pairs with every pair's [out, in] matrices spelled out."""

    def terms(norm: torch.Tensor, std: torch.Tensor) -> torch.Tensor:
        flow = norm.unsqueeze(1) * magnitude  # [B, 1, in] * [out, in] -> [B, out, in]
        return flow.mean(dim=2, keepdim=True) * flow.mean(dim=1, keepdim=True) / std.unsqueeze(1)

    (safe_norm, unsafe_norm), (safe_std, unsafe_std) = norm.chunk(2), std.chunk(2)
    total += (terms(unsafe_norm, unsafe_std) / terms(safe_norm, safe_std)).sum(dim=0)


def layer_inputs(pairs: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Return a layer's input [2B, T, in] and its |W|."""
    generator = torch.Generator().manual_seed(0)
    z = torch.randn(2 * pairs, FC2_TOKENS, FC2_IN, generator=generator) + 0.3
    return z, torch.randn(FC2_OUT, FC2_IN, generator=generator).abs()


def layer_work(pairs: int, side: str) -> Work:
    """Prepare one side of the second comparison: "direct" or "factored"."""
    z, magnitude = layer_inputs(pairs)
    norm, std = token_statistics(z)
    if side == "factored":
        sums = PairSums.zeros(tuple(magnitude.shape))
        return lambda: sums.add(norm, std, magnitude)
    total = torch.zeros_like(magnitude)
    return lambda: add_direct(total, norm, std, magnitude)


def check_layer(pairs: int) -> None:
    """Raise AssertionError unless both sides give the same sums."""
    z, magnitude = layer_inputs(pairs)
    sums, total = PairSums.zeros(tuple(magnitude.shape)), torch.zeros_like(magnitude)
    sums.add(*token_statistics(z), magnitude)
    add_direct(total, *token_statistics(z), magnitude)
    torch.testing.assert_close(sums.ratio, total, rtol=1e-4, atol=0)


def in_turns(first: Work, second: Work, repeats: int) -> tuple[float, float, float]:
    """Return the median seconds of both and the median of second / first, after one uncounted turn."""
    first(), second()
    seconds = []
    for _ in range(repeats):
        start = time.perf_counter()
        first()
        between = time.perf_counter()
        second()
        seconds.append((between - start, time.perf_counter() - between))
    ones, twos = zip(*seconds, strict=True)
    ratios = [two / one for one, two in seconds]
    return statistics.median(ones), statistics.median(twos), statistics.median(ratios)


@contextmanager
def busy_core() -> Iterator[None]:
    """Keep about one core busy from another process."""
    with subprocess.Popen([sys.executable, "-c", "while True: pass"]) as process:
        try:
            yield
        finally:
            process.kill()


def report_model(n: int, repeats: int, threads: list[int]) -> None:
    """Print the first comparison."""
    memory = {side: peak_mib(model_work, n=n, side=side) for side in ("bare", "score")}
    works = [model_work(size, side) for size in (1, n) for side in ("bare", "score")]
    print(f"ViT-B-32, {n} tuples in batches of {BATCH}, text out and vision fc2")
    print(f"  peak: bare forward passes {memory['bare']:.0f} MiB, scoring pass {memory['score']:.0f} MiB")
    print(
        f"  threads   beside          bare s   scoring s   ratio   once s   ratio for {MANY}   (goal: 1.05)"
    )
    for count in threads:
        torch.set_num_threads(count)
        for beside, company in (("nothing", nullcontext), ("a busy core", busy_core)):
            with company():
                bare_one, scoring_one, _ = in_turns(*works[:2], repeats)
                bare, scoring, ratio = in_turns(*works[2:], repeats)
            once = scoring_one - bare_one
            many = ratio - once / bare * (1 - n / MANY)
            seconds = f"{bare:9.2f}   {scoring:9.2f}   {ratio:5.3f}   {once:6.2f}"
            print(f"  {count:7d}   {beside:11s}   {seconds}   {many:13.3f}", flush=True)


def report_layer(repeats: int) -> None:
    """Print the second comparison."""
    print(f"one batch of one layer, {FC2_IN} in, {FC2_OUT} out, {FC2_TOKENS} tokens")
    print(
        "  pairs   statistics s   direct s   factored s   ratio   direct MiB   factored MiB   (goal: 50, flat)"
    )
    for pairs in (4, 8, 16):
        check_layer(pairs)
        z, _ = layer_inputs(pairs)
        shared = median_seconds(lambda z=z: token_statistics(z), repeats)
        fast, slow, ratio = in_turns(layer_work(pairs, "factored"), layer_work(pairs, "direct"), repeats)
        memory = {side: peak_mib(layer_work, pairs=pairs, side=side) for side in ("direct", "factored")}
        times = f"{shared:12.4f}   {slow:8.3f}   {fast:10.4f}   {ratio:5.1f}"
        print(f"  {pairs:5d}   {times}   {memory['direct']:10.0f}   {memory['factored']:12.0f}")


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--tuples", type=int, default=96, help="tuples of the first comparison")
    parser.add_argument("--repeats", type=int, default=5, help="turns of which the median is taken")
    parser.add_argument("--threads", type=int, nargs="+", default=[1, 2], help="threads of torch, in turn")
    options = parser.parse_args()
    torch.set_num_threads(options.threads[-1])
    report_layer(options.repeats)
    report_model(options.tuples, options.repeats, options.threads)


if __name__ == "__main__":
    main()
