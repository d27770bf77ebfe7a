"""Kills, crashes and signals amid a rebuild: is there a site at every moment, are the bytes the same, is nothing left?

`python -m tests.attacks.kills [--small] [--engine device] [--kills N] [--points N] [--signals N]`, on Linux. A tiny
atlas with files of a user's own is rebuilt with other settings, and the build is ended: by SIGKILL at
a random moment of each stage in turn; by SIGKILL of itself at points of the code where something has
just been, or is about to be, written, moved or removed; by SIGINT, SIGTERM and SIGHUP. Each time the
site must be the old or the new one, whole, no process may be left after ten seconds, and
the same command must go on to the bytes of a build that nothing ended.
"""

from __future__ import annotations

import argparse
import os
import random
import shutil
import signal
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

STAGES = ("rotate", "collect", "cluster", "describe", "link", "publish")
SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
_SIGNALLED = ("collect", "cluster", "publish")
_MARK = "ATLAS_KILLS"
_USERS = {"CNAME": "atlas.example.org\n", "notes/today.txt": "mine\n", ".git/config": "[core]\n", "L0/mine.txt": "x\n"}
_SECONDS_TO_END = 10.0
_AUDITED = ("os.rename", "os.remove", "os.rmdir", "os.mkdir", "shutil.rmtree", "shutil.copyfile", "os.link", "open")
_WRAPPED = (
    ("atlas_builder.system.folders", "exchange"),
    ("atlas_builder.files", "mark_finished"),
    ("atlas_builder.files", "replace_folder"),
    ("atlas_builder.site.replacement", "replace_folder"),
    ("atlas_builder.site.replacement", "keep_users_files"),
    ("atlas_builder.collect.run", "finish"),
    ("atlas_builder.collect.run", "merge_passes"),
    ("atlas_builder.pipeline.build", "replace_site"),
)
"""Functions before and after which a build crashes."""


@dataclass
class Table:
    """What was tried, and what came of it."""

    tried: Counter[str] = field(default_factory=Counter)
    failures: list[tuple[str, str]] = field(default_factory=list)

    def add(self, kind: str, case: str, problems: list[str]) -> None:
        self.tried[kind] += 1
        self.failures += [(kind, f"{case}: {'; '.join(problems)}")] if problems else []
        print(f"{kind}, {case}: {'; '.join(problems) or 'held'}", file=sys.stderr, flush=True)

    def __str__(self) -> str:
        failed = Counter(kind for kind, _ in self.failures)
        rows = [f"| {kind} | {tried} | {tried - failed[kind]} | {failed[kind]} |" for kind, tried in self.tried.items()]
        lines = ["| kind | tried | held | failed |", "| --- | --- | --- | --- |", *rows, ""]
        return "\n".join([*lines, *(f"- {kind}: {text}" for kind, text in self.failures)])


