"""The shipped models: small, real, and trained by `train.py` on what every Python brings along."""

from __future__ import annotations

from pathlib import Path

MODEL = Path(__file__).parent / "model"
"""Folder of the shipped model, in the Hugging Face layout."""
RELU = Path(__file__).parent / "relu"
"""Where the training of the twin of CRATE, the same with ReLU, puts it."""
CRATE = Path(__file__).parent / "crate"
"""Where the training of a CRATE of the same depth and width puts it."""

SHIPPED = {"demo": MODEL}
"""The shipped models, by the names that configurations have for them."""
