"""Knowledge and the safe bias over both modalities: against loops, the bootstrap and equations by hand."""

from __future__ import annotations

from statistics import NormalDist

import numpy as np
import pytest
import torch
from embedding_sets import random_embeddings

from uwmlib.errors import UwmError
from uwmlib.metrics import (
    CATALOGUE,
    Score,
    difference_between,
    knowledge,
    knowledge_kept,
    retrieval,
    safe_bias,
    safeground,
    share_of,
)

EMBEDDINGS = random_embeddings(300, 6)
GROUND, RANKS = safeground(**EMBEDDINGS), retrieval(**EMBEDDINGS)


def hits(n, *shares, seed=0):
    """Outcomes of n tuples that share a common difficulty, so that they go together."""
    generator = np.random.default_rng(seed)
    hard = generator.random(n)
    return [share_of((hard + 0.3 * generator.random(n)) / 1.3 < share) for share in shares]


def found(*scores):
    return dict(zip(("ts_vs", "vs_ts"), scores, strict=True))


def test_knowledge_is_the_mean_recall_of_both_directions():
    score = knowledge(RANKS)
    both = [(RANKS.ranks[key] == 1).double().mean() for key in ("ts_vs", "vs_ts")]
    assert score.value == pytest.approx(50 * float(sum(both)))
    assert score.unit == CATALOGUE["knowledge"].unit and score.n == 300
    found_by = [(RANKS.ranks[key] == 1).long() for key in ("ts_vs", "vs_ts")]
    assert score.items.tolist() == (50 * (found_by[0] + found_by[1])).tolist()


def test_knowledge_is_compared_in_pairs():
    before, after = found(*hits(500, 0.6, 0.5)), found(*hits(500, 0.5, 0.4))
    change = difference_between({"k": knowledge(after)}, "k", {"k": knowledge(before)}, "k")
    assert change.difference == pytest.approx(knowledge(after).value - knowledge(before).value)
    widths = [np.diff(knowledge(each).interval)[0] for each in (before, after)]
    assert change.hi - change.lo < np.hypot(*widths)


def test_the_interval_of_what_is_kept_is_that_of_the_bootstrap():
    base, edited = found(*hits(800, 0.7, 0.6)), found(*hits(800, 0.3, 0.2))
    score = knowledge_kept(edited, base)
    k, b = knowledge(edited).items, knowledge(base).items
    assert score.value == pytest.approx(100 * k.mean() / b.mean())
    rows = np.random.default_rng(1).integers(0, 800, (4000, 800))
    low, high = np.quantile(100 * k[rows].mean(axis=1) / b[rows].mean(axis=1), [0.025, 0.975])
    assert score.interval == pytest.approx((low, high), abs=0.4)
    assert knowledge_kept(base, base).interval == (100, 100)


def test_the_safe_bias_is_the_sum_of_both_modalities():
    score = safe_bias(GROUND)
    both = [GROUND.sensitivity_bias(query).bias for query in ("text", "image")]
    assert score.value == pytest.approx(sum(both)) and score.unit == CATALOGUE["safe_bias"].unit
    z = [NormalDist().inv_cdf((int(getattr(GROUND, key).sum()) + 0.5) / 301)
         for key in ("p_s_t", "p_u_t", "p_s_v", "p_u_v")]  # fmt: skip
    assert score.value == pytest.approx(sum(z) / 2)


def test_the_interval_of_the_safe_bias_is_that_of_the_bootstrap():
    n = 1000
    outcomes = hits(n, 0.8, 0.15, 0.9, 0.3)
    keys = ("p_s_t", "p_u_t", "p_s_v", "p_u_v")
    score = safe_bias(dict(zip(keys, outcomes, strict=True)))
    items = np.stack([each.items for each in outcomes])
    rows = np.random.default_rng(1).integers(0, n, (4000, n))
    rates = (items[:, rows].sum(axis=2) + 0.5) / (n + 1)
    sampled = torch.special.ndtri(torch.from_numpy(rates)).sum(dim=0).numpy() / 2
    assert np.diff(score.interval)[0] == pytest.approx(2 * 1.96 * sampled.std(), rel=0.06)
    # They go together, so the four apart would have it too narrow.
    alone = [each.interval for each in
             (safe_bias(dict.fromkeys(keys, outcome)) for outcome in outcomes)]  # fmt: skip
    independent = np.sqrt(sum((np.diff(each)[0] / 4) ** 2 for each in alone))
    assert np.diff(score.interval)[0] > 1.2 * independent


def test_the_interval_of_a_difference_of_safe_biases_is_that_of_the_paired_bootstrap():
    n, keys = 1000, ("p_s_t", "p_u_t", "p_s_v", "p_u_v")
    outcomes = hits(n, 0.8, 0.15, 0.9, 0.3, 0.75, 0.2, 0.9, 0.4)  # of two models, one difficulty
    models = [dict(zip(keys, each, strict=True)) for each in (outcomes[:4], outcomes[4:])]
    biases = [safe_bias(model) for model in models]
    change = difference_between({"c": biases[1]}, "c", {"c": biases[0]}, "c")
    assert change.difference == pytest.approx(biases[1].value - biases[0].value)
    items = np.stack([each.items for each in outcomes])
    rows = np.random.default_rng(2).integers(0, n, (4000, n))
    z = torch.special.ndtri(torch.from_numpy((items[:, rows].sum(axis=2) + 0.5) / (n + 1))).numpy() / 2
    sampled = z[4:].sum(axis=0) - z[:4].sum(axis=0)
    assert change.hi - change.lo == pytest.approx(2 * 1.96 * sampled.std(), rel=0.06)
    assert change.hi - change.lo < 0.8 * np.hypot(*(np.diff(each.interval)[0] for each in biases))


YES = share_of([True, True])


@pytest.mark.parametrize(
    ("ask", "message"),
    [
        (lambda: knowledge({"ts_vs": YES}), "measure ts_vs and vs_ts"),
        (lambda: knowledge(found(YES, Score(50.0))), "measure ts_vs and vs_ts"),
        (lambda: knowledge(found(YES, share_of([True]))), "on equally many tuples"),
        (lambda: knowledge_kept(found(YES, YES), found(*[share_of([True])] * 2)), "of 2 and 1 tuples"),
        (
            lambda: knowledge_kept(found(YES, YES), found(*[share_of([False] * 2)] * 2)),
            "no knowledge to keep",
        ),
        (lambda: safe_bias({"p_s_t": YES}), "measure SafeGround"),
        (
            lambda: safe_bias({**dict.fromkeys(["p_s_t", "p_u_t", "p_s_v"], YES), "p_u_v": share_of([True])}),
            "on the same tuples",
        ),
    ],
)
def test_what_was_not_measured_is_refused(ask, message):
    with pytest.raises(UwmError, match=message):
        ask()
