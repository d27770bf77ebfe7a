"""A page on paper: light, whatever the theme, with the activations."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

import pytest
from playwright.sync_api import Browser, Page

from tests.support.browser import KINDS

pytestmark = pytest.mark.browser

# What is drawn in the colours of the dark theme: backgrounds that are dark all over, text that is light on them.
_DARK = """() => {
    const light = colour => {
        const canvas = document.createElement('canvas').getContext('2d');
        canvas.fillStyle = '#fff';
        canvas.fillRect(0, 0, 1, 1);
        canvas.fillStyle = colour;
        canvas.fillRect(0, 0, 1, 1);
        const [red, green, blue] = canvas.getImageData(0, 0, 1, 1).data;
        return (0.2126 * red + 0.7152 * green + 0.0722 * blue) / 255;
    };
    const faults = [];
    for (const element of document.querySelectorAll('html, body, body *')) {
        const style = getComputedStyle(element);
        if (!element.getClientRects().length) continue;
        if (style.colorScheme.includes('dark')) faults.push('scheme: ' + element.outerHTML.slice(0, 80));
        const isLarge = element.getBoundingClientRect().width > 200 && element.getBoundingClientRect().height > 60;
        if (isLarge && !element.closest('svg') && light(style.backgroundColor) < 0.8)
            faults.push('background: ' + element.outerHTML.slice(0, 80));
        const words = [...element.childNodes].some(node => node.nodeType === 3 && node.data.trim());
        // Buttons and bars have their text on colours that are the same in both themes.
        if (words && !element.closest('svg, button, .skip') && light(style.color) > 0.7)
            faults.push('text: ' + element.outerHTML.slice(0, 80));
    }
    for (const canvas of document.querySelectorAll('canvas')) {
        const copy = document.createElement('canvas');
        [copy.width, copy.height] = [canvas.width, canvas.height];
        if (!canvas.width || !canvas.height) continue;
        copy.getContext('2d').drawImage(canvas, 0, 0);
        const data = copy.getContext('2d').getImageData(0, 0, canvas.width, canvas.height).data;
        let dark = 0;
        for (let at = 0; at < data.length; at += 4)
            dark += data[at + 3] > 200 && data[at] + data[at + 1] + data[at + 2] < 150;
        if (dark > data.length / 40) faults.push('canvas');
    }
    return faults;
}"""


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(("scheme", "chosen"), [("dark", None), ("light", "dark"), ("dark", "dark")])
def test_a_page_printed_from_the_dark_theme_is_light(
    tiny_site: Path, browser: Browser, kind: str, scheme: Literal["light", "dark"], chosen: str | None
) -> None:
    context = browser.new_context(color_scheme=scheme)
    page = context.new_page()
    page.goto(f"{tiny_site.as_uri()}/{KINDS[kind]}")
    if chosen:
        page.evaluate(f"document.documentElement.dataset.theme = {chosen!r}")
    assert page.evaluate(_DARK) != [], "what is asked would see a dark page"
    page.emulate_media(media="print")
    page.wait_for_timeout(100)
    faults = page.evaluate(_DARK)
    context.close()
    assert faults == []


def test_activations_are_printed_where_a_browser_leaves_backgrounds_out(tiny_site: Path, page: Page) -> None:
    page.goto(f"{tiny_site.as_uri()}/L0/N3.html")
    page.emulate_media(media="print")
    token = page.locator(".examples mark").first
    assert token.evaluate("mark => getComputedStyle(mark).printColorAdjust") == "exact"
