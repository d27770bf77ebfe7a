"""Token graphs: a planted truth, predictions against slow matching, and what an atlas publishes of them."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from atlas_builder.corpus.contexts import Contexts
from atlas_builder.describe.graph_examples import NearestTokens, branches_of
from atlas_builder.describe.prompts import Prompts
from atlas_builder.describe.token_graphs import (
    BehaviourGraph,
    SavedGraphs,
    TokenBranch,
    TokenGraph,
    TokenNode,
    UnitGraphs,
    graph_of,
    read_graphs,
    write_graphs,
)
from atlas_builder.describe.token_scores import COUNTS, LookUp, Patterns, TextOrder, count_predictions, predictor_scores
from atlas_builder.errors import ConfigurationError
from atlas_builder.models.packing import PLAIN, Rows
from atlas_builder.pipeline.build import build
from atlas_builder.units.base import ActivationHook
from atlas_builder.workspace import work_folder
from tests.support.atlases import Configure, records_of

A, B, NEAR_A, NEAR_B = 1, 2, 3, 4  # tokens; the last two are near to the first two, and as good
VOCABULARY = 9

_tokens = st.integers(0, 3)
_place = st.one_of(st.just(()), st.lists(_tokens, min_size=1, max_size=2, unique=True).map(tuple))
_branch = st.builds(
    lambda key, before, value: TokenBranch((key, *before), value),
    st.lists(_tokens, min_size=1, max_size=2, unique=True).map(tuple),
    st.lists(_place, max_size=3),
    st.sampled_from([0.2, 0.5, 0.9]),
)
_graphs = st.lists(st.tuples(st.integers(0, 2), st.lists(_branch, min_size=1, max_size=4)), max_size=4)
_texts = st.integers(1, 6).flatmap(
    lambda length: st.lists(st.lists(_tokens, min_size=length, max_size=length), min_size=1, max_size=4)
)


def _slow(graphs: Sequence[tuple[int, TokenGraph]], text: list[int], at: int, unit: int) -> bool:
    """Whether the longest path from a key token that is met at a place ends in a high value."""
    met: list[tuple[int, float]] = []
    for whose, graph in graphs:
        for place, end in enumerate(graph):
            if whose != unit or end.value is None:
                continue
            path: list[TokenNode] = [graph[place]]
            while path[-1].parent >= 0:
                path.append(graph[path[-1].parent])
            path.reverse()
            if at + 1 >= len(path) and all(
                not node.tokens or text[at - back] in node.tokens for back, node in enumerate(path)
            ):
                met.append((len(path), end.value))
    return bool(met) and max(met)[1] >= 0.5


@given(graphs=_graphs, texts=_texts, counted=st.integers(0, 2**24 - 1))
def test_the_longest_match_of_every_unit_decides_at_every_token(
    graphs: list[tuple[int, list[TokenBranch]]], texts: list[list[int]], counted: int
) -> None:
    made = [(unit, graph_of(branches)) for unit, branches in graphs]
    text = np.array(texts, np.int64)
    may = np.array([counted >> place & 1 for place in range(text.size)], np.bool_).reshape(text.shape)
    found = UnitGraphs.of([BehaviourGraph(unit, 1, graph) for unit, graph in made]).predicted(TextOrder(text, may))
    length = text.shape[1]
    wanted = [
        (row * length + at, unit)
        for row, tokens in enumerate(texts)
        for at in range(length)
        for unit in range(3)
        if may[row, at] and _slow(made, tokens, at, unit)
    ]
    assert list(zip(*(part.tolist() for part in found), strict=True)) == wanted


@given(st.lists(_branch, min_size=1, max_size=5), st.randoms())
def test_a_graph_does_not_depend_on_the_order_of_examples_and_is_read_as_written(
    branches: list[TokenBranch], chance: Any
) -> None:
    graph = graph_of(branches)
    chance.shuffle(branches)
    assert graph_of(branches) == graph
    assert all(node.parent < place for place, node in enumerate(graph))


def test_graphs_are_read_as_they_were_written(tmp_path: Path) -> None:
    graph = graph_of([TokenBranch(((A, NEAR_A), (), (B,)), 0.75), TokenBranch(((A,),), 0.5)])
    saved = SavedGraphs([BehaviourGraph(0, 1, graph), BehaviourGraph(1, -1, ())], [BehaviourGraph(3, 1, graph)])
    write_graphs(tmp_path / "graphs.json", saved)
    assert read_graphs(tmp_path / "graphs.json") == saved
    assert [one.unit for one in saved.of_sign(1)] == [0, 3]
    assert read_graphs(tmp_path / "none.json") is None


class _Planted:
    """One unit that fires on A where B stands two before it, or on tokens near to these, and a little on A alone."""

    layers = (0,)

    def count(self, layer: int) -> int:
        return 1

    def run(self, tokens: torch.Tensor, visit: ActivationHook, last: int | None = None, rows: Rows = PLAIN) -> None:
        at = rows.at
        assert at is not None
        places = torch.arange(tokens.shape[1])
        key = (tokens == A) | (tokens == NEAR_A)
        before = torch.zeros_like(key)
        before[:, 2:] = ((tokens == B) | (tokens == NEAR_B))[:, :-2]
        fires = (0.3 * key + 3.7 * (key & before))[:, places, None]
        visit(0, fires, fires[torch.arange(len(at))[:, None], at])


def _loaded() -> Any:
    """Embeddings in which two tokens are near to A and B each, the rest to none."""
    embeddings = torch.eye(VOCABULARY)
    embeddings[NEAR_A] = embeddings[A] + 0.1 * embeddings[NEAR_A]
    embeddings[NEAR_B] = embeddings[B] + 0.1 * embeddings[NEAR_B]
    return SimpleNamespace(
        input_embeddings=lambda: embeddings, tokenizer=SimpleNamespace(all_special_ids=[VOCABULARY - 1])
    )


def _text(rows: int, length: int) -> np.ndarray:
    return np.random.default_rng(0).integers(0, VOCABULARY - 1, (rows, length))


def _fires(text: np.ndarray) -> np.ndarray:
    before = np.isin(text, (B, NEAR_B))
    return np.isin(text, (A, NEAR_A)) & np.pad(before, ((0, 0), (2, 0)))[:, :-2]


def _graph(text: np.ndarray) -> TokenGraph:
    """The graph of the planted unit from where it fires first."""
    row, at = np.argwhere(_fires(text))[0].tolist()
    starts = np.arange(0, text.size + 1, text.shape[1])
    names, zeros = [str(place) for place in range(len(text))], np.zeros(len(text), np.int32)
    contexts = Contexts(
        text.ravel().astype(np.int32), starts, np.arange(len(text), dtype=np.int32), zeros, names, bos=None, sha256=""
    )
    example = np.zeros(
        1, [(name, "<i8") for name in ("layer", "unit", "context", "position")] + [("value", "<f8"), ("extreme", "<f8")]
    )
    example["context"], example["position"], example["value"], example["extreme"] = row, at, 4.0, 4.0
    importance = np.full((1, 7), np.nan, np.float32)
    importance[0, -min(7, at + 1) :] = 0
    importance[0, [-1, -3]] = 1, 0.92
    prompts = Prompts(cast(Any, _Planted()), contexts, "cpu", causal=True)
    return graph_of(branches_of(prompts, example, importance, NearestTokens(_loaded())))


def test_a_unit_that_needs_a_token_two_before_has_that_graph_and_is_predicted_wholly() -> None:
    text = _text(80, 16)
    graph = _graph(text[:40])
    assert [(set(node.tokens), node.parent, node.value) for node in graph] == [
        ({A, NEAR_A}, -1, None),
        (set(), 0, None),
        ({B, NEAR_B}, 1, 1.0),
    ]
    held_out = text[40:]
    counts = np.zeros(1, COUNTS)
    place = np.flatnonzero(_fires(held_out))
    graphs = UnitGraphs.of([BehaviourGraph(0, 1, graph)])
    look_up = LookUp.of(np.array([0, 0]), np.array([A, NEAR_A]))
    count_predictions(counts, look_up, Patterns.of([]), TextOrder(held_out), place, np.zeros_like(place), graphs)
    assert len(place) > 3
    assert predictor_scores(counts, "graph").f1[0] == 1
    assert predictor_scores(counts, "lookup").precision[0] < 0.5


def test_a_special_token_stands_for_no_other_and_a_token_not_for_itself() -> None:
    near = NearestTokens(_loaded()).of(np.array([A, B]))
    assert near[:, 0].tolist() == [NEAR_A, NEAR_B]
    assert VOCABULARY - 1 not in near
    assert A not in near[0]


@pytest.fixture(scope="module")
def graphed(configure: Configure, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny atlas with graphs of all shown examples."""
    site = tmp_path_factory.mktemp("graphs") / "site"
    build(configure(describe={"graphs": True, "importance": "shown"}), site)
    return site


