"""Attacks that take longer than a test may: run each by `python -m tests.attacks.NAME`, with `--small` for a part."""
