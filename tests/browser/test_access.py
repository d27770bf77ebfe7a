"""What a reader needs who sees little, or uses no mouse."""

from __future__ import annotations

from pathlib import Path

import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Page, expect

from tests.browser.conftest import KINDS, visit

pytestmark = pytest.mark.browser


def violations(page: Page) -> list[str]:
    """What axe objects to on the page as it is; `preload` would fetch style sheets, which the policy forbids."""
    found = Axe().run(page, options={"preload": False}).response["violations"]
    return [f"{rule['id']}: {node['html'][:120]}" for rule in found for node in rule["nodes"]]


@pytest.mark.parametrize("kind", KINDS)
def test_axe_finds_no_fault_in_any_kind_of_page_small_and_light_or_large_and_dark(
    demo_site: Path, tiny_site: Path, page: Page, errors: list[str], kind: str
) -> None:
    # axe takes a second for each forty rows of a table; units of the tiny atlas can be tinted by importance too.
    visit(page, tiny_site if kind in ("layer", "unit") else demo_site, kind)
    for scheme, width in (("light", 390), ("dark", 1280)):
        page.emulate_media(color_scheme=scheme)
        page.set_viewport_size({"width": width, "height": 900})
        assert violations(page) == [], (scheme, width)
    assert errors == []


def test_axe_finds_no_fault_in_the_prose(demo_site: Path, page: Page) -> None:
    # The width at which tables and code scroll.
    page.set_viewport_size({"width": 390, "height": 900})
    for path in sorted(demo_site.glob("*.html")):
        page.goto(path.as_uri())
        assert violations(page) == [], path.name


def test_axe_finds_what_is_planted(demo_site: Path, page: Page) -> None:
    visit(page, demo_site, "prose")
    page.evaluate("document.querySelector('h1').innerHTML = '<a href=x><img src=assets/icon.svg></a>'")
    assert {line.split(":")[0] for line in violations(page)} >= {"image-alt", "link-name"}


class Hands:
    """A reader with a keyboard alone, who must see at each step where they are."""

    def __init__(self, page: Page) -> None:
        self.page = page

    def tab_to(self, selector: str, most: int = 60) -> None:
        """Press Tab until what the selector names has the focus."""
        for _ in range(most):
            self.page.keyboard.press("Tab")
            self.sees_focus()
            if self.page.evaluate("wanted => document.activeElement.matches(wanted)", selector):
                return
        pytest.fail(f"no {selector} within {most} presses of Tab")

    def sees_focus(self) -> None:
        """The element with the focus lies in the window and has a ring."""
        found = self.page.evaluate("""() => {
            const element = document.activeElement, style = getComputedStyle(element);
            const box = element.getBoundingClientRect();
            return {
                what: element.outerHTML.slice(0, 120),
                within: element !== document.body && box.width > 0 && box.bottom > 0 && box.top < innerHeight
                    && box.right > 0 && box.left < innerWidth,
                ring: style.outlineStyle !== 'none' && parseFloat(style.outlineWidth) >= 1,
            };
        }""")
        assert found["within"], found
        assert found["ring"], found


def test_a_keyboard_leads_from_home_through_search_to_a_unit_its_behaviour_and_its_citation(
    demo_site: Path, page: Page, errors: list[str]
) -> None:
    hands = Hands(page)
    page.emulate_media(reduced_motion="reduce")
    page.goto(f"{demo_site.as_uri()}/index.html")
    hands.tab_to("a.skip", most=1)
    page.keyboard.press("/")
    hands.sees_focus()
    page.keyboard.type("return")
    page.keyboard.press("Enter")

    expect(page.locator("#results a").first).to_be_visible()
    hands.tab_to("#results a")
    page.keyboard.press("Enter")

    page.wait_for_url("**/L*/N*.html#b*")
    behaviour = f"#{page.url.split('#')[1]}"
    # The address led to the behaviour, and so does the first Tab.
    hands.tab_to(f"{behaviour} a", most=1)
    page.keyboard.press("Enter")
    assert page.url.endswith(behaviour)

    hands.tab_to(".cite summary", most=400)
    page.keyboard.press("Enter")
    expect(page.locator(".cite details pre").first).to_be_visible()
    expect(page.locator(".cite details pre").first).to_contain_text("@misc{")

    here = page.url.split("#")[0]
    page.keyboard.press("ArrowRight")
    page.wait_for_url(lambda url: url != here and "#" not in url)
    assert errors == []
