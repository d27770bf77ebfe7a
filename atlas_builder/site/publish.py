"""The publish stage: records and pages of every unit, and all that stands around them."""

from __future__ import annotations

import shutil
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass, replace
from functools import cached_property, partial
from math import gcd
from pathlib import Path
from typing import Any
from urllib.parse import quote
from xml.sax.saxutils import escape

import numpy as np
import orjson

from atlas_builder import records
from atlas_builder.cluster import CONTRAST, Clustered
from atlas_builder.config import Configuration
from atlas_builder.config import Site as SiteSettings
from atlas_builder.describe.run import Described
from atlas_builder.progress import Progress
from atlas_builder.records import LayerRecords, Stages, unit_id
from atlas_builder.site import search
from atlas_builder.site.budget import fitted
from atlas_builder.site.cite import address, citation_cff
from atlas_builder.site.pages import Neighbourhood, Pages, Summary, unit_page
from atlas_builder.site.prose import render_prose
from atlas_builder.site.search import Posting
from atlas_builder.site.theme import environment, find_theme, shipped

_UNITS_AT_ONCE = 64
_STARTS = 6  # units in each list of the first page
_PROSE_ORDER = ("about", "methods", "behaviours", "data", "performance", "library", "citing")


@dataclass(frozen=True)
class Site:
    """All that pages are made from."""

    stages: Stages
    config: Configuration
    facts: dict[str, Any]
    date: str | None

    @cached_property
    def theme(self) -> Path:
        """The folder of the theme."""
        return find_theme(self.config.site.theme)

    @cached_property
    def docs(self) -> Path:
        """The folder of the prose pages."""
        return Path(self.config.site.prose) if self.config.site.prose else shipped("site_config") / "docs"

    @cached_property
    def prose(self) -> list[tuple[str, str]]:
        """The top pages of the prose, for the head of every page: address and name."""
        stems = [path.stem for path in self.docs.glob("*.md")]
        known = [stem for stem in _PROSE_ORDER if stem in stems]
        names = known + sorted(stem for stem in stems if stem not in known)
        return [(quote(f"{stem}.html"), stem.replace("-", " ").capitalize()) for stem in names]

    @cached_property
    def methods(self) -> str:
        """Where the numbers are defined."""
        return next((page for page, _ in self.prose if page == "methods.html"), "index.html")

    @property
    def extra(self) -> dict[str, Any]:
        """What the templates of prose see as `config.extra`."""
        return {
            "atlas_title": self.config.title,
            "atlas": self.config.atlas.model_dump(),
            "date": self.date,
            "prose": self.prose,
            "methods": self.methods,
        }

    @cached_property
    def pages(self) -> Pages:
        """What renders them."""
        jinja = environment(self.theme)
        jinja.globals.update(prose=self.prose, methods=self.methods)
        return Pages(jinja, self.config, self.facts, self.date)

    @cached_property
    def labels(self) -> dict[tuple[str, int], str]:
        """The label of every behaviour of the atlas, by unit id and number."""
        found = {}
        for layer in self.stages.collected.layers:
            behaviours = Clustered(layer.layer, self.stages.cluster).behaviours
            described = Described(layer.layer, self.stages.describe).behaviours
            for behaviour, words in zip(behaviours, described, strict=True):
                unit = unit_id(self.config.atlas.id, layer.layer, int(behaviour["unit"]))
                found[unit, int(behaviour["id"]) + 1] = words["label"]
        return found

    @cached_property
    def units(self) -> list[tuple[int, int]]:
        """Layer and number of every unit, in the order of the atlas."""
        return [(layer.layer, unit) for layer in self.stages.collected.layers for unit in range(layer.units)]

    @cached_property
    def _stride(self) -> int:
        """A step that visits every unit before it comes back."""
        count = len(self.units)
        return next(step for step in range(round(count * 0.618) or 1, count + 2) if gcd(step, count) == 1)

    def around(self, place: int) -> Neighbourhood:
        """What comes before and after a unit; where scripts are off, chance is a fixed walk."""
        count = len(self.units)
        return Neighbourhood(
            previous=unit_page(*self.units[place - 1]) if place else None,
            next=unit_page(*self.units[place + 1]) if place + 1 < count else None,
            random=unit_page(*self.units[(place + self._stride) % count]),
        )

    def __reduce__(self) -> tuple[Any, ...]:
        """Workers open what they need themselves."""
        return Site, (self.stages, self.config, self.facts, self.date)


