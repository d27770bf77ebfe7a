"""Token importance, packed and not: `python -m tests.benchmarks.importance [CONFIG] [OUTPUT] [EXAMPLES] [REPEATS]`.

Of an atlas that is built up to `cluster` (`build CONFIG --output OUTPUT --until cluster`), by default the
demo's. Parts of batches spread evenly over its examples run in turn, in one process: each run with all tokens that may
be masked and all units at all of them, then packed. Prints processor time an example, the ratio, and how far
the results are apart, also as they are published, in hundredths.
"""

from __future__ import annotations

import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor

from atlas_builder.collect.results import Collected
from atlas_builder.config_file import load_config
from atlas_builder.describe.ablation import Masking, wanted_examples
from atlas_builder.describe.masked_runs import unpacked
from atlas_builder.models.language_model import load_model
from atlas_builder.models.memory import keep_memory
from atlas_builder.models.packing import PLAIN, Rows, at_places
from atlas_builder.units.base import ActivationHook, Units
from atlas_builder.units.open import open_units
from atlas_builder.workspace import work_folder


class _Everywhere:
    """Units that are computed at all places, whichever are asked for."""

    def __init__(self, units: Units) -> None:
        self._units = units

    def __getattr__(self, name: str) -> Any:
        return getattr(self._units, name)

    def run(self, tokens: Tensor, visit: ActivationHook, last: int | None = None, rows: Rows = PLAIN) -> None:
        def show(layer: int, inputs: Tensor, activations: Tensor) -> None:
            visit(layer, at_places(inputs, rows.at), at_places(activations, rows.at))

        self._units.run(tokens, show, last, replace(rows, at=None))


def main(config: str, output: str, examples: int = 600, times: int = 3) -> None:
    """Print both times, their ratio and differences."""
    settings, work = load_config(Path(config)), work_folder(Path(output))
    loaded = load_model(settings.model)
    units = open_units(loaded, settings)
    collected = Collected(work / "collect")
    wanted = np.concatenate([found for _, _, found in wanted_examples(collected, work / "cluster", settings)])
    reach, dtype = settings.examples.window[0], next(iter(loaded.bridge.original_model.parameters())).dtype
    masking = Masking(units, collected.contexts, loaded.mask, reach, shape=loaded.bridge.cfg, dtype=dtype)
    slow = Masking(cast(Units, _Everywhere(units)), collected.contexts, loaded.mask, reach, dtype=dtype)
    slow._way = unpacked
    # Parts of batches at even distances, so that depths and positions are as in all of them.
    batches = masking.batches(wanted)
    ends = np.cumsum([len(batch) for batch in batches])
    some = np.unique(np.searchsorted(ends, (np.arange(12) + 0.5) / 12 * ends[-1]))
    chosen = [batches[number][: max(1, examples // len(some))] for number in some]
    count = sum(map(len, chosen))
    keep_memory()
    spent: dict[str, list[float]] = {"each run alone": [], "packed": []}
    results: dict[str, np.ndarray] = {}
    print(f"{count:,} of {len(wanted):,} examples, way: {masking.way(wanted)}, torch {torch.__version__}")
    for _ in range(times):
        for name, way in (("each run alone", slow), ("packed", masking)):
            started = time.process_time()
            results[name] = np.concatenate([way.importance(wanted, batch) for batch in chosen])
            spent[name].append(time.process_time() - started)
    for name, seconds in spent.items():
        print(f"{name:15} {min(seconds) / count * 1e3:7.2f} ms of processor an example")
    ratios = np.array(spent["each run alone"]) / np.array(spent["packed"])
    one, other = results.values()
    numbers = np.isfinite(one)
    apart = (np.round(one, 2) != np.round(other, 2)) & numbers
    assert (numbers == np.isfinite(other)).all()
    print(f"ratio {np.median(ratios):.2f} ({', '.join(f'{ratio:.2f}' for ratio in ratios)})")
    print(f"max |difference| {np.abs(one - other)[numbers].max():.1e}; rounded: {apart.sum()} of {numbers.sum():,}")


if __name__ == "__main__":
    paths, numbers = sys.argv[1:3], [int(count) for count in sys.argv[3:5]]
    config, output = paths or ("site_config/demo.yml", "output/demo")
    main(config, output, *numbers)
