"""Explanations of units by another language model, scored by simulation; run by `explain` only."""
