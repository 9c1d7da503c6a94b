"""Mend what theme and extensions leave out of the built pages, for readers who do not see or do not point."""

from __future__ import annotations

import itertools
from pathlib import Path

from bs4 import BeautifulSoup, Tag

from uwmlib.files import write_text

# Jupyter Book writes an index page of one tag, which leads to the first page.
FRAME = """<!DOCTYPE html>
<html lang="en"><head><meta charset="utf-8"/><title>To the first page</title>
<link rel="icon" href="_static/favicon.svg"/>{}</head><body></body></html>
"""


def mend_site(site: Path) -> None:
    """Mend every page of the built book in the folder `site`; a second time changes nothing."""
    for page in sorted(site.rglob("*.html")):
        if "_static" not in page.relative_to(site).parts:
            text = page.read_text(encoding="utf-8")
            write_text(page, accessible(text if "<head" in text else FRAME.format(text.strip())))


def accessible(page: str) -> str:
    """Return an HTML page in which code can be reached, tables say what heads what, and ids are unique.

    Examples
    --------
    >>> accessible("<thead><th>n</th></thead><pre>code</pre>")
    '<thead><th scope="col">n</th></thead><pre tabindex="0">code</pre>'
    """
    soup = BeautifulSoup(page, "html.parser")
    for block in soup.find_all("pre"):
        block["tabindex"] = "0"  # a block that scrolls sideways has to scroll by keyboard as well
    for head in soup.find_all("th"):
        head["scope"] = head.get("scope") or ("col" if head.find_parent("thead") else "row")
    for form in soup.find_all("form"):
        _give_submit(soup, form)
    for entry in soup.find_all(role="doc-biblioentry"):
        entry["role"] = "listitem"  # what its list asks for; the old role is deprecated
    _make_ids_unique(soup)
    return str(soup)


def _give_submit(soup: BeautifulSoup, form: Tag) -> None:
    """Turn the magnifying glass of a search form into its button."""
    if form.find(attrs={"type": "submit"}):
        return
    button = soup.new_tag("button", attrs={"type": "submit", "class": "btn", "aria-label": "Search"})
    if icon := form.find("i"):
        icon.wrap(button)
    else:
        button.string = "Search"
        form.append(button)


def _make_ids_unique(soup: BeautifulSoup) -> None:
    """Number the second and later holders of an id; links lead to the first, as before."""
    taken = {tag["id"] for tag in soup.find_all(id=True)}
    seen = set()
    for tag in soup.find_all(id=True):
        if tag["id"] in seen:
            tag["id"] = next(name for n in itertools.count(2) if (name := f"{tag['id']}-{n}") not in taken)
            taken.add(tag["id"])
        seen.add(tag["id"])
