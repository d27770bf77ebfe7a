"""A published atlas opened with the model and text that it was built from."""

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
from atlas_builder.rerun.directions import PublishedDirections
from atlas_builder.rerun.passes import Reader, Text
from atlas_builder.workspace import CONFIGURATION, portable_configuration, work_folder


class Rerun(NamedTuple):
    """The facts of `atlas.json`, the configuration, the model, and the whole text."""

    facts: dict[str, Any]
    config: Configuration
    reader: Reader
    text: Text

    def draw(self, units: int, seed: int) -> dict[int, list[int]]:
        """Random units, by layer."""
        every = [(layer["layer"], unit) for layer in self.facts["layers"] for unit in range(layer["units"])]
        picks = np.random.default_rng(seed).choice(len(every), min(units, len(every)), replace=False)
        drawn: dict[int, list[int]] = {}
        for layer, unit in sorted(every[pick] for pick in picks):
            drawn.setdefault(layer, []).append(unit)
        return drawn


def ids_of_output_tokens(facts: dict[str, Any]) -> list[int]:
    """The tokens of output neurons, by unit; none of other kinds."""
    return [int(token["id"]) for token in facts.get("output_tokens", ())]


def open_rerun(site: Path, overrides: tuple[str, ...] = ()) -> Rerun:
    """Load the model and the text of an atlas again.

    `overrides` are `KEY=VALUE`, for a model or corpus that was moved since the atlas was
    built. Raises `NoAtlasError` if `site` is not an atlas, `ConfigurationError` if the
    model or corpus is not found, or the text differs.
    """
    facts = read_facts(site)
    config = _configuration(site, facts, overrides)
    try:
        reader = Reader(config, PublishedDirections(site), ids_of_output_tokens(facts))
        text = reader.text()
    except (ModelError, ConfigurationError) as error:
        raise ConfigurationError(
            f"{error} If it was moved since the atlas was built, give its place with --set model.name=… "
            "or --set corpus.path=…"
        ) from error
    if text.tokens != facts["corpus"]["tokens"]:
        raise ConfigurationError(
            f"the corpus has {text.tokens:,} tokens, but the atlas was built from {facts['corpus']['tokens']:,}: "
            "name the same text with --set corpus.path=…"
        )
    if text.sha256 != facts["corpus"]["sha256"]:
        raise ConfigurationError(
            "the corpus has other tokens than the text the atlas was built from: name that with --set corpus.path=…"
            + (
                f", or use Python {facts['packages']['python']}, whose standard library it is"
                if config.corpus.source == "stdlib"
                else ""
            )
            + "."
        )
    return Rerun(facts, config, reader, text)


def _configuration(site: Path, facts: dict[str, Any], overrides: tuple[str, ...]) -> Configuration:
    """The configuration that the atlas was built with, with the paths of its model and corpus if known."""
    data = facts["configuration"]
    try:
        known = read_json(work_folder(site.resolve()) / CONFIGURATION)
        # Through JSON, so that both hold plain types.
        if orjson.loads(orjson.dumps(portable_configuration(validate(known)))) == data:
            data = known
    except (OSError, ValueError, ConfigurationError):
        pass  # an atlas copied from elsewhere: only names and --set can be used
    return with_overrides(data, overrides, str(site / "atlas.json"))
