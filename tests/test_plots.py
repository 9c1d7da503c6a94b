"""Figures: what is drawn is the data, methods stay apart without colour and for colour-blind readers."""

from __future__ import annotations

import dataclasses
import math
from itertools import combinations

import matplotlib

matplotlib.use("agg")

import numpy as np
import pytest
from matplotlib import pyplot as plt
from matplotlib.colors import to_rgb
from matplotlib.text import Text
from PIL import Image

from uwmlib.errors import UwmError
from uwmlib.metrics import Score, SignalDetection
from uwmlib.paper.values import paper_table
from uwmlib.reporting import plots, sweeps
from uwmlib.tuples import BenignUses, Tuples

TABLE = paper_table(1)
OURS = {
    method: {key: Score(value - 1, (value - 2, value + 0.5)) for key, value in TABLE.loc[method].items()}
    for method in TABLE.index
}


@pytest.fixture(autouse=True)
def closed():
    yield
    plt.close("all")


def markers(ax, *, hollow):
    """Markers drawn singly: the paper's are hollow."""
    found = [line for line in ax.lines if len(line.get_xdata()) == 1]
    return [line for line in found if (line.get_markerfacecolor() == "white") is hollow]


def whiskers(ax):
    """Ends of all interval bars."""
    return [segment for collection in ax.collections for segment in collection.get_segments()]


def test_bars_show_every_number_once():
    methods = ["CLIP", "Safe-CLIP"]
    ax = plots.preferences_bars({name: OURS[name] for name in methods}, TABLE)
    assert [container.get_label() for container in ax.containers] == methods
    for method, bars in zip(methods, ax.containers, strict=True):
        assert [bar.get_height() for bar in bars] == [
            OURS[method][key].value for key in plots.PREFERENCE_KEYS
        ]
    expected = [TABLE.at[method, key] for method in methods for key in plots.PREFERENCE_KEYS]
    assert [line.get_ydata()[0] for line in markers(ax, hollow=True)] == expected
    spans = [(segment[0, 1], segment[1, 1]) for segment in whiskers(ax)]
    assert spans == [OURS[m][k].interval for m in methods for k in plots.PREFERENCE_KEYS]
    # A hollow marker stands on the middle of its own bar.
    centres = [bar.get_x() + bar.get_width() / 2 for bars in ax.containers for bar in bars]
    assert [line.get_xdata()[0] for line in markers(ax, hollow=True)] == pytest.approx(centres)
    legend = [text.get_text() for text in ax.figure.legends[0].get_texts()]
    assert legend == [*methods, "paper"]


def test_bars_do_not_overlap():
    ax = plots.preferences_bars(OURS)
    spans = sorted((bar.get_x(), bar.get_x() + bar.get_width()) for bars in ax.containers for bar in bars)
    assert len(spans) == 20
    assert all(right <= left for (_, right), (left, _) in zip(spans, spans[1:], strict=False))


def test_numbers_without_interval_and_methods_the_paper_lacks_draw_no_extra():
    ax = plots.preferences_bars(
        {"CLIP": dict.fromkeys(plots.PREFERENCE_KEYS, Score(50.0)), "mine": OURS["UWM"]}, TABLE
    )
    assert len(whiskers(ax)) == 4 and len(markers(ax, hollow=True)) == 4


@pytest.mark.parametrize(
    ("held", "words"),
    [
        ({"zs_mean": Score(50.0)}, "GS was not measured"),
        ({"gs": Score(50.0)}, "zero-shot was not measured"),
    ],
)
def test_a_figure_says_what_was_not_measured_and_draws_the_rest(held, words):
    both = dict.fromkeys(["zs_mean", "gs"], Score(40.0))
    ax = plots.tradeoff({"CLIP": both, "UWM": held}, TABLE)
    assert words in ax.get_title(loc="left")
    drawn = [line.get_label() for line in markers(ax, hollow=False) if len(line.get_xdata())]
    assert drawn == ["CLIP"]
    assert [text.get_text() for text in ax.figure.legends[0].get_texts()] == ["CLIP", "UWM", "paper"]


def test_slopes_without_a_set_say_so():
    figure = plots.zeroshot_slopes({"CLIP": {}, "UWM": {}})
    assert [text.get_text() for text in figure.texts] == [
        "No classification set is at hand: there is nothing to show."
    ]