class Attack:
    """An atlas, its next edition, and copies of the former to build the latter over."""

    def __init__(self, folder: Path, kind: str, engine: str) -> None:
        self.folder, self.site, self.work = folder, folder / "site", folder / ".site.work"
        self.former, self.next = _configurations(folder, kind, engine)
        self.seconds: dict[str, float] = {}
        self._build(self.former)
        _write_users(self.site)
        self.before = self._digests()
        for path in (self.site, self.work):
            shutil.copytree(path, folder / f"{path.name}.kept", symlinks=True)
        self._measure()
        self.after = self._digests()

    def _measure(self) -> None:
        """Build the next edition, and learn how long each stage takes."""
        process, begun = self.start(), {}
        while not _ended(process):
            for stage in STAGES:
                if stage not in begun and (self.work / f".{stage}.draft").exists():
                    begun[stage] = time.monotonic()
            time.sleep(0.002)
        assert process.status == 0, self.log
        ends = [*list(begun.values())[1:], time.monotonic()]
        self.seconds = {stage: end - start for (stage, start), end in zip(begun.items(), ends, strict=True)}

    def restore(self) -> None:
        """The former edition, as it was."""
        for path in (self.site, self.work):
            shutil.rmtree(path, ignore_errors=True)
            shutil.copytree(self.folder / f"{path.name}.kept", path, symlinks=True)

    def start(self, prepare: Callable[[], None] | None = None) -> Process:
        """Begin to build the next edition."""
        return Process(self._command(self.next), self.folder / "log", prepare)

    @property
    def log(self) -> str:
        return (self.folder / "log").read_text(encoding="utf-8", errors="replace")

    def problems(self) -> list[str]:
        """What is wrong now, and once the same command has gone on."""
        problems = []
        if left := _left():
            problems.append(f"{len(left)} processes were left after {_SECONDS_TO_END:.0f} s")
        if self._digests() not in (self.before, self.after):
            problems.append("there was no whole site")
        if (status := self._build(self.next)) != 0:
            problems.append(f"going on ended with {status}: {self.log.splitlines()[-1:]}")
        elif differing := {path for path, _ in self._digests().items() ^ self.after.items()}:
            problems.append(f"{len(differing)} files differ, {min(differing)} is one")
        if remains := [
            path.name for path in [*self.work.glob(".*"), *self.folder.glob(".site.*")] if _is_remains(path)
        ]:
            problems.append(f"{remains} remained")
        return problems

    def _build(self, configuration: Path) -> int | None:
        # One worker, so that a case takes less time; the build that is ended has one a core.
        process = Process(self._command(configuration), self.folder / "log", _on_one_core)
        while not _ended(process):
            time.sleep(0.01)
        return process.status

    def _command(self, configuration: Path) -> list[str]:
        return ["build", str(configuration), "--output", str(self.site)]

    def _digests(self) -> dict[str, str]:
        from tests.support.atlases import digests

        return digests(self.site)


def _on_one_core() -> None:
    os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})


class Process:
    """The command line in a process forked from this one, for which nothing needs to be loaded again."""

    def __init__(self, arguments: list[str], log: Path, prepare: Callable[[], None] | None = None) -> None:
        self.status: int | None = None
        self.pid = os.fork()
        if self.pid == 0:
            status = 70
            try:
                status = _run(arguments, log, prepare)
            finally:
                os._exit(status)


def _run(arguments: list[str], log: Path, prepare: Callable[[], None] | None) -> int:
    from multiprocessing import resource_tracker, util

    from atlas_builder.cli import main

    os.setsid()
    os.environ[_MARK] = "1"
    with log.open("wb") as file:
        os.dup2(file.fileno(), 1)
        os.dup2(file.fileno(), 2)
    sys.stdout, sys.stderr = (os.fdopen(number, "w", buffering=1) for number in (1, 2))
    for number in SIGNALS:  # else those that nohup or a shell's background ignore would be
        signal.signal(number, signal.default_int_handler if number == signal.SIGINT else signal.SIG_DFL)
    if prepare:
        prepare()
    try:
        main(arguments)
    except SystemExit as end:
        return int(end.code or 0)
    finally:
        vars(util)["_exit_function"]()  # what Python does at its end, which os._exit leaves out
        if stop := getattr(resource_tracker._resource_tracker, "_stop", None):
            stop()
    return 0


def _ended(process: Process) -> bool:
    if process.status is None:
        pid, status = os.waitpid(process.pid, os.WNOHANG)
        if pid:
            process.status = os.waitstatus_to_exitcode(status)
    return process.status is not None


def _left() -> list[int]:
    """Processes of the build that are still there after ten seconds."""
    end = time.monotonic() + _SECONDS_TO_END
    while (found := _marked()) and time.monotonic() < end:
        time.sleep(0.05)
    return found


def _marked() -> list[int]:
    found = []
    for place in Path("/proc").glob("[0-9]*/environ"):
        try:
            if f"{_MARK}=1".encode() in place.read_bytes().split(b"\0"):
                found.append(int(place.parent.name))
        except OSError:
            continue
    return found


def _is_remains(path: Path) -> bool:
    """Whether it is something that should not outlast a build."""
    return path.name.endswith((".draft", ".old", ".gone"))


