"""A pass whose preparation, shards and merging run on the workers of a scheduler, each on shared storage.

What does not depend on the shard is made once. Each shard has a folder with its checkpoints, in which a
worker goes on where a lost one ended; a shard that is done is not run again, whatever ended the build.
"""

from __future__ import annotations

import secrets
import shutil
import time
from collections.abc import Callable, Iterator
from concurrent.futures import as_completed
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from atlas_builder.config import Configuration
from atlas_builder.errors import ConfigurationError
from atlas_builder.files import Store, locked, read_array, read_json, write_json
from atlas_builder.pipeline.opened import loaded_once, opened_once
from atlas_builder.pipeline.stages import Stage
from atlas_builder.progress import Progress
from atlas_builder.scheduling.executor import ClusterExecutor, WorkerError
from atlas_builder.scheduling.tasks import TaskContext
from atlas_builder.units.base import Units

SECONDS_TO_WAIT = 1800.0
"""How long a worker waits for another one that still runs the same shard, since the scheduler thought it dead."""
_PREPARED, SHARDS, _NUMBER, _DONE = "prepared", "shards", "shards.json", ".done"


@dataclass(frozen=True)
class RemoteModel:
    """What a worker needs to open the model of a build."""

    config: Configuration
    rotation: Path
    """The folder of the rotate stage."""
    stage: Stage

    def on(self, context: TaskContext) -> Configuration:
        """The configuration with the device of a worker."""
        model = self.config.model.model_copy(update={"device": context.device})
        return self.config.model_copy(update={"model": model})


def collect_remotely(
    executor: ClusterExecutor, config: Configuration, store: Store, folder: Path, progress: Progress
) -> None:
    """The collect stage, as `collect` and `merge_passes` make it."""
    from atlas_builder.collect.run import is_merged, merge_passes

    if not is_merged(folder):
        model = RemoteModel(config, store.folder("rotate"), "collect")
        prepared, shards = _run_shards(
            executor, model, _prepare_pass, _collect_shard, folder, executor.shards, progress
        )
        merge_passes(shards, config, folder, progress, prepared=prepared, executor=executor)
    clear_passes(folder)


def rotate_remotely(
    executor: ClusterExecutor, config: Configuration, store: Store, folder: Path, progress: Progress
) -> None:
    """The rotate stage, as `rotate` and `merge_rotations` make it; a local basis goes layer by layer on one worker."""
    from atlas_builder.rotate.plan import BLOCKS
    from atlas_builder.rotate.run import is_rotated

    if not is_rotated(folder):
        model = RemoteModel(config, store.folder("rotate"), "rotate")
        count = 1 if config.units.basis == "local" else min(executor.shards, BLOCKS)
        prepared, shards = _run_shards(executor, model, _prepare_rotation, _rotate_shard, folder, count, progress)
        executor.submit_to_model("directions", _merge_rotations, shards, config, folder, prepared).result()
    clear_passes(folder)


def clear_passes(folder: Path) -> None:
    """Remove what was merged, and what another way to run this pass has left."""
    for name in (_PREPARED, SHARDS, "pass"):
        shutil.rmtree(folder / name, ignore_errors=True)
    for left in folder.glob(f".{_PREPARED}.*"):  # by a worker that was killed
        shutil.rmtree(left, ignore_errors=True)
    (folder / _NUMBER).unlink(missing_ok=True)


def _run_shards(
    executor: ClusterExecutor,
    model: RemoteModel,
    prepare: Callable[..., None],
    run: Callable[..., None],
    folder: Path,
    count: int,
    progress: Progress,
) -> tuple[Path, list[Path]]:
    """Run what all shards share, then all shards that are not done; their folders, the shared one first."""
    prepared = folder / _PREPARED
    if not prepared.exists():
        executor.submit_to_model("preparation", prepare, model, prepared).result()
    if not (folder / _NUMBER).exists():  # else those of the build that was stopped, which may have had other workers
        write_json(folder / _NUMBER, count)
    count = int(read_json(folder / _NUMBER))
    shards = [folder / SHARDS / f"{number}-of-{count}" for number in range(1, count + 1)]
    done = sum(is_done(shard) for shard in shards)
    with progress.task("shards", total=count, unit="shards", done=done) as advance:
        tasks = [
            executor.submit_to_model(f"shard {number}/{count}", run, model, prepared, shard, number, count)
            for number, shard in enumerate(shards, start=1)
            if not is_done(shard)
        ]
        for task in as_completed(tasks):
            task.result()
            advance(1)
    return prepared, shards


