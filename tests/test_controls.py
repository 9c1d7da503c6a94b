"""Controls: random choices from a stream that never changes, magnitudes, and the ratio turned round."""

from __future__ import annotations

import hashlib

import numpy as np
import pytest
import torch
from tiny_models import TINY, WIDTH, indices_of, tiny_clip, tiny_tuples

import uwmlib as uwm
from uwmlib.editing import (
    gate_edit,
    random_like,
    select_magnitude,
    select_random,
    select_reversed,
)
from uwmlib.editing.selection import select_adaptive, select_fixed
from uwmlib.errors import UwmError


@pytest.fixture(scope="module")
def vlm():
    return tiny_clip()


@pytest.fixture(scope="module")
def scores(vlm):
    return uwm.score(vlm, tiny_tuples(6), text=["out", "value"], vision="fc2", progress=False)


def drawn_by_hand(seed, parameter, shape, k):
    """The k weights with the largest words, of a Philox keyed by a hash."""
    key = hashlib.sha256(f"{seed}|{parameter}|{shape}".encode()).digest()[:16]
    words = np.random.Philox(key=int.from_bytes(key, "little")).random_raw(shape[0] * shape[1])
    return sorted(sorted(range(len(words)), key=lambda i: -int(words[i]))[:k])


def test_a_random_choice_follows_from_seed_name_and_shape(vlm):
    edit = select_random(vlm, tau=0.1, text=None, vision="fc2", seed=7)
    site = vlm.sites(vision="fc2")[1]
    shape = tuple(vlm.weight(site).shape)
    k = shape[0] * shape[1] - int(0.9 * shape[0] * shape[1])
    assert edit.changes[site.parameter].indices.tolist() == drawn_by_hand(7, site.parameter, shape, k)
    # The values of the weights play no part, nor does the global state of any generator.
    torch.manual_seed(5)
    other = select_random(tiny_clip(seed=3), tau=0.1, text=None, vision="fc2", seed=7)
    assert all(torch.equal(mine, indices_of(other)[name]) for name, mine in indices_of(edit).items())


def test_first_indices_of_a_random_choice_are_these_for_ever():
    edit = select_random(tiny_clip(), tau=0.1, text="out", vision=None)
    first, second = indices_of(edit).values()
    assert first[:6].tolist() == [27, 36, 39, 83, 150, 164]
    assert second[:6].tolist() == [5, 18, 23, 28, 29, 45]


def test_seeds_and_layers_differ_and_strengths_are_nested(vlm):
    def chosen(tau, seed):
        return [
            set(indices.tolist()) for indices in indices_of(select_random(vlm, tau=tau, seed=seed)).values()
        ]

    weak, strong, other = chosen(0.1, 0), chosen(0.3, 0), chosen(0.1, 1)
    assert all(a < b for a, b in zip(weak, strong, strict=True))
    assert all(a != b for a, b in zip(weak, other, strict=True))
    assert weak[0] != weak[1]


@pytest.mark.parametrize("family", TINY)
def test_a_random_twin_has_as_many_weights_of_the_same_rows(family):
    vlm = TINY[family]()
    scores = uwm.score(vlm, tiny_tuples(4), text=["out", "value"], vision="fc2", progress=False)
    edit = scores.select(tau=0.2, alpha={"text": -1, "vision": 0.5})
    twin = random_like(vlm, edit, seed=2)
    assert twin.share() == edit.share() and list(twin.changes) == list(edit.changes)
    for name, change in twin.changes.items():
        like = edit.changes[name]
        assert (change.n_weights, change.alpha, change.candidates) == (
            like.n_weights,
            like.alpha,
            like.candidates,
        )
        assert change.indices.tolist() != like.indices.tolist()
    for site in scores.sites:
        if site.rows:
            rows = twin.changes[site.parameter].indices // vlm.weight(site).shape[1]
            assert set(rows.tolist()) <= set(range(*site.rows)) and len(set(rows.tolist())) > 1
    with twin.applied(vlm):
        pass


def test_a_random_twin_is_the_choice_of_the_same_seed(vlm, scores):
    edit = select_random(vlm, tau=0.1, seed=3)
    assert all(
        torch.equal(edit.changes[name].indices, change.indices)
        for name, change in random_like(vlm, select_random(vlm, tau=0.1, seed=8), seed=3).changes.items()
    )


def test_magnitude_takes_the_largest_weights(vlm):
    for rule, select in (("adaptive", select_adaptive), ("fixed", select_fixed)):
        edit = select_magnitude(vlm, tau=0.2, alpha=0, rule=rule, text="fc1", vision=None)
        assert edit.description["method"] == "magnitude"
        for site in vlm.sites(text="fc1"):
            weight = vlm.weight(site).detach()
            chosen = edit.changes[site.parameter].indices
            assert torch.equal(chosen, select(weight.abs(), 0.2))
            rest = np.setdiff1d(np.arange(weight.numel()), chosen.numpy())
            assert weight.abs().flatten()[chosen].min() >= weight.abs().flatten()[rest].max()


@pytest.mark.parametrize("variant", ["released", "paper"])
@pytest.mark.parametrize("prior", [(), ("text",), ("text", "vision")])
def test_the_reversed_score_is_safe_over_unsafe(vlm, scores, variant, prior):
    edit = select_reversed(scores, tau=0.1, variant=variant, prior=prior, rule="fixed", alpha=0.5)
    for site in scores.sites:
        sums, weight = scores.sums[site.name], vlm.weight(site).detach().abs()
        turned = scores.n / sums.ratio if variant == "released" else sums.safe / sums.unsafe
        wanted = turned * weight if site.encoder in prior else turned
        offset = site.rows[0] * weight.shape[1] if site.rows else 0
        found = edit.changes[site.parameter].indices - offset
        missed = set(found.tolist()) ^ set(select_fixed(wanted, 0.1).tolist())
        assert len(missed) <= 2  # weights that rounding puts on either side of the threshold
        assert edit.changes[site.parameter].alpha == 0.5
    assert edit.description["method"] == "reversed" and edit.description["prior"] == list(prior)


def test_what_is_no_control_is_refused(vlm, scores):
    with pytest.raises(UwmError, match="variant that is a ratio, 'difference'"):
        select_reversed(scores, tau=0.1, variant="difference")
    with pytest.raises(UwmError, match="encoder for the prior, 'image'"):
        select_reversed(scores, tau=0.1, prior="image")
    for seed in (-1, 2**64, 0.5):
        with pytest.raises(UwmError, match="seed is"):
            select_random(vlm, tau=0.1, seed=seed)
    with pytest.raises(UwmError, match="tau is 1"):
        select_random(vlm, tau=1)
    gates = gate_edit(vlm, {site: torch.zeros(4 * WIDTH) for site in vlm.sites(vision="fc2")})
    with pytest.raises(UwmError, match="scales chosen weights"):
        random_like(vlm, gates)
    with pytest.raises(UwmError, match="another model"):
        random_like(uwm.load_model("mini-ViT-B-32"), select_random(uwm.load_model("mini-ViT-L-14"), tau=0.1))
