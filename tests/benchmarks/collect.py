"""The pass beside the bare forward pass, in turn: `python tests/benchmarks/collect.py [MODEL] [TOKENS]`.

The same batches through the trunk alone, through the trunk with hooks that do nothing,
through the whole model, and through the pass as a build makes it.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory

import torch

from atlas_builder import config, contexts, corpus, model
from atlas_builder.collect import run
from atlas_builder.collect.layer import LayerCollector
from atlas_builder.progress import Progress


def main(name: str = "demo", tokens: int = 200_000) -> None:
    """Print tokens a second and their ratio to the bare trunk."""
    settings = config.validate({"model": {"name": name}, "corpus": {"source": "stdlib", "max_tokens": tokens}})
    loaded = model.load(settings.model)
    units = model.open_units(loaded, settings)
    with TemporaryDirectory() as scratch:
        read = contexts.write(
            corpus.documents(settings.corpus),
            loaded.encode,
            Path(scratch) / "contexts",
            context=settings.corpus.context,
            bos=loaded.bos,
            max_tokens=tokens,
        )
        batches = [torch.from_numpy(read.stack(batch)) for batch in read.batches(run._TOKENS_AT_ONCE)]
        depth = units.layers[-1] + 1

        def trunk() -> None:
            with torch.inference_mode():
                for batch in batches:
                    loaded.bridge(batch, stop_at_layer=depth, return_type=None)

        def hooked() -> None:
            for batch in batches:
                units.run(batch, lambda *_: None)

        def logits() -> None:
            with torch.inference_mode():
                for batch in batches:
                    loaded.bridge(batch)

        def collect() -> None:
            with TemporaryDirectory() as folder:
                collectors = {
                    layer: LayerCollector(
                        layer,
                        units.count(layer),
                        units.read_weights(layer).shape[2],
                        settings.examples,
                        Path(folder) / str(layer),
                    )
                    for layer in units.layers
                }
                run._pass(units, read, collectors, settings, Progress(quiet=True))

        ways: dict[str, Callable[[], None]] = {
            "bare trunk": trunk,
            "trunk with idle hooks": hooked,
            "whole model, with logits": logits,
            "the pass": collect,
        }
        run.keep_memory()
        best = dict.fromkeys(ways, float("inf"))
        for _ in range(3):
            for way, go in ways.items():
                started = time.perf_counter()
                go()
                best[way] = min(best[way], time.perf_counter() - started)
    for way, seconds in best.items():
        print(f"{way:26} {tokens / seconds:9,.0f} tokens/s  {best['bare trunk'] / seconds:5.2f} × the bare trunk")


if __name__ == "__main__":
    main(*sys.argv[1:2], *(int(count) for count in sys.argv[2:3]))
