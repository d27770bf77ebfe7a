"""The stages of a build, and what the results of each depend on."""

from __future__ import annotations

import hashlib
import importlib.metadata
import os
import platform
import time
from pathlib import Path
from typing import Any, Literal, get_args

from atlas_builder.config import Configuration
from atlas_builder.demo import SAES, SHIPPED
from atlas_builder.errors import ConfigurationError
from atlas_builder.shown import SHOWN_BY
from atlas_builder.site.theme import find_theme, shipped
from atlas_builder.store import code_fingerprint, fingerprint

Stage = Literal["collect", "cluster", "describe", "link", "publish"]
STAGES: tuple[Stage, ...] = get_args(Stage)

_CODE: dict[Stage, tuple[str, ...]] = {
    "collect": ("collect", "units", "model.py", "crate.py", "sae.py", "tokens.py", "corpus.py", "contexts.py"),
    "cluster": ("cluster.py", "behaviours.py", "embeddings.py", "sureness.py"),
    "describe": ("describe", "shown.py"),
    "link": ("link.py", "nearest.py", "map.py"),
    "publish": (
        "site",
        "pipeline.py",
        "records.py",
        "schema.py",
        "shown.py",
        "numbers.py",
        "collect/bins.py",
        "neuron-record.schema.json",
    ),
}
_PACKAGES = (
    "torch", "transformer-lens", "transformers", "tokenizers", "numpy", "hdbscan", "scikit-learn", "scipy", "openTSNE"
)  # fmt: skip


def fingerprints(config: Configuration) -> dict[Stage, str]:
    """What each stage's results depend on, those of earlier stages included."""
    site = config.model_dump(include={"atlas", "site"})
    explains_shown = config.describe.importance == "shown"
    shown = [getattr(config.site, name) for name in SHOWN_BY] if explains_shown else None
    sections: dict[Stage, Any] = {
        "collect": [
            # Where the model runs is not part of what it says.
            config.model_dump(include={"model", "corpus", "units", "examples"}, exclude={"model": {"device"}}),
            _content(config.model.name),
            _saes(config),
            _content(config.corpus.path) if config.corpus.path else platform.python_version(),
            versions(),
        ],
        "cluster": config.model_dump(include={"clusters"}),
        "describe": [config.model_dump(include={"describe"}), shown],
        "link": config.model_dump(include={"link"}),
        "publish": [site, edition_date(config), _look(config)],
    }
    prints: dict[Stage, str] = {}
    before = ""
    for stage in STAGES:
        before = prints[stage] = fingerprint(before, sections[stage], code_fingerprint(*_CODE[stage]))
    return prints


def _saes(config: Configuration) -> str | None:
    """The SAEs that lie here, given or shipped."""
    units = config.units
    place = SAES / str(units.id) if units.release == "demo" else units.path
    return _content(str(place)) if place else None


def _content(name: str) -> str | None:
    """SHA-256 of the files of a local model or corpus; None for what lives on a hub."""
    path = Path(SHIPPED.get(name, name))
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
    docs = config.site.prose or shipped("site_config") / "docs"
    places = (find_theme(config.site.theme), shipped("themes") / "atlas", docs)
    return [_content(str(place)) for place in places]


def versions() -> dict[str, str]:
    """Versions of the packages that results depend on."""
    # The build of torch (+cpu, +cu126) is the machine's, the version is the result's.
    return {name: importlib.metadata.version(name).split("+")[0] for name in _PACKAGES}


def edition_date(config: Configuration) -> str | None:
    """The date of the edition: configured, or SOURCE_DATE_EPOCH's, or none; never today's."""
    epoch = os.environ.get("SOURCE_DATE_EPOCH")
    if config.atlas.date or not epoch:
        return config.atlas.date
    try:
        return time.strftime("%Y-%m-%d", time.gmtime(int(epoch)))
    except (ValueError, OverflowError, OSError):
        raise ConfigurationError(f"SOURCE_DATE_EPOCH is {epoch!r}: it must be seconds since 1970.") from None
