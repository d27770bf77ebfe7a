"""`atlas.json`: what is true of an atlas as a whole, read in one way."""

from __future__ import annotations

import os
from typing import Any

import orjson

from atlas_builder.errors import NoAtlasError, SiteError
from atlas_builder.reader.source import Source, source

ATLAS_SCHEMA = "atlas/1"
FILE = "atlas.json"


def read_facts(place: Source | str | os.PathLike[str]) -> dict[str, Any]:
    """The facts of the atlas in a folder or at an address.

    Raises `NoAtlasError` where there is none, or one that this version cannot read.
    """
    found = source(place) if isinstance(place, str | os.PathLike) else place
    content = found.read(FILE)
    if content is None:
        raise NoAtlasError(f"{found} holds no built atlas (no {FILE}): name the folder or address of one.")
    facts = read_object(content, found.url(FILE))
    check_schema(facts, ATLAS_SCHEMA, found.url(FILE))
    return facts


def read_object(content: bytes, name: str) -> dict[str, Any]:
    """A JSON object; `SiteError` where it is none."""
    try:
        found = orjson.loads(content)
    except ValueError as error:
        raise SiteError(f"{name} is not JSON: {error}.") from None
    return found if isinstance(found, dict) else {}


def check_schema(found: dict[str, Any], wanted: str, name: str) -> None:
    """Refuse what another version of the builder wrote."""
    if found.get("schema") != wanted:
        raise NoAtlasError(
            f"{name} has the schema {found.get('schema')!r}, this version of Atlas Builder reads {wanted!r}: "
            "take the version that the atlas was built with."
        )
