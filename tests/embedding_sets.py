"""Embeddings of tuples for the metric tests: random ones, and ones whose cosines can be compared exactly."""

from __future__ import annotations

import torch

NAMES = ("safe_text", "unsafe_text", "safe_image", "unsafe_image")


def random_embeddings(n, d, seed=0):
    """Return the four sets as normal deviates [n, d]."""
    generator = torch.Generator().manual_seed(seed)
    return {name: torch.randn(n, d, generator=generator) for name in NAMES}


def sign_embeddings(n, d, seed):
    """Return rows of +-1 as whole numbers, and the same rows scaled by powers of two.

    All rows have one length, so cosines compare as the whole-number dot products do, with many exact ties.
    """
    generator = torch.Generator().manual_seed(seed)
    signs = {name: torch.randint(0, 2, (n, d), generator=generator) * 2 - 1 for name in NAMES}
    scales = {name: 2.0 ** torch.randint(-3, 4, (n, 1), generator=generator) for name in NAMES}
    return signs, {name: signs[name] * scales[name] for name in NAMES}
