"""What an atlas says of itself as a whole, compared with what is there."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml

from atlas_builder.config_file import validate
from atlas_builder.site.citing import metadata
from atlas_builder.site.citing.cite import Citation, cite


def _citation(**atlas: object) -> Citation:
    settings = validate(
        {
            "atlas": {"title": "A tiny atlas", "version": "2", "license": "CC0-1.0", **atlas},
            "model": {"name": "demo"},
            "corpus": {"source": "stdlib"},
        }
    )
    return cite(settings, settings.title, "tiny", "index.html", "2026-01-02", description="Every neuron.")


AUTHORS = [{"name": "Doe, Jane", "orcid": "0000-0002-1825-0097"}, {"name": "The others"}]


def _with_tables(site: Path) -> Path:
    (site / "tables").mkdir(exist_ok=True)
    neighbours = pa.array([[{"id": "tiny/L0/N1"}]], pa.list_(pa.struct({"id": pa.string()})))
    columns = {"layer": [3], "density": [0.5], "label": ["a"], "tokens": [["a", "b"]], "neighbours": neighbours}
    schema = pa.table(columns).schema
    schema = schema.set(0, schema.field(0).with_metadata({"description": "Its layer."}))
    pq.write_table(pa.table(columns, schema=schema), site / "tables" / "behaviours.parquet")
    return site


def test_the_site_and_its_facts_name_the_files_that_describe_it(tiny_site: Path) -> None:
    facts = json.loads((tiny_site / "atlas.json").read_bytes())
    home = (tiny_site / "index.html").read_text(encoding="utf-8")
    for name in facts["metadata"].values():
        assert (tiny_site / name).is_file()
        assert f'href="{name}"' in home


def test_croissant_lists_files_with_their_size_and_hash_and_tables_by_column(
    tiny_site: Path, copy_of: Callable[[Path], Path]
) -> None:
    site = _with_tables(copy_of(tiny_site))
    found = metadata.croissant(site, _citation())
    assert found["conformsTo"] == "http://mlcommons.org/croissant/1.1"
    for entry in found["distribution"]:
        content = (site / entry["contentUrl"]).read_bytes()
        assert entry["sha256"] == hashlib.sha256(content).hexdigest()
        assert entry["contentSize"] == f"{len(content)} B"
    (records,) = (entry for entry in found["recordSet"] if entry["@id"] == "behaviours")
    fields = {field["@id"].removeprefix("behaviours/"): field for field in records["field"]}
    types = {name: field["dataType"].removeprefix("sc:") for name, field in fields.items()}
    assert types == {"layer": "Integer", "density": "Float", "label": "Text", "tokens": "Text"}
    assert (fields["tokens"]["isArray"], fields["tokens"]["arrayShape"]) == (True, "-1")
    assert "isArray" not in fields["label"]
    assert fields["layer"]["description"] == "Its layer."
    assert fields["layer"]["source"] == {
        "fileObject": {"@id": "tables/behaviours.parquet"},
        "extract": {"column": "layer"},
    }


def test_an_ro_crate_names_parts_that_are_there_and_no_unit(tiny_site: Path, copy_of: Callable[[Path], Path]) -> None:
    site = _with_tables(copy_of(tiny_site))
    found = metadata.ro_crate(site, _citation(authors=AUTHORS))
    entities = {entity["@id"]: entity for entity in found["@graph"]}
    assert len(entities) == len(found["@graph"])
    assert entities["ro-crate-metadata.json"]["about"] == {"@id": "./"}
    root = entities["./"]
    assert (root["name"], root["version"], root["datePublished"]) == ("A tiny atlas", "2", "2026-01-02")
    parts = [part["@id"] for part in root["hasPart"]]
    assert {"index.html", "atlas.json", "L0/", "L1/", "tables/", "tables/behaviours.parquet"} <= set(parts)
    assert not any(part.startswith("L0/N") for part in parts)
    for part in parts:
        assert (site / part).is_dir() if part.endswith("/") else (site / part).is_file()
    for reference in (*root["author"], root["license"], root["citation"]):
        assert reference["@id"] in entities


def test_the_citation_file_names_people_and_groups(tiny_site: Path) -> None:
    found = yaml.safe_load(metadata.citation_cff(_citation(authors=AUTHORS, doi="10.1234/x")))
    assert found["authors"] == [
        {"family-names": "Doe", "given-names": "Jane", "orcid": "https://orcid.org/0000-0002-1825-0097"},
        {"name": "The others"},
    ]
    assert (found["type"], found["version"], found["doi"]) == ("dataset", "2", "10.1234/x")
    assert yaml.safe_load((tiny_site / "CITATION.cff").read_text(encoding="utf-8"))["title"] == "A tiny atlas"


@pytest.mark.parametrize(
    "version", ["1.10", "1.0", "1e3", "0x10", "0o17", "007", "yes", "2026-01-31", "v1.10", ".5", "+1"]
)
def test_an_edition_is_text_in_the_citation_file_for_readers_of_either_yaml(version: str) -> None:
    text = metadata.citation_cff(_citation(version=version))
    assert yaml.safe_load(text)["version"] == version
    (line,) = (line for line in text.splitlines() if line.startswith("version: "))
    # YAML 1.2 takes for numbers what 1.1 does not.
    assert line == "version: v1.10" or line == f"version: '{version}'"


def test_what_an_atlas_lacks_is_left_out(tiny_site: Path) -> None:
    bare = _citation()
    for found in (metadata.croissant(tiny_site, bare), metadata.ro_crate(tiny_site, bare)["@graph"][1]):
        assert not {"author", "creator", "identifier", "url"} & set(found)
    assert yaml.safe_load(metadata.citation_cff(bare))["authors"] == [{"name": "A tiny atlas"}]
