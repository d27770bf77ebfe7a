"""A model's own chat template: conversations as the text that the model was trained on, and whose each token is.

The template is rendered by transformers in a sandbox. Where the content of a message stands is found by rendering
the conversation again with other contents: first all at once, and where what is around them then is not what it was,
message by message. What is in no message is the template's own: special tokens, names of roles, line ends between
turns, a system prompt of its own.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from atlas_builder.config import CorpusSettings
from atlas_builder.corpus.context_files import ChatTokens
from atlas_builder.corpus.documents import Document, Skipped
from atlas_builder.corpus.messages import Message, Turn
from atlas_builder.errors import ConfigurationError, CorpusError, brief
from atlas_builder.models.language_model import LanguageModel
from atlas_builder.models.wording import shortened

_STAND_INS = "\ue0b5\uf6c3\U000f4a2d\U0010c9e1"  # characters that nobody means, one of which is in no text at hand
# Templates that write today's date are given this one, which they have as a default, so that a text stays what it is.
_DATE = "{% macro strftime_now(format) %}26 Jul 2024{% endmacro +%}"


class TemplateError(Exception):
    """What a chat template says of a conversation that it does not take."""


class ChatTemplate:
    """The chat template of a model, and the tokens of what it makes; `bos` stands at the head of every context.

    Raises `ConfigurationError` where the model has none, or its tokenizer does not say where tokens stand in a text.
    """

    def __init__(self, model: LanguageModel, bos: int | None) -> None:
        self._model, self._tokenizer, self._bos = model, model.tokenizer, bos
        name = shortened(getattr(model.tokenizer, "name_or_path", "") or "at hand", 60)
        self._source = template_of(model.tokenizer, name)
        if not getattr(model.tokenizer, "is_fast", False):
            raise ConfigurationError(
                f"corpus.chat: the tokenizer of model {name} does not say where its tokens stand in a text: put a "
                "tokenizer.json beside the weights, or set corpus.chat to false."
            )
        self._special = special_tokens(model.tokenizer)

    def rendered(self, stream: Iterator[Document], corpus: CorpusSettings, skipped: Skipped) -> Iterator[Document]:
        """Documents with the text that the template makes of their messages, and the places of these.

        One that the template does not take is counted where `corpus.on_error` says so. Raises `CorpusError`.
        """
        any_left = False
        for document in stream:
            try:
                text = self._render(document.messages)
            except TemplateError as problem:
                if corpus.on_error == "fail":
                    raise CorpusError(
                        f"corpus.chat: the model's chat template does not take document {brief(document.name, 100)} "
                        f"({brief(problem, 120)}): mend its messages, or set corpus.on_error to skip."
                    ) from None
                skipped.lines += 1
                continue
            any_left = True
            yield document._replace(text=text, turns=tuple(self._turns(document.messages, text)))
        if not any_left:
            raise CorpusError(
                "corpus.chat: the model's chat template takes none of the documents: mend their messages."
            )

    def encode(self, chunk: list[Document]) -> list[ChatTokens]:
        """The tokens of rendered documents, without the beginning-of-sequence token that a template may begin with.

        A token is of the first message that it has a character of.
        """
        encoded = self._tokenizer(
            [document.text for document in chunk],
            add_special_tokens=False,
            return_offsets_mapping=True,
            verbose=False,
        )
        self._model.check_known(encoded["input_ids"])
        return [
            self._tokens(document, np.array(ids, np.int64), np.array(offsets, np.int64).reshape(-1, 2))
            for document, ids, offsets in zip(chunk, encoded["input_ids"], encoded["offset_mapping"], strict=True)
        ]

    def _tokens(self, document: Document, ids: NDArray[np.int64], offsets: NDArray[np.int64]) -> ChatTokens:
        if len(ids) and ids[0] == self._bos:
            ids, offsets = ids[1:], offsets[1:]
        whose = np.full(len(document.text) + 1, -1)
        for number, turn in enumerate(document.turns):
            whose[turn.first : turn.last] = number
        place = np.where(whose >= 0, np.arange(len(whose)), len(whose))
        following = np.minimum.accumulate(place[::-1])[::-1]  # the next character of a message, from each on
        first = following[offsets[:, 0]]
        inside = first < np.maximum(offsets[:, 1], offsets[:, 0] + 1)
        turn_of = np.where(inside, whose[np.minimum(first, len(whose) - 1)], -1).tolist()
        roles = [document.turns[number].role if number >= 0 else "" for number in turn_of]
        return ChatTokens(ids.tolist(), ~inside | np.isin(ids, self._special), roles)

    def _turns(self, messages: Sequence[Message], text: str) -> Iterator[Turn]:
        """Where the contents of messages stand in the text made of them, in the order of the text."""
        spans = self._all_at_once(messages, text) or self._one_by_one(messages, text)
        end = 0
        for first, last, role in sorted(spans):
            if last > max(first, end):
                yield Turn(role, max(first, end), last)
                end = last

    def _all_at_once(self, messages: Sequence[Message], text: str) -> list[tuple[int, int, str]] | None:
        """By the text around other contents; None where the text is not what that makes of these."""
        stand_in = _stand_in(messages, text)
        marks = [f"{stand_in}{number}{stand_in}" for number in range(len(messages))]
        try:
            frame = self._render([Message(one.role, mark) for one, mark in zip(messages, marks, strict=True)])
        except TemplateError:
            return None
        parts, rest = [], frame
        for mark in marks:
            part, found, rest = rest.partition(mark)
            if not found:
                return None
            parts.append(part)
        if stand_in in "".join((*parts, rest)) or not text.startswith(parts[0]):
            return None
        spans, end = [], len(parts[0])
        for (role, content), behind in zip(messages, [*parts[1:], rest], strict=True):
            # As it is, or stripped, as templates do.
            forms = (content, content.strip(), content.rstrip(), content.lstrip())
            own = next((form for form in forms if text.startswith(form + behind, end)), None)
            if own is None:
                return None
            if own.strip():
                spans.append((end, end + len(own), role))
            end += len(own) + len(behind)
        return spans if end == len(text) else None

    def _one_by_one(self, messages: Sequence[Message], text: str) -> list[tuple[int, int, str]]:
        """By what changes with the content of each message, wherever the template puts it and whatever it leaves."""
        spans, stand_in = [], _stand_in(messages, text)
        for place, (role, content) in enumerate(messages):
            if not content.strip():
                continue
            try:
                other = self._render([*messages[:place], Message(role, stand_in), *messages[place + 1 :]])
            except TemplateError:
                continue
            first = _alike(text, other)
            behind = _alike(text[first:][::-1], other[first:][::-1])
            spans.append((first, len(text) - behind, role))
        return spans

    def _render(self, messages: Sequence[Message]) -> str:
        return render(self._tokenizer, self._source, messages)


def template_of(tokenizer: Any, name: str) -> str:
    """The source of a tokenizer's chat template, that writes the same date every day; raises `ConfigurationError`."""
    try:
        source = str(tokenizer.get_chat_template())
    except (ValueError, AttributeError):
        raise ConfigurationError(
            f"corpus.chat: model {name} has no chat template: choose a chat model, or set corpus.chat to false."
        ) from None
    return (_DATE if "strftime_now" in source else "") + source


