"""Attacks too slow for the suite, each a module that prints a table of what held: `python -m tests.attacks.NAME`."""