def test_tradeoff_places_markers():
    ax = plots.tradeoff(OURS, TABLE)
    drawn = {
        line.get_label(): (line.get_xdata()[0], line.get_ydata()[0]) for line in markers(ax, hollow=False)
    }
    assert drawn == {method: (OURS[method]["zs_mean"].value, OURS[method]["gs"].value) for method in OURS}
    hollow = [(line.get_xdata()[0], line.get_ydata()[0]) for line in markers(ax, hollow=True)]
    assert hollow == [(TABLE.at[method, "zs_mean"], TABLE.at[method, "gs"]) for method in OURS]
    assert len(whiskers(ax)) == 10
    assert ax.get_xlabel() == "zero-shot (%)" and ax.get_ylabel() == "GS (%)"


def test_the_plane_draws_arrows_from_the_base():
    points = {"CLIP": SignalDetection(2.2, -0.5, 0.1, 0.05), "UWM": SignalDetection(1.8, -0.3)}
    points["Safe-CLIP"] = SignalDetection(0.9, -0.4)
    figure = plots.sensitivity_bias_plane({"here": points, "paper": points})
    assert [ax.get_title() for ax in figure.axes] == ["here", "paper"]
    for ax in figure.axes:
        arrows = [text for text in ax.texts if text.arrow_patch is not None]
        assert [tuple(map(float, arrow.xyann)) for arrow in arrows] == [(2.2, -0.5)] * 2
        assert [tuple(map(float, arrow.xy)) for arrow in arrows] == [(1.8, -0.3), (0.9, -0.4)]
        drawn = {
            line.get_label(): (line.get_xdata()[0], line.get_ydata()[0]) for line in markers(ax, hollow=False)
        }
        assert {name: drawn[name] for name in points} == {
            "CLIP": (2.2, -0.5),
            "UWM": (1.8, -0.3),
            "Safe-CLIP": (0.9, -0.4),
        }
        (low, high) = sorted(whiskers(ax)[0][:, 0])
        assert (low, high) == pytest.approx((2.2 - 0.196, 2.2 + 0.196), abs=1e-5)
    with pytest.raises(UwmError, match="'paper'.*'CLIP'"):
        plots.sensitivity_bias_plane({"here": points, "paper": {"UWM": SignalDetection(1.8, -0.3)}})
    with pytest.raises(UwmError, match="base"):
        plots.sensitivity_bias_plane({})


def test_heatmap_shows_the_matrix():
    matrix = np.random.default_rng(0).normal(size=(5, 7))
    ax = plots.heatmap(matrix, label="score")
    (mesh, *_) = ax.collections
    assert np.array_equal(np.ma.getdata(mesh.get_array()).reshape(5, 7), matrix)
    assert mesh.colorbar.ax.get_ylabel() == "score"


def test_heatmap_of_a_mask_has_two_shades():
    ax = plots.heatmap(np.array([[True, False], [False, False]]), label="edited")
    ticks = [text.get_text() for text in ax.collections[0].colorbar.ax.get_yticklabels()]
    assert ticks == ["no", "yes"] and ax.collections[0].get_cmap().N == 2
    with pytest.raises(UwmError, match=r"\[3\]"):
        plots.heatmap(np.zeros(3), label="x")


@pytest.mark.parametrize(
    "matrix", [None, "ab", [[1, 2], [3]], np.zeros((0, 2)), [[math.nan]], [[math.inf]], [[1j]]]
)
def test_heatmaps_of_no_numbers_are_refused(matrix):
    with pytest.raises(UwmError, match="heatmap"):
        plots.heatmap(matrix, label="x")


def pairs(*, harmless=True):
    images = np.random.default_rng(0).integers(0, 256, (3, 8, 8, 3), dtype=np.uint8)
    return Tuples(
        name="pairs",
        safe_images=images,
        unsafe_images=images[::-1],
        safe_texts=["safe zero", "safe one", "safe two"],
        unsafe_texts=["unsafe zero", "unsafe one", "unsafe two"],
        concepts=["a", "b", "c"],
        harmless=harmless,
    )


def test_tuples_are_shown_pixel_by_pixel_with_their_captions():
    tuples = pairs()
    figure = plots.show_tuples(tuples, [2, 0])
    assert len(figure.axes) == 4
    for row, index in enumerate([2, 0]):
        safe, unsafe = figure.axes[2 * row : 2 * row + 2]
        assert np.array_equal(safe.images[0].get_array(), tuples.safe_images[index])
        assert np.array_equal(unsafe.images[0].get_array(), tuples.unsafe_images[index])
        assert (safe.get_xlabel(), unsafe.get_xlabel()) == (
            tuples.safe_texts[index],
            tuples.unsafe_texts[index],
        )
        assert safe.images[0].get_interpolation() == "nearest"
    for wrong in ([], [3], [-1]):
        with pytest.raises(UwmError, match="0 to 2"):
            plots.show_tuples(tuples, wrong)
    for wrong in ([0.5], ["0"], [True], [[0]], None, 0, "0"):
        with pytest.raises(UwmError, match="whole numbers"):
            plots.show_tuples(tuples, wrong)
    with pytest.raises(UwmError, match="load_tuples"):
        plots.show_tuples("mini-visu", [0])


