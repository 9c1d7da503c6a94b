"""What a reader sees: the pages that `make book` built, and how they are mended and looked at.

Tests marked `site` look at the built book and run by `make pages`. Those that need a browser take the Chromium
on the PATH and are skipped where there is none.
"""

from __future__ import annotations

import importlib
import re
import shutil
from collections import Counter
from pathlib import Path

import pandas as pd
import pytest
import yaml
from accessible import accessible, mend_site
from axe_playwright_python.sync_playwright import Axe
from bs4 import BeautifulSoup
from playwright.sync_api import sync_playwright

import uwmlib
from uwmlib.reporting import SearchableTable

ROOT = Path(__file__).resolve().parents[1]
SITE = ROOT / "_build" / "site" / "_build" / "html"
FAULTS = (ROOT / "tests" / "page_faults.js").read_text(encoding="utf-8")
WIDE = {"viewport": {"width": 1400, "height": 900}}
PHONE = {"viewport": {"width": 390, "height": 844}, "is_mobile": True, "has_touch": True}
CHROMIUMS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome")
site = pytest.mark.site


def pages_of_the_book() -> list[str]:
    toc = yaml.safe_load((ROOT / "_toc.yml").read_text(encoding="utf-8"))
    return [toc["root"], *(chapter["file"] for part in toc["parts"] for chapter in part["chapters"])]


PAGES = [*pages_of_the_book(), "search", "genindex"]
every_page = pytest.mark.parametrize("name", PAGES)


@pytest.fixture(scope="module")
def chromium():
    path = next(filter(None, map(shutil.which, CHROMIUMS)), None)
    if path is None:
        pytest.skip(
            "No Chromium is on the PATH, so nobody looked at the pages: install one and run `make pages`."
        )
    # Hidden scroll bars would be missed by no reader but by this test.
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=path, args=["--disable-gpu"], ignore_default_args=["--hide-scrollbars"]
        )
        yield browser
        browser.close()


@pytest.fixture
def opened(chromium):
    """Open a page without a network; what it asked for outside is in `page.asked_outside`."""
    contexts = []

    def open_page(url: str, device: dict):
        contexts.append(chromium.new_context(**device))
        page = contexts[-1].new_page()
        page.asked_outside = []
        page.on("request", lambda request: note(page, request.url))
        page.goto(url)
        page.evaluate("window.MathJax?.startup?.promise")
        return page

    def note(page, url: str) -> None:
        # A page asks for files of its own at any time: Chromium fetches the icon last.
        if re.match("https?:|wss?:", url):
            page.asked_outside.append(url)

    yield open_page
    for context in contexts:
        context.close()


def built(name: str) -> Path:
    page = SITE / f"{name}.html"
    if not page.is_file():
        pytest.fail(f"{page} is missing: run `make book` first.")
    return page


def read(name: str) -> BeautifulSoup:
    return BeautifulSoup(built(name).read_text(encoding="utf-8"), "html.parser")


@site
@pytest.mark.parametrize("device", [WIDE, PHONE], ids=["1400", "390"])
@every_page
def test_nothing_is_cut(name, device, opened):
    page = opened(built(name).as_uri(), device)
    assert page.evaluate(FAULTS, {"strict": device is WIDE}) == []
    assert page.asked_outside == []


@site
@every_page
def test_one_search_box_and_no_serious_violation(name, opened):
    page = opened(built(name).as_uri(), WIDE)
    in_page = "main input"  # the search page has one of its own
    boxes = page.locator(f"input[type=search]:not({in_page}), .search-button-field, .search-button")
    assert sum(box.is_visible() for box in boxes.all()) == 1
    violations = Axe().run(page).response["violations"]
    serious = [violation for violation in violations if violation["impact"] in ("serious", "critical")]
    assert [(v["id"], node["html"]) for v in serious for node in v["nodes"]] == []


