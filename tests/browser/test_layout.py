"""How pages lie in windows from a telephone's to a wide screen's.

With the environment variable `ATLAS_SCREENSHOTS` a picture of each page goes into the folder that it names.
"""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from playwright.sync_api import Page

from tests.support.browser import KINDS, visit

pytestmark = pytest.mark.browser

PICTURES = os.environ.get("ATLAS_SCREENSHOTS")
WIDTHS = (390, 1280, 1920)

# What reaches past the window without a part of the page to scroll it in, and text that spills out of its box.
FAULTS = """() => {
    const wide = document.documentElement.clientWidth, faults = [];
    const open = element => getComputedStyle(element).overflowX === 'visible';
    const scrolls = element => {
        for (; element && element !== document.body; element = element.parentElement) if (!open(element)) return true;
        return false;
    };
    if (document.documentElement.scrollWidth > wide) faults.push('the page is wider than its window');
    for (const element of document.body.querySelectorAll('*:not(svg *)')) {
        const box = element.getBoundingClientRect(), what = element.outerHTML.slice(0, 100);
        if (!box.width || !box.height || box.right < 0) continue;
        if ((box.right > wide + 1 || box.left < -1) && !scrolls(element.parentElement)) faults.push('past: ' + what);
        if (element.clientWidth && element.scrollWidth > element.clientWidth + 1 && open(element)
            && !scrolls(element.parentElement)) faults.push('spills: ' + what);
    }
    return faults;
}"""

# The heading is where the eye would find it: in the window, under nothing.
_HEADING_SHOWS = """() => {
    const heading = document.querySelector('h1'), words = document.createRange();
    words.selectNodeContents(heading);
    const box = words.getClientRects()[0];
    const found = document.elementFromPoint(box.left + Math.min(box.width, 20) / 2, box.top + box.height / 2);
    return heading.textContent.trim() !== '' && heading.contains(found);
}"""


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_of_page_shows_and_fits_its_window(
    demo_site: Path, page: Page, errors: list[str], kind: str
) -> None:
    visit(page, demo_site, kind)
    for width in WIDTHS:
        page.set_viewport_size({"width": width, "height": 900})
        for scheme in ("light", "dark"):
            page.emulate_media(color_scheme=scheme)
            assert page.evaluate(FAULTS) == [], (width, scheme)
            assert page.evaluate(_HEADING_SHOWS), (width, scheme)
            if PICTURES:
                page.screenshot(path=Path(PICTURES) / f"{kind}-{width}-{scheme}.png", full_page=kind != "layer")
    assert errors == []


def test_hostile_text_fits_too(hostile_site: Path, page: Page, errors: list[str]) -> None:
    for name in ("index.html", "L0/index.html", "L0/N3.html", "L1/N7.html", "search.html", "methods.html"):
        page.goto(f"{hostile_site.as_uri()}/{name}")
        for width in WIDTHS:
            page.set_viewport_size({"width": width, "height": 900})
            assert page.evaluate(FAULTS) == [], (name, width)
    assert errors == []


def test_what_does_not_fit_is_found(demo_site: Path, page: Page) -> None:
    visit(page, demo_site, "prose")
    page.evaluate("""() => {
        const wide = document.createElement('div'), full = document.createElement('div');
        wide.style.cssText = 'width: 2000px; max-width: none';
        wide.textContent = 'wide';
        full.style.cssText = 'width: 50px; white-space: nowrap';
        full.textContent = 'more than the box can hold';
        document.querySelector('main').append(wide, full);
        document.querySelector('h1').style.visibility = 'hidden';
    }""")
    assert {fault.split(":")[0] for fault in page.evaluate(FAULTS)} >= {"the page is wider than its window", "past"}
    assert any("more than the box" in fault for fault in page.evaluate(FAULTS))
    assert not page.evaluate(_HEADING_SHOWS)