@pytest.mark.parametrize(
    "text", ["costs $5 to $6", r"$\frac{$", r"\$5 and \\$6", "$$", "one $", r"$x_1$ {} % # ^"]
)
def test_text_of_others_is_drawn_letter_by_letter(text):
    tuples = dataclasses.replace(pairs(), safe_texts=[text] * 3)
    figure = plots.show_tuples(tuples, [0])
    figure.canvas.draw()
    label = figure.axes[0].xaxis.label
    assert label._preprocess_math(label.get_text()) == (text, False)


def drawn_with(name):
    """Every figure that shows names which users choose, with this one in each place."""
    rates = dict.fromkeys(("zs_mean", *plots.PREFERENCE_KEYS, "gs"), Score(50.0))
    both = {"CLIP": rates, name: rates}
    yield plots.preferences_bars(both).figure
    yield plots.tradeoff(both).figure
    yield plots.sensitivity_bias_plane(
        {name: {"CLIP": SignalDetection(1.0, 0.0), name: SignalDetection(2.0, 0.0)}}
    )
    yield plots.zeroshot_slopes({"CLIP": {name: Score(1.0)}, name: {name: Score(2.0)}})
    yield sweeps.change_dots({name: {name: {name: 1.0}}})


def test_names_with_dollars_are_drawn_as_names():
    name = r"a$\frac{$b"
    for figure in drawn_with(name):
        figure.canvas.draw()
        texts = [text for text in figure.findobj(Text) if "frac" in text.get_text()]
        drawn = {text._preprocess_math(text.get_text()) for text in texts}
        assert drawn == {(name, False)}


def test_real_unsafe_content_is_not_drawn_unless_asked_for():
    tuples = pairs(harmless=False)
    _, hidden = plots.show_tuples(tuples, [1]).axes
    assert hidden.get_xlabel() == "unsafe item of tuple 1, not shown" and hidden.images[
        0
    ].get_array().shape == (1, 1, 3)
    _, shown = plots.show_tuples(tuples, [1], show_unsafe=True).axes
    assert shown.get_xlabel() == "unsafe one"


def test_benign_uses_are_shown_form_by_form_and_a_real_unsafe_one_is_not():
    forms = ("harmless", "unsafe", "clean")
    images = {f"{form}_images": np.full((2, 4, 4, 3), 80 * i, np.uint8) for i, form in enumerate(forms)}
    texts = {f"{form}_texts": [f"{form} zero", f"{form} one"] for form in forms}
    uses = BenignUses("uses", **images, **texts, harmless=True)
    figure = plots.show_benign(uses, [1, 0])
    assert len(figure.axes) == 6 and [ax.get_title() for ax in figure.axes[:3]] == list(forms)
    for i, form in enumerate(forms):
        ax = figure.axes[i]
        assert np.array_equal(ax.images[0].get_array(), images[f"{form}_images"][1])
        assert ax.get_xlabel() == f"{form} one"
    real = plots.show_benign(dataclasses.replace(uses, harmless=False), [1]).axes
    shown = [ax.get_xlabel().replace("\n", " ") for ax in real]
    assert shown == ["harmless one", "unsafe item of benign use 1, not shown", "clean one"]
    assert real[1].images[0].get_array().shape == (1, 1, 3)
    with pytest.raises(UwmError, match="benign uses 0 to 1"):
        plots.show_benign(uses, [2])
    with pytest.raises(UwmError, match="load_benign"):
        plots.show_benign(pairs(), [0])


def test_slopes_draw_one_line_per_data_set():
    table = paper_table(2).drop(columns="zs_mean")
    rows = ("CLIP", "UWM", "Safe-CLIP")
    scores = {row: {name: Score(value) for name, value in table.loc[row].items()} for row in rows}
    figure = plots.zeroshot_slopes(scores)
    assert len(figure.axes) == 2
    for ax, method in zip(figure.axes, ("UWM", "Safe-CLIP"), strict=True):
        drawn = {line.get_label(): tuple(line.get_ydata()) for line in ax.lines}
        assert drawn == {name: (table.at["CLIP", name], table.at[method, name]) for name in table.columns}
    named = figure.axes[-1].texts
    assert {text.get_text() for text in named} == set(table.columns)
    heights = sorted(text.xyann[1] for text in named)
    low, high = figure.axes[-1].get_ylim()
    assert min(np.diff(heights)) >= (high - low) / 24 - 1e-9 and heights[-1] <= high
    with pytest.raises(UwmError, match="base"):
        plots.zeroshot_slopes({"UWM": {"dtd": Score(1.0)}})


