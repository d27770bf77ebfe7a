"""Tests. What is said here must be said before any library is imported."""

import os
import sys

# No test may look for a network.
os.environ["HF_HUB_OFFLINE"] = "1"
# Each worker of pytest has one core; more threads than cores wait for each other. Benchmarks have them all.
if "pytest" in sys.modules:
    os.environ["OMP_NUM_THREADS"] = "1"
