"""SHA-256 of every file of a site: `SHA256SUMS`, as `sha256sum --check` reads it, and its own in `atlas.json`.

`SHA256SUMS` lists every file but itself and `atlas.json`, which holds under `sha256` the hash of
`SHA256SUMS` (`sums`) and its own without that field (`facts`).
"""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Collection, Iterable, Iterator, Mapping
from pathlib import Path, PurePosixPath
from typing import Any

import orjson

from atlas_builder.files import digests
from atlas_builder.reader.facts import FILE as FACTS

SUMS = "SHA256SUMS"
UNSEALED = {"facts": "0" * 64, "sums": "0" * 64}
"""What stands in `atlas.json` until `seal`."""
_LINE = re.compile(r"(\\?)([0-9a-f]{64}) [ *](.+)", re.DOTALL)
_ESCAPES = {r"\\": "\\", r"\n": "\n", r"\r": "\r"}
_OURS = re.compile(r"(?:L\d+|assets|search|map|tables|schema)/.+|modules/M\d+\.html", re.DOTALL)
"""Folders of the builder, in which nothing else may lie."""
_TOP = re.compile(
    r"index\.html|404\.html|search\.html|map\.html|interaction\.html|robots\.txt|sitemap(?:-\d+)?\.xml|\.nojekyll|CITATION\.cff"
    r"|croissant\.json|explanations\.jsonl|ro-crate-metadata\.json"
)


def seal(site: Path, names: Iterable[str] | None = None, known_digests: Mapping[str, str] | None = None) -> None:
    """Write the sums of a site's files, by default of all that are there, and the hashes in its `atlas.json`.

    Files with `known_digests` are not read.
    """
    facts = orjson.loads((site / FACTS).read_bytes())
    there = _files(site) if names is None else (name for name in names if (site / name).is_file())
    listed = sorted(set(there) - {SUMS, FACTS})
    known = known_digests or {}
    found = digests(site, [name for name in listed if name not in known])
    sums = _sums_bytes({name: known.get(name) or found[name] for name in listed})
    facts["sha256"] = {"sums": hashlib.sha256(sums).hexdigest(), "facts": facts_hash(facts)}
    # New files in place of the old ones, which may be links to those of another site.
    for name, content in ((SUMS, sums), (FACTS, facts_bytes(facts))):
        (site / name).unlink(missing_ok=True)
        (site / name).write_bytes(content)


def _sums_bytes(listed: Mapping[str, str]) -> bytes:
    """The bytes of `SHA256SUMS`; a name holds no line break."""
    lines = (f"{digest}  {name}\n" for name, digest in sorted(listed.items()))
    return "".join(lines).encode("utf-8", "surrogateescape")


def facts_bytes(facts: Mapping[str, Any]) -> bytes:
    """The bytes of `atlas.json`."""
    return orjson.dumps(facts, option=orjson.OPT_SORT_KEYS | orjson.OPT_INDENT_2)


def facts_hash(facts: Mapping[str, Any]) -> str:
    """SHA-256 of `atlas.json` as `facts_bytes` writes it, without its field `sha256`."""
    return hashlib.sha256(facts_bytes({name: value for name, value in facts.items() if name != "sha256"})).hexdigest()


def listed_sums(file: Path) -> dict[str, str] | None:
    """SHA-256 by path, from what `sha256sum` or the builder wrote; None where there is no such file.

    Lines that are none of its, and paths that lead out of the folder, are left out.
    """
    try:
        lines = file.read_text(encoding="utf-8", errors="surrogateescape").split("\n")
    except (FileNotFoundError, NotADirectoryError, IsADirectoryError):
        return None
    sums = {}
    for match in filter(None, map(_LINE.fullmatch, lines)):
        escaped, digest, name = match.groups()
        if escaped:
            name = re.sub(r"\\[\\nr]", lambda escape: _ESCAPES[escape[0]], name)
        path = PurePosixPath(name)
        if not path.is_absolute() and ".." not in path.parts:
            sums[path.as_posix()] = digest
    return sums


def sum_problems(
    site: Path, facts: Mapping[str, Any], names: Collection[str], known_digests: Mapping[str, str] | None = None
) -> tuple[list[str], list[str]]:
    """The problems of the sums of a site that holds files `names`, a sentence each; and the files that are the user's.

    Files with `known_digests` are not read again. The user's are those that `SHA256SUMS` does not list, outside of the
    builder's own folders.
    """
    known = facts.get("sha256")
    if not isinstance(known, dict) or not (site / SUMS).is_file():
        return [f"{SUMS} or the hashes in {FACTS} are missing: build the atlas again."], []
    content = (site / SUMS).read_bytes()
    problems = []
    if known.get("facts") != facts_hash(facts):
        problems.append(f"{FACTS}: its hash is not that of its content")
    elif (site / FACTS).read_bytes() != facts_bytes(facts):
        problems.append(f"{FACTS}: it is not written as the builder writes it")
    if known.get("sums") != hashlib.sha256(content).hexdigest():
        problems.append(f"{SUMS}: its hash is not that in {FACTS}")
    listed = listed_sums(site / SUMS) or {}
    if content != _sums_bytes(listed):
        problems.append(f"{SUMS}: it is not written as the builder writes it")
    there = set(names) - {SUMS, FACTS}
    problems += [f"{name}: {SUMS} lists it, but it is missing" for name in listed if name not in there]
    found = dict(known_digests or {})
    found |= digests(site, [name for name in listed if name in there and name not in found])
    problems += [
        f"{name}: its SHA-256 is not that in {SUMS}"
        for name, digest in listed.items()
        if name in there and found[name] != digest
    ]
    more = sorted(there - set(listed))
    problems += [
        f"{name}: nothing accounts for it: remove it, or build the atlas again." for name in filter(_is_ours, more)
    ]
    return problems, [name for name in more if not _is_ours(name)]


def is_in_own_folder(name: str) -> bool:
    """Whether a file lies in a folder of the builder, where nothing else may."""
    return bool(_OURS.fullmatch(name))


def _is_ours(name: str) -> bool:
    return is_in_own_folder(name) or bool(_TOP.fullmatch(name))


def grouped(names: Iterable[str]) -> list[str]:
    """Names of files by the part of the path that tells them apart: files at the top, folders as `notes/…`."""
    return list(dict.fromkeys(f"{top}/…" if rest else top for top, _, rest in (name.partition("/") for name in names)))


def _files(folder: Path | str, prefix: str = "") -> Iterator[str]:
    """Paths of all regular files; links are not followed."""
    with os.scandir(folder) as entries:
        for entry in entries:
            if entry.is_dir(follow_symlinks=False):
                yield from _files(entry.path, f"{prefix}{entry.name}/")
            elif entry.is_file(follow_symlinks=False):
                yield prefix + entry.name
