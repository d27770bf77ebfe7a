"""The figure of a token graph: small, safe with any text, the strongest branches first."""

from __future__ import annotations

from typing import Any

import html5lib
from hypothesis import given, settings
from hypothesis import strategies as st

from atlas_builder.describe.token_graphs import TokenBranch, graph_of
from atlas_builder.records.token_graphs import NODES, published_graph
from atlas_builder.site.behaviour_graph import MOST_BYTES, behaviour_graph
from tests.support.atlases import HOSTILE

_TEXTS = ["the", " cat", " sat", "<b>", *HOSTILE, "\u202e", "", " ", "&", '"']
_place = st.one_of(
    st.just(()), st.lists(st.integers(0, len(_TEXTS) - 1), min_size=1, max_size=7, unique=True).map(tuple)
)
_branch = st.builds(
    lambda key, before, value: TokenBranch(((key,), *before), value),
    st.integers(0, len(_TEXTS) - 1),
    st.lists(_place, max_size=8),
    st.floats(-0.5, 1.0),
)


def _published(branches: list[TokenBranch]) -> dict[str, Any]:
    record = published_graph(graph_of(branches), _TEXTS)
    assert record is not None
    return record


def _parsed(figure: object) -> Any:
    (svg,) = html5lib.HTMLParser(namespaceHTMLElements=False).parseFragment(str(figure))
    for element in svg.iter():
        element.tag = element.tag.removeprefix("{http://www.w3.org/2000/svg}")
    return svg


@settings(deadline=None)  # the first parse is slow
@given(st.lists(_branch, min_size=1, max_size=30))
def test_a_figure_has_at_most_4_kb_and_no_element_of_the_text(branches: list[TokenBranch]) -> None:
    record = _published(branches)
    drawn = behaviour_graph(record, "What behaviour 1 needs")
    assert drawn.figure is not None
    assert len(record["nodes"]) <= NODES
    assert len(drawn.figure.encode()) <= MOST_BYTES
    svg = _parsed(drawn.figure)
    assert {element.tag for element in svg.iter()} <= {"svg", "path", "rect", "circle", "text"}
    assert not any(name.startswith(("on", "style")) for element in svg.iter() for name in element.attrib)
    assert "\u202e" not in drawn.figure
    assert svg.get("aria-label", "").startswith("What behaviour 1 needs. ")
    shown = sum(node["value"] is not None for node in record["nodes"])
    assert 0 <= drawn.more - record["more"] < shown


def test_a_figure_reads_from_left_to_right_with_the_key_token_at_the_right_end() -> None:
    record = _published([TokenBranch(((2, 1), (), (0,)), 0.75)])
    assert record == {
        "nodes": [
            {"tokens": [" sat", " cat"], "next": None, "value": None},
            {"tokens": [], "next": 0, "value": None},
            {"tokens": ["the"], "next": 1, "value": 0.75},
        ],
        "more": 0,
    }
    svg = _parsed(behaviour_graph(record, "Behaviour 2").figure)
    tokens = {text.text: float(text.get("x")) for text in svg.iter("text")}
    (dot,) = svg.iter("circle")
    assert tokens["the"] < float(dot.get("cx")) < tokens["␣sat"] == tokens["␣cat"]
    assert svg.get("aria-label") == "Behaviour 2. “the”, any 1 token, “␣sat” or “␣cat”: 0.75"


def test_the_strongest_branches_are_published_and_drawn_and_the_others_counted() -> None:
    branches = [TokenBranch(((0,), *(((place,),) * 8)), place / 10) for place in range(1, 9)]
    record = _published(branches)
    assert record["more"] == 4
    assert [node["value"] for node in record["nodes"] if node["value"] is not None] == [0.8, 0.7, 0.6, 0.5]


def test_a_behaviour_without_usable_examples_has_no_figure() -> None:
    assert published_graph((), _TEXTS) is None
    assert behaviour_graph(None, "Behaviour 1").figure is None
