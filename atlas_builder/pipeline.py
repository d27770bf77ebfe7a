"""The story of a build, top to bottom.

collect → cluster → describe → link → publish: each stage reads the folders of those
before it, writes its own, and is skipped while the fingerprint of all it depends on is
unchanged.
"""

from __future__ import annotations

import hashlib
import multiprocessing
import os
import platform
import shutil
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Executor, ProcessPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from atlas_builder.config import Configuration
from atlas_builder.errors import ConfigurationError
from atlas_builder.progress import Progress
from atlas_builder.site.metadata import METADATA
from atlas_builder.site.prose import check_prose
from atlas_builder.stages import STAGES, Stage, edition_date, fingerprints, versions
from atlas_builder.store import Store, read_json, replace_folder, write_json

_SITE = "site"
CONFIGURATION = "configuration.json"
"""The file in the work folder that says what the last build was asked for."""


def build(
    config: Configuration,
    output: Path,
    *,
    fresh: bool = False,
    until: Stage = "publish",
    progress: Progress | None = None,
    executor: Executor | None = None,
) -> Path:
    """Build an atlas and return the folder of its site.

    Intermediate results are kept in a hidden folder beside `output`, so that a later
    build takes up where this one ended. `executor` runs the shards of a stage; by
    default, one process a core. Raises an `AtlasError` with one sentence where
    something is the user's to mend; `output` is then as it was before.
    """
    progress = progress or Progress(quiet=True)
    output = output.resolve()
    check_output(output, fresh, is_atlas)
    check_prose(config.site.prose)
    prints = fingerprints(config)
    store = Store(work_folder(output))
    with store.alone(), workers(executor) as pool:
        write_json(store.root / CONFIGURATION, config.model_dump())
        if fresh:
            for stage in STAGES:
                shutil.rmtree(store.folder(stage), ignore_errors=True)
        for stage in STAGES[: STAGES.index(until) + 1]:
            started = time.monotonic()
            if store.holds(stage, prints[stage]) and (stage != "publish" or _is_published(store, output)):
                progress.say(f"{stage}: unchanged")
                continue
            with store.making(stage, prints[stage], resumes=stage in _RESUME) as folder:
                _RUN[stage](config, store, folder, pool, progress)
                if stage == "publish":
                    # The site takes its place first: the stage is done when readers can see it.
                    replace_folder(folder / _SITE, output)
                    write_json(folder / "published.json", _marks(output))
            progress.say(f"{stage}: done in {time.monotonic() - started:.1f} s")
    return output


def holds_pass(config: Configuration, output: Path) -> bool:
    """Whether the pass over the corpus is done for a build to `output`."""
    return Store(work_folder(output.resolve())).holds("collect", fingerprints(config)["collect"])


def work_folder(output: Path) -> Path:
    """Where the intermediate results of a build to `output` are kept."""
    return output.parent / f".{output.name}.work"


@contextmanager
def workers(given: Executor | None, count: int | None = None) -> Iterator[Executor]:
    """The executor that was given, or processes for the length of the block, one a core when not counted."""
    if given is not None:
        yield given
        return
    pool = ProcessPoolExecutor(count or cores(), multiprocessing.get_context("spawn"))
    try:
        yield pool
    finally:
        pool.shutdown(cancel_futures=True)


def _collect(config: Configuration, store: Store, folder: Path, pool: Executor, progress: Progress) -> None:
    # Only stages that run the model wait for torch to load.
    from atlas_builder import model
    from atlas_builder.collect.run import collect, is_merged, merge

    whole = folder / "pass"
    if not is_merged(folder):  # else the last build ended while it removed what is merged
        loaded = model.load(config.model)
        collect(loaded, model.open_units(loaded, config), config, whole, progress)
        del loaded  # its memory is better used
        merge([whole], config, folder, progress)
    shutil.rmtree(whole, ignore_errors=True)


def _cluster(config: Configuration, store: Store, folder: Path, pool: Executor, progress: Progress) -> None:
    from atlas_builder.cluster import cluster
    from atlas_builder.collect.results import Collected

    cluster(Collected(store.folder("collect")), config.clusters, folder, pool, progress)


def _describe(config: Configuration, store: Store, folder: Path, pool: Executor, progress: Progress) -> None:
    from atlas_builder.collect.results import Collected
    from atlas_builder.describe.run import describe, write_loss

    collected, clustered = Collected(store.folder("collect")), store.folder("cluster")
    describe(collected, clustered, config.examples, folder, pool, progress)
    if config.describe.importance != "none" or config.describe.prediction or config.describe.steering:
        from atlas_builder import model
        from atlas_builder.describe.heldout import predict
        from atlas_builder.describe.loss import measure
        from atlas_builder.describe.masking import explain
        from atlas_builder.describe.steering import steer
        from atlas_builder.units.base import Steerable

        loaded = model.load(config.model)
        units = model.open_units(loaded, config)
        write_loss(folder, measure(loaded, collected.contexts, config.model.device, progress))
        if config.describe.importance != "none":
            explain(loaded, units, collected, clustered, config, folder, progress)
        if config.describe.prediction:
            predict(units, collected, folder, config.model.device, progress)
        if config.describe.steering and isinstance(units, Steerable):
            steer(units, collected, folder, config.model.device, progress)


