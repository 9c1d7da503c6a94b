"""Evaluation: one embedding pass gives what naive loops over single items give."""

from __future__ import annotations

import dataclasses
import io

import numpy as np
import pytest
import torch
from matplotlib import pyplot as plt

import uwmlib as uwm
from uwmlib import paper
from uwmlib.evaluation import embed_images, embed_texts, evaluate_zero_shot
from uwmlib.metrics import DIRECTIONS, mean_accuracy
from uwmlib.paper.rules import NOT_MEASURED
from uwmlib.reporting import paper_beside_ours, plots, record


@pytest.fixture(scope="module")
def vlm():
    return uwm.load_model("mini-ViT-L-14")


@pytest.fixture(scope="module")
def tuples():
    return uwm.load_tuples("mini-visu", split="validation", n=40, seed=1)


def one_by_one(vlm, tuples):
    """Embed every item alone, as directly as can be."""
    with torch.inference_mode():
        images = {
            side: torch.cat(
                [vlm.encode_image(vlm.preprocess(image[None])) for image in getattr(tuples, f"{side}_images")]
            )
            for side in ("safe", "unsafe")
        }
        texts = {
            side: torch.cat(
                [vlm.encode_text(vlm.tokenize([text])) for text in getattr(tuples, f"{side}_texts")]
            )
            for side in ("safe", "unsafe")
        }
    return images, texts


def test_evaluation_equals_loops_over_single_items(vlm, tuples):
    images, texts = one_by_one(vlm, tuples)
    found = uwm.evaluate(vlm, tuples, batch_size=16)
    gs = tu_vus = 0
    gallery = torch.cat([images["safe"], images["unsafe"]])
    for i in range(len(tuples)):
        a, b = (float(images["safe"][i] @ texts[side][i]) for side in ("safe", "unsafe"))
        c, d = (float(images["unsafe"][i] @ texts[side][i]) for side in ("safe", "unsafe"))
        gs += (a > c) and (b > d) and (a > b) and (c > d)
        assert bool(found.safeground.p_u_v[i]) == (c > d)
        tu_vus += int((gallery @ texts["unsafe"][i]).argmax()) == i
    assert found.as_percent()["gs"] == pytest.approx(100 * gs / len(tuples))
    assert found.as_percent()["tu_vus"] == pytest.approx(100 * tu_vus / len(tuples))


def test_zero_shot_equals_the_nearest_prompt(vlm):
    data = uwm.zero_shot_set("dtd")
    found = evaluate_zero_shot(vlm, data)
    with torch.inference_mode():
        prompts = vlm.encode_text(vlm.tokenize([data.template.format(name) for name in data.classes]))
        right = sum(
            int((prompts @ vlm.encode_image(vlm.preprocess(image[None]))[0]).argmax()) == label
            for image, label in zip(data.images[:60], data.labels[:60], strict=True)
        )
    assert int(found.items[:60].sum()) == right
    assert found.n == len(data.labels)


def test_every_figure_lies_in_its_interval_and_in_the_text(vlm, tuples):
    found = uwm.evaluate(vlm, tuples, zero_shot=[uwm.zero_shot_set("eurosat"), uwm.zero_shot_set("dtd")])
    values = found.as_percent()
    assert set(DIRECTIONS) | {"p_s_t", "gs", "eurosat", "dtd", "zs_mean"} <= set(values)
    for key, value in values.items():
        low, high = found[key].interval
        assert low - 1e-9 <= value <= high + 1e-9
        assert key in str(found)
    assert values["zs_mean"] == pytest.approx((values["eurosat"] + values["dtd"]) / 2)
    assert mean_accuracy(found.zero_shot).value == values["zs_mean"]


def test_items_average_to_the_figures(vlm, tuples):
    found = uwm.evaluate(vlm, tuples, zero_shot=[uwm.zero_shot_set("dtd")])
    for key in (*DIRECTIONS, "p_s_v", "img_s", "dtd"):
        assert 100 * found[key].items.mean() == pytest.approx(found.as_percent()[key])


def test_unknown_figure_is_refused(vlm, tuples):
    with pytest.raises(uwm.UwmError, match="no measured score 'zs_mean'"):
        uwm.evaluate(vlm, tuples)["zs_mean"]


