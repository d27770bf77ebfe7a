"""Atlases of output neurons: what their records and pages say of tokens, and of both sides of the range."""

from __future__ import annotations

import copy
import html
import math
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import orjson
import pyarrow.parquet as pq
import pytest

import atlas_builder
from atlas_builder.collect.histogram import fine_histogram
from atlas_builder.collect.results import Selection
from atlas_builder.progress import Progress
from atlas_builder.records.bands import others_between, tokens_below
from atlas_builder.records.schema import content_hash, serialise
from atlas_builder.site.hosting.check import check
from atlas_builder.site.hosting.checks.markup import any_links
from atlas_builder.site.hosting.checks.published import PublishedSite
from atlas_builder.site.names import token_names
from atlas_builder.workspace import work_folder
from tests.attacks.alterations import rehash
from tests.support.atlases import HOSTILE, OUTPUT_TOKENS, records_of, stages_of

QUIET = Progress(quiet=True)
NEVER = [unit for unit, token in enumerate(OUTPUT_TOKENS) if token in ("<", "\n")]


def _page(site: Path, unit: int) -> str:
    return (site / "L2" / f"N{unit}.html").read_text(encoding="utf-8")


def test_a_built_atlas_is_sound(logits_site: Path) -> None:
    assert check(logits_site, QUIET).problems == []


def test_records_tables_and_facts_name_the_token(logits_site: Path) -> None:
    records = records_of(logits_site)
    assert [record["token"]["text"] for record in records] == OUTPUT_TOKENS
    tokens = orjson.loads((logits_site / "atlas.json").read_bytes())["output_tokens"]
    assert tokens == [record["token"] for record in records]
    rows = pq.read_table(logits_site / "tables" / "units.parquet").to_pylist()
    assert [{"id": row["token_id"], "text": row["token"]} for row in rows] == tokens


def test_an_atlas_of_neurons_names_no_token(tiny_site: Path) -> None:
    assert "token" not in records_of(tiny_site)[0]
    assert atlas_builder.open(tiny_site)[0, 0].token is None


def test_a_reader_has_token_and_sides(logits_site: Path) -> None:
    unit = atlas_builder.open(logits_site)[2, 0]
    assert unit.token is not None
    assert unit.token.text == " the"
    assert [band.side for band in unit.bands] == ["own"] * 4 + ["others"] * 5
    assert unit.bands[4].quantiles == (None, 0)
    assert sum(band.positions or 0 for band in unit.bands[:4]) > 10


def test_own_bands_hold_the_positions_where_the_token_comes_next(logits_site: Path) -> None:
    stages = stages_of(work_folder(logits_site))
    (layer,), contexts = stages.collected.layers, stages.collected.contexts
    assert layer.own is not None
    compared = 0
    for record in records_of(logits_site):
        own = np.sort(layer.own["value"][layer.own["unit"] == record["unit"]].astype(np.float64))
        for band in [band for band in record["bands"] if band["side"] == "own"]:
            low, high = (
                len(own) if quantile == 1 else min(math.ceil(quantile * len(own)), max(0, len(own) - 1))
                for quantile in band["quantiles"]
            )
            assert band["positions"] == high - low, "activations are distinct here"
            for place in band["examples"]:
                example = record["examples"][place]
                start = np.searchsorted(contexts.document, example["document"])  # documents are contexts of 32 here
                text = contexts.tokens[contexts.starts[start] :]
                assert stages.collected.token_texts[text[example["position"] + 1]] == record["token"]["text"]
                compared += 1
    assert compared > 50


def test_others_are_estimated_from_the_histogram(logits_site: Path) -> None:
    (layer,) = stages_of(work_folder(logits_site)).collected.layers
    records = records_of(logits_site)
    for record in records:
        if bands := record["bands"]:
            assert sum(band["positions"] for band in bands) == pytest.approx(record["stats"]["tokens"], rel=0.06, abs=3)
    counts = layer.histogram[0]
    assert tokens_below(counts, np.array([-np.inf, 1e9]), (-1e9, 1e9)).tolist() == [0, counts.sum()]
    assert tokens_below(counts, np.array([-np.inf, 0, 0, 0]), (0, 0)).tolist() == [0, 0, 0, counts.sum()]


def test_the_middle_is_that_of_own_positions(logits_site: Path) -> None:
    for record in records_of(logits_site):
        own = [band["p"] for band in record["bands"] if band["side"] == "own"]
        assert record["middle_differs"] == any(p is not None and p < 0.001 for p in own[:-1])


def test_equal_own_positions_are_not_taken_for_others() -> None:
    own = np.array([20.1] + 900 * [23.3], np.float32)
    others = np.full(50, 4.0, np.float32)
    histogram = fine_histogram(np.concatenate([own, others]))
    edges = np.array([-np.inf, *np.sort(own)[[0, 90, 450]], own.max()], np.float64)
    assert others_between(histogram, own, edges, (4.0, float(own.max()))).tolist() == [50, 0, 0, 0]


@pytest.mark.parametrize("unit", NEVER)
def test_a_token_that_never_comes_next_has_no_bands_and_its_page_says_so(logits_site: Path, unit: int) -> None:
    record = records_of(logits_site)[unit]
    assert record["bands"] == []
    assert not record["middle_differs"]
    text = re.sub(r"<[^>]+>", "", _page(logits_site, unit))
    assert "never comes next in this text, so its range has no bands" in html.unescape(text)


