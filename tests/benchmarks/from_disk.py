"""How long map and search take from `file://`: `python -m tests.benchmarks.from_disk SITE [WORD …]`.

Headless Chromium at 1280 px, each time a page in a new context, with nothing cached but by the system. Time runs from
the start of the navigation: to the frame after the map's points are on the canvas, and to the first result of a search
for a word that stands in the address; for that, also from when the page is there, which is what a reader who types
waits for.
"""

from __future__ import annotations

import statistics
import sys
from pathlib import Path
from urllib.parse import quote

from playwright.sync_api import Browser, sync_playwright

from atlas_builder.site.search import index
from atlas_builder.site.search.postings import read_back
from tests.support.browser import CHROMIUM, FLAGS

TIMES = 5
WATCH_MAP = """
const put = CanvasRenderingContext2D.prototype.putImageData;
CanvasRenderingContext2D.prototype.putImageData = function (...rest) {
  put.apply(this, rest);
  requestAnimationFrame(() => requestAnimationFrame(() => { window.drawn ??= performance.now(); }));
};
"""
WATCH_SEARCH = """
addEventListener("DOMContentLoaded", () => {
  window.ready = performance.now();
  new MutationObserver(() => {
    if (document.querySelector("#results li")) window.first ??= performance.now();
  }).observe(document.getElementById("results"), {childList: true});
});
"""


def main(site: Path, words: list[str]) -> None:
    """Print medians, in milliseconds."""
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        drawn = [_taken(browser, site, "map.html", WATCH_MAP, "drawn", "drawn") for _ in range(TIMES)]
        points = (site / "map" / "points.js").stat().st_size
        print(f"the map, {points / 1e6:.1f} MB of points: drawn after {_median(drawn)}")
        for word in words or _frequent(site):
            address = f"search.html?q={quote(word)}"
            _taken(browser, site, address, WATCH_SEARCH, "first", "first")  # files from the disk
            found = [_taken(browser, site, address, WATCH_SEARCH, "first", "ready") for _ in range(TIMES)]
            print(f"search for {word!r}: first result after {_median(found)}")
        browser.close()


def _taken(browser: Browser, site: Path, address: str, watch: str, end: str, since: str) -> tuple[float, float]:
    """Milliseconds from the navigation to one mark, and from another mark to it."""
    context = browser.new_context(viewport={"width": 1280, "height": 900})
    page = context.new_page()
    page.add_init_script(watch)
    page.goto(f"{site.resolve().as_uri()}/{address}")
    page.wait_for_function(f"window.{end}", timeout=60_000)
    whole, mark = page.evaluate(f"[window.{end}, window.{since}]")
    context.close()
    return whole, whole - mark


def _median(taken: list[tuple[float, float]]) -> str:
    whole, part = (statistics.median(column) for column in zip(*taken, strict=True))
    return f"{whole:.0f} ms" + (f", {part:.0f} of them after the page was there" if part else "")


def _frequent(site: Path) -> list[str]:
    """The most frequent word of letters, one of middling frequency, and a rare one."""
    words, counts = index.read_index_file(site / "search" / "words.js")
    frequency = dict(zip(words, read_back(counts), strict=True))
    letters = sorted((word for word in words if word.isalpha() and len(word) > 2), key=lambda word: -frequency[word])
    return [letters[0], letters[len(letters) // 20], letters[-1]]


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2:])
