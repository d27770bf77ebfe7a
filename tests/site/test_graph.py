"""How directions interact, as pages draw and tell it, and how `check` compares that with the table of edges."""

from __future__ import annotations

import re
import shutil
import xml.etree.ElementTree as ET
from collections.abc import Callable
from concurrent.futures import Executor
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest

from atlas_builder.pipeline.build import build
from atlas_builder.progress import Progress
from atlas_builder.records.columns import EdgeRow
from atlas_builder.site.graph import Graph, interaction_addresses
from atlas_builder.site.graph_figures import colour_of, model_graph, module_graph, pair_graph
from atlas_builder.site.hosting.check import check
from atlas_builder.site.hosting.checks.edges import edge_problems
from atlas_builder.site.summary import Summary
from tests.support.atlases import Configure, Once, records_of

PAIR = {"before": 2, "after": 5, "floor": 0.5, "edges": 4}
FACTS: dict[str, Any] = {"pairs": [PAIR], "modules": 2}
ROWS = [EdgeRow(2, 0, 5, 0, 8.0), EdgeRow(2, 0, 5, 1, 2.0), EdgeRow(2, 1, 5, 2, 1.0), EdgeRow(2, 2, 5, 2, 0.5)]
MODULES = {(2, 0): 1, (5, 0): 1, (5, 1): 1, (2, 1): 2, (5, 2): 2}


def direction(layer: int, unit: int, label: str = "import <os>") -> Summary:
    ends: dict[str, list[list[float]]] = {"in": [], "out": []}
    for row in ROWS:
        if (row.layer_before, row.direction_before) == (layer, unit):
            ends["out"].append([row.layer_after, row.direction_after, row.strength])
        if (row.layer_after, row.direction_after) == (layer, unit):
            ends["in"].append([row.layer_before, row.direction_before, row.strength])
    said = {"rank": unit + 1, "share": 0.5 / (unit + 1), "module": MODULES.get((layer, unit)), "edges": ends}
    tokens = {" import": 0.6, f"own {layer} {unit}": 0.9}
    return Summary(layer, unit, [label], {}, direction=said, tokens=tokens)


@pytest.fixture
def layers() -> dict[int, list[Summary]]:
    return {layer: [direction(layer, unit) for unit in range(4)] for layer in (2, 5)}


@pytest.fixture
def graph(layers: dict[int, list[Summary]]) -> Graph:
    return Graph.of(layers, FACTS, ROWS)


def as_tree(svg: str) -> ET.Element:
    """An SVG as elements; HTML allows attributes without quotes, XML does not."""
    return ET.fromstring(re.sub(r"""=([^\s"'>]+)(?=[\s/>])""", r'="\1"', svg))


def test_a_module_has_its_members_inner_edges_and_shared_tokens(graph: Graph) -> None:
    one, other = graph.modules
    assert [member.name for member in one.members] == ["L2/N0", "L5/N0", "L5/N1"]
    assert [edge.strength for edge in one.edges] == [8.0, 2.0]
    assert [edge.strength for edge in other.edges] == [1.0]  # 0.5 comes from a direction of none
    assert [(token, count) for token, count, _ in one.shared] == [(" import", 3)]
    assert one.shared[0][2] == pytest.approx(1.8)
    assert interaction_addresses({"kind": "basis", "interaction": FACTS}) == [
        "interaction.html", "modules/M1.html", "modules/M2.html",
    ]  # fmt: skip
    assert interaction_addresses({"kind": "mlp"}) == []


def test_every_direction_that_is_drawn_is_a_link_with_a_name(graph: Graph) -> None:
    pictures = [
        (model_graph(graph, 3), 6),
        (pair_graph(graph, graph.pairs[0], 2), 4),
        (module_graph(graph, graph.modules[0], 16, "../"), 3),
    ]
    for picture, directions in pictures:
        tree = as_tree(str(picture))
        assert tree.get("role") == "group"  # a picture may hold no links
        assert str(directions) in str(tree.get("aria-label"))
        links = [link for link in tree.iter("a") if link.find("circle") is not None]
        assert len(links) == directions
        assert all(re.fullmatch(r"(\.\./)?L\d/N\d\.html", str(link.get("href"))) for link in links)
        titles = [str(link.findtext("title")) for link in links]
        assert titles[0].startswith("Direction 0 of layer 2, “import <os>”: 50% of its layer’s importance, module 1")
        width, height = map(float, str(tree.get("viewBox")).split()[2:])
        for dot in tree.iter("circle"):
            radius = float(str(dot.get("r")))
            assert radius <= float(str(dot.get("cx"))) <= width - radius
            assert radius <= float(str(dot.get("cy"))) <= height - radius


