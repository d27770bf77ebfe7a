"""The size of each part of a site, and whether hosts and file systems accept its files."""

from __future__ import annotations

import os
import re
import stat
import unicodedata
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import NamedTuple

from atlas_builder.rounding import percent
from atlas_builder.site.hosting.budget import SIZE_BUDGET

FILE_LIMIT = {"github-pages": 100 * 2**20}
"""Bytes that a host allows for a file.

"GitHub blocks files larger than 100 MiB", which stops a deployment from a branch
(https://docs.github.com/en/repositories/working-with-files/managing-large-files/about-large-files-on-github).
"""
_PARTS = {
    "unit pages": r"L\d+/N\d+\.html",
    "records": r"L\d+/N\d+\.json",
    "layer tables": r"L\d+/.+",
    "search": r"search(?:\.html|/.+)",
    "map": r"map(?:\.html|/.+)",
    "interactions": r"interaction\.html|modules/M\d+\.html",
    "tables": r"tables/.+|.+\.parquet",
    "assets": r"assets/.+",
    "prose": r"(?!(?:index|404)\.html$).+\.(?:html|svg|png|jpe?g|gif|webp|avif)",
    "rest": r".+",
}
"""Parts by patterns: a file belongs to the first that its name matches."""
_PART = re.compile("|".join(f"({pattern})" for pattern in _PARTS.values()), re.DOTALL)


class File(NamedTuple):
    """A file of a site, from the file system."""

    name: str
    """Path in the site, with slashes."""
    bytes: int
    is_file: bool
    """False for links, sockets and whatever else is not a regular file."""
    inode: tuple[int, int] | None
    """Its device and inode where it has several hard links, else None."""
    readable: bool
    """By everyone, its folder included."""


def site_files(site: Path) -> list[File]:
    """Every file of a site, in the order of its name; links are not followed."""
    return sorted(_walk(site, ""))


def _walk(folder: Path, prefix: str) -> Iterator[File]:
    open_to_all = os.name != "posix" or folder.stat().st_mode & 0o005 == 0o005
    with os.scandir(folder) as entries:
        for entry in entries:
            if entry.is_dir(follow_symlinks=False):
                yield from _walk(Path(entry.path), f"{prefix}{entry.name}/")
                continue
            status = entry.stat(follow_symlinks=False)
            yield File(
                prefix + entry.name,
                status.st_size,
                stat.S_ISREG(status.st_mode),
                (status.st_dev, status.st_ino) if status.st_nlink > 1 else None,
                open_to_all and (os.name != "posix" or bool(status.st_mode & 0o004)),
            )


@dataclass(frozen=True)
class Sizes:
    """Files and bytes of each part of a site."""

    host: str
    parts: dict[str, tuple[int, int]]
    tar: int
    """Bytes of the site as one tar, as GitHub Pages takes it."""

    @property
    def bytes(self) -> int:
        """The whole site."""
        return sum(size for _, size in self.parts.values())

    @property
    def lines(self) -> list[str]:
        """A table to print: files and megabytes of each part, its share of the host's budget, or of the whole."""
        budget = SIZE_BUDGET.get(self.host)
        rows = [*self.parts.items(), ("whole", (sum(count for count, _ in self.parts.values()), self.bytes))]
        lines = [f"{'':12} {'files':>9} {'MB':>9} {'share' if budget is None else 'of budget':>9}"]
        for name, (count, size) in rows:
            share = percent(size / (budget or self.bytes or 1))
            lines.append(f"{name:12} {count:9,} {size / 1e6:9,.1f} {share:>9}")
        if budget is not None:
            lines.append(
                f"{self.host} allows {budget / 1e6:,.0f} MB; its tar has {self.tar / 1e6:,.1f} MB before compression"
            )
        return lines


def measure_sizes(files: Sequence[File], host: str) -> Sizes:
    """Add up the files of each part; parts without files are left out."""
    names, counts = list(_PARTS), dict.fromkeys(_PARTS, (0, 0))
    for file in files:
        match = _PART.fullmatch(file.name)
        assert match is not None  # the last pattern takes every name
        assert match.lastindex is not None
        name = names[match.lastindex - 1]
        count, size = counts[name]
        counts[name] = (count + 1, size + file.bytes)
    return Sizes(host, {name: part for name, part in counts.items() if part[0]}, _tar_bytes(files))


