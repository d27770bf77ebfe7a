"""Figures of how directions interact, as inline SVG: layers are columns, every direction is a link."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from markupsafe import Markup, escape

from atlas_builder.corpus.token_text import plain
from atlas_builder.rounding import percent
from atlas_builder.site.graph import Graph, GraphEdge, GraphModule, GraphNode, GraphPair, Place

COLOURED = 8
"""Modules that have a colour of their own, the largest."""
_ROW, _TOP = 26, 40
_WIDTHS = (0.75, 1.25, 2, 3)  # of edges, from weak to strong
_LABEL = 34  # characters
_Columns = Mapping[int, Sequence[GraphNode]]


class _Shape(NamedTuple):
    """Where columns are, and whether directions are named beside them."""

    left: int
    step: int
    right: int
    named: bool


def model_graph(graph: Graph, most: int, root: str = "") -> Markup:
    """The `most` most important directions of every layer, and the edges between them."""
    columns = {layer: nodes[:most] for layer, nodes in graph.layers.items()}
    step = max(84, 640 // max(1, len(columns) - 1))
    return _figure(columns, graph.pairs, _Shape(40, step, 40, named=False), root, "the whole model")


def pair_graph(graph: Graph, pair: GraphPair, most: int, root: str = "") -> Markup:
    """The `most` most important directions of two layers, by name, and the edges between them."""
    columns = {layer: graph.layers[layer][:most] for layer in (pair.before, pair.after)}
    shape = _Shape(300, 260, 300, named=True)
    return _figure(columns, [pair], shape, root, f"layers {pair.before} and {pair.after}")


def module_graph(graph: Graph, module: GraphModule, most: int, root: str) -> Markup:
    """The `most` most important members of a module in every layer, and the edges between them."""
    columns = {layer: nodes[:most] for layer, nodes in module.layers.items()}
    shape = _Shape(40, max(84, 640 // max(1, len(columns) - 1)), 40, named=False)
    if len(columns) == 2:
        shape = _Shape(300, 260, 300, named=True)
    return _figure(columns, graph.pairs, shape, root, f"module {module.number}")


def colour_of(module: int | None) -> str:
    """The class of a module's colour; small modules, and directions of none, share one."""
    return f"c{module}" if module is not None and module <= COLOURED else "c0"


def _figure(columns: _Columns, pairs: Sequence[GraphPair], shape: _Shape, root: str, what: str) -> Markup:
    """Directions of the same module stand together in a column, the most important first."""
    nodes_at: dict[Place, tuple[GraphNode, tuple[int, int]]] = {}
    rows = max(map(len, columns.values()), default=0)
    for column, nodes in enumerate(columns.values()):
        x, first = shape.left + column * shape.step, _TOP + (rows - len(nodes)) * _ROW // 2
        for row, node in enumerate(sorted(nodes, key=lambda node: (node.module or math.inf, node.rank))):
            nodes_at[node.place] = node, (x, first + row * _ROW)
    places = {place: at for place, (_, at) in nodes_at.items()}
    drawn = [
        (pair.level(edge), edge)
        for pair in pairs
        for edge in pair.edges
        if edge.before.place in places and edge.after.place in places
    ]
    width = shape.left + shape.step * (len(columns) - 1) + shape.right
    heads = "".join(
        f'<a href="{root}L{layer}/index.html"><text class=head x={shape.left + column * shape.step} y=14 '
        f"text-anchor=middle>Layer {layer}</text></a>"
        for column, layer in enumerate(columns)
    )
    dots = "".join(
        _node(node, at, root, ("end", "start")[at[0] > shape.left] if shape.named else None)
        for node, at in nodes_at.values()
    )
    summary = f"Graph of {what}: {len(places):,} directions in {len(columns)} layers and {len(drawn):,} edges"
    many = " wide" if len(columns) > 10 else ""
    return Markup(
        # A group, for a picture may hold no links.
        f'<svg class="graph{many}" viewBox="0 0 {width} {_TOP + rows * _ROW}" role=group '
        f'aria-label="{escape(summary)}">'
        f"{heads}<g aria-hidden=true>{_edges(drawn, places)}</g>{dots}</svg>"
    )


def _edges(drawn: Sequence[tuple[float, GraphEdge]], places: Mapping[Place, tuple[int, int]]) -> str:
    """Curves, those of a module and a width in one path, the weakest below."""
    paths: dict[tuple[int, str], list[str]] = {}
    for level, edge in drawn:
        (x, y), (to_x, to_y) = places[edge.before.place], places[edge.after.place]
        width = min(len(_WIDTHS) - 1, int(level * len(_WIDTHS)))
        half = (to_x - x) // 2
        curve = f"M{x} {y}c{half} 0 {half} {to_y - y} {to_x - x} {to_y - y}"
        paths.setdefault((width, colour_of(edge.module)), []).append(curve)
    return "".join(
        f'<path class={colour} stroke-width={_WIDTHS[width]:g} d="{"".join(curves)}"/>'
        for (width, colour), curves in sorted(paths.items())
    )


def _node(node: GraphNode, place: tuple[int, int], root: str, anchor: str | None) -> str:
    """A dot of an area by importance, with the direction's number, or its name beside where there is room."""
    x, y = place
    radius = 3 + 7 * math.sqrt(min(1.0, node.share))
    name = plain(node.labels[0]) if node.labels else ""
    said = f"Direction {node.direction} of layer {node.layer}"
    said += f", “{name}”" if name else ", no behaviour"
    said += f": {percent(node.share)} of its layer’s importance"
    said += f", module {node.module}" if node.module is not None else ", in no module"
    if anchor is None:
        text = f"<text x={x + radius + 3:.0f} y={y + 4}>{node.direction}</text>"
    else:
        short = name if len(name) <= _LABEL else f"{name[: _LABEL - 1]}…"
        at = x - 16 if anchor == "end" else x + 16
        text = f"<text x={at} y={y + 4} text-anchor={anchor}><tspan>{node.direction}</tspan> {escape(short)}</text>"
    return (
        f'<a href="{root}{node.page}"><title>{escape(said)}</title>'
        f"<circle class={colour_of(node.module)} cx={x} cy={y} r={radius:.1f} />{text}</a>"
    )
