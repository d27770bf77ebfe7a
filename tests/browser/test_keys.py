"""Keys that lead through the atlas."""

from __future__ import annotations

import json
import re
import threading
from collections.abc import Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from playwright.sync_api import Page, expect

pytestmark = pytest.mark.browser


def test_b_goes_through_the_behaviours_and_back(demo_site: Path, page: Page, errors: list[str]) -> None:
    several = next(
        path for path in sorted(demo_site.glob("L2/N*.json")) if len(json.loads(path.read_bytes())["behaviours"]) >= 2
    )
    page.goto(several.with_suffix(".html").as_uri())
    for key, anchor in (("b", "#b1"), ("b", "#b2"), ("Shift+B", "#b1")):
        page.keyboard.press(key)
        page.wait_for_url(f"**{anchor}")
        assert page.evaluate("document.activeElement.getAttribute('href')") == anchor
        expect(page.locator(f"section{anchor}")).to_be_in_viewport()
    assert errors == []


def test_shift_and_arrows_lead_to_the_same_unit_of_another_layer(
    demo_site: Path, page: Page, errors: list[str]
) -> None:
    page.goto(f"{demo_site.as_uri()}/L1/N7.html")
    page.keyboard.press("Shift+ArrowDown")
    page.wait_for_url("**/L2/N7.html")
    page.keyboard.press("Shift+ArrowUp")
    page.wait_for_url("**/L1/N7.html")
    assert errors == []


class _StripsHtml(SimpleHTTPRequestHandler):
    """Serves `/L0/N3.html` as `/L0/N3`, as some hosts do."""

    def log_message(self, *_: object) -> None:
        pass

    def do_GET(self) -> None:
        place, _, query = self.path.partition("?")
        if place.endswith(".html"):
            self.send_response(308)
            self.send_header("Location", place.removesuffix(".html").removesuffix("index") + (query and f"?{query}"))
            self.end_headers()
            return
        if Path(self.translate_path(f"{place}.html")).is_file():
            self.path = f"{place}.html"
        super().do_GET()


@pytest.fixture
def stripped(tiny_site: Path) -> Iterator[str]:
    """The address of an atlas whose host strips `.html`."""
    with ThreadingHTTPServer(("127.0.0.1", 0), partial(_StripsHtml, directory=str(tiny_site))) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


def test_keys_lead_on_where_a_host_strips_html_from_addresses(stripped: str, page: Page, errors: list[str]) -> None:
    page.goto(f"{stripped}/L0/N7.html")
    for key, place in (
        ("Shift+ArrowDown", "/L1/N7"), ("ArrowRight", "/L1/N8"), ("ArrowLeft", "/L1/N7"), ("Shift+ArrowUp", "/L0/N7"),
    ):  # fmt: skip
        page.keyboard.press(key)
        page.wait_for_url(f"{stripped}{place}", timeout=5000)
    with page.expect_navigation(url=re.compile(r"/L[01]/N\d+$"), timeout=5000):
        page.keyboard.press("r")
    assert errors == []


def test_a_question_mark_says_which_keys_there_are(demo_site: Path, page: Page, errors: list[str]) -> None:
    page.goto(f"{demo_site.as_uri()}/L1/N7.html")
    page.keyboard.press("?")
    expect(page.get_by_role("dialog", name="Keys")).to_be_visible()
    expect(page.get_by_role("dialog", name="Keys")).to_contain_text("next, previous behaviour")
    page.keyboard.press("Escape")
    expect(page.get_by_role("dialog", name="Keys")).to_be_hidden()
    page.keyboard.press("/")
    page.keyboard.type("b?r")
    expect(page.get_by_role("searchbox").first).to_have_value("b?r")
    assert errors == []


def test_a_token_of_the_answer_leads_to_search(demo_site: Path, page: Page, errors: list[str]) -> None:
    page.goto(f"{demo_site.as_uri()}/L1/N5.html")
    token = page.locator(".sum code").first
    text = token.inner_text().strip("␣").lower() or "␣"
    token.click()
    expect(page.locator("#status")).to_contain_text(f"“{text}”")
    assert errors == []
