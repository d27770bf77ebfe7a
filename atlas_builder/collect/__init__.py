"""The pass over the corpus: every unit's examples and the distribution of its activations."""
