"""The fast verdict on records agrees with `jsonschema`, whatever is altered in them."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from jsonschema import Draft202012Validator

from atlas_builder.records.schema import schema
from atlas_builder.records.validation import schema_problem
from tests.support.atlases import records_of

_NUMBERS: list[Any] = [0, -1, 1, 2, 1.0, -0.0, 0.5, 1.5, 1e300, 5e-324, 2**53 + 1, 2**63, 2**64, 2**70, 10**400]
_NUMBERS += [float("nan"), float("inf"), float("-inf"), 1.0000000000000002, -1e-9, True, False, None]
_TEXTS = [
    "",
    "x",
    "\ud800",
    "\u0000",
    "demo/L3/N5",
    "demo/L3/N5\n",
    "demo/L\u0663/N5",
    "A/L3/N5",
    "mlp",
    "own",
    "a" * 64,
]
_TEXTS += ["a" * 64 + "\n", "\u00e9", "e\u0301", "neuron-record/1"]
_VALUES = st.recursive(
    st.sampled_from([*_NUMBERS, *_TEXTS]) | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.sampled_from(["id", "size", "p", "x"]), inner),
    max_leaves=6,
)


@pytest.fixture(scope="module")
def record(tiny_site: Path) -> Any:
    return max(records_of(tiny_site), key=lambda one: len(one["examples"]))


def _places(node: Any, place: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """Every place of a record, of long lists the first three and the last."""
    children: list[tuple[Any, Any]] = []
    if isinstance(node, dict):
        children = list(node.items())
    elif isinstance(node, list):
        children = [(number, node[number]) for number in sorted({*range(min(3, len(node))), len(node) - 1}) if node]
    return [place, *(deep for name, child in children for deep in _places(child, (*place, name)))]


@settings(deadline=None, max_examples=250)
@given(data=st.data())
def test_a_record_altered_at_random_is_judged_as_jsonschema_judges_it(record: Any, data: st.DataObject) -> None:
    altered, validator = copy.deepcopy(record), Draft202012Validator(schema())
    for _ in range(data.draw(st.integers(1, 3))):
        *path, last = data.draw(st.sampled_from(_places(altered)[1:]))
        node = altered
        for step in path:
            node = node[step]
        match data.draw(st.sampled_from(["set", "set", "remove", "add", "twice"])):
            case "set":
                node[last] = data.draw(_VALUES)
            case "remove":
                del node[last]
            case "add" if isinstance(node, dict):
                node[data.draw(st.text(max_size=4))] = data.draw(_VALUES)
            case _ if isinstance(node, list):
                node.append(copy.deepcopy(node[last]))
        if not (isinstance(altered, dict) and altered):
            return
    problem = schema_problem(altered)
    assert (problem is None) == validator.is_valid(altered)
    if problem is not None:
        first = next(validator.iter_errors(altered))
        assert problem == f"{first.json_path} {first.message[:200]}"


@pytest.mark.parametrize("value", [*_NUMBERS, *_TEXTS, [], {}, [[]], [["a", 1]], [["a", 1.0, 2]], {1: 2}], ids=repr)
def test_each_odd_value_at_each_place_is_judged_as_jsonschema_judges_it(record: Any, value: Any) -> None:
    validator = Draft202012Validator(schema())
    for path in [("id",), ("layer",), ("stats", "max"), ("stats", "histogram", "counts", 0), ("hash",), ("kind",),
                 ("behaviours", 0, "size"), ("behaviours", 0, "label"), ("examples", 0, "values", 0),
                 ("examples", 0, "tokens", 0), ("bands", 0, "quantiles", 0), ("examples", 0, "behaviour")]:  # fmt: skip
        altered = copy.deepcopy(record)
        node = altered
        for step in path[:-1]:
            node = node[step]
        node[path[-1]] = value
        assert (schema_problem(altered) is None) == validator.is_valid(altered), path


@pytest.mark.parametrize(
    "content", [b"1", b"[]", b'"x"', b"null", b"{}", b'{"id": "a", "id": 3}', b"1e999", b"[1e400]"]
)
def test_what_is_no_record_at_all_has_a_problem(content: bytes) -> None:
    try:
        other = orjson.loads(content)
    except ValueError:
        return  # `check` says that it cannot be read
    assert schema_problem(other) is not None
