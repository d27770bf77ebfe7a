"""The story of a build, top to bottom.

collect → cluster → describe → link → publish: each stage reads the folders of those
before it, writes its own, and is skipped while the fingerprint of all it depends on is
unchanged.
"""

from __future__ import annotations

import hashlib
import importlib.metadata
import multiprocessing
import os
import platform
import shutil
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Executor, ProcessPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal, get_args

from atlas_builder.config import Configuration
from atlas_builder.errors import ConfigurationError
from atlas_builder.progress import Progress
from atlas_builder.site.prose import check_prose
from atlas_builder.site.theme import find_theme, shipped
from atlas_builder.store import Store, code_fingerprint, fingerprint, read_json, replace_folder, write_json

Stage = Literal["collect", "cluster", "describe", "link", "publish"]
STAGES: tuple[Stage, ...] = get_args(Stage)

_CODE: dict[Stage, tuple[str, ...]] = {
    "collect": ("collect", "units", "model.py", "tokens.py", "corpus.py", "contexts.py"),
    "cluster": ("cluster.py", "behaviours.py", "embeddings.py"),
    "describe": ("describe",),
    "link": ("link.py",),
    "publish": ("site", "pipeline.py", "records.py", "numbers.py", "collect/bins.py", "neuron-record.schema.json"),
}
_SITE = "site"
_PACKAGES = ("torch", "transformer-lens", "transformers", "tokenizers", "numpy", "hdbscan", "scikit-learn", "scipy")


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
    _check_output(output, fresh)
    check_prose(config.site.prose)
    prints = _fingerprints(config)
    store = Store(output.parent / f".{output.name}.work")
    with store.alone(), _workers(executor) as pool:
        if fresh:
            for stage in STAGES:
                shutil.rmtree(store.folder(stage), ignore_errors=True)
        for stage in STAGES[: STAGES.index(until) + 1]:
            started = time.monotonic()
            if store.holds(stage, prints[stage]) and (stage != "publish" or _is_published(store, output)):
                progress.say(f"{stage}: unchanged")
                continue
            with store.making(stage, prints[stage], resumes=stage == "collect") as folder:
                _RUN[stage](config, store, folder, pool, progress)
                if stage == "publish":
                    # The site takes its place first: the stage is done when readers can see it.
                    replace_folder(folder / _SITE, output)
                    write_json(folder / "published.json", _marks(output))
            progress.say(f"{stage}: done in {time.monotonic() - started:.1f} s")
    return output


@contextmanager
def _workers(given: Executor | None) -> Iterator[Executor]:
    """The executor that was given, or one process a core for the length of the block."""
    if given is not None:
        yield given
        return
    pool = ProcessPoolExecutor(_cores(), multiprocessing.get_context("spawn"))
    try:
        yield pool
    finally:
        pool.shutdown(cancel_futures=True)


def _collect(config: Configuration, store: Store, folder: Path, pool: Executor, progress: Progress) -> None:
    # The only stage that runs the model, so the only one that waits for torch to load.
    from atlas_builder import model
    from atlas_builder.collect.run import collect, merge

    loaded = model.load(config.model)
    whole = folder / "pass"
    collect(loaded, model.open_units(loaded, config), config, whole, progress)
    del loaded  # its memory is better used
    merge([whole], config, folder, progress)
    shutil.rmtree(whole)


def _cluster(config: Configuration, store: Store, folder: Path, pool: Executor, progress: Progress) -> None:
    from atlas_builder.cluster import cluster
    from atlas_builder.collect.results import Collected

    cluster(Collected(store.folder("collect")), config.clusters, folder, pool, progress)


def _describe(config: Configuration, store: Store, folder: Path, pool: Executor, progress: Progress) -> None:
    from atlas_builder.collect.results import Collected
    from atlas_builder.describe.run import describe

    describe(Collected(store.folder("collect")), store.folder("cluster"), config.examples, folder, pool, progress)


def _link(config: Configuration, store: Store, folder: Path, pool: Executor, progress: Progress) -> None:
    from atlas_builder.collect.results import Collected
    from atlas_builder.link import link

    link(Collected(store.folder("collect")), store.folder("cluster"), config.link, folder, pool, progress)


def _publish(config: Configuration, store: Store, folder: Path, pool: Executor, progress: Progress) -> None:
    from atlas_builder.records import Stages
    from atlas_builder.site.publish import Site, publish

    stages = Stages(*(store.folder(stage) for stage in ("collect", "cluster", "describe", "link")))
    date = edition_date(config)
    site = Site(stages, config, atlas_facts(config, stages.collected.facts, date), date)
    publish(site, folder / _SITE, pool, progress)