def render(tokenizer: Any, source: str, messages: Sequence[Message]) -> str:
    """The text that a chat template makes of messages; raises `TemplateError`."""
    given = [{"role": message.role, "content": message.content} for message in messages]
    try:
        return str(tokenizer.apply_chat_template(given, chat_template=source, tokenize=False))
    except Exception as error:  # jinja's own, and what a template's operations raise
        said = (str(error).splitlines() or [""])[0]
        raise TemplateError(said or type(error).__name__) from None


def special_tokens(tokenizer: Any) -> NDArray[np.int64]:
    """The special tokens of a tokenizer, and those added to it that are marked so."""
    added = getattr(tokenizer, "added_tokens_decoder", {})
    marked = (token for token, what in added.items() if getattr(what, "special", False))
    return np.array(sorted({*tokenizer.all_special_ids, *marked}), np.int64)


def _stand_in(messages: Sequence[Message], text: str) -> str:
    """A character that neither the messages nor the text has."""
    every = text + "".join(itertools.chain.from_iterable(messages))
    return next((character for character in _STAND_INS if character not in every), _STAND_INS[0])


def _alike(one: str, other: str) -> int:
    """With how many characters two texts begin alike."""
    pairs = enumerate(zip(one, other, strict=False))
    return next((place for place, (mine, its) in pairs if mine != its), min(len(one), len(other)))
