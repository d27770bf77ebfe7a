"""Labels and links of an attribution graph's nodes, from the atlas of the units that they are."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import quote, urlsplit

import orjson

from atlas_builder.corpus.characters import beginning
from atlas_builder.corpus.token_text import plain
from atlas_builder.errors import ConfigurationError, brief
from atlas_builder.export.circuit_tracer import LayerUnit, cantor_unpair, damaged
from atlas_builder.export.identity import AtlasIdentity
from atlas_builder.files import check_file, replacing
from atlas_builder.reader.atlas import Atlas
from atlas_builder.reader.unit import Unit
from atlas_builder.rounding import percent

Graph = dict[str, Any]
FEATURE_TYPES = ("cross layer transcoder", "unexplored node")
"""What nodes of features are called; neurons are called so too, since details are shown of no others."""
_LONGEST_LABEL = 60
_HIGHEST = 2**53
"""The numbers that a browser can tell apart are below."""
# The frontend shows labels as HTML when a node is pointed at.
_MARKUP = str.maketrans("<>", "‹›")
_AGAIN = "the graph is damaged, make it again."
_PREFIX = re.compile(r"^(\./data/|\./|/)")


class LabelledNodes(NamedTuple):
    """How many nodes of features a graph has, by what became of them."""

    labelled: int
    """Given a label."""
    kept: int
    """Left with the label that they had."""
    bare: int
    """Of units without behaviours, so without a label; links are given to these, too."""
    unknown: int
    """Of features that the atlas does not have: left as they were."""


def read_graph(file: Path) -> Graph:
    """An attribution graph's JSON as it is; raises `ConfigurationError` for anything else."""
    shown = brief(file, 150)
    try:
        graph = orjson.loads(file.read_bytes())
    except FileNotFoundError:
        raise ConfigurationError(f"{shown} is not found: name the JSON of an attribution graph.") from None
    except OSError as error:
        raise ConfigurationError(f"{shown} cannot be read: {error.strerror or error}.") from None
    except ValueError as error:
        raise ConfigurationError(f"{shown} is not JSON ({brief(error)}): name an attribution graph's file.") from None
    content = graph if isinstance(graph, dict) else {}
    metadata, nodes = content.get("metadata"), content.get("nodes")
    if not isinstance(metadata, dict) or not isinstance(nodes, list):
        raise ConfigurationError(f"{shown} is no attribution graph, which has metadata and nodes: name another file.")
    return content


def check_model(graph: Graph, atlas: Atlas, accepted: Collection[str]) -> None:
    """Refuse a graph of another model's features than the atlas's; raises `ConfigurationError`.

    Its `metadata.scan`, or another name that it has for its model or transcoders, has to be the id of the
    atlas, the name of its model or of its transcoders, or one that is `accepted`; of paths, the last part.
    """
    metadata = graph["metadata"]
    listed = metadata.get("transcoder_list")
    names = [metadata.get(name) for name in ("scan", "model", "model_name", "model_id")]
    names += listed if isinstance(listed, list) else []
    scan = metadata.get("scan")
    if not isinstance(scan, str) or not scan:
        raise ConfigurationError("The graph does not name its features: add their name as metadata.scan.")
    identity = AtlasIdentity.of(atlas)
    known = [atlas.id, identity.model, *identity.transcoders, *accepted]
    if {*_forms(names)} & {*_forms(known)}:
        return
    raise ConfigurationError(
        f"The graph is of {brief(scan)}, the atlas {brief(atlas.id, 40)} of {brief(identity.model)}: name another "
        "atlas, or, where the graph's features are its units, add --scan with the graph's name."
    )


def _forms(names: Collection[Any]) -> Iterator[str]:
    """Names in the forms in which they may be the same: whole, and the last part of each path in them."""
    for name in names:
        if isinstance(name, str) and name:
            whole = _PREFIX.sub("", name.partition("@")[0].casefold()).rstrip("/")
            yield from filter(None, (whole, *(part.rpartition("/")[2] for part in whole.split("//"))))


def link_base(url: str | None, atlas: Atlas) -> str | None:
    """The address to which pages are appended: one that is given, that of the atlas's own site, or None.

    Raises `ConfigurationError` for one that is given and no http address.
    """
    own = AtlasIdentity.of(atlas).url or (atlas.url_of("") if atlas.url.startswith("http") else None)
    base = own if url is None else url
    if not base:
        return None
    try:
        parts = urlsplit(base)
    except ValueError:
        parts = urlsplit("")
    if parts.scheme not in ("http", "https") or not parts.netloc or not base.isprintable() or set(base) & set("\"'<> "):
        raise ConfigurationError(f"--url {brief(base)}: give an address such as https://example.org/atlas.")
    return quote(base.removesuffix("index.html").rstrip("/"), safe="/%!$&()*+,;=:@?#[]~") + "/"


