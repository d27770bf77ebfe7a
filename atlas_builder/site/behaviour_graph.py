"""The token graph of a behaviour as inline SVG: read from left to right, the key token at the right end."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

from markupsafe import Markup, escape

from atlas_builder.corpus.token_text import plain
from atlas_builder.records.schema import Record
from atlas_builder.rounding import number

MOST_BYTES = 4000
"""A larger figure is drawn with fewer branches, and with one at least."""
_LETTERS, _BELOW = 14, 8  # most letters of a token, and of each substitute
_LETTER, _SMALL = 7.5, 5.4  # widths, of the fixed-width font in two sizes
_ROW, _HIGH, _ABOVE = 46, 20, 12  # a branch, a box, and the value above it
_DOT, _GAP, _PAD, _EDGE = 4, 12, 10, 2
_ROOM = 12  # letters of substitutes below a narrow token
_SAID, _HEARD = 4, 24  # branches that are read out, and letters of each token of these

Node = dict[str, Any]
"""A node of a record's graph."""


class DrawnGraph(NamedTuple):
    """The graph of a behaviour on its unit's page."""

    figure: Markup | None
    """None where no example that was measured could be used."""
    more: int
    """Branches that it leaves out."""
    of_one: bool
    """Whether it shows examples that were not measured."""


def graphs_drawn(record: Record) -> dict[int, DrawnGraph]:
    """The graphs of a unit's main behaviours by their number; none where graphs were not asked for."""
    return {
        behaviour["id"]: behaviour_graph(
            behaviour["graph"],
            f"What behaviour {behaviour['id']} needs",
            of_one=any("importance" not in record["examples"][place] for place in behaviour["examples"]),
        )
        for behaviour in record["behaviours"]
        if "graph" in behaviour
    }


def behaviour_graph(graph: Record | None, name: str, *, of_one: bool = False) -> DrawnGraph:
    """The figure of a record's graph, which `name` names to those who hear it, with as many branches as have room."""
    if graph is None:
        return DrawnGraph(None, 0, of_one)
    nodes: list[Node] = graph["nodes"]
    ends = [place for place, node in enumerate(nodes) if node["value"] is not None]
    ends.sort(key=lambda place: -nodes[place]["value"])
    for count in range(len(ends), 0, -1):
        figure = _figure(nodes, ends[:count], name)
        if len(figure.encode("utf-8", "replace")) <= MOST_BYTES:
            break
    return DrawnGraph(Markup(figure), graph["more"] + len(ends) - count, of_one)


class _Layout(NamedTuple):
    """Where nodes are, by their place in the record: the middle of each, and its width."""

    x: dict[int, float]
    y: dict[int, float]
    width: dict[int, float]
    right: int
    bottom: int


def _figure(nodes: Sequence[Node], ends: Sequence[int], name: str) -> str:
    paths = [_path(nodes, end) for end in ends]
    layout = _layout(nodes, paths)
    lines = "".join(
        f"M{layout.x[place] + layout.width[place] / 2:.0f} {layout.y[place]:.0f}"
        f"L{layout.x[after] - layout.width[after] / 2:.0f} {layout.y[after]:.0f}"
        for place in layout.x
        if (after := nodes[place]["next"]) is not None
    )
    strength: dict[int, float] = {}
    for path, end in zip(paths, ends, strict=True):
        for place in path:
            strength[place] = max(strength.get(place, 0.0), nodes[end]["value"])
    drawn = "".join(_node(nodes[place], layout, place, strength[place], place in ends) for place in layout.x)
    return (
        f'<svg class=trie viewBox="0 0 {layout.right} {layout.bottom}" width={layout.right} height={layout.bottom} '
        f'role=img aria-label="{escape(_said(nodes, paths, name))}"><path d="{lines}"/>{drawn}</svg>'
    )


def _path(nodes: Sequence[Node], end: int) -> list[int]:
    """The places of a branch, from its key token backwards."""
    path = [end]
    while (after := nodes[path[-1]]["next"]) is not None:
        path.append(after)
    return path[::-1]


