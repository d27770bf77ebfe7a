"""Files that should hold text: read piece by piece, and refused where they hold something else."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from atlas_builder.errors import CorpusError, brief

_BINARY = {b"\x1f\x8b": "compressed by gzip", b"(\xb5/\xfd": "compressed by zstd", b"BZh": "compressed by bzip2",
           b"\xfd7zXZ": "compressed by xz", b"PK\x03\x04": "a zip", b"PAR1": "a Parquet table", b"%PDF": "a PDF",
           b"\xff\xfe": "UTF-16 text", b"\xfe\xff": "UTF-16 text"}  # fmt: skip
_MOST_REPLACED = 0.1
_MOST_NULS = 0.01


def named_txt(folder: Path) -> list[Path]:
    """The `*.txt` files of a folder and the folders in it, in the order of their names."""
    try:
        return sorted(path for path in folder.rglob("*.txt") if not path.is_dir())
    except RecursionError:
        raise CorpusError(f"{brief(folder, 100)} has folders within folders without end: give a flatter one.") from None


def text_of(file: Path, most: int) -> Iterator[str]:
    """The text of a file in pieces of at most `most` characters; broken bytes are U+FFFD.

    Raises `CorpusError` for a file that holds something else than UTF-8 text.
    """
    with _opened(file) as raw:
        _check_head(file, raw)
    with file.open(encoding="utf-8-sig", errors="replace") as text:
        rest, seen, replaced = "", 0, 0
        while more := text.read(most - len(rest)):
            rest += more
            if "\0" in more:
                raise CorpusError(f"{brief(file, 100)} holds NUL characters, so it is no text: convert it to UTF-8.")
            seen, replaced = seen + len(more), replaced + more.count("\ufffd")
            if replaced > _MOST_REPLACED * seen:
                raise CorpusError(f"{brief(file, 100)} is not UTF-8 text: convert it to UTF-8.")
            if len(rest) == most:
                end = _end(rest)
                yield rest[:end]
                rest = rest[end:]
        if rest:
            yield rest


def lines(file: Path, longest: int) -> Iterator[bytes | None]:
    """The lines of a file; None for one of more than `longest` bytes."""
    with _opened(file) as raw:
        _check_head(file, raw)
        while line := raw.readline(longest + 1):
            if len(line) <= longest:
                yield line
                continue
            while line and not line.endswith(b"\n"):
                line = raw.readline(longest)
            yield None


def divided(text: str, most: int) -> Iterator[str]:
    """Text in pieces of at most `most` characters, each to the end of a line where it has one, else of a word."""
    start = 0
    while len(text) - start > most:
        end = start + _end(text[start : start + most])
        yield text[start:end]
        start = end
    yield text[start:]


def _end(piece: str) -> int:
    """Where to end a piece that is full: after its last line, if that leaves half of it, else before its last space."""
    half = len(piece) // 2
    line, space = piece.rfind("\n", half), piece.rfind(" ", half)
    return line + 1 if line > 0 else space if space > 0 else len(piece)


def _opened(file: Path) -> BinaryIO:
    # A pipe would be waited for, a device may have no end.
    if file.exists() and not file.is_file():
        raise CorpusError(f"{brief(file, 100)} is a device or a pipe: take it out of the corpus.")
    return file.open("rb")


def _check_head(file: Path, raw: BinaryIO) -> None:
    head = raw.read(4096)
    raw.seek(0)
    kind = next((kind for magic, kind in _BINARY.items() if head.startswith(magic)), None)
    # One NUL may be a slip in one line.
    if kind or head.count(b"\0") > 1 + _MOST_NULS * len(head):
        raise CorpusError(f"{brief(file, 100)} is {kind or 'binary'}, not UTF-8 text: unpack or convert it.")
