"""Progress of long work: bars on a terminal, plain lines elsewhere."""

from __future__ import annotations

import datetime
import gc
import time
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cached_property
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from rich.console import Console


class Advance(Protocol):
    """How a task reports that work was done."""

    def __call__(self, count: int, note: str = "") -> None:
        """Report `count` units of work done since the last call; `note` is shown beside the count."""


_SECONDS_BETWEEN_LINES = 10.0


def _line(done: int, total: int | None, unit: str, rate: float) -> str:
    """`219,456 of 1,000,000 tokens, 21,697 a second, 0:36 left`."""
    if not total:
        return f"{done:,} {unit}, {rate:,.0f} a second"
    left = datetime.timedelta(seconds=round(max(0, total - done) / rate)) if rate else "?"
    return f"{done:,} of {total:,} {unit}, {rate:,.0f} a second, {left} left"


def _ignore(count: int, note: str = "") -> None:
    """Report nothing."""


class Progress:
    """Reports progress on standard error."""

    def __init__(self, quiet: bool = False) -> None:
        self._quiet = quiet

    @cached_property
    def _console(self) -> Console:
        from rich.console import Console  # where nothing is reported, nothing is loaded for it

        return Console(stderr=True, highlight=False, soft_wrap=True)

    def say(self, text: str) -> None:
        """Print one line."""
        if not self._quiet:
            self._console.print(text, markup=False)

    @contextmanager
    def task(self, name: str, total: int | None, unit: str, done: int = 0) -> Iterator[Advance]:
        """Follow a task; the block is given a function that reports how many units were done.

        What was `done` before counts towards the total, but not towards the speed.
        """
        if self._quiet:
            yield _ignore
        elif self._console.is_terminal:
            with self._bar(name, total, unit, done) as advance:
                yield advance
        else:
            with self._lines(name, total, unit, done) as advance:
                yield advance

    @contextmanager
    def _bar(self, name: str, total: int | None, unit: str, before: int) -> Iterator[Advance]:
        from atlas_builder.system.bars import bars_on

        with bars_on(self._console, unit) as bars:
            task = bars.add_task(name, total=total, completed=before, note="")

            def advance(count: int, note: str = "") -> None:
                bars.update(task, advance=count, note=note)

            yield advance
            bars.update(task, completed=bars.tasks[0].total or bars.tasks[0].completed)

    @contextmanager
    def _lines(self, name: str, total: int | None, unit: str, before: int) -> Iterator[Advance]:
        started = last = time.monotonic()
        done = 0

        def advance(count: int, note: str = "") -> None:
            nonlocal done, last
            done += count
            now = time.monotonic()
            if now - last >= _SECONDS_BETWEEN_LINES:
                last = now
                line = _line(before + done, total, f"{unit}{note and f' ({note})'}", done / (now - started))
                self.say(f"{name}: {line}")

        yield advance
        seconds = time.monotonic() - started
        self.say(f"{name}: {done:,} {unit} in {seconds:.1f} s")


@contextmanager
def gc_paused() -> Iterator[None]:
    """Pause Python's cyclic garbage collector.

    Where millions of lists are alive at once, none of them in a cycle, it takes half of the time.
    """
    was_on = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_on:
            gc.enable()