def publish(site: Site, folder: Path, executor: Executor, progress: Progress) -> None:
    """Write the whole site into an empty folder, with as much of each unit as the host allows."""
    site = _fitted(site, progress)
    summaries: dict[int, list[Summary]] = {layer.layer: [] for layer in site.stages.collected.layers}
    for layer in summaries:
        (folder / f"L{layer}").mkdir(parents=True)
    with progress.task("publish", total=len(site.units), unit="units") as advance:
        chunks = range(0, len(site.units), _UNITS_AT_ONCE)
        tasks = [executor.submit(_publish_units, site, first, first + _UNITS_AT_ONCE, folder) for first in chunks]
        for task in tasks:
            done = task.result()
            for summary in done:
                summaries[summary.layer].append(summary)
            advance(len(done))
    for page, render in overviews(site, lambda: summaries).items():
        _write(folder / page, render())
    search.write(
        folder / "search",
        search.postings(_entries(site)),
        {layer: [unit.labels for unit in units] for layer, units in summaries.items()},
    )
    _write_around(site, folder)


def overviews(site: Site, summaries: Callable[[], dict[int, list[Summary]]]) -> dict[str, Callable[[], str]]:
    """What renders each page that is neither a unit's nor prose, by address; asks for summaries only where need be."""

    def layer(number: int) -> str:
        return site.pages.layer(number, summaries()[number], list(summaries()))

    return {
        "index.html": lambda: site.pages.home(summaries(), _starts(summaries()), _contrast(site)),
        "search.html": lambda: site.pages.plain("search.html", "search.html", "Search"),
        "404.html": lambda: site.pages.plain("404.html", "404.html", "Not found"),
        **{f"L{found.layer}/index.html": partial(layer, found.layer) for found in site.stages.collected.layers},
    }


class _Worker(threading.local):
    """What a worker keeps between chunks, so that it opens the stages once."""

    key: tuple[Any, ...] | None = None
    site: Site
    layer: LayerRecords

    def open(self, site: Site) -> None:
        """Take up a site, unless it is the one already open."""
        key = (site.stages.link, site.stages.fingerprint, repr(site.config), repr(site.facts))
        if self.key != key:
            self.key, self.site = key, site
            self.layer = LayerRecords(site.stages, site.stages.collected.layers[0], site.config)

    def unit(self, place: int) -> tuple[records.Record, str]:
        """Record and page of the unit at a place of the atlas; units come layer by layer."""
        layer, unit = self.site.units[place]
        if self.layer.layer.layer != layer:
            collected = next(found for found in self.site.stages.collected.layers if found.layer == layer)
            self.layer = LayerRecords(self.site.stages, collected, self.site.config)
        record = self.layer.record(unit)
        return record, self.site.pages.unit(record, self.site.labels, self.site.around(place))


_worker = _Worker()


def _fitted(site: Site, progress: Progress) -> Site:
    """The site with as much of each unit as its host allows; what differs from the settings stands in its facts."""

    def with_settings(settings: SiteSettings) -> Site:
        return replace(site, config=site.config.model_copy(update={"site": settings}))

    def size_of(settings: SiteSettings, place: int) -> int:
        _worker.open(with_settings(settings))
        record, page = _worker.unit(place)
        return len(records.serialise(record)) + len(_encoded(page))

    wanted = site.config.site
    fit = fitted(wanted, len(site.units), size_of, progress)
    if fit == wanted:
        return site
    shown = {name: value for name, value in fit.model_dump().items() if value != getattr(wanted, name)}
    return replace(with_settings(fit), facts={**site.facts, "shown": shown})


def _publish_units(site: Site, first: int, last: int, folder: Path) -> list[Summary]:
    """Write record and page of the units at these places of the atlas, and say what overviews need."""
    _worker.open(site)
    site = _worker.site
    summaries = []
    for place, (layer, unit) in enumerate(site.units[first:last], start=first):
        record, page = _worker.unit(place)
        (folder / f"L{layer}" / f"N{unit}.json").write_bytes(records.serialise(record))
        _write(folder / unit_page(layer, unit), page)
        summaries.append(summary(record))
    return summaries


def summary(record: records.Record) -> Summary:
    """What overviews say of a unit."""
    behaviours = record["behaviours"]
    return Summary(
        layer=record["layer"],
        unit=record["unit"],
        labels=[behaviour["label"] for behaviour in behaviours],
        measures=record["polysemanticity"],
        stats={name: record["stats"][name] for name in ("max", "density")},
        coverage=[behaviour["coverage"] for behaviour in behaviours if behaviour["sign"] > 0],
        likeness=_likeness(behaviours),
    )


def _likeness(behaviours: list[records.Record]) -> float:
    nearest = [max((near["similarity"] for near in found["neighbours"]), default=0.0) for found in behaviours]
    return sum(nearest) / len(nearest) if nearest else 0.0


