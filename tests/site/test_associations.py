"""What pages say of a unit's associations, and what `check` says of those that cannot be."""

from __future__ import annotations

import copy
import html
import json
import math
import re
from pathlib import Path
from typing import Any

import html5lib
import numpy as np
import pytest

from atlas_builder.collect.results import Selection
from atlas_builder.records.address import UnitAddress
from atlas_builder.records.validation import schema_problem
from atlas_builder.site.hosting.checks.associations import association_problems
from atlas_builder.site.hosting.checks.published import PublishedSite
from tests.support.atlases import HOSTILE, records_of

Record = dict[str, Any]
MIDDLE = {"token": " def", "effect": -0.21, "top": 0.04, "middle": 0.31, "below": 0.02, "p": 0.004975}
TOP = {"field": "genre", "value": "code", "effect": 0.1, "top": 0.5, "middle": 0.4, "below": None, "p": 0.00995}


@pytest.fixture
def record(tiny_site: Path) -> Record:
    """Of a unit with a range, with two associations."""
    one = copy.deepcopy(next(record for record in records_of(tiny_site) if record["bands"]))
    one["associations"] = {"tested": 143, "draws": 700, "named": 2, "found": [{**MIDDLE}, {**TOP}]}
    return one


@pytest.fixture
def facts(tiny_site: Path) -> dict[str, Any]:
    read: dict[str, Any] = json.loads((tiny_site / "atlas.json").read_bytes())
    read["configuration"]["describe"]["associations"] = True
    return read


def _page(site: Path, record: Record) -> str:
    published = PublishedSite.at(site, json.loads((site / "atlas.json").read_bytes()))
    place = published.place(UnitAddress(record["layer"], record["unit"]))
    around, selection = published.around(place), Selection(0.0, 0, filled=True)
    planes = dict.fromkeys((1, -1), (np.zeros((0, 2), np.float32), np.zeros(0, np.int32), math.nan))
    return published.pages.unit(record, planes, published.labels, around, selection)


def _said(page: str) -> str:
    """The text of a page, without markup."""
    return html.unescape(re.sub(r"\s+", " ", re.sub(r"<[^>]*>", "", page)))


def test_a_page_says_what_goes_with_the_middle_and_the_top(tiny_site: Path, record: Record) -> None:
    said = _said(_page(tiny_site, record))
    assert (
        "In its middle, more often after ␣def: 31% of tokens drawn there, 4% at its top, 2% below "
        "(effect −0.21, p 0.005)" in said
    )
    assert (
        "At its top, more often in documents whose genre is “code”: 50% of tokens drawn there, 40% in its middle "
        "(effect 0.1, p 0.01)" in said
    )
    assert "“After”: the token is the key token or one of the 20 before it." in said
    assert "2 of 143 tokens tested; p is corrected for all tested." in said


def test_a_page_says_where_nothing_was_found_or_tested_and_nothing_where_not_measured(
    tiny_site: Path, record: Record
) -> None:
    record["associations"] |= {"named": 0, "found": []}
    assert "None of 143 tokens goes with the middle or the top beyond chance." in _said(_page(tiny_site, record))
    record["associations"] |= {"tested": 0}
    assert "Too little was drawn from the middle and the top" in _said(_page(tiny_site, record))
    record["associations"] = None
    assert "Associations" not in _page(tiny_site, record)


def test_no_name_of_an_association_becomes_markup(tiny_site: Path, record: Record) -> None:
    hostile = [text.encode("utf-8", "replace").decode() for text in HOSTILE]
    record["associations"]["found"] = [
        *({**MIDDLE, "token": text} for text in hostile),
        *({**TOP, "field": text, "value": text} for text in hostile),
    ]
    page = _page(tiny_site, record)
    parser = html5lib.HTMLParser(namespaceHTMLElements=False)
    root = parser.parse(page)
    assert parser.errors == []
    assert "pwned" not in "".join(script.text or "" for script in root.iter("script"))
    assert not any(tag.get("onerror") for tag in root.iter())


def test_an_atlas_that_names_none_has_null_in_every_record(tiny_site: Path) -> None:
    assert all(record["associations"] is None for record in records_of(tiny_site))


def _altered(record: Record, place: int = 0, **changes: Any) -> Record:
    other = copy.deepcopy(record)
    other["associations"]["found"][place] |= changes
    return other


def test_sound_associations_pass_and_altered_ones_do_not(record: Record, facts: dict[str, Any]) -> None:
    assert list(association_problems(record, facts)) == []
    assert schema_problem(record) is None
    numbers = (("named", 1), ("named", 3), ("tested", 1), ("draws", 10_000))
    altered = [
        _altered(record, effect=0.21),
        _altered(record, effect=-0.04),
        _altered(record, p=0.02),
        _altered(record, p=0.0012),
        _altered(record, top=0.5),
        _altered(record, field="genre"),
        _altered(record, 1, effect=0.3),
        _altered(record, 1, token=" def"),
        {**record, "bands": []},
        {**record, "associations": None},
        *({**record, "associations": {**record["associations"], name: value}} for name, value in numbers),
    ]
    for one in altered:
        assert list(association_problems(one, facts)), one["associations"]
    facts["configuration"]["describe"]["associations"] = None
    assert list(association_problems(record, facts))


@pytest.mark.parametrize("change", [{"effect": 0.6}, {"p": 1.5}, {"middle": None}, {"top": 1.2}, {"token": 3}])
def test_the_schema_refuses_numbers_out_of_range(record: Record, change: dict[str, Any]) -> None:
    problem = schema_problem(_altered(record, **change))
    assert (problem is None) == (change == {"middle": None})
