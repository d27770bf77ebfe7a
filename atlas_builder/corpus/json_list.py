"""A JSON list item by item, so that no more than one is in memory."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

from atlas_builder.corpus.text_files import BrokenFileError, opened

_AT_ONCE = 1 << 16
_MARK = re.compile(rb'\\.|["\[\]{},]', re.DOTALL)
_BLANK = b" \t\r\n"


def list_items(file: Path, longest: int) -> Iterator[bytes | None]:
    """The items of a file that holds one JSON list, each as it is written; None for one of more than `longest` bytes.

    Items are not parsed, only divided. Raises `BrokenFileError` where the list has no end, or not the file's.
    """
    scan = _Scan(longest)
    with opened(file) as raw:
        while part := raw.read(_AT_ONCE):
            while part.endswith(b"\\") and (more := raw.read(1)):  # an escape is in one part
                part += more
            yield from scan.items(part)
    if not scan.closed:
        raise BrokenFileError("ends within its list: write the list to its end")


class _Scan:
    """How far a list is read: how deep, whether in a text, and what there is of an item."""

    def __init__(self, longest: int) -> None:
        self._longest = longest
        self._depth, self._in_text, self._any = 0, False, False
        self._item, self._too_long = bytearray(), False
        self.closed = False

    def items(self, part: bytes) -> Iterator[bytes | None]:
        """The items that end in a part of the file."""
        start = 0
        for match in _MARK.finditer(part):
            mark = match.group()
            if mark == b'"':
                self._in_text = not self._in_text
            elif self._in_text or len(mark) > 1:
                continue
            elif mark in b"[{":
                self._depth += 1
                if self._depth == 1:
                    self._no_more_than_one(part[start : match.start()])
                    start = match.end()
            elif mark in b"]}" or self._depth == 1:
                self._depth -= mark != b","
                if self._depth == 0 or mark == b",":
                    self._add(part[start : match.start()])
                    start = match.end()
                    if self._any or mark == b"," or self._item.strip(_BLANK) or self._too_long:
                        yield self._end()
                    self.closed = self._depth == 0
        self._add(part[start:])
        if self.closed:
            self._no_more_than_one(bytes(self._item))

    def _add(self, part: bytes) -> None:
        self._too_long = self._too_long or len(self._item) + len(part) > self._longest
        if self._too_long:
            self._item.clear()
        else:
            self._item += part

    def _end(self) -> bytes | None:
        item = None if self._too_long else bytes(self._item)
        self._item, self._too_long, self._any = bytearray(), False, True
        return item

    def _no_more_than_one(self, outside: bytes) -> None:
        if self.closed and (outside.strip(_BLANK) or self._depth):
            raise BrokenFileError("has more behind its list: give one list, or a line of JSON for each text")
