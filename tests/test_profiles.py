"""Profiles: which models, data, sets and scorers a chapter gets, and what one's own parts replace."""

from __future__ import annotations

import json

import numpy as np
import pytest
from PIL import Image

import uwmlib as uwm
from uwmlib.captions import load_judge
from uwmlib.manifests import manifest_path
from uwmlib.mini.zero_shot_sets import NAMES
from uwmlib.paper import paper_table
from uwmlib.profiles import Source
from uwmlib.zero_shot import manifest_set, paper_templates


def test_profiles():
    mini = uwm.profile("mini")
    assert (mini.base_model, mini.data, mini.judge) == ("mini-ViT-L-14", "mini-visu", "lexicon")
    assert uwm.profile("mini", base_model="other", data="").base_model == "other"
    assert uwm.profile("paper", data="pairs.jsonl").safe_weights.endswith("safeclip_vit-l_14")
    assert uwm.profile("paper", data="pairs.jsonl", safe_model="open_clip:ViT-B-32").safe_weights == ""
    assert mini.load_safe().name == "mini-Safe-CLIP"
    with pytest.raises(uwm.UwmError, match="withheld"):
        uwm.profile("paper")
    with pytest.raises(uwm.UwmError, match="did you mean 'mini'"):
        uwm.profile("mimi")


def test_the_profile_of_a_chapters_parameters_has_every_part_that_they_replace():
    parts = {"base_model": "hf:a", "safe_model": "hf:b", "safe_weights": "c", "data": "d.csv"}
    found = uwm.profile_of({"profile": "paper", **parts, "tau": 0.02, "seed": 0, "judge": "replay:e"})
    assert found == uwm.profile("paper", **parts, judge="replay:e")
    assert (found.safe_model, found.safe_weights, found.judge) == ("hf:b", "c", "replay:e")


def test_benign_uses_and_zero_shot_sets_go_with_the_data():
    mini, first, own = (uwm.profile("mini", data=data) for data in ("mini-visu", "mini-visu-1", "d.csv"))
    assert (mini.benign, first.benign, own.benign) == ("mini-visu", "", "")
    assert first.load_benign() is None and len(mini.load_benign(n=3)) == 3
    assert uwm.profile("mini", data="d.csv", benign="b.csv").benign == "b.csv"
    sizes = {each.data: each.load_zero_shot()["dtd"].images.shape[1] for each in (mini, first, own)}
    assert sizes == {"mini-visu": 60, "mini-visu-1": 48, "d.csv": 60}


def test_tuples_of_a_profile_are_as_many_as_there_are_at_most(tmp_path):
    captions = [f"a house {i}" for i in range(12)]
    Image.new("RGB", (4, 4)).save(tmp_path / "x.png")
    lines = [f"x.png,x.png,{text},bad,{'train' if i < 10 else 'test'}" for i, text in enumerate(captions)]
    header = "safe_image,unsafe_image,safe_text,unsafe_text,split"
    (tmp_path / "pairs.csv").write_text("\n".join([header, *lines]) + "\n", encoding="utf-8")
    setup = uwm.profile("paper", data=str(tmp_path / "pairs.csv"))
    assert setup.load_tuples("train").safe_texts == captions[:10]
    assert setup.load_tuples("test", n=0, seed=3).safe_texts == captions[10:]
    drawn = setup.load_tuples("train", n=6, seed=3).safe_texts
    assert drawn == uwm.load_tuples(setup.data, split="train", n=6, seed=3).safe_texts != captions[:6]
    assert sorted(setup.load_tuples("train", n=11, seed=3).safe_texts) == sorted(captions[:10])


@pytest.mark.parametrize(("name", "parts"), [("mini", {"foo": "x"}), (None, {})])
def test_unknown_profiles_and_parts_are_refused(name, parts):
    with pytest.raises(uwm.UwmError, match="no part|no profile"):
        uwm.profile(name, **parts)


def test_rows_of_tables_4_and_5_are_replaced_one_by_one_and_keep_their_order():
    text = "CoCa = open_clip:coca_ViT-B-32 | coca.safetensors; SigLIP=hf:google/siglip-base-patch16-224;"
    own = uwm.profile("mini", architectures=text, llavas="LLaVA=hf:a||b")
    mini = uwm.profile("mini")
    assert own.architectures["CoCa"] == Source("open_clip:coca_ViT-B-32", "coca.safetensors")
    assert own.architectures["SigLIP"] == Source("hf:google/siglip-base-patch16-224")
    assert own.llavas["LLaVA"] == Source("hf:a", "", "b")
    assert list(own.architectures) == list(mini.architectures)
    assert own.architectures["ViT-B16"] == mini.architectures["ViT-B16"]


