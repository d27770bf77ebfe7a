"""Pages of a built site as a browser meets them from disk: `python -m tests.benchmarks.page SITE [PAGES]`.

Headless Chromium. Random unit pages: first contentful paint, layout shift, requests; each
in a tab of its own, desktop and telephone in turn. Then the table of the layer with most
units: how long until it is sorted and filtered, and the sort is on the screen.
"""

from __future__ import annotations

import gzip
import random
import sys
from collections import Counter
from pathlib import Path
from statistics import median, quantiles
from tempfile import TemporaryDirectory
from typing import NamedTuple

import orjson
from playwright.sync_api import Browser, BrowserContext, ViewportSize, sync_playwright

from tests.benchmarks.site import shared_files
from tests.support.browser import CHROMIUM, FLAGS

_WARM_UP = 3
_SETTLED = 300  # milliseconds after the load in which a page may still move
_SIZES: tuple[ViewportSize, ...] = ({"width": 1280, "height": 900}, {"width": 390, "height": 844})
_SORTS = 6

_LISTEN = """
window.shifts = [];
const name = node => !node ? "?" : node.nodeType !== 1 ? name(node.parentNode) :
  node.tagName.toLowerCase() + [...node.classList].map(part => "." + part).join("");
new PerformanceObserver(list => window.shifts.push(...list.getEntries().map(
  entry => ({value: entry.value, what: (entry.sources || []).map(source => name(source.node))}))))
  .observe({type: "layout-shift", buffered: true});
"""
_SHIFT = "window.shifts.reduce((sum, shift) => sum + shift.value, 0)"
_PAINTED = """() => new Promise(resolve => {
  const found = () => performance.getEntriesByName("first-contentful-paint")[0];
  if (found()) return resolve(found().startTime);
  new PerformanceObserver(() => resolve(found().startTime)).observe({type: "paint", buffered: true});
})"""
# From the click to the second frame after the rows changed: they are on the screen then.
_SORTED = """button => new Promise(resolve => {
  const body = button.closest("table").tBodies[0], started = performance.now();
  new MutationObserver((_, watcher) => {
    watcher.disconnect();
    requestAnimationFrame(() => requestAnimationFrame(() => resolve(performance.now() - started)));
  }).observe(body, {childList: true});
  button.click();
})"""
_FILTERED = """field => new Promise(resolve => {
  const started = performance.now();
  new MutationObserver((_, watcher) => {
    watcher.disconnect();
    requestAnimationFrame(() => requestAnimationFrame(() => resolve(performance.now() - started)));
  }).observe(document.getElementById("count"), {childList: true, characterData: true});
  field.value = "e";
  field.dispatchEvent(new Event("input", {bubbles: true}));
})"""


class Visit(NamedTuple):
    """What a page did when it was opened."""

    paint: float
    """Milliseconds to the first contentful paint."""
    shift: float
    """Cumulative layout shift."""
    moved: list[str]
    """The elements that it moved."""
    requests: list[str]


def main(site: Path, pages: int = 40) -> None:
    """Print the numbers beside their limits."""
    layers = orjson.loads((site / "atlas.json").read_bytes())["layers"]
    every = [f"L{layer['layer']}/N{unit}.html" for layer in layers for unit in range(layer["units"])]
    chosen = random.Random(0).sample(every, min(pages, len(every)))
    with sync_playwright() as playwright, TemporaryDirectory() as scratch:
        empty = Path(scratch) / "empty.html"
        empty.write_text("<!doctype html><title>Empty</title><p>Nothing but this.", encoding="utf-8")
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        print(f"Chromium {browser.version}, {len(chosen)} unit pages of {len(every):,} from disk")
        for size in _SIZES:
            context = browser.new_context(viewport=size)
            for page in chosen[:_WARM_UP]:
                _visit(context, (site / page).as_uri())
            visits, bare = [], []
            for page in chosen:  # in turn, so that the machine's mood is shared
                visits.append(_visit(context, (site / page).as_uri()))
                bare.append(_visit(context, empty.as_uri()).paint)
            _print_visits(visits, bare, size)
            context.close()
        widest = max(layers, key=lambda layer: layer["units"])
        _print_table(browser, site / f"L{widest['layer']}" / "index.html", widest["units"])
        browser.close()
    shared = shared_files(site / chosen[0])
    weights = [len(gzip.compress(path.read_bytes(), mtime=0)) for path in shared]
    print(f"style and scripts of a unit page  {sum(weights) / 1000:6.1f} kB gzipped (limit 60)")


def _visit(context: BrowserContext, address: str) -> Visit:
    tab = context.new_page()
    tab.add_init_script(_LISTEN)
    requests: list[str] = []
    tab.on("request", lambda request: requests.append(request.url))
    tab.goto(address, wait_until="load")
    paint = float(tab.evaluate(_PAINTED))
    # To the end and back: what is drawn late must not push what is read.
    tab.evaluate("scrollTo(0, document.body.scrollHeight)")
    tab.wait_for_timeout(_SETTLED)
    shift = float(tab.evaluate(_SHIFT))
    moved = tab.evaluate("window.shifts.flatMap(shift => shift.what)")
    tab.close()
    return Visit(paint, shift, moved, requests)


def _print_visits(visits: list[Visit], bare: list[float], size: ViewportSize) -> None:
    paints = sorted(visit.paint for visit in visits)
    late = quantiles(paints, n=20)[-1] if len(paints) > 1 else paints[0]
    moved = Counter(what for visit in visits for what in set(visit.moved))
    requests = median(len(visit.requests) for visit in visits)
    off = {url for visit in visits for url in visit.requests if not url.startswith("file://")}
    print(f"at {size['width']} × {size['height']}:")
    print(f"  first contentful paint  median {median(paints):6.0f} ms, 95th percentile {late:.0f} (limit 200)")
    print(f"  of a page of one line   median {median(bare):6.0f} ms")
    print(f"  layout shift            {max(visit.shift for visit in visits):.4f} at most (limit 0)")
    for what, times in moved.most_common(5):
        print(f"    {what} on {times} pages")
    print(f"  requests                median {requests:.0f}, {len(off)} off the site")


def _print_table(browser: Browser, page: Path, units: int) -> None:
    tab = browser.new_page(viewport=_SIZES[0])
    tab.add_init_script(_LISTEN)
    tab.goto(page.as_uri(), wait_until="load")
    paint = float(tab.evaluate(_PAINTED))
    tab.wait_for_timeout(_SETTLED)
    shift = float(tab.evaluate(_SHIFT))
    heads = tab.locator("table.units th button").all()
    sorts = [float(heads[place % len(heads)].evaluate(_SORTED)) for place in range(1, _SORTS + 1)]
    filtered = float(tab.locator("#filter").evaluate(_FILTERED))
    print(f"the table of {units:,} units: first contentful paint {paint:.0f} ms, layout shift {shift:.4f}")
    print(
        f"  first sort {sorts[0]:.0f} ms, its data loaded; then median {median(sorts[1:]):.0f}; filter {filtered:.0f}"
    )
    tab.close()


if __name__ == "__main__":
    main(Path(sys.argv[1]).resolve(), *(int(count) for count in sys.argv[2:3]))
