"""Explanations in words, in a browser: on pages of every width, in a layer's table, and found by search."""

from __future__ import annotations

from pathlib import Path

import pytest
from playwright.sync_api import Browser, Page, expect

from tests.support.browser import FAULTS, LOOKS
from tests.support.explained import explained_units

pytestmark = pytest.mark.browser


def test_pages_with_explanations_fit_their_window(explained_site: Path, browser: Browser) -> None:
    pages = [f"L{record['layer']}/N{record['unit']}.html" for record in explained_units(explained_site)[:4]]
    for scheme, width in LOOKS:
        context = browser.new_context(viewport={"width": width, "height": 900}, color_scheme=scheme)
        page = context.new_page()
        for address in (*pages, "L0/index.html", "L0/index.html?sort=-max", "search.html?q=zebras"):
            page.goto(f"{explained_site.as_uri()}/{address}")
            expect(page.locator(".said").first).to_be_visible()
            # Wide numbers of this model spill out of other tables, with explanations and without.
            assert [fault for fault in page.evaluate(FAULTS) if "said" in fault or "window" in fault] == [], address
        context.close()


def test_a_row_that_scripts_write_is_the_row_of_the_page(explained_site: Path, page: Page, errors: list[str]) -> None:
    page.goto(f"{explained_site.as_uri()}/L0/index.html")
    before = page.locator("table.units tbody").inner_text()
    page.get_by_role("button", name="Maximum").click()
    page.get_by_role("button", name="Neuron").click()
    expect(page.get_by_role("columnheader", name="Neuron")).to_have_attribute("aria-sort", "ascending")
    assert page.locator("table.units tbody").inner_text() == before
    page.get_by_label("Filter", exact=True).fill("grammar teller-1b")
    expect(page.locator("#count")).to_have_text("1 of 24")
    assert page.evaluate("window.pwned") is None
    assert not errors


@pytest.mark.parametrize("query", ["zebras", "zebras comma", "/zebr/"])
def test_search_finds_words_of_an_explanation_and_shows_it(
    explained_site: Path, page: Page, errors: list[str], query: str
) -> None:
    record = explained_units(explained_site)[0]
    page.goto(f"{explained_site.as_uri()}/search.html")
    page.locator("#q").fill(query)
    if query.startswith("/"):  # over labels and words that behaviours activate on
        expect(page.locator("#status")).to_contain_text("No behaviour")
        return
    result = page.locator("#results li").first
    expect(result.locator(".said")).to_have_text("“the word that zebras say after a comma” — Teller-1B")
    expect(result.locator(".said .hit").first).to_have_text("zebras")
    expect(result.locator(".meta")).to_contain_text("In its explanation")
    expect(result.locator("a")).to_have_attribute("href", f"L{record['layer']}/N{record['unit']}.html#b1")
    assert not errors


def test_the_second_explanation_is_shown_where_it_has_the_words(explained_site: Path, page: Page) -> None:
    page.goto(f"{explained_site.as_uri()}/search.html?q=forms")
    expect(page.locator("#results .said").first).to_have_text("“forms of “to be”” — Other-7B")
    page.goto(f"{explained_site.as_uri()}/search.html?q=pwned")
    expect(page.locator("#results .said").first).to_contain_text("<script>window.pwned=6</script>")
    assert page.evaluate("window.pwned") is None
