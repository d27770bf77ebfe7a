"""The folder of an export: nothing else is replaced by it, and none is left half written."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from atlas_builder.errors import ConfigurationError, brief
from atlas_builder.files import locked, read_json, write_json
from atlas_builder.system.folders import remove, replace_folder, restore_folder

EXPORT_FILE = "export.json"
"""Beside the exported files: of which atlas they are, and what they lack."""


@contextmanager
def export_folder(output: Path, format: str, own: re.Pattern[str], facts: Mapping[str, Any]) -> Iterator[Path]:
    """A folder to write to, which takes the place of `output` when the block succeeds and is removed when it fails.

    Args:
        output: Its place; a folder that holds anything but an earlier export is refused.
        format: The name of the format.
        own: What the names of the files of an export are.
        facts: What `EXPORT_FILE` says besides the format.

    Raises:
        ConfigurationError: Where the folder holds something else, or another export writes there.
    """
    folder = output.expanduser().resolve()
    if not folder.name:
        raise ConfigurationError(f"--output: {folder} is no folder of its own: name another.")
    draft, aside, lock = (folder.with_name(f".{folder.name}.{end}") for end in ("draft", "old", "lock"))
    _check_place(folder, format, own)
    with locked(lock, f"--output: another export writes to {brief(output, 150)}: wait for it, or name another folder."):
        try:
            restore_folder(folder, aside)  # of an export that was killed at the last moment
            remove(draft)
            _check_place(folder, format, own)
            draft.mkdir()
            yield draft
            write_json(draft / EXPORT_FILE, {"format": format, **facts})
            replace_folder(draft, folder, aside)
        except BaseException:
            remove(draft)
            raise
        finally:
            lock.unlink(missing_ok=True)


def _check_place(folder: Path, format: str, own: re.Pattern[str]) -> None:
    shown = brief(folder, 150)
    for place in (folder, *folder.parents):
        if place.exists() and not place.is_dir():
            raise ConfigurationError(f"--output: {brief(place, 150)} is a file: name a folder.")
    if folder.is_dir() and any(folder.iterdir()) and not _is_export(folder, format, own):
        raise ConfigurationError(
            f"--output: {shown} holds something else than an export for {format}: name another folder."
        )


def _is_export(folder: Path, format: str, own: re.Pattern[str]) -> bool:
    """Whether all files of a folder are of an export in the format."""
    try:
        mark = read_json(folder / EXPORT_FILE)
    except (OSError, ValueError):
        return False
    names = [path.name for path in folder.iterdir() if path.is_file() and own.fullmatch(path.name)]
    whole = len(names) + 1 == sum(1 for _ in folder.iterdir())
    return isinstance(mark, dict) and mark.get("format") == format and whole