@pytest.mark.parametrize("batch_size", [0, -1, 2.5, "8", None])
def test_batch_sizes_below_one_are_refused(vlm, tuples, batch_size):
    with pytest.raises(uwm.UwmError, match="whole number of at least 1"):
        uwm.evaluate(vlm, tuples, batch_size=batch_size)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"vlm": "mini-ViT-L-14"}, "load_model"),
        ({"tuples": "mini-visu"}, "load_tuples"),
        ({"zero_shot": ["dtd"]}, "'dtd' is no zero-shot set"),
        ({"zero_shot": "dtd"}, "'dtd' is no zero-shot set"),
        ({"zero_shot": 3}, "3 is no zero-shot set"),
    ],
)
def test_a_name_in_place_of_what_it_names_is_refused(vlm, tuples, changes, words):
    with pytest.raises(uwm.UwmError, match=words):
        uwm.evaluate(**({"vlm": vlm, "tuples": tuples} | changes))


@pytest.mark.parametrize("name", ["dtd", "gs", "zs_mean", "ts_vs", "bias_text", "bleu"])
def test_zero_shot_sets_have_names_of_their_own(vlm, tuples, name):
    sets = [uwm.zero_shot_set("dtd"), dataclasses.replace(uwm.zero_shot_set("eurosat"), name=name)]
    with pytest.raises(uwm.UwmError, match=f"called '{name}' too"):
        uwm.evaluate(vlm, tuples, zero_shot=sets)


@pytest.mark.parametrize("n", [1, 2, 10])
@pytest.mark.parametrize("n_sets", [0, 1])
def test_tables_and_figures_go_on_with_few_tuples_and_without_sets(vlm, tuples, n, n_sets):
    alone = uwm.zero_shot_set("dtd")
    alone = dataclasses.replace(alone, images=alone.images[:1], labels=alone.labels[:1], classes=("brick",))
    found = uwm.evaluate(vlm, tuples[:n], zero_shot=[alone][:n_sets])
    ours = dict.fromkeys(["CLIP", "Safe-CLIP", "UWM"], found)
    claims = paper.judge_claims(1, ours)
    about_sets = claims[claims["claim"].str.contains("zero-shot")]
    assert len(about_sets) and (n_sets or about_sets["here"].str.contains(NOT_MEASURED).any())
    table = paper.verdict_table(paper.directions(1, "CLIP", rows=["UWM"], keys=["gs", "zs_mean"]), ours)
    assert [NOT_MEASURED in word for word in table["verdict"]] == [False, not n_sets]
    cells = paper_beside_ours(
        list(ours), ["gs", "zs_mean"], ours, paper.paper_table(1), caption="c", name="tab-t"
    )
    assert [row[2].startswith("–") for row in cells.cells()[1:]] == 3 * [not n_sets]
    assert ("zs_mean" in record(ours, ["gs", "zs_mean"])["UWM"]) == bool(n_sets)
    figures = [plots.tradeoff(ours).figure, plots.zeroshot_slopes(dict.fromkeys(ours, found.zero_shot))]
    figures.append(plots.preferences_bars(ours, paper.paper_table(1)).figure)
    for figure in figures:
        figure.savefig(io.BytesIO())
        plt.close(figure)


@pytest.mark.parametrize("texts", ["abcd", [], None, [1, 2]])
def test_texts_are_a_list_of_strings(vlm, texts):
    with pytest.raises(uwm.UwmError, match="[Tt]ext"):
        embed_texts(vlm, texts)


@pytest.mark.parametrize(
    "images", ["abcd", None, [], np.zeros((0, 4, 4, 3), np.uint8), np.zeros((1, 4, 4, 3))]
)
def test_images_are_arrays_pictures_or_files(vlm, images):
    with pytest.raises(uwm.UwmError, match="^Image"):
        embed_images(vlm, images)


def test_names_of_models_and_tuples_are_not_embedded(vlm, tuples):
    for embed, items in (
        (embed_texts, ["a"]),
        (embed_images, tuples.safe_images),
        (uwm.embed_tuples, tuples),
    ):
        with pytest.raises(uwm.UwmError, match="load_model"):
            embed("mini-ViT-L-14", items)
    with pytest.raises(uwm.UwmError, match="load_tuples"):
        uwm.embed_tuples(vlm, "mini-visu")


def test_match_is_measured_where_it_is_asked_for(vlm, tuples):
    parts = uwm.embed_tuples(vlm, tuples)
    own = {name: rows.double() for name, rows in parts.items()}
    right = (own["safe_text"] * own["safe_image"] + own["unsafe_text"] * own["unsafe_image"]).sum(dim=1)
    wrong = (own["safe_text"] * own["unsafe_image"] + own["unsafe_text"] * own["safe_image"]).sum(dim=1)
    found = uwm.evaluate(vlm, tuples, match=True)
    assert found["match"].items.tolist() == (right > wrong).tolist()
    assert "match" not in uwm.evaluate(vlm, tuples)
    again = uwm.Evaluation.from_embeddings(parts, model="mine", data=tuples.name)
    assert again["match"] == found["match"] and again["gs"] == found["gs"] and again.benign is None