def test_records_and_pages_have_a_graph_of_each_main_behaviour(graphed: Path) -> None:
    drawn = 0
    for record in records_of(graphed):
        assert set(record["prediction"]) == {"fired", "lookup", "context", "graph"}
        page = (graphed / f"L{record['layer']}" / f"N{record['unit']}.html").read_text(encoding="utf-8")
        main = [behaviour for behaviour in record["behaviours"] if "graph" in behaviour]
        assert len(main) == sum(
            side["main_behaviours"]
            for side in (record["polysemanticity"], (record["negative"] or {}).get("polysemanticity"))
            if side
        )
        figures = [behaviour for behaviour in main if behaviour["graph"]]
        assert page.count("<svg class=trie") == len(figures)
        if record["prediction"]["fired"]:
            assert "<dt>Graph F1<dd>" in page
        drawn += len(figures)
        for behaviour in figures:
            keys = {
                record["examples"][place]["tokens"][record["examples"][place]["key"]] for place in behaviour["examples"]
            }
            for place, node in enumerate(behaviour["graph"]["nodes"]):
                assert node["next"] is None or node["next"] < place
                assert node["next"] is not None or node["tokens"][0] in keys
    assert drawn


def test_graphs_are_the_same_a_second_time(graphed: Path, configure: Configure, tmp_path: Path) -> None:
    build(configure(describe={"graphs": True, "importance": "shown"}), tmp_path / "again", until="describe")
    for file in sorted((work_folder(graphed) / "describe").glob("*.graphs.json")):
        assert (work_folder(tmp_path / "again") / "describe" / file.name).read_bytes() == file.read_bytes()


def test_without_graphs_records_say_nothing_of_them(built: Path) -> None:
    record = json.loads((built / "L0" / "N0.json").read_bytes())
    assert set(record["prediction"]) == {"fired", "lookup", "context"}
    assert not any("graph" in behaviour for behaviour in record["behaviours"])
    page = (built / "L0" / "N0.html").read_text(encoding="utf-8")
    assert "Graph F1" not in page
    assert "trie" not in page


def test_graphs_without_importance_are_refused(configure: Configure) -> None:
    with pytest.raises(ConfigurationError, match=r"set describe\.importance to central or shown"):
        configure(describe={"graphs": True, "importance": "none"})
