"""Tests. No library may look for a network; this must be said before any of them is imported."""

import os

os.environ["HF_HUB_OFFLINE"] = "1"
