"""Benchmarks: run by hand, printed as ratios."""

import os

# As the command line has it, and as early.
os.environ.setdefault("GOMP_SPINCOUNT", "10000")
