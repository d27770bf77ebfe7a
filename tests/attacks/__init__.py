"""Slow attacks on the whole, each run by `python -m tests.attacks.NAME`; pytest collects none."""
