"""The connection to a Dask scheduler, with the checks before the first task."""

from __future__ import annotations

import asyncio
import re
import secrets
import shutil
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from atlas_builder.errors import ConfigurationError, brief
from atlas_builder.progress import Progress
from atlas_builder.scheduling.agreement import (
    HEAD,
    WorkerFacts,
    WorkerTerms,
    all_versions,
    check_answer,
    check_worker,
    worker_facts,
)
from atlas_builder.scheduling.executor import ClusterExecutor
from atlas_builder.system.folders import remove

if TYPE_CHECKING:
    from distributed import Client

SECONDS_TO_CONNECT = 30.0
"""How long a scheduler may take to answer, or its file to appear."""
SECONDS_BEYOND = 5.0
"""How much longer an attempt may take: the library's own limit does not cover a server that never answers."""
_ADDRESS = re.compile(r"^([a-z+]+://)?(\[[0-9a-fA-F:.]+\]|[\w.-]+):[0-9]{1,5}$")
_FOLDER = ".scheduler-"
_GPU = {"GPU": 1.0}


@contextmanager
def connected(scheduler: str, work: Path, device: str, progress: Progress) -> Iterator[ClusterExecutor]:
    """An executor on the workers of a scheduler for the length of the block.

    Args:
        scheduler: Its address, `tcp://10.0.0.1:8786`, or the file that it was started to write it to.
        work: The work folder of the build, on storage that all workers share. One build at a time uses it.
        device: `model.device`. For a GPU, workers that offer the resource GPU run the model.
        progress: Where what workers say is reported.

    Raises:
        ConfigurationError: If distributed is not installed, no scheduler answers in `SECONDS_TO_CONNECT`, or
            workers differ in versions or GPUs, see no shared folder, or none has a GPU where one is wanted.
    """
    work.mkdir(parents=True, exist_ok=True)
    for left in work.glob(f"{_FOLDER}*"):  # by a build that was killed
        shutil.rmtree(left, ignore_errors=True)
    client = _client(scheduler)
    terms = WorkerTerms(work / f"{_FOLDER}{secrets.token_hex(4)}", secrets.token_hex(16), all_versions(), device)
    try:
        terms.folder.mkdir()
        (terms.folder / HEAD).write_text(terms.token, encoding="utf-8")
        with _given_to(client):
            workers = _workers(client, device, progress, scheduler)
            terms = _agreed(client, workers, terms)
        resources = _GPU if device.startswith("cuda") else {}
        executor = ClusterExecutor(client, terms, resources, _count(workers, device), progress)
        progress.say(f"{scheduler}: {_said(workers, device)}")
        try:
            yield executor
        finally:
            executor.end()
    finally:
        remove(terms.folder)
        with suppress(Exception):  # a scheduler that is gone says no farewell
            client.close(timeout=5)


def _client(scheduler: str) -> Client:
    try:
        from distributed import Client
    except ImportError as error:
        raise ConfigurationError(
            "--scheduler requires the package distributed: pip install 'atlas-builder[cluster]'."
        ) from error
    place: dict[str, Any] = {"address": scheduler}
    if not _ADDRESS.match(scheduler):
        place = {"scheduler_file": str(_existing(Path(scheduler)))}

    def connect() -> Client:
        return Client(**place, timeout=SECONDS_TO_CONNECT, set_as_default=False)

    return _within(SECONDS_TO_CONNECT + SECONDS_BEYOND, connect, scheduler)


def _existing(file: Path) -> Path:
    """The scheduler's file, as soon as it is there."""
    if file.suffix != ".json" and not file.exists():
        raise ConfigurationError(
            f"--scheduler {brief(file)} is neither an address like tcp://10.0.0.1:8786 nor a file: give what dask "
            "scheduler prints, or the file of its --scheduler-file."
        )
    last = time.monotonic() + SECONDS_TO_CONNECT
    while not file.is_file() or not file.stat().st_size:
        if time.monotonic() > last:
            raise ConfigurationError(
                f"--scheduler: {file} did not appear in {SECONDS_TO_CONNECT:.0f} s: start dask scheduler "
                f"--scheduler-file {file} first."
            )
        time.sleep(0.2)
    return file