@site
@every_page
def test_pages_can_be_used_without_eyes_or_mouse(name):
    page = read(name)
    counts = Counter(tag["id"] for tag in page.find_all(id=True))
    assert [name for name, count in counts.items() if count > 1] == []
    assert [form for form in page.find_all("form") if not form.find(attrs={"type": "submit"})] == []
    assert page.find_all("th", scope=False) == []
    assert page.find_all("pre", tabindex=False) == []
    assert page.find_all("img", alt=False) == []


@site
def test_every_public_name_is_described_once():
    packages = (
        "metrics",
        "tuples",
        "zero_shot",
        "captions",
        "models",
        "editing",
        "training",
        "paper",
        "reporting",
    )
    described = [
        entry["id"]
        for page in ("api", "api_measuring", "api_editing", "api_results")
        for entry in read(f"book/{page}").select("dt.sig[id]")
    ]
    assert len(described) == len(set(described))
    wanted = {f"uwmlib.{name}" for name in uwmlib.__all__ if not name.startswith("__")}
    for package in packages:
        module = importlib.import_module(f"uwmlib.{package}")
        wanted |= {
            f"uwmlib.{package}.{name}"
            for name in module.__all__
            if getattr(module, name) is not getattr(uwmlib, name, None)
            # Constants, such as lists of keys, have no docstring to make a page from.
            and callable(getattr(module, name))
        }
    assert wanted - set(described) == set()


@site
@pytest.mark.parametrize("name", ["index", *PAGES])
def test_pages_have_an_icon(name):
    icon = read(name).find("link", rel="icon")
    assert (built(name).parent / icon["href"]).resolve().is_file()


def citations(name: str) -> list[tuple[str, str]]:
    """Return (entry, label) of every citation on a page."""
    links = read(name).select('article a[href*="references.html#"]')
    return [(link["href"].partition("#")[2], link.get_text()) for link in links]


@site
def test_citations_match_the_list_and_none_is_left_over():
    entries = read("book/references").select("div.citation")
    labels = {entry["id"]: entry.select_one(".label").get_text(strip=True).strip("[]") for entry in entries}
    cited = {citation for name in PAGES for citation in citations(name)}
    assert cited == set(labels.items())


@site
@every_page
def test_the_papers_tables_are_told_from_ours(name):
    article = read(name).find("article") or BeautifulSoup("", "html.parser")
    for code in article.find_all("pre"):
        code.decompose()
    text = re.sub(r"\s+", " ", article.get_text().replace("’", "'"))
    if name.startswith("book/api"):  # docstrings name the paper's alone, and the page says so at its top
        assert "Equations, sections, tables and figures named here are the paper's." in text
        return
    # Ours are numbered by chapter, as in "Table 4.7"; the paper's by whole numbers.
    theirs = re.finditer(r"(\S+ )?(Tables?|Figures?) \d+(?![\d.]*\d)", text)
    assert [found[0] for found in theirs if found[1] not in ("paper's ", "its ", "(its ")] == []


# The scoreboard: its script works without a network, and the table is whole without the script.
BOARD = "notebooks/23_scoreboard"
ROWS = "#scoreboard tbody tr"


def shown(page) -> int:
    return sum(row.is_visible() for row in page.locator(ROWS).all())


def told(page) -> str:
    return page.locator("#scoreboard output").inner_text()


@site
@pytest.mark.parametrize("device", [WIDE, PHONE], ids=["1400", "390"])
def test_the_scoreboard_is_searched_and_filtered(device, opened):
    page = opened(built(BOARD).as_uri(), device)
    assert (shown(page), told(page)) == (214, "214 of 214 shown")
    page.locator("#scoreboard input").fill("g-safe-clip mean")
    texts = [row.inner_text() for row in page.locator(ROWS).all() if row.is_visible()]
    assert texts and all("G-Safe-CLIP" in text and "mean" in text for text in texts)
    page.get_by_label("Word", exact=True).select_option("falsified")
    assert page.locator(f"{ROWS}:visible").count() == shown(page) == int(told(page).split()[0]) >= 1
    assert all("falsified" in row.inner_text() for row in page.locator(f"{ROWS}:visible").all())
    page.get_by_role("button", name="Show all").click()
    page.get_by_label("Table", exact=True).select_option("Tab. 8")
    assert 0 < shown(page) < 214
    assert page.asked_outside == []


