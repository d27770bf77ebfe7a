"""YAML as plain data: text keys, no tags, and nothing that is larger when read than as written.

A few hundred bytes of YAML can stand for gigabytes (aliases of aliases), for objects (tags) or
for keys that no configuration has (lists). All are refused before anything is constructed.
"""

from __future__ import annotations

import math
import re
from typing import Any

import yaml

from atlas_builder.errors import brief

MOST_CHARACTERS = 100_000
_MOST_VALUES = 5_000  # with what aliases stand for; a thousand authors fit
_MOST_LEVELS = 16
_MOST_DIGITS = 40
_INT64 = range(-(2**63), 2**63)
_SURROGATE = re.compile("[\ud800-\udfff]")
_TEXT, _MERGE, _INTEGER, _FLOAT, _TIMESTAMP, _BOOLEAN = (
    f"tag:yaml.org,2002:{name}" for name in ("str", "merge", "int", "float", "timestamp", "bool")
)
_TAGS_OF_TEXT = (_INTEGER, _FLOAT, _TIMESTAMP, _BOOLEAN)
"""Of values that are text where they are kept as written."""


class NotPlainError(Exception):
    """Text that is no YAML (`broken`), or more than plain data; `line` counts from 1, where it is known."""

    def __init__(self, problem: str, mark: Any = None, *, broken: bool = False) -> None:
        super().__init__(problem)
        self.line: int | None = mark.line + 1 if mark else None
        self.broken = broken


def read_yaml(text: str, as_written: frozenset[str] = frozenset()) -> Any:
    """The data that YAML text stands for: dicts with text keys, lists, text, finite or infinite numbers, dates, None.

    Args:
        text: One YAML document.
        as_written: Where numbers, dates and yes or no are text as it was written (`1.10` is `"1.10"`): dotted keys
            from the top, the empty one for the document itself.

    Raises:
        NotPlainError: For broken YAML, duplicate keys and keys that are not text, tags, integers beyond 64 bits,
            lone surrogates, and for more than 100,000 characters, 5,000 values (counting what aliases stand for) or 16
            levels.
    """
    if len(text) > MOST_CHARACTERS:
        raise NotPlainError(f"it is longer than {MOST_CHARACTERS:,} characters")
    try:
        loader = _Loader(text)
        node = loader.get_single_node()
        if node is None:
            return None
        _count(node, {})
        return loader.construct_document(loader.as_written(node, as_written))
    except yaml.reader.ReaderError as error:
        raise NotPlainError(f"it holds the character {chr(error.character)!a}, which no text has") from None
    except yaml.MarkedYAMLError as error:
        raise NotPlainError(brief(error.problem or error.context, 100), error.problem_mark, broken=True) from None
    except (yaml.YAMLError, ValueError, OverflowError, RecursionError) as error:  # an impossible date, for one
        raise NotPlainError(brief(error, 100), broken=True) from None


class _Loader(yaml.SafeLoader):
    """The safe loader, which composes within bounds and constructs plain data only."""

    def __init__(self, text: str) -> None:
        super().__init__(text)
        self._values = 0
        self._levels = 0

    def compose_node(self, parent: yaml.Node | None, index: Any) -> yaml.Node | None:
        """Compose a node; the bounds hold while composing, before there is much to remove again."""
        event: yaml.Event = self.peek_event()  # type: ignore[no-untyped-call]
        self._values += 1
        if self._values > _MOST_VALUES:
            raise NotPlainError(f"it has more than {_MOST_VALUES:,} values", event.start_mark)
        if self._levels >= _MOST_LEVELS:
            raise NotPlainError(f"it is nested more than {_MOST_LEVELS} levels deep", event.start_mark)
        tag = getattr(event, "tag", None)
        if tag not in (None, "!") and not (tag == _TEXT and isinstance(event, yaml.ScalarEvent)):
            raise NotPlainError(f"it has the tag {brief(tag, 40)}: write the value without a tag", event.start_mark)
        self._levels += 1
        try:
            node: yaml.Node | None = super().compose_node(parent, index)
        finally:
            self._levels -= 1
        return node

    def as_written(self, node: yaml.Node, keys: frozenset[str], place: str = "") -> yaml.Node:
        """The node with the numbers, dates and yes or no at some keys as text; a merged section's keys are its own.

        Other nodes stay as they are: one that has an alias may be a number elsewhere.
        """
        if place in keys and isinstance(node, yaml.ScalarNode) and node.tag in _TAGS_OF_TEXT:
            is_number = not node.value.lower().lstrip("+-").startswith((".nan", ".inf"))
            return yaml.ScalarNode(_TEXT, node.value, node.start_mark, node.end_mark) if is_number else node
        if not any(key.startswith(place) for key in keys):
            return node
        if isinstance(node, yaml.MappingNode):
            pairs = [(key, self.as_written(value, keys, _below(place, key))) for key, value in node.value]
            return yaml.MappingNode(node.tag, pairs, node.start_mark, node.end_mark)
        if isinstance(node, yaml.SequenceNode):  # of sections that are merged; no key is in any other list
            parts = [self.as_written(part, keys, place) for part in node.value]
            return yaml.SequenceNode(node.tag, parts, node.start_mark, node.end_mark)
        return node


