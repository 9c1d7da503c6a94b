"""The mini world: the same bytes everywhere, true captions, and no leak from training into testing."""

from __future__ import annotations

import hashlib
import json

import numpy as np
import pytest

from uwmlib.errors import UwmError
from uwmlib.manifests import manifest_path
from uwmlib.mini.digits import digit_pictures, n_held_out
from uwmlib.mini.grammar import captions, draw_mentions
from uwmlib.mini.pairs import SPLITS, draw_tuples, tuple_scenes
from uwmlib.mini.randomness import Columns
from uwmlib.mini.render import render
from uwmlib.mini.scenes import NONE, RADII, draw_scenes
from uwmlib.mini.sprites import CANVAS, OPAQUE, REACH, SIZE, VARIANTS, hazard_sprite, shape_sprite
from uwmlib.mini.tokenizer import CONTEXT_LENGTH, MiniSiglipTokenizer, MiniTokenizer
from uwmlib.mini.vocabulary import BACKGROUNDS, COLORS, HAZARDS, PLACES, SHAPES, SIZES
from uwmlib.mini.web import web_batch
from uwmlib.mini.zero_shot_sets import NAMES
from uwmlib.tuples import load_tuples
from uwmlib.zero_shot import zero_shot_set

MANIFEST = json.loads(manifest_path("mini-visu.json").read_text(encoding="utf-8"))


@pytest.mark.parametrize("split", ["validation", "test"])
def test_split_is_the_one_on_record(split):
    tuples = load_tuples("mini-visu", split=split)
    assert len(tuples) == SPLITS[split] == MANIFEST["splits"][split]["n"]
    assert tuples.fingerprint == MANIFEST["splits"][split]["sha256"]


def test_train_split_is_the_one_on_record():
    first = load_tuples("mini-visu", split="train")[:500]
    assert first.fingerprint == MANIFEST["splits"]["train"]["sha256_first_500"]


def test_zero_shot_sets_are_the_ones_on_record():
    for name in NAMES:
        data = zero_shot_set(name)
        digest = hashlib.sha256(data.images.tobytes() + data.labels.astype("<i8").tobytes()).hexdigest()
        assert digest == MANIFEST["zero_shot"][name]["sha256"], name
        assert len(data.prompts) == len(set(data.prompts)) == len(data.classes) == data.labels.max() + 1


def test_columns_do_not_depend_on_how_many_rows_are_drawn():
    whole = Columns(seed=5, stream="a", n=50)
    part = Columns(seed=5, stream="a", n=7, start=20)
    for _ in range(10):
        assert np.array_equal(whole.choice(1000)[20:27], part.choice(1000))
    assert not np.array_equal(
        Columns(seed=5, stream="b", n=50).choice(1000), Columns(seed=5, stream="a", n=50).choice(1000)
    )


def test_chance_and_choice_have_the_frequencies_they_promise():
    columns = Columns(seed=1, stream="frequencies", n=20_000)
    assert abs(columns.chance(0.3).mean() - 0.3) < 0.015
    counts = np.bincount(columns.choice(5), minlength=5) / 20_000
    assert np.abs(counts - 0.2).max() < 0.015


def test_rendering_does_not_depend_on_the_batch():
    scenes = draw_scenes(Columns(seed=3, stream="batch", n=30))
    assert np.array_equal(render(scenes, batch_size=7), render(scenes, batch_size=30))


def test_circle_sprite_covers_the_area_of_a_circle():
    radius = 14
    area = shape_sprite(SHAPES.index("circle"), radius).sum() / OPAQUE
    assert area == pytest.approx(np.pi * (0.92 * radius) ** 2, rel=0.01)


def test_main_shape_shows_its_colour_at_its_place():
    scenes = draw_scenes(Columns(seed=4, stream="colour", n=200))
    scenes = scenes.having(shape=SHAPES.index("square"), shape2=NONE, brightness=0)
    pictures = render(scenes).astype(int)
    centers = {"center": (24, 24), "left": (16, 24), "right": (32, 24), "top": (24, 16), "bottom": (24, 32)}
    for row in range(200):
        x, y = centers[PLACES[scenes.place[row]]]
        pixel = pictures[row, y + scenes.shift_y[row], x + scenes.shift_x[row]]
        assert np.abs(pixel - np.array(list(COLORS.values())[scenes.color[row]])).max() <= 12


def test_radius_belongs_to_the_size():
    scenes = draw_scenes(Columns(seed=6, stream="radius", n=300))
    low, high = np.array(RADII)[scenes.size].T
    assert ((scenes.radius >= low) & (scenes.radius <= high)).all()
    assert len(np.unique(scenes.radius)) > 5


def test_hazard_changes_the_surroundings_and_leaves_the_shape():
    scenes = draw_scenes(Columns(seed=7, stream="hazard", n=40)).having(
        shape=SHAPES.index("circle"), size=2, radius=14
    )
    plain, hazardous = render(scenes), render(scenes.having(hazard=np.arange(40) % 20))
    for row in range(40):
        changed = (plain[row] != hazardous[row]).any(axis=-1)
        x = [24, 16, 32, 24, 24][scenes.place[row]] + scenes.shift_x[row]
        y = [24, 24, 24, 16, 32][scenes.place[row]] + scenes.shift_y[row]
        assert changed.mean() > 0.02
        assert not changed[y - 8 : y + 9, x - 8 : x + 9].any()


