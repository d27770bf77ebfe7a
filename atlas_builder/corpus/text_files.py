"""Files that should hold text: unpacked, read piece by piece, and refused where they hold something else."""

from __future__ import annotations

import bz2
import codecs
import gzip
import io
import lzma
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO, cast

from atlas_builder.errors import CorpusError, brief

if TYPE_CHECKING:
    from _typeshed import WriteableBuffer

_BINARY = {b"\x1f\x8b": "compressed twice", b"(\xb5/\xfd": "compressed twice", b"BZh": "compressed twice",
           b"\xfd7zXZ": "compressed twice", b"PK\x03\x04": "a zip archive", b"%PDF": "a PDF", b"{\\rtf": "RTF",
           b"7z\xbc\xaf\x27\x1c": "a 7z archive", b"SQLite format 3": "a database",
           b"ARROW1": "an Arrow file"}  # fmt: skip
_TAR = slice(257, 262)  # where an archive says `ustar`
_PARQUET = b"PAR1"
_MARKS = {codecs.BOM_UTF32_LE: "utf-32", codecs.BOM_UTF32_BE: "utf-32", codecs.BOM_UTF16_LE: "utf-16",
          codecs.BOM_UTF16_BE: "utf-16"}  # fmt: skip
"""Byte order marks; that of UTF-32 begins like that of UTF-16, so it is tried before."""
_HEAD = 4096
_AT_ONCE = 1 << 18
_MOST_NULS = 0.01


class BrokenFileError(Exception):
    """A file that does not hold text; its message continues the file's name, without a full stop."""


def text_of(file: Path, most: int) -> Iterator[str]:
    """The text of a file in pieces of at most `most` characters.

    Raises `BrokenFileError` where it is no text, in UTF-8 or, after a byte order mark, in UTF-16 or UTF-32.
    """
    rest = ""
    with opened(file) as raw:
        for more in _decoded(raw):
            rest += more
            while len(rest) > most:
                end = _end(rest[:most])
                yield rest[:end]
                rest = rest[end:]
    if rest:
        yield rest


def lines(file: Path, longest: int) -> Iterator[bytes | None]:
    """The lines of a file in UTF-8; None for one of more than `longest` bytes. Raises `BrokenFileError`."""
    with opened(file) as raw:
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


def _decoded(raw: BinaryIO) -> Iterator[str]:
    """The text of UTF-8 in pieces, line ends as `\\n`."""
    decoder = io.IncrementalNewlineDecoder(codecs.getincrementaldecoder("utf-8")(), translate=True)
    line, more = 1, True
    while more:
        part = raw.read(_AT_ONCE)
        more = bool(part)
        try:
            text = decoder.decode(part, final=not more)
        except UnicodeDecodeError as error:
            line += error.object.count(b"\n", 0, error.start)
            raise BrokenFileError(f"is not UTF-8 text in line {line:,}: convert it to UTF-8") from None
        if "\0" in text:
            raise BrokenFileError("holds NUL characters, so it is no text: convert it to UTF-8")
        line += text.count("\n")
        yield text


# --- bytes -------------------------------------------------------------------


@contextmanager
def opened(file: Path) -> Iterator[BinaryIO]:
    """The bytes of a file as UTF-8 without a byte order mark: unpacked, and from UTF-16 or UTF-32.

    Raises `BrokenFileError` at the first bytes where these are no text, or later where the file is cut short or
    broken, and `CorpusError` for a pipe or a device.
    """
    check_link(file)
    # A pipe would be waited for, a device may have no end.
    if file.exists() and not file.is_file():
        raise CorpusError(f"{brief(file, 100)} is a device or a pipe: take it out of the corpus.")
    packing = _packing(file)
    try:
        with packing(file) as unpacked:
            head = unpacked.read(_HEAD)
        encoding = next((name for mark, name in _MARKS.items() if head.startswith(mark)), None)
        with packing(file) as unpacked:
            raw = io.BufferedReader(_Recoded(unpacked, encoding)) if encoding else unpacked
            _check_head(raw.read(_HEAD) if encoding else head)
        with packing(file) as unpacked:
            if encoding:
                yield cast(BinaryIO, io.BufferedReader(_Recoded(unpacked, encoding)))
            else:
                unpacked.read(len(codecs.BOM_UTF8) if head.startswith(codecs.BOM_UTF8) else 0)
                yield unpacked
    except UnicodeDecodeError as error:
        raise BrokenFileError(f"is not {error.encoding.upper()} text: convert it to UTF-8") from None
    except (EOFError, zlib.error, lzma.LZMAError, gzip.BadGzipFile) as error:
        raise BrokenFileError(f"is broken or cut short ({brief(error, 60)}): pack it again") from None
    except OSError as error:
        if error.errno is not None or packing is _plain:
            raise
        raise BrokenFileError(f"is broken or cut short ({brief(error, 60)}): pack it again") from None


