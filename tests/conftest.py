"""Settings of a test run; its fixtures are in `tests.support`."""

from __future__ import annotations

import os

# A worker of pytest a core: more threads would only wait for each other, here, in processes of ours, and at work.
if "PYTEST_XDIST_WORKER" in os.environ:
    os.environ.setdefault("OMP_NUM_THREADS", "1")  # read when torch and numpy are loaded

import torch
from hypothesis import settings

pytest_plugins = (
    "tests.support.atlases",
    "tests.support.explained",
    "tests.support.models",
    "tests.support.chats",
    "tests.support.circuit_tracer",
    "tests.support.browser",
)

# A workstation looks for new cases each time; CI says the same twice.
settings.register_profile("ci", derandomize=True)
if os.environ.get("CI"):
    settings.load_profile("ci")
if "PYTEST_XDIST_WORKER" in os.environ:
    torch.set_num_threads(1)
