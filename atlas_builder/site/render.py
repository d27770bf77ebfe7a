"""Records and pages of units, made by workers that open the stages once."""

from __future__ import annotations

import hashlib
import os
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from atlas_builder.collect.results import Selection
from atlas_builder.config import SiteSettings
from atlas_builder.progress import gc_paused
from atlas_builder.records.address import UnitAddress
from atlas_builder.records.record import LayerRecords
from atlas_builder.records.schema import Record
from atlas_builder.site import layer_table
from atlas_builder.site.citing.cite import csl_of, ris_of
from atlas_builder.site.context import Site
from atlas_builder.site.summary import Summary, summary_of

_WRITTEN_ANEW = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | getattr(os, "O_BINARY", 0)


class RenderedUnit(NamedTuple):
    """A unit's record, the bytes of its file, and those of its page."""

    record: Record
    content: bytes
    page: bytes


class WrittenUnits(NamedTuple):
    """What overviews need of units, and the SHA-256 of each of their files by its path in the site."""

    summaries: list[Summary]
    digests: dict[str, str]


class Worker(threading.local):
    """What a worker keeps between chunks, so that it opens the stages once."""

    key: tuple[Any, ...] | None = None
    site: Site
    layer: LayerRecords

    def open(self, site: Site) -> None:
        """Open a site, unless it is the one already open."""
        said = site.said and (site.said, site.said.stat().st_mtime_ns)
        key = (site.stages.link, site.stages.fingerprint, repr(site.config), repr(site.facts), said)
        if self.key != key:
            self.key, self.site = key, site
            self.layer = LayerRecords(site.stages, site.stages.collected.layers[0], site.config)

    def unit(self, place: int, shown: SiteSettings | None = None) -> RenderedUnit:
        """Record and page of the unit at a place of the atlas; units come layer by layer.

        `shown` replaces the site's settings of how much of it is shown.
        """
        shown = shown or self.site.config.site
        layer, unit = self.site.units[place]
        if self.layer.layer.layer != layer:
            collected = next(each for each in self.site.stages.collected.layers if each.layer == layer)
            self.layer = LayerRecords(self.site.stages, collected, self.site.config)
        record, content = self.layer.with_bytes(unit, shown)
        signs = (1, -1)[: self.layer.layer.signs] if shown.planes else ()
        planes = {sign: self.layer.plane(unit, sign) for sign in signs}
        selection = Selection(*self.layer.layer.selection[unit, 0].tolist())
        site = self.site
        page = site.pages.unit(
            record, planes, site.labels, site.around(place), selection, shown, explanations=site.explanations
        )
        return RenderedUnit(record, content, encoded(page))


worker = Worker()


def publish_units(site: Site, first: int, last: int, folder: Path) -> WrittenUnits:
    """Write record and page of the units at these places of the atlas."""
    worker.open(site)
    site = worker.site
    written = WrittenUnits([], {})
    with gc_paused():
        for place, (layer, unit) in enumerate(site.units[first:last], start=first):
            rendered, address = worker.unit(place), UnitAddress(layer, unit)
            for name, content in ((address.record, rendered.content), (address.page, rendered.page)):
                _write(f"{folder}/{name}", content)
                written.digests[name] = hashlib.sha256(content).hexdigest()
            written.summaries.append(summary_of(rendered.record, site.explanations))
    return written


def _write(path: str, content: bytes) -> None:
    """Write a file in as few calls of the system as it takes: an atlas has many thousands."""
    descriptor = os.open(path, _WRITTEN_ANEW, 0o666)
    try:
        left = memoryview(content)
        while left:
            left = left[os.write(descriptor, left) :]
    finally:
        os.close(descriptor)


def sizes(site: Site, settings: Sequence[SiteSettings], places: Sequence[int]) -> NDArray[np.int64]:
    """Bytes of page and record of the units at these places of the atlas, with each settings: (settings, units)."""
    worker.open(site)

    def size(place: int, shown: SiteSettings) -> int:
        rendered = worker.unit(place, shown)
        return len(rendered.content) + len(rendered.page)

    with gc_paused():
        counts = [[size(place, shown) for shown in settings] for place in places]
    return np.array(counts, dtype=np.int64).reshape(len(places), len(settings)).T


def publish_layer(site: Site, layer: int, units: Sequence[Summary], layers: Sequence[int], folder: Path) -> None:
    """Write the table of a layer, its data for scripts, and the citations of its units."""
    worker.open(site)
    for name, page in worker.site.pages.layer(layer, units, layers).items():
        write_text(folder / f"L{layer}" / name, page)
    (folder / f"L{layer}" / "units.js").write_bytes(layer_table.data(layer, units, worker.site.pages.names.tokens))
    citations = [worker.site.pages.unit_citation(layer, unit.unit, unit.hash) for unit in units]
    write_text(folder / f"L{layer}" / "cite.json", csl_of(citations))
    write_text(folder / f"L{layer}" / "cite.ris", ris_of(citations))


def write_text(path: Path, text: str) -> None:
    """Write a text in UTF-8."""
    path.write_bytes(encoded(text))


def encoded(text: str) -> bytes:
    """A text in UTF-8, with `?` for what it cannot encode."""
    # Lone surrogates cannot reach a page through tokens; through a label from outside they could.
    return text.encode("utf-8", "replace")