def _tar_bytes(files: Sequence[File]) -> int:
    """Bytes of `tar -c .` as GNU tar writes it: blocks of 512, a header each, padded to records of 20 blocks."""
    places = {file.name.rpartition("/")[0] for file in files}
    folders = {parent.as_posix() for place in places for parent in PurePosixPath(place, "file").parents}
    names = [f"./{file.name}" for file in files] + [f"./{folder}/" for folder in folders]
    blocks = 2 + len(names) + sum(-(-file.bytes // 512) for file in files)
    # A name of more than 100 bytes has blocks of its own, with a header and a final zero.
    blocks += sum(1 - (-(length + 1) // 512) for name in names if (length := len(os.fsencode(name))) > 100)
    return -(-blocks // 20) * 20 * 512


def size_problems(files: Sequence[File], host: str) -> list[str]:
    """What hosts and file systems would refuse, a sentence each: size, links, names, permissions."""
    return [*_size_problems(files, host), *kind_problems(files, host), *name_problems(files)]


def _size_problems(files: Sequence[File], host: str) -> Iterator[str]:
    whole, budget, limit = sum(file.bytes for file in files), SIZE_BUDGET.get(host), FILE_LIMIT.get(host)
    if budget is not None and whole > budget:
        yield (
            f"the site has {whole / 1e6:,.0f} MB, more than the {budget / 1e6:,.0f} MB of {host}: "
            "lower site.examples_per_behaviour, or publish fewer layers (units.layers)."
        )
    for file in files:
        if limit is not None and file.bytes > limit:
            yield f"{file.name}: it has {file.bytes / 1e6:,.0f} MB; {host} refuses files above {limit / 1e6:,.0f} MB."


def kind_problems(files: Sequence[File], host: str) -> Iterator[str]:
    """Links and permissions that a host refuses, a sentence each.

    The tar for Pages must hold plain files only, no symbolic or hard links, readable by all
    (https://github.com/actions/upload-pages-artifact#artifact-validation).
    """
    seen: dict[tuple[int, int], str] = {}
    for file in files:
        if not file.is_file:
            yield f"{file.name}: it is a link or no regular file, which hosts and archives refuse: replace it."
        elif host == "github-pages":
            if not file.readable:
                yield f"{file.name}: {host} requires that everyone may read it and open its folder: chmod -R a+rX."
            if file.inode is not None and (other := seen.setdefault(file.inode, file.name)) != file.name:
                yield f"{file.name}: it is a hard link to {other}, which {host} refuses: replace it by a copy."


_REFUSED = re.compile(r'["*:<>?|\\\x00-\x1f\x7f]')
_RESERVED = re.compile(r"(con|prn|aux|nul|com\d|lpt\d)(\..*)?", re.IGNORECASE | re.DOTALL)


def name_problems(files: Sequence[File]) -> list[str]:
    r"""Names that some file system or host refuses, a sentence each.

    Actions artifacts refuse `" : < > | * ?` and line ends
    (https://github.com/actions/toolkit, packages/artifact); NTFS and exFAT refuse these
    and `\`, control characters, names of devices, and a final dot or space
    (https://learn.microsoft.com/windows/win32/fileio/naming-a-file). Where case or the form
    of an accent does not count, as on Windows and macOS, two names may be the same.
    """
    problems = []
    seen: dict[str, str] = {}
    for file in files:
        reason = _refused(file.name)
        if reason is None:
            twin = seen.setdefault(unicodedata.normalize("NFC", file.name).lower(), file.name)
            reason = f"on Windows and macOS it is the same name as {twin}" if twin != file.name else None
        if reason is not None:
            problems.append(f"{_shown(file.name)}: {reason}: rename it.")
    return problems


def _refused(name: str) -> str | None:
    if match := _REFUSED.search(name):
        return f"{_shown(match[0])} is not allowed in file names on Windows or in an artifact"
    if name != name.encode("utf-8", "replace").decode():
        return "it is not UTF-8"
    for part in name.split("/"):
        if part.endswith((".", " ")):
            return "on Windows a name cannot end with a dot or a space"
        if _RESERVED.fullmatch(part):
            return f"on Windows {part} is a device"
    return None


def _shown(name: str) -> str:
    """A name, escaped where a terminal would not print it."""
    return name if name.isprintable() else ascii(name)
