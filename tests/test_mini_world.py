"""The mini world: the same bytes everywhere, true captions, and no leak from training into testing."""

from __future__ import annotations

import hashlib
import json
import re
from dataclasses import replace

import numpy as np
import pytest

from uwmlib.errors import UwmError
from uwmlib.manifests import manifest_path
from uwmlib.mini.benign import KINDS, benign_scenes, draw_benign
from uwmlib.mini.digits import digit_pictures, n_held_out
from uwmlib.mini.grammar import captions, draw_mentions
from uwmlib.mini.pairs import SPLITS, draw_tuples, tuple_scenes
from uwmlib.mini.randomness import Columns
from uwmlib.mini.readers import colours_and_edges, simple_readers
from uwmlib.mini.render import render
from uwmlib.mini.scenes import NONE, bystanders, draw_scenes, radii
from uwmlib.mini.sprites import (
    CANVAS,
    OPAQUE,
    REACH,
    VARIANTS,
    container_sprite,
    hazard_sprite,
    shape_sprite,
)
from uwmlib.mini.tokenizer import MiniSiglipTokenizer, MiniTokenizer
from uwmlib.mini.vocabulary import (
    BACKGROUNDS,
    COLORS,
    CONTAINER_WORDS,
    CONTAINERS,
    HAZARDS,
    PLACES,
    SHAPES,
    SIZES,
)
from uwmlib.mini.web import web_batch
from uwmlib.mini.worlds import FIRST, SECOND, WORLDS
from uwmlib.mini.zero_shot_sets import NAMES
from uwmlib.tuples import load_benign, load_tuples
from uwmlib.zero_shot import zero_shot_set

both_worlds = pytest.mark.parametrize("world", WORLDS.values(), ids=WORLDS)
MANIFEST = json.loads(manifest_path("mini-visu.json").read_text(encoding="utf-8"))


@both_worlds
@pytest.mark.parametrize("split", ["validation", "test"])
def test_split_is_the_one_on_record(world, split):
    tuples = load_tuples(world.name, split=split)
    recorded = MANIFEST[world.name]["splits"][split]
    assert len(tuples) == SPLITS[split] == recorded["n"]
    assert tuples.fingerprint == recorded["sha256"]


@both_worlds
def test_train_split_is_the_one_on_record(world):
    first = load_tuples(world.name, split="train")[:500]
    assert first.fingerprint == MANIFEST[world.name]["splits"]["train"]["sha256_first_500"]


@both_worlds
def test_zero_shot_sets_are_the_ones_on_record(world):
    for name in NAMES:
        data = zero_shot_set(name, world=world.name)
        digest = hashlib.sha256(data.images.tobytes() + data.labels.astype("<i8").tobytes()).hexdigest()
        assert digest == MANIFEST[world.name]["zero_shot"][name]["sha256"], name
        assert len(data.prompts) == len(set(data.prompts)) == len(data.classes) == data.labels.max() + 1


def test_benign_uses_are_the_ones_on_record():
    assert load_benign("mini-visu").fingerprint == MANIFEST["mini-visu"]["benign"]["sha256"]


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


@both_worlds
def test_rendering_does_not_depend_on_the_batch(world):
    scenes, _, _, _ = tuple_scenes("validation", world=world)
    some = scenes[:30]
    assert np.array_equal(render(some, world=world, batch_size=7), render(some, world=world, batch_size=30))


def test_circle_sprite_covers_the_area_of_a_circle():
    radius = 14
    area = shape_sprite(SHAPES.index("circle"), radius).sum() / OPAQUE
    assert area == pytest.approx(np.pi * (0.92 * radius) ** 2, rel=0.01)


def centers(world):
    """Where a main shape stands without jitter, by the name of the place."""
    half, step = world.size // 2, {48: 8, 60: 10}[world.size]
    towards = {"center": (0, 0), "left": (-1, 0), "right": (1, 0), "top": (0, -1), "bottom": (0, 1)}
    return {place: (half + step * dx, half + step * dy) for place, (dx, dy) in towards.items()}


