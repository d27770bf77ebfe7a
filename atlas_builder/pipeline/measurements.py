"""What the describe stage runs the model for, here or on the workers of a scheduler."""

from __future__ import annotations

from concurrent.futures import as_completed
from dataclasses import dataclass
from pathlib import Path

from atlas_builder.collect.results import Collected
from atlas_builder.config import Configuration
from atlas_builder.files import Store
from atlas_builder.pipeline.opened import OpenedModel, open_built_units, opened_once
from atlas_builder.pipeline.remote_pass import RemoteModel
from atlas_builder.progress import Progress
from atlas_builder.scheduling.executor import ClusterExecutor
from atlas_builder.scheduling.tasks import TaskContext


def needs_model(config: Configuration) -> bool:
    """Whether the describe stage runs the model."""
    described = config.describe
    return config.units.kind == "basis" or described.importance != "none" or described.prediction or described.steering


@dataclass(frozen=True)
class Measuring:
    """Where the stages before are, and the folder of describe to which measurements are written."""

    collected: Path
    clustered: Path
    rotation: Path
    folder: Path

    @classmethod
    def of(cls, store: Store, folder: Path) -> Measuring:
        """Those of a build."""
        return cls(store.folder("collect"), store.folder("cluster"), store.folder("rotate"), folder)

    def edges(self, opened: OpenedModel, config: Configuration, progress: Progress) -> None:
        """Edges between directions, of kind basis."""
        if config.units.kind == "basis":
            from atlas_builder.describe.interactions import measure_edges
            from atlas_builder.rotate.results import Rotation

            contexts = Collected(self.collected).contexts
            measure_edges(opened.loaded, Rotation(self.rotation), contexts, config, self.folder, progress)

    def graphs(self, opened: OpenedModel, config: Configuration, progress: Progress) -> None:
        """Token graphs, from the examples whose token importance was measured."""
        if config.describe.graphs:
            from atlas_builder.describe.graph_examples import measure_graphs

            collected, device = Collected(self.collected), config.model.device
            measure_graphs(*opened, collected, self.clustered, self.folder, device, progress)

    def held_out(self, opened: OpenedModel, config: Configuration, progress: Progress) -> None:
        """The model's loss, and token, context and graph F1, which use token importance and graphs."""
        from atlas_builder.describe.held_out import measure_held_out

        predicts, device = config.describe.prediction, config.model.device
        measure_held_out(*opened, Collected(self.collected), self.folder, device, progress, predicts=predicts)

    def steering(self, opened: OpenedModel, config: Configuration, progress: Progress) -> None:
        """Effects of clamped units, where they can be and the model predicts tokens."""
        from atlas_builder.units.base import Steerable

        if config.describe.steering and isinstance(opened.units, Steerable) and opened.loaded.is_causal:
            from atlas_builder.describe.steering import clamp_units

            clamp_units(opened.units, Collected(self.collected), self.folder, config.model.device, progress)


def measure_here(config: Configuration, store: Store, folder: Path, progress: Progress) -> None:
    """Measure all that the configuration asks for, with the model in this process."""
    from atlas_builder.describe.importance_parts import measure_importance
    from atlas_builder.models import language_model

    where, collected = Measuring.of(store, folder), Collected(store.folder("collect"))
    loaded = language_model.load_model(config.model)
    opened = OpenedModel(loaded, open_built_units(loaded, config, where.rotation, collected))
    if config.describe.importance != "none":
        measure_importance(*opened, collected, where.clustered, config, folder, progress)
    for one in (where.edges, where.graphs, where.held_out, where.steering):
        one(opened, config, progress)


def measure_remotely(
    executor: ClusterExecutor, config: Configuration, store: Store, folder: Path, progress: Progress
) -> None:
    """Measure all that the configuration asks for on workers: token importance in parts, the rest as a task each."""
    where, model = Measuring.of(store, folder), RemoteModel(config, store.folder("rotate"), "describe")
    before = executor.submit_to_model("edges", _measure, where, "edges", model)
    if config.describe.importance != "none":
        _importance_remotely(executor, where, model, progress)
    if config.describe.graphs:
        executor.submit_to_model("graphs", _measure, where, "graphs", model).result()
    names = ["held_out", *(["steering"] if config.describe.steering else [])]
    for task in [before, *(executor.submit_to_model(name, _measure, where, name, model) for name in names)]:
        task.result()


def _measure(context: TaskContext, where: Measuring, name: str, model: RemoteModel) -> None:
    config = model.on(context)
    opened = opened_once(context.build, model.stage, config, where.rotation, Collected(where.collected))
    getattr(where, name)(opened, config, context.progress)


def _importance_remotely(executor: ClusterExecutor, where: Measuring, model: RemoteModel, progress: Progress) -> None:
    from atlas_builder.describe.importance_parts import assemble_importance

    count = executor.submit_to_model("importance", _divide_importance, where, model).result()
    with progress.task("importance", total=count, unit="parts") as advance:
        tasks = [
            executor.submit_to_model(f"importance {part + 1}/{count}", _importance_part, where, model, part)
            for part in range(count)
        ]
        for task in as_completed(tasks):
            task.result()
            advance(1)
    assemble_importance(where.folder)


def _divide_importance(context: TaskContext, where: Measuring, model: RemoteModel) -> int:
    from atlas_builder.describe.importance_parts import divide_importance

    config, collected = model.on(context), Collected(where.collected)
    opened = opened_once(context.build, model.stage, config, where.rotation, collected)
    return divide_importance(*opened, collected, where.clustered, config, where.folder)


def _importance_part(context: TaskContext, where: Measuring, model: RemoteModel, part: int) -> None:
    from atlas_builder.describe.importance_parts import measure_part

    config, collected = model.on(context), Collected(where.collected)
    opened = opened_once(context.build, model.stage, config, where.rotation, collected)
    measure_part(*opened, collected, config, where.folder, part)