@site
def test_the_scoreboard_is_whole_without_its_script(chromium):
    context = chromium.new_context(java_script_enabled=False, **WIDE)
    page = context.new_page()
    page.goto(built(BOARD).as_uri())
    assert page.locator(f"{ROWS}:visible").count() == 214
    assert not page.locator(".searchable-controls").is_visible()
    context.close()


def test_rows_are_found_as_they_are_typed(tmp_path, opened):
    claims = [r"$P_u^t$ rises by −1.5", "GS falls", r"$\mathrm{Txt}_s$ falls"]
    frame = pd.DataFrame({"claim": claims}, index=pd.Index(["C1", "C2", "C3"], name="id"))
    choices = {"Table": ["Tab. 1; Tab. 3", "Tab. 3", "Tab. 30"]}
    table = SearchableTable(frame, "Claims.", "tab-x", choices).to_html()
    script = (ROOT / "book" / "_static" / "searchable.js").read_text(encoding="utf-8")
    (tmp_path / "x.html").write_text(f"<meta charset=utf-8><main>{table}</main><script>{script}</script>")
    page = opened((tmp_path / "x.html").as_uri(), WIDE)

    def found(words: str = "", choice: str = "") -> list[str]:
        page.get_by_label("Search").fill(words)
        page.get_by_label("Table", exact=True).select_option(choice)
        return [row.get_attribute("id")[-2:] for row in page.locator("tbody tr:visible").all()]

    assert found() == ["C1", "C2", "C3"]
    assert found("P_u^t") == found("put") == found("-1.5") == ["C1"]
    assert found("FALLS") == ["C2", "C3"] and found("falls gs") == ["C2"] and found("Txt_s") == ["C3"]
    assert found("", "Tab. 3") == ["C1", "C2"] and found("falls", "Tab. 3") == ["C2"]
    assert found("nothing") == [] and page.locator("output").inner_text() == "0 of 3 shown"
    page.get_by_role("button").press("Enter")  # by keyboard
    assert page.locator("tbody tr:visible").count() == 3


# How pages are looked at: one hand-made page for each way to be cut.
TABLE = "<table><caption>{words}</caption><tr>" + "<td>{words}</td>" * 9 + "</tr></table>"
STAYS = (
    "caption, td:first-child {{ position: sticky; left: 0; z-index: 1; background: white; max-width: 150px }}"
)
BAR = "::-webkit-scrollbar {{ height: 8px }}"
SMALL = {"viewport": {"width": 390, "height": 844}}


def tiny_page(tmp_path: Path, body: str, css: str = "") -> str:
    words = "some words that are not few"
    nowrap = (
        "* {{ white-space: nowrap }} body {{ margin: 0 }} caption, td:first-child {{ white-space: normal }}"
    )
    page = f"<style>{nowrap} {css}</style><main><article style='width: 380px'>{body}</article></main>"
    path = tmp_path / "tiny.html"
    path.write_text(
        "<!doctype html><meta name=viewport content='width=device-width'>" + page.format(words=words)
    )
    return path.as_uri()


