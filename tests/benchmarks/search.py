"""What a first query loads and how long its first result takes: `python -m tests.benchmarks.search SITE`.

In Chromium, headless, over http from this machine. For each query a fresh page is opened
with nothing cached. Bytes are those of every script and file of the index, each as gzip
makes it, as hosts send them. Time runs from the last shard's arrival, before it is read,
to the first result in the document.
"""

from __future__ import annotations

import gzip
import itertools
import statistics
import sys
import threading
from collections.abc import Iterable
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlsplit

from playwright.sync_api import Page, sync_playwright

from atlas_builder.site.hosting.serve import server
from atlas_builder.site.search import index
from atlas_builder.site.search.postings import read_back
from tests.support.browser import CHROMIUM, FLAGS

TIMES = 3
# Marks when the last script of a shard came, before it ran, and when the first result stood on the page.
WATCH = """
addEventListener('DOMContentLoaded', () => {
  new MutationObserver(() => {
    if (document.querySelector('#results li') && !window.first) window.first = performance.now();
  }).observe(document.getElementById('results'), {childList: true});
});
window.arrived = () => Math.max(0, ...performance.getEntriesByType('resource')
  .filter(entry => /search.(s|l|words)\\d*\\.js$/.test(entry.name) && entry.responseEnd < (window.first || Infinity))
  .map(entry => entry.responseEnd));
"""


def main(site: Path) -> None:
    """Print kilobytes and milliseconds for a dozen queries."""
    sizes = {path.relative_to(site).as_posix(): _gzipped(path) for path in _loadable(site)}
    print(f"index: {sum(path.stat().st_size for path in (site / 'search').iterdir()) / 1e6:.1f} MB", end=", ")
    kinds = [("a shard", "s"), ("a block", "x"), ("a layer's labels", "l")]
    for name, letter in kinds:
        own = [size for path, size in sizes.items() if path[:8] == f"search/{letter}" and path[8].isdigit()]
        print(f"{name} {statistics.mean(own) / 1e3:.1f} kB (at most {max(own) / 1e3:.1f})", end=", ")
    print(", ".join(f"{name}.js {sizes[f'search/{name}.js'] / 1e3:.1f} kB" for name in ("index", "units", "words")))
    print(f"{'':34}{'gzipped':>10}{'first result':>14}{'results':>10}")
    with server(site, 0) as running, sync_playwright() as playwright:
        threading.Thread(target=running.serve_forever, daemon=True).start()
        address = f"http://127.0.0.1:{running.server_port}/search.html"
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        for kind, query in _queries(site):
            taken = []
            for _ in range(TIMES):
                context = browser.new_context(viewport={"width": 1280, "height": 900})
                page = context.new_page()
                found = _ask(page, f"{address}?q={quote(query)}")
                taken.append(found["first"] - found["arrived"])
                context.close()
            loaded = sum(sizes.get(urlsplit(name).path.lstrip("/"), 0) for name in found["loaded"])
            first = statistics.median(taken)
            print(f"{kind:20}{query[:13]:14}{loaded / 1e3:>7.0f} kB{first:>11.0f} ms{found['hits']:>10,}")
        browser.close()
        running.shutdown()


def _ask(page: Page, address: str) -> dict[str, Any]:
    page.add_init_script(WATCH)
    page.goto(address)
    page.wait_for_selector("#results li.there .label", state="attached")
    page.wait_for_timeout(300)
    found: dict[str, Any] = page.evaluate(
        """async () => {
            const loaded = performance.getEntriesByType('resource').map(entry => entry.name);
            const found = await Atlas.search.find(document.getElementById('q').value, {layers: null}, 4, () => true);
            return {first: window.first, arrived: window.arrived(), loaded, hits: found.hits.length};
        }"""
    )
    return found


def _gzipped(path: Path) -> int:
    return len(gzip.compress(path.read_bytes(), 6, mtime=0))


def _loadable(site: Path) -> Iterable[Path]:
    return itertools.chain((site / "search").iterdir(), (site / "assets").glob("*.js"))


def _queries(site: Path) -> list[tuple[str, str]]:
    """A dozen queries made of the atlas's own words."""
    words, counts = index.read_index_file(site / "search" / "words.js")
    frequency = dict(zip(words, read_back(counts), strict=True))
    letters = sorted((word for word in words if word.isalpha() and len(word) > 2), key=lambda word: -frequency[word])
    most, rare, middle = letters[0], letters[-1], letters[len(letters) // 20]
    signs = max((word for word in words if not word.isalnum()), key=lambda word: frequency[word])
    return [
        ("most frequent", most),
        ("frequent", letters[20]),
        ("in the middle", middle),
        ("rare", rare),
        ("a sign", signs),
        ("a beginning", middle[:4]),
        ("three letters", most[:3]),
        ("one letter", most[0]),
        ("phrase", f"{letters[1]} {letters[0]}"),
        ("phrase in quotes", '"of the"'),
        ("three words", f"{letters[3]} {letters[5]} {middle}"),
        ("pattern", f"/^{middle[:3]}.*s$/"),
        ("pattern", "/ing/"),
    ]


if __name__ == "__main__":
    main(Path(sys.argv[1]))
