"""Token graphs of a published atlas against those that a second run makes, and claims of them that were altered."""

from __future__ import annotations

import json
from collections.abc import Callable
from concurrent.futures import Executor
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from atlas_builder.pipeline.build import build
from atlas_builder.rerun.passes import Text
from atlas_builder.rerun.source import open_rerun
from atlas_builder.verify.branches import BranchFinder, FoundBranch, NearTokens
from atlas_builder.verify.graphs import FoundGraph, longest_match, ways_by_key
from atlas_builder.verify.report import VerificationReport
from atlas_builder.verify.run import verify
from atlas_builder.verify.shown import Key
from atlas_builder.verify.unit import UnitCase
from tests.attacks.claims import Alteration, Attacker
from tests.support.atlases import Configure, Once

A, B, C, D, NEAR_A, NEAR_B = 1, 2, 3, 4, 5, 6


@pytest.fixture(scope="module")
def graphed(configure: Configure, pool: Executor, once: Once) -> Path:
    """A tiny atlas with graphs of all shown examples; tests that write to it put back what was there."""
    settings = configure(describe={"graphs": True, "importance": "shown"})
    return once("graphed", lambda output: build(settings, output, executor=pool))


def test_graphs_that_were_built_hold(graphed: Path) -> None:
    report = verify(graphed, units=6, seed=1)
    assert report.problems == []
    assert report.compared["graphs"] > 20
    assert report.not_compared.get("graphs", 0) < 2
    assert report.not_compared.get("graph F1", 0) < 2


def _has_graph(record: dict[str, Any]) -> bool:
    graphs = [behaviour.get("graph") for behaviour in record["behaviours"]]
    return any(graph and len(graph["nodes"]) > 2 for graph in graphs) and bool(record["prediction"]["graph"]["f1"])


def _graph(record: dict[str, Any]) -> dict[str, Any]:
    """The largest graph of a record."""
    graphs = [behaviour["graph"] for behaviour in record["behaviours"] if behaviour.get("graph")]
    largest: dict[str, Any] = max(graphs, key=lambda graph: len(graph["nodes"]))
    return largest


def _end(record: dict[str, Any]) -> dict[str, Any]:
    end: dict[str, Any] = next(node for node in _graph(record)["nodes"] if node["value"] is not None)
    return end


def _without_graphs(record: dict[str, Any]) -> None:
    for behaviour in record["behaviours"]:
        if "graph" in behaviour:
            behaviour["graph"] = None


ALTERED: dict[str, Callable[[dict[str, Any]], object]] = {
    "a token": lambda record: _graph(record)["nodes"][0]["tokens"].__setitem__(0, "never"),
    "a substitute more": lambda record: _graph(record)["nodes"][0]["tokens"].append("never"),
    "no token": lambda record: _graph(record)["nodes"][0].update(tokens=[]),
    "a value": lambda record: _end(record).update(value=_end(record)["value"] - 0.003),
    "no value": lambda record: _end(record).update(value=None),
    "another next": lambda record: _graph(record)["nodes"][-1].update(next=len(_graph(record)["nodes"])),
    "a node less": lambda record: _graph(record)["nodes"].pop(),
    "branches left out": lambda record: _graph(record).update(more=_graph(record)["more"] + 1),
    "no graph": _without_graphs,
    "graphs left out": lambda record: [behaviour.pop("graph", None) for behaviour in record["behaviours"]],
    "precision": lambda record: record["prediction"]["graph"].update(precision=0.123),
    "recall": lambda record: record["prediction"]["graph"].update(recall=0.123),
    "F1": lambda record: record["prediction"]["graph"].update(f1=record["prediction"]["graph"]["f1"] + 0.001),
    "no scores": lambda record: record["prediction"].pop("graph"),
}  # fmt: skip


def _altering(apply: Callable[[dict[str, Any]], object]) -> Callable[[dict[str, Any]], None]:
    """The same, of which the result is of no account."""

    def alter(record: dict[str, Any]) -> None:
        apply(record)

    return alter


def test_each_altered_claim_of_a_graph_is_found(graphed: Path) -> None:
    files = sorted(graphed.glob("L*/N*.json"))
    file = next(file for file in files if _has_graph(json.loads(file.read_bytes())))
    attacker = Attacker(graphed, int(file.parent.name[1:]), int(file.stem[1:]), source=open_rerun(graphed))
    assert attacker.problems() == []
    for what, apply in ALTERED.items():
        found = attacker.problems(Alteration("graph", what, _altering(apply)))
        assert found, what
        assert all("graph" in problem for problem in found), found