def _random_kill(attack: Attack, stage: str, chance: random.Random) -> tuple[str, list[str]]:
    """Kill a build at a random moment of a stage; only the parent is, as an administrator or the kernel would."""
    attack.restore()
    process, wait = attack.start(), chance.uniform(0, attack.seconds[stage])
    _sleep_into(process, attack.work / f".{stage}.draft", wait)
    os.kill(process.pid, signal.SIGKILL)
    _await(process)
    return f"{wait:.2f} s into {stage}", attack.problems()


def _signal(attack: Attack, number: signal.Signals, stage: str, chance: random.Random) -> tuple[str, list[str]]:
    """Ask a build to stop, as a scheduler or a terminal would."""
    attack.restore()
    process, wait = attack.start(), chance.uniform(0, attack.seconds[stage] / 2)
    _sleep_into(process, attack.work / f".{stage}.draft", wait)
    os.kill(process.pid, number)
    started = time.monotonic()
    status, seconds, log = _await(process), time.monotonic() - started, attack.log
    problems = [] if status == 128 + number else [f"exit status {status}: {log.splitlines()[-3:]}"]
    problems += [] if "Stopped. Finished work is kept" in log else [f"it said {log.splitlines()[-1:]}"]
    problems += [] if "Traceback" not in log else ["it showed a traceback"]
    problems += [] if seconds < _SECONDS_TO_END else [f"it took {seconds:.0f} s"]
    return f"{number.name}, {wait:.2f} s into {stage}", problems + attack.problems()


def _sleep_into(process: Process, draft: Path, seconds: float) -> None:
    while not draft.exists() and not _ended(process):
        time.sleep(0.001)
    time.sleep(seconds)


def _await(process: Process) -> int | None:
    while not _ended(process):
        time.sleep(0.005)
    return process.status


def _crash(attack: Attack, name: str, prepare: Callable[[], None]) -> tuple[str, list[str]]:
    attack.restore()
    status = _await(attack.start(prepare))
    reached = [] if status == -signal.SIGKILL else [f"the point was not reached (exit status {status})"]
    return name, reached + attack.problems()


def _points(attack: Attack) -> Iterator[tuple[str, Callable[[], None]]]:
    """Points of the code at which to crash: around functions, and at one in so many changes of the file system."""
    for module, name in _WRAPPED:
        for after in (False, True):
            yield (
                f"{'after' if after else 'before'} {module.partition('.')[2]}.{name}",
                partial(_crash_around, module, name, after),
            )
    yield (
        "between the last mark of the pass and that of its stage",
        partial(_crash_around, "atlas_builder.pipeline.build", "_collect", True),
    )
    attack.restore()
    counted = attack.folder / "changes"
    _await(attack.start(partial(_count_changes, counted)))
    changes = len(counted.read_bytes())
    for number in range(13):
        nth = (2 * number + 1) * changes // 26
        yield f"at change {nth} of {changes}", partial(_crash_at_change, nth)


def _crash_around(module: str, name: str, after: bool) -> None:
    """Crash at the second call, or at the only one."""
    import importlib

    place = importlib.import_module(module)
    original = getattr(place, name)

    def crashing(*arguments: Any, **options: Any) -> Any:
        if not after:
            os.kill(os.getpid(), signal.SIGKILL)
        original(*arguments, **options)
        os.kill(os.getpid(), signal.SIGKILL)

    setattr(place, name, crashing)
    if name == "_collect":
        place._RUN["collect"] = crashing


def _on_changes(act: Callable[[], None]) -> None:
    own = os.getpid()

    def hook(event: str, arguments: tuple[Any, ...]) -> None:
        if event not in _AUDITED or os.getpid() != own:
            return
        if event == "open" and not (isinstance(arguments[1], str) and set(arguments[1]) & set("wax+")):
            return
        act()

    sys.addaudithook(hook)


def _count_changes(counted: Path) -> None:
    descriptor = os.open(counted, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_APPEND)
    _on_changes(lambda: _note(descriptor))


def _note(descriptor: int) -> None:
    os.write(descriptor, b".")


def _crash_at_change(nth: int) -> None:
    left = [nth]

    def act() -> None:
        left[0] -= 1
        if left[0] <= 0:
            os.kill(os.getpid(), signal.SIGKILL)

    _on_changes(act)


