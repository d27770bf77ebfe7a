"""The build, from top to bottom.

(rotate →) collect → cluster → describe → link → publish: each stage reads the folders of the stages
before it, writes its own folder, and is skipped while the fingerprint of all that it
depends on is unchanged and its files are there.
"""

from __future__ import annotations

import gc
import shutil
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Executor
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path

from atlas_builder.config import Configuration
from atlas_builder.corpus.documents import check_corpus
from atlas_builder.errors import ConfigurationError
from atlas_builder.files import Sources, Store, digests, read_json, write_json
from atlas_builder.pipeline.fingerprints import edition_date, stage_sources, stages_of
from atlas_builder.pipeline.stages import ALL_STAGES, Stage
from atlas_builder.progress import Progress
from atlas_builder.records.explanations import read_lines
from atlas_builder.scheduling.executor import ClusterExecutor
from atlas_builder.site.prose.render import check_prose
from atlas_builder.site.replacement import SAVED, replace_site, restore_site
from atlas_builder.site.theme import check_theme
from atlas_builder.site.users_files import files_below
from atlas_builder.system.processes import check_not_imported_again, ended_on_failure
from atlas_builder.workspace import (
    CONFIGURATION,
    atlas_facts,
    check_output,
    is_atlas,
    mount_note,
    work_folder,
    workers,
)

_SITE = "site"
_PUBLISHED = "published.json"
"""The SHA-256 of every file of the site, by its path."""


def build(
    config: Configuration,
    output: Path,
    *,
    fresh: bool = False,
    until: Stage = "publish",
    progress: Progress | None = None,
    executor: Executor | None = None,
    scheduler: str | None = None,
) -> Path:
    """Build an atlas and return the folder of its site.

    A later build continues where this one ended: results are kept in a hidden folder beside `output`.

    Args:
        config: What to build.
        output: The folder of the site, which may hold an atlas; files that the user put into that are kept.
        fresh: Build every stage again, and replace whatever `output` holds, be it no atlas.
        until: The last stage to build; `rotate` where there are directions to find.
        progress: Where to report; quiet by default.
        executor: What runs the pieces of a stage; one process a core by default.
        scheduler: Address or file of a Dask scheduler whose workers run all stages but `publish`, in its place.

    Returns:
        The folder of the site.

    Raises:
        AtlasError: With one sentence that says what to do; `output` is then as it was.

    Example:
        >>> import atlas_builder
        >>> from pathlib import Path
        >>> config = atlas_builder.load_config(Path("my-model.yml"))
        >>> atlas_builder.build(config, Path("output/my-model")).name
        'my-model'
    """
    check_not_imported_again()
    progress = progress or Progress(quiet=True)
    output = output.resolve()
    _check_what_is_given(config, output, fresh, until)
    sources, store = stage_sources(config), Store(work_folder(output))
    stages = stages_of(config)
    with store.alone(*ALL_STAGES), _pool(executor, scheduler, config, store, progress) as pool:
        restore_site(output, store.root)
        if note := mount_note(output):
            progress.say(note)
        write_json(store.root / CONFIGURATION, config.model_dump())
        for stage in ALL_STAGES if fresh else ():
            shutil.rmtree(store.folder(stage), ignore_errors=True)
        for stage in stages[: stages.index(until) + 1]:
            started = time.monotonic()
            if _is_unchanged(store, stage, sources[stage], output, progress):
                continue
            draft = store.making(stage, sources[stage], resumes=stage in _RESUME)
            with draft as folder, ended_on_failure(pool):
                _RUN[stage](config, store, folder, pool, progress)
                if stage == "publish":
                    _put_in_place(folder, output, store, progress)
            progress.say(f"{stage}: done in {time.monotonic() - started:.1f} s")
    return output


def _check_what_is_given(config: Configuration, output: Path, fresh: bool, until: Stage) -> None:
    if until not in stages_of(config):
        raise ConfigurationError("--until rotate: these units need no directions: choose a later stage.")
    if config.link.approximate_above is not None and find_spec("faiss") is None:
        raise ConfigurationError("link.approximate_above needs faiss: run pip install 'atlas-builder[faiss]'.")
    check_output(output, fresh, is_atlas)
    check_theme(config.site.theme)
    check_prose(config.site.prose)
    check_corpus(config.corpus)
    if config.site.explanations is not None:
        read_lines(config.site.explanations)


@contextmanager
def _pool(
    executor: Executor | None, scheduler: str | None, config: Configuration, store: Store, progress: Progress
) -> Iterator[Executor]:
    """What runs the pieces of stages."""
    if scheduler is None:
        with workers(executor) as pool:
            yield pool
        return
    from atlas_builder.scheduling.connection import connected

    with connected(scheduler, store.root, config.model.device, progress) as remote:
        try:
            yield remote
        finally:
            remote.run_on_workers(_forget_models)


def _forget_models() -> None:
    """Free the memory of models on a worker."""
    if opened := sys.modules.get("atlas_builder.pipeline.opened"):
        opened.forget_models()


def _put_in_place(folder: Path, output: Path, store: Store, progress: Progress) -> None:
    """The site goes to `output`: the stage is done when readers can see it."""
    marks = digests(folder / _SITE, files_below(folder / _SITE))
    for path in replace_site(folder / _SITE, output, store.root):
        progress.say(f"{path} of yours gave way to a file of the site: it is now in {store.root / SAVED}")
    write_json(folder / _PUBLISHED, marks)


def holds_pass(config: Configuration, output: Path) -> bool:
    """Whether the pass over the corpus is complete for a build to `output`."""
    return Store(work_folder(output.resolve())).holds("collect", stage_sources(config)["collect"])


