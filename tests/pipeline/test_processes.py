"""Commands stop when they are asked to, and no worker outlives its parent."""

from __future__ import annotations

import multiprocessing
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from atlas_builder.errors import ConfigurationError
from atlas_builder.system.processes import Workers, check_not_imported_again, ended_on_failure
from atlas_builder.system.signals import STOPPED

SECONDS = 10.0
BUSY = {
    "idle": "time.sleep",
    # A library that keeps Python's lock: no thread of the worker runs meanwhile.
    "locked": "ctypes.PyDLL(None).sleep",
}


def _alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    state = Path(f"/proc/{pid}/stat")
    return not (state.exists() and state.read_text().rpartition(")")[2].split()[0] == "Z")


def _wait_for(condition: Callable[[], bool]) -> bool:
    end = time.monotonic() + SECONDS
    while not condition() and time.monotonic() < end:
        time.sleep(0.02)
    return condition()


def _script(folder: Path, work: str, main: str) -> subprocess.Popen[str]:
    """A parent with two workers, each of which writes its number to a file and is busy."""
    (folder / "script.py").write_text(
        f"""
import ctypes, os, sys, threading, time
from pathlib import Path
from atlas_builder.system.processes import Workers, ended_on_failure

def work(folder):
    Path(folder, f"{{os.getpid()}}.draft").touch()
    Path(folder, f"{{os.getpid()}}.draft").rename(Path(folder, f"{{os.getpid()}}.pid"))
    {work}(300)

{main}
""",
        encoding="utf-8",
    )
    return subprocess.Popen([sys.executable, str(folder / "script.py"), str(folder)], stderr=subprocess.PIPE, text=True)


_POOL = """
if __name__ == "__main__":
    with Workers(2) as pool, ended_on_failure(pool):
        for task in [pool.submit(work, sys.argv[1]) for _ in range(2)]:
            task.result()
"""
_IN_THREAD = """
def run():
    pool = Workers(2)
    for task in [pool.submit(work, sys.argv[1]) for _ in range(2)]:
        task.result()

if __name__ == "__main__":
    thread = threading.Thread(target=run)
    thread.start()
    thread.join()
"""


@pytest.mark.skipif(sys.platform == "win32", reason="signals of POSIX")
@pytest.mark.parametrize(
    ("work", "main", "number"),
    [
        ("idle", _POOL, signal.SIGKILL),
        pytest.param(
            "locked", _POOL, signal.SIGKILL, marks=pytest.mark.skipif(sys.platform != "linux", reason="Linux tells")
        ),
        ("idle", _POOL, signal.SIGTERM),
        ("locked", _POOL, signal.SIGINT),
        ("idle", _IN_THREAD, signal.SIGKILL),
    ],
)
def test_no_worker_outlives_its_parent(tmp_path: Path, work: str, main: str, number: signal.Signals) -> None:
    parent = _script(tmp_path, BUSY[work], main)
    try:
        assert _wait_for(lambda: len(list(tmp_path.glob("*.pid"))) == 2)
        workers = [int(path.stem) for path in tmp_path.glob("*.pid")]
        parent.send_signal(number)
        parent.communicate(timeout=SECONDS)
        assert _wait_for(lambda: not any(map(_alive, workers)))
    finally:
        parent.kill()
        parent.communicate()


def test_workers_that_a_thread_started_outlive_the_thread() -> None:
    """Linux tells of the end of the thread that started a process as of that of the process."""
    with Workers(1) as pool:
        with ThreadPoolExecutor(1) as thread:
            first = thread.submit(lambda: pool.submit(os.getpid).result()).result()
        time.sleep(0.2)
        assert pool.submit(os.getpid).result() == first


def test_workers_end_at_once_when_a_stage_fails() -> None:
    pool = Workers(2)
    started = time.monotonic()
    tasks = [pool.submit(time.sleep, 60) for _ in range(2)]
    assert _wait_for(tasks[0].running)
    with suppress(ZeroDivisionError), ended_on_failure(pool):
        raise ZeroDivisionError
    pool.shutdown(cancel_futures=True)
    assert time.monotonic() - started < 30


_COMMAND = """
import sys, time
from atlas_builder import cli
from atlas_builder.pipeline import build as builder

def build(*arguments, **options):
    print("begun", flush=True)
    {work}

builder.build = build
cli.main(["demo"])
"""


def _command(work: str, **options: Any) -> subprocess.Popen[str]:
    process: subprocess.Popen[str] = subprocess.Popen(
        [sys.executable, "-c", _COMMAND.format(work=work)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        **options,
    )
    assert process.stdout
    assert process.stdout.readline() == "begun\n"
    return process


@pytest.mark.skipif(sys.platform == "win32", reason="signals of POSIX")
@pytest.mark.parametrize(("number", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 143), (signal.SIGHUP, 129)])
def test_every_signal_that_asks_to_stop_is_as_ctrl_c(number: signal.Signals, status: int) -> None:
    process = _command("time.sleep(60)")
    process.send_signal(number)
    _, said = process.communicate(timeout=SECONDS)
    assert (said, process.returncode) == (f"{STOPPED}\n", status)


@pytest.mark.skipif(sys.platform == "win32", reason="signals of POSIX")
def test_a_library_that_swallows_a_signal_delays_the_end_by_seconds() -> None:
    swallowing = "exec('while True:\\n try: time.sleep(60)\\n except BaseException: pass')"
    process = _command(swallowing)
    process.send_signal(signal.SIGTERM)
    _, said = process.communicate(timeout=2 * SECONDS)
    assert (said, process.returncode) == (f"{STOPPED}\n", 143)


@pytest.mark.skipif(sys.platform == "win32", reason="signals of POSIX")
def test_a_command_under_nohup_outlives_its_terminal() -> None:
    process = _command("time.sleep(1); print('done')", preexec_fn=lambda: signal.signal(signal.SIGHUP, signal.SIG_IGN))
    process.send_signal(signal.SIGHUP)
    said, _ = process.communicate(timeout=SECONDS)
    assert said.startswith("done")


def test_a_worker_that_imports_the_script_of_its_parent_does_not_build(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(multiprocessing.current_process(), "_inheriting", True, raising=False)
    with pytest.raises(ConfigurationError, match="put the call below if __name__ == '__main__':"):
        check_not_imported_again()
