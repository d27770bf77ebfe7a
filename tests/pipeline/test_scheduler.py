"""Builds on the workers of a Dask scheduler: the same bytes, whatever becomes of workers, and every refusal a sentence."""

from __future__ import annotations

import os
import pickle
import signal
import socket
import threading
import time
from collections.abc import Iterator
from concurrent.futures import Executor
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from atlas_builder.errors import ConfigurationError
from atlas_builder.pipeline import remote_pass
from atlas_builder.pipeline.build import build
from atlas_builder.scheduling import agreement, connection, executor
from atlas_builder.scheduling.agreement import Terms, WorkerFacts, check_answer, check_worker, device_on_worker
from atlas_builder.scheduling.arrays import load_arrays, store_arrays
from atlas_builder.scheduling.connection import connected
from atlas_builder.scheduling.executor import ClusterExecutor, WorkerError
from atlas_builder.scheduling.tasks import Reply, Task, TaskContext
from atlas_builder.workspace import work_folder
from tests.support.atlases import Configure, Listener, digests

distributed = pytest.importorskip("distributed")
pytestmark = pytest.mark.filterwarnings("ignore::ResourceWarning", "ignore::UserWarning:distributed.*")


@pytest.fixture(scope="module")
def cluster() -> Iterator[Any]:
    """A scheduler and two workers, each a process with one thread."""
    with distributed.LocalCluster(
        n_workers=2, threads_per_worker=1, processes=True, memory_limit=None, dashboard_address=None
    ) as running:
        yield running


@pytest.fixture
def executors(monkeypatch: pytest.MonkeyPatch) -> list[ClusterExecutor]:
    """The executors that builds of a test make."""
    made: list[ClusterExecutor] = []

    class Kept(ClusterExecutor):
        def __init__(self, *given: Any) -> None:
            super().__init__(*given)
            made.append(self)

    monkeypatch.setattr(connection, "ClusterExecutor", Kept)
    return made


def test_an_atlas_is_the_same_to_the_byte_and_the_pass_runs_on_all_workers(
    cluster: Any, configure: Configure, tiny_site: Path, tmp_path: Path, executors: list[ClusterExecutor]
) -> None:
    listener = Listener()
    site = build(configure(), tmp_path / "site", scheduler=cluster.scheduler_address, progress=listener)
    assert digests(site) == digests(tiny_site)
    (used,) = executors
    shards = [one for one in used.finished if one.task.startswith("shard ")]
    assert [one.task for one in used.finished].count("preparation") == 1
    assert len(shards) == len({one.task for one in shards}) == 2 * executor.SHARDS_A_WORKER
    assert len({one.worker for one in shards}) == 2
    assert {"merge layer", "cluster units", "nearest on disk", "loss"} <= {one.task for one in used.finished}
    work = work_folder(site)
    for stage in ("collect", "cluster", "describe", "link"):
        assert digests(work / stage).keys() == digests(work_folder(tiny_site) / stage).keys()
    assert not list(work.glob(".scheduler-*"))
