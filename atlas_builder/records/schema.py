"""The format of a record: its schema, its bytes and its hash.

The schema is `neuron-record.schema.json` beside this file, with the descriptions from
`MEASURES`; its `$id` changes when the meaning of a field does. Nothing heavy is imported,
so that a reader of records loads quickly.
"""

from __future__ import annotations

import hashlib
from functools import cache
from pathlib import Path
from typing import Any

import orjson

from atlas_builder.records.measures import MEASURES, OF_CLUSTERS, Measure, Values

SCHEMA_FILE = Path(__file__).parent / "neuron-record.schema.json"
SCHEMA = "neuron-record/1"

Record = dict[str, Any]

_VALUES: dict[Values, dict[str, Any]] = {
    "count": {"type": "integer", "minimum": 0},
    "share": {"type": ["number", "null"], "minimum": 0, "maximum": 1},
    "distance": {"type": ["number", "null"], "minimum": 0, "maximum": 2},
    "cosine": {"type": ["number", "null"], "minimum": -1, "maximum": 1},
    "effective": {"type": "number", "minimum": 0},
    "number": {"type": ["number", "null"]},
}


@cache
def schema() -> dict[str, Any]:
    """The JSON Schema of a record, as published beside the records."""
    document: dict[str, Any] = orjson.loads(SCHEMA_FILE.read_bytes())
    document["$defs"]["polysemanticity"] = {
        "type": "object",
        "required": [measure.path[-1] for measure in OF_CLUSTERS],
        "properties": {
            measure.path[-1]: {"description": _sentence(measure), **_VALUES[measure.values]} for measure in OF_CLUSTERS
        },
    }
    for measure in MEASURES:
        if measure.path[0] == "stats":
            document["properties"]["stats"]["properties"][measure.path[-1]]["description"] = _sentence(measure)
    return document


def _sentence(measure: Measure) -> str:
    return f"{measure.title}: {measure.description}."


def serialise(record: Record) -> bytes:
    """The bytes of a record's file: compact JSON in UTF-8 with sorted keys."""
    return orjson.dumps(record, option=orjson.OPT_SORT_KEYS)


def sealed(record: Record) -> bytes:
    """Give a record its hash, as `content_hash` has it; the bytes of its file, as `serialise` writes them.

    Keys are sorted, so what stands before the hash and what stands behind it are written once, and it between them.
    """
    parts = (
        {key: value for key, value in record.items() if key < "hash"},
        {key: value for key, value in record.items() if key > "hash"},
    )
    before, behind = (serialise(part)[1:-1] for part in parts)
    digest = hashlib.sha256(b"{" + b",".join(filter(None, (before, behind))) + b"}").hexdigest()
    record["hash"] = digest
    return b"{" + b",".join(filter(None, (before, f'"hash":"{digest}"'.encode(), behind))) + b"}"


def content_hash(record: Record) -> str:
    """SHA-256 of the record as `serialise` writes it, without its `hash` field.

    It is the hash of the file's bytes with `"hash":"…",` removed, so that any language can
    recompute it without formatting numbers: libraries differ in how they write 8.035e-05.
    """
    return hashlib.sha256(serialise({key: value for key, value in record.items() if key != "hash"})).hexdigest()
