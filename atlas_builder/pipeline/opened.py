"""The units of a build, with what the stages before the pass found for them."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

from atlas_builder.collect.results import Collected
from atlas_builder.config import Configuration
from atlas_builder.models.language_model import LanguageModel, load_model
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


class OpenedModel(NamedTuple):
    """A model and its units."""

    loaded: LanguageModel
    units: Units


_models: dict[tuple[str, str], LanguageModel] = {}
_units: dict[tuple[str, str], Units] = {}


def loaded_once(build: str, config: Configuration) -> LanguageModel:
    """The model of a configuration, loaded once in this process for a build and device.

    For another one, what was loaded before is dropped first, since two models may not fit.
    """
    key = build, config.model.device
    if key not in _models:
        forget_models()
        _models[key] = load_model(config.model)
    return _models[key]


def opened_once(
    build: str, stage: str, config: Configuration, rotation: Path, collected: Collected | None = None
) -> OpenedModel:
    """The model and units of a stage, opened once in this process for a build and device."""
    loaded = loaded_once(build, config)
    if (build, stage) not in _units:
        _units.clear()
        _units[build, stage] = open_built_units(loaded, config, rotation, collected)
    return OpenedModel(loaded, _units[build, stage])


def forget_models() -> None:
    """Drop what was loaded."""
    _units.clear()
    _models.clear()
