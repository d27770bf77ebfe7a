"""The rotate stage beside the bare forward pass: `python -m tests.benchmarks.rotate [SHAPE] [TOKENS]`.

Block by block in turn, in one process: the trunk up to the last MLP with hooks that do nothing, and the stage's
run, forward, backward and sums; then the directions from the sums. SHAPE is demo, stories260k, gpt2, or a model's name.
"""

from __future__ import annotations

import resource
import sys
import time
from pathlib import Path
from tempfile import TemporaryDirectory

import torch

from atlas_builder.config_file import validate
from atlas_builder.corpus.contexts import Contexts, read_contexts
from atlas_builder.models import language_model, memory
from atlas_builder.progress import Progress
from atlas_builder.rotate import run as stage
from atlas_builder.rotate.plan import BLOCKS, RotationPlan
from atlas_builder.units.mlp import MLPUnits
from tests.benchmarks.shapes import SHAPES, folder_of

QUIET = Progress(quiet=True)


def main(shape: str = "demo", tokens: int = 25_600) -> None:
    """Print seconds, the ratio of the stage to the bare forward pass on the same tokens, and the peak of memory."""
    with TemporaryDirectory() as scratch:
        config = validate(
            {
                "model": {"name": folder_of(shape, Path(scratch))},
                "corpus": {"source": "stdlib", "max_tokens": tokens},
                "interaction": {"report": True, "max_tokens": None},
            }
        )
        loaded = language_model.load_model(config.model)
        units, folder = MLPUnits(loaded.bridge), Path(scratch) / "pass"
        stage.prepare_rotation(loaded, units, config, folder, QUIET)
        read = read_contexts(folder / "contexts")
        plan = RotationPlan(read, None)
        run = stage._Run(loaded, units, config, read, plan, folder, QUIET)
        memory.keep_memory()
        _forward(units, read, plan, 0)  # what is allocated once is so before the clock runs
        bare = rotating = 0.0
        for block in range(BLOCKS):
            begun = time.perf_counter()
            _forward(units, read, plan, block)
            between = time.perf_counter()
            run.block(block)
            bare, rotating = bare + between - begun, rotating + time.perf_counter() - between
        begun = time.perf_counter()
        stage.merge_rotations([folder], config, Path(scratch), QUIET)
        merging = time.perf_counter() - begun
        size = sum(file.stat().st_size for file in folder.glob("*.safetensors"))
    print(f"{shape}: {SHAPES.get(shape, 'a model of its own')}; {plan.tokens:,} tokens")
    print("| | seconds | times the bare pass |\n| --- | ---: | ---: |")
    for name, seconds in (
        ("bare forward pass", bare), ("forward, backward, sums", rotating), ("directions", merging),
        ("the stage", rotating + merging),
    ):  # fmt: skip
        print(f"| {name} | {seconds:.1f} | {seconds / bare:.2f} |")
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6
    print(f"peak of memory {peak:.1f} GB, files of the pass {size / 1e9:.2f} GB, {torch.get_num_threads()} threads")


def _forward(units: MLPUnits, read: Contexts, plan: RotationPlan, block: int) -> None:
    for places in plan.batches(block, memory.BATCH_TOKENS):
        tokens = torch.from_numpy(read.stack(plan.contexts[places]))
        units.run(tokens, lambda layer, inputs, activations: None)


if __name__ == "__main__":
    given = sys.argv[1:]
    main(given[0] if given else "demo", int(given[1]) if len(given) > 1 else 25_600)
