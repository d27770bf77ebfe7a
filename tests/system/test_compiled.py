from __future__ import annotations

import os
from concurrent.futures import Executor, Future
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest.mock import patch

from atlas_builder.link.exact_knn import cosines_of
from atlas_builder.system import compiled


class Recorder(Executor):
    """Runs each task only when it is asked for, and keeps the order."""

    def __init__(self) -> None:
        self.log: list[str] = []

    def submit(self, task: Any, /, *arguments: Any, **named: Any) -> Future[Any]:
        self.log.append(f"submit {arguments[0]}")
        recorder = self

        class Asked(Future[Any]):
            def exception(self, timeout: float | None = None) -> None:
                recorder.log.append(f"wait {arguments[0]}")

        return Asked()


def test_the_first_task_goes_alone_where_loops_are_not_compiled() -> None:
    for ready, log in (
        (True, ["submit 0", "submit 1", "submit 2"]),
        (False, ["submit 0", "wait 0", "submit 1", "submit 2"]),
    ):
        executor = Recorder()
        with patch.object(compiled, "is_compiled", return_value=ready):
            compiled.submit_all(executor, int, [(0,), (1,), (2,)], cosines_of)
        assert executor.log == log


def test_a_loop_is_compiled_when_its_index_is_newer_than_its_source(tmp_path: Path) -> None:
    source = tmp_path / "loops.py"
    source.write_text("def double(x):\n    return 2 * x\n")

    code = SimpleNamespace(co_filename=str(source), co_firstlineno=1)
    function = SimpleNamespace(__name__="double", __code__=code)
    loop = SimpleNamespace(py_func=function, stats=SimpleNamespace(cache_path=str(tmp_path / "cache")))
    assert not compiled.is_compiled(loop)
    (tmp_path / "cache").mkdir()
    assert not compiled.is_compiled(loop)
    index = tmp_path / "cache" / "loops.double-1.py311.nbi"
    index.touch()
    os.utime(source, (1000, 1000))
    assert compiled.is_compiled(loop)
    os.utime(index, (500, 500))
    assert not compiled.is_compiled(loop)