def _rotate(config: Configuration, store: Store, folder: Path, pool: Executor, progress: Progress) -> None:
    from atlas_builder.models import language_model
    from atlas_builder.pipeline.remote_pass import clear_passes, rotate_remotely
    from atlas_builder.rotate.run import is_rotated, merge_rotations, rotate
    from atlas_builder.units.mlp import MLPUnits

    if isinstance(pool, ClusterExecutor):
        rotate_remotely(pool, config, store, folder, progress)
        return
    whole = folder / "pass"
    if not is_rotated(folder):
        loaded = language_model.load_model(config.model)
        rotate(loaded, MLPUnits(loaded.bridge, config.units.layers), config, whole, progress)
        del loaded
        merge_rotations([whole], config, folder, progress)
    clear_passes(folder)


def _collect(config: Configuration, store: Store, folder: Path, pool: Executor, progress: Progress) -> None:
    # Only stages that run the model wait for torch to load.
    from atlas_builder.collect.run import collect, is_merged, merge_passes
    from atlas_builder.models import language_model
    from atlas_builder.pipeline.opened import open_built_units
    from atlas_builder.pipeline.remote_pass import clear_passes, collect_remotely

    if isinstance(pool, ClusterExecutor):
        collect_remotely(pool, config, store, folder, progress)
        return
    whole = folder / "pass"
    if not is_merged(folder):  # else the last build was stopped while removing the merged pass
        loaded = language_model.load_model(config.model)
        collect(loaded, open_built_units(loaded, config, store.folder("rotate")), config, whole, progress)
        del loaded
        _free_memory()
        merge_passes([whole], config, folder, progress)
    clear_passes(folder)


def _free_memory() -> None:
    """Free what a model took, which is better used by the processes of the stages after it."""
    from atlas_builder.models.memory import return_freed_memory

    gc.collect()
    return_freed_memory()


def _cluster(config: Configuration, store: Store, folder: Path, pool: Executor, progress: Progress) -> None:
    from atlas_builder.cluster.run import cluster_units
    from atlas_builder.collect.results import Collected

    cluster_units(Collected(store.folder("collect")), config.clusters, folder, pool, progress)


def _describe(config: Configuration, store: Store, folder: Path, pool: Executor, progress: Progress) -> None:
    from atlas_builder.collect.results import Collected
    from atlas_builder.describe.associations import associate
    from atlas_builder.describe.run import describe
    from atlas_builder.pipeline.measurements import measure_here, measure_remotely, needs_model

    collected, clustered = Collected(store.folder("collect")), store.folder("cluster")
    describe(collected, clustered, config.examples, folder, pool, progress)
    if config.names_associations:
        associate(collected, config.examples, folder, pool, progress)
    if not needs_model(config):
        return
    if isinstance(pool, ClusterExecutor):
        measure_remotely(pool, config, store, folder, progress)
    else:
        measure_here(config, store, folder, progress)
        _free_memory()


def _link(config: Configuration, store: Store, folder: Path, pool: Executor, progress: Progress) -> None:
    from atlas_builder.collect.results import Collected
    from atlas_builder.link.run import link

    link(Collected(store.folder("collect")), store.folder("cluster"), config.link, folder, pool, progress)


def _publish(config: Configuration, store: Store, folder: Path, pool: Executor, progress: Progress) -> None:
    from atlas_builder.describe.results import read_loss
    from atlas_builder.link.run import is_approximate
    from atlas_builder.records.stages import Stages
    from atlas_builder.site.context import Site
    from atlas_builder.site.publish import publish

    stages = Stages.at(store.root)
    date = edition_date(config)
    facts = atlas_facts(config, stages.collected.facts, read_loss(stages.describe), date)
    if config.rotates and stages.rotation is not None:
        rotation = stages.rotation
        facts["interaction"] = {
            "basis": rotation.facts["basis"],
            "tokens": rotation.facts["tokens"],
            "degeneracy": rotation.degeneracy,
            **(stages.interactions.facts if stages.interactions is not None else {}),
        }
    if is_approximate(len(stages.links.address), config.link):
        facts["similar_behaviours"] = "approximate"
    if stages.output_tokens is not None:
        facts["output_tokens"] = stages.output_tokens
    site = Site(stages, config, facts, date)
    # A page is sooner written than sent for.
    with workers(None if isinstance(pool, ClusterExecutor) else pool) as local:
        publish(site, folder / _SITE, local, progress)


_RESUME: tuple[Stage, ...] = ("rotate", "collect", "describe")
"""Stages that run the model, whose partial results are kept when they are stopped."""
_RUN: dict[Stage, Callable[[Configuration, Store, Path, Executor, Progress], None]] = {
    "rotate": _rotate,
    "collect": _collect,
    "cluster": _cluster,
    "describe": _describe,
    "link": _link,
    "publish": _publish,
}


def _is_unchanged(store: Store, stage: Stage, sources: Sources, output: Path, progress: Progress) -> bool:
    """Whether a stage need not run; says so, or why it runs again."""
    if not store.folder(stage).exists():
        return False
    objection = store.objection(stage, sources)
    if objection is None and stage == "publish" and not _is_published(store, output):
        objection = f"{output} was changed or removed"
    progress.say(f"{stage}: runs again, since {objection}" if objection else f"{stage}: unchanged")
    return objection is None


def _is_published(store: Store, output: Path) -> bool:
    """Whether all that the publish stage wrote to `output` is still as it left it."""
    try:
        marks: dict[str, str] = read_json(store.folder("publish") / _PUBLISHED)
    except (OSError, ValueError):
        return False
    return digests(output, list(marks)) == marks
