"""What a reader needs who sees little, or uses no mouse."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Literal

import pytest
from playwright.sync_api import Page, expect

from tests.support.atlases import records_of
from tests.support.browser import KINDS, LOOKS, violations, visit

pytestmark = pytest.mark.browser


@pytest.mark.parametrize("kind", KINDS)
def test_axe_finds_no_fault_in_any_kind_of_page_small_and_light_or_large_and_dark(
    demo_site: Path, tiny_site: Path, page: Page, errors: list[str], kind: str
) -> None:
    # axe takes a second for each forty rows of a table; units of the tiny atlas can be tinted by importance too.
    visit(page, tiny_site if kind in ("layer", "unit") else demo_site, kind)
    for scheme, width in LOOKS:
        page.emulate_media(color_scheme=scheme)
        page.set_viewport_size({"width": width, "height": 900})
        assert violations(page) == [], (scheme, width)
    assert errors == []


def test_axe_finds_no_fault_in_the_prose(demo_site: Path, page: Page) -> None:
    # The width at which tables and code scroll.
    page.set_viewport_size({"width": 390, "height": 900})
    for path in sorted(demo_site.glob("*.html")):
        if path.name in KINDS.values():
            continue  # seen above, in the same window
        page.goto(path.as_uri())
        assert violations(page) == [], path.name


def test_axe_finds_what_is_planted(demo_site: Path, page: Page) -> None:
    visit(page, demo_site, "prose")
    page.evaluate("document.querySelector('h1').innerHTML = '<a href=x><img src=assets/icon.svg></a>'")
    assert {line.split(":")[0] for line in violations(page)} >= {"image-alt", "link-name"}


EASED: dict[str, dict[str, Any]] = {"contrast": {"contrast": "more"}, "forced": {"forced_colors": "active"}}
"""What readers who see little ask their system for."""


@pytest.mark.parametrize("asked", EASED)
@pytest.mark.parametrize("kind", KINDS)
def test_axe_finds_no_fault_with_more_contrast_or_forced_colours(
    demo_site: Path, tiny_site: Path, page: Page, errors: list[str], kind: str, asked: str
) -> None:
    visit(page, tiny_site if kind in ("layer", "unit") else demo_site, kind)
    for scheme in ("light", "dark"):
        page.emulate_media(color_scheme=scheme, **EASED[asked])
        assert violations(page) == [], scheme
    assert errors == []


# Each level's line, and that of a token without a level.
LINES = """() => {
    const line = document.querySelector('.examples p.weighed');
    line.innerHTML = [1, 2, 3, 4, 5, 6, 7, 8, 9].map(level => `<i class="a${level} w${10 - level}">x</i>`).join('')
        + '<i class="a5">x</i>';
    return Array.from(line.children, token => {
        const style = getComputedStyle(token);
        return [style.textDecorationLine, style.textDecorationStyle, style.textDecorationThickness].join(' ');
    });
}"""


@pytest.mark.parametrize("asked", EASED)
def test_lines_show_levels_where_tints_do_not(tiny_site: Path, page: Page, asked: str) -> None:
    unit = next(r for r in records_of(tiny_site) if any("importance" in example for example in r["examples"]))
    page.goto(f"{tiny_site.as_uri()}/L{unit['layer']}/N{unit['unit']}.html")
    assert all(line.startswith("none") for line in page.evaluate(LINES))
    page.emulate_media(**EASED[asked])
    by_activation = page.evaluate(LINES)
    assert by_activation[9] == by_activation[4]
    assert len(set(by_activation)) == 9
    assert all(line.startswith("underline") for line in by_activation)
    # By importance, the levels of the other measure; what has none is plain.
    page.get_by_label("importance").check()
    by_importance = page.evaluate(LINES)
    assert by_importance[:9] == by_activation[:9][::-1]
    assert by_importance[9].startswith("none")


def _style(page: Page, selector: str, name: str, part: str | None = None) -> str:
    script = "([selector, name, part]) => getComputedStyle(document.querySelector(selector), part)[name]"
    found: str = page.evaluate(script, [selector, name, part])
    return found


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_forced_colours_leave_what_only_colours_show(
    demo_site: Path, page: Page, scheme: Literal["light", "dark"]
) -> None:
    page.emulate_media(forced_colors="active", color_scheme=scheme)
    page.goto((demo_site / _with_two_main_behaviours(demo_site)).as_uri())
    ground = _style(page, "body", "backgroundColor")
    for selector, name, part in (
        (".bar .c{}", "stroke", None),
        (".sum .c{}", "backgroundColor", "::before"),
        (".behaviour.c{}", "borderLeftColor", None),
    ):
        colours = {_style(page, selector.format(number), name, part) for number in (1, 2)}
        assert len(colours) == 2, selector
        assert ground not in colours, selector
    assert _style(page, ".histogram .bars", "fill") != ground
    assert _style(page, ".examples mark", "outlineStyle") == "solid"
    for name in ("outlineColor", "color"):
        assert _style(page, ".examples mark", name) == _style(page, "body", "color"), name

    visit(page, demo_site, "map")
    pressed, plain = (_style(page, selector, "backgroundColor") for selector in ("#lasso", "#list"))
    assert pressed == plain
    page.locator("#lasso").click()
    assert _style(page, "#lasso", "backgroundColor") != plain
    page.wait_for_timeout(100)
    drawn = page.evaluate("""() => {
        const dots = document.getElementById('points');
        const data = dots.getContext('2d').getImageData(0, 0, dots.width, dots.height).data;
        return [data.slice(0, 3).join(', '), new Set(new Uint32Array(data.buffer)).size];
    }""")
    assert drawn[0] in _style(page, "body", "backgroundColor")
    assert drawn[1] > 10


def _with_two_main_behaviours(site: Path) -> str:
    for path in sorted(site.glob("L0/N*.json")):
        record = json.loads(path.read_bytes())
        if record["polysemanticity"]["main_behaviours"] >= 2:
            return f"L0/{path.stem}.html"
    raise AssertionError("no unit of the demo has two main behaviours")


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


def test_a_keyboard_sees_where_it_is_with_forced_colours(demo_site: Path, page: Page) -> None:
    page.emulate_media(forced_colors="active")
    hands = Hands(page)
    for kind in ("home", "search", "unit"):
        visit(page, demo_site, kind)
        page.evaluate("document.activeElement.blur()")
        for _ in range(12):
            page.keyboard.press("Tab")
            hands.sees_focus()


def test_a_keyboard_reads_the_map_in_words(demo_site: Path, page: Page, errors: list[str]) -> None:
    page.emulate_media(reduced_motion="reduce")
    visit(page, demo_site, "map")
    hands = Hands(page)
    hands.tab_to("#regions summary")
    page.keyboard.press("Enter")
    expect(page.get_by_role("heading", name="Regions of the map")).to_be_visible()
    assert violations(page) == []
    hands.tab_to("#regions a", most=1)
    target = page.evaluate("document.activeElement.getAttribute('href')")
    page.keyboard.press("Enter")
    page.wait_for_url(f"**/{target}")
    assert errors == []


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
