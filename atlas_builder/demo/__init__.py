"""The shipped models: small, real, and trained by `train.py` on what every Python brings along."""

from __future__ import annotations

from pathlib import Path

MODEL = Path(__file__).parent / "model"
"""Folder of the shipped model, in the Hugging Face layout."""
RELU = Path(__file__).parent / "relu"
"""The twin of CRATE: the same with ReLU, trained on what CRATE was trained on."""
CRATE = Path(__file__).parent / "crate"
"""A CRATE of the same depth and width."""

SHIPPED = {"demo": MODEL, "relu-demo": RELU, "crate-demo": CRATE}
"""The shipped models, by the names that configurations have for them."""