def label_nodes(
    graph: Graph, atlas: Atlas, *, base: str | None, behaviours: int = 2, replace: bool = False
) -> LabelledNodes:
    """Fill `clerp`, `url` and `vis_link` of a graph's nodes, in place, where they are of units of the atlas.

    The label names the main behaviours that cover most, of the sign of the node's activation.

    Args:
        graph: From `read_graph`.
        atlas: An open atlas of the graph's features.
        base: The address that pages are below; without one, no links are set.
        behaviours: Most behaviours that a label names.
        replace: Whether labels that are there are replaced.

    Raises:
        ConfigurationError: For a node that is none: of a wrong type, or with a number out of range.
    """
    counts = dict.fromkeys(LabelledNodes._fields, 0)
    known = {layer.number: len(layer) for layer in atlas.layers}
    # By unit, so that each record is read once.
    for node, place in sorted(_features(graph), key=lambda pair: pair[1]):
        if place.unit >= known.get(place.layer, 0):
            counts["unknown"] += 1
            continue
        unit = atlas[place]
        if base is not None:
            node["url"] = node["vis_link"] = base + unit.page
        if node.get("clerp") and not replace:
            counts["kept"] += 1
            continue
        label = node_label(unit, -1 if (node.get("activation") or 0) < 0 else 1, behaviours)
        counts["labelled" if label else "bare"] += 1
        if label:
            node["clerp"] = label
    return LabelledNodes(**counts)


def node_label(unit: Unit, sign: int, behaviours: int) -> str:
    """What a unit does, in a line: its main behaviours of a sign, most covering first; of the other where it has none.

    Raises `SiteError` where the record is damaged.
    """
    try:
        for side in (sign, -sign):
            measures = unit.polysemanticity if side > 0 else unit.negative and unit.negative.polysemanticity
            number = measures.main_behaviours if measures else None
            found = sorted((one for one in unit.behaviours if one.sign == side), key=lambda one: -one.size)
            main = sorted(found[: number or 1 if number is not None else None], key=lambda one: -one.coverage)
            if main:
                said = "; ".join(f"{_short(one.label)} ({percent(one.coverage)})" for one in main[:behaviours])
                return said if side > 0 else f"negative: {said}"
    except (KeyError, TypeError, ValueError, IndexError, AttributeError):
        raise damaged(unit) from None
    return ""


def _short(label: str) -> str:
    text = plain(label).translate(_MARKUP)
    return text if len(text) <= _LONGEST_LABEL else f"{beginning(text, _LONGEST_LABEL - 1)}…"


def _features(graph: Graph) -> Iterator[tuple[Graph, LayerUnit]]:
    """The nodes of features, and their places."""
    version = graph["metadata"].get("schema_version") or 0
    for place, node in enumerate(graph["nodes"]):
        if not isinstance(node, dict) or not isinstance(node.get("feature_type"), str):
            raise ConfigurationError(f"Node {place} of the graph has no feature_type: {_AGAIN}")
        if node["feature_type"] in FEATURE_TYPES:
            yield node, _place(node, place, version)


def _place(node: Mapping[str, Any], place: int, version: Any) -> LayerUnit:
    """The layer and number of a node's feature, which the graph's schema before version 1 has as they are."""
    feature, layer = node.get("feature"), node.get("layer")
    if type(feature) is not int or not 0 <= feature < _HIGHEST:
        raise ConfigurationError(f"Node {place} of the graph has the feature {brief(feature)}, which is none: {_AGAIN}")
    if not re.fullmatch("[0-9]{1,9}", str(layer)):
        raise ConfigurationError(f"Node {place} of the graph has the layer {brief(layer)}, which is none: {_AGAIN}")
    for name, kinds in (("clerp", str), ("activation", (int, float))):
        if node.get(name) is not None and not isinstance(node[name], kinds):
            raise ConfigurationError(f"Node {place} of the graph has {name} of a wrong type: {_AGAIN}")
    if type(version) is not int or version < 1:
        return LayerUnit(int(str(layer)), feature)
    found = cantor_unpair(feature)
    if found.layer != int(str(layer)):
        raise ConfigurationError(
            f"Node {place} of the graph is of layer {layer}, its feature {feature} of layer {found.layer}: {_AGAIN}"
        )
    return found


def write_graph(graph: Graph, output: Path) -> None:
    """Write a graph, in one step; raises `ConfigurationError` where a file that is no graph is at its place."""
    check_file("--output", output, _is_graph)
    with replacing(output) as file:
        file.write(orjson.dumps(graph, option=orjson.OPT_INDENT_2 | orjson.OPT_APPEND_NEWLINE))


def _is_graph(file: Path) -> bool:
    try:
        read_graph(file)
    except ConfigurationError:
        return False
    return True
