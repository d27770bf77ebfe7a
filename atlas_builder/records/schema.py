"""The form of a record: its schema, its bytes and its hash.

The schema is `neuron-record.schema.json` beside this file; its `$id` changes when the
meaning of a field does. Nothing here is heavy, so that a reader of records loads in no time.
"""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import orjson

SCHEMA_FILE = Path(__file__).parent / "neuron-record.schema.json"
SCHEMA = "neuron-record/1"

Record = dict[str, Any]


def serialise(record: Record) -> bytes:
    """A record as its file holds it: compact JSON in UTF-8 with sorted keys."""
    return orjson.dumps(record, option=orjson.OPT_SORT_KEYS)


def content_hash(record: Record) -> str:
    """SHA-256 of the record as `serialise` writes it, without its `hash` field.

    So it is that of the file's own bytes with `"hash":"…",` taken out, and a reader in any
    language recomputes it without writing a number: libraries differ in how they write 8.035e-05.
    """
    return hashlib.sha256(serialise({key: value for key, value in record.items() if key != "hash"})).hexdigest()
