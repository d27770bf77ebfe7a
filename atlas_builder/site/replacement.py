"""A new site takes the place of the old one: there is never a moment without a site, and users keep their files."""

from __future__ import annotations

import os
import shutil
from contextlib import suppress
from pathlib import Path

from atlas_builder.reader.facts import FILE as FACTS
from atlas_builder.site.hosting.sums import SUMS, listed_sums
from atlas_builder.site.users_files import files_below, keep_users_files, save_files, users_files
from atlas_builder.system.folders import mount_points, replace_folder, restore_folder

SAVED = "saved"
"""In the work folder: files of the user's that gave way to files of a site."""
_STAGED = ".atlas-builder.new"
"""A folder in a site that cannot be moved, with the files that are about to replace its own."""


def replace_site(new: Path, site: Path, work: Path, parts: tuple[str, ...] = ()) -> list[str]:
    """Put the folder of a new site in the place of `site`; returns the user's files that it has no place for.

    Files that the builder did not write are kept, those that it has no place for in the folder
    `SAVED` of the work folder; but of a folder that holds no atlas, none are.
    `new` is gone afterwards. Where the site cannot be moved, such as a mount point, its files
    are replaced one by one, each in one step.

    Args:
        new: The new site, complete.
        site: Its place, whether or not anything is there.
        work: The folder of intermediate results, in which the old site may be put aside for a moment.
        parts: Subfolders that are sites of their own.
    """
    holds_atlas = any((site / part / FACTS).is_file() for part in parts or ("",)) or (site / SUMS).is_file()
    written = files_below(new)
    if mount_points(site):
        return _replace_inside(new, written, site, work, holds_atlas, parts)
    homeless = keep_users_files(site, new, work / SAVED, parts) if holds_atlas else []
    try:
        replace_folder(new, site, _aside(work))
    except OSError:
        # Some systems do not move every folder: those of a lower layer of a container, or one in use.
        if not site.is_dir():
            raise
        _replace_inside(new, written, site, work, holds_atlas, parts)
    return homeless


def restore_site(site: Path, work: Path) -> None:
    """Bring back the site that a build had put aside when it was killed, and remove what it left."""
    restore_folder(site, _aside(work))
    shutil.rmtree(site / _STAGED, ignore_errors=True)


def _aside(work: Path) -> Path:
    return work / ".site.old"


def _replace_inside(
    new: Path, written: list[str], site: Path, work: Path, holds_atlas: bool, parts: tuple[str, ...]
) -> list[str]:
    """Replace a site's files one by one; `SHA256SUMS` names what the builder wrote at every moment."""
    staged = site / _STAGED
    shutil.rmtree(staged, ignore_errors=True)
    former = set(files_below(site))
    users = set(users_files(site, set(written), parts)) if holds_atlas else set()
    shutil.copytree(new, staged, symlinks=True)  # what does not fit on the disk changes nothing
    _name_all(site / SUMS, staged / SUMS)
    homeless = sorted(path for path in users if _clashes(path, written))
    save_files(site, homeless, work / SAVED)
    for path in sorted(written, key=lambda path: (path == SUMS, path)):
        if path == SUMS:
            _remove_stale(site, former - users - set(written))
        _make_way(site, path)
        (staged / path).replace(site / path)
    if SUMS not in written:
        _remove_stale(site, former - users - set(written))
    shutil.rmtree(staged, ignore_errors=True)
    shutil.rmtree(new)
    return homeless


def _clashes(path: str, written: list[str]) -> bool:
    """Whether a path cannot be beside those that are written: it is one of them, below one, or above one."""
    return any(path == other or path.startswith(f"{other}/") or other.startswith(f"{path}/") for other in written)


def _name_all(sums: Path, new: Path) -> None:
    """Add the files of the new site to the list of the old one, so that a crash makes none of them the user's."""
    if listed_sums(sums) is not None and new.exists():
        draft = new.with_name(f".{new.name}.draft")
        draft.write_bytes(sums.read_bytes().rstrip(b"\n") + b"\n" + new.read_bytes())
        draft.replace(sums)


def _make_way(site: Path, path: str) -> None:
    """Remove what is where a file and its folders are to be."""
    target = site / path
    for parent in reversed([parent for parent in target.parents if parent != site and parent.is_relative_to(site)]):
        if os.path.lexists(parent) and (parent.is_symlink() or not parent.is_dir()):
            parent.unlink()
    target.parent.mkdir(parents=True, exist_ok=True)
    if target.is_dir() and not target.is_symlink():
        shutil.rmtree(target)


def _remove_stale(site: Path, stale: set[str]) -> None:
    for path in stale:
        with suppress(OSError):
            (site / path).unlink()
        for parent in (site / path).parents:
            if parent == site or not parent.is_relative_to(site):
                break
            try:
                parent.rmdir()  # only an empty one
            except OSError:
                break
