"""Verification of a published atlas against a second run of its model."""