@both_worlds
def test_main_shape_shows_its_colour_at_its_place(world):
    scenes = draw_scenes(Columns(seed=4, stream="colour", n=200), world=world)
    scenes = scenes.having(shape=SHAPES.index("square"), shape2=NONE, brightness=0)
    pictures = render(scenes, world=world).astype(int)
    for row in range(200):
        x, y = centers(world)[PLACES[scenes.place[row]]]
        pixel = pictures[row, y + scenes.shift_y[row], x + scenes.shift_x[row]]
        assert np.abs(pixel - np.array(list(COLORS.values())[scenes.color[row]])).max() <= 12


@both_worlds
def test_radius_belongs_to_the_size(world):
    scenes = draw_scenes(Columns(seed=6, stream="radius", n=300), world=world)
    low, high = np.array(world.radii)[scenes.size].T
    drawn = radii(scenes, world=world)
    assert ((drawn >= low) & (drawn <= high)).all()
    assert len(np.unique(drawn)) > 5
    smaller = radii(scenes.having(size=0), world=world)  # another size keeps to its own range
    assert set(smaller) == set(range(world.radii[0][0], world.radii[0][1] + 1))


@both_worlds
def test_hazard_changes_the_surroundings_and_leaves_the_shape(world):
    scenes = draw_scenes(Columns(seed=7, stream="hazard", n=40), world=world).having(
        shape=SHAPES.index("circle"), size=2, growth=1
    )
    plain = render(scenes, world=world)
    hazardous = render(scenes.having(hazard=np.arange(40) % 20), world=world)
    for row in range(40):
        changed = (plain[row] != hazardous[row]).any(axis=-1)
        x, y = centers(world)[PLACES[scenes.place[row]]]
        x, y = x + scenes.shift_x[row], y + scenes.shift_y[row]
        assert changed.mean() > 0.02
        assert not changed[y - 8 : y + 9, x - 8 : x + 9].any()


def test_harmless_use_changes_the_bystander_and_leaves_the_main_shape():
    forms, _, _ = benign_scenes(world=SECOND)
    scenes = forms["clean"][:300]
    filled = scenes.having(hazard2=forms["harmless"].hazard2[:300])
    changed = (render(scenes, world=SECOND) != render(filled, world=SECOND)).any(axis=-1)
    held = scenes.container != NONE
    # A container keeps what it holds within its own 20 x 20 pixels; around a shape there is no such bound.
    assert (
        changed[held].mean(axis=(1, 2)).min() > 0.004 and changed[held].mean(axis=(1, 2)).max() < 400 / 3600
    )
    for row in np.flatnonzero(~held):
        x, y = centers(SECOND)[PLACES[scenes.place[row]]]
        x, y = x + scenes.shift_x[row], y + scenes.shift_y[row]
        assert changed[row].any() and not changed[row, y - 3 : y + 4, x - 3 : x + 4].any()


def test_container_has_a_rim_around_its_room():
    for container in range(len(CONTAINERS)):
        whole, room = container_sprite(container, 10)
        assert (room <= whole).all()
        rim = (whole.astype(int) - room).sum() / OPAQUE
        assert 60 < rim < 260 and 120 < room.sum() / OPAQUE < 260


@both_worlds
def test_captions_say_what_the_scene_shows_and_only_what_is_mentioned(world):
    columns, beside = (Columns(seed=8, stream=stream, n=400) for stream in ("captions", "beside"))
    scenes = draw_scenes(columns, world=world)
    scenes = scenes.having(hazard=np.where(columns.chance(0.5), columns.choice(20), NONE))
    mentions = draw_mentions(columns, beside, attribute=0.5, hazard=0.5, hazard2=0.5)
    for row, text in enumerate(captions(scenes, mentions, world=world)):
        words = text.split()
        assert SHAPES[scenes.shape[row]] in words
        assert (SIZES[scenes.size[row]] in words) == mentions.size[row]
        assert (PLACES[scenes.place[row]] in words) == mentions.place[row]
        assert any(name in words for name in BACKGROUNDS) == mentions.background[row]
        named = [name for name in HAZARDS if name in words]
        shown = scenes.hazard[row] != NONE and mentions.hazard[row]
        assert named == ([list(HAZARDS)[scenes.hazard[row]]] if shown else [])


