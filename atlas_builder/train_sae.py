"""Deprecated: `atlas_builder.demo.train_sae` by its former name, until 0.7."""

from __future__ import annotations

from atlas_builder.demo.train_sae import *  # noqa: F403
from atlas_builder.demo.train_sae import SAERecipe as Recipe  # noqa: F401
from atlas_builder.demo.train_sae import main
from atlas_builder.demo.train_sae import train_sae as train  # noqa: F401

if __name__ == "__main__":
    main()
