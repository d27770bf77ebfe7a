"""What is made from many units: layers' pages and files, the first page, the map, metadata, and what surrounds them."""

from __future__ import annotations

import base64
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import orjson
from markupsafe import Markup
from numpy.typing import NDArray

from atlas_builder.cluster.run import PAPER_DISTANCES
from atlas_builder.corpus.token_text import plain
from atlas_builder.site import layer_table
from atlas_builder.site import map as site_map
from atlas_builder.site.citing.cite import csl_of, ris_of
from atlas_builder.site.graph import interaction_addresses
from atlas_builder.site.highlights import highlights
from atlas_builder.site.hosting.checks.comparison import Comparison
from atlas_builder.site.hosting.checks.edges import edge_problems
from atlas_builder.site.hosting.checks.published import PublishedSite
from atlas_builder.site.search.index import BLOCK
from atlas_builder.site.summary import Summary
from atlas_builder.site.theme import environment

Layers = Mapping[int, Sequence[Summary]]

_SKY = re.compile(r'<svg class="sky".*?</svg>', re.DOTALL)
_DRAWN = re.compile(r'aria-label="Map of ([\d,]+) behaviours')
_CONNECTED = re.compile(r"<section><h3>(Most connected)</h3><p>([^<]*)</p>\n<ul>\n(.*?)</ul></section>", re.DOTALL)
_UNIT = re.compile(r'<li><a href="L(\d+)/N(\d+)\.html">')
_DISTANCES = re.compile(r'<tr><th scope="row">[^<]*</th><td>([^<]+)</td><td>([^<]+)</td></tr>')
_ROUNDED = 2e-2  # what a difference of differences of numbers of two digits may lack
_BETTER = "neuron embeddings separate behaviours better here"
_REGION = re.compile(r"<li><h3>(.*?) <small>level (\d), (\S+) (\S+)</small></h3>\n<ul>\n(.*?)</ul>", re.DOTALL)
_NEAR = re.compile(r"<li><a href=(L\d+/N\d+)\.html#b(\d+)>")
_ARTICLE = re.compile(r"<article>\n(.*)\n</article>", re.DOTALL)
_TITLE = re.compile(r"<title>(.*?)</title>", re.DOTALL)


class _Overview(Comparison):
    """Compares overviews with the summaries of all units."""

    def __init__(self, site: PublishedSite, layers: Layers) -> None:
        super().__init__(site)
        self.layers, self.map = layers, _read_map(site)
        found = _SKY.search(self.text("map.html"))
        self.sky = Markup(found[0]) if found else Markup("")


def overview_problems(site: PublishedSite, layers: Layers) -> list[str]:
    """Where overviews are not what the records give; every unit must have a sound record."""
    overview = _Overview(site, layers)
    _layers(overview)
    _map(overview)
    _home(overview)
    for page, title in (("search.html", "Search"), ("404.html", "Not found")):
        overview.same(page, site.pages.plain(page, page, title))
    if site.has_interactions:
        _interactions(overview)
    _prose(overview)
    return overview.problems


def _layers(overview: _Overview) -> None:
    pages, numbers = overview.site.pages, list(overview.layers)
    for layer, units in overview.layers.items():
        for name, page in pages.layer(layer, units, numbers).items():
            overview.same(f"L{layer}/{name}", page)
        overview.same(f"L{layer}/units.js", layer_table.data(layer, units, pages.names.tokens))
        citations = [pages.unit_citation(layer, unit.unit, unit.hash) for unit in units]
        overview.same(f"L{layer}/cite.json", csl_of(citations))
        overview.same(f"L{layer}/cite.ris", ris_of(citations))


def _interactions(overview: _Overview) -> None:
    """The pages of how directions interact, and the table of edges, by what records say of each direction."""
    site = overview.site
    graph = site.graph(overview.layers)
    overview.problems += edge_problems(overview.layers, graph, site.facts["interaction"])
    for address in interaction_addresses(site.facts):
        overview.same(address, site.pages.interaction(address, graph))


def _home(overview: _Overview) -> None:
    """The first page; which units are most connected, and the paper's distances, are not in records."""
    page, layers = overview.text("index.html"), overview.layers
    unlinked = SimpleNamespace(neighbours=np.zeros(0, np.int64), address=np.zeros((0, 3), np.int64))
    starts = list(highlights(layers, cast(Any, unlinked)))
    if connected := _CONNECTED.search(page):
        by_place = {(unit.layer, unit.unit): unit for units in layers.values() for unit in units}
        named = [(int(layer), int(unit)) for layer, unit in _UNIT.findall(connected[3])]
        units = [by_place[place] for place in dict.fromkeys(named) if place in by_place]
        reason = "Most often among the nearest neighbours of other units’ behaviours."
        starts.append(("Most connected", reason, units[:6]))
    drawn = site_map.DrawnMap(overview.sky, 0, [])
    overview.same("index.html", overview.site.pages.home(layers, starts, _distances(page), drawn))


def _distances(page: str) -> dict[str, float]:
    """The distances of a first page, within and between clusters, by `PAPER_DISTANCES`."""
    rows = _DISTANCES.findall(page)
    try:
        values = [min(2.0, float(value.replace("−", "-"))) for row in rows for value in row]
    except ValueError:
        return {}
    if len(values) != len(PAPER_DISTANCES):
        return {}
    gaps = values[1] - values[0], values[3] - values[2]
    if abs(gaps[0] - gaps[1]) < _ROUNDED:  # too near for rounded numbers to tell which is larger
        way = 1 if _BETTER in page else -1
        steps = [0.49 * 10 ** (math.floor(math.log10(value)) - 1) if value > 0 else 0.0 for value in values]
        values = [value + way * sign * step for value, sign, step in zip(values, (-1, 1, 1, -1), steps, strict=True)]
    return dict(zip(PAPER_DISTANCES, values, strict=True))


