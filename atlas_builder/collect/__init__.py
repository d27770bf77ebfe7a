"""The pass over the corpus: what makes every unit fire, and how its activations are spread."""

from atlas_builder.collect.results import Collected, CollectedLayer
from atlas_builder.collect.run import collect

__all__ = ["Collected", "CollectedLayer", "collect"]
