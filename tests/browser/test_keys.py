"""Keys that lead through the atlas."""

from __future__ import annotations

import json
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
