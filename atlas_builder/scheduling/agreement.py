"""What all workers of a build must have in common: versions, the kind of device, and the storage of the work folder."""

from __future__ import annotations

import hashlib
import importlib.metadata
import platform
import time
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path

from atlas_builder.errors import ConfigurationError
from atlas_builder.scheduling.arrays import SECONDS_UNTIL_SEEN
from atlas_builder.workspace import versions

HEAD = "head"
"""The file in the shared folder that is there as long as the build that submits the tasks runs."""


@dataclass(frozen=True)
class WorkerTerms:
    """What a build expects of every worker that takes a task."""

    folder: Path
    """A folder of the build on shared storage: `HEAD`, answers of workers, arrays of results."""
    token: str
    """What `HEAD` holds."""
    versions: Mapping[str, str]
    device: str
    """`model.device` of the configuration, whose number of a GPU says nothing of workers."""
    device_name: str | None = None
    """The GPU of the workers; None where the model runs on the processor, or none was asked yet."""
    sharing: Mapping[str, int] | None = None
    """How many workers share each machine, by its name."""

    def without_device(self) -> WorkerTerms:
        """What is expected of a worker that does not run the model."""
        return replace(self, device="cpu", device_name=None)


@dataclass(frozen=True)
class WorkerFacts:
    """What a worker says of itself."""

    host: str
    versions: Mapping[str, str]
    device_name: str | None
    sees_folder: bool


@cache
def all_versions() -> dict[str, str]:
    """Versions of Python and all packages that results depend on; of this package, the content of its modules."""
    package = Path(__file__).parent.parent
    content = hashlib.sha256()
    for file in sorted(package.rglob("*.py")):
        content.update(file.relative_to(package).as_posix().encode() + b"\0" + file.read_bytes())
    others = {name: importlib.metadata.version(name) for name in ("numba", "distributed")}
    code = f"{importlib.metadata.version('atlas-builder')} ({content.hexdigest()[:12]})"
    return {"atlas-builder": code, "python": platform.python_version(), **versions(), **others}


def worker_facts(terms: WorkerTerms, name: str) -> WorkerFacts:
    """What the worker of this name says of itself; it answers in the shared folder where it sees that."""
    return WorkerFacts(platform.node(), all_versions(), device_name(terms.device, name), _answer(terms, name))


def device_on_worker(device: str, worker: str) -> str:
    """The device of a worker: of several GPUs that it sees, the one that the number at the end of its name says.

    Workers that were started with a GPU of their own each (CUDA_VISIBLE_DEVICES) see one. Raises
    `ConfigurationError` where a GPU is asked for and there is none.
    """
    if not device.startswith("cuda"):
        return device
    import torch

    if not torch.cuda.is_available():
        raise ConfigurationError(f"worker {worker} has no GPU, and model.device is {device}: start it on one that has.")
    digits = worker[len(worker.rstrip("0123456789")) :]
    is_named = digits and "://" not in worker  # the name of an unnamed worker is its address, with a port
    return f"cuda:{int(digits) % torch.cuda.device_count()}" if is_named else "cuda:0"


def device_name(device: str, worker: str) -> str | None:
    """The name of the worker's GPU; None where the model runs elsewhere."""
    if not device.startswith("cuda"):
        return None
    import torch

    return str(torch.cuda.get_device_name(device_on_worker(device, worker)))


def answer_file(terms: WorkerTerms, worker: str) -> Path:
    """The file in which a worker answers."""
    return terms.folder / f"worker-{hashlib.sha256(worker.encode()).hexdigest()[:16]}"


def _answer(terms: WorkerTerms, worker: str) -> bool:
    try:
        if (terms.folder / HEAD).read_text(encoding="utf-8") != terms.token:
            return False
        answer_file(terms, worker).write_text(terms.token, encoding="utf-8")
    except OSError:
        return False
    return True


def check_worker(worker: str, facts: WorkerFacts, terms: WorkerTerms) -> None:
    """Raise `ConfigurationError` where a worker is not as the others and the build are."""
    for name, version in terms.versions.items():
        if (other := facts.versions.get(name)) != version:
            raise ConfigurationError(
                f"worker {worker} on {facts.host} has {name} {other}, the build {version}: install the same versions "
                "(pip install -c constraints.txt) everywhere."
            )
    if not facts.sees_folder:
        raise ConfigurationError(
            f"worker {worker} on {facts.host} cannot read and write {terms.folder.parent}: put --output on storage "
            "that all machines share under one path."
        )
    if terms.device_name is not None and facts.device_name != terms.device_name:
        raise ConfigurationError(
            f"worker {worker} on {facts.host} has a {facts.device_name}, another one a {terms.device_name}: give the "
            "build GPUs of one kind, since others round otherwise."
        )


def check_answer(worker: str, facts: WorkerFacts, terms: WorkerTerms, seconds: float = SECONDS_UNTIL_SEEN) -> None:
    """Raise `ConfigurationError` where this machine does not see what a worker wrote to the shared folder."""
    last = time.monotonic() + seconds
    while True:
        try:
            if answer_file(terms, worker).read_text(encoding="utf-8") == terms.token:
                return
        except OSError:
            pass
        if time.monotonic() > last:
            raise ConfigurationError(
                f"what worker {worker} on {facts.host} writes to {terms.folder.parent} is not seen here: put --output "
                "on storage that all machines share under one path."
            )
        time.sleep(0.2)
