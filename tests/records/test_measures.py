from __future__ import annotations

from dataclasses import fields
from pathlib import Path
from typing import get_args

from atlas_builder.cluster.run import MEASURES_DTYPE
from atlas_builder.config import UnitSettings
from atlas_builder.reader import Polysemanticity
from atlas_builder.records.kinds import KINDS
from atlas_builder.records.measures import MEASURES, OF_CLUSTERS
from atlas_builder.records.schema import schema

METHODS = Path(__file__).parent.parent.parent / "site_config" / "docs" / "methods.md"


def test_the_table_lists_what_clusters_are_measured_by() -> None:
    assert {measure.path[-1] for measure in OF_CLUSTERS} == set(MEASURES_DTYPE.names or ())
    for measure in OF_CLUSTERS:
        assert (MEASURES_DTYPE[measure.name].kind == "i") == (measure.values == "count")


def test_a_reader_has_an_attribute_for_each() -> None:
    assert {field.name for field in fields(Polysemanticity)} == {measure.path[-1] for measure in OF_CLUSTERS}


def test_names_and_filters_mean_one_thing_each() -> None:
    words = [measure.word for measure in MEASURES] + [measure.former for measure in MEASURES if measure.former]
    assert len(set(words)) == len(words)
    assert len({measure.name for measure in MEASURES}) == len({measure.title for measure in MEASURES}) == len(MEASURES)


def test_the_schema_describes_each_of_them() -> None:
    for measure in MEASURES:
        node = schema()
        for step in measure.path:
            node = node["properties"][step]
            if "$ref" in node:
                node = schema()["$defs"][node["$ref"].rpartition("/")[2]]
        assert node["type"], measure.name


def test_methods_define_each_that_is_shown() -> None:
    text = METHODS.read_text(encoding="utf-8").casefold()
    for measure in MEASURES:
        if measure.shown:
            assert measure.title.casefold() in text, measure.title


def test_each_kind_that_a_configuration_can_ask_for_has_a_name() -> None:
    assert set(KINDS) == set(get_args(UnitSettings.model_fields["kind"].annotation))