def check_link(file: Path) -> None:
    """Raise `BrokenFileError` for a link that leads nowhere."""
    if file.is_symlink() and not file.exists():
        raise BrokenFileError("is a link to a file that is missing: put the file there")


def first_bytes(file: Path) -> bytes:
    """The first bytes of a file as `opened` gives them, without the blanks before them."""
    with opened(file) as raw:
        return raw.read(_HEAD).lstrip()


def _plain(file: Path) -> BinaryIO:
    return file.open("rb")


def _gzip(file: Path) -> BinaryIO:
    return cast(BinaryIO, gzip.open(file))


def _bzip2(file: Path) -> BinaryIO:
    return cast(BinaryIO, bz2.open(file))


def _xz(file: Path) -> BinaryIO:
    return cast(BinaryIO, lzma.open(file))


def _zstd(file: Path) -> BinaryIO:
    import pyarrow as pa

    # Read as the other packings are, by lines too.
    return cast(BinaryIO, io.BufferedReader(pa.CompressedInputStream(pa.OSFile(str(file), "rb"), "zstd")))


_PACKINGS: dict[bytes, Callable[[Path], BinaryIO]] = {
    b"\x1f\x8b": _gzip,
    b"BZh": _bzip2,
    b"\xfd7zXZ": _xz,
    b"(\xb5/\xfd": _zstd,
}


def _packing(file: Path) -> Callable[[Path], BinaryIO]:
    """What opens a file, by its first bytes: names are wrong at times, and some tools unpack and keep the name."""
    with file.open("rb") as raw:
        head = raw.read(8)
    return next((open_packed for magic, open_packed in _PACKINGS.items() if head.startswith(magic)), _plain)


def _check_head(head: bytes) -> None:
    if head.startswith(_PARQUET):
        raise BrokenFileError("is a Parquet table: set corpus.source to parquet")
    kind = next((kind for magic, kind in _BINARY.items() if head.startswith(magic)), None)
    kind = "a tar archive" if head[_TAR] == b"ustar" else kind
    if kind and kind.endswith("archive"):
        raise BrokenFileError(f"is {kind}, not text: unpack it, and set corpus.path to the folder")
    # One NUL may be a slip in one line.
    if kind or head.count(b"\0") > 1 + _MOST_NULS * len(head):
        raise BrokenFileError(f"is {kind or 'binary'}, not text: unpack it, or convert it to UTF-8")


class _Recoded(io.RawIOBase):
    """Bytes of an encoding as bytes of UTF-8; unlike `codecs.EncodedFile`, an end amid a character is an error."""

    def __init__(self, raw: BinaryIO, encoding: str) -> None:
        self._raw, self._rest = raw, b""
        self._decoder = codecs.getincrementaldecoder(encoding)()

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: WriteableBuffer) -> int:
        while not self._rest:
            part = self._raw.read(_AT_ONCE)
            self._rest = self._decoder.decode(part, final=not part).encode("utf-8")
            if not part:
                break
        room = memoryview(buffer).cast("B")
        count = min(len(room), len(self._rest))
        room[:count], self._rest = self._rest[:count], self._rest[count:]
        return count
