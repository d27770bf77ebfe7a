"""What ships with the package: small trained models, SAEs of one of them, themes, prose and configurations."""

from __future__ import annotations

from pathlib import Path

_PACKAGE = Path(__file__).parent
_DEMO = _PACKAGE / "demo"

MODEL = _DEMO / "model"
"""A GPT-2, in the Hugging Face layout."""
RELU = _DEMO / "relu"
"""A GPT-2 with ReLU: the counterpart of CRATE, of equal depth and width, trained on the same tokens."""
CRATE = _DEMO / "crate"
"""A CRATE."""
SAES = _DEMO / "saes"
"""SAEs of the GPT-2's MLP inputs, by name, each a folder with one SAE per layer, in SAELens's layout."""

MODELS = {"demo": MODEL, "relu-demo": RELU, "crate-demo": CRATE}
"""The shipped models, by their names in configurations; `demo` is also the release of the SAEs."""


def shipped_folder(name: str) -> Path:
    """A top-level folder of the project, `themes` or `site_config`, in a checkout and in an installed package alike."""
    installed = _PACKAGE / f"_{name}"
    return installed if installed.is_dir() else _PACKAGE.parent / name
