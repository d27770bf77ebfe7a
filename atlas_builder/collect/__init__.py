"""The pass over the corpus: what makes every unit fire, and how its activations are spread."""
