"""The other language model: anything that answers a question."""

from __future__ import annotations

import os
from typing import Protocol

from atlas_builder.errors import AtlasError, ConfigurationError

_SECONDS = 300
_LEAST_CHANCE = {"temperature": 0, "seed": 0}


class ServerError(AtlasError):
    """A server that cannot be reached, or does not answer."""


class Server(Protocol):
    """Implement this to ask another model:

    >>> class Parrot:
    ...     name = "parrot"
    ...     def ask(self, question: str) -> str:
    ...         return "none"
    """

    @property
    def name(self) -> str:
        """What the model is called."""

    def ask(self, question: str) -> str:
        """Its answer. Raises `ServerError` where there is none; called from several threads."""


class OpenAIServer:
    """A server with OpenAI's interface for chats: theirs, vLLM, llama.cpp, Ollama, ….

    Raises `ConfigurationError` where the package openai is not installed.
    """

    def __init__(self, address: str, name: str) -> None:
        try:
            import openai
        except ImportError:
            raise ConfigurationError("explain: to ask a server, install atlas-builder[explain].") from None
        self.address, self.name = address, name
        # What is no answer of such a server, a page of HTML for one, fails wherever its parts are looked for.
        self._errors = (openai.OpenAIError, AttributeError, IndexError, ValueError)
        self._refused = openai.BadRequestError
        key = os.environ.get("OPENAI_API_KEY") or "none"  # servers of one's own want none
        try:
            self._client = openai.OpenAI(base_url=address, api_key=key, timeout=_SECONDS)
        except Exception as error:  # the client's client raises its own kinds
            raise ConfigurationError(f"--server: {address} is no address ({error}).") from None

    def ask(self, question: str) -> str:
        """Its answer, of as little chance as it allows."""
        try:
            try:
                answer = self._answer(question, **_LEAST_CHANCE)
            except self._refused as error:
                if not any(setting in str(error) for setting in _LEAST_CHANCE):
                    raise
                answer = self._answer(question)  # some models take no such settings
        except self._errors as error:
            reason = (str(error).strip().splitlines() or [""])[0][:200]
            raise ServerError(
                f"{self.address} does not answer ({reason}): check the address, model and key."
            ) from error
        if not answer:
            raise ServerError(f"{self.address}: {self.name} gave an empty answer.")
        return answer

    def _answer(self, question: str, **settings: int) -> str:
        messages = [{"role": "user", "content": question}]
        found = self._client.chat.completions.create(model=self.name, messages=messages, **settings)
        return str(found.choices[0].message.content or "")