_RUN: dict[Stage, Callable[[Configuration, Store, Path, Executor, Progress], None]] = {
    "collect": _collect,
    "cluster": _cluster,
    "describe": _describe,
    "link": _link,
    "publish": _publish,
}


def atlas_facts(config: Configuration, collected: dict[str, Any], date: str | None) -> dict[str, Any]:
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
        },
        "bos": f"{bos} heads every context and counts nowhere" if bos else "none",
        "corpus": {
            "source": config.corpus.source,
            "name": config.corpus.name or _portable(config.corpus.path),
            "revision": config.corpus.revision,
            "sha256": collected["corpus_sha256"],
            **{name: collected[name] for name in ("documents", "contexts", "tokens", "lines_skipped")},
        },
        "layers": collected["units"],
        "configuration": _portable_configuration(config),
        "packages": {"python": platform.python_version(), **_versions()},
    }


def edition_date(config: Configuration) -> str | None:
    """The date of the edition: configured, or SOURCE_DATE_EPOCH's, or none; never today's."""
    epoch = os.environ.get("SOURCE_DATE_EPOCH")
    if config.atlas.date or not epoch:
        return config.atlas.date
    try:
        return time.strftime("%Y-%m-%d", time.gmtime(int(epoch)))
    except (ValueError, OverflowError, OSError):
        raise ConfigurationError(f"SOURCE_DATE_EPOCH is {epoch!r}: it must be seconds since 1970.") from None


def _fingerprints(config: Configuration) -> dict[Stage, str]:
    """What each stage's results depend on, those of earlier stages included."""
    site = config.model_dump(include={"atlas", "site"})
    sections: dict[Stage, Any] = {
        "collect": [
            # Where the model runs is not part of what it says.
            config.model_dump(include={"model", "corpus", "units", "examples"}, exclude={"model": {"device"}}),
            _content(config.model.name),
            _content(config.corpus.path) if config.corpus.path else platform.python_version(),
            _versions(),
        ],
        "cluster": config.model_dump(include={"clusters"}),
        "describe": None,
        "link": config.model_dump(include={"link"}),
        "publish": [site, edition_date(config), _look(config)],
    }
    prints: dict[Stage, str] = {}
    before = ""
    for stage in STAGES:
        before = prints[stage] = fingerprint(before, sections[stage], code_fingerprint(*_CODE[stage]))
    return prints


def _content(name: str) -> str | None:
    """SHA-256 of the files of a local model or corpus; None for what lives on a hub."""
    if name == "demo":
        from atlas_builder.demo import MODEL

        name = str(MODEL)
    path = Path(name)
    if not path.exists():
        return None
    digest = hashlib.sha256()
    for file in sorted(path.rglob("*")) if path.is_dir() else [path]:
        if file.is_file():
            with file.open("rb") as content:
                inner = hashlib.file_digest(content, "sha256").digest()
            digest.update(os.fsencode(file.relative_to(path) if path.is_dir() else "") + b"\0" + inner)
    return digest.hexdigest()


def _look(config: Configuration) -> list[str | None]:
    own = shipped("site_config")
    docs = config.site.prose or own / "docs"
    places = (find_theme(config.site.theme), shipped("themes") / "atlas", docs, own / "mkdocs.yml")
    return [_content(str(place)) for place in places]


def _versions() -> dict[str, str]:
    # The build of torch (+cpu, +cu126) is the machine's, the version is the result's.
    return {name: importlib.metadata.version(name).split("+")[0] for name in _PACKAGES}


def _portable(name: str | None) -> str | None:
    """A path without the folders it happens to be in; a hub name as it is."""
    return Path(name).name if name and Path(name).exists() else name


def _portable_configuration(config: Configuration) -> dict[str, Any]:
    found = config.model_dump()
    found["model"]["name"] = _portable(config.model.name)
    found["corpus"]["path"] = _portable(config.corpus.path)
    found["site"]["prose"] = _portable(config.site.prose)
    found["site"]["theme"] = _portable(config.site.theme)
    # Where it ran is not part of what it is.
    del found["model"]["device"]
    return found


def _check_output(output: Path, fresh: bool) -> None:
    """Refuse to replace what is not an atlas; with `fresh`, replace any folder one could mean."""
    if output.is_file():
        raise ConfigurationError(f"--output: {output} is a file: name a folder.")
    if output in (Path.home(), *Path.cwd().parents, Path.cwd()):
        raise ConfigurationError(f"--output: {output} holds the folder you work in: name a folder of its own.")
    if output.is_dir() and any(output.iterdir()) and not fresh and not _is_atlas(output):
        raise ConfigurationError(
            f"--output: {output} holds something that is not an atlas: name another folder, or replace it with --fresh."
        )


def _is_atlas(folder: Path) -> bool:
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


def _cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
