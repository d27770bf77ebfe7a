"""What Python and the pages' scripts both compute comes out the same."""

from __future__ import annotations

import json
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from playwright.sync_api import Browser, Page

from atlas_builder import rounding
from atlas_builder.corpus import token_text
from atlas_builder.site import constants
from atlas_builder.site.citing.cite import TEX
from atlas_builder.site.search import postings
from atlas_builder.site.theme import find_theme

pytestmark = pytest.mark.browser


@pytest.fixture(scope="module")
def scripts(browser: Browser, tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Page]:
    """Opens an empty page with the shared constants and some scripts of the theme."""
    assets = find_theme("atlas") / "assets"

    def load(*names: str) -> Page:
        page = browser.new_page()
        page.set_content("<body data-root=''>")
        page.add_script_tag(content=constants.script().decode())
        for name in names:
            page.add_script_tag(content=(assets / name).read_text(encoding="utf-8"))
        return page

    return load


def _numbers() -> list[float]:
    chance = random.Random(0)
    found = [sign * chance.random() * 10.0 ** chance.randint(-8, 8) for sign in (1, -1) for _ in range(3_000)]
    # Halfway between two roundings, as binary has it exactly, and just beside.
    halves = [whole / 2**bits for bits in range(1, 12) for whole in range(1, 200)]
    near = [float(np.nextafter(value, way)) for value in halves for way in (0.0, np.inf)]
    return [0.0, 1.0, 0.005, 0.995, 1e-4, 99.95, 999.5, *found, *halves, *near]


@pytest.mark.parametrize("digits", [1, 2, 3, 4])
def test_numbers_read_alike(scripts: Callable[..., Page], digits: int) -> None:
    values = _numbers()
    page = scripts("number-format.js")
    found = page.evaluate("([values, digits]) => values.map(value => Atlas.number(value, digits))", [values, digits])
    wrong = [(value, own) for value, own in zip(values, found, strict=True) if own != rounding.number(value, digits)]
    assert wrong == []


def test_shares_read_alike(scripts: Callable[..., Page]) -> None:
    values = [value for value in _numbers() if 0 <= value <= 1] + [number / 1000 for number in range(1001)]
    found = scripts("number-format.js").evaluate("values => values.map(value => Atlas.percent(value))", values)
    assert [pair for pair in zip(values, found, strict=True) if pair[1] != rounding.percent(pair[0])] == []


def test_what_cannot_be_seen_is_spelt_out_alike(scripts: Callable[..., Page]) -> None:
    # A lone surrogate has no place in JSON between the two, so it is made from its number there.
    codes = [*range(0x3000), *range(0xD700, 0x10000), *range(0x1FFF0, 0x20002), *range(0xE0000, 0xE1010), 0x10FFFF]
    found = scripts("atlas.js").evaluate(
        """codes => codes.map(code => {
            const character = String.fromCodePoint(code), spelt = Atlas.visible(character);
            return spelt === character ? '' : spelt;
        })""",
        codes,
    )
    wanted = ["" if (spelt := token_text.plain(chr(code))) == chr(code) else spelt for code in codes]
    assert [trio for trio in zip(codes, found, wanted, strict=True) if trio[1] != trio[2]] == []
    assert "" in wanted
    assert "U+200B" in wanted


def test_numbers_of_the_index_are_read_as_they_were_written(scripts: Callable[..., Page]) -> None:
    chance = random.Random(1)
    wanted = [0, 31, 32, 1023, 1024, 2**26 - 1, *(chance.randrange(2 ** chance.randint(1, 26)) for _ in range(5_000))]
    written, _ = postings.written(np.array(wanted))
    page = scripts("atlas.js", "search-index.js")
    assert page.evaluate("text => Array.from(Atlas.search.numbers(text))", written) == wanted


def test_the_published_constants_are_those_of_python(tiny_site: Path) -> None:
    published = (tiny_site / "assets" / "constants.js").read_bytes()
    assert published == constants.script()
    found: dict[str, Any] = json.loads(published.split(b".constants = ")[1].removesuffix(b";\n"))
    assert found["tex"] == TEX
