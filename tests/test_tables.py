"""Tables: what a reader finds in the cells, in markdown as the book parses it and in HTML."""

from __future__ import annotations

from html.parser import HTMLParser

import docutils.nodes
import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from myst_parser.config.main import MdParserConfig
from myst_parser.parsers.docutils_ import Parser

from uwmlib.errors import UwmError
from uwmlib.metrics.catalogue import CATALOGUE
from uwmlib.metrics.retrieval import retrieval
from uwmlib.metrics.safeground import safeground
from uwmlib.metrics.score import UP_TO_ONE, Score, mean_of, share_of
from uwmlib.paper.values import paper_table
from uwmlib.reporting.tables import NBSP, Table, as_text, beside, paper_beside_ours, with_interval


def embeddings(n=50, seed=0):
    generator = torch.Generator().manual_seed(seed)
    names = ("safe_text", "unsafe_text", "safe_image", "unsafe_image")
    return {
        name: torch.nn.functional.normalize(torch.randn(n, 8, generator=generator), dim=1) for name in names
    }


def parse(markdown):
    """The docutils tree that MyST makes of a table, as in the book."""
    extensions = {"amsmath", "colon_fence", "dollarmath", "substitution"}
    settings = {"myst_enable_extensions": extensions, "report_level": 1, "halt_level": 2}
    assert MdParserConfig(enable_extensions=extensions).enable_extensions == extensions
    return docutils.core.publish_doctree(markdown, parser=Parser(), settings_overrides=settings)


def cells_of(tree):
    rows = tree.findall(docutils.nodes.row)
    return [[entry.astext() for entry in row.findall(docutils.nodes.entry)] for row in rows]


class Cells(HTMLParser):
    """Texts of the th and td elements of an HTML table, row by row."""

    def __init__(self, html):
        super().__init__()
        self.rows, self.inside = [], False
        self.feed(html)

    def handle_starttag(self, tag, attrs):
        if tag == "tr":
            self.rows.append([])
        if tag in ("td", "th"):
            self.inside = True
            self.rows[-1].append("")

    def handle_endtag(self, tag):
        self.inside = self.inside and tag not in ("td", "th")

    def handle_data(self, data):
        if self.inside:
            self.rows[-1][-1] += data


TRIAL = Table(
    pd.DataFrame({"$P_s^t$": [73.14, 50.0], "n": [5, 7], "note": ["a|b <i>", None]}, index=["CLIP", "UWM"]),
    "A trial of $x$.",
    "tab-trial",
)


def test_markdown_is_a_captioned_labelled_table():
    tree = parse(TRIAL.to_myst())
    (table,) = tree.findall(docutils.nodes.table)
    assert table["names"] == ["tab-trial"]
    (title,) = table.findall(docutils.nodes.title)
    assert title.astext() == "A trial of x."
    assert cells_of(tree) == [
        ["", "P_s^t", "n", "note"],
        ["CLIP", "73.1", "5", "a|b <i>"],
        ["UWM", "50.0", "7", "–"],
    ]
    assert len(list(table.findall(docutils.nodes.math))) == 2


def test_html_holds_the_same_cells_with_math_left_to_the_page():
    assert Cells(TRIAL.to_html()).rows == [
        ["", "$P_s^t$", "n", "note"],
        ["CLIP", "73.1", "5", "a|b <i>"],
        ["UWM", "50.0", "7", "–"],
    ]
    assert '<div style="overflow-x: auto" tabindex="0"><table>' in TRIAL.to_html()


@given(st.lists(st.text("ab|<>&*\\ \n", min_size=1).map(str.strip).filter(bool), min_size=1, max_size=4))
def test_html_round_trips_any_text(texts):
    table = Table(pd.DataFrame({"x": texts}), "c", "tab-x")
    assert [row[1] for row in Cells(table.to_html()).rows[1:]] == texts


HOSTILE = [
    "costs $5 to $6",
    "$x$ and $\\href{javascript:x}{y}$",
    "<img src=x onerror=alert(1)> &amp; <!-- c -->",
    "{{ secret }} {math}`x` {ref}`y`",
    "a|b `c` *d* **e** ~~f~~ _g_ [h](javascript:i) ![j](k) [^1] <http://l>",
    "back\\slash \\| \\$",
    "one\u2028two",
]