def _layout(nodes: Sequence[Node], paths: Sequence[list[int]]) -> _Layout:
    """Each distance from the key token is a column, each branch that goes on to the left a row of its own."""
    width = {place: _width(nodes[place]) for path in paths for place in path}
    columns = [0.0] * max(map(len, paths))
    for path in paths:
        for depth, place in enumerate(path):
            columns[depth] = max(columns[depth], width[place])
    total = _EDGE + sum(columns) + _GAP * (len(columns) - 1)
    x: dict[int, float] = {}
    y: dict[int, float] = {}
    row = 0
    for path in sorted(paths, key=lambda path: (path[0], -len(path))):
        right = total
        for depth, place in enumerate(path):
            x.setdefault(place, right - columns[depth] / 2)
            right -= columns[depth] + _GAP
        if path[-1] not in y:  # else it is a part of a longer one
            for place in path:
                y.setdefault(place, _ABOVE + _HIGH / 2 + row * _ROW)
            row += 1
    return _Layout(x, y, width, math.ceil(total) + _EDGE, row * _ROW)


def _width(node: Node) -> float:
    if not node["tokens"]:
        return _DOT
    own = len(_short(node["tokens"][0], _LETTERS))
    return max(_LETTER * own + _PAD, _SMALL * len(_below(node)))


def _below(node: Node) -> str:
    """Its substitutes in a line that is little wider than the token, and how many more there are."""
    own, *others = node["tokens"]
    room = max(_ROOM, int(_LETTER * len(_short(own, _LETTERS)) / _SMALL))
    line = ""
    for place, other in enumerate(others):
        longer = f"{line} {_short(other, _BELOW)}".strip()
        if line and len(longer) > room:
            return f"{line} +{len(others) - place}"
        line = longer
    return line


def _node(node: Node, layout: _Layout, place: int, strength: float, is_end: bool) -> str:
    """A token in a box as strong as its strongest end, its value above where it is one; a dot for any token."""
    x, y, width = round(layout.x[place]), round(layout.y[place]), round(layout.width[place])
    value = f"<text x={x} y={y - _HIGH // 2 - 3}>{number(node['value'], 2)}</text>" if is_end else ""
    if not node["tokens"]:
        return f"<circle cx={x} cy={y} r=2 />{value}"
    own = _short(node["tokens"][0], _LETTERS)
    below = _below(node)
    opacity = f"{0.1 + 0.5 * min(1.0, max(0.0, strength)):.2f}".lstrip("0")
    return (
        f"<rect x={x - width // 2} y={y - _HIGH // 2} width={width} height={_HIGH} rx=3 fill-opacity={opacity} />"
        f"<text class=t x={x} y={y + 4}>{escape(own)}</text>"
        + (f"<text x={x} y={y + _HIGH // 2 + 9}>{escape(below)}</text>" if below else "")
        + value
    )


def _short(token: str, most: int) -> str:
    """A token in at most so many letters: spaces at its ends show, and so does what cannot be seen."""
    core = token.strip(" ")
    head = len(token) - len(token.lstrip(" ")) if core else max(1, len(token))
    text = "␣" * head + plain(core[:most])  # a letter that cannot be seen is spelt in several
    return text if len(text) <= most and len(core) <= most else f"{text[: most - 1]}…"


def _said(nodes: Sequence[Node], paths: Sequence[list[int]], name: str) -> str:
    """The strongest branches in words, from left to right."""
    said = []
    for path in paths[:_SAID]:
        words: list[str] = []
        any_token = 0
        for place in reversed(path):
            tokens = nodes[place]["tokens"]
            if not tokens:
                any_token += 1
                continue
            if any_token:
                words.append(f"any {any_token} token{'s' if any_token > 1 else ''}")
                any_token = 0
            words.append(" or ".join(f"“{_short(token, _HEARD)}”" for token in tokens[:3]))
        said.append(f"{', '.join(words)}: {number(nodes[path[-1]]['value'], 2)}")
    more = "; …" if len(paths) > _SAID else ""
    return f"{name}. {'; '.join(said)}{more}"
