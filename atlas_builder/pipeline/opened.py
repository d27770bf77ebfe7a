"""The units of a build, with what the stages before the pass found for them."""

from __future__ import annotations

from pathlib import Path

from atlas_builder.collect.results import Collected
from atlas_builder.config import Configuration
from atlas_builder.models.language_model import LanguageModel
from atlas_builder.rotate.directions import directions_of
from atlas_builder.rotate.results import Rotation
from atlas_builder.units.base import Units
from atlas_builder.units.open import open_units


def open_built_units(
    loaded: LanguageModel, config: Configuration, rotation: Path, collected: Collected | None = None
) -> Units:
    """The units of a configuration; those of kind basis are in `rotation`, the folder of the rotate stage.

    After the pass, `collected` has its results.
    """
    tokens = None if collected is None else collected.facts.get("output_tokens")
    if config.units.kind != "basis":
        return open_units(loaded, config, tokens=tokens)
    return open_units(loaded, config, directions_of(Rotation(rotation)))
