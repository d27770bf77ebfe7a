"""The pass divided between machines: each runs a shard, one merges them, and the build continues."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from concurrent.futures import Executor
from pathlib import Path

from atlas_builder.config import Configuration
from atlas_builder.corpus.documents import check_corpus
from atlas_builder.errors import ConfigurationError
from atlas_builder.files import Sources, Store
from atlas_builder.pipeline.fingerprints import stage_sources
from atlas_builder.pipeline.stages import Stage
from atlas_builder.progress import Progress
from atlas_builder.workspace import work_folder

_NAME = re.compile(r"^(\d+)-of-(\d+)$")
_PASS = "pass"
_DONE: dict[Stage, str] = {"rotate": "rotate-shard", "collect": "shard"}
"""What a shard of a stage is in its folder."""


def parse_shard(text: str) -> tuple[int, int]:
    """Parse `2/7`. Raises `ConfigurationError` for anything else."""
    number, _, of = text.partition("/")
    if not (number.isdecimal() and of.isdecimal() and 1 <= int(number) <= int(of) <= 100_000):
        raise ConfigurationError(f"--shard {text} is not a shard: write i/n with i from 1 to n, like --shard 2/7.")
    return int(number), int(of)


def next_pass(config: Configuration, output: Path) -> Stage:
    """The stage that shards are run of: directions of kind basis are found before the pass that uses them."""
    if config.units.kind != "basis":
        return "collect"
    store = Store(work_folder(output.resolve()))
    return "collect" if store.holds("rotate", stage_sources(config)["rotate"]) else "rotate"


def collect_shard(
    config: Configuration, output: Path, number: int, of: int, *, progress: Progress | None = None
) -> Path:
    """Run shard `number` of `of` of the pass, counted from 1, and return its folder.

    It is in the work folder beside `output`, as `shards/2-of-7`, and may be moved. A
    shard that was stopped resumes from its last checkpoint. Where directions are still to be
    found, it is a shard of the pass that finds them: merge those, and run shards again.
    """
    progress = progress or Progress(quiet=True)
    stage = next_pass(config, output)
    store = Store(work_folder(output.resolve()) / "shards" / f"{number}-of-{of}")
    sources, done = _sources(config, stage, number, of), _DONE[stage]
    with store.alone(done):
        objection = store.objection(done, sources)
        if store.folder(done).exists() and not objection:
            progress.say(f"shard {number}/{of}: unchanged")
            return store.root
        if objection:
            progress.say(f"shard {number}/{of}: runs again, since {objection}")
        check_corpus(config.corpus)
        with store.making(done, sources, resumes=True) as folder:
            _RUN[stage](config, work_folder(output.resolve()), folder / _PASS, progress, number, of)
    return store.root


def _rotate(config: Configuration, work: Path, folder: Path, progress: Progress, number: int, of: int) -> None:
    # torch is imported only here, where the model runs.
    from atlas_builder.models import language_model
    from atlas_builder.rotate.run import rotate
    from atlas_builder.units.mlp import MLPUnits

    loaded = language_model.load_model(config.model)
    rotate(loaded, MLPUnits(loaded.bridge, config.units.layers), config, folder, progress, (number, of))


def _collect(config: Configuration, work: Path, folder: Path, progress: Progress, number: int, of: int) -> None:
    from atlas_builder.collect.checkpoints import Shard
    from atlas_builder.collect.run import collect
    from atlas_builder.models import language_model
    from atlas_builder.pipeline.opened import open_built_units

    loaded = language_model.load_model(config.model)
    collect(loaded, open_built_units(loaded, config, work / "rotate"), config, folder, progress, Shard(number, of))


_RUN: dict[Stage, Callable[[Configuration, Path, Path, Progress, int, int], None]] = {
    "rotate": _rotate,
    "collect": _collect,
}


def collect_shards(
    config: Configuration, output: Path, of: int, executor: Executor, progress: Progress | None = None
) -> None:
    """Run all shards through an executor, on this machine or others, and merge them.

    Meant for a machine with several devices: on `cuda` each shard in turn gets the next
    one. On cpu an undivided pass already uses every core.
    """
    progress = progress or Progress(quiet=True)
    if next_pass(config, output) == "rotate":
        shards = 1 if config.units.basis == "local" else of
        _run_all(config, output, shards, executor, progress)
    _run_all(config, output, of, executor, progress)


def _run_all(config: Configuration, output: Path, of: int, executor: Executor, progress: Progress) -> None:
    with progress.task(next_pass(config, output), total=of, unit="shards") as advance:
        tasks = [
            executor.submit(collect_shard, _on_a_device_of_its_own(config, number), output, number, of)
            for number in range(1, of + 1)
        ]
        for task in tasks:
            task.result()
            advance(1)
    merge_shards(config, output, progress=progress)


def _on_a_device_of_its_own(config: Configuration, number: int) -> Configuration:
    if config.model.device != "cuda":
        return config
    import torch

    device = f"cuda:{(number - 1) % max(1, torch.cuda.device_count())}"
    return config.model_copy(update={"model": config.model.model_copy(update={"device": device})})


def merge_shards(
    config: Configuration, output: Path, folders: Sequence[Path] = (), *, progress: Progress | None = None
) -> None:
    """Make the stage of the build to `output` from the shards of its pass: collect or, before it, rotate.

    The result does not depend on the number of shards. `folders` are those made by
    `collect_shard`, wherever they are now; by default, those in the work folder. Raises
    `ConfigurationError` if one is missing or was made from a different configuration,
    model or text.
    """
    progress = progress or Progress(quiet=True)
    stage = next_pass(config, output)
    done = _DONE[stage]
    store = Store(work_folder(output.resolve()))
    shards = _complete([folder.resolve() for folder in folders] or sorted((store.root / "shards").glob("*-of-*")), done)
    for number, folder in enumerate(shards, start=1):
        shard = Store(folder)
        objection = shard.objection(done, _sources(config, stage, number, len(shards)))
        if objection or not shard.folder(done).exists():
            reason = f" ({objection})" if objection else ""
            raise ConfigurationError(
                f"{folder} is incomplete or was made from a different configuration, model or text{reason}: "
                f"run build --shard {number}/{len(shards)} again."
            )
    parts = [folder / done / _PASS for folder in shards]
    with store.alone(stage), store.making(stage, stage_sources(config)[stage]) as target:
        if stage == "rotate":
            from atlas_builder.rotate.run import merge_rotations

            merge_rotations(parts, config, target, progress)
        else:
            from atlas_builder.collect.run import merge_passes

            merge_passes(parts, config, target, progress)
    if stage == "rotate":
        progress.say(
            f"directions are found, in {store.folder(stage)}: copy the folder to the other machines that run shards, "
            "then run build --shard 1/n to n/n and merge once more"
        )


def _complete(folders: Sequence[Path], done: str) -> list[Path]:
    """The folders of shards 1 to n, in order, those that are `done` where several numbers of shards are there."""
    by_number: dict[int, dict[int, Path]] = {}
    for folder in folders:
        match = _NAME.match(folder.name)
        if not match:
            raise ConfigurationError(f"{folder} is not a shard: name a folder like 2-of-7.")
        by_number.setdefault(int(match[2]), {})[int(match[1])] = folder
    if not by_number:
        raise ConfigurationError("no shards to merge: run build --shard 1/n to n/n first.")
    whole = [of for of, shards in by_number.items() if set(shards) == set(range(1, of + 1))]
    if not whole:
        of, shards = max(by_number.items(), key=lambda entry: len(entry[1]))
        missing = min(set(range(1, of + 1)) - set(shards))
        raise ConfigurationError(f"shard {missing}/{of} is missing: run build --shard {missing}/{of} first.")
    chosen = next((of for of in whole if all((folder / done).exists() for folder in by_number[of].values())), whole[0])
    return [by_number[chosen][number] for number in range(1, chosen + 1)]


def _sources(config: Configuration, stage: Stage, number: int, of: int) -> Sources:
    return {**stage_sources(config)[stage], "shard": f"{number}/{of}"}
