"""Stage folders: what a build has done so far, and whether it is still valid.

A stage writes into a hidden folder, which is renamed when the stage is finished, so a
folder with a stage's name is complete. Its `stage.json` holds the fingerprint of
everything it was made from.
"""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import orjson
from filelock import FileLock, Timeout

from atlas_builder.errors import ConfigurationError

MARK = "stage.json"
"""The file that makes a folder a finished stage."""
_BEGUN = "begun.json"


def fingerprint(*parts: Any) -> str:
    """SHA-256 of plain data, equal for equal data."""
    return hashlib.sha256(orjson.dumps(parts, option=orjson.OPT_SORT_KEYS)).hexdigest()


@contextmanager
def locked(file: Path, refusal: str) -> Iterator[None]:
    """Lock a file during the block; raises `ConfigurationError` with the `refusal` where another process holds it."""
    file.parent.mkdir(parents=True, exist_ok=True)
    lock = FileLock(file)
    try:
        lock.acquire(timeout=0)
    except Timeout:
        raise ConfigurationError(refusal) from None
    try:
        yield
    finally:
        lock.release()


class Store:
    """The work folder of one build."""

    def __init__(self, root: Path) -> None:
        self.root = root

    def folder(self, stage: str) -> Path:
        """Where a stage's results are, whether or not they are there yet."""
        return self.root / stage

    def holds(self, stage: str, expected: str) -> bool:
        """Whether the stage is complete and has the `expected` fingerprint."""
        return _fingerprint_in(self.folder(stage) / MARK) == expected

    @contextmanager
    def alone(self) -> Iterator[None]:
        """Keep other builds out of the folder; raises `ConfigurationError` where one is running in it."""
        with locked(self.root / ".lock", f"another build is running in {self.root}: wait for it to end."):
            yield

    @contextmanager
    def making(self, stage: str, expected: str, *, resumes: bool = False) -> Iterator[Path]:
        """A folder to write a stage into; it becomes the stage's folder when the block succeeds.

        When the block fails, the stage's former results stay as they were, and the draft is
        removed; the draft of a stage that `resumes` is kept, and given to the block again
        as long as the `expected` fingerprint is the same.
        """
        draft = self.root / f".{stage.replace('/', '-')}.draft"
        mark = draft / _BEGUN
        if not (resumes and _fingerprint_in(mark) == expected):
            shutil.rmtree(draft, ignore_errors=True)
            draft.mkdir(parents=True)
            write_json(mark, {"fingerprint": expected})
        try:
            yield draft
            mark.unlink()
            write_json(draft / MARK, {"fingerprint": expected})
            self.folder(stage).parent.mkdir(parents=True, exist_ok=True)
            replace_folder(draft, self.folder(stage))
        except BaseException:
            if not resumes:
                shutil.rmtree(draft, ignore_errors=True)
            raise


def _fingerprint_in(mark: Path) -> str | None:
    try:
        return str(read_json(mark)["fingerprint"])
    except (OSError, ValueError, KeyError, TypeError):
        return None


def replace_folder(source: Path, target: Path) -> None:
    """Replace one folder by another; there is never a half-written one."""
    old = target.with_name(f".{target.name}.old")
    shutil.rmtree(old, ignore_errors=True)
    if target.exists():
        target.rename(old)
    try:
        source.rename(target)
    except OSError:
        if old.exists():
            old.rename(target)
        raise
    shutil.rmtree(old, ignore_errors=True)


def write_json(path: Path, data: Any) -> None:
    """Write plain data as JSON with sorted keys and a final newline, atomically."""
    draft = path.with_name(f".{path.name}.draft")
    draft.write_bytes(orjson.dumps(data, option=orjson.OPT_SORT_KEYS | orjson.OPT_INDENT_2) + b"\n")
    draft.replace(path)


def read_json(path: Path) -> Any:
    """Read what `write_json` wrote."""
    return orjson.loads(path.read_bytes())


def read_array(path: Path, *, on_disk: bool = False) -> np.ndarray[Any, Any]:
    """An array that `numpy.save` wrote; with `on_disk` it is memory-mapped."""
    array: np.ndarray[Any, Any] = np.load(path, mmap_mode="r" if on_disk else None, allow_pickle=False)
    return np.asarray(array)  # indexing a memmap makes a memmap, which costs more than the read itself
