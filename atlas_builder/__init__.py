"""Static atlases of neurons: build once, host anywhere, cite a behaviour.

from atlas_builder import build, load, open
build(load(Path("site_config/demo.yml")), Path("output/demo"))
open("output/demo")[3, 512].behaviours[1].examples
"""

from __future__ import annotations

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
from atlas_builder.reader import Atlas, open

if TYPE_CHECKING:
    from atlas_builder.config import Configuration, load
    from atlas_builder.pipeline import build

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
    "build",
    "load",
    "open",
]
__version__ = "0.5.0"


def __getattr__(name: str) -> Any:
    """What builds is loaded when it is asked for: who reads an atlas need not wait for it."""
    if name in ("Configuration", "load"):
        from atlas_builder import config

        return getattr(config, name)
    if name == "build":
        from atlas_builder.pipeline import build

        return build
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
