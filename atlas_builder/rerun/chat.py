"""Conversations through a model's chat template again: whose each token is, by what changes with each message."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

from atlas_builder.corpus.messages import Message
from atlas_builder.models.chat import TemplateError, render, template_of

_OTHERS = "\ue0b5\uf6c3\U000f4a2d\U0010c9e1"  # contents that nobody writes


class ReadTokens(NamedTuple):
    """The tokens of a text; with a chat template, whether each counts nowhere, and the role that it has there."""

    ids: list[int]
    special: list[bool]
    roles: list[str]


class Conversations:
    """Reads conversations by the chat template of a tokenizer; `head` stands before every context."""

    def __init__(self, tokenizer: Any, head: Sequence[int]) -> None:
        self._tokenizer, self._head = tokenizer, list(head)
        self._source = template_of(tokenizer, str(getattr(tokenizer, "name_or_path", "")))
        marked = {token for token, added in tokenizer.added_tokens_decoder.items() if added.special}
        self._special = marked | set(tokenizer.all_special_ids)

    def read(self, messages: Sequence[Message]) -> ReadTokens | None:
        """The tokens of a conversation; None where the template does not take it."""
        try:
            text = render(self._tokenizer, self._source, messages)
        except TemplateError:
            return None
        whose = [""] * len(text)
        for number in range(len(messages)):
            for place in self._changed(messages, number, text):
                whose[place] = whose[place] or messages[number].role
        encoded = self._tokenizer(text, add_special_tokens=False, verbose=False)
        ids = [int(token) for token in encoded["input_ids"]]
        roles = []
        for place in range(len(ids)):
            span = encoded.token_to_chars(place)
            own = whose[span.start : max(span.end, span.start + 1)] if span is not None else []
            roles.append(next(filter(None, own), ""))
        special = [not role or token in self._special for token, role in zip(ids, roles, strict=True)]
        first = int(ids[:1] == self._head[:1] != [])
        return ReadTokens(ids[first:], special[first:], roles[first:])

    def _changed(self, messages: Sequence[Message], number: int, text: str) -> range:
        """The characters of a text that are others where a message has another content; none of a blank one."""
        if not messages[number].content.strip():
            return range(0)
        every = text + "".join(part for message in messages for part in message)
        other = next((one for one in _OTHERS if one not in every), _OTHERS[0])
        changed = [*messages[:number], Message(messages[number].role, other), *messages[number + 1 :]]
        try:
            instead = render(self._tokenizer, self._source, changed)
        except TemplateError:
            return range(0)
        first = 0
        while first < min(len(text), len(instead)) and text[first] == instead[first]:
            first += 1
        last, end = len(text), len(instead)
        while min(last, end) > first and text[last - 1] == instead[end - 1]:
            last, end = last - 1, end - 1
        return range(first, last)
