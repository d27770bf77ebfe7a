"""An atlas as a reader meets it, from a folder and over http."""

from __future__ import annotations

import re
import threading
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Dialog, Page, expect

from atlas_builder.site.hosting.serve import server
from tests.support.atlases import records_of
from tests.support.models import NARROW

pytestmark = pytest.mark.browser


def test_a_reader_gets_from_home_to_a_layer_a_unit_a_neighbour_a_search_hit_and_a_unit(
    demo_site: Path, address: str, page: Page, errors: list[str]
) -> None:
    linked = next(
        record["unit"]
        for record in records_of(demo_site)
        if record["layer"] == 1 and any(behaviour["neighbours"] for behaviour in record["behaviours"])
    )
    page.goto(f"{address}/index.html")
    expect(page.locator("h1")).to_have_text("Small demo")
    page.get_by_role("link", name="Layer 1").first.click()
    expect(page.locator("h1")).to_have_text("Layer 1")
    expect(page.locator("table.units tbody tr")).to_have_count(NARROW)

    page.locator(f"table.units tbody tr td a[href^='N{linked}.html']").first.click()
    expect(page.locator("h1")).to_contain_text("of layer 1")
    assert re.search(r"L1/N\d+\.html#b1$", page.url)
    expect(page.locator("#b1 mark").first).to_be_visible()

    neighbour = page.locator(".near a").first
    target = neighbour.get_attribute("href")
    neighbour.click()
    assert target
    assert page.url.endswith(target.removeprefix("../"))
    expect(page.locator(f"#{target.split('#')[1]}")).to_be_visible()

    page.get_by_role("searchbox").first.fill("return")
    page.keyboard.press("Enter")
    expect(page.locator("#status")).to_contain_text("activate on “return”")
    hit = page.locator("#results a").first
    match = re.search(r"L(\d+)/N(\d+)", hit.inner_text())
    hit.click()
    assert match
    layer, unit = match.groups()
    expect(page.locator("h1")).to_have_text(f"Neuron {unit} of layer {layer}")
    assert "return" in page.locator("main").inner_text()
    assert errors == []


def test_keys_lead_to_the_next_the_last_a_random_unit_and_to_search(
    demo_site: Path, page: Page, errors: list[str]
) -> None:
    page.goto(f"{demo_site.as_uri()}/L1/N{NARROW - 1}.html")
    page.keyboard.press("ArrowRight")
    page.wait_for_url("**/L2/N0.html")
    page.keyboard.press("ArrowLeft")
    page.wait_for_url(f"**/L1/N{NARROW - 1}.html")
    page.keyboard.press("r")
    page.wait_for_url(lambda url: f"N{NARROW - 1}" not in url)
    page.keyboard.press("/")
    page.keyboard.type("r2")
    expect(page.get_by_role("searchbox").first).to_have_value("r2")
    assert errors == []


def test_pages_read_without_scripts(demo_site: Path, browser: Browser) -> None:
    context = browser.new_context(java_script_enabled=False)
    page = context.new_page()
    page.goto(f"{demo_site.as_uri()}/index.html")
    page.get_by_role("link", name="Layer 0").first.click()
    page.locator("table.units tbody th a").nth(3).click()
    expect(page.locator("h1")).to_have_text("Neuron 3 of layer 0")
    expect(page.locator("mark").first).to_be_visible()
    page.get_by_role("link", name="Random").click()
    assert re.search(r"/L\d/N\d+\.html$", page.url)
    page.goto(f"{demo_site.as_uri()}/search.html")
    assert "Search requires JavaScript" in page.locator("noscript").inner_html()
    context.close()


def test_the_theme_follows_the_system_until_a_reader_chooses(demo_site: Path, browser: Browser) -> None:
    context = browser.new_context(color_scheme="dark")
    page = context.new_page()
    page.goto(f"{demo_site.as_uri()}/index.html")

    def background() -> int:
        colour = page.evaluate("getComputedStyle(document.body).backgroundColor")
        return sum(map(int, re.findall(r"\d+", colour)[:3]))

    assert background() < 150
    page.get_by_role("button", name="Switch between dark and light").click()
    assert background() > 600
    page.goto(f"{demo_site.as_uri()}/about.html")
    assert background() > 600
    context.close()


def test_hostile_text_runs_nowhere(hostile_site: Path, page: Page, errors: list[str]) -> None:
    dialogs: list[str] = []

    def opened(dialog: Dialog) -> None:
        dialogs.append(dialog.message)
        dialog.dismiss()

    page.on("dialog", opened)
    pages = [path.relative_to(hostile_site).as_posix() for path in sorted(hostile_site.rglob("*.html"))]
    for name in pages[:: max(1, len(pages) // 16)]:
        page.goto(f"{hostile_site.as_uri()}/{name}")
        assert page.evaluate("window.pwned") is None, name
        assert page.title()
    for query in (
        "<script>",
        "__proto__",
        "</script>",
        "constructor",
        "'); alert(1)",
        "\\u003c",
        "%",
        "\u202e",
        "x" * 500,
    ):
        page.goto(f"{hostile_site.as_uri()}/search.html")
        page.locator("#q").fill(query)
        page.wait_for_timeout(250)
        assert page.evaluate("window.pwned") is None
    assert dialogs == []
    assert errors == []


def test_a_missing_page_trusts_no_other_host(demo_site: Path, page: Page) -> None:
    with server(demo_site, 0) as running:
        threading.Thread(target=running.serve_forever, daemon=True).start()
        page.goto(f"http://127.0.0.1:{running.server_port}//elsewhere.example/L0/x")
        assert page.evaluate("document.baseURI").startswith(
            f"http://127.0.0.1:{running.server_port}/elsewhere.example/"
        )
        running.shutdown()


def test_what_is_missing_has_a_page(demo_site: Path, page: Page) -> None:
    with server(demo_site, 0) as running:
        threading.Thread(target=running.serve_forever, daemon=True).start()
        page.goto(f"http://127.0.0.1:{running.server_port}/L9/N1.html")
        expect(page.locator("h1")).to_have_text("There is no such page")
        # However deep the address, the page finds the site's root.
        assert page.evaluate("getComputedStyle(document.querySelector('h1')).fontFamily.includes('Palatino')")
        page.get_by_role("link", name="Start from the first page").click()
        expect(page.locator("h1")).to_have_text("Small demo")
        running.shutdown()
