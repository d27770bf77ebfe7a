"""The Content-Security-Policy: pages keep it, and it holds where markup of someone else got through."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from marionette_driver.marionette import Marionette
from playwright.sync_api import Page

from atlas_builder.site.hosting.serve import server
from tests.support.browser import KINDS

pytestmark = pytest.mark.browser

INJECTED = """
<script>window.pwned = 1</script>
<script src="data:text/javascript,window.pwned=2"></script>
<img src="x.png" onerror="window.pwned=3">
<svg onload="window.pwned=4"></svg>
<iframe srcdoc="<script>parent.pwned=5</script>"></iframe>
<object data="data:text/html,<script>parent.pwned=6</script>"></object>
<a id="lure" href="javascript:void(window.pwned=7)">a lure</a>
<base href="https://elsewhere.example/">
<link rel="stylesheet" href="https://elsewhere.example/x.css">
<style>body { display: none !important }</style>
<img src="https://elsewhere.example/seen.png">
<form action="https://elsewhere.example/"><button id="give">Give</button></form>
"""


@pytest.fixture(params=["file", "http"])
def injected(
    request: pytest.FixtureRequest, tiny_site: Path, copy_of: Callable[[Path], Path], tmp_path: Path
) -> Iterator[str]:
    """The address of an atlas of whose pages somebody else wrote a part."""
    site = copy_of(tiny_site)
    for name in KINDS.values():
        path = site / name.split("?")[0]
        if path.is_file():
            text = path.read_text(encoding="utf-8")
            path.write_text(text.replace("</h1>", f"</h1>{INJECTED}", 1), encoding="utf-8")
    if request.param == "file":
        yield site.as_uri()
        return
    with server(site, 0) as running:
        threading.Thread(target=running.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{running.server_port}"
        running.shutdown()


def _kinds(site: Path) -> list[str]:
    return [name for name in KINDS.values() if (site / name.split("?")[0]).is_file()]


def test_what_got_into_a_page_of_any_kind_neither_runs_nor_loads_nor_sends(
    injected: str, tiny_site: Path, page: Page, errors: list[str]
) -> None:
    sent: list[str] = []
    # Chromium announces requests that the policy then stops.
    page.on("requestfinished", lambda request: sent.append(request.url))
    page.on("requestfailed", lambda request: None if request.failure == "csp" else sent.append(request.url))
    for name in _kinds(tiny_site):
        errors.clear()
        page.goto(f"{injected}/{name}")
        # Playwright would wait for the navigations that the policy stops.
        page.evaluate("document.getElementById('lure').click(); document.getElementById('give').click()")
        page.wait_for_timeout(100)
        assert page.url.startswith(injected)
        assert page.evaluate("window.pwned") is None, name
        assert page.locator("main").is_visible()
        stopped = {line.split()[3] for line in errors if line.startswith("against the policy")}
        assert stopped >= {"script-src-elem", "script-src-attr", "style-src-elem", "img-src", "form-action"}, name
    assert [url for url in sent if not url.startswith(injected)] == []


def test_firefox_keeps_the_policy_too(injected: str, tiny_site: Path, firefox: Marionette) -> None:
    for name in _kinds(tiny_site):
        firefox.navigate(f"{injected}/{name}")
        firefox.find_element("id", "lure").click()
        firefox.find_element("id", "give").click()
        assert firefox.get_url().startswith(injected)
        assert firefox.execute_script("return window.wrappedJSObject.pwned === undefined"), name
        assert firefox.find_element("tag name", "main").is_displayed()
