"""The publish stage: records and pages of every unit, overviews, search, map, tables, metadata."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Sequence
from concurrent.futures import Executor, ThreadPoolExecutor
from dataclasses import replace
from functools import cache, partial
from itertools import accumulate
from pathlib import Path
from urllib.parse import quote

import numpy as np
import orjson
from numpy.typing import NDArray

from atlas_builder.cluster.run import PAPER_DISTANCES
from atlas_builder.config import SiteSettings
from atlas_builder.progress import Progress, gc_paused
from atlas_builder.records.address import UnitAddress
from atlas_builder.records.directions import write_directions
from atlas_builder.records.schema import SCHEMA_FILE, schema
from atlas_builder.records.tables import write_tables
from atlas_builder.shipped import shipped_folder
from atlas_builder.site import constants
from atlas_builder.site import map as site_map
from atlas_builder.site.citing import metadata
from atlas_builder.site.citing.cite import address
from atlas_builder.site.context import Site
from atlas_builder.site.explaining import with_explanations
from atlas_builder.site.graph import Graph, interaction_addresses
from atlas_builder.site.highlights import highlights
from atlas_builder.site.hosting import size, sums
from atlas_builder.site.hosting.budget import fitted
from atlas_builder.site.in_words import SaidFile
from atlas_builder.site.layer_table import leaf_names
from atlas_builder.site.prose.render import render_prose
from atlas_builder.site.render import publish_layer, publish_units, sizes, write_text
from atlas_builder.site.search import index
from atlas_builder.site.sitemap import SITEMAP, sitemap_files
from atlas_builder.site.summary import Summary
from atlas_builder.site.theme import renderer
from atlas_builder.system.processes import ended_on_failure

_UNITS_AT_ONCE = 128
_COPIES = 3  # of explanations beside pages: their file; parts of them in search, layers' pages and tables


def publish(site: Site, folder: Path, executor: Executor, progress: Progress) -> None:
    """Write the whole site into an empty folder, with as much of each unit as the host allows."""
    with gc_paused():
        site = with_explanations(site, folder, progress)
        summaries = _publish(_fitted(site, executor, progress), folder, executor, progress)
    for line in size.measure_sizes(size.site_files(folder), site.config.site.host).lines:
        progress.say(line)
    if scarcity := site.pages.scarcity([unit for units in summaries.values() for unit in units]):
        progress.say(scarcity)


def _publish(site: Site, folder: Path, executor: Executor, progress: Progress) -> dict[int, list[Summary]]:
    """Write everything; return summaries of units by layer."""
    map_task = executor.submit(site_map.publish_map, site.stages, folder / "map")
    tasks = [executor.submit(write_tables, folder / "tables", site.stages, site.config, site.said)]
    # The workers render units while the index is written here.
    with ThreadPoolExecutor(1) as thread, ended_on_failure(executor):
        queries = thread.submit(
            index.write_index,
            folder / "search",
            site.stages,
            site.config.examples.window,
            executor,
            SaidFile(site.said, site.config.atlas.id) if site.said else None,
        )
        summaries, digests = _write_units(site, folder, executor, progress)
        site = replace(site, facts={**site.facts, "queries": queries.result()._asdict()})
    tasks += [
        executor.submit(publish_layer, site, layer, units, list(summaries), folder)
        for layer, units in summaries.items()
    ]
    drawn = map_task.result()
    for page, render in overviews(site, lambda: summaries, lambda: drawn).items():
        (folder / page).parent.mkdir(exist_ok=True)
        write_text(folder / page, render())
    _write_around(site, folder)
    for task in tasks:
        task.result()
    metadata.write_metadata(folder, site.pages.citation)  # it lists what is there
    sums.seal(folder, known_digests=digests)  # last: every file is in it
    return summaries


def _write_units(
    site: Site, folder: Path, executor: Executor, progress: Progress
) -> tuple[dict[int, list[Summary]], dict[str, str]]:
    """Write record and page of every unit; return summaries by layer, and the SHA-256 of each file by its path."""
    digests: dict[str, str] = {}
    summaries: dict[int, list[Summary]] = {layer.layer: [] for layer in site.stages.collected.layers}
    for layer in summaries:
        (folder / f"L{layer}").mkdir(parents=True)
    with progress.task("publish", total=len(site.units), unit="units") as advance:
        chunks = range(0, len(site.units), _UNITS_AT_ONCE)
        tasks = [executor.submit(publish_units, site, first, first + _UNITS_AT_ONCE, folder) for first in chunks]
        for task in tasks:
            done = task.result()
            for summary in done.summaries:
                summaries[summary.layer].append(summary)
            digests |= done.digests
            advance(len(done.summaries))
    return summaries, digests


def overviews(
    site: Site, summaries: Callable[[], dict[int, list[Summary]]], drawn: Callable[[], site_map.DrawnMap]
) -> dict[str, Callable[[], str]]:
    """A function for each page that is not a unit's, a layer's or prose, by address; it reads only what it needs."""
    pages = {
        "index.html": lambda: site.pages.home(
            summaries(), highlights(summaries(), site.stages.links), _paper_distances(site), drawn()
        ),
        "map.html": lambda: site.pages.map(drawn()),
        "search.html": lambda: site.pages.plain("search.html", "search.html", "Search"),
        "404.html": lambda: site.pages.plain("404.html", "404.html", "Not found"),
    }
    return {**pages, **(_interactions(site, summaries) if site.has_interactions else {})}


def _interactions(site: Site, summaries: Callable[[], dict[int, list[Summary]]]) -> dict[str, Callable[[], str]]:
    """A function for each page of how directions interact, by address."""

    @cache
    def graph() -> Graph:
        return site.graph(summaries())

    def page(address: str) -> str:
        return site.pages.interaction(address, graph())

    return {address: partial(page, address) for address in interaction_addresses(site.facts)}


def _fitted(site: Site, executor: Executor, progress: Progress) -> Site:
    """The site with as much of each unit as its host allows; facts['shown'] has what differs from the settings."""
    layers = [layer.units for layer in site.stages.collected.layers]

    def sizes_of(settings: Sequence[SiteSettings], units: Sequence[NDArray[np.intp]]) -> list[NDArray[np.int64]]:
        firsts = accumulate(layers, initial=0)
        tasks = [
            executor.submit(sizes, site, settings, (first + sampled).tolist())
            for first, sampled in zip(firsts, units, strict=False)
        ]
        return [task.result() for task in tasks]

    settings = site.config.site
    beside = _COPIES * site.said.stat().st_size if site.said else 0
    fit = fitted(settings, layers, sizes_of, progress, len(site.stages.links.address), beside)
    if fit == settings:
        return site
    shown = {name: value for name, value in fit.model_dump().items() if value != getattr(settings, name)}
    config = site.config.model_copy(update={"site": fit})
    return replace(site, config=config, facts={**site.facts, "shown": shown})


def _paper_distances(site: Site) -> dict[str, float]:
    """Medians over all units of each of `PAPER_DISTANCES`; without those that no unit has."""
    distances = np.concatenate([layer.clustered.paper_distances for layer in site.stages.layers])
    known = {name: column[~np.isnan(column)] for name, column in zip(PAPER_DISTANCES, distances.T, strict=True)}
    return {name: float(np.median(column)) for name, column in known.items() if len(column)}


def _write_around(site: Site, folder: Path) -> None:
    """Write everything that is neither a unit nor an overview of units."""
    assets = folder / "assets"
    for source in (shipped_folder("themes") / "atlas" / "assets", site.theme / "assets"):
        if source.is_dir():
            shutil.copytree(source, assets, dirs_exist_ok=True)
    (assets / "constants.js").write_bytes(constants.script())
    (folder / "schema").mkdir()
    (folder / "schema" / SCHEMA_FILE.name).write_bytes(orjson.dumps(schema(), option=orjson.OPT_INDENT_2))
    atlas = site.config.atlas
    prose = render_prose(site.docs, site.theme, folder, site.extra)
    # The names of the prose's pages, and of what renders pages, let `check` render them again.
    facts = {**site.facts, "prose": site.prose, "renderer": renderer()}
    # With hashes to fill in: other files tell its size.
    (folder / "atlas.json").write_bytes(sums.facts_bytes({**facts, "sha256": sums.UNSEALED}))
    if site.config.rotates and site.stages.rotation is not None:
        write_directions(site.stages.rotation, folder)
    (folder / ".nojekyll").write_bytes(b"")
    robots = "User-agent: *\nAllow: /\n"
    if atlas.url:
        layers = [
            f"L{layer.layer}/{leaf}" for layer in site.stages.collected.layers for leaf in leaf_names(layer.units)
        ]
        pages = [
            "index.html",
            "map.html",
            *map(quote, prose),
            *interaction_addresses(site.facts),
            *layers,
            *(UnitAddress(*unit).page for unit in site.units),
        ]
        for name, text in sitemap_files(atlas, [address(atlas, page) or page for page in pages]).items():
            write_text(folder / name, text)
        robots += f"Sitemap: {address(atlas, SITEMAP)}\n"
    write_text(folder / "robots.txt", robots)
