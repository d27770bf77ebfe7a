"""Text of settings that others read: names, addresses, iDs. What cannot be meant raises `ValueError`."""

from __future__ import annotations

import re
from typing import Annotated
from urllib.parse import urlsplit

from pydantic import AfterValidator, Field

_NOT_WRITABLE = re.compile("[\0\ud800-\udfff]")
_LONGEST_FILE_NAME = 255
_ORCID = r"^[0-9]{4}-[0-9]{4}-[0-9]{4}-[0-9]{3}[0-9X]$"
_NOT_IN_ADDRESS = re.compile(
    # Blanks, controls and what is invisible; percent-encodings that stand for no byte.
    "[^!-~\u00a1-\U0010ffff]|[\u00ad\u061c\u180e\u200b-\u200f\u2028-\u202f\u2060-\u206f\u3000\ufeff]|%(?![0-9A-Fa-f]{2})"
)


def check_writable(text: str, *, is_path: bool) -> None:
    """Refuse what no file can hold, and for a path what cannot be a file's name."""
    if _NOT_WRITABLE.search(text):
        raise ValueError("leave out NUL characters and halves of surrogate pairs")
    if is_path and any(ord(character) < 0x20 for character in text):
        raise ValueError("leave out line ends and other control characters")
    if is_path and any(len(part.encode()) > _LONGEST_FILE_NAME for part in text.split("/")):
        raise ValueError(f"no file has a name of more than {_LONGEST_FILE_NAME} bytes")


def _not_blank(text: str) -> str:
    if not any(map(str.isalnum, text)):
        raise ValueError("write at least one letter or digit")
    return text


def _visible(text: str) -> str:
    if not text.strip() or not text.isprintable():
        raise ValueError("write it in characters that can be seen")
    return text


def _openable(address: str) -> str:
    """Checked as far as programs that open it do."""
    try:
        parts = urlsplit(address)
        opens = parts.port != 0 and bool(parts.hostname or not parts.scheme)
    except ValueError:  # brackets that do not close, a port of letters
        opens = False
    if not opens or _NOT_IN_ADDRESS.search(address):
        raise ValueError("write an address that a browser can open, like https://example.org/atlas")
    if parts.username is not None:
        raise ValueError("leave out the user's name and password, since the address is published")
    return address


def _with_check_digit(orcid: str) -> str:
    """The last character follows from the others by ISO 7064 MOD 11-2, so that a slip of the pen is seen."""
    total = 0
    for digit in orcid.replace("-", "")[:-1]:
        total = 2 * (total + int(digit)) % 11
    if orcid[-1] != "0123456789X"[(12 - total) % 11]:
        raise ValueError("its last character does not fit the others: copy the iD from orcid.org")
    return orcid


Printed = Annotated[str, AfterValidator(_not_blank)]
"""Text that readers see, not blank."""
Edition = Annotated[str, AfterValidator(_visible)]
"""A name of an edition; scripts compare it as it is, so nothing in it is spelt out."""
Address = Annotated[str, AfterValidator(_openable)]
"""An http address with a host, or one relative to the site."""
Orcid = Annotated[str, Field(pattern=_ORCID), AfterValidator(_with_check_digit)]
"""An ORCID iD whose check digit is right."""
