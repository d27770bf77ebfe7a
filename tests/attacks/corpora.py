"""Broken corpora: each must be refused in a short sentence, or read within ten seconds, in little memory.

What is wrong with a file's content is found when it is read, what is wrong with its kind before a model is loaded.

python -m tests.attacks.corpora [--small]
"""

# ruff: noqa: E501 - what is tried stands side by side, as much as there is of a kind
from __future__ import annotations

import bz2
import gzip
import io
import json
import lzma
import os
import sys
import tarfile
import zipfile
from collections import Counter
from collections.abc import Callable, Iterator
from itertools import chain
from pathlib import Path
from typing import NamedTuple

import pyarrow as pa
import pyarrow.parquet as pq

from atlas_builder.config import CorpusSettings
from atlas_builder.corpus.documents import documents
from tests.support.refusals import MEGABYTES, Table, of_call, of_command, scratch

_SECONDS_TO_READ = 10


class Try(NamedTuple):
    kind: str
    name: str
    source: str
    make: Callable[[Path], object]
    """Writes the corpus to a place."""
    reads: bool = False
    """Whether it is read rather than refused."""
    skips: bool = False
    """Whether broken lines are skipped."""


def _bytes(*parts: bytes | tuple[bytes, int]) -> Callable[[Path], object]:
    """Writes bytes, and bytes many times over, which only the process that writes them has in memory."""

    def write(place: Path) -> None:
        with place.open("wb") as file:
            for part in parts:
                content, times = (part, 1) if isinstance(part, bytes) else part
                # By pieces, since what this process takes is counted with what is forked from it.
                at_once = max(1, 1_000_000 // max(1, len(content)))
                for start in range(0, times, at_once):
                    file.write(content * min(at_once, times - start))

    return write


def _folder(**contents: Callable[[Path], object]) -> Callable[[Path], object]:
    def make(place: Path) -> None:
        place.mkdir()
        for name, fill in contents.items():
            fill(place / name.replace("__", "."))

    return make


def _link_to_pipe(place: Path) -> None:
    os.mkfifo(f"{place}.p")
    place.symlink_to(f"{place}.p")


def _deep(place: Path) -> None:
    place.mkdir()
    here = os.open(place, os.O_RDONLY)
    for _ in range(600):  # deeper than a function can call itself on each
        os.mkdir("a", dir_fd=here)
        inner = os.open("a", os.O_RDONLY, dir_fd=here)
        os.close(here)
        here = inner
    os.close(here)


def _archive(place: Path) -> None:
    with tarfile.open(place, "w") as tar:
        tar.addfile(tarfile.TarInfo("a.txt"), io.BytesIO())


def _many_keys(place: Path) -> None:
    with place.open("w", encoding="utf-8") as file:
        file.write('{"text": "a"')
        for number in range(270_000):
            file.write(f', "k{number}": "v"')
        file.write("}")


def _zip(place: Path) -> None:
    with zipfile.ZipFile(place, "w") as packed:
        packed.writestr("a.txt", "a text")


_LINE = b'{"text": "a good line"}\n'

_NOT_TEXT: dict[str, Callable[[Path], object]] = {
    "gzip twice": _bytes(gzip.compress(gzip.compress(_LINE * 100))),
    "gzip cut short": _bytes(gzip.compress(b"a text " * 100)[:-9]),
    "bzip2 twice": _bytes(bz2.compress(bz2.compress(_LINE * 100))),
    "bzip2 cut short": _bytes(bz2.compress(b"a text " * 100)[:-9]),
    "xz twice": _bytes(lzma.compress(lzma.compress(_LINE * 100))),
    "xz cut short": _bytes(lzma.compress(b"a text " * 100)[:-9]),
    "zip": _zip,
    "tar": _archive,
    "Parquet": lambda place: pq.write_table(pa.table({"text": ["a", "b"]}), place),
    "PNG": _bytes(b"\x89PNG\r\n\x1a\n" + bytes(range(256)) * 20),
    "PDF": _bytes(b"%PDF-1.7\n" + bytes(range(1, 256)) * 20),
    "ELF": lambda place: place.write_bytes(Path(sys.executable).resolve().read_bytes()[:100_000]),
    "safetensors": _bytes((64).to_bytes(8, "little") + b'{"a":{}}' + bytes(100)),
    "UTF-16 of an odd number of bytes": _bytes(("a text\n" * 20).encode("utf-16")[:-1]),
    "UTF-16 without mark": _bytes(("a text\n" * 20).encode("utf-16-be")),
    "UTF-32 without mark": _bytes(("a text\n" * 20).encode("utf-32-be")),
    "a broken byte": _bytes(b"a text \xff with a broken byte"),
    "accents in Latin-1": _bytes(("caf\xe9 and more of plain text " * 30).encode("latin-1")),
    "Cyrillic in one byte": _bytes(("\u043f\u0440\u0438\u0432\u0435\u0442 " * 50).encode("cp1251")),
    "Japanese in Shift-JIS": _bytes(("\u65e5\u672c\u8a9e" * 50).encode("shift-jis")),
    "NULs at the end": _bytes(b"a text " * 5000 + b"\0" * 5000),
    "only NULs": _bytes(bytes(1_000_000)),
    "only \\xff": _bytes(b"\xff" * 1_000_000),
    "random": _bytes(bytes((number * 7919 + number // 251) % 256 for number in range(100_000))),
    "empty": _bytes(b""),
    "blanks": _bytes(b" \n\t\n" * 1000),
}


def not_text() -> Iterator[Try]:
    for name, make in _NOT_TEXT.items():
        for source in ("text", "jsonl"):
            yield Try(f"not what it is named, {source}", name, source, make)
        yield Try("not what it is named, in a folder", name, "text", _folder(a__txt=make))
        yield Try("not what it is named, skipping lines", name, "jsonl", make, skips=True)


def kinds() -> Iterator[Try]:
    for source in ("text", "jsonl"):
        yield Try("what is no file", "pipe", source, os.mkfifo)
        yield Try(
            "what is no file",
            "link to a pipe",
            source,
            _link_to_pipe,
        )
        yield Try("what is no file", "link to nothing", source, lambda place: place.symlink_to("nothing"))
        yield Try("what is no file", "circle", source, lambda place: place.symlink_to(place.name))
        for device in ("/dev/zero", "/dev/urandom", "/dev/null", "/dev/tty", "/dev/stdin"):
            yield Try("what is no file", device, source, lambda place, device=device: place.symlink_to(device))  # type: ignore[misc]
        yield Try("what is no file", "nothing", source, lambda place: None)
        yield Try("what is no file", "empty folder", source, lambda place: place.mkdir())
    yield Try("what is no file", "folder of a pipe", "text", _folder(a__txt=_bytes(b"a"), b__txt=os.mkfifo))
    yield Try(
        "what is no file", "folder of a device", "text", _folder(a__txt=lambda place: place.symlink_to("/dev/zero"))
    )
    yield Try("what is no file", "folder of a circle", "text", _folder(a__txt=lambda place: place.symlink_to("a.txt")))
    yield Try("what is no file", "folder of folders", "text", _folder(a__txt=lambda place: place.mkdir()))
    yield Try("what is no file", "folders without end", "text", _deep)


def lines() -> Iterator[Try]:
    broken: dict[str, bytes | tuple[bytes | tuple[bytes, int], ...]] = {
        "no end": b'{"text": "a', "a list": b'["a"]', "a text": b'"a"', "a number": b"3", "null": b"null", "NaN": b"NaN", "no key": b'{"body": "a"}',
        "a number for text": b'{"text": 3}', "null for text": b'{"text": null}', "a list for text": b'{"text": ["a"]}', "a map for text": b'{"text": {"a": "b"}}',
        "true for text": b'{"text": true}', "key in capitals": b'{"TEXT": "a"}', "two in a line": b'{"text": "a"} {"text": "b"}', "broken UTF-8": b'{"text": "\xff"}',
        "surrogate in UTF-8": b'{"text": "\xed\xa0\x80"}', "a NUL": b'{"text": "a\0"}', "a control": b'{"text": "a\x01"}', "half an escape": b'{"text": "\\u12"}',
        "5,000 digits": b'{"text": "a", "n": ' + b"9" * 5000 + b"}", "10^5 lists deep": b'{"text": ' + b"[" * 10**5 + b"]" * 10**5 + b"}",
        "10^5 maps deep": b'{"text":' * 10**5 + b"1" + b"}" * 10**5, "10^6 open lists": b"[" * 10**6, "2.5 million lists": (b'{"text": "a", "n": [', (b"[],", 2_500_000), b"1]}"),
        "2.5 million maps": (b'{"text": "a", "n": [', (b"{},", 2_500_000), b"1]}"), "20 MB": (b'{"text": "', (b"a", 20_000_000), b'"}'), "20 MB of spaces": ((b" ", 20_000_000), b"x"),
        "20 MB of brackets": ((b"[", 20_000_000),), "200 MB": (b'{"text": "', (b"a", 200_000_000), b'"}'), "YAML": b"text: a", "CSV": b"text,label", "single quotes": b"{'text': 'a'}",
        "comment": b'// {"text": "a"}', "escape": b"\x1b[2J", "bidi": "\u202e{}".encode(), "long key": b'{"' + b"k" * 10_000 + b'": 1}', "XML": b"<text>a</text>",
    }  # fmt: skip
    for name, content in broken.items():
        line = (content,) if isinstance(content, bytes) else content
        yield Try("broken lines", name, "jsonl", _bytes(_LINE, *line, b"\n", _LINE))
        yield Try("broken lines, skipped", name, "jsonl", _bytes(_LINE, *line, b"\n", _LINE), reads=True, skips=True)
        yield Try("only a broken line, skipped", name, "jsonl", _bytes(*line), skips=True)


def odd_but_text() -> Iterator[Try]:
    yield Try("odd but read", "byte order mark", "text", _bytes(b"\xef\xbb\xbfa text"), reads=True)
    yield Try("odd but read", "byte order mark in JSON", "jsonl", _bytes(b"\xef\xbb\xbf" + _LINE), reads=True)
    for encoding in ("utf-16", "utf-32"):
        yield Try("odd but read", encoding, "text", _bytes(("a text\n" * 20).encode(encoding)), reads=True)
    packings: dict[str, Callable[[bytes], bytes]] = {
        "gzip": gzip.compress,
        "bzip2": bz2.compress,
        "xz": lzma.compress,
    }
    for name, pack in packings.items():
        yield Try("odd but read", f"lines in {name}", "jsonl", _bytes(pack(_LINE * 100)), reads=True)
    yield Try("odd but read", "half a pair", "jsonl", _bytes(json.dumps({"text": "a \ud800 b"}).encode()), reads=True)
    yield Try("odd but read", "an escaped NUL", "jsonl", _bytes(json.dumps({"text": "a \0 b"}).encode()), reads=True)
    yield Try("odd but read", "key twice", "jsonl", _bytes(b'{"text": 1, "text": "b"}'), reads=True)
    yield Try("odd but read", "carriage returns", "text", _bytes(b"a\rb\r\nc"), reads=True)
    yield Try("odd but read", "no name in Unicode", "text", _folder(**{"\udcff__txt": _bytes(b"a text")}), reads=True)
    yield Try("odd but read", "line of 20 MB", "text", _bytes((b"a", 20_000_000)), reads=True)
    yield Try("odd but read", "words of 20 MB", "text", _bytes((b"a word ", 3_000_000)), reads=True)
    yield Try("odd but read", "100 MB of lines", "text", _bytes((b"a line of text\n", 7_000_000)), reads=True)
    yield Try(
        "odd but read", "a line of 4.9 MB", "jsonl", _bytes(b'{"text": "', (b"a word ", 700_000), b'"}'), reads=True
    )
    yield Try(
        "odd but read",
        "escaped emoji",
        "jsonl",
        _bytes(b'{"text": "', (b"\\ud83d\\ude00", 400_000), b'"}'),
        reads=True,
    )
    yield Try("odd but read", "100,000 lines", "jsonl", _bytes((b'{"text": "a"}\n', 100_000)), reads=True)
    yield Try(
        "odd but read",
        "many numbers",
        "jsonl",
        _bytes(b'{"text": "a", "n": [', (b"1.5,", 1_200_000), b"1]}"),
        reads=True,
    )
    yield Try(
        "odd but read",
        "many keys",
        "jsonl",
        _many_keys,
        reads=True,
    )
    yield Try(
        "odd but read",
        "many texts",
        "jsonl",
        _bytes(b'{"text": "a", "n": [', (b'"ab",', 950_000), b"1]}"),
        reads=True,
    )


def _read(settings: CorpusSettings) -> None:
    for _ in documents(settings):
        pass


def main(small: bool) -> int:
    """Try all, or with `small` one in eight of each kind, and the first."""
    table = Table()
    met: Counter[str] = Counter()
    for attempt in chain(kinds(), not_text(), lines(), odd_but_text()):
        met[attempt.kind] += 1
        if small and met[attempt.kind] % 8 != 1:
            continue
        with scratch("corpora") as name:
            place = Path(name) / "corpus.txt"
            attempt.make(place)
            settings = CorpusSettings(
                source="text" if attempt.source == "text" else "jsonl",
                path=str(place),
                on_error="skip" if attempt.skips else "fail",
            )
            refusal = of_call(lambda settings=settings: _read(settings))  # type: ignore[misc]
            if attempt.reads:
                objection = (
                    None if refusal.status == 0 and refusal.seconds < _SECONDS_TO_READ else str(refusal[:3])[:300]
                )
                if not objection and refusal.megabytes > MEGABYTES:
                    objection = f"took {refusal.megabytes:.0f} MB"
            else:
                objection = refusal.objection()
            table.add(attempt.kind, attempt.name, refusal, objection)
            if attempt.kind == "what is no file" and not attempt.name.startswith(("folder", "empty")):
                file = Path(name) / "a.yml"
                file.write_text(
                    f"model: {{name: demo}}\ncorpus: {{source: {attempt.source}, path: {place}}}\n", encoding="utf-8"
                )
                whole = of_command(["build", str(file), "--output", f"{name}/site"])
                table.add("what is no file, in a build", attempt.name, whole, whole.objection())
    return table.conclude()


if __name__ == "__main__":
    sys.exit(main("--small" in sys.argv[1:]))