def _below(place: str, key: yaml.Node) -> str:
    if key.tag == _MERGE:
        return place
    return f"{place}.{key.value}".removeprefix(".")


def _mapping(loader: _Loader, node: yaml.MappingNode) -> dict[str, Any]:
    loader.flatten_mapping(node)
    return dict(loader.construct_pairs(node, deep=True))


def _text(loader: _Loader, node: yaml.ScalarNode) -> str:
    """Text, in which an escaped pair of surrogates, as JSON writes them, is one character."""
    text = str(loader.construct_scalar(node))
    if not _SURROGATE.search(text):
        return text
    try:
        return text.encode("utf-16", "surrogatepass").decode("utf-16")
    except UnicodeDecodeError:
        raise NotPlainError("it holds half a surrogate pair, which is no character", node.start_mark) from None


def _number(loader: _Loader, node: yaml.ScalarNode) -> int | float:
    if len(node.value) > _MOST_DIGITS:
        raise NotPlainError(f"the number {brief(node.value, 40)} is too long", node.start_mark)
    if ":" in node.value:  # YAML 1.1 counts in sixties: 1:30 is 90
        raise NotPlainError(f"the number {brief(node.value, 40)} has a colon: write it in digits", node.start_mark)
    number = loader.construct_yaml_int(node) if node.tag == _INTEGER else loader.construct_yaml_float(node)
    if isinstance(number, int) and number not in _INT64:
        raise NotPlainError(f"the number {brief(node.value, 40)} needs more than 64 bits", node.start_mark)
    if math.isinf(number) and "inf" not in node.value.lower():
        raise NotPlainError(f"the number {brief(node.value, 40)} is too large", node.start_mark)
    return number


_Loader.add_constructor(yaml.resolver.BaseResolver.DEFAULT_MAPPING_TAG, _mapping)
_Loader.add_constructor(_TEXT, _text)
_Loader.add_constructor(_INTEGER, _number)
_Loader.add_constructor(_FLOAT, _number)


def _count(node: yaml.Node, known: dict[int, int]) -> int:
    """How many values a node stands for, aliases written out; refuses too many, a node within itself, and odd keys."""
    if id(node) in known:
        if not known[id(node)]:
            raise NotPlainError("an alias stands for what it is a part of", node.start_mark)
        return known[id(node)]
    known[id(node)] = 0  # not known yet: its parts are being counted
    parts = [] if isinstance(node, yaml.ScalarNode) else list(node.value)
    if isinstance(node, yaml.MappingNode):
        _check_keys(node)
        parts = [part for pair in parts for part in pair]
    known[id(node)] = total = 1 + sum(_count(part, known) for part in parts)
    if total > _MOST_VALUES:
        raise NotPlainError(f"its aliases stand for more than {_MOST_VALUES:,} values", node.start_mark)
    return total


def _check_keys(node: yaml.MappingNode) -> None:
    seen: set[str] = set()
    for key, _ in node.value:
        if not isinstance(key, yaml.ScalarNode):
            raise NotPlainError("a key is a list or a section", key.start_mark)
        if key.tag not in (_TEXT, _MERGE):
            raise NotPlainError(f"the key {brief(key.value, 40)} is not text", key.start_mark)
        if key.value in seen:
            raise NotPlainError(f"duplicate key {brief(key.value, 40)}", key.start_mark)
        seen.add(key.value)
