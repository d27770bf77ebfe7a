"""The shipped model: small, real, and trained by `train.py` on what every Python brings along."""

from __future__ import annotations

from pathlib import Path

MODEL = Path(__file__).parent / "model"
"""Folder of the shipped model, in the Hugging Face layout."""
