"""A layer's table, sorted and filtered."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from playwright.sync_api import Page, expect

from atlas_builder.pipeline.build import build
from atlas_builder.progress import Progress
from atlas_builder.site import layer_table
from atlas_builder.site.hosting.check import check
from tests.support.atlases import Configure, records_of
from tests.support.models import NARROW

pytestmark = pytest.mark.browser

ROWS = "rows => rows.map(row => Array.from(row.cells, cell => cell.textContent.trim().replace(/\\s+/g, ' ')))"


def _rows(page: Page) -> list[list[str]]:
    found: list[list[str]] = page.locator("table.units tbody tr").evaluate_all(ROWS)
    return found


def test_a_heading_sorts_every_unit_of_the_layer_and_sorts_back(
    demo_site: Path, copy_of: Callable[[Path], Path], page: Page, errors: list[str]
) -> None:
    records = [record for record in records_of(demo_site) if record["layer"] == 0]
    site = copy_of(demo_site)
    script = site / "assets" / "layer-table.js"
    said = script.read_text(encoding="utf-8")
    assert "AT_ONCE = 200;" in said  # rows, of which this layer has fewer
    script.write_text(said.replace("AT_ONCE = 200;", "AT_ONCE = 60;"), encoding="utf-8")
    page.goto(f"{site.as_uri()}/L0/index.html")
    before = _rows(page)
    page.get_by_role("button", name="Maximum").click()
    expect(page.get_by_role("columnheader", name="Maximum")).to_have_attribute("aria-sort", "descending")
    wanted = sorted(records, key=lambda record: (-record["stats"]["max"], record["unit"]))
    assert [row[0] for row in _rows(page)] == [str(record["unit"]) for record in wanted[:60]]
    page.get_by_role("button", name="Maximum").click()
    expect(page.get_by_role("columnheader", name="Maximum")).to_have_attribute("aria-sort", "ascending")
    page.get_by_role("button", name="Neuron").click()
    expect(page.get_by_role("columnheader", name="Neuron")).to_have_attribute("aria-sort", "ascending")
    # What scripts write is what the page said before, to the letter.
    assert _rows(page) == before[:60]
    page.get_by_role("button", name=f"Show 60 more of {NARROW - 60}").click()
    expect(page.locator("table.units tbody tr")).to_have_count(120)
    assert _rows(page) == before[:120]
    assert errors == []


def test_words_and_measures_filter(demo_site: Path, page: Page, errors: list[str]) -> None:
    records = [record for record in records_of(demo_site) if record["layer"] == 1]
    page.goto(f"{demo_site.as_uri()}/L1/index.html")
    page.get_by_label("Filter", exact=True).fill("return behaviours>1 density<20%")
    wanted = [
        str(record["unit"])
        for record in records
        if any("return" in behaviour["label"].lower() for behaviour in record["behaviours"])
        and record["polysemanticity"]["behaviours"] > 1
        and record["stats"]["density"] < 0.2
    ]
    assert wanted
    expect(page.locator("#count")).to_have_text(f"{len(wanted)} of {NARROW}")
    assert [row[0] for row in _rows(page)] == wanted
    # The address says it all.
    address = page.url
    page.goto("about:blank")
    page.goto(address)
    expect(page.locator("#count")).to_have_text(f"{len(wanted)} of {NARROW}")
    page.get_by_label("Filter", exact=True).fill("size>3")
    expect(page.locator("#count")).to_contain_text("There is no measure size: use one of behaviours, main, effective")
    page.get_by_label("Filter", exact=True).fill("max>3.x")
    assert errors == []


def test_a_filter_or_order_in_former_words_works_and_says_the_new_ones(
    demo_site: Path, page: Page, errors: list[str]
) -> None:
    page.goto(f"{demo_site.as_uri()}/L1/index.html?filter=return+number>1+active<20%25&sort=-mono")
    count = page.locator("#count")
    expect(count).to_contain_text("number is now called behaviours. · active is now called density.")
    former = _rows(page)
    page.get_by_label("Filter", exact=True).fill("return behaviours>1 density<20%")
    expect(count).to_have_text(f"{len(former)} of {NARROW}")
    assert [row[0] for row in _rows(page)] == [row[0] for row in former]
    expect(page.locator("[data-column=mono_score]")).to_have_attribute("aria-sort", "descending")
    assert errors == []


def test_a_large_layer_is_read_in_parts_without_scripts_and_as_one_with_them(
    configure: Configure, tmp_path: Path, page: Page, errors: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(layer_table, "ROWS", 10)
    site = build(configure(), tmp_path / "site", executor=ThreadPoolExecutor(1))
    assert check(site, Progress(quiet=True)).problems == []
    page.goto(f"{site.as_uri()}/L0/index.html")
    assert [row[0] for row in _rows(page)] == [str(unit) for unit in range(10)]
    page.get_by_role("link", name="20–23").click()
    page.wait_for_url("**/L0/index-3.html", wait_until="load")
    assert [row[0] for row in _rows(page)] == ["20", "21", "22", "23"]
    page.get_by_role("button", name="Neuron").click()
    expect(page.locator("table.units tbody tr")).to_have_count(24)
    expect(page.locator(".leaves")).to_be_hidden()
    assert errors == []
