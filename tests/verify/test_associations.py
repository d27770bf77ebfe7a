"""Associations of a built atlas, drawn and tested again."""

from __future__ import annotations

import json
from concurrent.futures import Executor
from pathlib import Path
from typing import Any

import pytest

from atlas_builder.pipeline.build import build
from atlas_builder.records.address import UnitAddress
from atlas_builder.records.schema import content_hash, serialise
from atlas_builder.verify.run import verify
from tests.support.atlases import Configure, Once, records_of

Record = dict[str, Any]
_QUICK = {"importance": "none", "prediction": False, "associations": True}


@pytest.fixture(scope="module")
def associated_site(configure: Configure, pool: Executor, once: Once) -> Path:
    """An atlas whose small draws leave room for what is not drawn, of a model that goes with words before."""
    settings = configure(
        units={"layers": [0]},
        corpus={"context": 16},
        examples={"association_draws": 100, "bands": [0, 0.3, 0.7, 1]},
        describe=_QUICK,
        link={"map": False},
    )
    return once("associated", lambda output: build(settings, output, executor=pool))


def test_associations_that_were_named_hold(associated_site: Path) -> None:
    records = records_of(associated_site)
    assert any(record["associations"]["found"] for record in records)
    report = verify(associated_site, units=24)
    assert report.problems == []
    assert report.compared["associations"] > 24 * 3
