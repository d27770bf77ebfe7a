"""The describe stage beside the pass, in processor time: `python -m tests.benchmarks.describe [TOKENS] [MODEL TEXT]`.

Without token importance, in one process. The shipped model on TOKENS of the standard library, or the model of a folder
on a `.jsonl` file, 100,000 tokens by default. LAYERS in the environment, such as `0,15`, reads these layers only.
"""

from __future__ import annotations

import os
import sys
import time
from collections import defaultdict
from collections.abc import Callable
from concurrent.futures import Executor, Future
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from atlas_builder.config_file import validate
from atlas_builder.describe import held_out
from atlas_builder.describe import run as describe
from atlas_builder.pipeline import build as pipeline
from atlas_builder.progress import Progress

_NAMED = (
    "_worded",
    "describe_words",
    "window_tokens",
    "token_shares",
    "next_shares",
    "_effects",
    "_novelty",
    "write_json",
)
_PARTS = [(held_out, "measure_held_out")] + [(describe, part) for part in _NAMED]


class InOneProcess(Executor):
    """Runs each piece of work when it is given."""

    def submit(self, work: Callable[..., Any], /, *given: Any, **named: Any) -> Future[Any]:
        """As `Executor.submit`."""
        future: Future[Any] = Future()
        future.set_result(work(*given, **named))
        return future


def main(tokens: int = 100_000, model: str = "demo", text: str = "") -> None:
    """Print seconds of the processor for the pass and the parts of the describe stage, and their ratios."""
    corpus: dict[str, Any] = {"source": "jsonl", "path": text} if text else {"source": "stdlib"}
    layers = os.environ.get("LAYERS")
    settings = validate(
        {
            "model": {"name": model},
            "corpus": {**corpus, "max_tokens": tokens},
            "units": {"layers": [int(layer) for layer in layers.split(",")] if layers else "all"},
            "describe": {"importance": "none"},
        }
    )
    spent: defaultdict[str, float] = defaultdict(float)

    def timed(name: str, work: Callable[..., Any]) -> Callable[..., Any]:
        def run(*given: Any, **named: Any) -> Any:
            started = time.process_time()
            try:
                return work(*given, **named)
            finally:
                spent[name] += time.process_time() - started

        return run

    for module, part in _PARTS:
        setattr(module, part, timed(part.lstrip("_"), getattr(module, part)))
    pipeline._RUN["collect"] = timed("the pass", pipeline._RUN["collect"])
    pipeline._RUN["describe"] = timed("the describe stage", pipeline._RUN["describe"])
    with TemporaryDirectory() as scratch:
        pipeline.build(settings, Path(scratch) / "site", until="describe", progress=Progress(), executor=InOneProcess())
    for name, seconds in sorted(spent.items(), key=lambda one: -one[1]):
        print(f"{name:40} {seconds:8.1f} s  {seconds / spent['the pass']:6.3f} ×")


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 100_000, *sys.argv[2:4])
