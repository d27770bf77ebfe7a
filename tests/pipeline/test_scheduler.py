"""Builds on the workers of a Dask scheduler: the same bytes, whatever becomes of workers; a refusal is one sentence."""

from __future__ import annotations

import os
import pickle
import shutil
import signal
import socket
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import Executor
from pathlib import Path
from typing import Any, NamedTuple
from unittest.mock import patch

import numpy as np
import pytest
import torch

from atlas_builder.errors import ConfigurationError
from atlas_builder.files import locked
from atlas_builder.pipeline import remote_pass
from atlas_builder.pipeline.build import build
from atlas_builder.scheduling import agreement, connection
from atlas_builder.scheduling.agreement import WorkerFacts, WorkerTerms, check_answer, check_worker, device_on_worker
from atlas_builder.scheduling.arrays import load_arrays, store_arrays
from atlas_builder.scheduling.connection import connected
from atlas_builder.scheduling.executor import SHARDS_A_WORKER, ClusterExecutor, WorkerError
from atlas_builder.scheduling.tasks import BuildEndedError, RemoteProgress, Reply, Task, TaskContext
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
    assert len(shards) == len({one.task for one in shards}) == 2 * SHARDS_A_WORKER
    assert len({one.worker for one in shards}) == 2
    assert {"merge layer", "cluster units", "nearest on disk", "held_out"} <= {one.task for one in used.finished}
    work = work_folder(site)
    for stage in ("collect", "cluster", "describe", "link"):
        assert digests(work / stage).keys() == digests(work_folder(tiny_site) / stage).keys()
    assert not list(work.glob(".scheduler-*"))


def test_directions_are_found_on_workers_to_the_same_bytes(
    cluster: Any, configure: Configure, pool: Executor, tmp_path: Path, executors: list[ClusterExecutor]
) -> None:
    settings = configure(units={"kind": "basis"}, examples={"per_unit": 4})
    here = build(settings, tmp_path / "here", executor=pool, until="collect")
    there = build(settings, tmp_path / "there", scheduler=cluster.scheduler_address, until="collect")
    for stage in ("rotate", "collect"):
        assert _stage(there, stage) == _stage(here, stage)
    assert {"preparation", "shard 8/8", "directions"} <= {one.task for one in executors[0].finished}


def test_results_and_arguments_that_cross_are_small(
    cluster: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    replies: list[Reply] = []
    conclude = ClusterExecutor._conclude

    def seen(self: ClusterExecutor, task: Task, inner: Any, outer: Any) -> None:
        replies.append(inner.result())
        conclude(self, task, inner, outer)

    monkeypatch.setattr(ClusterExecutor, "_conclude", seen)
    with connected(cluster.scheduler_address, tmp_path, "cpu", Listener()) as pool:
        result = pool.submit(np.zeros, 1_000_000).result()
    assert result.shape == (1_000_000,)
    assert max(len(pickle.dumps(reply)) for reply in replies) < 2_000


def test_arrays_of_any_kind_come_back_as_they_were(tmp_path: Path) -> None:
    record = np.zeros(3, [("unit", "<i4"), ("value", "<f8")])
    result = FinishedArrays(record, [np.arange(4, dtype=np.int16)], {"a": (1.5, np.array(2))})
    back = load_arrays(pickle.loads(pickle.dumps(store_arrays(result, tmp_path))))
    assert isinstance(back, FinishedArrays)
    for one, other in ((back.record, record), (back.parts[0], result.parts[0]), (back.rest["a"][1], np.array(2))):
        assert one.dtype == other.dtype
        np.testing.assert_array_equal(one, other)
    assert back.rest["a"][0] == 1.5
    assert not list(tmp_path.iterdir())


class FinishedArrays(NamedTuple):
    record: np.ndarray
    parts: list[np.ndarray]
    rest: dict[str, Any]


# What becomes of workers.


def test_a_worker_that_is_killed_amid_a_shard_costs_no_byte(
    cluster: Any, configure: Configure, tiny_site: Path, tmp_path: Path, executors: list[ClusterExecutor]
) -> None:
    def die_after_a_checkpoint() -> int:
        from atlas_builder.collect.checkpoints import Collectors

        checkpoint = Collectors.checkpoint

        def dying(self: Collectors) -> None:
            checkpoint(self)
            os.kill(os.getpid(), signal.SIGKILL)

        patch.object(Collectors, "checkpoint", dying).start()
        return os.getpid()

    with distributed.Client(cluster.scheduler_address, set_as_default=False) as client:
        one = next(iter(client.scheduler_info(n_workers=-1)["workers"]))
        before = client.run(die_after_a_checkpoint, workers=[one])
        site = build(configure(), tmp_path / "site", scheduler=cluster.scheduler_address, until="collect")
        assert not set(before) & set(client.scheduler_info(n_workers=-1)["workers"])
    assert len({one.task for one in executors[0].finished if one.task.startswith("shard ")}) == 2 * SHARDS_A_WORKER
    assert _stage(site, "collect") == _stage(tiny_site, "collect")


def _stage(site: Path, stage: str) -> dict[str, str]:
    found = digests(work_folder(site) / stage)
    return {name: digest for name, digest in found.items() if name != "stage.json"}


def test_a_shard_that_a_lost_worker_still_runs_is_waited_for(tmp_path: Path) -> None:
    """The scheduler thinks a worker dead, which goes on: the other waits, and finds the shard done."""
    terms = WorkerTerms(tmp_path, "", {}, "cpu")
    (tmp_path / agreement.HEAD).touch()
    context = TaskContext("", "1", "cpu", RemoteProgress(terms))
    shard, ran = tmp_path / "1-of-2", []
    shard.mkdir()
    entered = threading.Event()

    def run(name: str) -> None:
        with remote_pass.alone(context, shard) as done:
            entered.set()
            if not done:
                time.sleep(0.5)
                ran.append(name)

    first = threading.Thread(target=run, args=("first",))
    first.start()
    entered.wait()
    run("second")
    first.join()
    assert ran == ["first"]


def test_a_shard_whose_build_has_ended_is_not_waited_for(tmp_path: Path) -> None:
    context = TaskContext("", "1", "cpu", RemoteProgress(WorkerTerms(tmp_path, "", {}, "cpu")))
    shard = tmp_path / "1-of-2"
    with locked(shard.with_name("1-of-2.lock"), ""), pytest.raises(BuildEndedError), remote_pass.alone(context, shard):
        raise AssertionError


def test_a_task_that_ends_its_worker_each_time_is_one_sentence_that_names_it(cluster: Any, tmp_path: Path) -> None:
    cluster.scheduler.allowed_failures = 2
    lost = pytest.raises(WorkerError, match=r"^exit: the worker that ran it was lost 3 times")
    with connected(cluster.scheduler_address, tmp_path, "cpu", Listener()) as pool, lost:
        pool.submit(os._exit, 1).result()


# Bad input, a sentence each.


def test_where_no_scheduler_is_it_says_so_after_a_stated_wait(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connection, "SECONDS_TO_CONNECT", 1.0)
    monkeypatch.setattr(connection, "SECONDS_BEYOND", 0.5)
    silent = socket.create_server(("127.0.0.1", 0))  # which is no scheduler
    for address in ("tcp://127.0.0.1:1", f"127.0.0.1:{silent.getsockname()[1]}"):
        with pytest.raises(ConfigurationError, match=rf"no Dask scheduler answered at {address} in 1 s"):
            _connect(address, tmp_path)
    silent.close()
    with pytest.raises(ConfigurationError, match=r"scheduler\.json did not appear in 1 s"):
        _connect(str(tmp_path / "scheduler.json"), tmp_path)
    with pytest.raises(ConfigurationError, match="is neither an address like"):
        _connect("somewhere", tmp_path)


def _connect(scheduler: str, work: Path, device: str = "cpu") -> None:
    with connected(scheduler, work, device, Listener()):
        raise AssertionError


def test_without_distributed_it_says_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "distributed", None)
    with pytest.raises(ConfigurationError, match=r"pip install 'atlas-builder\[cluster\]'"):
        _connect("tcp://127.0.0.1:1", tmp_path)


