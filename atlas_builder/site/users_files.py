"""Files that users put into a published site: which they are, and how they outlast its replacement.

`SHA256SUMS` at the top of a site lists what the builder wrote, but itself and `atlas.json`;
everything else in the folder is the user's. Sites of versions until 0.5 have no such list.
"""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Collection, Iterable, Iterator, Sequence
from contextlib import suppress
from pathlib import Path, PurePosixPath

from atlas_builder.reader.facts import FILE as FACTS
from atlas_builder.site.hosting.sums import SUMS, listed_sums

_BEFORE_SUMS = re.compile(r"(?:(?:L\d+|assets|search|map|tables|schema)/.*|[^/]+\.html|sitemap\.xml)", re.DOTALL)
"""What versions without SHA256SUMS wrote."""


def users_files(site: Path, new: Collection[str] = (), parts: Iterable[str] = ()) -> list[str]:
    """The user's files, symlinks and empty folders in a site, as paths from its top, in order.

    Args:
        site: The published site.
        new: Files of the build that is to replace it, which say what is the builder's where there is no `SHA256SUMS`.
        parts: Subfolders that are sites of their own, each of which is judged by itself.
    """
    parts = set(parts)
    sums = listed_sums(site / SUMS)
    # An empty folder above files of the builder is what a crash may leave where they were about to be.
    above = {parent.as_posix() for path in (sums or ()) for parent in PurePosixPath(path).parents}
    users = []
    for path in _leaves(site):
        part, _, rest = path.partition("/")
        if rest and part in parts:
            continue
        if sums is None:
            ours = path in new or (_BEFORE_SUMS.fullmatch(path) and not (site / path).is_dir())
        else:
            ours = path in sums or (path in above and _is_folder(site / path))
        if not ours and path not in (SUMS, FACTS):
            users.append(path)
    for part in parts:
        inner = [path.removeprefix(f"{part}/") for path in new if path.startswith(f"{part}/")]
        users += [f"{part}/{path}" for path in users_files(site / part, inner)]
    return sorted(users)


def keep_users_files(site: Path, new: Path, saved: Path, parts: Sequence[str] = ()) -> list[str]:
    """Put the user's files of a site also into the folder that is to replace it; returns those it has no place for.

    A file of the new site is never replaced: those without a place are put into `saved`.
    The site stays as it is: files are hard-linked, or copied where the disk has no hard
    links; symlinks stay symlinks.
    """
    written = set(_leaves(new))
    users = users_files(site, written, parts)
    homeless = [path for path in users if not _take(site, new, path)]
    save_files(site, homeless, saved)
    return homeless


def save_files(site: Path, paths: Iterable[str], saved: Path) -> None:
    """Put files of a site into a folder as well, in the place of those that an earlier call put there."""
    for path in paths:
        for place in (saved / path, *(saved / path).parents):
            if (
                place.is_relative_to(saved)
                and os.path.lexists(place)
                and (place == saved / path or not _is_folder(place))
            ):
                shutil.rmtree(place) if _is_folder(place) else place.unlink()
        saved.mkdir(parents=True, exist_ok=True)
        _take(site, saved, path)


def files_below(folder: Path) -> list[str]:
    """Paths of all files and symlinks below a folder, in order; symlinks are not followed."""
    return sorted(path for path in _leaves(folder) if not _is_folder(folder / path))


def _leaves(folder: Path, prefix: str = "") -> Iterator[str]:
    """Files, symlinks and empty folders, by path."""
    with suppress(FileNotFoundError, NotADirectoryError), os.scandir(folder) as entries:
        for entry in entries:
            if not entry.is_dir(follow_symlinks=False):
                yield prefix + entry.name
                continue
            inner = list(_leaves(Path(entry.path), f"{prefix}{entry.name}/"))
            yield from inner or [prefix + entry.name]


def _is_folder(path: Path) -> bool:
    return path.is_dir() and not path.is_symlink()


def _has_place(new: Path, path: str) -> bool:
    """Whether nothing has this name, and what is above it are folders."""
    parents = [parent for parent in (new / path).parents if parent.is_relative_to(new)]
    return not os.path.lexists(new / path) and all(_is_folder(parent) for parent in parents if os.path.lexists(parent))


def _take(site: Path, new: Path, path: str) -> bool:
    """Link or copy a file into a new folder; False where it has no place for it."""
    if not _has_place(new, path):
        return False
    source, target = site / path, new / path
    for parent in reversed(PurePosixPath(path).parents):
        if not (new / parent).exists():
            (new / parent).mkdir()
            shutil.copystat(site / parent, new / parent)
    if source.is_symlink():
        target.symlink_to(source.readlink())
    elif source.is_dir():
        target.mkdir()
        shutil.copystat(source, target)
    else:
        try:
            os.link(source, target)
        except OSError:
            if source.is_file():  # not a pipe, whose copy would wait for a writer
                shutil.copy2(source, target)
    return True
