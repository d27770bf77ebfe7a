"""The pass on the device beside the compiled loops: `python -m tests.benchmarks.device [SHAPE] [TOKENS]`.

Batch by batch in turn, in one process, on the processor: both engines look at the same activations.
Printed are the bytes that leave the device for each token, by stretches of the text that double
(counted by `tests.support.crossings`), and the processor time of both engines. SHAPE is
demo, stories260k, gpt2, or a model's name.
"""

from __future__ import annotations

import sys
from collections import Counter
from pathlib import Path
from tempfile import TemporaryDirectory

import torch

from tests.benchmarks.shapes import SHAPES, folder_of
from tests.support.engines import Crossed, compare_engines


def main(shape: str = "demo", tokens: int = 100_000) -> None:
    """Print bytes by stretch, what they consist of, and processor times."""
    with TemporaryDirectory() as scratch:
        name = folder_of(shape, Path(scratch))
        text = {"source": "stdlib", "max_tokens": tokens}
        found = compare_engines({"model": {"name": name}, "corpus": text}, Path(scratch))
    print(f"{SHAPES.get(shape, shape)}")
    print(f"{found.units:,} units, {found.tokens:,} tokens, torch {torch.__version__}")
    before = Crossed(0, Counter())
    for stretch in found.crossed[:-2]:
        tokens_here = stretch.tokens - before.tokens
        print(f"to token {stretch.tokens:>9,}: {(stretch.bytes - before.bytes) / tokens_here:9,.0f} bytes a token")
        before = stretch
    for label, stretch in zip(("the last checkpoint", "the second run"), found.crossed[-2:], strict=True):
        print(f"{label:20}: {(stretch.bytes - before.bytes) / found.tokens:9,.0f} bytes a token")
        before = stretch
    print(f"in all {found.bytes_a_token:,.0f} bytes a token; activations alone {4 * found.units:,}")
    print(f"inputs and windows, were they logged, about {found.logged / found.tokens:,.0f}")
    print(f"by way: {dict(found.crossed[-1].ways)}")
    for engine, seconds in found.seconds.items():
        nanoseconds = seconds / found.units / found.tokens * 1e9
        print(f"{engine:8} {seconds:8.2f} s of processor, {nanoseconds:6.1f} ns an activation")
    print(f"files that differ: {len(found.differing)} of {found.files} {found.differing[:3]}")


if __name__ == "__main__":
    shape, tokens = [*sys.argv[1:3], *("demo", "100000")[len(sys.argv[1:3]) :]]
    main(shape, int(tokens))