def test_a_gpu_is_wanted_that_no_worker_offers(cluster: Any, tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match=r"none of \d workers? offers a GPU: start those .* --resources GPU=1"):
        _connect(cluster.scheduler_address, tmp_path, "cuda:3")


def test_workers_of_another_version_are_refused(cluster: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connection, "all_versions", lambda: {**agreement.all_versions(), "torch": "1.0"})
    with pytest.raises(ConfigurationError, match=r"worker \d on .* has torch 2\S*, the build 1\.0: install the same"):
        _connect(cluster.scheduler_address, tmp_path)


def test_a_folder_that_workers_do_not_see_is_refused(tmp_path: Path) -> None:
    terms = WorkerTerms(tmp_path / "elsewhere" / "scratch", "token", agreement.all_versions(), "cpu")
    facts = agreement.worker_facts(terms, "gpu-3")
    assert not facts.sees_folder
    with pytest.raises(ConfigurationError, match=r"worker gpu-3 on .* cannot read and write .*elsewhere: put --output"):
        check_worker("gpu-3", facts, terms)
    with pytest.raises(ConfigurationError, match="is not seen here: put --output on storage"):
        check_answer("gpu-3", facts, terms, seconds=0)


def test_gpus_of_two_kinds_are_refused(tmp_path: Path) -> None:
    terms = WorkerTerms(tmp_path, "", {}, "cuda", device_name="NVIDIA H100")
    with pytest.raises(ConfigurationError, match=r"a on n1 has a NVIDIA A100, another one a NVIDIA H100"):
        check_worker("a", WorkerFacts("n1", {}, "NVIDIA A100", True), terms)
    check_worker("a", WorkerFacts("n1", {}, None, True), terms.without_device())


def test_the_device_is_the_workers_own(monkeypatch: pytest.MonkeyPatch) -> None:
    assert device_on_worker("cpu", "gpu-1") == "cpu"
    with pytest.raises(ConfigurationError, match=r"worker gpu-1 has no GPU, and model\.device is cuda:5"):
        device_on_worker("cuda:5", "gpu-1")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 4)
    named = ("node2-gpu3", "tcp://10.0.0.1:41237", "6", "main")
    assert [device_on_worker("cuda:5", name) for name in named] == ["cuda:3", "cuda:0", "cuda:2", "cuda:0"]


def test_a_plain_executor_of_dask_runs_the_pieces_of_stages_too(
    cluster: Any, configure: Configure, built: Path, tiny_site: Path
) -> None:
    for stage in ("link", "publish"):
        shutil.rmtree(work_folder(built) / stage)
    with distributed.Client(cluster.scheduler_address, set_as_default=False) as client:
        build(configure(), built, executor=client.get_executor(pure=False))
    assert digests(built) == digests(tiny_site)