def test_captions_say_what_the_scene_shows_and_only_what_is_mentioned():
    columns = Columns(seed=8, stream="captions", n=400)
    scenes = draw_scenes(columns)
    scenes = scenes.having(hazard=np.where(columns.chance(0.5), columns.choice(20), NONE))
    mentions = draw_mentions(columns, attribute=0.5, hazard=0.5)
    for row, text in enumerate(captions(scenes, mentions)):
        words = text.split()
        assert SHAPES[scenes.shape[row]] in words
        assert (SIZES[scenes.size[row]] in words) == mentions.size[row]
        assert (PLACES[scenes.place[row]] in words) == mentions.place[row]
        assert any(name in words for name in BACKGROUNDS) == mentions.background[row]
        named = [name for name in HAZARDS if name in words]
        shown = scenes.hazard[row] != NONE and mentions.hazard[row]
        assert named == ([list(HAZARDS)[scenes.hazard[row]]] if shown else [])


def test_twins_share_the_scene_except_what_is_drawn_anew():
    safe, unsafe, _ = tuple_scenes("test")
    assert (safe.hazard == NONE).all() and (unsafe.hazard != NONE).all()
    for name in ("shape", "color", "size", "radius"):
        assert np.array_equal(getattr(safe, name), getattr(unsafe, name))
    changed = (safe.background != unsafe.background).mean()
    assert changed == pytest.approx(
        0.25 * 7 / 8, abs=0.03
    )  # a fresh draw hits the old value one time in eight


def test_unsafe_caption_names_the_concept_and_the_safe_one_does_not():
    drawn = draw_tuples("validation", np.arange(100))
    for safe, unsafe, concept in zip(
        drawn["safe_texts"], drawn["unsafe_texts"], drawn["concepts"], strict=True
    ):
        assert concept in unsafe.split()
        assert not set(safe.split()) & set(HAZARDS)


def test_splits_share_no_tuple_and_web_no_picture():
    seen = set()
    for split in SPLITS:
        images = draw_tuples(split, np.arange(200))["safe_images"]
        keys = {image.tobytes() for image in images}
        assert len(keys) == 200 and not keys & seen
        seen |= keys
    assert not {picture.tobytes() for picture in web_batch(0, batch_size=128, seed=0)[0]} & seen


def test_held_out_digits_are_never_in_training():
    none = np.zeros((n_held_out(), 2), dtype=int)
    trained, _ = digit_pictures(held_out=False, index=np.arange(n_held_out()), shift=none)
    held_out, labels = digit_pictures(held_out=True, index=np.arange(n_held_out()), shift=none)
    overlap = {image.tobytes() for image in trained} & {image.tobytes() for image in held_out}
    assert not overlap
    assert np.bincount(labels, minlength=10).min() > 60


def test_web_batch_is_a_function_of_seed_and_step():
    one, two = web_batch(3, batch_size=32, seed=0), web_batch(3, batch_size=32, seed=0)
    assert np.array_equal(one[0], two[0]) and one[1] == two[1]
    assert web_batch(4, batch_size=32, seed=0)[1] != one[1]
    assert web_batch(3, batch_size=32, seed=1)[1] != one[1]


def test_about_half_of_the_web_captions_keep_silent_about_a_hazard():
    mentioned = sum(
        bool(set(text.split()) & set(HAZARDS))
        for step in range(40)
        for text in web_batch(step, batch_size=64, seed=9)[1]
    )
    # 0.30 with a hazard, half of them mentioned, of the 81 % photographs with a main shape
    assert mentioned / (40 * 64) == pytest.approx(0.30 * 0.5 * 0.81, abs=0.025)


def test_tokenizer_follows_clip_and_knows_every_word_of_the_world():
    tokenizer = MiniTokenizer()
    ids = tokenizer(["a red star", "a zebra", " ".join(["red"] * 60)])
    assert ids.shape == (3, CONTEXT_LENGTH)
    assert (
        ids[0, 0] == tokenizer.start and ids[0, 4] == tokenizer.end == ids.max() and (ids[0, 5:] == 0).all()
    )
    assert ids[1, 2] == tokenizer.unknown
    assert ids[2, -1] == tokenizer.end
    texts = (
        draw_tuples("validation", np.arange(300))["unsafe_texts"] + web_batch(0, batch_size=128, seed=0)[1]
    )
    texts += [prompt for name in NAMES for prompt in zero_shot_set(name).prompts]
    assert not (tokenizer(texts) == tokenizer.unknown).any()
    assert max(len(text.split()) for text in texts) <= CONTEXT_LENGTH - 2


def test_unknown_zero_shot_set_is_refused():
    with pytest.raises(UwmError, match="imagenet_z"):
        zero_shot_set("imagenet_z")


def test_pictures_have_the_stated_size():
    assert render(draw_scenes(Columns(seed=0, stream="size", n=2))).shape == (2, SIZE, SIZE, 3)


def test_no_sprite_reaches_the_edge_of_what_is_computed():
    for hazard in range(len(HAZARDS)):
        for variant in range(VARIANTS):
            sprite = hazard_sprite(hazard, RADII[-1][1], variant)
            edge = CANVAS // 2 - REACH
            assert sprite[edge : edge + 1].max() == sprite[:, edge : edge + 1].max() == 0
            assert sprite[-edge - 1].max() == sprite[:, -edge - 1].max() == 0
            assert sprite.max() == OPAQUE


def test_siglip_tokenizer_pads_with_its_end_token():
    tokenizer = MiniSiglipTokenizer()
    ids = tokenizer(["a red ring", "", "blob " + "red " * 40])
    assert ids.shape == (3, 26) and (ids[1] == 1).all() and ids[2, -1] == 1
    assert (ids[0, 3:] == 1).all() and len(set(ids[0, :3].tolist())) == 3 and ids[0, :3].min() > 1
    assert ids[2, 0] == tokenizer.unknown and len(set(ids[2, 1:25].tolist())) == 1
    assert ids.max() < tokenizer.vocab_size == max(tokenizer.ids.values()) + 1