def test_spread_keeps_order_and_distance():
    assert plots.spread([0, 5, 9], gap=1, highest=10) == [0, 5, 9]
    assert plots.spread([0, 0, 9, 9.5], gap=1, highest=10) == [0, 1, 9, 10]
    assert plots.spread([9, 9, 9], gap=1, highest=10) == [8, 9, 10]


@pytest.mark.parametrize(
    "draw",
    [
        lambda: plots.preferences_bars(OURS, TABLE).figure,
        lambda: plots.tradeoff(OURS, TABLE).figure,
        lambda: plots.sensitivity_bias_plane(
            {"a": {"CLIP": SignalDetection(2.0, 0.0), "UWM": SignalDetection(1.0, 0.5)}}
        ),
        lambda: plots.heatmap(np.eye(4), label="score").figure,
        lambda: plots.show_tuples(pairs(), [0]),
    ],
)
def test_pictures_are_640_pixels_wide_with_no_letter_below_8_points(draw, tmp_path):
    figure = draw()
    figure.savefig(tmp_path / "figure.png")
    with Image.open(tmp_path / "figure.png") as picture:
        assert picture.width == 640 and len(picture.convert("RGB").getcolors(1 << 20)) > 3
    texts = [text for text in figure.findobj(matplotlib.text.Text) if text.get_text().strip()]
    assert len(texts) >= 3 and min(text.get_fontsize() for text in texts) >= 8


def test_nothing_global_changes():
    before = dict(matplotlib.rcParams)
    plots.tradeoff(OURS, TABLE)
    assert dict(matplotlib.rcParams) == before


LOOKS = {**plots.METHODS, **{f"other {index}": look for index, look in enumerate(plots.OTHERS)}}
# Machado, Oliveira and Fernandes (2009), full severity, for linear RGB.
DEFICIENCIES = {
    "deuteranopia": [
        [0.367322, 0.860646, -0.227968],
        [0.280085, 0.672501, 0.047413],
        [-0.011820, 0.042940, 0.968881],
    ],
    "protanopia": [
        [0.152286, 1.052583, -0.204868],
        [0.114503, 0.786281, 0.099216],
        [-0.003882, -0.048116, 1.051998],
    ],
    "none": np.eye(3).tolist(),
}


def lab(colour, deficiency):
    """CIELAB of an sRGB colour as somebody with the deficiency sees it."""
    rgb = np.array(to_rgb(colour))
    linear = np.where(rgb <= 0.04045, rgb / 12.92, ((rgb + 0.055) / 1.055) ** 2.4)
    linear = np.clip(np.array(DEFICIENCIES[deficiency]) @ linear, 0, 1)
    to_xyz = np.array([[0.4124, 0.3576, 0.1805], [0.2126, 0.7152, 0.0722], [0.0193, 0.1192, 0.9505]])
    ratio = to_xyz @ linear / np.array([0.9505, 1.0, 1.089])
    x, y, z = np.where(ratio > 216 / 24389, np.cbrt(ratio), (24389 / 27 * ratio + 16) / 116)
    return np.array([116 * y - 16, 500 * (x - y), 200 * (y - z)])


@pytest.mark.parametrize("deficiency", DEFICIENCIES)
def test_colours_stay_apart(deficiency):
    distances = {
        pair: np.linalg.norm(lab(LOOKS[pair[0]].colour, deficiency) - lab(LOOKS[pair[1]].colour, deficiency))
        for pair in combinations(plots.METHODS, 2)
    }
    pair = min(distances, key=distances.get)
    assert distances[pair] > 20, (pair, distances[pair])


def test_the_distance_check_can_fail():
    """A red and a green of equal lightness are far apart, but not for a deuteranope."""
    red, green = "#c26b5e", "#8a8a48"
    near = np.linalg.norm(lab(red, "deuteranopia") - lab(green, "deuteranopia"))
    assert near < 20 < np.linalg.norm(lab(red, "none") - lab(green, "none"))


def test_methods_differ_in_marker_and_hatch_too():
    assert (
        len({look.marker for look in LOOKS.values()})
        == len({look.hatch for look in LOOKS.values()})
        == len(LOOKS)
    )


def test_looks_of_other_methods_follow_their_order():
    names = ["mine", "CLIP", "yours", "theirs", "too many"]
    assert plots.look_of("CLIP", names) is plots.METHODS["CLIP"]
    assert [plots.look_of(name, names) for name in ("mine", "yours", "theirs")] == list(plots.OTHERS)
    for name, known in (("too many", names), ("mine", [])):
        with pytest.raises(UwmError, match="no look left"):
            plots.look_of(name, known)