def _read_map(site: PublishedSite) -> dict[str, Any] | None:
    """The data of the map; None where they cannot be read."""
    try:
        text = (site.folder / "map" / "points.js").read_text(encoding="utf-8")
        content = orjson.loads(text.removeprefix("Atlas.map(").removesuffix(");\n"))
        return {
            **content,
            **{
                name: np.frombuffer(base64.b64decode(content[name]), "<u2")
                for name in ("counts", "effective", "places")
            },
        }
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _map(overview: _Overview) -> None:
    """The map: its data against records, its picture and regions against its data."""
    data, every = overview.map, [unit for units in overview.layers.values() for unit in units]
    if data is None:
        return  # `check` says so
    if data["counts"].tolist() != [len(unit.labels) for unit in every]:
        overview.problems.append("map/points.js: its numbers of behaviours are not those of the records")
        return
    if data.get("tokens") != overview.site.pages.names.tokens:
        overview.problems.append("map/points.js: its tokens are not those of the atlas")
    effective = np.array([unit.measures["effective_behaviours"] or 0.0 for unit in every])
    if len(data["effective"]) != len(every) or np.any(
        np.abs(data["effective"] - np.minimum(effective * 100, 65_535)) > 0.51
    ):
        overview.problems.append("map/points.js: its effective numbers are not those of the records")
    if len(data["places"]) != 2 * data["counts"].sum() or data["block"] != BLOCK:
        overview.problems.append("map/points.js: it has not one place for each behaviour")
        return
    places = data["places"].reshape(-1, 2)
    there = (places != 65_535).all(axis=1)
    placed = int(there.sum())
    said = _DRAWN.search(overview.sky)
    if (int(said[1].replace(",", "")) if said else 0) != placed:
        overview.problems.append("map.html: its picture is of another number of behaviours than are placed")
    regions = _regions(overview, places.astype(np.float64) / site_map.STEPS, there)
    overview.same("map.html", overview.site.pages.map(site_map.DrawnMap(overview.sky, placed, regions)))


def _regions(overview: _Overview, places: NDArray[np.float64], there: NDArray[np.bool_]) -> list[site_map.Region]:
    """The regions of the data; the order of behaviours that are equally near is the page's."""
    assert overview.map is not None
    said = _REGION.findall(overview.text("map.html"))
    numbers = overview.site.numbers
    labels = list(overview.site.labels.values())
    at = places[there]
    atlas = overview.site.config.atlas.id
    regions = []
    for place, (x, y, level, word) in enumerate(
        overview.map["words"][: max(len(said), min(60, len(overview.map["words"])))]
    ):
        near = []
        distances = np.hypot(*(at - (x, y)).T)
        # Words stand where a behaviour does; places are rounded to 16 bits, and words' to four digits.
        last = np.sort(distances)[:6][-1] + 5e-4
        for name, number in _NEAR.findall(said[place][4]) if place < len(said) else []:
            found = numbers.get((f"{atlas}/{name}", int(number)))
            if found is None or not there[found] or np.hypot(*(places[found] - (x, y))) > last:
                overview.problems.append(f"map.html: {name}.b{number} is not near {word!r}")
                continue
            known = f"{overview.site.pages.names.of_id(f'{atlas}/{name}')}.b{number}"
            near.append(site_map.NearbyBehaviour(f"{name}.html#b{number}", known, labels[found]))
        # Rounded per cents of the page, where the data allow them.
        texts = said[place][2:4] if place < len(said) else ("", "")
        word_ = site_map.Word(_shown(texts[0], x), _shown(texts[1], y), level, word)
        regions.append(site_map.Region(word_, near))
    return regions


def _shown(text: str, value: float) -> float:
    """A share that is written so, if it is about this value; else the value."""
    match = re.fullmatch(r"(\d+)%", text)
    if match and abs(int(match[1]) / 100 - value) < 0.0052:
        return int(match[1]) / 100
    return value


def _prose(overview: _Overview) -> None:
    """What surrounds the text of prose; the text is its author's."""
    site = overview.site
    # MkDocs keeps the line ends around statements.
    template = environment(site.theme).overlay(trim_blocks=False, lstrip_blocks=False).get_template("main.html")
    for page, _ in site.prose:
        name = page.replace("%20", " ")
        text = overview.text(name)
        article, title = _ARTICLE.search(text), _TITLE.search(text)
        if article is None or title is None:
            overview.problems.append(f"{name}: it has no article or title")
            continue
        own = title[1].removesuffix(f", {Markup.escape(plain(site.config.title))}")
        expected = template.render(
            base_url=".",
            config=SimpleNamespace(extra=SimpleNamespace(**site.extra)),
            page=SimpleNamespace(title=Markup(own), content=Markup(article[1]), url=page),
        )
        overview.same(name, expected)


def by_layer(site: PublishedSite, summaries: Sequence[Summary]) -> Layers:
    """Summaries of all units by layer."""
    layers: dict[int, list[Summary]] = {layer["layer"]: [] for layer in site.facts["layers"]}
    for unit in summaries:
        layers[unit.layer].append(replace(unit))
    return layers
