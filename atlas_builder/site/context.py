"""An atlas about to be published: its stages, its settings, and what every page of it shares."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from math import gcd
from pathlib import Path
from typing import Any
from urllib.parse import quote

from atlas_builder.config import Configuration
from atlas_builder.corpus.token_text import plain
from atlas_builder.progress import gc_paused
from atlas_builder.records.address import UnitAddress
from atlas_builder.records.columns import EdgeRow
from atlas_builder.records.explanations import ByBehaviour, read_published
from atlas_builder.records.stages import Stages
from atlas_builder.records.tables import edge_rows
from atlas_builder.shipped import shipped_folder
from atlas_builder.site.graph import Graph
from atlas_builder.site.pages import Neighbourhood, Pages
from atlas_builder.site.summary import Summary
from atlas_builder.site.theme import environment, find_theme

_PROSE_ORDER = ("about", "methods", "data", "citing")
_PROSE_NAMES = {"mkdocs": "MkDocs", "units": "Other units"}
"""Pages that are not called after their file."""


@dataclass(frozen=True)
class Site:
    """What pages are made from."""

    stages: Stages
    config: Configuration
    facts: dict[str, Any]
    date: str | None
    said: Path | None = None
    """The published file of explanations, where there are any."""

    @cached_property
    def theme(self) -> Path:
        """The folder of the theme."""
        return find_theme(self.config.site.theme)

    @cached_property
    def docs(self) -> Path:
        """The folder of the prose pages."""
        return Path(self.config.site.prose) if self.config.site.prose else shipped_folder("site_config") / "docs"

    @cached_property
    def prose(self) -> list[tuple[str, str]]:
        """The top pages of the prose, for the head of every page: address and name."""
        stems = [path.stem for path in self.docs.glob("*.md")]
        known = [stem for stem in _PROSE_ORDER if stem in stems]
        names = known + sorted(stem for stem in stems if stem not in known)
        return [
            (quote(f"{stem}.html"), _PROSE_NAMES.get(stem) or plain(stem.replace("-", " ").capitalize()))
            for stem in names
        ]

    @cached_property
    def methods(self) -> str:
        """Where the numbers are defined."""
        return next((page for page, _ in self.prose if page == "methods.html"), "index.html")

    @property
    def extra(self) -> dict[str, Any]:
        """What the templates of prose get as `config.extra`."""
        return {
            "atlas_title": plain(self.config.title),
            "atlas": self.config.atlas.model_dump(),
            "date": self.date,
            "prose": self.prose,
            "methods": self.methods,
            "above": self.config.site.above,
            "interactions": self.has_interactions,
        }

    @cached_property
    def pages(self) -> Pages:
        """What renders the pages of units, layers and overviews."""
        jinja = environment(self.theme)
        jinja.globals.update(prose=self.prose, methods=self.methods, above=self.config.site.above)
        jinja.globals.update(interactions=self.has_interactions)
        return Pages(jinja, self.config, self.facts, self.date)

    @property
    def has_interactions(self) -> bool:
        """Whether the atlas is of directions, and has pages of how they interact."""
        return self.config.units.kind == "basis"

    def graph(self, layers: Mapping[int, Sequence[Summary]]) -> Graph:
        """How directions interact, by summaries of all."""
        return Graph.of(layers, self.facts["interaction"], self.edge_rows)

    @cached_property
    def edge_rows(self) -> list[EdgeRow]:
        """The edges above the floors; none where the units are no directions."""
        interactions = self.stages.interactions
        return edge_rows(interactions) if interactions else []

    @cached_property
    def labels(self) -> dict[tuple[str, int], str]:
        """The label of every behaviour of the atlas, by unit id and number."""
        labels = {}
        with gc_paused():
            for layer in self.stages.one_by_one():
                own = range(layer.collected.units)
                ids = [UnitAddress(layer.number, unit).within(self.config.atlas.id) for unit in own]
                units, numbers = (layer.clustered.behaviours[name].tolist() for name in ("unit", "id"))
                for unit, number, label in zip(units, numbers, layer.described.labels(), strict=True):
                    labels[ids[unit], number + 1] = label
        return labels

    @cached_property
    def explanations(self) -> ByBehaviour:
        """What models said of behaviours and units."""
        return read_published(self.said)

    @cached_property
    def units(self) -> list[tuple[int, int]]:
        """Layer and number of every unit, in the order of the atlas."""
        return [(layer.layer, unit) for layer in self.stages.collected.layers for unit in range(layer.units)]

    @cached_property
    def _stride(self) -> int:
        """A step coprime to the number of units: repeated, it visits each before it returns."""
        count = len(self.units)
        return next(step for step in range(round(count * 0.618) or 1, count + 2) if gcd(step, count) == 1)

    def around(self, place: int) -> Neighbourhood:
        """The neighbours of a unit's page; without scripts, the random one is a fixed walk."""
        count = len(self.units)
        return Neighbourhood(
            previous=UnitAddress(*self.units[place - 1]).page if place else None,
            next=UnitAddress(*self.units[place + 1]).page if place + 1 < count else None,
            random=UnitAddress(*self.units[(place + self._stride) % count]).page,
        )

    def __reduce__(self) -> tuple[Any, ...]:
        """Workers open what they need themselves."""
        return Site, (self.stages, self.config, self.facts, self.date, self.said)
