"""The tables say what the records say."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from concurrent.futures import Executor
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from atlas_builder import config
from atlas_builder.config_file import validate
from atlas_builder.pipeline.build import build
from atlas_builder.progress import Progress
from atlas_builder.records import tables
from atlas_builder.records.columns import TABLES
from atlas_builder.rounding import significant, significant_all
from atlas_builder.site.hosting.check import check
from atlas_builder.workspace import CONFIGURATION, work_folder
from tests.support.atlases import Configure, records_of, stages_of

QUIET = Progress(quiet=True)


@pytest.fixture(scope="module")
def gated_site(
    configure: Configure, llama_folder: Path, pool: Executor, tmp_path_factory: pytest.TempPathFactory
) -> Path:
    """Neurons with behaviours below zero, of a layer that is not the first."""
    settings = configure(
        model={"name": str(llama_folder)}, units={"layers": [1]}, clusters={"method": "agglomerative", "cut": 0.9}
    )
    return build(settings, tmp_path_factory.mktemp("sites") / "gated", executor=pool)


@pytest.fixture(params=["tiny_site", "demo_site", "hostile_site", "gated_site", "logits_site"])
def site(request: pytest.FixtureRequest) -> Path:
    found: Path = request.getfixturevalue(request.param)
    return found


def _table(site: Path, name: str) -> pa.Table:
    return pq.ParquetFile(site / "tables" / f"{name}.parquet").read()


def _settings(site: Path) -> config.Configuration:
    return validate(json.loads((work_folder(site) / CONFIGURATION).read_bytes()))


def test_a_row_says_of_every_unit_what_its_record_says(site: Path) -> None:
    expected = []
    for record in records_of(site):
        stats = {name: value for name, value in record["stats"].items() if name != "histogram"}
        measures = record["polysemanticity"]
        below = record["negative"]["polysemanticity"] if record["negative"] else dict.fromkeys(measures)
        expected.append(
            {
                **{name: record[name] for name in ("id", "layer", "unit", "kind", "middle_differs")},
                **stats,
                **measures,
                **{f"negative_{name}": value for name, value in below.items()},
                **{f"{way}_f1": record["prediction"][way]["f1"] for way in ("lookup", "context")},
                "graph_f1": None,
                "associations": (record["associations"] or {}).get("named"),
                "importance_share": None,
                "direction_stability": None,
                "token_id": record.get("token", {}).get("id"),
                "token": record.get("token", {}).get("text"),
                "explanation": None,
                "explanation_model": None,
                "page": f"L{record['layer']}/N{record['unit']}.html",
            }
        )
    assert _table(site, "units").to_pylist() == expected


def test_a_row_says_of_every_behaviour_what_its_record_says(site: Path) -> None:
    same = ("sign", "size", "coverage", "stability", "label")
    expected = [
        {
            **{name: record[name] for name in ("id", "layer", "unit")},
            "behaviour": behaviour["id"],
            **{name: behaviour[name] for name in same},
            "page": f"L{record['layer']}/N{record['unit']}.html#b{behaviour['id']}",
        }
        for record in records_of(site)
        for behaviour in record["behaviours"]
    ]
    rows = _table(site, "behaviours")
    assert rows.select(list(expected[0])).to_pylist() == expected
    assert len(expected) >= 10


def test_a_row_lists_of_every_behaviour_what_its_record_lists(site: Path) -> None:
    rows = iter(_table(site, "behaviours").to_pylist())
    for record in records_of(site):
        for behaviour in record["behaviours"]:
            side = record["polysemanticity"] if behaviour["sign"] > 0 else record["negative"]["polysemanticity"]
            is_rare = behaviour["size"] * 20 < side["examples"]  # a record lists less of it
            row = next(rows)
            listed = {
                "tokens": [token for token, _ in behaviour["tokens"]],
                "weights": [weight for _, weight in behaviour["tokens"]],
                "next": [token for token, _ in behaviour["next"]],
                "next_weights": [share for _, share in behaviour["next"]],
                "neighbours": behaviour["neighbours"],
            }
            assert {name: row[name][: len(of)] if is_rare else row[name] for name, of in listed.items()} == listed


def test_a_row_says_of_every_example_where_it_is_and_what_it_is_of(site: Path) -> None:
    rows = _table(site, "examples").to_pylist()
    of: dict[str, list[dict[str, Any]]] = {}
    for row in rows:
        of.setdefault(row["id"], []).append(row)
    for record in records_of(site):
        own = of.get(record["id"], [])
        below = record["negative"]["polysemanticity"]["examples"] if record["negative"] else 0
        assert len(own) == record["polysemanticity"]["examples"] + below
        sizes = [sum(row["behaviour"] == found["id"] for row in own) for found in record["behaviours"]]
        assert sizes == [found["size"] for found in record["behaviours"]]
        listed = {(row["behaviour"], row["document"], row["position"]) for row in own}
        in_bands = {place for band in record["bands"] for place in band["examples"]}
        for place, example in enumerate(record["examples"]):
            if place not in in_bands:
                assert (example["behaviour"], example["document"], example["position"]) in listed


def test_behaviours_below_zero_are_in_the_tables(gated_site: Path) -> None:
    assert set(_table(gated_site, "behaviours")["sign"].to_pylist()) == {1, -1}
    assert sum(_table(gated_site, "units")["negative_behaviours"].to_pylist()) > 0


def test_a_table_says_what_its_columns_mean_and_where_it_is_from(tiny_site: Path) -> None:
    units, behaviours = (_table(tiny_site, name).schema for name in ("units", "behaviours"))
    for schema in (units, behaviours):
        about = {"atlas": "tiny", "edition": "1", "license": "CC-BY-4.0", "records": "neuron-record/1"}
        assert schema.metadata == {name.encode(): value.encode() for name, value in about.items()}
    said = units.field("negative_mono_score").metadata[b"description"].decode()
    assert "MonoScore: mean cosine of pairs of examples" in said
    assert b"share of tokens" in units.field("density").metadata[b"description"]
    assert b"anchor on the page" in behaviours.field("behaviour").metadata[b"description"]


def test_tables_written_again_are_the_same_bytes(site: Path, tmp_path: Path) -> None:
    tables.write_tables(tmp_path, stages_of(work_folder(site)), _settings(site))
    for name in TABLES:
        file = f"{name}.parquet"
        assert (tmp_path / file).read_bytes() == (site / "tables" / file).read_bytes()


def test_a_layer_without_behaviours_has_its_units_and_no_rows(tiny_site: Path, tmp_path: Path) -> None:
    settings = _settings(tiny_site)
    work = Path(shutil.copytree(work_folder(tiny_site), tmp_path / "work"))
    (work / "describe" / "L0.behaviours.json").write_text("[]", encoding="utf-8")
    np.save(work / "cluster" / "L0.behaviours.npy", np.load(work / "cluster" / "L0.behaviours.npy")[:0])
    address = np.load(work / "link" / "address.npy")
    (gone,) = np.nonzero(address[:, 0] == 0)
    neighbours = np.load(work / "link" / "neighbours.npy")
    np.save(work / "link" / "neighbours.npy", np.delete(neighbours, gone, axis=0) * 0)
    for name in ("address", "similarities", "wiring"):
        np.save(work / "link" / f"{name}.npy", np.delete(np.load(work / "link" / f"{name}.npy"), gone, axis=0))
    tables.write_tables(tmp_path / "tables", stages_of(work), settings)
    assert _table(tmp_path, "units").num_rows == 48
    assert set(_table(tmp_path, "behaviours")["layer"].to_pylist()) == {1}


def test_a_layer_is_a_row_group(demo_site: Path) -> None:
    file = pq.ParquetFile(demo_site / "tables" / "units.parquet")
    assert [set(file.read_row_group(group)["layer"].to_pylist()) for group in range(3)] == [{0}, {1}, {2}]


@given(st.lists(st.floats() | st.floats(width=32) | st.decimals(-2, 2, places=5).map(float)))
def test_numbers_of_an_array_are_rounded_as_one_is(values: list[float]) -> None:
    found = [None if np.isnan(value) else value for value in significant_all(values).tolist()]
    assert list(map(repr, found)) == [repr(significant(value)) for value in values]


def test_check_finds_tables_that_are_missing_broken_or_not_of_this_atlas(
    tiny_site: Path, copy_of: Callable[[Path], Path]
) -> None:
    site = copy_of(tiny_site)
    units, behaviours = (site / "tables" / f"{name}.parquet" for name in ("units", "behaviours"))
    whole = pq.read_table(units), pq.read_table(behaviours)

    pq.write_table(whole[1].slice(1), behaviours)
    rows = len(whole[1])
    said = f"tables/behaviours.parquet: {rows - 1} rows do not match the units' {rows} behaviours"
    assert said in check(site, QUIET).problems
    pq.write_table(whole[0].slice(1), units)
    assert "tables/units.parquet: 47 rows do not match the 48 units of atlas.json" in check(site, QUIET).problems
    pq.write_table(whole[0].drop_columns(["max"]), units)
    assert "tables/units.parquet: the column max is missing" in check(site, QUIET).problems
    units.unlink()
    behaviours.write_bytes(behaviours.read_bytes()[:-9])
    problems = check(site, QUIET).problems
    told = {problem.split(" (")[0] for problem in problems}
    assert {"tables/units.parquet: cannot be read", "tables/behaviours.parquet: cannot be read"} <= told
