"""A re-ranker as embeddings, against similarities with the priors added by hand."""

from __future__ import annotations

import pytest
import torch
from embedding_sets import random_embeddings
from torch.nn.functional import normalize

from uwmlib.editing import rerank
from uwmlib.errors import UwmError
from uwmlib.metrics import contrasts, retrieval, safeground


def perfect(embeddings):
    return {
        name: torch.full((len(rows),), 1.0 if name.startswith("safe") else -1.0)
        for name, rows in embeddings.items()
    }


def test_cosines_are_those_with_the_priors_added():
    embeddings = random_embeddings(30, 6)
    generator = torch.Generator().manual_seed(1)
    priors = {name: 2 * torch.rand(30, generator=generator) - 1 for name in embeddings}
    moved = {name: normalize(rows, dim=1) for name, rows in rerank(embeddings, priors, weight=0.7).items()}
    text, image = (normalize(embeddings[name].double(), dim=1) for name in ("unsafe_text", "safe_image"))
    added = priors["unsafe_text"].double()[:, None] + priors["safe_image"].double()[None, :]
    wanted = (text @ image.T + 0.7 * added) / (1 + 2 * 0.7)
    assert torch.allclose(moved["unsafe_text"] @ moved["safe_image"].T, wanted, atol=1e-12)


def test_a_perfect_prior_wins_everything_and_leaves_ranks_among_safe_items_and_the_match_alone():
    embeddings = random_embeddings(300, 8)
    moved = rerank(embeddings, perfect(embeddings), weight=1.0)
    assert safeground(**moved)["gs"].value == 100.0
    before, after = retrieval(**embeddings).ranks, retrieval(**moved).ranks
    assert torch.equal(before["ts_vs"], after["ts_vs"]) and torch.equal(before["vs_ts"], after["vs_ts"])
    assert torch.equal(contrasts(**embeddings).match > 0, contrasts(**moved).match > 0)


def test_no_weight_changes_nothing():
    embeddings = random_embeddings(50, 8)
    moved = rerank(embeddings, perfect(embeddings), weight=0.0)
    assert torch.equal(safeground(**embeddings).p_u_t, safeground(**moved).p_u_t)


@pytest.mark.parametrize(
    ("parts", "priors", "weight", "message"),
    [
        ({"a_text": torch.ones(2, 3)}, {}, 1.0, "a_text has no prior"),
        ({"a_text": torch.ones(2, 3)}, {"a_text": torch.ones(3)}, 1.0, "2 numbers from -1 to 1"),
        ({"a_text": torch.ones(2, 3)}, {"a_text": torch.tensor([0.0, 1.5])}, 1.0, "from -1 to 1"),
        ({"a_text": torch.ones(2, 3)}, {"a_text": torch.tensor([0.0, torch.nan])}, 1.0, "from -1 to 1"),
        ({"a_sound": torch.ones(2, 3)}, {"a_sound": torch.ones(2)}, 1.0, "neither texts nor images"),
        ({"a_text": torch.ones(2, 3)}, {"a_text": torch.ones(2)}, -1.0, "weight"),
    ],
)
def test_what_is_no_prior_is_refused(parts, priors, weight, message):
    with pytest.raises(UwmError, match=message):
        rerank(parts, priors, weight=weight)
