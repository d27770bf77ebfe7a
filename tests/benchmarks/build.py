"""A whole build beside one forward pass with logits: `python -m tests.benchmarks.build [TOKENS]`.

All 2,048 units of the shipped model on 256k tokens, every stage from text to pages, by the
clock, each stage beside the forward pass. Other tools are quoted for 512 units of such a model on as
many tokens: SAEDashboard 187 ms a unit, sae-vis 400 ms.
"""

from __future__ import annotations

import re
import sys
import time
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory

import torch

from atlas_builder.config_file import validate
from atlas_builder.corpus import contexts, documents
from atlas_builder.models import language_model
from atlas_builder.models.memory import BATCH_TOKENS, keep_memory
from atlas_builder.pipeline.build import build
from atlas_builder.progress import Progress


class StageTimes(Progress):
    """Keeps the seconds that a build says for each stage."""

    def __init__(self) -> None:
        super().__init__()
        self.seconds: dict[str, float] = {}

    def say(self, text: str) -> None:
        """As `Progress.say`."""
        if done := re.fullmatch(r"(\w+): done in ([\d.]+) s", text):
            self.seconds[done[1]] = float(done[2])
        super().say(text)


def main(tokens: int = 256_000) -> None:
    """Print seconds of both, their ratio, and milliseconds a unit."""
    settings = validate(
        {
            "model": {"name": "demo"},
            "corpus": {"source": "stdlib", "max_tokens": tokens},
            "describe": {"importance": "none"},  # which runs the model again, and again
        }
    )
    with TemporaryDirectory() as scratch:
        loaded = language_model.load_model(settings.model)
        read = contexts.write_contexts(
            documents.documents(settings.corpus),
            loaded.encode,
            Path(scratch) / "contexts",
            context=settings.corpus.context,
            bos=loaded.bos,
            max_tokens=tokens,
        )
        batches = [torch.from_numpy(read.stack(batch)) for batch in read.batches(BATCH_TOKENS)]

        def forward() -> None:
            with torch.inference_mode():
                for batch in batches:
                    loaded.bridge(batch)

        plain = _seconds(forward)
        keep_memory()
        tuned = _seconds(forward)
        progress = StageTimes()
        whole = _seconds(lambda: build(settings, Path(scratch) / "site", progress=progress))
        units = sum(1 for _ in (Path(scratch) / "site").glob("L*/N*.html"))
    print(f"one forward pass with logits, as it comes    {plain:7.1f} s")
    print(f"one forward pass with logits, memory kept    {tuned:7.1f} s")
    for stage, seconds in progress.seconds.items():
        print(f"{stage:44} {seconds:7.1f} s, {seconds / tuned:.2f} ×")
    print(f"the whole build of {units:,} units            {whole:7.1f} s, {1000 * whole / units:.1f} ms a unit")
    print(f"                                             {whole / plain:7.2f} × and {whole / tuned:.2f} ×")


def _seconds(work: Callable[[], object]) -> float:
    started = time.perf_counter()
    work()
    return time.perf_counter() - started


if __name__ == "__main__":
    main(*(int(count) for count in sys.argv[1:2]))