def _within(seconds: float, connect: Callable[[], Client], scheduler: str) -> Client:
    made: list[Client] = []
    errors: list[BaseException] = []

    def run() -> None:
        try:
            made.append(connect())
        except BaseException as error:
            errors.append(error)

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    thread.join(seconds)
    if made:
        return made[0]
    reason = f" ({brief(errors[0], 100)})" if errors else ""
    raise ConfigurationError(
        f"--scheduler: no Dask scheduler answered at {scheduler} in {SECONDS_TO_CONNECT:.0f} s{reason}: start "
        "it with dask scheduler, or correct the address."
    ) from (errors[0] if errors else None)


@contextmanager
def _given_to(client: Client) -> Iterator[None]:
    """Anything that fails while workers are asked, but our own errors, means that they were lost."""
    try:
        yield
    except ConfigurationError:
        raise
    except Exception as error:
        raise ConfigurationError(
            f"--scheduler: workers could not be asked for their versions ({brief(error, 160)}): install the same "
            "version of atlas-builder on all machines, and start workers again."
        ) from error


def _workers(client: Client, device: str, progress: Progress, scheduler: str) -> dict[str, Any]:
    """The workers by address, as soon as there is one."""
    said = False
    while True:
        workers: dict[str, Any] = client.scheduler_info(n_workers=-1)["workers"]
        if workers:
            break
        if not said:
            progress.say(f"{scheduler} has no worker yet: waiting for one (dask worker {scheduler})")
            said = True
        time.sleep(0.5)
    if device.startswith("cuda") and not _count(workers, device):
        raise ConfigurationError(
            f"--scheduler: model.device is {device}, and none of {_counted(len(workers))} offers a GPU: start "
            "those that have one with dask worker --resources GPU=1."
        )
    return workers


def _count(workers: dict[str, Any], device: str) -> int:
    """How many workers run the model."""
    return sum(not device.startswith("cuda") or worker["resources"].get("GPU", 0) >= 1 for worker in workers.values())


def _said(workers: dict[str, Any], device: str) -> str:
    many = [worker["name"] for worker in workers.values() if worker["nthreads"] > 1]
    hint = (
        f"; {len(many)} of them have several threads and still run one task at a time: more processes of one thread "
        "(--nworkers, --nthreads 1) cluster faster"
        if many
        else ""
    )
    return f"{_counted(len(workers))}, {_count(workers, device)} of them for the model{hint}"


def _counted(workers: int) -> str:
    return f"{workers} worker" + "s" * (workers != 1)


async def _ask(terms: WorkerTerms, dask_worker: Any = None) -> WorkerFacts:
    """Run by a worker, whose own loop goes on meanwhile."""
    return await asyncio.to_thread(worker_facts, terms, str(dask_worker.name))


def _agreed(client: Client, workers: dict[str, Any], terms: WorkerTerms) -> WorkerTerms:
    """The terms with what was learnt of the workers; raises `ConfigurationError` where they differ."""
    gpu = [address for address, worker in workers.items() if worker["resources"].get("GPU", 0) >= 1]
    run_model = gpu if terms.device.startswith("cuda") else []
    facts: dict[str, WorkerFacts] = {}
    for asked, addresses in ((terms, run_model), (terms.without_device(), [*(workers.keys() - set(run_model))])):
        if addresses:
            facts |= client.run(_ask, asked, workers=addresses)
    for address in run_model[:1]:
        terms = replace(terms, device_name=facts[address].device_name)
    for address, one in facts.items():
        name = str(workers[address]["name"])
        check_worker(name, one, terms if address in run_model else terms.without_device())
        check_answer(name, one, terms)
    return replace(terms, sharing=Counter(one.host for one in facts.values()))
