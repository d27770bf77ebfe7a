"""The explaining language model: anything that answers a question."""

from __future__ import annotations

import os
from typing import Protocol

from atlas_builder.errors import AtlasError, ConfigurationError

_SECONDS = 300
_DETERMINISTIC = {"temperature": 0, "seed": 0}


class ServerError(AtlasError):
    """The server cannot be reached, or does not answer."""


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
        """The model's answer. Raises `ServerError` if there is none; called from several threads."""


class OpenAIServer:
    """A server with OpenAI's chat API: theirs, vLLM, llama.cpp, Ollama, ….

    Raises `ConfigurationError` if the package openai is not installed.
    """

    def __init__(self, address: str, name: str) -> None:
        try:
            import openai
        except ImportError:
            raise ConfigurationError("explain requires the package openai: install atlas-builder[explain].") from None
        self.address, self.name = address, name
        # Any other response, such as a page of HTML, fails where its parts are accessed.
        self._errors = (openai.OpenAIError, AttributeError, IndexError, ValueError)
        self._refused = openai.BadRequestError
        key = os.environ.get("OPENAI_API_KEY") or "none"  # local servers need none
        try:
            self._client = openai.OpenAI(base_url=address, api_key=key, timeout=_SECONDS)
        except Exception as error:  # the HTTP library below it raises its own kinds
            raise ConfigurationError(f"--server: {address} is not a valid address ({error}).") from None

    def ask(self, question: str) -> str:
        """The model's answer, as deterministic as the server allows."""
        try:
            try:
                answer = self._answer(question, **_DETERMINISTIC)
            except self._refused as error:
                if not any(setting in str(error) for setting in _DETERMINISTIC):
                    raise
                answer = self._answer(question)  # some models refuse these settings
        except self._errors as error:
            reason = (str(error).strip().splitlines() or [""])[0][:200]
            raise ServerError(
                f"{self.address} does not answer ({reason}): check the address, model and key."
            ) from error
        if not answer:
            raise ServerError(f"{self.address}: {self.name} returned an empty answer: check the model and try again.")
        return answer

    def _answer(self, question: str, **settings: int) -> str:
        messages = [{"role": "user", "content": question}]
        completion = self._client.chat.completions.create(model=self.name, messages=messages, **settings)
        return str(completion.choices[0].message.content or "")
