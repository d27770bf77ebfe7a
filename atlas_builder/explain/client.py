"""The explaining language model: anything that answers a question."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from typing import Any, Protocol

from atlas_builder.errors import AtlasError, ConfigurationError

_SECONDS = 300
_RETRIES = 4  # of a server that is busy, fails or cannot be reached: openai's client waits longer before each
_DETERMINISTIC = {"temperature": 0, "seed": 0}
_TAGS = "think|thinking|thought|reasoning"
_OPENED = re.compile(rf"\s*<({_TAGS})>", re.IGNORECASE)
_CLOSED_ONLY = re.compile(rf"(?:^|\n)[^\S\n]*</(?:{_TAGS})>|</(?:{_TAGS})>\s*(?:\n|$)", re.IGNORECASE)


class ServerError(AtlasError):
    """The server cannot be reached, or does not answer."""


class NoAnswerError(ServerError):
    """The server works, and this question has no answer: it is refused, or the answer is empty."""


class Server(Protocol):
    """The interface of a model to ask:

    >>> class Parrot:
    ...     name = "parrot"
    ...     def ask(self, question: str) -> str:
    ...         return "none"
    """

    @property
    def name(self) -> str:
        """The name of the model."""

    def ask(self, question: str) -> str:
        """The answer without the reasoning; called from several threads.

        Raises `NoAnswerError` if this question has none, and `ServerError` if no question has.
        """


class OpenAIServer:
    """A server with OpenAI's chat API: theirs, vLLM, llama.cpp, Ollama, ….

    Answers end after `answer_tokens`, or where the server ends them. Raises `ConfigurationError` if the package openai
    is not installed.
    """

    def __init__(self, address: str, name: str, answer_tokens: int | None = None) -> None:
        try:
            import openai
        except ImportError:
            raise ConfigurationError("explain requires the package openai: install atlas-builder[explain].") from None
        self.address, self.name = address, name
        self._settings = _DETERMINISTIC | ({} if answer_tokens is None else {"max_tokens": answer_tokens})
        # A response that is no JSON, or nested too deep, is a `ValueError` or `RecursionError`.
        self._errors = (openai.OpenAIError, ValueError, RecursionError)
        self._refused = openai.BadRequestError
        # Of one question: refused, or too long.
        self._unanswered = (openai.BadRequestError, openai.UnprocessableEntityError)
        key = os.environ.get("OPENAI_API_KEY") or "none"  # local servers need none
        try:
            self._client = openai.OpenAI(base_url=address, api_key=key, timeout=_SECONDS, max_retries=_RETRIES)
        except Exception as error:  # the HTTP library below it raises its own kinds
            raise ConfigurationError(f"--server: {address} is not a valid address ({error}).") from None

    def ask(self, question: str) -> str:
        """The model's answer, as deterministic as the server allows."""
        try:
            answer = self._accepted(question)
        except self._errors as error:
            reason = (str(error).strip().splitlines() or [""])[0][:200]
            kind = NoAnswerError if isinstance(error, self._unanswered) else ServerError
            raise kind(f"{self.address} does not answer ({reason}): check the address, model and key.") from error
        if not answer.strip():
            raise NoAnswerError(f"{self.address}: {self.name} returned an empty answer: check the model and try again.")
        if not (conclusion := after_reasoning(answer)):
            raise NoAnswerError(
                f"{self.address}: {self.name} returned its reasoning and no answer: let it write more tokens, or less."
            )
        return conclusion

    def _accepted(self, question: str) -> str:
        """The answer, without settings that the model refuses: some do those of chance, some name others anew."""
        settings = dict(self._settings)
        while True:
            try:
                answer = self._answer(question, settings)
            except self._refused as error:
                refused = [name for name in settings if name in str(error)]
                if not refused:
                    raise
                for name in refused:
                    value = settings.pop(name)
                    if name == "max_tokens":
                        settings["max_completion_tokens"] = value
            else:
                self._settings = settings
                return answer

    def _answer(self, question: str, settings: Mapping[str, int]) -> str:
        messages = [{"role": "user", "content": question}]
        completion = self._client.chat.completions.create(model=self.name, messages=messages, **settings)
        try:
            return _text(completion.choices[0].message.content)
        except (AttributeError, LookupError, TypeError):  # a page of HTML, or JSON of another kind
            raise ValueError("its response is no chat completion") from None


def after_reasoning(answer: str) -> str:
    """What follows the reasoning that a model writes first, in `<think>` and the like; empty where that has no end.

    Where the prompt opens the reasoning for it, the model writes the closing tag only, on a line of its own or at
    the end of one.
    """
    opened = False
    while begins := _OPENED.match(answer):
        opened = True
        closes = re.compile(f"</{begins.group(1)}>", re.IGNORECASE).search(answer, begins.end())
        answer = answer[closes.end() :] if closes else ""
    if not opened and (closed := _CLOSED_ONLY.search(answer)):
        answer = answer[closed.end() :]
    return answer.strip()


def _text(content: Any) -> str:
    """The text of a message, which may be in parts, of which some are reasoning."""
    if isinstance(content, list):
        parts = [part if isinstance(part, dict) else getattr(part, "__dict__", {}) for part in content]
        return "".join(_text(part.get("text")) for part in parts if part.get("type") == "text")
    return content if isinstance(content, str) else ""
