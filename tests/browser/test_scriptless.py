"""With scripts off nothing is lost of what a record says."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Browser, Page

from atlas_builder.corpus.token_text import join_tokens
from atlas_builder.rounding import number, percent
from tests.support.models import NARROW

pytestmark = pytest.mark.browser

_NUMBER = re.compile(r"[<>]?−?\d[\d,]*(?:\.\d+)?(?:e[-+−]?\d+)?%?")


@pytest.fixture
def scriptless(browser: Browser) -> Iterator[Page]:
    context = browser.new_context(java_script_enabled=False)
    yield context.new_page()
    context.close()


def _letters(text: str) -> str:
    """What is left of a text whatever signs stand for its spaces and controls."""
    return re.sub(r"U\+[0-9A-F]{4}|[^a-zA-Z0-9]", "", text)


def _numbers(record: dict[str, Any]) -> Iterator[tuple[str, str]]:
    """The numbers of a record as people read them, with where they stand."""
    stats, measures = record["stats"], record["polysemanticity"]
    yield "max", number(stats["max"])
    yield "mean", number(stats["mean"])
    yield "std", number(stats["std"])
    yield "density", percent(stats["density"])
    yield "behaviours", str(measures["behaviours"])
    yield "noise_fraction", percent(measures["noise_fraction"])
    for name in ("effective_behaviours", "mean_distance", "max_distance", "intra_distance", "inter_distance"):
        if measures[name] is not None:
            yield name, number(measures[name])
    for behaviour in record["behaviours"]:
        yield f"size of {behaviour['id']}", f"{behaviour['size']:,}"
        yield f"coverage of {behaviour['id']}", percent(behaviour["coverage"])
    for side in ("positive", "negative"):
        for token, value in record["logits"][side][:8]:
            yield f"logit of {token!r}", number(value, 2)
    for example in _shown(record):
        yield f"value at {example['position']}", number(example["values"][example["key"]])


def _shown(record: dict[str, Any]) -> list[dict[str, Any]]:
    """The examples of its behaviours."""
    places = [place for behaviour in record["behaviours"] for place in behaviour["examples"]]
    return [record["examples"][place] for place in places]


def test_a_page_without_scripts_says_all_that_its_record_says(demo_site: Path, scriptless: Page) -> None:
    paths = sorted(demo_site.glob("L*/N*.json"))
    checked = 0
    for path in paths[:: len(paths) // 24]:
        record = json.loads(path.read_bytes())
        scriptless.goto(path.with_suffix(".html").as_uri())
        # Parts that a reader opens count, parts that only a script would show do not.
        text = "".join(
            scriptless.locator("main :not([hidden], [hidden] *)").evaluate_all("""found =>
            found.flatMap(element => Array.from(element.childNodes))
                .filter(node => node.nodeType === Node.TEXT_NODE).map(node => node.data + ' ')""")
        )
        said, letters = set(_NUMBER.findall(text)), _letters(scriptless.locator("main").inner_text())
        for where, value in _numbers(record):
            assert value in said, (record["id"], where, value)
        for behaviour in record["behaviours"]:
            assert scriptless.locator(f"#b{behaviour['id']}").is_visible()
            assert _letters(behaviour["label"]) in letters, (record["id"], behaviour["label"])
            for near in behaviour["neighbours"]:
                _, layer, unit = near["id"].split("/")
                place = unit if layer == f"L{record['layer']}" else f"../{layer}/{unit}"
                link = f'#b{behaviour["id"]} a[href="{place}.html#b{near["behaviour"]}"]'
                assert scriptless.locator(link).is_visible()
        # Those of its bands and those in no behaviour too.
        for example in record["examples"]:
            assert _letters(join_tokens(example["tokens"])) in letters, (record["id"], example["position"])
            checked += 1
    assert checked > 100


def test_a_layer_without_scripts_lists_every_unit_and_its_numbers(demo_site: Path, scriptless: Page) -> None:
    scriptless.goto(f"{demo_site.as_uri()}/L2/index.html")
    rows = scriptless.locator("table.units tbody tr").all_inner_texts()
    assert len(rows) == NARROW
    for unit in range(0, NARROW, 12):
        record = json.loads((demo_site / f"L2/N{unit}.json").read_bytes())
        said = set(_NUMBER.findall(rows[unit]))
        assert {str(unit), number(record["stats"]["max"]), percent(record["stats"]["density"])} <= said
        assert str(record["polysemanticity"]["behaviours"]) in said
