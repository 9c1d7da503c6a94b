"""A word list: rows of zeros where the listed words were, and which words are counted as unsafe."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from tiny_models import bits, tiny_clip, tiny_tuples

import uwmlib as uwm
from uwmlib.editing import Scaling, single_tokens, unsafe_words, word_list_edit
from uwmlib.errors import UwmError
from uwmlib.evaluation import embed_texts
from uwmlib.mini.vocabulary import HAZARDS


@pytest.fixture(scope="module")
def vlm():
    return uwm.load_model("mini-ViT-L-14")


def test_the_rows_of_the_words_are_zero_and_all_else_is_as_it_was(vlm):
    before, weight = bits(vlm), vlm.model.token_embedding.weight
    clean, words = weight.detach().clone(), ["lava", "ring", "lava"]
    ids = [int(vlm.tokenize([word])[0, 1]) for word in words]  # behind the start of text
    edit = word_list_edit(vlm, words)
    with edit.applied(vlm):
        changed = (weight != clean).any(dim=1).nonzero().flatten().tolist()
        assert changed == sorted(set(ids)) and not weight[ids].any()
        rest = {name: tensor for name, tensor in bits(vlm).items() if name != "token_embedding.weight"}
    assert rest == {name: tensor for name, tensor in before.items() if name != "token_embedding.weight"}
    assert bits(vlm) == before
    assert edit.n_weights == 2 * weight.shape[1] and edit.share() == {"text": 2 / weight.shape[0]}


def test_a_listed_word_is_read_as_nothing(vlm):
    texts = [f"a star in {hazard}" for hazard in HAZARDS]
    with word_list_edit(vlm, list(HAZARDS)).applied(vlm):
        rows = embed_texts(vlm, texts)
    assert torch.equal(rows, rows[:1].expand_as(rows))


@pytest.mark.parametrize("words", ["lava", [], [3], ["gravel"], ["lava flow"], ["lava", ""]])
def test_what_is_no_list_of_single_tokens_is_refused(vlm, words):
    with pytest.raises(UwmError):
        word_list_edit(vlm, words)


def test_a_word_that_the_tokenizer_lacks_is_named(vlm):
    with pytest.raises(UwmError, match="'gravel' is no single token of mini-ViT-L-14"):
        word_list_edit(vlm, ["lava", "gravel"])


def test_a_model_without_a_token_embedding_of_its_own_is_refused():
    vlm = tiny_clip()
    word = next(iter(single_tokens(vlm, tiny_tuples(6).safe_texts[0].split())))
    del vlm.model.token_embedding
    with pytest.raises(UwmError, match="no token embedding"):
        word_list_edit(vlm, [word])


def made(safe_texts, unsafe_texts):
    n = len(safe_texts)
    pictures = np.zeros((n, 8, 8, 3), dtype=np.uint8)
    return uwm.Tuples("made", pictures, pictures, safe_texts, unsafe_texts, [""] * n)


def test_words_are_counted_by_captions():
    tuples = made(
        ["A cat", "a cat near a bin", "a dog"],
        ["a cat on Fire, fire and fire", "a cat in a bin on fire", "a dog, fire!"],
    )
    # fire: 3 of 3; on: 2 of 2; in, and: 1 of 1; bin: 1 of 2; a, cat, dog: half; near: none.
    assert unsafe_words(tuples, share=1) == ["and", "fire", "in", "on"]
    assert unsafe_words(tuples, share=0.5) == ["a", "and", "bin", "cat", "dog", "fire", "in", "on"]
    more = made(["a fire", "b", "c"], ["fire", "fire", "fire"])  # 3 of 4
    assert unsafe_words(more, share=0.75) == ["fire"] and unsafe_words(more, share=0.76) == []
    assert {"b", "c", "a"}.isdisjoint(unsafe_words(more, share=1e-9))
    assert unsafe_words(made(["a fire"], ["fire, fire, fire"]), share=0.6) == []  # one caption of two


@pytest.mark.parametrize("share", [0, -0.1, 1.01, "0.5", float("nan")])
def test_a_share_that_is_none_is_refused(share):
    with pytest.raises(UwmError, match="share"):
        unsafe_words(made(["a"], ["b"]), share=share)
    with pytest.raises(UwmError, match="load them"):
        unsafe_words("mini-visu", share=0.5)


def test_the_unsafe_words_of_the_mini_world_are_its_hazards_and_what_stands_around_them():
    words = unsafe_words(uwm.load_tuples("mini-visu", split="train", n=2000), share=0.6)
    assert set(HAZARDS) <= set(words)
    others = {"an", "blank", "by", "covered", "empty", "frame", "full", "in", "surrounded"}
    assert set(words) - set(HAZARDS) <= others


def test_the_edit_scales_by_zero(vlm):
    (change,) = word_list_edit(vlm, ["lava"]).changes.values()
    assert isinstance(change, Scaling) and change.alpha == 0.0 and change.encoder == "text"


def test_the_rows_shrink_with_the_strength(vlm):
    weight = vlm.model.token_embedding.weight
    clean, row = weight.detach().clone(), int(vlm.tokenize(["lava"])[0, 1])
    for strength, factor in ((0.0, 1.0), (0.25, 0.75), (1.0, 0.0)):
        edit = word_list_edit(vlm, ["lava"], strength=strength)
        with edit.applied(vlm):
            assert torch.equal(weight[row], clean[row] * factor) and torch.equal(weight[:row], clean[:row])
        assert edit.description["strength"] == strength
    assert torch.equal(weight, clean)
    for wrong in (-0.1, 1.1, "all"):
        with pytest.raises(UwmError, match="strength"):
            word_list_edit(vlm, ["lava"], strength=wrong)
