"""What a unit is, and how its input, activation and weights are reached: one module a kind."""
