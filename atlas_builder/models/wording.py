"""Words of others in sentences of ours: one line, of bounded length, without characters that move text."""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path

from atlas_builder.corpus.token_text import plain

_NAME = 70
_REASON = 90


def shortened(text: object, length: int = _NAME) -> str:
    """A name for a message: its end where it is long, and nothing that a terminal or a log could stumble over."""
    line = plain(" ".join(str(text)[-4 * length :].split()))
    return line if len(line) <= length else f"…{line[1 - length :]}"


def named(folder: Path) -> str:
    """A folder for a message: the end of its path."""
    return shortened(folder)


def reason(error: BaseException) -> str:
    """Kind and first line of a library's error."""
    line = plain((str(error).strip().splitlines() or [""])[0][:_REASON])
    return f"{type(error).__name__}: {line[:_REASON]}"


def and_more(names: Collection[str]) -> str:
    """The first of some names, and how many more there are."""
    first = shortened(min(names))
    return f"{first} and {len(names) - 1:,} more" if len(names) > 1 else first
