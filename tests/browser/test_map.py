"""The map as a reader meets it."""

from __future__ import annotations

import json
import re
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from playwright.sync_api import Browser, Page, expect

from atlas_builder.site.hosting.serve import server
from tests.support.map import read_map, unpack

pytestmark = pytest.mark.browser


@dataclass
class Drawn:
    """What the map is made from: places in the unit square, addresses and labels of all behaviours."""

    places: np.ndarray
    names: list[str]
    labels: list[str]

    def on(self, box: dict[str, float]) -> np.ndarray:
        """Where they are on the canvas when all of the map is in view: (behaviours, 2)."""
        size = np.array([box["width"], box["height"]])
        low, high = self.places.min(axis=0), self.places.max(axis=0)
        scale = ((size - 2 * min(40, size[0] / 16)) / (high - low)).min()
        there: np.ndarray = (self.places - (low + high) / 2) * scale + size / 2
        return there

    def alone(self) -> int:
        """The behaviour farthest from all others."""
        apart = ((self.places[:, None] - self.places[None]) ** 2).sum(axis=2)
        np.fill_diagonal(apart, np.inf)
        return int(apart.min(axis=1).argmax())


def drawn(site: Path) -> Drawn:
    data = read_map(site / "map" / "points.js")
    names, labels = [], []
    for layer, _ in data["layers"]:
        match = re.fullmatch(
            r"Atlas\.labels\((.*)\);\n", (site / "search" / f"l{layer}.js").read_text(encoding="utf-8"), re.DOTALL
        )
        assert match
        for unit, own in enumerate(json.loads(f"[{match[1]}]")[1]):
            names += [f"L{layer}/N{unit}.html#b{number}" for number in range(1, len(own) + 1)]
            labels += own
    return Drawn(unpack(data["places"]).reshape(-1, 2) / 65_534, names, labels)


@pytest.fixture(scope="module")
def tiny(tiny_site: Path) -> Drawn:
    return drawn(tiny_site)