def test_only_edges_between_drawn_directions_are_drawn(graph: Graph) -> None:
    assert str(pair_graph(graph, graph.pairs[0], 3)).count("c130 0") == 4
    assert str(pair_graph(graph, graph.pairs[0], 1)).count("c130 0") == 1
    assert [colour_of(module) for module in (1, 8, 9, None)] == ["c1", "c8", "c0", "c0"]


def test_a_graph_without_edges_or_with_equal_ones_is_drawn(layers: dict[int, list[Summary]]) -> None:
    none = Graph.of(layers, {"pairs": [{**PAIR, "edges": 0}], "modules": 2}, [])
    assert "path" not in model_graph(none, 3)
    at_floor = Graph.of(layers, FACTS, [EdgeRow(2, 0, 5, 0, 0.5)])
    assert "stroke-width=3" in model_graph(at_floor, 3)
    alone = Graph.of({2: layers[2]}, {"pairs": [], "modules": 0}, [])
    assert model_graph(alone, 3).count("<circle") == 3


def test_edges_other_than_those_of_records_are_reported(layers: dict[int, list[Summary]], graph: Graph) -> None:
    assert list(edge_problems(layers, graph, FACTS)) == []
    stronger = Graph.of(layers, FACTS, [ROWS[0]._replace(strength=9.0), *ROWS[1:]])
    assert len(list(edge_problems(layers, stronger, FACTS))) == 2  # at either end
    assert any("4" in said for said in edge_problems(layers, Graph.of(layers, FACTS, ROWS[1:]), FACTS))
    raised = {"pairs": [{**PAIR, "floor": 0.6}], "modules": 2}
    assert "below the floor" in " ".join(edge_problems(layers, Graph.of(layers, raised, ROWS), raised))
    twice = [*ROWS, ROWS[0]]
    assert "twice" in " ".join(edge_problems(layers, Graph.of(layers, FACTS, twice), FACTS))
    assert "3 modules" in " ".join(edge_problems(layers, graph, {**FACTS, "modules": 3}))


@pytest.fixture(scope="module")
def basis_site(configure: Configure, pool: Executor, once: Once) -> Path:
    """A tiny atlas of directions."""
    config = configure(
        units={"kind": "basis"}, describe={"importance": "none"}, interaction={"edge_tokens": 64, "edges_shown": 0.1}
    )
    return once("tiny-basis", lambda output: build(config, output, executor=pool))


@pytest.mark.slow
def test_an_atlas_of_directions_has_sound_pages_of_interactions(basis_site: Path) -> None:
    report = check(basis_site, Progress(quiet=True))
    assert report.problems == []
    whole = (basis_site / "interaction.html").read_text(encoding="utf-8")
    assert 'id="L0-L1"' in whole
    assert "href=../interaction.html" in (basis_site / "L0" / "N0.html").read_text(encoding="utf-8")
    modules = sorted(path.name for path in (basis_site / "modules").iterdir())
    sitemap = (basis_site / "sitemap.xml").read_text(encoding="utf-8")
    assert all(f"modules/{name}</loc>" in sitemap for name in ("M1.html", *modules))
    rows = pq.read_table(basis_site / "tables" / "edges.parquet").to_pylist()
    for record in records_of(basis_site):
        of = [row["strength"] for row in rows if (row["layer_after"], row["direction_after"]) == address(record)]
        assert [edge[2] for edge in record["direction"]["edges"]["in"]] == sorted(of, reverse=True)[:8]


def address(record: dict[str, Any]) -> tuple[int, int]:
    return record["layer"], record["unit"]


@pytest.mark.slow
@pytest.mark.parametrize(
    "alter",
    [
        lambda table: table.slice(1),
        lambda table: table.set_column(4, table.schema.field(4), pc.multiply(table["strength"], 1.01)),
        lambda table: pa.concat_tables([table, table.slice(0, 1)]),
    ],
)
def test_an_altered_table_of_edges_is_found(
    basis_site: Path, tmp_path: Path, alter: Callable[[pa.Table], pa.Table]
) -> None:
    site = tmp_path / "site"
    shutil.copytree(basis_site, site)
    path = site / "tables" / "edges.parquet"
    pq.write_table(alter(pq.read_table(path)), path, compression="zstd")
    problems = check(site, Progress(quiet=True)).problems
    assert any("tables/edges.parquet: " in problem and "edges" in problem for problem in problems)
    assert any("strongest edges" in problem or "in atlas.json" in problem for problem in problems)
