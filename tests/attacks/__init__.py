"""Attacks, too slow or too large for the suite: `python -m tests.attacks.NAME`, each with a table of counts."""