@pytest.fixture(params=["file", "http"])
def address(request: pytest.FixtureRequest, tiny_site: Path) -> Iterator[str]:
    if request.param == "file":
        yield tiny_site.as_uri()
        return
    with server(tiny_site, 0) as running:
        threading.Thread(target=running.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{running.server_port}"
        running.shutdown()


@pytest.fixture
def page(page: Page) -> Page:
    page.emulate_media(reduced_motion="reduce")
    return page


def canvas_box(page: Page) -> dict[str, float]:
    found = page.locator("#over").bounding_box()
    assert found
    return {"x": found["x"], "y": found["y"], "width": found["width"], "height": found["height"]}


def link_of(name: str) -> str:
    """`map.html?at=…` for a behaviour's address."""
    return "map.html?at=" + name.replace(".html#", ".")


def test_a_dot_says_what_it_is_and_leads_to_its_page(address: str, tiny: Drawn, page: Page, errors: list[str]) -> None:
    page.goto(f"{address}/map.html")
    box, wanted = canvas_box(page), tiny.alone()
    x, y = tiny.on(box)[wanted]
    page.mouse.move(box["x"] + x + 1, box["y"] + y)
    unit, number = tiny.names[wanted].split(".html#b")
    expect(page.locator("#tip")).to_contain_text(f"{unit}, behaviour {number} of ")
    expect(page.locator("#tip b")).to_have_text(tiny.labels[wanted])
    expect(page.locator("#tip q mark")).to_be_visible()
    page.mouse.down()
    page.mouse.up()
    page.wait_for_url(f"**/{tiny.names[wanted]}")
    assert errors == []


def test_a_link_leads_to_one_behaviour_on_the_map(address: str, tiny: Drawn, page: Page, errors: list[str]) -> None:
    for wanted in (0, len(tiny.names) // 2, len(tiny.names) - 1):
        page.goto(f"{address}/{link_of(tiny.names[wanted])}")
        expect(page.locator("#tip b")).to_have_text(tiny.labels[wanted])
    page.goto(f"{address}/map.html?at=L9/N1.b1")
    expect(page.locator("#lit")).to_have_text("There is no L9/N1.b1 on this map.")
    assert errors == []


def test_a_line_drawn_around_behaviours_lists_them(tiny_site: Path, tiny: Drawn, page: Page, errors: list[str]) -> None:
    page.goto(f"{tiny_site.as_uri()}/map.html")
    box = canvas_box(page)
    at = tiny.on(box)
    low, high = np.quantile(at, 0.1, axis=0), np.quantile(at, 0.8, axis=0)
    corners = [(low[0], low[1]), (high[0], low[1]), (high[0], high[1]), (low[0], high[1])]
    page.keyboard.down("Shift")
    page.mouse.move(box["x"] + corners[0][0], box["y"] + corners[0][1])
    page.mouse.down()
    for x, y in corners[1:]:
        page.mouse.move(box["x"] + x, box["y"] + y)
    page.mouse.up()
    page.keyboard.up("Shift")

    def inside(slack: float) -> set[str]:
        shown = ((at > low - slack) & (at < high + slack)).all(axis=1)
        return {tiny.names[number] for number in np.flatnonzero(shown)}

    expect(page.locator("#inside a").first).to_be_visible()
    listed = page.locator("#inside a").evaluate_all("links => links.map(link => link.getAttribute('href'))")
    assert inside(-1.5) <= set(listed) <= inside(1.5)
    assert 3 < len(listed) < 200
    order = {name: number for number, name in enumerate(tiny.names)}
    assert listed == sorted(listed, key=order.__getitem__)
    expect(page.locator("#chosen-title")).to_contain_text(f"{len(listed)} behaviours of ")
    page.keyboard.press("Escape")
    expect(page.locator("#chosen")).to_be_hidden()
    assert errors == []


def test_the_map_is_used_by_keys_alone(tiny_site: Path, tiny: Drawn, page: Page, errors: list[str]) -> None:
    page.goto(f"{tiny_site.as_uri()}/map.html")

    def in_view() -> list[str]:
        page.locator("#over").focus()
        page.keyboard.press("Enter")
        expect(page.locator("#chosen-title")).to_be_focused()
        expect(page.locator("#inside a").first).to_be_visible()
        found: list[str] = page.locator("#inside a").evaluate_all("all => all.map(link => link.getAttribute('href'))")
        page.locator("#over").focus()
        return found

    assert in_view() == tiny.names
    for key in ("+", "+", "-", "ArrowDown", "ArrowLeft"):
        page.keyboard.press(key)
    box = canvas_box(page)
    size = np.array([box["width"], box["height"]])
    # Around the middle, 1.6 times as large, then 0.18 of the view down and to the left.
    at = (tiny.on(box) - size / 2) * 1.6 + size / 2 + 0.18 * size * [1, -1]
    shown = ((at > 0) & (at < size)).all(axis=1)
    assert 3 < shown.sum() < len(tiny.names)
    assert in_view() == [tiny.names[number] for number in np.flatnonzero(shown)]
    page.keyboard.press("0")
    assert in_view() == tiny.names
    page.keyboard.press("Enter")
    expect(page.locator("#chosen-title")).to_be_focused()
    first = page.locator("#inside a").first
    for _ in range(4):
        page.keyboard.press("Tab")
        if first.evaluate("link => link === document.activeElement"):
            break
    page.keyboard.press("Enter")
    page.wait_for_url(f"**/{tiny.names[0]}")
    assert errors == []


def test_a_word_lights_up_the_labels_that_hold_it(tiny_site: Path, tiny: Drawn, page: Page, errors: list[str]) -> None:
    word = re.findall(r"\w{2,}", " ".join(tiny.labels))[0].lower()
    wanted = sum(word in label.lower() for label in tiny.labels)
    page.goto(f"{tiny_site.as_uri()}/map.html?q={word}")
    expect(page.locator("#lit")).to_have_text(re.compile(f"^{wanted} labels? ha(s|ve) “{word}”.$"))
    expect(page.locator("#word")).to_have_value(word)
    page.locator("#word").fill("zzzqqq")
    expect(page.locator("#lit")).to_have_text("No label has “zzzqqq”.")
    assert page.url.endswith("map.html?q=zzzqqq")
    assert errors == []


def test_layers_come_and_go(tiny_site: Path, tiny: Drawn, page: Page, errors: list[str]) -> None:
    page.goto(f"{tiny_site.as_uri()}/map.html")
    page.get_by_role("checkbox", name="Layer 0").uncheck()
    page.locator("#list").click()
    later = sum(name.startswith("L1/") for name in tiny.names)
    expect(page.locator("#chosen-title")).to_contain_text(f"{later} behaviours of ")
    page.locator("#none").click()
    page.locator("#list").click()
    expect(page.locator("#chosen-title")).to_have_text("No behaviours there")
    assert errors == []


def test_colours_follow_the_question_and_the_theme(tiny_site: Path, page: Page, errors: list[str]) -> None:
    page.goto(f"{tiny_site.as_uri()}/map.html")

    def colours() -> set[str]:
        page.wait_for_timeout(100)
        found: list[str] = page.evaluate(
            "() => { const all = document.getElementById('points');"
            "const drawn = all.getContext('2d').getImageData(0, 0, all.width, all.height).data;"
            "return [...new Set(new Uint32Array(drawn.buffer))].map(String) }"
        )
        return set(found)

    by_layer = colours()
    page.get_by_label("polysemanticity").check()
    by_many = colours()
    assert by_many != by_layer
    expect(page.locator("#ramp")).to_be_visible()
    page.locator("#theme").click()
    assert not colours() & by_many
    assert errors == []


def test_without_scripts_there_is_a_picture(browser: Browser, tiny_site: Path) -> None:
    context = browser.new_context(java_script_enabled=False)
    page = context.new_page()
    page.goto(f"{tiny_site.as_uri()}/map.html")
    expect(page.get_by_role("img", name=re.compile("Map of .* behaviours"))).to_be_visible()
    for hidden in ("#over", ".buttons", "#word", "#layers"):
        expect(page.locator(hidden)).to_be_hidden()
    context.close()


def test_a_finger_chooses_first_and_opens_then(browser: Browser, tiny_site: Path, tiny: Drawn) -> None:
    context = browser.new_context(has_touch=True, viewport={"width": 390, "height": 844}, reduced_motion="reduce")
    page = context.new_page()
    page.goto(f"{tiny_site.as_uri()}/{link_of(tiny.names[tiny.alone()])}")
    expect(page.locator("#tip")).to_be_visible()
    page.goto(f"{tiny_site.as_uri()}/map.html")
    box = canvas_box(page)
    x, y = tiny.on(box)[tiny.alone()]
    page.touchscreen.tap(box["x"] + x, box["y"] + y)
    expect(page.locator("#tip b")).to_have_text(tiny.labels[tiny.alone()])
    page.touchscreen.tap(box["x"] + x, box["y"] + y)
    page.wait_for_url(f"**/{tiny.names[tiny.alone()]}")
    context.close()


def test_hostile_labels_run_nowhere(hostile_site: Path, page: Page, errors: list[str]) -> None:
    page.goto(f"{hostile_site.as_uri()}/map.html?q=script")
    expect(page.locator("#lit")).to_contain_text("“script”")
    page.locator("#list").click()
    expect(page.locator("#inside a").first).to_be_visible()
    page.locator("#inside a").first.hover()
    expect(page.locator("#tip")).to_be_visible()
    page.goto(f"{hostile_site.as_uri()}/map.html?at=%3Cimg%20src=x%20onerror=window.pwned=9%3E&q=%3C/script%3E")
    page.wait_for_timeout(300)
    assert page.evaluate("window.pwned") is None
    assert errors == []