def _link(config: Configuration, store: Store, folder: Path, pool: Executor, progress: Progress) -> None:
    from atlas_builder.collect.results import Collected
    from atlas_builder.link import link

    link(Collected(store.folder("collect")), store.folder("cluster"), config.link, folder, pool, progress)


def _publish(config: Configuration, store: Store, folder: Path, pool: Executor, progress: Progress) -> None:
    from atlas_builder.describe.run import read_loss
    from atlas_builder.records import Stages
    from atlas_builder.site.edition import Site
    from atlas_builder.site.publish import publish

    stages = Stages(*(store.folder(stage) for stage in ("collect", "cluster", "describe", "link")))
    date = edition_date(config)
    facts = atlas_facts(config, stages.collected.facts, read_loss(stages.describe), date)
    site = Site(stages, config, facts, date)
    publish(site, folder / _SITE, pool, progress)


_RESUME: tuple[Stage, ...] = ("collect", "describe")
"""Stages that run the model: what they have done is worth keeping when they are stopped."""
_RUN: dict[Stage, Callable[[Configuration, Store, Path, Executor, Progress], None]] = {
    "collect": _collect,
    "cluster": _cluster,
    "describe": _describe,
    "link": _link,
    "publish": _publish,
}


def atlas_facts(
    config: Configuration, collected: dict[str, Any], loss: dict[str, Any] | None, date: str | None
) -> dict[str, Any]:
    """`atlas.json`: what is true of the whole atlas."""
    bos = collected["bos_token"]
    return {
        "schema": "atlas/1",
        "atlas": config.atlas.model_dump(),
        "title": config.title,
        "date": date,
        "kind": collected["kind"],
        "model": {
            "name": _portable(config.model.name),
            "revision": config.model.revision,
            "dtype": config.model.dtype,
            "activation": collected["activation"],
            **{name: collected[name] for name in ("architecture", "layers", "width", "vocabulary")},
            "loss": loss,
        },
        "bos": f"{bos} heads every context and counts nowhere" if bos else "none",
        "mask": collected["mask_token"],
        "corpus": {
            "source": config.corpus.source,
            "name": config.corpus.name or _portable(config.corpus.path),
            "revision": config.corpus.revision,
            "sha256": collected["corpus_sha256"],
            **{name: collected[name] for name in ("documents", "contexts", "tokens", "lines_skipped")},
        },
        "layers": collected["units"],
        "metadata": METADATA,
        "configuration": portable_configuration(config),
        "packages": {"python": platform.python_version(), **versions()},
    }


def _portable(name: str | None) -> str | None:
    """A path without the folders it happens to be in; a hub name as it is."""
    return Path(name).name if name and Path(name).exists() else name


def portable_configuration(config: Configuration) -> dict[str, Any]:
    """A configuration as it is published: without the folders and devices of one machine."""
    found = config.model_dump()
    found["model"]["name"] = _portable(config.model.name)
    found["corpus"]["path"] = _portable(config.corpus.path)
    found["units"]["path"] = _portable(config.units.path)
    found["site"]["prose"] = _portable(config.site.prose)
    found["site"]["theme"] = _portable(config.site.theme)
    # Where it ran is not part of what it is.
    del found["model"]["device"]
    return found


def check_output(output: Path, fresh: bool, is_ours: Callable[[Path], bool]) -> None:
    """Refuse to replace what a build did not make; with `fresh`, replace any folder one could mean."""
    if output.is_file():
        raise ConfigurationError(f"--output: {output} is a file: name a folder.")
    if output in (Path.home(), *Path.cwd().parents, Path.cwd()):
        raise ConfigurationError(f"--output: {output} holds the folder you work in: name a folder of its own.")
    if output.is_dir() and any(output.iterdir()) and not fresh and not is_ours(output):
        raise ConfigurationError(
            f"--output: {output} holds something that is not an atlas: name another folder, or replace it with --fresh."
        )


def is_atlas(folder: Path) -> bool:
    """Whether a folder holds a built atlas."""
    try:
        return bool(read_json(folder / "atlas.json")["schema"].startswith("atlas/"))
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return False


def _is_published(store: Store, output: Path) -> bool:
    """Whether what is at `output` is still what the publish stage put there."""
    try:
        return bool(read_json(store.folder("publish") / "published.json") == _marks(output))
    except (OSError, ValueError):
        return False


def _marks(site: Path) -> dict[str, str]:
    """What tells a site from another: every file's name and size, and the content of two."""
    sizes = hashlib.sha256()
    for file in sorted(path for path in site.rglob("*") if path.is_file()):
        sizes.update(f"{file.relative_to(site).as_posix()} {file.stat().st_size}\n".encode())
    marks = {name: hashlib.sha256((site / name).read_bytes()).hexdigest() for name in ("atlas.json", "index.html")}
    return {**marks, "sizes": sizes.hexdigest()}


def cores() -> int:
    """Cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
