"""What is shipped: small, real models, trained by `train.py` on what every Python brings along, and SAEs of one."""

from __future__ import annotations

from pathlib import Path

MODEL = Path(__file__).parent / "model"
"""A GPT-2, in the Hugging Face layout."""
RELU = Path(__file__).parent / "relu"
"""A GPT-2 with ReLU: the twin of CRATE, of its depth and width, trained on the same tokens."""
CRATE = Path(__file__).parent / "crate"
"""A CRATE."""
SAES = Path(__file__).parent / "saes"
"""SAEs of the GPT-2's MLP inputs, by name, each a folder of one a layer, in SAELens's layout."""

SHIPPED = {"demo": MODEL, "relu-demo": RELU, "crate-demo": CRATE}
"""The shipped models, by the names that configurations have for them; `demo` is also the release of the SAEs."""
