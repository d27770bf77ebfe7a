"""The pass beside the bare forward pass: `python -m tests.benchmarks.collect [SHAPE] [TOKENS] [brief]`.

Batch by batch in turn, in one process: the trunk alone, with hooks that do nothing, the
whole model with logits, and the pass as a build makes it, checkpoints included. SHAPE
is demo, stories260k, gpt2, or a model's name; brief leaves out the second and third.
Times are of the processor, all threads together, so that other work on the machine changes ratios little.
"""

from __future__ import annotations

import resource
import sys
import time
from collections import defaultdict
from collections.abc import Callable
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import torch

from atlas_builder.collect import batch_run, checkpoints, layer, run
from atlas_builder.config_file import validate
from atlas_builder.corpus import contexts
from atlas_builder.files import read_json
from atlas_builder.models import language_model, memory
from atlas_builder.progress import Progress
from atlas_builder.units.open import open_units
from tests.benchmarks.shapes import SHAPES, folder_of

_WAYS = (
    "bare trunk",
    "idle hooks",
    "with logits",
    "the pass",
    "  bookkeeping in all",
    "  looking at activations",
    "  windows to disk",
    "  checkpoints",
)


def main(shape: str = "demo", tokens: int = 262_144, brief: bool = False) -> None:
    """Print tokens a second, ratios to the bare trunk, and where the rest goes."""
    spent: dict[str, float] = defaultdict(float)
    with TemporaryDirectory() as scratch:
        name = folder_of(shape, Path(scratch))
        settings = validate({"model": {"name": name}, "corpus": {"source": "stdlib", "max_tokens": tokens}})
        loaded = language_model.load_model(settings.model)
        units = open_units(loaded, settings)
        folder = Path(scratch) / "pass"
        folder.mkdir()
        run.prepare_pass(loaded, units, settings, folder, Progress(quiet=True))
        read = contexts.read_contexts(folder / "contexts")
        shapes = [layer.LayerShape(**found) for found in read_json(folder / "facts.json")["shapes"]]
        _watch(layer.LayerCollector, "_scan", "  looking at activations", spent)
        _watch(layer.LayerCollector, "_log_candidates", "  windows to disk", spent)
        _watch(layer.LayerCollector, "visit", "  bookkeeping in all", spent)
        memory.keep_memory()
        with checkpoints.collectors(shapes, settings.examples, folder, torch.get_num_threads()) as opened:
            parts = _alternately(loaded, units, read, opened, spent, brief)
            activations = sum(found.units for found in shapes) * read.token_count
    print(f"{SHAPES.get(shape, shape)}")
    print(f"{tokens:,} tokens, torch {torch.__version__}, {torch.get_num_threads()} threads")
    for way in filter(spent.get, _WAYS):
        ratio = spent["bare trunk"] / spent[way]
        print(f"{way:26} {spent[way]:8.2f} s {tokens / spent[way]:12,.0f} tokens/s {ratio:7.2f} × the bare trunk")
    print(f"by quarters of the corpus: {', '.join(f'{part:.2f}' for part in parts)} × the bare trunk")
    print(f"{spent['  bookkeeping in all'] / activations * 1e9:.1f} ns an activation")
    print(f"peak memory {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20:.1f} GiB")


def _alternately(
    loaded: Any, units: Any, read: Any, opened: checkpoints.Collectors, spent: dict[str, float], brief: bool
) -> list[float]:
    """Every way through a batch before the next batch; returns the ratio in each quarter of them."""
    passing = batch_run.BatchRun(units, read, opened, "cpu", Progress(quiet=True))
    passing.fit(1 << 20)
    trunk = loaded.bridge.original_model.base_model  # all but the unembedding, as transformers names it
    seen = tokens_seen = 0
    last = 0.0
    batches = checkpoints.WHOLE.batches(read, [found.shape for found in opened.layers.values()])
    with torch.inference_mode():
        trunk(torch.from_numpy(read.stack(batches[0])))
    _compile(opened)
    quarters: list[float] = []
    before = (0.0, 0.0)
    for number, batch in enumerate(batches, start=1):
        tokens = torch.from_numpy(read.stack(batch))
        with torch.inference_mode():
            _timed("bare trunk", spent, partial(trunk, tokens, use_cache=False))
            _timed("the pass", spent, partial(passing.batch, batch))
            if not brief:
                _timed("idle hooks", spent, partial(units.run, tokens, lambda *_: None))
                _timed("with logits", spent, partial(loaded.bridge, tokens))
        opened.done += 1
        seen += len(batch)
        tokens_seen += tokens.numel()
        late = spent["the pass"] - last > run._SECONDS_BETWEEN_CHECKPOINTS
        if seen >= run._CONTEXTS_BETWEEN_CHECKPOINTS or late or number == len(batches):
            _timed("  checkpoints", spent, opened.checkpoint)
            seen, last = 0, spent["the pass"]
        if tokens_seen * 4 // read.token_count > len(quarters) or number == len(batches):
            now = spent["bare trunk"], spent["the pass"] + spent["  checkpoints"]
            quarters.append((now[0] - before[0]) / (now[1] - before[1]))
            before = now
    spent["the pass"] += spent["  checkpoints"]
    return quarters


def _compile(opened: checkpoints.Collectors) -> None:
    """Have the loops compiled, or loaded from where they are kept, before the clock starts."""
    for collector in opened.layers.values():
        nothing = np.zeros((0, 4, collector.shape.units), np.float32)
        collector._scan(np.zeros(0, np.int64), nothing, head=1, counting=True)


def _timed(name: str, spent: dict[str, float], work: Callable[[], Any]) -> None:
    started = time.process_time()
    work()
    spent[name] += time.process_time() - started


def _watch(owner: Any, name: str, label: str, spent: dict[str, float]) -> None:
    method = getattr(owner, name)

    def timed(*args: Any, **options: Any) -> Any:
        started = time.process_time()
        try:
            return method(*args, **options)
        finally:
            spent[label] += time.process_time() - started

    setattr(owner, name, timed)


if __name__ == "__main__":
    shape, tokens, *words = [*sys.argv[1:], *("demo", "262144")[len(sys.argv) - 1 :]]
    main(shape, int(tokens), brief="brief" in words)
