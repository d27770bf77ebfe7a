"""Explanations by another language model, and how well they foretell a unit: only when somebody asks."""
