"""What comes with the package: small real models and SAEs of one, themes, prose, and configurations."""

from __future__ import annotations

from pathlib import Path

_PACKAGE = Path(__file__).parent
_DEMO = _PACKAGE / "demo"

MODEL = _DEMO / "model"
"""A GPT-2, in the Hugging Face layout."""
RELU = _DEMO / "relu"
"""A GPT-2 with ReLU: the twin of CRATE, of its depth and width, trained on the same tokens."""
CRATE = _DEMO / "crate"
"""A CRATE."""
SAES = _DEMO / "saes"
"""SAEs of the GPT-2's MLP inputs, by name, each a folder of one a layer, in SAELens's layout."""

MODELS = {"demo": MODEL, "relu-demo": RELU, "crate-demo": CRATE}
"""The shipped models, by the names that configurations have for them; `demo` is also the release of the SAEs."""


def shipped_folder(name: str) -> Path:
    """A top-level folder of the project, `themes` or `site_config`, in a checkout and in an installed package alike."""
    installed = _PACKAGE / f"_{name}"
    return installed if installed.is_dir() else _PACKAGE.parent / name
