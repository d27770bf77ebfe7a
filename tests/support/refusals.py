"""What a command does with input that it should refuse: in a process of its own, with its time and memory measured."""

from __future__ import annotations

import os
import resource
import signal
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from atlas_builder.cli import main
from atlas_builder.errors import AtlasError
from atlas_builder.pipeline import build, shards
from atlas_builder.system.failures import failure

LOADED = (build, shards)
"""What a command loads; loaded here, once for all."""
LONGEST_SENTENCE = 300
SECONDS = 5.0
MEGABYTES = 200.0
_SPACE = 6 * 2**30  # of addresses: what goes beyond is stopped before it harms the machine


class Refusal(NamedTuple):
    """How a process ended; `status` is None where it was stopped for taking too long."""

    status: int | None
    lines: list[str]
    seconds: float
    megabytes: float

    def objection(self, seconds: float = SECONDS, megabytes: float = MEGABYTES) -> str | None:
        """What is wrong with a refusal: none, or not in short sentences, in time and in little memory."""
        said = " | ".join(self.lines)
        if self.status is None:
            return f"took more than {self.seconds:.0f} s"
        if self.status not in (1, 2):
            return f"ended with status {self.status}: {said[:200]}"
        if "this is a bug" in said or "this is a fault" in said or "Traceback" in said or not self.lines:
            return f"no refusal: {said[:300]}"
        if self.seconds > seconds:
            return f"took {self.seconds:.1f} s"
        if self.megabytes > megabytes:
            return f"took {self.megabytes:.0f} MB"
        for line in self.lines:
            if len(line) > LONGEST_SENTENCE:
                return f"a sentence of {len(line)} characters: {line[:100]}"
            if not line.endswith((".", "?", "!")) or not line.isprintable():
                return f"not a sentence: {line[:200]!r}"
        return None


def of_command(arguments: list[str], limit: float = 20) -> Refusal:
    """Run a command of the command line; seconds and memory count the process, without what it takes to import it."""

    def run() -> int:
        # As the command prints errors, without click's hints on usage.
        try:
            main(arguments, standalone_mode=False)
        except SystemExit as end:
            return int(end.code or 0)
        return 0

    return of_call(run, limit)


def of_call(call: Callable[[], int | None], limit: float = 20) -> Refusal:
    """Run a function; an error that it raises ends as it does on the command line."""
    with tempfile.TemporaryFile() as output:
        started = time.monotonic()
        pid = os.fork()
        if not pid:
            _in_child(call, output.fileno())
        status: int | None = None
        while not (ended := os.wait4(pid, os.WNOHANG))[0]:
            if time.monotonic() - started > limit:
                os.kill(pid, signal.SIGKILL)
                ended = os.wait4(pid, 0)
                break
            time.sleep(0.005)
        else:
            status = os.waitstatus_to_exitcode(ended[1])
        seconds = time.monotonic() - started
        output.seek(0)
        lines = output.read().decode("utf-8", "backslashreplace").splitlines()
    # Linux counts in KiB, macOS in bytes.
    return Refusal(status, lines, seconds, ended[2].ru_maxrss * (1 if sys.platform == "darwin" else 1024) / 1e6)


def _in_child(call: Callable[[], int | None], output: int) -> None:
    status = 70
    try:
        os.dup2(output, 1)
        os.dup2(output, 2)
        resource.setrlimit(resource.RLIMIT_AS, (_SPACE, _SPACE))
        try:
            status = call() or 0
        except AtlasError as error:
            print(error, file=sys.stderr)
            status = error.exit_status
        except BaseException as error:
            sentence, status = failure(error)
            print(sentence, file=sys.stderr)
        sys.stdout.flush()
        sys.stderr.flush()
    finally:
        os._exit(status)


class Table:
    """Counts of what was tried and held, by kind, and what failed."""

    def __init__(self) -> None:
        self.tried: Counter[str] = Counter()
        self.failures: list[tuple[str, str, str]] = []
        self.worst = (0.0, 0.0)
        """Most seconds and megabytes of one."""

    def add(self, kind: str, name: str, refusal: Refusal, objection: str | None) -> None:
        """Count one try; an `objection` makes it a failure."""
        self.tried[kind] += 1
        self.worst = (max(self.worst[0], refusal.seconds), max(self.worst[1], refusal.megabytes))
        if objection:
            self.failures.append((kind, name, objection))

    def conclude(self) -> int:
        """Print the table in Markdown; 1 where something failed."""
        failed = Counter(kind for kind, _, _ in self.failures)
        print("| kind | tried | held | failed |\n| --- | ---: | ---: | ---: |")
        for kind, count in self.tried.items():
            print(f"| {kind} | {count} | {count - failed[kind]} | {failed[kind]} |")
        total = sum(self.tried.values())
        print(f"| all | {total} | {total - len(self.failures)} | {len(self.failures)} |")
        print(f"\nThe slowest took {self.worst[0]:.1f} s, the largest {self.worst[1]:.0f} MB.")
        for kind, name, objection in self.failures:
            print(f"- {kind}, {name}: {objection}")
        return 1 if self.failures else 0


def scratch(name: str) -> tempfile.TemporaryDirectory[str]:
    """A folder for the inputs of an attack."""
    return tempfile.TemporaryDirectory(prefix=f"attack-{name}-", dir=Path(tempfile.gettempdir()))
