"""Static atlases of neurons: build once, host anywhere, cite a behaviour.

from atlas_builder import build, load_config, open
build(load_config(Path("site_config/demo.yml")), Path("output/demo"))
open("output/demo")[3, 512].behaviours[1].examples
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from atlas_builder.errors import (
    ActivationError,
    AtlasError,
    ConfigurationError,
    CorpusError,
    MissingError,
    ModelError,
    SiteError,
)

if TYPE_CHECKING:
    from atlas_builder.cluster.clustering import cluster_examples
    from atlas_builder.comparison import compare
    from atlas_builder.config import Configuration
    from atlas_builder.config_file import load_config
    from atlas_builder.config_file import load_config as load
    from atlas_builder.pipeline.build import build
    from atlas_builder.reader.atlas import Atlas, open
    from atlas_builder.site.hosting.archive import archive

__all__ = [
    "ActivationError",
    "Atlas",
    "AtlasError",
    "Configuration",
    "ConfigurationError",
    "CorpusError",
    "MissingError",
    "ModelError",
    "SiteError",
    "archive",
    "build",
    "cluster_examples",
    "compare",
    "load",
    "load_config",
    "open",
]
__version__ = "0.5.0"

_LAZY = {
    "Atlas": "reader.atlas.Atlas",
    "Configuration": "config.Configuration",
    "archive": "site.hosting.archive.archive",
    "build": "pipeline.build.build",
    "cluster_examples": "cluster.clustering.cluster_examples",
    "compare": "comparison.compare",
    "load": "config_file.load_config",
    "load_config": "config_file.load_config",
    "open": "reader.atlas.open",
}
"""Where public names are that are loaded when they are asked for: no command waits for what another needs."""


def __getattr__(name: str) -> Any:
    if name not in _LAZY:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    module, _, attribute = _LAZY[name].rpartition(".")
    return getattr(import_module(f"{__name__}.{module}"), attribute)
