"""What a unit is, and how its input, activation and weights are read: one module per kind."""
