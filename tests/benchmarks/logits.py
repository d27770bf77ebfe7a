"""The pass over output neurons beside that over neurons: `python -m tests.benchmarks.logits [TOKENS] [COUNT]`.

Batch by batch in turn, in one process, of the demo's model: the last layer's neurons, the same
with draws from their whole range (`describe.associations`), and COUNT output neurons, whose own
positions and draws are collected too.
"""

from __future__ import annotations

import sys
import time
from collections import defaultdict
from contextlib import ExitStack
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch

from atlas_builder.collect import batch_run, checkpoints, layer, run
from atlas_builder.config_file import validate
from atlas_builder.corpus import contexts
from atlas_builder.files import read_json
from atlas_builder.models import language_model, memory
from atlas_builder.progress import Progress
from atlas_builder.units.open import open_units
from tests.benchmarks.collect import _compile

_LAYER = 3


def main(tokens: int = 1_000_000, count: int = 200) -> None:
    """Print the seconds of each way and their ratios."""
    spent: dict[str, float] = defaultdict(float)
    ways: dict[str, dict[str, Any]] = {
        "neurons of a layer": {"units": {"layers": [_LAYER]}},
        "the same with draws": {"units": {"layers": [_LAYER]}, "describe": {"associations": True}},
        f"{count} output neurons": {"units": {"kind": "logits", "top": count}},
    }
    memory.keep_memory()
    with TemporaryDirectory() as scratch, ExitStack() as stack:
        passes = []
        for number, (name, sections) in enumerate(ways.items()):
            settings = validate(
                {"model": {"name": "demo"}, "corpus": {"source": "stdlib", "max_tokens": tokens}, **sections}
            )
            loaded = language_model.load_model(settings.model)
            units = open_units(loaded, settings)
            folder = Path(scratch) / str(number)
            folder.mkdir()
            run.prepare_pass(loaded, units, settings, folder, Progress(quiet=True))
            read = contexts.read_contexts(folder / "contexts")
            shapes = [layer.LayerShape(**shape) for shape in read_json(folder / "facts.json")["shapes"]]
            opened = stack.enter_context(
                checkpoints.collectors(shapes, settings.examples, folder, torch.get_num_threads())
            )
            _compile(opened)
            passing = batch_run.BatchRun(units, read, opened, "cpu", Progress(quiet=True))
            passing.fit(1 << 20)
            passes.append((name, opened, passing))
        # The same batches for all, those of the widest layer.
        batches = checkpoints.WHOLE.batches(read, [layer.LayerShape(_LAYER, 512, 128, 1)])
        for number, batch in enumerate(batches, start=1):
            for name, opened, passing in passes:
                started = time.perf_counter()
                passing.batch(batch)
                opened.done += 1
                if number == len(batches):
                    opened.checkpoint()
                spent[name] += time.perf_counter() - started
    first = spent[next(iter(ways))]
    print(f"{read.token_count:,} tokens, torch {torch.__version__}, {torch.get_num_threads()} threads")
    for name, seconds in spent.items():
        print(f"{name:24} {seconds:8.2f} s {seconds / first:7.2f} ×")


if __name__ == "__main__":
    main(*(int(argument) for argument in sys.argv[1:]))
