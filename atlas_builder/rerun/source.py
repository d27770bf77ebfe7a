"""A published atlas and what it was made from: its model and its text, found again."""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import orjson

from atlas_builder.config import Configuration
from atlas_builder.config_file import validate, with_overrides
from atlas_builder.errors import ConfigurationError, ModelError
from atlas_builder.files import read_json
from atlas_builder.reader.facts import read_facts
from atlas_builder.rerun.passes import Reader, Text
from atlas_builder.workspace import CONFIGURATION, portable_configuration, work_folder


class Rerun(NamedTuple):
    """What `atlas.json` says, the configuration, the model, and the whole text."""

    facts: dict[str, Any]
    config: Configuration
    reader: Reader
    text: Text

    def draw(self, units: int, seed: int) -> dict[int, list[int]]:
        """Random units, by layer."""
        every = [(layer["layer"], unit) for layer in self.facts["layers"] for unit in range(layer["units"])]
        picks = np.random.default_rng(seed).choice(len(every), min(units, len(every)), replace=False)
        found: dict[int, list[int]] = {}
        for layer, unit in sorted(every[pick] for pick in picks):
            found.setdefault(layer, []).append(unit)
        return found


def open_rerun(site: Path, overrides: tuple[str, ...] = ()) -> Rerun:
    """Load the model of an atlas and read its text again.

    `overrides` are `KEY=VALUE`, for a model or corpus that lies elsewhere than when the
    atlas was built. Raises `NoAtlasError` where `site` is none, `ConfigurationError`
    where model or corpus are not to be found, or the text is another.
    """
    facts = read_facts(site)
    config = _configuration(site, facts, overrides)
    try:
        reader = Reader(config)
        text = reader.text()
    except (ModelError, ConfigurationError) as error:
        raise ConfigurationError(
            f"{error} If it lies elsewhere than when the atlas was built, say where with --set model.name=… "
            "and --set corpus.path=…"
        ) from error
    if text.tokens != facts["corpus"]["tokens"]:
        raise ConfigurationError(
            f"the corpus has {text.tokens:,} tokens, and the atlas was made from {facts['corpus']['tokens']:,}: "
            "it is not the same text; name it with --set corpus.path=…"
        )
    if text.sha256 != facts["corpus"]["sha256"]:
        raise ConfigurationError(
            "the corpus has other tokens than the text the atlas was made from: name that with --set corpus.path=…"
            + (
                f", or run Python {facts['packages']['python']}, whose own text it is"
                if config.corpus.source == "stdlib"
                else ""
            )
            + "."
        )
    return Rerun(facts, config, reader, text)


def _configuration(site: Path, facts: dict[str, Any], overrides: tuple[str, ...]) -> Configuration:
    """The configuration that the atlas was built with, with the places of its model and corpus where they are known."""
    data = facts["configuration"]
    try:
        known = read_json(work_folder(site.resolve()) / CONFIGURATION)
        # Written and read again, so that both are plain.
        if orjson.loads(orjson.dumps(portable_configuration(validate(known)))) == data:
            data = known
    except (OSError, ValueError, ConfigurationError):
        pass  # an atlas that was carried here: names and --set must do
    return with_overrides(data, overrides, str(site / "atlas.json"))
