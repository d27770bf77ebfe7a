"""Attacks too slow or too large for the suite: `python -m tests.attacks.NAME`, with `--small` for a minute."""
