"""Signals that ask a command to stop: all of them as Ctrl-C."""

from __future__ import annotations

import os
import signal
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from types import FrameType

_NAMES = ("SIGINT", "SIGTERM", "SIGHUP")
_SECONDS_TO_STOP = 5.0
"""Schedulers kill ten to thirty seconds after they asked."""
STOPPED = "Stopped. Finished work is kept: run the same command to continue."


class Stopped(KeyboardInterrupt):
    """A signal asked to stop; `exit_status` is 128 and its number, as shells have it."""

    def __init__(self, number: int = signal.SIGINT) -> None:
        super().__init__(number)
        self.exit_status = 128 + number


def is_broken_pool(error: BaseException) -> bool:
    """Whether a worker process was killed."""
    process = sys.modules.get("concurrent.futures.process")  # where nothing has loaded it, no worker was killed
    return process is not None and isinstance(error, process.BrokenProcessPool)


class Stopping:
    """What has been asked for since the block began."""

    def __init__(self) -> None:
        self._number: int | None = None
        self._concluding = threading.Event()

    def ask(self, number: int, frame: FrameType | None = None) -> None:
        """Raise `Stopped` in the main thread; end the process if it has not stopped within seconds."""
        if self._number is None:
            self._number = number
            # A library may swallow the error, and cleaning up may take long. Ending at once is safe
            # at any moment; only the sentence is nicer.
            threading.Thread(target=self._insist, daemon=True).start()
        if not self._concluding.is_set():
            raise Stopped(number)

    def _insist(self) -> None:
        if not self._concluding.wait(_SECONDS_TO_STOP) and self._number is not None:
            with suppress(OSError, ValueError):
                print(STOPPED, file=sys.stderr, flush=True)
            os._exit(128 + self._number)

    def cause(self, error: BaseException) -> BaseException:
        """What the block ended for: a signal, where one has come, else the error; none is raised from here on."""
        self._concluding.set()
        if is_broken_pool(error) and self._number is None:
            time.sleep(0.2)  # a signal to all processes may reach a worker first
        return error if self._number is None or isinstance(error, Stopped) else Stopped(self._number)

    def conclude(self) -> None:
        """Raise and insist no more."""
        self._concluding.set()


@contextmanager
def stopped_by_signals() -> Iterator[Stopping]:
    """During the block, SIGTERM and SIGHUP stop it as Ctrl-C does, unless the process was started to ignore them."""
    stopping = Stopping()
    former = {}
    if threading.current_thread() is threading.main_thread():
        for name in _NAMES:
            number = getattr(signal, name, None)
            if number is not None and signal.getsignal(number) in (signal.SIG_DFL, signal.default_int_handler):
                former[number] = signal.signal(number, stopping.ask)
    try:
        yield stopping
    finally:
        stopping.conclude()
        for number, handler in former.items():
            signal.signal(number, handler)
