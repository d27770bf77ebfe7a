"""Stage folders: what a build has done so far, and whether it is still valid.

A stage writes into a hidden folder, which is renamed when the stage is finished, so a
folder with a stage's name is complete. Its `stage.json` holds the fingerprint of
everything it was made from, and the names of its files.
"""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Iterator, Mapping
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
Sources = Mapping[str, str]
"""What a stage is made from, such as settings and code: SHA-256 by name."""


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

    def holds(self, stage: str, sources: Sources) -> bool:
        """Whether the stage is complete and was made from these `sources`."""
        folder = self.folder(stage)
        return _fingerprint_in(folder / MARK) == fingerprint(sources) and not _missing_file(folder)

    def objection(self, stage: str, sources: Sources) -> str | None:
        """Why the results of a stage do not count any more; None where there are none, or they do."""
        folder = self.folder(stage)
        before = _read_mark(folder / MARK)
        if "fingerprint" not in before:
            return None
        if not isinstance(before.get("sources"), dict):
            return "an earlier version made its results"
        former = before["sources"]
        if changed := [name for name in {**sources, **former} if former.get(name) != sources.get(name)]:
            names = ", ".join(changed[:-1]) + " and " * (len(changed) > 1) + changed[-1]
            return f"its results were made with other {names}"
        missing = _missing_file(folder)
        return missing and f"its file {missing} is missing"

    @contextmanager
    def alone(self) -> Iterator[None]:
        """Keep other builds out of the folder; raises `ConfigurationError` where one is running in it."""
        with locked(self.root / ".lock", f"another build is running in {self.root}: wait for it to end."):
            yield

    @contextmanager
    def making(self, stage: str, sources: Sources, *, resumes: bool = False) -> Iterator[Path]:
        """A folder to write a stage into; it becomes the stage's folder when the block succeeds.

        When the block fails, the stage's former results stay as they were, and the draft is
        removed; the draft of a stage that `resumes` is kept, and given to the block again
        as long as the `sources` are the same.
        """
        draft = self.root / f".{stage.replace('/', '-')}.draft"
        mark = draft / _BEGUN
        if not (resumes and _fingerprint_in(mark) == fingerprint(sources)):
            shutil.rmtree(draft, ignore_errors=True)
            draft.mkdir(parents=True)
            write_json(mark, {"fingerprint": fingerprint(sources)})
        try:
            yield draft
            mark.unlink()
            mark_finished(draft, sources)
            self.folder(stage).parent.mkdir(parents=True, exist_ok=True)
            replace_folder(draft, self.folder(stage))
        except BaseException:
            if not resumes:
                shutil.rmtree(draft, ignore_errors=True)
            raise


def mark_finished(folder: Path, sources: Sources) -> None:
    """Make a folder a finished stage, made from these sources, of the files that are in it."""
    (folder / MARK).unlink(missing_ok=True)
    files = sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())
    mark = {"fingerprint": fingerprint(sources), "sources": dict(sources), "files": files}
    write_json(folder / MARK, mark)


def _read_mark(mark: Path) -> dict[str, Any]:
    try:
        content = read_json(mark)
    except (OSError, ValueError):
        return {}
    return content if isinstance(content, dict) else {}


def _fingerprint_in(mark: Path) -> str | None:
    return _read_mark(mark).get("fingerprint")


def _missing_file(folder: Path) -> str | None:
    """The first file of a finished stage that is not there any more."""
    files = _read_mark(folder / MARK).get("files", [])
    return next((name for name in files if not (folder / name).is_file()), None)


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