@pytest.mark.parametrize(
    "text", ["Koka=hf:a", "CoCa", "CoCa=", "CoCa=a|b|c|d", "=hf:a", "hf:a|b", "CoCa=a;CoCa=b", {"CoCa": "a"}]
)
def test_rows_that_cannot_be_read_are_refused(text):
    with pytest.raises(uwm.UwmError, match="architectures"):
        uwm.profile("mini", architectures=text)


def test_the_sets_of_a_profile(tmp_path, monkeypatch):
    monkeypatch.delenv("UWM_DATA", raising=False)
    assert tuple(uwm.profile("mini").load_zero_shot()) == NAMES
    assert uwm.profile("paper", data="x.csv").load_zero_shot() == {}
    write_set(tmp_path / "zero_shot", "dtd", ["dotted", "striped"])
    assert list(uwm.profile("mini", zero_shot=str(tmp_path / "zero_shot")).load_zero_shot()) == ["dtd"]
    monkeypatch.setenv("UWM_DATA", str(tmp_path))
    (found,) = uwm.profile("paper", data="x.csv").load_zero_shot().values()
    assert found.prompts == ["a photo of a dotted texture.", "a photo of a striped texture."]
    with pytest.raises(uwm.UwmError, match="no folder"):
        uwm.profile("mini", zero_shot=str(tmp_path / "nowhere")).load_zero_shot()


def test_scorers_are_those_that_are_named():
    assert uwm.profile("paper", data="x.csv").load_scorers() == {"judge": None, "toxicity": None}
    mini = uwm.profile("mini").load_scorers()
    assert "lexicon" in mini["judge"].name and "mini" in mini["toxicity"].name
    with pytest.raises(uwm.UwmError, match="'paper' has no words for the judge 'lexicon'"):
        uwm.profile("paper", data="x.csv", judge="lexicon")
    with pytest.raises(uwm.UwmError, match="'lexicon' has no words here"):
        load_judge("lexicon")


def test_the_papers_sets_are_the_columns_of_its_table_2():
    assert list(paper_templates()) == [name for name in paper_table(2).columns if name != "zs_mean"]
    assert all(template.count("{}") == 1 for template in paper_templates().values())
    entries = json.loads(manifest_path("zero_shot_sets.json").read_text(encoding="utf-8"))
    assert all(entry["images"] for entry in entries.values())


# Sets from a manifest


def write_set(folder, name, labels, *, column="label", facts=None, suffix=".csv"):
    """One image a label, whose pixels are its row number."""
    folder.mkdir(parents=True, exist_ok=True)
    lines = [f"image,{column}"]
    for i, label in enumerate(labels):
        Image.fromarray(np.full((4, 4, 3), i, np.uint8)).save(folder / f"{name}-{i}.png")
        lines.append(f"{name}-{i}.png,{label}")
    (folder / f"{name}{suffix}").write_text("\n".join(lines) + "\n", encoding="utf-8")
    if facts is not None:
        text = facts if isinstance(facts, str) else json.dumps(facts)
        (folder / f"{name}.json").write_text(text, encoding="utf-8")
    return folder / f"{name}{suffix}"


def test_a_manifest_gives_images_labels_and_classes(tmp_path):
    data = manifest_set("birds", write_set(tmp_path, "birds", ["owl", "hen", "owl"]), template="a {}.")
    assert data.classes == ("hen", "owl") and data.labels.tolist() == [1, 0, 1]
    assert data.prompts == ["a hen.", "a owl."]
    assert [np.asarray(image)[0, 0, 0] for image in data.images[:]] == [0, 1, 2]
    assert data.chance == pytest.approx(200 / 3)


