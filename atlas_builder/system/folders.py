"""Folders that take another's place: in one step where the system can, and never with a half-written one."""

from __future__ import annotations

import ctypes
import os
import re
import secrets
import shutil
import sys
from contextlib import suppress
from pathlib import Path

_RENAME_EXCHANGE = 2  # Linux
_RENAME_SWAP = 2  # macOS
_AT_FDCWD = -100
_MOUNTS = Path("/proc/self/mountinfo")
_GONE = ".gone"


def exchange(one: Path, other: Path) -> bool:
    """Exchange the names of two files or folders in one step; False where the system cannot."""
    names = os.fsencode(one), os.fsencode(other)
    try:
        libc = ctypes.CDLL(None, use_errno=True)
        if sys.platform == "darwin":
            return bool(libc.renamex_np(*names, ctypes.c_uint(_RENAME_SWAP)) == 0)
        return bool(libc.renameat2(_AT_FDCWD, names[0], _AT_FDCWD, names[1], ctypes.c_uint(_RENAME_EXCHANGE)) == 0)
    except (AttributeError, OSError, TypeError):  # a C library without it, or a system without such a library
        return False


def remove(folder: Path) -> None:
    """Remove a folder, from its place at once; where a process still writes to it, as far as possible."""
    gone = folder.with_name(f".{folder.name.strip('.')}.{secrets.token_hex(4)}{_GONE}")
    try:
        folder.rename(gone)
    except FileNotFoundError:
        return
    except OSError:
        gone = folder
    shutil.rmtree(gone, ignore_errors=True)


def remove_remains(parent: Path) -> None:
    """Remove what a process that was killed while it removed a folder has left."""
    for gone in parent.glob(f".*{_GONE}"):
        shutil.rmtree(gone, ignore_errors=True)


def replace_folder(source: Path, target: Path, aside: Path) -> None:
    """Put one folder in the place of another, which is removed.

    Where names cannot be exchanged in one step, the former folder is put `aside` for a
    moment, from where `restore_folder` brings it back after a crash. Raises `OSError`
    where the folder cannot be moved; both are then as they were.
    """
    if not os.path.lexists(target):
        source.rename(target)
        remove(aside)
    elif exchange(source, target):
        remove(source)
    else:
        remove(aside)
        target.rename(aside)
        try:
            source.rename(target)
        except OSError:
            aside.rename(target)
            raise
        remove(aside)


def restore_folder(target: Path, aside: Path) -> None:
    """Bring back a folder that was put aside when its replacement was cut short; remove it where it was not."""
    if not os.path.lexists(aside):
        return
    if os.path.lexists(target):
        remove(aside)
    else:
        aside.rename(target)


def mount_points(folder: Path) -> list[Path]:
    """The mount points among a folder and all that is below it, which cannot be moved."""
    found = {folder} if folder.is_mount() else set()
    # Only the list of mounts has those that show a folder of the same disk.
    with suppress(OSError):
        for line in _MOUNTS.read_text(encoding="utf-8", errors="surrogateescape").splitlines():
            place = Path(re.sub(r"\\([0-7]{3})", lambda code: chr(int(code[1], 8)), line.split(" ")[4]))
            if place.is_relative_to(folder):
                found.add(place)
    return sorted(found)