def test_captions_of_bystanders_by_hand():
    scenes = draw_scenes(Columns(seed=0, stream="by hand", n=6), world=SECOND).having(
        shape=SHAPES.index("cross"), color=list(COLORS).index("red"), shape2=[-1, -1, -1, -1, 0, 0],
        color2=list(COLORS).index("blue"), container=[0, 0, 0, 2, -1, -1],
        hazard=[-1, 0, -1, -1, -1, 0], hazard2=[8, -1, -1, 8, 8, 8],
    )  # fmt: skip
    columns = [Columns(seed=0, stream="mentions", n=6) for _ in range(2)]
    mentions = draw_mentions(*columns, attribute=1.0, hazard=1.0, hazard2=1.0)
    off, first = np.zeros(6, dtype=bool), np.zeros(6, dtype=int)
    mentions = replace(
        mentions, size=off, place=off, background=off, opening=first, ending=first, phrase=first,
        phrase2=first + 1, empty=np.array([1, 1, 0, 1, 1, 1], dtype=bool),
    )  # fmt: skip
    assert captions(scenes, mentions, world=SECOND) == [
        "a red cross next to a jar of static",
        "a red cross surrounded by thorns next to an empty jar",
        "a red cross next to a jar",
        "a red cross next to a sign showing static",
        "a red cross next to a blue circle covered with static",
        "a red cross surrounded by thorns next to a blue circle covered with static",
    ]


@both_worlds
def test_twins_share_the_scene_except_what_is_drawn_anew(world):
    safe, unsafe, _, _ = tuple_scenes("test", world=world)
    assert (safe.hazard == NONE).all() and (unsafe.hazard != NONE).all()
    for name in ("shape", "color", "size", "growth"):
        assert np.array_equal(getattr(safe, name), getattr(unsafe, name))
    changed = (safe.background != unsafe.background).mean()
    assert changed == pytest.approx(
        world.redraw * 7 / 8, abs=0.03
    )  # a fresh draw hits the old value one time in eight


def test_harmless_uses_have_the_chances_of_the_world():
    safe, unsafe, _, _ = tuple_scenes("test", world=SECOND)
    assert (safe.hazard2[~bystanders(safe)] == NONE).all() and (
        (safe.shape2 == NONE) | (safe.container == NONE)
    ).all()
    some = bystanders(safe)
    assert some.mean() == pytest.approx(SECOND.bystander, abs=0.03)
    assert (safe.container != NONE)[some].mean() == pytest.approx(SECOND.containers, abs=0.04)
    own = (safe.hazard2 == unsafe.hazard)[some].mean()
    carried = (safe.hazard2 != NONE)[some].mean()
    assert own == pytest.approx(SECOND.own + SECOND.other / 20, abs=0.04)
    assert carried == pytest.approx(SECOND.own + SECOND.other, abs=0.04)
    assert (unsafe.hazard2 != NONE)[bystanders(unsafe)].mean() == pytest.approx(SECOND.also, abs=0.04)


def test_unsafe_caption_names_the_concept_and_the_safe_one_of_the_first_world_does_not():
    drawn = draw_tuples("validation", np.arange(100), world=FIRST)
    for safe, unsafe, concept in zip(
        drawn["safe_texts"], drawn["unsafe_texts"], drawn["concepts"], strict=True
    ):
        assert concept in unsafe.split()
        assert not set(safe.split()) & set(HAZARDS)
    second = draw_tuples("validation", np.arange(100), world=SECOND)
    assert all(
        concept in text.split()
        for concept, text in zip(second["concepts"], second["unsafe_texts"], strict=True)
    )


@both_worlds
def test_splits_share_no_tuple_and_web_no_picture(world):
    seen = set()
    for split in SPLITS:
        images = draw_tuples(split, np.arange(200), world=world)["safe_images"]
        keys = {image.tobytes() for image in images}
        assert len(keys) == 200 and not keys & seen
        seen |= keys
    assert not {picture.tobytes() for picture in web_batch(0, batch_size=128, seed=0, world=world)[0]} & seen


