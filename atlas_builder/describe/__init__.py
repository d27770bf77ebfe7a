"""Descriptions of units and behaviours: tokens, labels, and effects on the next token."""