def test_classes_named_beside_the_manifest_keep_their_order_and_may_share_a_name(tmp_path):
    facts = {"classes": ["crane", "owl", "crane", "2"], "template": "see {}", "about": "birds and machines"}
    data = manifest_set("b", write_set(tmp_path, "b", ["0", "owl", "3"], facts=facts), template="a {}.")
    # Only a number tells the two cranes apart, and "2" could be the second of them or the last class.
    assert data.labels.tolist() == [0, 1, 3] and data.prompts[2] == "see crane"
    with pytest.raises(uwm.UwmError, match="'2' in row 1 .* name of one class and the number of another"):
        manifest_set("d", write_set(tmp_path, "d", ["2"], facts=facts), template="a {}.")
    with pytest.raises(uwm.UwmError, match="'crane' in row 2 .* is the name of two classes"):
        manifest_set("c", write_set(tmp_path, "c", ["0", "crane"], facts=facts), template="a {}.")


@pytest.mark.parametrize(
    ("labels", "facts", "words"),
    [
        (["owl"], {"classes": ["hen"]}, "is none of the 1 classes"),
        (["1"], {"classes": ["hen"]}, "is none of the 1 classes"),
        (["-1"], {"classes": ["hen"]}, "is none of the 1 classes"),
        (["owl"], {"classes": []}, "no list of names"),
        (["owl"], {"classes": "owl"}, "no list of names"),
        (["owl"], {"classes": ["owl", 3]}, "no list of names"),
        (["owl"], {"classes": ["owl", " "]}, "Class 1 of x has no name"),
        (["owl"], {"template": "a photo"}, "one {}"),
        (["owl"], {"template": "{} and {}"}, "one {}"),
        (["owl"], {"template": "{} {0}"}, "one {}"),
        (["owl"], {"template": 3}, "one {}"),
        (["owl"], {"about": 3}, "about the set is no text"),
        (["owl"], {"clases": ["owl"]}, "'clases'"),
        (["owl"], ["owl"], "no object"),
        (["owl"], "{", "no JSON file"),
        (["owl"], "[" * 100_000, "no JSON file"),
    ],
)
def test_a_set_that_cannot_be_used_is_refused(tmp_path, labels, facts, words):
    with pytest.raises(uwm.UwmError, match=words):
        manifest_set("x", write_set(tmp_path, "x", labels, facts=facts), template="a {}.")


def test_a_missing_image_and_a_set_that_is_there_twice_are_refused(tmp_path):
    manifest = write_set(tmp_path, "x", ["owl"])
    write_set(tmp_path, "x", ["owl"], suffix=".jsonl")
    with pytest.raises(uwm.UwmError, match="holds x twice"):
        uwm.load_zero_shot(tmp_path)
    (tmp_path / "x-0.png").unlink()
    with pytest.raises(uwm.UwmError, match="image in row 1 .* does not exist"):
        manifest_set("x", manifest, template="a {}.")


def test_accuracy_on_ones_own_files_is_that_of_the_same_pictures_as_an_array(tmp_path):
    vlm = uwm.load_model("mini-ViT-B-32")
    drawn = uwm.zero_shot_set("dtd")
    for i in range(20):
        Image.fromarray(drawn.images[i]).save(tmp_path / f"{i}.png")
    rows = [json.dumps({"image": f"{i}.png", "label": drawn.classes[drawn.labels[i]]}) for i in range(20)]
    (tmp_path / "dtd.jsonl").write_text("\n".join(rows), encoding="utf-8")
    facts = json.dumps({"classes": list(drawn.classes)})
    (tmp_path / "dtd.json").write_text(facts, encoding="utf-8")
    (own,) = uwm.load_zero_shot(tmp_path).values()
    tuples = uwm.load_tuples("mini-visu", n=4)
    found = uwm.evaluate(vlm, tuples, zero_shot=[own]).zero_shot["dtd"]
    pixels = vlm.preprocess(drawn.images[:20])
    similar = vlm.encode_image(pixels) @ vlm.encode_text(vlm.tokenize(drawn.prompts)).T  # [20, C]
    assert found.items.tolist() == (similar.argmax(1).numpy() == drawn.labels[:20]).tolist()


def test_one_class_is_always_right_and_chance_says_so(tmp_path):
    data = manifest_set("x", write_set(tmp_path, "x", ["owl", "owl"]), template="a {}.")
    assert data.chance == 100


@pytest.mark.parametrize("parameters", [None, [], {}, {"tau": 0.02}])
def test_parameters_that_name_no_profile_are_refused(parameters):
    with pytest.raises(uwm.UwmError, match="in which 'profile' is named"):
        uwm.profile_of(parameters)