def test_held_out_digits_are_never_in_training():
    none = np.zeros((n_held_out(), 2), dtype=int)
    trained, _ = digit_pictures(held_out=False, index=np.arange(n_held_out()), shift=none, size=48)
    held_out, labels = digit_pictures(held_out=True, index=np.arange(n_held_out()), shift=none, size=48)
    overlap = {image.tobytes() for image in trained} & {image.tobytes() for image in held_out}
    assert not overlap
    assert np.bincount(labels, minlength=10).min() > 60


@both_worlds
def test_web_batch_is_a_function_of_seed_and_step(world):
    one, two = (web_batch(3, batch_size=32, seed=0, world=world) for _ in range(2))
    assert np.array_equal(one[0], two[0]) and one[1] == two[1]
    assert web_batch(4, batch_size=32, seed=0, world=world)[1] != one[1]
    assert web_batch(3, batch_size=32, seed=1, world=world)[1] != one[1]


def test_about_half_of_the_web_captions_keep_silent_about_a_hazard():
    mentioned = sum(
        bool(set(text.split()) & set(HAZARDS))
        for step in range(40)
        for text in web_batch(step, batch_size=64, seed=9, world=FIRST)[1]
    )
    # 0.30 with a hazard, half of them mentioned, of the 81 % photographs with a main shape
    assert mentioned / (40 * 64) == pytest.approx(0.30 * 0.5 * 0.81, abs=0.025)


@both_worlds
def test_tokenizer_follows_clip_and_knows_every_word_of_the_world(world):
    tokenizer = MiniTokenizer(world=world)
    ids = tokenizer(["a red star", "a zebra", " ".join(["red"] * 60)])
    assert ids.shape == (3, world.context_length)
    assert (
        ids[0, 0] == tokenizer.start and ids[0, 4] == tokenizer.end == ids.max() and (ids[0, 5:] == 0).all()
    )
    assert ids[1, 2] == tokenizer.unknown
    assert ids[2, -1] == tokenizer.end
    texts = draw_tuples("validation", np.arange(300), world=world)["unsafe_texts"]
    texts += [text for step in range(5) for text in web_batch(step, batch_size=128, seed=0, world=world)[1]]
    texts += [prompt for name in NAMES for prompt in zero_shot_set(name).prompts]
    assert not (tokenizer(texts) == tokenizer.unknown).any()
    assert max(len(text.split()) for text in texts) <= world.context_length - 2
    assert ("jar" in tokenizer.ids) == (world is SECOND)
    assert world is FIRST or set(CONTAINER_WORDS) <= set(" ".join(texts).split())


def test_unknown_zero_shot_set_is_refused():
    with pytest.raises(UwmError, match="imagenet_z"):
        zero_shot_set("imagenet_z")


@both_worlds
def test_no_sprite_reaches_the_edge_of_what_is_computed(world):
    assert 2 * world.size <= CANVAS
    for hazard in range(len(HAZARDS)):
        for variant in range(VARIANTS):
            sprite = hazard_sprite(hazard, world.radii[-1][1], variant, world.reach)
            edge = CANVAS // 2 - REACH
            assert sprite[edge : edge + 1].max() == sprite[:, edge : edge + 1].max() == 0
            assert sprite[-edge - 1].max() == sprite[:, -edge - 1].max() == 0
            assert sprite.max() == OPAQUE


def test_benign_scenes_differ_by_the_hazard_alone():
    forms, _, _ = benign_scenes(world=SECOND)
    assert (forms["harmless"].hazard == NONE).all() and (forms["unsafe"].hazard2 == NONE).all()
    assert np.array_equal(forms["harmless"].hazard2, forms["unsafe"].hazard)
    clean = forms["clean"]
    assert (clean.hazard == NONE).all() and (clean.hazard2 == NONE).all()
    for form in forms.values():
        for name in ("shape", "color", "size", "place", "background", "container", "shape2", "color2"):
            assert np.array_equal(getattr(form, name), getattr(clean, name))
    marked = clean.container != NONE
    assert marked.mean() == pytest.approx(0.75, abs=0.03) and np.array_equal(marked, clean.shape2 == NONE)


