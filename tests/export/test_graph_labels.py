"""`label`: nodes of an attribution graph get what their units do, and links to their pages; nothing else changes."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import orjson
import pytest
from click.testing import CliRunner, Result

import atlas_builder
from atlas_builder.cli import main
from atlas_builder.export.circuit_tracer import cantor_pair
from atlas_builder.export.graph_labels import node_label
from atlas_builder.reader import Unit

Graph = dict[str, Any]
PLACES = [(0, 1), (1, 5), (1, 7), (1, 10**6), (9, 0)]
"""Of the nodes of features; the atlas has the first three."""


def node(layer: int, unit: int, **more: Any) -> Graph:
    """A node of a feature, as circuit-tracer writes it."""
    return {
        "node_id": f"{layer}_{unit}_3", "feature": cantor_pair(layer, unit), "layer": str(layer), "ctx_idx": 3,
        "feature_type": "cross layer transcoder", "token_prob": 0.0, "is_target_logit": False, "run_idx": 0,
        "reverse_ctx_idx": 0, "jsNodeId": f"{layer}_{unit}-0", "clerp": "", "influence": 0.5, "activation": 1.25,
        **more,
    }  # fmt: skip


@pytest.fixture
def graph() -> Graph:
    """A graph of the tiny atlas, with nodes of every type."""
    others = [
        {"node_id": "0_1_3", "feature": -1, "layer": "1", "ctx_idx": 3, "feature_type": "mlp reconstruction error"},
        {"node_id": "E_5_3", "feature": 3, "layer": "E", "ctx_idx": 3, "feature_type": "embedding", "clerp": ""},
        {"node_id": "3_7_3", "feature": 7, "layer": "3", "ctx_idx": 3, "feature_type": "logit", "clerp": 'Output "a"'},
    ]
    return {
        "metadata": {"slug": "cat", "scan": "./data/tiny", "prompt_tokens": ["the"], "schema_version": 1},
        "qParams": {"pinnedIds": []},
        "nodes": [*(node(*place) for place in PLACES), *others],
        "links": [{"source": "E_5_3", "target": "0_1_3", "weight": -0.125}],
    }


@pytest.fixture
def labelled(tiny_site: Path, tmp_path: Path) -> Callable[..., tuple[Graph, Result]]:
    """Labels a graph by the command; gives what was written, and how the command ended."""

    def label(graph: Any, *options: str) -> tuple[Graph, Result]:
        file = tmp_path / "graph.json"
        file.write_bytes(graph if isinstance(graph, bytes) else orjson.dumps(graph))
        before = file.read_bytes()
        result = CliRunner().invoke(main, ["label", str(file), str(tiny_site), *options])
        assert file.read_bytes() == before
        made = tmp_path / "graph.labelled.json"
        return (json.loads(made.read_bytes()) if made.exists() else {}), result

    return label


def test_nodes_say_what_their_units_do_and_link_to_their_pages(
    graph: Graph, tiny_site: Path, labelled: Callable[..., tuple[Graph, Result]]
) -> None:
    made, result = labelled(graph)
    assert result.exit_code == 0, result.output
    atlas = atlas_builder.open(tiny_site)
    for place, found in zip(PLACES[:3], made["nodes"], strict=False):
        unit = atlas[place]
        most = max((one for one in unit.behaviours if one.sign > 0), key=lambda one: one.size)
        assert found["url"] == found["vis_link"] == f"https://example.org/atlas/L{place[0]}/N{place[1]}.html"
        assert most.label[:20] in found["clerp"]
        assert found["clerp"].count("; ") <= 1
    expected = copy.deepcopy(graph)
    for there, found in zip(expected["nodes"][:3], made["nodes"], strict=False):
        there.update({name: found[name] for name in ("clerp", "url", "vis_link")})
    assert made == expected
    assert "3 of 5 nodes of features labelled as neurons of tiny; 2 left as they were, of features that the atlas" in (
        result.stdout
    )


def test_labels_that_nodes_have_stay_unless_they_are_replaced(
    graph: Graph, labelled: Callable[..., tuple[Graph, Result]]
) -> None:
    graph["nodes"][1]["clerp"] = "my own words"
    made, result = labelled(graph)
    assert made["nodes"][1]["clerp"] == "my own words"
    assert made["nodes"][1]["url"].endswith("L1/N5.html")
    assert "2 of 5 nodes" in result.stdout
    assert "1 left with the label that they had (--replace replaces it)" in result.stdout
    made, _ = labelled(graph, "--replace")
    assert made["nodes"][1]["clerp"] not in ("", "my own words")


def test_links_go_where_the_user_says_or_nowhere(
    graph: Graph, hostile_site: Path, labelled: Callable[..., tuple[Graph, Result]], tmp_path: Path
) -> None:
    made, _ = labelled(graph, "--url", "http://localhost:8000/é/index.html")
    assert made["nodes"][0]["url"] == "http://localhost:8000/%C3%A9/L0/N1.html"
    output = tmp_path / "other.json"
    result = CliRunner().invoke(
        main, ["label", str(tmp_path / "graph.json"), str(hostile_site), "--output", str(output)]
    )
    assert "no links: give the address of the atlas with --url" in result.output
    assert "url" not in json.loads(output.read_bytes())["nodes"][0]


@pytest.mark.parametrize(
    "url",
    ["javascript:alert(1)", "/atlas", "http://", 'https://a/"onclick="', "https://a/<b>", "http://[", "http://a b"],
)
def test_addresses_that_are_none_are_refused(
    url: str, graph: Graph, labelled: Callable[..., tuple[Graph, Result]]
) -> None:
    made, result = labelled(graph, "--url", url)
    assert (made, result.exit_code, result.stderr.count("\n")) == ({}, 2, 1)
    assert "give an address such as https://example.org/atlas." in result.stderr


@pytest.mark.parametrize("scan", ["tiny", "./data/tiny", "/home/of/tiny/", "owner/TINY@main", "owner/repo//sub/tiny"])
def test_a_graph_of_the_atlas_is_known_by_its_name(
    scan: str, graph: Graph, labelled: Callable[..., tuple[Graph, Result]]
) -> None:
    graph["metadata"]["scan"] = scan
    assert labelled(graph)[1].exit_code == 0


def test_a_graph_of_another_model_is_refused_unless_its_name_is_accepted(
    graph: Graph, labelled: Callable[..., tuple[Graph, Result]]
) -> None:
    graph["metadata"]["scan"] = "mntss/other-transcoders"
    made, result = labelled(graph)
    assert (made, result.exit_code, result.stderr.count("\n")) == ({}, 2, 1)
    assert "The graph is of mntss/other-transcoders, the atlas tiny of " in result.stderr
    assert labelled(graph, "--scan", "mntss/other-transcoders")[1].exit_code == 0
    graph["metadata"]["model"] = "owner/tiny"
    assert labelled(graph)[1].exit_code == 0
    del graph["metadata"]["model"]
    graph["metadata"].update(scan="custom-1", transcoder_list=["tiny", None])
    assert labelled(graph)[1].exit_code == 0


def test_numbers_of_older_graphs_are_units_of_their_layer(
    graph: Graph, labelled: Callable[..., tuple[Graph, Result]]
) -> None:
    del graph["metadata"]["schema_version"]
    graph["nodes"][1].update(feature=5)
    made, _ = labelled(graph)
    assert made["nodes"][1]["url"].endswith("/L1/N5.html")


def _without(graph: Graph, name: str) -> None:
    del graph["nodes"][0][name]


@pytest.mark.parametrize(
    ("damage", "words"),
    [
        (lambda graph: graph.pop("nodes"), "is no attribution graph"),
        (lambda graph: graph.update(metadata=[]), "is no attribution graph"),
        (lambda graph: graph["metadata"].pop("scan"), "does not name its features"),
        (lambda graph: graph["metadata"].update(scan=5), "does not name its features"),
        (lambda graph: graph["nodes"].insert(0, "node"), "Node 0 of the graph has no feature_type"),
        (lambda graph: _without(graph, "feature_type"), "Node 0 of the graph has no feature_type"),
        (lambda graph: graph["nodes"][0].update(feature=-1), "has the feature -1, which is none"),
        (lambda graph: graph["nodes"][0].update(feature=2.5), "has the feature 2.5, which is none"),
        (lambda graph: graph["nodes"][0].update(feature=True), "has the feature True, which is none"),
        (lambda graph: graph["nodes"][0].update(feature=2**60), "has the feature 1152921504606846976, which"),
        (lambda graph: graph["nodes"][0].update(layer="E"), "has the layer E, which is none"),
        (lambda graph: graph["nodes"][0].update(layer="1"), "is of layer 1, its feature 2 of layer 0"),
        (lambda graph: graph["nodes"][0].update(clerp=["x"]), "has clerp of a wrong type"),
        (lambda graph: graph["nodes"][0].update(activation="high"), "has activation of a wrong type"),
    ],
)
def test_damaged_graphs_are_refused_in_a_sentence(
    damage: Callable[[Graph], object], words: str, graph: Graph, labelled: Callable[..., tuple[Graph, Result]]
) -> None:
    damage(graph)
    made, result = labelled(graph)
    assert (made, result.exit_code, result.stderr.count("\n")) == ({}, 2, 1)
    assert words in result.stderr


@pytest.mark.parametrize("content", [b"", b"{", b"[1]", b"null", b'{"nodes": NaN}', b"\xff", b"[" * 10**5])
def test_what_is_no_graph_is_refused(content: bytes, labelled: Callable[..., tuple[Graph, Result]]) -> None:
    made, result = labelled(content)
    assert (made, result.exit_code, result.stderr.count("\n")) == ({}, 2, 1)
    assert len(result.stderr) < 300


def test_files_of_others_are_not_replaced_and_a_former_result_is(graph: Graph, tiny_site: Path, tmp_path: Path) -> None:
    file, other = tmp_path / "cat.json", tmp_path / "notes.txt"
    file.write_bytes(orjson.dumps(graph))
    other.write_text("mine", encoding="utf-8")
    ask = ["label", str(file), str(tiny_site), "--output"]
    refused = CliRunner().invoke(main, [*ask, str(other)])
    assert (refused.exit_code, other.read_text(encoding="utf-8")) == (2, "mine")
    assert "holds something else: name another file." in refused.stderr
    assert CliRunner().invoke(main, [*ask, str(tmp_path / "no" / "folder.json")]).exit_code == 2
    for _ in range(2):
        assert CliRunner().invoke(main, [*ask, str(tmp_path / "out.json")]).exit_code == 0
    first = (tmp_path / "out.json").read_bytes()
    assert CliRunner().invoke(main, [*ask, str(file)]).exit_code == 0  # where the user asks for it
    assert file.read_bytes() == first
    assert CliRunner().invoke(main, ["label", str(tmp_path / "none.json"), str(tiny_site)]).exit_code == 2


@pytest.fixture
def unit(tiny_site: Path) -> Unit:
    """A unit whose three behaviours a test describes."""
    found = atlas_builder.open(tiny_site)[1, 5]
    record = orjson.loads(orjson.dumps(found.record))
    like = record["behaviours"][0]
    record["behaviours"] = [
        {**like, "id": 1, "sign": 1, "size": 40, "coverage": 0.3, "label": "after import"},
        {
            **like,
            "id": 2,
            "sign": 1,
            "size": 30,
            "coverage": 0.5,
            "label": "<img src=x onerror=alert(1)>\n\u202e" + "x" * 99,
        },
        {**like, "id": 3, "sign": 1, "size": 2, "coverage": 0.9, "label": "rare"},
        {**like, "id": 4, "sign": -1, "size": 9, "coverage": 1, "label": "closing"},
    ]
    record["polysemanticity"]["main_behaviours"] = 2
    record["negative"] = {"polysemanticity": {**record["polysemanticity"], "main_behaviours": 1}}
    return Unit(found.atlas, 1, 5, record)


def test_a_label_names_main_behaviours_and_the_most_covering_first(unit: Unit) -> None:
    label = node_label(unit, 1, 2)
    first, second = label.split("; ")
    assert first.startswith("‹img src=x onerror=alert(1)›↵U+202Ex")
    assert first.endswith("…\u2008(50%)".replace("\u2008", " "))
    assert len(first) < 70
    assert second == "after import (30%)"
    assert node_label(unit, 1, 1) == first
    assert node_label(unit, 1, 9) == label


def test_a_negative_activation_is_labelled_by_what_negative_ones_do(unit: Unit) -> None:
    assert node_label(unit, -1, 2) == "negative: closing (100%)"
    del unit.record["behaviours"][:3]
    assert node_label(replace(unit), 1, 2) == "negative: closing (100%)"
    unit.record["behaviours"].clear()
    assert node_label(replace(unit), 1, 2) == ""


@pytest.mark.parametrize(
    "damage", [{"model": None}, {"kind": 5}, {"configuration": []}, {"atlas": {"id": "tiny", "version": "1", "url": 3}}]
)
def test_an_atlas_whose_facts_are_damaged_is_refused(damage: Graph, graph: Graph, built: Path, tmp_path: Path) -> None:
    facts = json.loads((built / "atlas.json").read_bytes())
    (built / "atlas.json").write_text(json.dumps({**facts, **damage}), encoding="utf-8")
    (tmp_path / "graph.json").write_bytes(orjson.dumps(graph))
    for command in (["label", str(tmp_path / "graph.json")], ["export", "circuit-tracer"]):
        result = CliRunner().invoke(main, [*command, str(built)])
        assert (result.exit_code, result.stderr) == (
            1, "The atlas.json of tiny is damaged: build or fetch the atlas again.\n",
        )  # fmt: skip
