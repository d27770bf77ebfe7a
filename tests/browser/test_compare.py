"""Atlases compared, in the browser: from a folder, on a phone and a wide screen."""

from __future__ import annotations

from pathlib import Path

import pytest
from playwright.sync_api import Page, expect

from atlas_builder.comparison import compare
from tests.support.browser import FAULTS, LOOKS, WIDTHS, violations

pytestmark = pytest.mark.browser


def test_a_comparison_reads_in_every_window_and_leads_to_its_atlases(
    tiny_site: Path, tmp_path: Path, page: Page, errors: list[str]
) -> None:
    page.goto(compare([tiny_site, tiny_site], tmp_path / "compared").as_uri())
    for width in WIDTHS:
        page.set_viewport_size({"width": width, "height": 900})
        for scheme, _ in LOOKS:
            page.emulate_media(color_scheme=scheme)
            assert page.evaluate(FAULTS) == [], (width, scheme)
    for scheme, width in LOOKS:
        page.emulate_media(color_scheme=scheme)
        page.set_viewport_size({"width": width, "height": 900})
        assert violations(page) == [], (scheme, width)
    page.get_by_role("button", name="Switch between dark and light").click()
    expect(page.locator("html")).to_have_attribute("data-theme", "light")
    match = page.locator(".compared a[href*='#b']").first
    place = match.get_attribute("href")
    match.click()
    assert place
    assert page.url.endswith(place.rsplit("/", 2)[-1])
    expect(page.locator(page.url[page.url.index("#") :])).to_be_in_viewport()
    assert errors == []
