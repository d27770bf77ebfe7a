"""Deprecated: `atlas_builder.demo.train_sae` by its former name, until 0.7."""

from __future__ import annotations

from atlas_builder.demo.train_sae import (
    MOMENTUM,
    SAERecipe,
    Trainer,
    main,
    mlp_inputs,
    neuron_embedding_loss,
    train_sae,
)
from atlas_builder.demo.train_sae import SAERecipe as Recipe
from atlas_builder.demo.train_sae import train_sae as train

__all__ = [
    "MOMENTUM",
    "Recipe",
    "SAERecipe",
    "Trainer",
    "main",
    "mlp_inputs",
    "neuron_embedding_loss",
    "train",
    "train_sae",
]

if __name__ == "__main__":
    main()
