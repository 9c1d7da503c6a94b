"""Embeddings of tuples for the metric tests: random ones, and ones whose cosines can be compared exactly."""

from __future__ import annotations

import torch

NAMES = ("safe_text", "unsafe_text", "safe_image", "unsafe_image")


def random_embeddings(n, d, seed=0):
    """Return the four sets as normal deviates [n, d]."""
    generator = torch.Generator().manual_seed(seed)
    return {name: torch.randn(n, d, generator=generator) for name in NAMES}


def sign_embeddings(n, d, seed):
    """Return rows of +-1 as whole numbers, and the same rows in float64, each of a random length.

    All rows of signs have one length, so cosines compare as the whole-number dot products do, with many exact ties.
    """
    generator = torch.Generator().manual_seed(seed)
    signs = {name: torch.randint(0, 2, (n, d), generator=generator) * 2 - 1 for name in NAMES}
    return signs, {name: signs[name] * random_lengths(n, generator) for name in NAMES}


def random_lengths(n, generator):
    """Return factors [n, 1] from 1e-200 to 1e200, float64."""
    return 10 ** (400 * torch.rand(n, 1, generator=generator, dtype=torch.float64) - 200)
