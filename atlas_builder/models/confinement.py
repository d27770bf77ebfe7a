"""What libraries may do while they load a model: read files. They start no program, ask nobody and no address.

Python reports what its libraries do to audit hooks (PEP 578), whichever library it is and
however it starts a program; so this holds for versions of them that nobody has read.
"""

from __future__ import annotations

import contextlib
import sys
import threading
from collections.abc import Iterator
from typing import Any

_PROGRAMS = {"subprocess.Popen", "os.system", "os.exec", "os.posix_spawn", "os.spawn", "os.startfile", "pty.spawn"}
_QUESTIONS = {"builtins.input"}
_NETWORK = {"socket.connect", "socket.getaddrinfo", "socket.gethostbyname", "socket.sendto"}


class ConfinementError(PermissionError):
    """Something that is not done while a model is loaded; libraries take it for a lack of permission."""


class _Confinement:
    """How many loads are under way in this process; a hook cannot be removed, so it asks here."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._watching = False
        self.loads = self.offline = 0

    def count(self, loads: int, offline: int) -> None:
        with self._lock:
            if not self._watching:
                sys.addaudithook(self._watch)
                self._watching = True
            self.loads += loads
            self.offline += offline

    def _watch(self, event: str, arguments: tuple[Any, ...]) -> None:
        if not self.loads:
            return
        if event in _PROGRAMS:
            raise ConfinementError("no program is started while a model is loaded")
        if event in _QUESTIONS:
            raise ConfinementError("nothing is asked while a model is loaded")
        # An address that is a path is a socket of this machine, of another thread.
        if self.offline and event in _NETWORK and not isinstance(arguments[-1], str | bytes):
            raise ConfinementError("no network is used while a model is loaded from files")


_CONFINEMENT = _Confinement()


@contextlib.contextmanager
def confined(network: bool = False) -> Iterator[None]:
    """Within, no program is started and nothing is read from the terminal, by any thread; `network` allows addresses.

    What is tried raises `ConfinementError`, a `PermissionError`.
    """
    _CONFINEMENT.count(1, 0 if network else 1)
    try:
        yield
    finally:
        _CONFINEMENT.count(-1, 0 if network else -1)
