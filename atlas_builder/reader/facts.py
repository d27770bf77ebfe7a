"""`atlas.json`: the facts of an atlas as a whole."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

import orjson

from atlas_builder.errors import NoAtlasError, SiteError
from atlas_builder.reader.source import Source, source

ATLAS_SCHEMA = "atlas/1"
FILE = "atlas.json"


def read_facts(place: Source | str | os.PathLike[str]) -> dict[str, Any]:
    """The facts of the atlas in a folder or at an address.

    Raises `NoAtlasError` if there is no atlas, or one that this version cannot read.
    """
    files = source(place) if isinstance(place, str | os.PathLike) else place
    content = files.read(FILE)
    if content is None:
        raise NoAtlasError(f"{files} is not a built atlas ({FILE} is not found): name the folder or address of one.")
    facts = read_object(content, files.url(FILE))
    check_schema(facts, ATLAS_SCHEMA, files.url(FILE))
    return facts


def counted_tokens(facts: Mapping[str, Any]) -> int:
    """The tokens of an atlas's text that count in statistics: all but a chat template's own."""
    corpus = facts["corpus"]
    return int(corpus["chat"]["counted"] if "chat" in corpus else corpus["tokens"])


def read_object(text: bytes, name: str) -> dict[str, Any]:
    """Parse a JSON object; anything else is read as an empty one. Raises `SiteError` if `text` is not JSON."""
    try:
        content = orjson.loads(text)
    except ValueError as error:
        raise SiteError(f"{name} is not JSON: {error}.") from None
    return content if isinstance(content, dict) else {}


def check_schema(content: dict[str, Any], schema: str, name: str) -> None:
    """Raise `NoAtlasError` for files written by another version of the builder."""
    if content.get("schema") != schema:
        raise NoAtlasError(
            f"{name} has the schema {content.get('schema')!r}, this version of Atlas Builder reads {schema!r}: "
            "use the version that the atlas was built with."
        )