def _write_users(site: Path) -> None:
    for name, content in _USERS.items():
        (site / name).parent.mkdir(parents=True, exist_ok=True)
        (site / name).write_text(content, encoding="utf-8")
    (site / "latest").symlink_to("notes/today.txt")


def _configurations(folder: Path, kind: str, engine: str) -> tuple[Path, Path]:
    """Two editions of a tiny atlas of units of a kind, which share no stage."""
    import torch
    import yaml

    from tests.support.atlases import write_words
    from tests.support.models import SHAPES, save_tiny

    write_words(folder / "corpora")
    torch.set_num_threads(1)
    save_tiny(SHAPES["gpt2"], folder / "model")
    paths = []
    for seed in (0, 5):
        data = {
            "atlas": {"id": "tiny", "title": f"Edition {seed}", "date": "2026-01-02"},
            "model": {"name": str(folder / "model"), "engine": engine},
            "corpus": {"source": "jsonl", "path": str(folder / "corpora" / "words.jsonl"), "context": 32},
            "examples": {"policy": "threshold", "per_unit": 12, "threshold": 0.5, "seed": seed},
            "units": {"kind": kind, "top": 12} if kind == "logits" else {"kind": kind},
            "describe": {"associations": True},
        }
        if kind != "logits":
            data["interaction"] = {"report": True, "max_tokens": 2000 + seed, "edge_tokens": 100}
        path = folder / f"{seed}.yml"
        path.write_text(yaml.safe_dump(data), encoding="utf-8")
        paths.append(path)
    return paths[0], paths[1]


def _load() -> None:
    """Load once what every build would."""
    from tests.support import preloaded

    assert preloaded


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--small", action="store_true", help="a few of each, in about a minute")
    parser.add_argument("--kind", default="mlp", choices=("mlp", "basis", "logits"), help="of units")
    parser.add_argument("--engine", default="auto", choices=("auto", "device"), help="device: with a second run, too")
    parser.add_argument("--kills", type=int, help="kills at random moments")
    parser.add_argument("--points", type=int, help="crash points")
    parser.add_argument("--signals", type=int, help="signals")
    parser.add_argument("--minutes", type=float, default=1e6, help="begin no more cases after so long")
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    counts = {"kills": 2, "points": 2, "signals": 1} if given.small else {"kills": 100, "points": 30, "signals": 9}
    counts |= {name: value for name in counts if (value := getattr(given, name)) is not None}
    end = time.monotonic() + 60 * given.minutes
    chance, table = random.Random(given.seed), Table()
    _load()
    if given.engine == "device":
        from atlas_builder.collect import run

        vars(run)["reads_again"] = lambda *_: True  # builds are forked from this process
    with tempfile.TemporaryDirectory(prefix="kills-") as place:
        attack = Attack(Path(place), given.kind, given.engine)
        print(f"seconds by stage: {attack.seconds}", file=sys.stderr, flush=True)
        stages = list(attack.seconds)
        points = _chosen(list(_points(attack)), counts["points"]) if counts["points"] else []
        cases: list[tuple[str, Callable[[], tuple[str, list[str]]]]] = [
            *(("crash point", partial(_crash, attack, name, prepare)) for name, prepare in points),
            *(
                ("kill at a random moment", partial(_random_kill, attack, stages[number % len(stages)], chance))
                for number in range(counts["kills"])
            ),
            *(
                ("signal", partial(_signal, attack, SIGNALS[number % 3], _SIGNALLED[number // 3 % 3], chance))
                for number in range(counts["signals"])
            ),
        ]
        chance.shuffle(cases)  # so that a run that is cut short has tried some of each
        for kind, attempt in cases:
            if time.monotonic() < end:
                table.add(kind, *attempt())
    print(table)
    sys.exit(1 if table.failures else 0)


def _chosen(points: list[tuple[str, Callable[[], None]]], count: int) -> list[tuple[str, Callable[[], None]]]:
    """So many of the points, evenly."""
    count = min(count, len(points))
    return [points[(2 * number + 1) * len(points) // (2 * count)] for number in range(count)]


if __name__ == "__main__":
    main()