@pytest.mark.parametrize("text", HOSTILE)
def test_text_of_others_comes_out_letter_by_letter_in_markdown_and_html(text):
    shown = text.replace("\u2028", " ")
    table = Table(pd.DataFrame({text: [text]}, index=[text]), f"Of {as_text(text)}, $P_s^t$.", "tab-x")
    tree = parse(table.to_myst())
    assert cells_of(tree) == [["", shown], [shown, shown]]
    (title,) = tree.findall(docutils.nodes.title)
    assert title.astext() == f"Of {shown}, P_s^t."
    assert [math.astext() for math in tree.findall(docutils.nodes.math)] == ["P_s^t"]
    found = {type(node) for node in tree.findall()}
    assert not found & {
        docutils.nodes.raw,
        docutils.nodes.reference,
        docutils.nodes.image,
        docutils.nodes.literal,
    }
    assert Cells(table.to_html()).rows == [["", text], [text, text]]
    assert "$" not in table.to_html().split("<thead>")[1].replace("<span>$</span>", "")


@given(st.text("ab$|<>&*_`{}[]()!\\:^~# ", min_size=1).filter(lambda text: text == " ".join(text.split())))
def test_markdown_round_trips_any_text(text):
    tree = parse(Table(pd.DataFrame({"x": [text]}, index=["row"]), "c", "tab-x").to_myst())
    assert cells_of(tree)[1][1] == text


def test_symbols_stay_mathematics_beside_text():
    table = Table(pd.DataFrame({"$P_s^t$ of $5": ["$P_s^t$"]}, index=["$x$"]), "c", "tab-x")
    tree = parse(table.to_myst())
    assert [math.astext() for math in tree.findall(docutils.nodes.math)] == ["P_s^t", "P_s^t"]
    assert cells_of(tree) == [["", "P_s^t of $5"], ["$x$", "P_s^t"]]


def test_the_note_of_a_frame_is_printed_after_the_caption():
    frame = pd.DataFrame({"a": [1]})
    frame.attrs["note"] = "By a rule <of> ours."
    table = Table(frame[["a"]], "Trial.", "tab-x")
    assert table.to_myst().startswith(":::{table} Trial. By a rule \\<of> ours.\n")
    assert "Trial. By a rule &lt;of&gt; ours.</caption>" in table.to_html()
    frame.attrs["note"] = ""
    assert ">Trial.</caption>" in Table(frame, "Trial.", "tab-x").to_html()


def test_markup_in_a_caption_is_text_but_its_formulas_and_code_stay():
    table = Table(TRIAL.frame, "A <b>bold</b> {{ word }}, $a<b$ and `<c>`.", "tab-x")
    (title,) = parse(table.to_myst()).findall(docutils.nodes.title)
    assert title.astext() == "A <b>bold</b> {{ word }}, a<b and <c>."


def test_a_bundle_offers_markdown_html_and_text():
    bundle = TRIAL._repr_mimebundle_()
    assert set(bundle) == {"text/markdown", "text/html", "text/plain"}
    assert bundle["text/markdown"].startswith(":::{table} A trial")


def test_numbers_align_right_and_words_left():
    alignment = TRIAL.to_myst().splitlines()[4]
    assert alignment == "| :-- | --: | --: | :-- |"


@pytest.mark.parametrize(
    ("frame", "caption", "name", "hint"),
    [
        (TRIAL.frame, "c", "Tab 1", "label"),
        (TRIAL.frame, " ", "tab-x", "caption"),
        (TRIAL.frame, "two\nlines", "tab-x", "caption"),
        (TRIAL.frame.iloc[:0], "c", "tab-x", "empty"),
    ],
)
def test_tables_that_the_book_could_not_number_are_refused(frame, caption, name, hint):
    with pytest.raises(UwmError, match=hint):
        Table(frame, caption, name)


def test_cells():
    number = Score(12.34, (11.0, 13.58), n=10)
    assert with_interval(number) == f"12.3{NBSP}[11.0,{NBSP}13.6]"
    assert beside(number, 13.1) == f"12.3{NBSP}[11.0,{NBSP}13.6] (13.1)"
    assert beside(number, None) == f"12.3{NBSP}[11.0,{NBSP}13.6]"
    assert beside(number, float("nan")).endswith(" (–)")
    assert beside(None, 13.1) == "– (13.1)"
    assert beside(Score(5.0, unit=UP_TO_ONE), 13.1, UP_TO_ONE) == "5.00 (13.10)"