def test_graphs_that_were_not_asked_for_are_found(tiny_site: Path, copy_of: Callable[[Path], Path]) -> None:
    file = next(path for path in sorted(tiny_site.glob("L*/N*.json")) if json.loads(path.read_bytes())["behaviours"])
    site = copy_of(tiny_site)
    attacker = Attacker(site, int(file.parent.name[1:]), int(file.stem[1:]), source=open_rerun(tiny_site))

    def add(record: dict[str, Any]) -> None:
        record["behaviours"][0]["graph"] = None
        record["prediction"]["graph"] = record["prediction"]["lookup"]

    said = attacker.problems(Alteration("graph", "added", add))
    assert sum("graph is published, against the settings" in problem for problem in said) == 1
    assert sum("graph F1 is published, against the settings" in problem for problem in said) == 1


def _branch(places: list[tuple[int, ...]], value: float) -> FoundBranch:
    return FoundBranch(tuple(places), value, unsure=False)


def test_the_longest_way_decides_and_of_equals_the_strongest() -> None:
    graph = FoundGraph(
        [
            _branch([(A,)], 0.2),
            _branch([(A,), (), (B,)], 0.9),
            _branch([(A, NEAR_A), (), (B, C)], 0.7),
            _branch([(A,), (D,), (C,)], 0.3),
        ],
        1,
    )
    assert [(route, node.tokens) for route, node in graph.nodes.items()] == [
        ((A,), [A, NEAR_A]),
        ((A, -1), []),
        ((A, -1, B), [B, C]),
        ((A, D), [D]),
        ((A, D, C), [C]),
    ]
    assert graph.published() == ([(A,), (A, -1), (A, -1, B), (A, D), (A, D, C)], 0)
    ways = ways_by_key([graph])
    assert longest_match(ways, [A], 0) == 0.2
    assert longest_match(ways, [D, NEAR_A], 1) == 0.2
    assert longest_match(ways, [C, D, A], 2) == pytest.approx(0.8)
    assert np.isnan(longest_match(ways, [A, B], 1))


class _Planted:
    """A model with one unit that fires on A, fully where B stands two before it; two tokens are near to each."""

    is_causal = True
    mask = 0

    def __init__(self) -> None:
        self.texts: list[tuple[int, ...]] = []
        self.tokenizer = self
        self.all_special_ids = [7]
        self.weights = self
        self.embeddings = (np.eye(8) + 0.1 * np.random.default_rng(0).normal(size=(8, 8))).astype(np.float32)
        self.embeddings[NEAR_A, A] = self.embeddings[NEAR_B, B] = self.embeddings[7, A] = 2

    def at(self, rows: list[list[int]], position: int, layer: int, unit: int) -> np.ndarray:
        self.texts += map(tuple, rows)
        return np.array([self._value(row, position) for row in rows])

    def _value(self, row: list[int], at: int) -> float:
        is_near = at >= 2 and row[at - 2] in (B, NEAR_B)
        return (4.0 if is_near else 0.3) if row[at] in (A, NEAR_A) else 0.1


def _case(configure: Configure, model: _Planted, tokens: list[int]) -> UnitCase:
    values = np.array([model._value(tokens, place) for place in range(len(tokens))], np.float32)
    record = {"id": "planted", "layer": 0, "unit": 0}
    return UnitCase(record, VerificationReport(), configure(), Text([(0, 0, tokens)]), list("abcdefgh"), values)


def test_a_branch_has_what_the_unit_needs_and_what_may_stand_for_it(configure: Configure) -> None:
    model: Any = _Planted()
    case = _case(configure, model, [C, D, B, C, A])
    finder = BranchFinder(case, model, NearTokens(model))
    branch = finder.branch(Key(0, 4), np.array([0.0, 0.8, 0.92, 0.0, 0.97]))
    assert [places[:2] for places in branch.places] == [(A, NEAR_A), (), (B, NEAR_B)]
    assert branch.value == 1
    assert len(model.texts) == len(set(model.texts))  # equal texts run once
    assert not branch.unsure


@pytest.mark.parametrize(("importance", "unsure"), [(0.75, True), (0.7501, False), (0.7499, False)])
def test_what_hangs_on_rounding_is_unsure(importance: float, unsure: bool, configure: Configure) -> None:
    model: Any = _Planted()
    case = _case(configure, model, [C, D, B, C, A])
    branch = BranchFinder(case, model, NearTokens(model)).branch(Key(0, 4), np.array([0, 0, importance, 0, 1.0]))
    assert branch.unsure == unsure
    assert len(branch.places) == (3 if importance > 0.75 else 1)
