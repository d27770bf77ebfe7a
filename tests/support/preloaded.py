"""What a build loads, and what it reads of its own code: imported once by a process from which builds are forked."""

from __future__ import annotations

import importlib

from numba.core.registry import cpu_target

from atlas_builder.pipeline.fingerprints import stage_modules
from atlas_builder.pipeline.stages import ALL_STAGES

for _stage in ALL_STAGES:
    for _module in sorted(stage_modules(_stage)):
        importlib.import_module(_module)
cpu_target.target_context.refresh()  # what the first compiled function would wait for
