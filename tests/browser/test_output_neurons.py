"""Output neurons as a reader meets them: found by their token, in search, on the map and in the table."""

from __future__ import annotations

from pathlib import Path
from urllib.parse import quote

import pytest
from playwright.sync_api import Page, expect

from tests.support.atlases import OUTPUT_TOKENS

pytestmark = pytest.mark.browser


@pytest.mark.parametrize("query", ["def", " DEF ", "“␣def”", '"def"', "L2/N2"])
def test_a_token_finds_its_output_neuron_first(logits_site: Path, page: Page, query: str) -> None:
    page.goto(f"{logits_site.as_uri()}/404.html")  # an address that names a unit leads there at once
    page.goto(f"{logits_site.as_uri()}/search.html{'?q=' + quote(query) if query != 'L2/N2' else ''}")
    if query == "L2/N2":
        page.locator("#q").fill(query)
    first = page.locator("#results li").first
    expect(first.locator(".id")).to_have_text("“␣def”")
    first.locator("a").click()
    expect(page.locator("h1")).to_have_text("Output neuron “␣def”")


def test_a_token_that_is_markup_is_found_and_shown_as_text(logits_site: Path, page: Page) -> None:
    page.goto(f"{logits_site.as_uri()}/search.html?q={quote('<')}")
    expect(page.locator("#results li").first.locator(".id")).to_have_text("“<”")


def test_the_table_is_filtered_by_token_and_names_it_when_sorted(logits_site: Path, page: Page) -> None:
    page.goto(f"{logits_site.as_uri()}/L2/index.html?sort=-max")
    expect(page.locator("tbody th")).to_have_count(len(OUTPUT_TOKENS))
    page.locator("#filter").fill("“␣def")
    expect(page.locator("tbody th")).to_have_text(["“␣def”"])


def test_the_map_names_tokens_and_offers_no_layers(logits_site: Path, page: Page) -> None:
    page.goto(f"{logits_site.as_uri()}/map.html")
    expect(page.locator("#layers")).to_be_hidden()
    page.locator("#list").click()
    expect(page.locator("#inside li b").first).to_contain_text("“")
    assert (page.locator("#inside li a").first.get_attribute("href") or "").startswith("L2/N")
