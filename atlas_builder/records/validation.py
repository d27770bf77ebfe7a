"""Whether a record is as its schema demands: checks compiled from the schema, a hundred times as fast as a library's.

Where they find something, `jsonschema` says what it is. They know the words of JSON Schema that the schema of
records uses, and refuse others.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from functools import cache
from typing import Any

from jsonschema import Draft202012Validator

from atlas_builder.records.schema import schema

Holds = Callable[[Any], bool]

_TYPES: dict[str, tuple[type, ...]] = {
    "object": (dict,),
    "array": (list,),
    "string": (str,),
    "number": (int, float),
    "integer": (int,),
    "boolean": (bool,),
    "null": (type(None),),
}
_WITHOUT_MEANING = {"description", "$comment", "$schema", "$id", "$defs", "title"}


def schema_problem(record: Any) -> str | None:
    """What a record has that its schema does not allow, with its place; None where all is well."""
    if _holds()(record):
        return None
    problem = next(iter(_validator().iter_errors(record)), None)
    return problem and f"{problem.json_path} {problem.message[:200]}"


@cache
def _validator() -> Draft202012Validator:
    return Draft202012Validator(schema())


@cache
def _holds() -> Holds:
    return _compiled(schema())


def _compiled(node: dict[str, Any]) -> Holds:
    """A function that says whether a value is as a node of the schema demands."""
    if "$ref" in node:
        others = {name: value for name, value in node.items() if name != "$ref"}
        target = schema()["$defs"][node["$ref"].removeprefix("#/$defs/")]
        return _compiled({**target, **others})
    tests = [
        test
        for word, argument in node.items()
        if word not in _WITHOUT_MEANING and (test := _test(word, argument, node))
    ]
    if len(tests) == 1:
        return tests[0]
    return lambda value: all(test(value) for test in tests)


def _test(word: str, argument: Any, node: dict[str, Any]) -> Holds | None:
    """The test of one word of a node; None where another word of it makes the test."""
    match word:
        case "type":
            return _of_type(argument)
        case "const":
            return lambda value: type(value) is type(argument) and value == argument
        case "enum":
            return lambda value: type(value) is not bool and value in argument
        case "minimum":
            return lambda value: not isinstance(value, int | float) or value >= argument
        case "maximum":
            return lambda value: not isinstance(value, int | float) or value <= argument
        case "pattern":
            pattern = re.compile(argument)
            return lambda value: not isinstance(value, str) or pattern.search(value) is not None
        case "required":
            needed = frozenset(argument)
            return lambda value: not isinstance(value, dict) or needed <= value.keys()
        case "properties":
            parts = [(name, _compiled(part)) for name, part in argument.items()]
            return lambda value: (
                not isinstance(value, dict) or all(name not in value or holds(value[name]) for name, holds in parts)
            )
        case "minItems":
            return lambda value: not isinstance(value, list) or len(value) >= argument
        case "maxItems":
            return lambda value: not isinstance(value, list) or len(value) <= argument
        case "prefixItems":
            places = [_compiled(part) for part in argument]
            return lambda value: (
                not isinstance(value, list) or all(holds(entry) for holds, entry in zip(places, value, strict=False))
            )
        case "items":
            return _of_items(argument)
    raise ValueError(f"the schema has the word {word}, which is not compiled: add it here.")


def _of_type(names: str | list[str]) -> Holds:
    allowed = frozenset(kind for name in ([names] if isinstance(names, str) else names) for kind in _TYPES[name])
    if float not in allowed and int in allowed:  # 3.0 is an integer, too
        return lambda value: type(value) in allowed or (type(value) is float and value.is_integer())
    return lambda value: type(value) in allowed


def _of_items(node: dict[str, Any]) -> Holds:
    if node.keys() - _WITHOUT_MEANING == {"type"}:  # long lists of numbers or texts
        names = node["type"]
        allowed = {kind for name in ([names] if isinstance(names, str) else names) for kind in _TYPES[name]}
        if float in allowed or int not in allowed:
            return lambda value: not isinstance(value, list) or set(map(type, value)) <= allowed
    each = _compiled(node)
    return lambda value: not isinstance(value, list) or all(map(each, value))
