"""Whether a record is as its schema demands: `jsonschema-rs` says so; where it objects, `jsonschema` says to what."""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING, Any

from jsonschema_rs import Draft202012Validator as FastValidator

from atlas_builder.records.schema import schema

if TYPE_CHECKING:
    from jsonschema import Draft202012Validator


def schema_problem(record: Any) -> str | None:
    """What a record has that its schema does not allow, with its place; None where all is well.

    The sentence and the last word are those of `jsonschema`, whose patterns are Python's.
    """
    if _is_valid(record):
        return None
    problem = next(iter(_validator().iter_errors(record)), None)
    return problem and f"{problem.json_path} {problem.message[:200]}"


def _is_valid(record: Any) -> bool:
    try:
        return _fast().is_valid(record)
    except ValueError:  # what no JSON holds: half of a surrogate pair, a key that is no text
        return False


@cache
def _fast() -> FastValidator:
    return FastValidator(schema())


@cache
def _validator() -> Draft202012Validator:
    from jsonschema import Draft202012Validator  # most atlases are sound, and need no sentence

    return Draft202012Validator(schema())
