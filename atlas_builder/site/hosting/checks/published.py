"""A published atlas read back: what renders its pages again from its records and facts alone."""

from __future__ import annotations

import secrets
from functools import cached_property
from pathlib import Path
from typing import Any, cast

import orjson

from atlas_builder.config import Configuration
from atlas_builder.errors import AtlasError
from atlas_builder.records.address import UnitAddress
from atlas_builder.records.columns import EdgeRow
from atlas_builder.records.explanations import PUBLISHED, ByBehaviour, read_published
from atlas_builder.records.rows import read_rows
from atlas_builder.records.tables import read_edges
from atlas_builder.shipped import shipped_folder
from atlas_builder.site.context import Site
from atlas_builder.site.theme import renderer


class PublishedSite(Site):
    """The site of a folder; there are no stages."""

    folder: Path
    run: str
    """Names one check: what was read of a folder for another does not count."""

    @classmethod
    def at(cls, folder: Path, facts: dict[str, Any], run: str = "") -> PublishedSite:
        """The site in a folder, whose `atlas.json` holds `facts`; `ValueError`, `KeyError` where these are none."""
        settings = {**facts["configuration"], "site": {**facts["configuration"]["site"], **facts.get("shown", {})}}
        config = Configuration.model_validate_json(orjson.dumps(settings))
        said = folder / PUBLISHED if config.site.explanations else None
        site = cls(cast(Any, None), config, facts, facts["date"], said)
        object.__setattr__(site, "folder", folder)
        object.__setattr__(site, "run", run or secrets.token_hex(8))
        return site

    @cached_property
    def theme(self) -> Path:
        """The shipped theme: templates are programs, and one that a folder names is not run."""
        return shipped_folder("themes") / "atlas"

    @cached_property
    def prose(self) -> list[tuple[str, str]]:
        """As `atlas.json` lists them."""
        return [(str(page), str(name)) for page, name in self.facts["prose"]]

    @cached_property
    def units(self) -> list[tuple[int, int]]:
        """Layer and number of every unit, in the order of the atlas."""
        return [(layer["layer"], unit) for layer in self.facts["layers"] for unit in range(layer["units"])]

    @cached_property
    def labels(self) -> dict[tuple[str, int], str]:
        """The label of every behaviour of the atlas, from its table; `OSError`, `ValueError` if unreadable."""
        columns = ["id", "behaviour", "label"]
        rows = read_rows(self.folder / "tables" / "behaviours.parquet", columns)
        ids, numbers, labels = (rows[name].to_pylist() for name in columns)
        return dict(zip(zip(ids, numbers, strict=True), labels, strict=True))

    @cached_property
    def explanations(self) -> ByBehaviour:
        """As the site's file has them; none where it cannot be read, which `explanation_problems` says."""
        try:
            return read_published(self.said)
        except (OSError, ValueError, AtlasError):
            return {}

    @cached_property
    def edge_rows(self) -> list[EdgeRow]:
        """The edges above the floors, from their table; `OSError`, `ValueError` if unreadable."""
        return read_edges(self.folder / "tables") if self.has_interactions else []

    @cached_property
    def numbers(self) -> dict[tuple[str, int], int]:
        """The number of every behaviour, counted through the atlas."""
        return {behaviour: number for number, behaviour in enumerate(self.labels)}

    def place(self, address: UnitAddress) -> int:
        """The place of a unit in `units`."""
        return self._places[address]

    @cached_property
    def _places(self) -> dict[tuple[int, int], int]:
        return {unit: place for place, unit in enumerate(self.units)}


def objection(facts: dict[str, Any]) -> str | None:
    """Why pages cannot be compared with what this version renders; None where they can."""
    theme = facts["configuration"]["site"]["theme"]
    if theme != "atlas":
        return f"pages were not compared with records: their theme, {theme}, is not one of Atlas Builder."
    if facts.get("renderer") != renderer():
        return "pages were not compared with records: another version of Atlas Builder made them; use that one."
    return None
