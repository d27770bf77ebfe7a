"""Fingerprints of all that the results of a build's stages depend on."""

from __future__ import annotations

import hashlib
import os
import platform
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from atlas_builder.config import Configuration
from atlas_builder.errors import ConfigurationError
from atlas_builder.files import Sources, fingerprint
from atlas_builder.pipeline.imports import import_graph, reached
from atlas_builder.pipeline.stages import ALL_STAGES, STAGES, Stage
from atlas_builder.shipped import MODELS, SAES, shipped_folder
from atlas_builder.site.theme import find_theme
from atlas_builder.workspace import versions

_PACKAGE = Path(__file__).parent.parent
_ENTRIES: dict[Stage, tuple[str, ...]] = {
    "rotate": ("rotate.run", "units.mlp", "units.open"),
    "collect": ("collect.run", "units.open"),
    "cluster": ("cluster.run",),
    "describe": (
        "describe.run",
        "describe.associations",
        "describe.graph_examples",
        "describe.held_out",
        "describe.importance_parts",
        "describe.interactions",
        "describe.steering",
    ),
    "link": ("link.run",),
    "publish": ("site.publish", "site.prose.markdown", "workspace"),
}
"""The modules that a stage calls; with all that these import, directly or not, they are the stage's code."""
_NO_RESULT = ("atlas_builder", "atlas_builder.errors", "atlas_builder.progress", "atlas_builder.config")
"""Modules that no result depends on: messages, and settings, whose values are counted themselves."""


def stages_of(config: Configuration) -> tuple[Stage, ...]:
    """The stages of a build; only one that needs directions rotates."""
    return ALL_STAGES if config.rotates else STAGES


def stage_sources(config: Configuration) -> dict[Stage, Sources]:
    """What each stage is made from, by names that a message can say; the results of the stage before are among them."""
    # What clusters takes seconds to load, and a refused configuration needs none of it.
    from atlas_builder.describe.shown_examples import SHOWN_BY

    site = config.model_dump(include={"atlas", "site"})
    explains_shown = config.describe.importance == "shown"
    shown = [getattr(config.site, name) for name in SHOWN_BY] if explains_shown else None
    explains = {"edge_tokens", "edges_shown"} if config.units.kind == "basis" else set()
    inputs = {
        "model files": _content(config.model.name),
        "text": _content(config.corpus.path) if config.corpus.path else platform.python_version(),
        "package versions": versions(),
    }

    def settings(*names: str) -> dict[str, Any]:
        # Neither the device nor the engine changes the results.
        return config.model_dump(include=set(names), exclude={"model": {"device", "engine"}})

    sections: dict[Stage, dict[str, Any]] = {
        "rotate": {
            "settings": [
                settings("model", "corpus", "units"),
                config.interaction.model_dump(include={"max_tokens", "tolerance"}),
            ],
            **inputs,
        },
        "collect": {
            "settings": [settings("model", "corpus", "units", "examples"), config.names_associations],
            **inputs,
            "SAEs": _saes(config),
            "tokens": _content(config.units.file) if config.units.file else None,
        },
        "cluster": {"settings": config.model_dump(include={"clusters"})},
        "describe": {
            "settings": [
                config.model_dump(include={"describe"}),
                shown,
                *([config.interaction.model_dump(include=explains)] if explains else []),
            ]
        },
        "link": {"settings": config.model_dump(include={"link"})},
        "publish": {
            "settings": [site, edition_date(config), *([config.interaction.model_dump()] if config.rotates else [])],
            "theme or prose": _look(config),
            **({"explanations": _content(config.site.explanations)} if config.site.explanations else {}),
        },
    }
    sources: dict[Stage, Sources] = {}
    stages = stages_of(config)
    for before, stage in zip((None, *stages), stages, strict=False):
        made_from = {name: fingerprint(part) for name, part in sections[stage].items()}
        made_from["code"] = code_fingerprint(stage)
        if before is not None:
            made_from[f"results of {before}"] = fingerprint(sources[before])
        sources[stage] = made_from
    return sources


def stage_modules(stage: Stage, package: Path = _PACKAGE) -> set[str]:
    """The modules whose code the results of a stage depend on."""
    entries = (f"atlas_builder.{entry}" for entry in _ENTRIES[stage])
    return reached(import_graph(package), entries, stop=_NO_RESULT)


def code_fingerprint(stage: Stage, package: Path = _PACKAGE) -> str:
    """SHA-256 of the source of a stage: all modules that it imports, and the data files beside them."""
    graph = import_graph(package)
    modules = stage_modules(stage, package)
    digest = hashlib.sha256()
    for file in sorted(source for module in modules for source in _sources(graph[module].file)):
        digest.update(file.relative_to(package).as_posix().encode() + b"\0" + file.read_bytes())
    return digest.hexdigest()


def _sources(file: Path) -> Iterator[Path]:
    """The file of a module, and for the schema of records the JSON beside it."""
    yield file
    if file.stem == "schema":
        yield from file.parent.glob("*.json")


def _saes(config: Configuration) -> str | None:
    """SHA-256 of SAEs on this machine, shipped or given by path; None for others."""
    units = config.units
    place = SAES / str(units.id) if units.release == "demo" else units.path
    return _content(str(place)) if place else None


def _content(name: str) -> str | None:
    """SHA-256 of the files of a local model or corpus; None for one on a hub."""
    path = Path(MODELS.get(name, name))
    if not path.exists():
        return None
    digest = hashlib.sha256()
    for file in sorted(path.rglob("*")) if path.is_dir() else [path]:
        if file.is_file():
            with file.open("rb") as content:
                inner = hashlib.file_digest(content, "sha256").digest()
            digest.update(os.fsencode(file.relative_to(path) if path.is_dir() else "") + b"\0" + inner)
    return digest.hexdigest()


def _look(config: Configuration) -> list[str | None]:
    docs = config.site.prose or shipped_folder("site_config") / "docs"
    places = (find_theme(config.site.theme), shipped_folder("themes") / "atlas", docs)
    return [_content(str(place)) for place in places]


def edition_date(config: Configuration) -> str | None:
    """The date of the edition: configured, else from SOURCE_DATE_EPOCH, else None; never today's."""
    epoch = os.environ.get("SOURCE_DATE_EPOCH")
    if config.atlas.date or not epoch:
        return config.atlas.date
    try:
        return time.strftime("%Y-%m-%d", time.gmtime(int(epoch)))
    except (ValueError, OverflowError, OSError):
        raise ConfigurationError(f"SOURCE_DATE_EPOCH is {epoch!r}: set it to seconds since 1970.") from None
