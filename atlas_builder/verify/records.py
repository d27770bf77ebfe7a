"""The records of an atlas as files: those that can be read, and what is wrong with the others."""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple

import orjson
from jsonschema import Draft202012Validator

from atlas_builder.records.address import UnitAddress
from atlas_builder.records.schema import schema
from atlas_builder.verify.report import VerificationReport

Record = dict[str, Any]
_LONGEST = 120  # characters of a library's explanation


class ReadRecord(NamedTuple):
    """A record and the bytes of its file."""

    record: Record
    raw: bytes


class Records:
    """The records of a site, each checked against the builder's own schema once."""

    def __init__(self, site: Path, atlas: str) -> None:
        self._site, self._atlas = site, atlas
        self._validator = Draft202012Validator(_closed(schema()))

    def read(self, address: UnitAddress, report: VerificationReport) -> ReadRecord | None:
        """The record of a unit, checked in full; None where it cannot be compared, with one sentence why."""
        name = address.within(self._atlas)
        try:
            raw = (self._site / address.record).read_bytes()
            record = orjson.loads(raw)
        except FileNotFoundError:
            report.wrong(f"{name}: its record {address.record} is missing: copy or build the atlas again")
            return None
        except (OSError, ValueError) as error:
            report.wrong(f"{name}: its record {address.record} cannot be read ({str(error)[:_LONGEST]})")
            return None
        problem = self._problem(record)
        if problem is None and (record["id"], record["layer"], record["unit"]) != (name, *address):
            problem = f"is that of {record['id'][:_LONGEST]}, layer {record['layer']}, unit {record['unit']}"
        if problem is not None:
            report.wrong(f"{name}: its record {address.record} {problem}")
            return None
        return ReadRecord(record, raw)

    def centrals(self, address: UnitAddress) -> list[tuple[int, int, int]]:
        """The ids of a unit's behaviours, and document and position of their central examples; none if unreadable."""
        try:
            record = orjson.loads((self._site / address.record).read_bytes())
            examples = [(int(example["document"]), int(example["position"])) for example in record["examples"]]
            return [
                (int(behaviour["id"]), *examples[int(behaviour["central"])])
                for behaviour in record["behaviours"]
                if int(behaviour["central"]) >= 0
            ]
        except (OSError, ValueError, KeyError, TypeError, IndexError):
            return []

    def _problem(self, record: Any) -> str | None:
        error = next(iter(self._validator.iter_errors(record)), None)
        if error is not None:
            where = ".".join(map(str, error.absolute_path))
            return f"is not of the schema{f', at {where}' if where else ''}: {error.message[:_LONGEST]}"
        count = len(record["examples"])
        for behaviour in record["behaviours"]:
            if max([behaviour["central"], *behaviour["examples"]]) >= count:
                return "names an example that it does not have"
        if any(index >= count for band in record["bands"] for index in band["examples"]):
            return "names an example of a band that it does not have"
        for example in record["examples"]:
            if not example["key"] < len(example["tokens"]) == len(example["values"]):
                return "has an example without its key token, or without an activation of each token"
        return None


def _closed(part: Any) -> Any:
    """A schema in which objects have no other properties than those that it describes."""
    if isinstance(part, list):
        return [_closed(one) for one in part]
    if not isinstance(part, dict):
        return part
    closed = {key: _closed(value) for key, value in part.items()}
    is_object = isinstance(part.get("properties"), dict) and "type" in part
    return closed | {"additionalProperties": False} if is_object else closed