def test_pages_name_the_token(logits_site: Path) -> None:
    page = _page(logits_site, 2)
    assert "<title>Output neuron “␣def”, A tiny atlas</title>" in page
    assert "<h1>Output neuron “␣def”</h1>" in page
    assert '<meta name=citation_title property=og:title content="Output neuron “␣def”">' in page
    assert "“␣def” comes next <small>" in page
    assert "“␣def” does not come next <small>about " in page
    table = (logits_site / "L2" / "index.html").read_text(encoding="utf-8")
    assert "<h1>Output neurons</h1>" in table
    assert '<a href="N2.html">“␣def”</a>' in table
    home = (logits_site / "index.html").read_text(encoding="utf-8")
    assert "Layer 2" not in home + table + page
    assert "<title>Output neuron “&lt;”," in _page(logits_site, NEVER[0])


def test_what_output_neurons_have_not_is_absent(logits_site: Path) -> None:
    for unit, record in enumerate(records_of(logits_site)):
        page = _page(logits_site, unit)
        for heading in ("Direct logit effect", "Steering", "Negative activations", "fed by", "<i>feeds"):
            assert heading not in page
        assert record["logits"] == {"positive": [], "negative": []}
        assert record["steering"] is None


def test_an_own_example_marks_the_token_that_came(logits_site: Path) -> None:
    own, others = _page(logits_site, 2).split("does not come next <small>")
    strips = own.split("comes next <small>")[1]
    assert re.search(r"<dd>[^\n]*<b>(<i [^>]*>)? def(</i>)?</b>", strips)
    assert "<b> def</b>" not in others.split("</dl>")[0]


@pytest.mark.parametrize(
    ("name", "change"),
    [
        ("side", lambda record: record["bands"][0].update(side="others")),
        ("no side", lambda record: [band.pop("side") for band in record["bands"]]),
        ("order of sides", lambda record: record["bands"].reverse()),
        ("quantile", lambda record: record["bands"][1].update(quantiles=[0.1, 0.4])),
        ("below", lambda record: record["bands"][4].update(quantiles=[0, 0])),
        ("range", lambda record: record["bands"][1].update(range=[-100, 100])),
        ("positions", lambda record: record["bands"][0].update(positions=record["bands"][0]["positions"] + 100)),
        ("others", lambda record: record["bands"][6].update(positions=10 * record["bands"][6]["positions"])),
        ("p", lambda record: record["bands"][0].update(p=0.5)),
        ("middle", lambda record: record.update(middle_differs=not record["middle_differs"])),
        ("token", lambda record: record["token"].update(text=" deaf")),
        ("token id", lambda record: record["token"].update(id=1)),
        ("no token", lambda record: record.pop("token")),
    ],
)
def test_an_altered_side_quantile_or_token_is_found(
    logits_site: Path, copy_of: Callable[[Path], Path], name: str, change: Callable[[dict[str, Any]], object]
) -> None:
    site = copy_of(logits_site)
    path = site / "L2" / "N0.json"
    record = orjson.loads(path.read_bytes())
    before = copy.deepcopy(record)
    change(record)
    assert record != before
    record["hash"] = content_hash(record)
    path.write_bytes(serialise(record))
    rehash(site, logits_site)
    assert any(problem.startswith("L2/N0.json: ") for problem in check(site, QUIET).problems), name


def test_an_altered_name_of_the_index_or_map_is_found(logits_site: Path, copy_of: Callable[[Path], Path]) -> None:
    site = copy_of(logits_site)
    for name in ("search/index.js", "map/points.js"):
        text = (site / name).read_text(encoding="utf-8")
        assert "“␣def”" in text
        (site / name).write_text(text.replace("“␣def”", "“␣deaf”"), encoding="utf-8")
    rehash(site, logits_site)
    problems = check(site, QUIET).problems
    assert any(problem.startswith("search/index.js") for problem in problems)
    assert any(problem.startswith("map/points.js") for problem in problems)


@pytest.mark.parametrize(
    "text", [*HOSTILE, "</title><script>window.pwned=9</script>", '"><img src=x onerror=alert(1)>']
)
def test_a_hostile_token_is_text_wherever_it_names_a_unit(logits_site: Path, text: str) -> None:
    text = text.encode("utf-8", "replace").decode()
    facts = orjson.loads((logits_site / "atlas.json").read_bytes())
    record = records_of(logits_site)[0]
    facts["output_tokens"][0]["text"] = record["token"]["text"] = text
    site = PublishedSite.at(logits_site, facts)
    planes = {1: (np.zeros((0, 2), np.float32), np.zeros(0, np.int32), float("nan"))}
    page = site.pages.unit(record, planes, site.labels, site.around(0), Selection(0.0, 0, filled=True))
    assert any_links(page).objections == []
    title = re.search("<title>(.*?)</title>", page, re.DOTALL)
    assert title is not None
    assert html.unescape(title[1]) == f"Output neuron {token_names([record['token']])[0]}, A tiny atlas"
    assert "\u202e" not in page
    (table,) = site.pages.layer(2, [], [2]).values()
    assert any_links(table).objections == []


def test_a_token_without_text_is_named_by_its_number() -> None:
    assert token_names([{"id": 7, "text": ""}, {"id": 8, "text": "  "}, {"id": 9, "text": "\n a "}]) == [
        "token 7",
        "“␣␣”",
        "“↵ a␣”",
    ]
