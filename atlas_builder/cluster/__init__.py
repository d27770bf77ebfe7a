"""Clusters of a unit's examples by neuron embedding, and measures of them; plain arrays but for `run`, the stage."""
