"""The form of a record: its schema, its bytes and its hash.

The schema is `neuron-record.schema.json` beside this file, with what `MEASURES` says of each
measure; its `$id` changes when the meaning of a field does. Nothing here is heavy, so that a
reader of records loads in no time.
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
    """The JSON Schema of a record, as it is published beside the records."""
    found: dict[str, Any] = orjson.loads(SCHEMA_FILE.read_bytes())
    found["$defs"]["polysemanticity"] = {
        "type": "object",
        "required": [measure.path[-1] for measure in OF_CLUSTERS],
        "properties": {
            measure.path[-1]: {"description": _sentence(measure), **_VALUES[measure.values]} for measure in OF_CLUSTERS
        },
    }
    for measure in MEASURES:
        if measure.path[0] == "stats":
            found["properties"]["stats"]["properties"][measure.path[-1]]["description"] = _sentence(measure)
    return found


def _sentence(measure: Measure) -> str:
    return f"{measure.title}: {measure.description}."


def serialise(record: Record) -> bytes:
    """A record as its file holds it: compact JSON in UTF-8 with sorted keys."""
    return orjson.dumps(record, option=orjson.OPT_SORT_KEYS)


def content_hash(record: Record) -> str:
    """SHA-256 of the record as `serialise` writes it, without its `hash` field.

    So it is that of the file's own bytes with `"hash":"…",` taken out, and a reader in any
    language recomputes it without writing a number: libraries differ in how they write 8.035e-05.
    """
    return hashlib.sha256(serialise({key: value for key, value in record.items() if key != "hash"})).hexdigest()
