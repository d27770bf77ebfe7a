"""Which files of a folder a source of text reads, and what to set where it reads none."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Collection, Iterator
from pathlib import Path

from atlas_builder.errors import ConfigurationError, CorpusError, brief

_SUFFIXES = {
    "text": {".txt", ".text", ".md", ".markdown"},
    "jsonl": {".jsonl", ".ndjson", ".json"},
    "parquet": {".parquet", ".pq"},
}
_PACKED = {".gz", ".bz2", ".xz", ".zst"}
_ARCHIVES = {".zip", ".tar", ".tgz", ".7z", ".rar"}
_NO_TEXT = {
    ".pdf",
    ".doc",
    ".docx",
    ".odt",
    ".epub",
    ".rtf",
    ".arrow",
    ".feather",
    ".npy",
    ".npz",
    ".bin",
    ".pt",
    ".pkl",
}
_SAVED = ("dataset_info.json", "state.json")
"""What `save_to_disk` of Hugging Face's datasets writes beside its tables."""


def files_in(folder: Path, source: str, suffixes: Collection[str] | None = None) -> tuple[list[Path], list[str]]:
    """The files of a folder that a source reads, folders in it included, by name; and the names of its other files.

    Hidden files are neither. A folder that links lead to is read, but none twice. Raises
    `ConfigurationError` where there are only files of other kinds, or tables of `save_to_disk`.
    """
    files, others = list[Path](), list[Path]()
    try:
        for path in sorted(_visible_files(folder)):
            (files if _is_read(path, source, suffixes) else others).append(path)
    except RecursionError:
        raise CorpusError(f"{brief(folder, 100)} has folders within folders without end: give a flatter one.") from None
    if all((folder / name).is_file() for name in _SAVED):
        raise ConfigurationError(
            f"corpus.path: {brief(folder, 100)} is a data set as save_to_disk writes it: write it with to_parquet, and "
            "set corpus.source to parquet."
        )
    if others and not files:
        raise ConfigurationError(_nothing_read(folder, source, others))
    return files, [path.relative_to(folder).as_posix() for path in others]


def check_name(file: Path, suffixes: Collection[str] | None) -> None:
    """Raise `ConfigurationError` for a file of lines of JSON or a table that is to be read as plain text."""
    kind = next((kind for kind in ("jsonl", "parquet") if _is_named(file, _SUFFIXES[kind])), None)
    if kind and not _is_named(file, suffixes or ()):
        else_as_it_is = f" or, to read it as it is, corpus.suffixes to [{_suffix(file)}]" if kind == "jsonl" else ""
        raise ConfigurationError(
            f"corpus.path: {brief(file, 100)} is named as {kind}: set corpus.source to {kind}{else_as_it_is}."
        )


def is_json(file: Path) -> bool:
    """Whether a file is named as one JSON document."""
    return _suffix(file) == ".json"


def _visible_files(folder: Path) -> Iterator[Path]:
    """All files of a folder that are not hidden; each folder once, wherever links lead."""
    met = {os.path.realpath(folder)}
    for place, inner, names in os.walk(folder, followlinks=True):
        visible = sorted(name for name in inner if not name.startswith("."))
        inner[:] = []
        for name in visible:
            if (real := os.path.realpath(Path(place, name))) not in met:
                met.add(real)
                inner.append(name)
        yield from (Path(place, name) for name in names if not name.startswith("."))


def _is_read(file: Path, source: str, suffixes: Collection[str] | None = None) -> bool:
    # A packed file may have no other suffix; its bytes say what it is.
    packed_only = source != "parquet" and file.suffix.lower() in _PACKED and not _suffix(file)
    return _is_named(file, suffixes) if suffixes else packed_only or _is_named(file, _SUFFIXES[source])


def _is_named(file: Path, suffixes: Collection[str]) -> bool:
    name = _unpacked(file).name.lower()
    return any(name.endswith(suffix.lower()) for suffix in suffixes)


def _suffix(file: Path) -> str:
    """The last suffix of a name that is no packing, in small letters."""
    return _unpacked(file).suffix.lower()


def _unpacked(file: Path) -> Path:
    return file.with_suffix("") if file.suffix.lower() in _PACKED else file


def _nothing_read(folder: Path, source: str, others: list[Path]) -> str:
    other = next((kind for kind in _SUFFIXES if any(_is_read(path, kind) for path in others)), None)
    counts = Counter(map(_suffix, others))
    kinds = ", ".join(suffix or "no suffix" for suffix, _ in counts.most_common(4))
    remedy = f"set corpus.source to {other}" if other else f"give files of {', '.join(sorted(_SUFFIXES[source]))}"
    readable = [suffix for suffix, _ in counts.most_common() if suffix and suffix not in _ARCHIVES | _NO_TEXT]
    if not other and not counts.keys() - _ARCHIVES:
        remedy = "unpack them into a folder"
    elif not other and source == "text" and readable:
        remedy += f", or set corpus.suffixes to [{', '.join(readable[:4])}]"
    return (
        f"corpus.path: {brief(folder, 100)} has no file that source {source} reads, only files of {brief(kinds, 60)}: "
        f"{remedy}."
    )
