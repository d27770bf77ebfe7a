"""What surrounds a build: its work folder, its worker processes, and the facts that it publishes about itself."""

from __future__ import annotations

import importlib.metadata
import os
import platform
from collections.abc import Callable, Iterator
from concurrent.futures import Executor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from atlas_builder.config import Configuration, paths_in
from atlas_builder.errors import ConfigurationError, SiteError
from atlas_builder.reader.facts import read_facts
from atlas_builder.site.citing.metadata import METADATA
from atlas_builder.system.folders import mount_points
from atlas_builder.system.processes import Workers, ended_on_failure

CONFIGURATION = "configuration.json"
"""The file in the work folder with the configuration of the last build."""

_PACKAGES = (
    "torch", "transformer-lens", "transformers", "tokenizers", "numpy", "hdbscan", "scikit-learn", "scipy", "openTSNE"
)  # fmt: skip


def work_folder(output: Path) -> Path:
    """Where the intermediate results of a build to `output` are kept."""
    return output.parent / f".{output.name}.work"


@contextmanager
def workers(given: Executor | None, count: int | None = None) -> Iterator[Executor]:
    """The executor that was given, or `count` processes for the length of the block, by default one per core."""
    if given is not None:
        yield given
        return
    pool = Workers(count or cores())
    try:
        with ended_on_failure(pool):
            yield pool
    finally:
        pool.shutdown(cancel_futures=True)


def cores() -> int:
    """Cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def versions() -> dict[str, str]:
    """Versions of the packages that results depend on."""
    # The build of torch (+cpu, +cu126) belongs to the machine, the version to the result.
    return {name: importlib.metadata.version(name).split("+")[0] for name in _PACKAGES}


def atlas_facts(
    config: Configuration, collected: dict[str, Any], loss: dict[str, Any] | None, date: str | None
) -> dict[str, Any]:
    """`atlas.json`: the facts of the whole atlas."""
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
            **({"quantisation": collected["quantisation"]} if "quantisation" in collected else {}),
            "causal": collected.get("causal", True),
            "loss": loss,
        },
        "bos": f"{bos} begins every context and is excluded from all statistics" if bos else "none",
        "mask": collected["mask_token"],
        "corpus": {
            "source": config.corpus.source,
            "name": config.corpus.name or _portable(config.corpus.path),
            "revision": config.corpus.revision,
            "sha256": collected["corpus_sha256"],
            **{name: collected[name] for name in ("documents", "contexts", "tokens", "lines_skipped")},
            **({"chat": collected["chat"]} if "chat" in collected else {}),
        },
        "layers": collected["units"],
        "metadata": METADATA,
        "configuration": portable_configuration(config),
        "packages": {"python": platform.python_version(), **versions()},
    }


def _portable(name: str | None) -> str | None:
    """A path without its parent folders; a Hugging Face name as it is."""
    return Path(name).name if name and Path(name).exists() else name


def portable_configuration(config: Configuration) -> dict[str, Any]:
    """A configuration as it is published: without the folders and devices of one machine."""
    settings = config.model_dump()
    for name, section in config:
        for field, _ in paths_in(section):
            settings[name][field] = _portable(settings[name][field])
    # Where it ran does not change the result.
    del settings["model"]["device"], settings["model"]["engine"]
    return settings


def check_output(output: Path, fresh: bool, is_ours: Callable[[Path], bool]) -> None:
    """Refuse to replace what a build did not make; with `fresh`, allow any folder but those around the current one."""
    if output.is_file():
        raise ConfigurationError(f"--output: {output} is a file: name a folder.")
    if output in (Path.home(), *Path.cwd().parents, Path.cwd()):
        raise ConfigurationError(f"--output: {output} is the home folder or contains the current one: name another.")
    if output.is_dir() and any(output.iterdir()) and not fresh and not is_ours(output):
        raise ConfigurationError(
            f"--output: {output} holds something that is not an atlas: name another folder, or replace it with --fresh."
        )
    for folder in (output, work_folder(output)):
        place = next(place for place in (folder, *folder.parents) if place.exists())
        if not os.access(place, os.W_OK | os.X_OK):
            raise ConfigurationError(
                f"--output: {place} cannot be written to, and a build writes the site and, beside it, what it keeps: "
                "allow it, or name another folder."
            )


def mount_note(output: Path) -> str | None:
    """What to know before a build to a folder that cannot be moved; None for any other."""
    if not (mounts := mount_points(output)):
        return None
    return f"{mounts[0]} is a mount point, so the files of the site are replaced one by one, not all at once"


def is_atlas(folder: Path) -> bool:
    """Whether a folder holds a built atlas."""
    try:
        read_facts(folder)
    except SiteError:
        return False
    return True
