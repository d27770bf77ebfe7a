"""Stage folders: what a build has done so far, and whether it is still valid.

A stage writes into a hidden folder, which is renamed when the stage is finished, so a
folder with a stage's name is complete. Its `stage.json` holds the fingerprint of
everything it was made from, and the SHA-256 of each of its files, which is checked when
a later build takes the stage up.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import orjson
from filelock import FileLock, Timeout

from atlas_builder.errors import ConfigurationError, brief
from atlas_builder.system.folders import remove, remove_remains, replace_folder, restore_folder

MARK = "stage.json"
"""The file that makes a folder a finished stage."""
_BEGUN = "begun.json"
Sources = Mapping[str, str]
"""What a stage is made from, such as settings and code: SHA-256 by name."""


def fingerprint(*parts: Any) -> str:
    """SHA-256 of plain data, equal for equal data."""
    return hashlib.sha256(orjson.dumps(parts, option=orjson.OPT_SORT_KEYS)).hexdigest()


@contextmanager
def locked(file: Path, refusal: str, seconds: float = 0) -> Iterator[None]:
    """Lock a file during the block; raises `ConfigurationError` with the `refusal` where another holds it so long."""
    file.parent.mkdir(parents=True, exist_ok=True)
    lock = FileLock(file)
    try:
        lock.acquire(timeout=seconds)
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
        """Whether the stage is complete, was made from these `sources`, and holds what was written; reads all of it."""
        return self.folder(stage).exists() and self.objection(stage, sources) is None

    def objection(self, stage: str, sources: Sources) -> str | None:
        """Why the results of a stage do not count any more; None where there are none, or they do."""
        folder = self.folder(stage)
        if not folder.exists():
            return None
        before = _read_mark(folder / MARK)
        if before is None:
            return f"its file {MARK} is not what was written"
        former, files = before.get("sources"), before.get("files")
        if not isinstance(former, dict) or not isinstance(files, dict):
            return "an earlier version made its results"
        if changed := [name for name in {**sources, **former} if former.get(name) != sources.get(name)]:
            names = ", ".join(changed[:-1]) + " and " * (len(changed) > 1) + changed[-1]
            return f"its results were made with other {names}"
        if before.get("fingerprint") != fingerprint(sources):
            return f"its file {MARK} is not what was written"
        return damage(folder, files)

    @contextmanager
    def alone(self, *stages: str) -> Iterator[None]:
        """Keep other builds out of the folder; raises `ConfigurationError` where one is running in it.

        What a build that was killed had finished of these `stages` is put in its place first.
        """
        with locked(self.root / ".lock", f"another build is running in {self.root}: wait for it to end."):
            for stage in stages:
                self._recover(stage)
            remove_remains(self.root)
            yield

    @contextmanager
    def making(self, stage: str, sources: Sources, *, resumes: bool = False) -> Iterator[Path]:
        """A folder to write a stage into; it becomes the stage's folder when the block succeeds.

        When the block fails, the stage's former results stay as they were, and the draft is
        removed; the draft of a stage that `resumes` is kept, and given to the block again
        as long as the `sources` are the same.
        """
        draft = self._draft(stage)
        begun = _read_mark(draft / _BEGUN) or {}
        if not (resumes and begun.get("fingerprint") == fingerprint(sources)):
            remove(draft)
            draft.mkdir(parents=True)
            write_json(draft / _BEGUN, {"fingerprint": fingerprint(sources)})
        try:
            yield draft
            mark_finished(draft, sources)
            self._put_in_place(stage)
        except BaseException:
            if not resumes:
                remove(draft)
            raise

    def _draft(self, stage: str) -> Path:
        return self.root / f".{stage}.draft"

    def _aside(self, stage: str) -> Path:
        return self.root / f".{stage}.old"

    def _put_in_place(self, stage: str) -> None:
        """Make a finished draft the stage's folder.

        Until then it has both marks, that of a begun and that of a finished stage, so that
        after a crash the draft is not taken for former results, which had its name for a moment.
        """
        replace_folder(self._draft(stage), self.folder(stage), self._aside(stage))
        (self.folder(stage) / _BEGUN).unlink()

    def _recover(self, stage: str) -> None:
        """Go on where a build was killed between finishing a stage and removing its former results."""
        folder, draft = self.folder(stage), self._draft(stage)
        if (folder / MARK).exists():
            (folder / _BEGUN).unlink(missing_ok=True)
        if (draft / MARK).exists():
            if (draft / _BEGUN).exists():
                self._put_in_place(stage)
            else:
                remove(draft)
        restore_folder(folder, self._aside(stage))


def mark_finished(folder: Path, sources: Sources) -> None:
    """Make a folder a finished stage, made from these sources, of the files that are in it."""
    (folder / MARK).unlink(missing_ok=True)
    mark = {"fingerprint": fingerprint(sources), "sources": dict(sources), "files": digests(folder, _files(folder))}
    write_json(folder / MARK, mark)


def damage(folder: Path, files: Mapping[str, str]) -> str | None:
    """What is wrong with the first file of a folder that is not what `files` has, digests by path; None where all are.

    Hidden files that were not there, such as those of a file manager, are ignored: nothing reads them.
    """
    present = _files(folder)
    if missing := sorted(files.keys() - set(present)):
        return f"its file {missing[0]} is missing"
    if others := [name for name in present if name not in files and not Path(name).name.startswith(".")]:
        return f"its file {others[0]} is none of its results"
    now = digests(folder, sorted(files))
    altered = next((name for name, digest in now.items() if digest != files[name]), None)
    return altered and f"its file {altered} is not what was written"


def digests(folder: Path, names: Sequence[str]) -> dict[str, str]:
    """SHA-256 of files of a folder, by name; the empty string for one that cannot be read."""

    def digest(name: str) -> str:
        try:
            with (folder / name).open("rb") as file:
                return hashlib.file_digest(file, "sha256").hexdigest()
        except OSError:
            return ""

    with ThreadPoolExecutor(min(8, os.cpu_count() or 1)) as threads:
        return dict(zip(names, threads.map(digest, names), strict=True))


def _files(folder: Path) -> list[str]:
    """Files of a stage but its marks."""
    files = sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())
    return [name for name in files if name not in (MARK, _BEGUN)]


def _read_mark(mark: Path) -> dict[str, Any] | None:
    """What a mark says; None where there is none, or it is no mark."""
    try:
        content = read_json(mark)
    except (OSError, ValueError):
        return None
    return content if isinstance(content, dict) else None


def check_file(option: str, file: Path, is_own: Callable[[Path], bool]) -> None:
    """Refuse to replace a file unless it is one of ours, or empty; raises `ConfigurationError`."""
    shown = brief(file, 150)
    if not file.parent.is_dir() or (file.exists() and not file.is_file()):
        raise ConfigurationError(f"{option}: {shown} cannot be written: name a file in a folder that exists.")
    if file.exists() and file.stat().st_size and not is_own(file):
        raise ConfigurationError(f"{option}: {shown} holds something else: name another file.")


@contextmanager
def replacing(file: Path) -> Iterator[BinaryIO]:
    """A draft to write to, which becomes the file when the block succeeds and is removed when it fails.

    What a run that was killed has left is removed first. Raises `ConfigurationError` while another run writes the file.
    """
    draft, lock = (file.with_name(f".{file.name}.{end}") for end in ("draft", "lock"))
    with locked(lock, f"another run writes to {brief(file, 150)}: wait for it, or name another file."):
        try:
            draft.unlink(missing_ok=True)  # never through a link of that name
            with draft.open("xb") as content:
                yield content
            draft.replace(file)
        except BaseException:
            draft.unlink(missing_ok=True)
            raise
        finally:
            lock.unlink(missing_ok=True)


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