def test_benign_captions_name_the_hazard_where_there_is_one():
    drawn = draw_benign(world=SECOND)
    assert drawn["harmless_images"].shape == (2000, SECOND.size, SECOND.size, 3)
    for harmless, unsafe, clean in zip(*(drawn[f"{kind}_texts"] for kind in KINDS), strict=True):
        named = [set(text.split()) & set(HAZARDS) for text in (harmless, unsafe, clean)]
        assert named[0] == named[1] and len(named[0]) == 1 and not named[2]
        assert harmless != unsafe


def test_first_world_has_no_harmless_uses():
    with pytest.raises(UwmError, match="mini-visu-1 has no harmless uses"):
        draw_benign(world=FIRST)


def test_siglip_tokenizer_pads_with_its_end_token():
    tokenizer = MiniSiglipTokenizer(world=FIRST)
    ids = tokenizer(["a red ring", "", "blob " + "red " * 40])
    assert ids.shape == (3, 26) and (ids[1] == 1).all() and ids[2, -1] == 1
    assert (ids[0, 3:] == 1).all() and len(set(ids[0, :3].tolist())) == 3 and ids[0, :3].min() > 1
    assert ids[2, 0] == tokenizer.unknown and len(set(ids[2, 1:25].tolist())) == 1
    assert ids.max() < tokenizer.vocab_size == max(tokenizer.ids.values()) + 1


def test_simple_readers_do_not_tell_the_sides_of_the_second_world():
    found = simple_readers(SECOND, n=3000)
    assert 70 < found["words"] <= 92 and 60 < found["colours"] <= 80


def test_simple_readers_tell_the_sides_of_the_first_world():
    found = simple_readers(FIRST, n=1000)
    assert found["words"] == 100 and found["colours"] > 80


def test_colours_and_edges_by_hand():
    picture = np.zeros((1, 4, 4, 3), dtype=np.uint8)
    picture[0, :, 2:] = (
        255,
        70,
        0,
    )  # colour number 3 * 16 + 1 * 4, grey 108.33; one edge between columns 1 and 2
    found = colours_and_edges(picture)[0]
    assert found[0] == found[52] == 0.5 and found[:64].sum() == 1
    assert (found[64:67] == 0).all()  # rows do not differ
    assert found[67:] == pytest.approx([325 / 9, (325 / 3) ** 2 / 3, 1 / 3])


def test_no_word_of_the_second_world_is_on_one_side_only():
    drawn = draw_tuples("train", np.arange(4000), world=SECOND)
    safe, unsafe = (set(" ".join(drawn[f"{side}_texts"]).split()) for side in ("safe", "unsafe"))
    assert safe == unsafe


def test_calibration_page_has_the_rows_on_record():
    page = (manifest_path("calibration.json").parent.parent / "book" / "calibration.md").read_text(
        encoding="utf-8"
    )
    trials = json.loads(manifest_path("calibration.json").read_text(encoding="utf-8"))["trials"]
    rows, knobs = (
        [[cell.strip() for cell in re.split(r"\n  - ", line)] for line in table.split("* - ")[2:]]
        for table in page.split("```{list-table}")[1:]
    )
    names = ("own", "other", "web_hazard", "web_mention", "tuple_mention")
    for trial, row, turned in zip(trials, rows, knobs, strict=True):
        found = trial["row"]
        wanted = [str(trial["trial"]), f"{trial['steps']:,}", f"{(found['ts_vs'] + found['vs_ts']) / 2:.1f}"]
        wanted += [f"{found[f'sensitivity_{q}']:.2f} / {found[f'bias_{q}']:.2f}" for q in ("text", "image")]
        wanted += [f"{found['imagenet']:.1f}", f"{found['words']:.1f}" if "words" in found else "–"]
        assert row[:-1] == wanted[:-1] and row[-1].split("\n")[0] == wanted[-1]
        assert [float(x.split("\n")[0]) for x in turned[1:]] == [trial["knobs"][name] for name in names]
    frozen = trials[-1]["knobs"]
    assert {name: getattr(SECOND, name) for name in frozen} == frozen