def _contrast(site: Site) -> dict[str, float]:
    """Medians over all units of the distances of `cluster.CONTRAST`; without those that no unit has."""
    layers = site.stages.collected.layers
    found = np.concatenate([Clustered(layer.layer, site.stages.cluster).contrast for layer in layers])
    known = {name: column[~np.isnan(column)] for name, column in zip(CONTRAST, found.T, strict=True)}
    return {name: float(np.median(column)) for name, column in known.items() if len(column)}


def _starts(summaries: dict[int, list[Summary]]) -> list[tuple[str, str, Sequence[Summary]]]:
    """Lists of units worth a first look: title, reason, units."""
    units = [unit for layer in summaries.values() for unit in layer if unit.measures["examples"] >= 10]

    def best(score: Callable[[Summary], float | None]) -> list[Summary]:
        """The units of the highest score above zero."""
        scored = [(score(unit) or 0.0, unit) for unit in units]
        scored.sort(key=lambda entry: (-entry[0], entry[1].layer, entry[1].unit))
        return [unit for found, unit in scored[:_STARTS] if found > 0]

    many = best(lambda unit: unit.measures["behaviours"] > 1 and unit.measures["effective_behaviours"])
    apart = best(
        lambda unit: 2 <= unit.measures["behaviours"] <= 3 and unit.measures["inter_distance"] * min(unit.coverage)
    )
    single = best(lambda unit: unit.measures["behaviours"] == 1 and 2 - unit.measures["mean_distance"])
    alike = best(lambda unit: unit.likeness)
    lists = [
        ("Most behaviours", "Highest effective number of behaviours.", many),
        ("Two or three lives", "Few behaviours of like weight, far from each other.", apart),
        ("One thing only", "One behaviour, whose examples are most alike.", single),
        ("Seen elsewhere", "All they do, other units do much alike.", alike),
    ]
    return [entry for entry in lists if entry[2]]


def _entries(site: Site) -> Iterator[tuple[str, Posting]]:
    """Every token and key word of every behaviour, with its share in it."""
    texts = site.stages.collected.token_texts
    for layer in site.stages.collected.layers:
        behaviours = Clustered(layer.layer, site.stages.cluster).behaviours
        described = Described(layer.layer, site.stages.describe).behaviours
        for behaviour, found in zip(behaviours, described, strict=True):
            where = (layer.layer, int(behaviour["unit"]), int(behaviour["id"]) + 1)
            for word, share in found["words"]:
                yield word, Posting(*where, round(1000 * share))
            for token, share in found["tokens"]:
                yield texts[token], Posting(*where, round(1000 * share))


def _write_around(site: Site, folder: Path) -> None:
    """Everything that is neither a unit nor an overview of units."""
    assets = folder / "assets"
    for source in (shipped("themes") / "atlas" / "assets", site.theme / "assets"):
        if source.is_dir():
            shutil.copytree(source, assets, dirs_exist_ok=True)
    (folder / "schema").mkdir()
    shutil.copyfile(records.SCHEMA_FILE, folder / "schema" / records.SCHEMA_FILE.name)
    atlas = site.config.atlas
    prose = render_prose(site.docs, site.theme, folder, site.extra)
    (folder / "atlas.json").write_bytes(orjson.dumps(site.facts, option=orjson.OPT_SORT_KEYS | orjson.OPT_INDENT_2))
    _write(folder / "CITATION.cff", citation_cff(site.config, site.date))
    (folder / ".nojekyll").write_bytes(b"")
    robots = "User-agent: *\nAllow: /\n"
    if atlas.url:
        layers = [f"L{layer.layer}/index.html" for layer in site.stages.collected.layers]
        listed = ["index.html", *map(quote, prose), *layers, *(unit_page(*unit) for unit in site.units)]
        _write(folder / "sitemap.xml", _sitemap([address(atlas, page) or page for page in listed]))
        robots += f"Sitemap: {address(atlas, 'sitemap.xml')}\n"
    _write(folder / "robots.txt", robots)


def _sitemap(addresses: Sequence[str]) -> str:
    urls = "\n".join(f"<url><loc>{escape(found)}</loc></url>" for found in addresses)
    namespace = "http://www.sitemaps.org/schemas/sitemap/0.9"
    return f'<?xml version="1.0" encoding="UTF-8"?>\n<urlset xmlns="{namespace}">\n{urls}\n</urlset>\n'


def _write(path: Path, text: str) -> None:
    path.write_bytes(_encoded(text))


def _encoded(text: str) -> bytes:
    # Lone surrogates cannot reach a page through tokens; through a label from outside they could.
    return text.encode("utf-8", "replace")
