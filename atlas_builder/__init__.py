"""Static atlases of neurons: build once, host anywhere, cite a behaviour.

from atlas_builder import build, load
build(load(Path("site_config/demo.yml")), Path("output/demo"))
"""

from atlas_builder.config import Configuration, load
from atlas_builder.errors import (
    ActivationError,
    AtlasError,
    ConfigurationError,
    CorpusError,
    ModelError,
    SiteError,
)
from atlas_builder.pipeline import build

__all__ = [
    "ActivationError",
    "AtlasError",
    "Configuration",
    "ConfigurationError",
    "CorpusError",
    "ModelError",
    "SiteError",
    "build",
    "load",
]
__version__ = "0.3.0"
