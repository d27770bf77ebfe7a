"""Chromium and Firefox, headless, with the network closed but for this machine."""

from __future__ import annotations

import os
import shutil
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Literal

import pytest
from axe_playwright_python.sync_playwright import Axe
from marionette_driver.marionette import Marionette
from playwright.sync_api import Browser, BrowserContext, Page, Request, sync_playwright

from atlas_builder.site.hosting.serve import server

KINDS = {
    "home": "index.html",
    "layer": "L0/index.html",
    "unit": "L0/N3.html",
    "search": "search.html?q=return",
    "map": "map.html",
    "prose": "methods.html",
    "missing": "404.html",
}
"""A page of each kind."""

WIDTHS = (390, 1280, 1920)
LOOKS: tuple[tuple[Literal["light", "dark"], int], ...] = (("light", 390), ("dark", 1280))
"""Scheme and width of the windows in which axe looks at a page."""
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

FIREFOX = os.environ.get("FIREFOX") or shutil.which("firefox-esr") or shutil.which("firefox")
CHROMIUM = os.environ.get("CHROMIUM") or shutil.which("chromium") or shutil.which("chromium-browser")
FLAGS = [
    "--no-sandbox",  # tests may run as root in a container
    "--disable-gpu",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--no-first-run",
]


def _wanted(name: str, program: str | None) -> str:
    """The browser, or no test: CI has both, a workstation need not."""
    if program is None:
        if os.environ.get("CI"):
            pytest.fail(f"{name} must be installed where CI runs")
        pytest.skip(f"{name} is not installed")
    return program


@pytest.fixture(scope="session")
def browser() -> Iterator[Browser]:
    program = _wanted("Chromium", CHROMIUM)
    with sync_playwright() as playwright:
        running = playwright.chromium.launch(executable_path=program, args=FLAGS)
        yield running
        running.close()


@pytest.fixture(scope="session")
def firefox(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Marionette]:
    """Any installed Firefox; Playwright would want a build of its own."""
    log = tmp_path_factory.mktemp("firefox") / "gecko.log"
    running = Marionette(bin=_wanted("Firefox", FIREFOX), headless=True, port=0, gecko_log=str(log))
    running.start_session()
    running.timeout.implicit = 5
    yield running
    running.quit()
    running.cleanup()


@pytest.fixture(params=["file", "http"])
def address(request: pytest.FixtureRequest, demo_site: Path, tmp_path: Path) -> Iterator[str]:
    """The demo from a folder, and over http under a path of its own."""
    if request.param == "file":
        yield demo_site.as_uri()
        return
    (tmp_path / "index.html").write_text("the host's own page", encoding="utf-8")
    (tmp_path / "some").mkdir()
    shutil.copytree(demo_site, tmp_path / "some" / "path", copy_function=os.link)
    with server(tmp_path, 0) as running:
        threading.Thread(target=running.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{running.server_port}/some/path"
        running.shutdown()


@pytest.fixture
def errors() -> list[str]:
    """What went wrong on a page: failed scripts, files not there, requests off the site, breaches of its policy."""
    return []


@pytest.fixture(scope="session")
def context(browser: Browser) -> Iterator[BrowserContext]:
    """One for all tests: another costs more than most of them."""
    made = browser.new_context(viewport={"width": 1280, "height": 900})
    yield made
    made.close()


@pytest.fixture
def page(context: BrowserContext, errors: list[str]) -> Iterator[Page]:
    made = context.new_page()
    made.add_init_script(
        "addEventListener('securitypolicyviolation', event => "
        "console.error('against the policy: ' + event.effectiveDirective + ' ' + event.blockedURI))"
    )
    made.on("pageerror", lambda error: errors.append(str(error)))
    made.on("console", lambda message: errors.append(message.text) if message.type == "error" else None)

    def failed(request: Request) -> None:
        if "ERR_ABORTED" not in str(request.failure):  # the reader went on before it came
            errors.append(f"failed: {request.url}")

    made.on("requestfailed", failed)

    def local(url: str) -> bool:
        return url.startswith(("file://", "http://127.0.0.1"))

    made.on("request", lambda request: None if local(request.url) else errors.append(f"off the site: {request.url}"))
    yield made
    # What a test chose or was granted is not the next one's; an empty page has nothing to forget.
    made.evaluate("try { localStorage.clear() } catch {}")
    made.close()
    context.clear_permissions()


def visit(page: Page, site: Path, kind: str) -> None:
    """Go to the page of a kind and wait until it is all there."""
    page.goto(f"{site.as_uri()}/{KINDS[kind]}")
    if kind == "search":
        page.locator("#results a").first.wait_for()


def violations(page: Page) -> list[str]:
    """What axe objects to on the page as it is; `preload` would fetch style sheets, which the policy forbids."""
    found = Axe().run(page, options={"preload": False}).response["violations"]
    return [f"{rule['id']}: {node['html'][:120]}" for rule in found for node in rule["nodes"]]