def test_paper_beside_ours_reads_the_metrics_and_the_paper():
    ground, keys = safeground(**embeddings()), ["p_s_t", "gs", "vs_ts", "zs_mean"]
    ranks = retrieval(**embeddings())
    ours = {"CLIP": {**ground, **ranks, "zs_mean": Score(71.0)}, "mine": ground}
    table = paper_beside_ours(
        ["CLIP", "UWM", "mine"], keys, ours, paper_table(1), caption="Trial.", name="tab-t"
    )
    assert list(table.frame.columns) == [CATALOGUE[key].label for key in keys]
    lo, hi = ground["p_s_t"].interval
    share = 100 * ground.p_s_t.double().mean()
    assert table.frame.iat[0, 0] == f"{share:.1f}{NBSP}[{lo:.1f},{NBSP}{hi:.1f}] (73.1)"
    assert table.frame.iat[0, 2].startswith(f"{ranks['vs_ts'].value:.1f}{NBSP}[")
    assert table.frame.iat[0, 3] == "71.0 (72.7)"
    assert list(table.frame.loc["UWM"]) == ["– (71.2)", "– (4.5)", "– (32.0)", "– (61.3)"]
    assert table.frame.loc["mine"].iloc[0].endswith("]") and table.frame.at["mine", "zero-shot"] == "–"
    assert table.caption == (
        "Trial. Each cell: measured here [95% interval] (printed in the paper), in percent. n = 50."
    )
    with pytest.raises(UwmError, match="CILP"):
        paper_beside_ours(["CLIP"], keys, {"CILP": ground}, paper_table(1), caption="Trial.", name="tab-t")


@pytest.mark.parametrize(
    ("keys", "unit"),
    [
        (["gs"], "in percent"),
        (["rouge_l", "bleu"], "from 0 to 1"),
        (["nsfw", "toxicity"], "in percent, toxicity as 100 times the mean score"),
        (["gs", "bias_text"], "in percent, $d'$ and $c$ in standard deviations"),
        (["toxicity", "meteor"], "toxicity as 100 times the mean score, caption scores from 0 to 1"),
    ],
)
def test_captions_name_every_unit(keys, unit):
    numbers = {key: Score(0.5, (0.25, 0.75), 9, CATALOGUE[key].unit) for key in keys}
    table = paper_beside_ours(["a"], keys, {"a": numbers}, pd.DataFrame(), caption="C.", name="tab-x")
    assert f"measured here [95% interval], {unit}." in table.caption
    two = {"rouge_l", "bleu", "meteor", "bias_text"}
    shown = table.frame.iloc[0]
    assert [cell.startswith("0.50") for cell in shown] == [key in two for key in keys]


def test_a_score_without_a_row_is_shown_in_its_own_unit_and_by_its_name():
    own = {"mine": mean_of(np.array([0.25, 0.75]), unit=UP_TO_ONE), "rate": share_of([True, False])}
    table = paper_beside_ours(["a"], ["mine", "rate"], {"a": own}, pd.DataFrame(), caption="C.", name="tab-x")
    assert list(table.frame.columns) == ["mine", "rate"]
    assert table.frame.at["a", "mine"].startswith("0.50") and table.frame.at["a", "rate"].startswith("50.0")
    assert "in percent, caption scores from 0 to 1" in table.caption


@pytest.mark.parametrize(
    ("changes", "words"),
    [({"frame": frame}, "DataFrame") for frame in (None, [[1]], {"a": [1]})]
    + [({"caption": caption}, "caption") for caption in (None, 3, " ", "a\nb", "a\rb", "a\u2028b")]
    + [({"name": name}, "label") for name in (None, 3, "", "A b", "tab-x\n")]
    + [({"digits": digits}, "whole number") for digits in (None, -1, 1.5, "1", True)],
)
def test_tables_of_other_kinds_are_refused(changes, words):
    with pytest.raises(UwmError, match=words):
        Table(**{"frame": TRIAL.frame, "caption": "c", "name": "tab-x"} | changes)


def test_cells_may_hold_anything():
    odd = [np.array([1, 2]), None, pd.NA, pd.NaT, float("inf"), {"a": 1}, (1, 2)]
    found = cells_of(parse(Table(pd.DataFrame({"x": odd}), "c", "tab-x").to_myst()))
    assert [cell for _, cell in found[1:]] == ["[1 2]", "–", "–", "–", "inf", "{'a': 1}", "(1, 2)"]
