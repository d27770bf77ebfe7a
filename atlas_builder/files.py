"""Stage folders: what a build has done so far, and whether it still holds.

A stage writes into a hidden folder beside its place and is renamed when it is
whole, so a folder that has its name is complete. Its `stage.json` holds the
fingerprint of everything it was made from.
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
    """SHA-256 of plain data, the same for equal data."""
    return hashlib.sha256(orjson.dumps(parts, option=orjson.OPT_SORT_KEYS)).hexdigest()


@contextmanager
def locked(file: Path, refusal: str) -> Iterator[None]:
    """Hold a lock for the length of the block; `ConfigurationError` with the `refusal` where another process has it."""
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

    def holds(self, stage: str, wanted: str) -> bool:
        """Whether the stage is complete and was made from what `wanted` is the fingerprint of."""
        return _fingerprint_in(self.folder(stage) / MARK) == wanted

    @contextmanager
    def alone(self) -> Iterator[None]:
        """Keep other builds out of the folder; `ConfigurationError` where one is at work in it."""
        with locked(self.root / ".lock", f"another build is at work in {self.root}: wait for it to end."):
            yield

    @contextmanager
    def making(self, stage: str, wanted: str, *, resumes: bool = False) -> Iterator[Path]:
        """A folder to write a stage into; it takes its place when the block ends well.

        When the block fails, the stage's former results stay as they were, and what was
        written is removed; from a stage that `resumes` it is kept, and the block is given
        it again as long as it would be made from the same.
        """
        draft = self.root / f".{stage.replace('/', '-')}.draft"
        mark = draft / _BEGUN
        if not (resumes and _fingerprint_in(mark) == wanted):
            shutil.rmtree(draft, ignore_errors=True)
            draft.mkdir(parents=True)
            write_json(mark, {"fingerprint": wanted})
        try:
            yield draft
            mark.unlink()
            write_json(draft / MARK, {"fingerprint": wanted})
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
    """Put a folder in the place of another; at no moment is there half of one."""
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
    """Write plain data as JSON with sorted keys and a line end; at no moment is there half of it."""
    draft = path.with_name(f".{path.name}.draft")
    draft.write_bytes(orjson.dumps(data, option=orjson.OPT_SORT_KEYS | orjson.OPT_INDENT_2) + b"\n")
    draft.replace(path)


def read_json(path: Path) -> Any:
    """Read what `write_json` wrote."""
    return orjson.loads(path.read_bytes())


def read_array(path: Path, *, on_disk: bool = False) -> np.ndarray[Any, Any]:
    """An array that `numpy.save` wrote; `on_disk` leaves it there until it is looked at."""
    array: np.ndarray[Any, Any] = np.load(path, mmap_mode="r" if on_disk else None, allow_pickle=False)
    return np.asarray(array)  # indexing a memmap makes a memmap, which costs more than what is read
