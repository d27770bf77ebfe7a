"""Fields of a document that are kept beside its text, where `corpus.attributes` names them."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping, Sequence
from datetime import date, time
from decimal import Decimal

from atlas_builder.config import CorpusSettings
from atlas_builder.corpus.characters import beginning
from atlas_builder.errors import CorpusError, brief

LONGEST_VALUE = 100
"""Most characters of a value; a longer one is cut and ends with “…”."""
_MOST_FIELDS = 1000  # remembered, to name them


class NoAttributeError(Exception):
    """A field whose value is no attribute; its message continues `line 3 `."""


def attributes_of(record: Mapping[str, object], fields: Sequence[str]) -> dict[str, str]:
    """The named fields of a record that have a value, each as text.

    Text is as it is, numbers, true and false are as in JSON, dates as in ISO 8601, all without what is beyond
    `LONGEST_VALUE`. A missing field, null, NaN and blank text are none. Raises `NoAttributeError`.
    """
    texts = {field: encodable(_text(record[field], field)) for field in fields if field in record}
    return {field: _cut(text) for field, text in texts.items() if text.strip()}


def encodable(text: str) -> str:
    """Replace lone surrogates, which no tokenizer accepts, by U+FFFD each."""
    return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")


def json_kind(value: object) -> str:
    """What a value of a record is, for messages."""
    kinds: dict[type, str] = {type(None): "null", bool: "true or false", bytes: "bytes that are not UTF-8"}
    kinds |= {list: "a list", dict: "a map", int: "a number", float: "a number"}
    return kinds.get(type(value), f"a {type(value).__name__}")


def note_fields(known: set[str], names: Iterable[str]) -> None:
    """Remember the names of fields, so that a message can give them."""
    if len(known) < _MOST_FIELDS:
        known.update(names)


def check_attributes(corpus: CorpusSettings, kept: Iterable[Mapping[str, str]], fields: set[str]) -> None:
    """Raise `CorpusError` where no document has a field of `corpus.attributes`.

    Given are those kept of each document, and the names of all fields that there are.
    """
    missing = dict.fromkeys(corpus.attributes)
    for attributes in kept:
        if not missing:
            return
        for field in attributes:
            missing.pop(field, None)
    if missing:
        others = sorted(fields - {corpus.field} - set(missing))
        there_are = f"their fields are {brief(', '.join(others), 80)}" if others else "they have no other fields"
        raise CorpusError(
            f"corpus.attributes: no document has a value of {brief(', '.join(missing), 60)} ({there_are}): name fields "
            "that documents have."
        )


def _cut(text: str) -> str:
    return text if len(text) <= LONGEST_VALUE else f"{beginning(text, LONGEST_VALUE - 1)}…"


def _text(value: object, field: str) -> str:
    """A value as text; empty where there is none."""
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return ""
    if isinstance(value, str):
        return value
    if isinstance(value, bool | int | float):
        return json.dumps(value)
    if isinstance(value, date | time):
        return value.isoformat()
    if isinstance(value, Decimal):
        return str(value)
    raise NoAttributeError(
        f"has {json_kind(value)} as '{brief(field, 40)}', a field of corpus.attributes, which takes text, numbers, "
        "true and false"
    )
