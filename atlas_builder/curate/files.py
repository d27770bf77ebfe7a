"""Files that `curate` writes: nothing else is replaced by them, and none is left half written."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from atlas_builder.errors import ConfigurationError, brief
from atlas_builder.files import locked

_LONGEST_LINE = 1 << 20


def check_file(option: str, file: Path, is_own: Callable[[bytes], bool]) -> None:
    """Refuse to replace a file unless its first line is one of ours, or it is empty; raises `ConfigurationError`."""
    shown = brief(file, 150)
    if not file.parent.is_dir() or (file.exists() and not file.is_file()):
        raise ConfigurationError(f"{option}: {shown} cannot be written: name a file in a folder that exists.")
    if file.exists():
        with file.open("rb") as content:
            first = content.readline(_LONGEST_LINE)
        if first and not is_own(first):
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
