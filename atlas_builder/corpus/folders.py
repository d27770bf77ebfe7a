"""Which files of a folder a source of text reads, and what to set where it reads none."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

from atlas_builder.errors import ConfigurationError, CorpusError, brief

_SUFFIXES = {
    "text": {".txt", ".text", ".md", ".markdown"},
    "jsonl": {".jsonl", ".ndjson", ".json"},
    "parquet": {".parquet", ".pq"},
}
_PACKED = {".gz", ".bz2", ".xz", ".zst"}


def files_in(folder: Path, source: str) -> tuple[list[Path], list[str]]:
    """The files of a folder that a source reads, folders in it included, by name; and the names of its other files.

    Hidden files are neither. Raises `ConfigurationError` where there are only files of other kinds.
    """
    files, others = list[Path](), list[Path]()
    try:
        for path in sorted(folder.rglob("*")):
            if not path.is_dir() and not any(part.startswith(".") for part in path.relative_to(folder).parts):
                (files if _is_read(path, source) else others).append(path)
    except RecursionError:
        raise CorpusError(f"{brief(folder, 100)} has folders within folders without end: give a flatter one.") from None
    if others and not files:
        raise ConfigurationError(_nothing_read(folder, source, others))
    return files, [path.relative_to(folder).as_posix() for path in others]


def is_json(file: Path) -> bool:
    """Whether a file is named as one JSON document."""
    return _suffix(file) == ".json"


def _is_read(file: Path, source: str) -> bool:
    # A packed file may have no other suffix; its bytes say what it is.
    packed_only = source != "parquet" and file.suffix.lower() in _PACKED and not _suffix(file)
    return packed_only or _suffix(file) in _SUFFIXES[source]


def _suffix(file: Path) -> str:
    """The last suffix of a name that is no packing, in small letters."""
    name = file.with_suffix("") if file.suffix.lower() in _PACKED else file
    return name.suffix.lower()


def _nothing_read(folder: Path, source: str, others: list[Path]) -> str:
    other = next((kind for kind in _SUFFIXES if any(_is_read(path, kind) for path in others)), None)
    kinds = ", ".join(suffix or "no suffix" for suffix, _ in Counter(map(_suffix, others)).most_common(4))
    remedy = f"set corpus.source to {other}" if other else f"give files of {', '.join(sorted(_SUFFIXES[source]))}"
    return (
        f"corpus.path: {brief(folder, 100)} has no file that source {source} reads, only files of {brief(kinds, 60)}: "
        f"{remedy}."
    )
