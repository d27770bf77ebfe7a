"""Messages of a conversation, as records hold them where `corpus.chat` asks for them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from atlas_builder.corpus.attributes import encodable, json_kind
from atlas_builder.errors import brief

LONGEST_ROLE = 100
"""Most characters of a role."""
_KEYS = (("role", "content"), ("from", "value"))  # as most data sets have them, and as ShareGPT's
_FORMS = "a message is {role, content} or {from, value}, both of them text"
_ROLES = {"human": "user", "gpt": "assistant"}  # of ShareGPT


class Message(NamedTuple):
    """One turn of a conversation."""

    role: str
    content: str


class Turn(NamedTuple):
    """Where a message's content stands in the text that a chat template makes: characters `first` to before `last`."""

    role: str
    first: int
    last: int


class NoMessageError(Exception):
    """A value that is no list of messages; its message continues `line 3 `."""


def messages_in(value: Sequence[object], most: int) -> tuple[Message, ...]:
    """The messages of a list of `{role, content}` or `{from, value}`, of at most `most` characters together.

    Of ShareGPT's roles, `human` is user and `gpt` is assistant. Raises `NoMessageError`.
    """
    if not value:
        raise NoMessageError("has an empty list of messages")
    messages = tuple(_message(number, one) for number, one in enumerate(value, start=1))
    if sum(len(message.content) for message in messages) > most:
        raise NoMessageError(f"has messages of more than {most:,} characters together, which one text cannot have")
    return messages


def _message(number: int, value: object) -> Message:
    if not isinstance(value, dict):
        raise NoMessageError(f"has {json_kind(value)} as message {number} ({_FORMS})")
    # A table has all keys in each of its rows.
    role_key, content_key = next((keys for keys in _KEYS if value.get(keys[0]) is not None), _KEYS[0])
    role, content = value.get(role_key), value.get(content_key)
    if not isinstance(role, str) or not role.strip() or len(role) > LONGEST_ROLE:
        given = "no" if role is None or isinstance(role, str) else f"{json_kind(role)} as"
        raise NoMessageError(f"has {given} '{role_key}' in message {number} ({_FORMS})")
    if not isinstance(content, str):
        given = "no" if content is None else f"{json_kind(content)} as"
        raise NoMessageError(f"has {given} '{content_key}' in message {number}, of role {brief(role, 40)} ({_FORMS})")
    return Message(encodable(_ROLES.get(role, role)), encodable(content))