@pytest.mark.parametrize(
    ("fault", "body", "css"),
    [
        ("cut by its box", "<div style='overflow: hidden'>{words} {words} {words}</div>", ""),
        ("wider than its column", "<p>{words} {words} {words}</p>", ""),
        ("wider than its column", "<div style='width: 385px'>x</div>", ""),
        ("the page itself scrolls sideways", "<div style='width: 400px'>x</div>", ""),
        ("scrolls, but not by keyboard", "<div style='overflow: auto'>{words} {words} {words}</div>", BAR),
        (
            "scrolls without a bar in sight",
            "<pre tabindex=0 style='overflow: auto'>{words} {words} {words}</pre>",
            "",
        ),
        ("first column out of view", f"<div tabindex=0 style='overflow: auto'>{TABLE}</div>", BAR),
        (
            "caption out of view",
            f"<div tabindex=0 style='overflow: auto'>{TABLE}</div>",
            BAR + STAYS.replace("caption, ", ""),
        ),
        (
            "first column covered",
            f"<div tabindex=0 style='overflow: auto'>{TABLE}</div>",
            BAR + STAYS.replace("z-index: 1", "z-index: -1"),
        ),
        (
            "first column leaves no room",
            f"<div tabindex=0 style='overflow: auto'>{TABLE}</div>",
            BAR + STAYS + "td:first-child {{ min-width: 300px }}",
        ),
        ("text too small", "<table style='font-size: 9px'><tr><td>x</td></tr></table>", ""),
        (
            "to be scrolled sideways",
            "<mjx-container tabindex=0 style='display: block; overflow: auto'>{words} {words} {words}</mjx-container>",
            BAR,
        ),
    ],
)
def test_what_is_cut_is_found(fault, body, css, tmp_path, opened):
    page = opened(tiny_page(tmp_path, body, css), PHONE)
    assert fault in {kind for kind, _ in page.evaluate(FAULTS, {"strict": False})}


@pytest.mark.parametrize("folded", ["<details>{}</details>", "<div class='toggle-hidden'>{}</div>"])
def test_folded_parts_are_looked_at(folded, tmp_path, opened):
    body = folded.format("<p>{words} {words} {words}</p>")
    page = opened(tiny_page(tmp_path, body, ".toggle-hidden p {{ display: none }}"), PHONE)
    assert page.evaluate(FAULTS, {"strict": False}) != []


def test_a_table_that_says_how_it_scrolls_is_no_fault_on_a_phone_only(tmp_path, opened):
    page = opened(
        tiny_page(tmp_path, f"<div tabindex=0 style='overflow: auto'>{TABLE}</div>", BAR + STAYS), PHONE
    )
    assert page.evaluate(FAULTS, {"strict": False}) == []
    assert {kind for kind, _ in page.evaluate(FAULTS, {"strict": True})} == {"to be scrolled sideways"}


def test_a_page_is_mended_once():
    page = """<html><body><form><i class="glass"></i><input name="q"/></form>
<form><button type="submit"></button></form>
<div id="a"></div><div id="a"></div><div id="a-2"></div><a href="#a">x &amp; y</a>
<table><thead><tr><th>n</th></tr></thead><tbody><tr><th>1</th><th scope="colgroup">2</th></tr></tbody></table>
<pre>a  &lt; b
  c</pre><div role="doc-biblioentry"></div><script>if (a < b && c) {}</script></body></html>"""
    mended = accessible(page)
    soup = BeautifulSoup(mended, "html.parser")
    assert [tag["id"] for tag in soup.find_all("div", id=True)] == ["a", "a-3", "a-2"]
    assert [head["scope"] for head in soup.find_all("th")] == ["col", "row", "colgroup"]
    assert [len(form.find_all("button", type="submit")) for form in soup.find_all("form")] == [1, 1]
    assert soup.find("button").find("i") and soup.find("button")["aria-label"] == "Search"
    assert '<pre tabindex="0">a  &lt; b\n  c</pre>' in mended
    assert 'role="listitem"' in mended and "x &amp; y" in mended
    assert "<script>if (a < b && c) {}</script>" in mended
    assert accessible(mended) == mended


def test_the_index_page_leads_on_and_has_an_icon(tmp_path):
    (tmp_path / "_static").mkdir()
    (tmp_path / "_static" / "theme.html").write_text("<pre></pre>")
    (tmp_path / "index.html").write_text('<meta http-equiv="Refresh" content="0; url=book/intro.html" />\n')
    for _ in range(2):
        mend_site(tmp_path)
        soup = BeautifulSoup((tmp_path / "index.html").read_text(), "html.parser")
        assert soup.find("meta", attrs={"http-equiv": "Refresh"})["content"] == "0; url=book/intro.html"
        assert len(soup.find_all("link", rel="icon")) == 1 and soup.html["lang"] == "en"
    assert (tmp_path / "_static" / "theme.html").read_text() == "<pre></pre>"
