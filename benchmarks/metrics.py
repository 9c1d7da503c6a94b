"""What the metrics' forms save over the direct ones: time and peak memory, side by side in one run.

    python benchmarks/metrics.py [--n 5000] [--d 768] [--repeats 3]

SafeGround: four cosines per tuple against the diagonals of four N x N matrices. Recall: counts over blocks
against a full sort of N x N and N x 2N similarities. The direct forms work in float32, as such code does, so
the two answers may differ by a near tie; more than 0.1 points apart stops the run.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable

import torch
from measure import median_seconds, peak_mib
from torch import Tensor

from uwmlib.metrics import DIRECTIONS, retrieval, safeground

Work = Callable[[], dict[str, float]]


def embeddings(n: int, d: int) -> dict[str, Tensor]:
    """Return four unit-norm sets [n, d] whose partners resemble each other."""
    generator = torch.Generator().manual_seed(0)
    names = ("safe_text", "unsafe_text", "safe_image", "unsafe_image")
    shared = torch.randn(n, d, generator=generator)
    rows = {name: shared + 4 * torch.randn(n, d, generator=generator) for name in names}
    return {name: torch.nn.functional.normalize(each, dim=1) for name, each in rows.items()}


def safeground_linear(n: int, d: int) -> Work:
    """Prepare the library's SafeGround."""
    sets = embeddings(n, d)
    return lambda: safeground(**sets).as_percent()


def safeground_naive(n: int, d: int) -> Work:
    """Prepare SafeGround from all similarity matrices."""
    sets = embeddings(n, d)

    def work() -> dict[str, float]:
        matrices = {
            (image, text): sets[f"{image}_image"] @ sets[f"{text}_text"].T  # [N, N]
            for image in ("safe", "unsafe")
            for text in ("safe", "unsafe")
        }
        own = {pair: matrix.diagonal() for pair, matrix in matrices.items()}
        p_s_t = own["safe", "safe"] > own["unsafe", "safe"]
        p_u_t = own["safe", "unsafe"] > own["unsafe", "unsafe"]
        p_s_v = own["safe", "safe"] > own["safe", "unsafe"]
        p_u_v = own["unsafe", "safe"] > own["unsafe", "unsafe"]
        hits = {"p_s_t": p_s_t, "p_u_t": p_u_t, "p_s_v": p_s_v, "p_u_v": p_u_v, "txt_s": p_s_v & p_u_v}
        hits |= {
            "img_s": p_s_t & p_u_t,
            "ps": p_s_t & p_s_v,
            "pu": p_u_t & p_u_v,
            "gs": p_s_t & p_u_t & p_s_v & p_u_v,
        }
        return {key: 100 * int(each.sum()) / n for key, each in hits.items()}

    return work


def recall_chunked(n: int, d: int) -> Work:
    """Prepare the library's recall@1."""
    sets = embeddings(n, d)
    return lambda: {key: score.value for key, score in retrieval(**sets).items()}


def recall_naive(n: int, d: int) -> Work:
    """Prepare recall@1 from a full sort of every query's gallery."""
    sets = embeddings(n, d)
    ts, tu, vs, vu = sets["safe_text"], sets["unsafe_text"], sets["safe_image"], sets["unsafe_image"]

    def work() -> dict[str, float]:
        found = {}
        for direction, queries, gallery in zip(
            DIRECTIONS, (ts, vs, tu, vu), (vs, ts, torch.cat([vs, vu]), torch.cat([ts, tu])), strict=True
        ):
            order = (queries @ gallery.T).argsort(dim=1, descending=True)  # [N, gallery]
            found[direction] = 100 * int((order[:, 0] == torch.arange(n)).sum()) / n
        return found

    return work


def report(
    title: str, ours: Callable[..., Work], naive: Callable[..., Work], sizes: dict, repeats: int
) -> None:
    """Measure two ways of one answer and print them side by side."""
    work, direct = ours(**sizes), naive(**sizes)
    answers = work(), direct()
    if any(abs(answers[0][key] - answers[1][key]) > 0.1 for key in answers[0]):
        raise SystemExit(f"{title}: the two forms disagree, {answers[0]} against {answers[1]}.")
    seconds = median_seconds(work, repeats, warm_up=0), median_seconds(direct, repeats, warm_up=0)
    mib = peak_mib(ours, **sizes), peak_mib(naive, **sizes)
    print(f"{title:<14}{'ours':>12}{'naive':>12}{'naive / ours':>16}")
    print(f"{'  seconds':<14}{seconds[0]:>12.3f}{seconds[1]:>12.3f}{seconds[1] / seconds[0]:>15.1f}x")
    print(f"{'  peak MiB':<14}{mib[0]:>12.1f}{mib[1]:>12.1f}{mib[1] / max(mib[0], 0.1):>15.1f}x", flush=True)


def main() -> None:
    """Read the sizes and print both comparisons."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--n", type=int, default=5000, help="tuples")
    parser.add_argument("--d", type=int, default=768, help="width of an embedding")
    parser.add_argument("--repeats", type=int, default=3, help="timed calls of which the median counts")
    options = parser.parse_args()
    sizes = {"n": options.n, "d": options.d}
    print(
        f"N = {options.n}, D = {options.d}, {torch.get_num_threads()} thread(s), torch {torch.__version__}, "
        f"median of {options.repeats}; peak: memory above the inputs"
    )
    report("SafeGround", safeground_linear, safeground_naive, sizes, options.repeats)
    report("Recall@1", recall_chunked, recall_naive, sizes, options.repeats)


if __name__ == "__main__":
    main()