def _prepare_pass(context: TaskContext, model: RemoteModel, folder: Path) -> None:
    from atlas_builder.collect.run import prepare_pass

    config = model.on(context)
    loaded, units = opened_once(context.build, model.stage, config, model.rotation)
    with _in_one_step(folder) as draft:
        prepare_pass(loaded, units, config, draft, context.progress)


def _prepare_rotation(context: TaskContext, model: RemoteModel, folder: Path) -> None:
    from atlas_builder.rotate.run import prepare_rotation
    from atlas_builder.units.mlp import MLPUnits

    config = model.on(context)
    loaded = loaded_once(context.build, config)
    with _in_one_step(folder) as draft:
        prepare_rotation(loaded, MLPUnits(loaded.bridge, config.units.layers), config, draft, context.progress)


def _collect_shard(
    context: TaskContext, model: RemoteModel, prepared: Path, folder: Path, number: int, count: int
) -> None:
    from atlas_builder.collect.checkpoints import Shard
    from atlas_builder.collect.run import collect

    config = model.on(context)
    with alone(context, folder) as done:
        if not done:
            loaded, units = opened_once(context.build, model.stage, config, model.rotation)
            _check_weights(context, units, prepared)
            collect(loaded, units, config, folder, context.progress, Shard(number, count), prepared)


def _check_weights(context: TaskContext, units: Units, prepared: Path) -> None:
    """Refuse a worker whose copy of the model, under the same name, is another one."""
    layer = units.layers[0]
    made, here = read_array(prepared / f"L{layer}" / "read.npy", on_disk=True), units.read_weights(layer).numpy()
    if made.shape != here.shape or not np.allclose(made, here, rtol=0.01, atol=1e-3 * float(np.abs(here).max())):
        raise ConfigurationError(
            f"worker {context.worker} has another model under this name than the worker that prepared the pass: put "
            "the model on storage that all machines share, or set model.revision."
        )


def _rotate_shard(
    context: TaskContext, model: RemoteModel, prepared: Path, folder: Path, number: int, count: int
) -> None:
    from atlas_builder.rotate.run import rotate
    from atlas_builder.units.mlp import MLPUnits

    config = model.on(context)
    with alone(context, folder) as done:
        if not done:
            loaded = loaded_once(context.build, config)
            units = MLPUnits(loaded.bridge, config.units.layers)
            rotate(loaded, units, config, folder, context.progress, (number, count), prepared)


def _merge_rotations(
    context: TaskContext, shards: list[Path], config: Configuration, folder: Path, prepared: Path
) -> None:
    from atlas_builder.rotate.run import merge_rotations

    merge_rotations(shards, config, folder, context.progress, prepared)


@contextmanager
def _in_one_step(folder: Path) -> Iterator[Path]:
    """A draft that becomes the folder, unless a worker that was thought dead was first with the same."""
    draft = folder.with_name(f".{folder.name}.{secrets.token_hex(4)}.gone")
    try:
        yield draft
        if not folder.exists():
            draft.rename(folder)
    finally:
        shutil.rmtree(draft, ignore_errors=True)


def is_done(folder: Path) -> bool:
    """Whether a shard is complete."""
    return (folder / _DONE).exists()


@contextmanager
def alone(context: TaskContext, folder: Path) -> Iterator[bool]:
    """The only worker in the folder of a shard, for the length of the block; whether the shard is done already.

    A shard is started again where the scheduler thinks its worker dead. If that still runs it, it has the lock.
    """
    last = time.monotonic() + SECONDS_TO_WAIT
    refusal = (
        f"shard {folder.name} is still held by a worker that the scheduler has lost: end that worker, then run the "
        "command again; what is finished is kept."
    )
    with ExitStack() as stack:
        while True:
            try:
                stack.enter_context(locked(folder.with_name(f"{folder.name}.lock"), refusal, seconds=2))
                break
            except ConfigurationError:
                if time.monotonic() > last:
                    raise WorkerError(refusal) from None
                context.progress.check()
        yield is_done(folder)
        (folder / _DONE).touch()
