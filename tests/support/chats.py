"""A tiny chat model, and conversations for it."""

from __future__ import annotations

import json
import random
import shutil
from concurrent.futures import Executor
from pathlib import Path
from typing import Any

import pytest

from atlas_builder.pipeline.build import build
from tests.support.atlases import WORDS, Configure, Once

ROLES = ["user", "system"]
"""Names of roles, which are words of messages too."""
TEMPLATE = (
    "{% for message in messages %}"
    "{% if not loop.first and messages[loop.index0 - 1]['role'] == message['role'] %}"
    "{{ raise_exception('Conversation roles must alternate') }}{% endif %}"
    "{% if loop.first and message['role'] != 'system' %}"
    "{{ bos_token + 'system\\nBe of use.' + eos_token + '\\n' }}{% endif %}"
    "{{ bos_token + message['role'] + '\\n' + message['content'] | trim + eos_token + '\\n' }}"
    "{% endfor %}"
)
"""As ChatML, with a system prompt of its own where none is given; the tokens of beginning and end are one."""


def put_template(folder: Path, template: str | None = TEMPLATE) -> Path:
    """Give the tokenizer of a model a chat template, or take it away."""
    file = folder / "tokenizer_config.json"
    settings = json.loads(file.read_text(encoding="utf-8"))
    settings.pop("chat_template", None)
    if template is not None:
        settings["chat_template"] = template
    file.write_text(json.dumps(settings), encoding="utf-8")
    (folder / "chat_template.jinja").unlink(missing_ok=True)
    return folder


def conversations(count: int = 40) -> list[dict[str, Any]]:
    """Lines of conversations, some in ShareGPT's form, some a text alone, with contents that roles are in."""
    chance = random.Random(1)
    lines: list[dict[str, Any]] = []
    for number in range(count):
        said = [" ".join(chance.choices([*WORDS, *ROLES], k=4 + number % 17)) for _ in range(2 + number % 3)]
        if number % 5 == 4:
            lines.append({"talk": " ".join(said)})
        elif number % 5 == 3:
            roles = ("human", "gpt")
            lines.append({"talk": [{"from": roles[turn % 2], "value": text} for turn, text in enumerate(said)]})
        else:
            roles = ("user", "assistant")
            turns = [{"role": roles[turn % 2], "content": f" {text}\n"} for turn, text in enumerate(said)]
            system = [{"role": "system", "content": "Speak of caf\u00e9s, the user asks."}] if number % 3 == 0 else []
            lines.append({"talk": [*system, *turns]})
    return lines


def write_lines(path: Path, lines: list[Any]) -> Path:
    """A file with a line of JSON for each."""
    path.write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")
    return path


@pytest.fixture(scope="session")
def chat_folder(gpt2_folder: Path, once: Once) -> Path:
    """The tiny GPT-2 with a chat template."""
    return once("tiny-chat", lambda folder: put_template(Path(shutil.copytree(gpt2_folder, folder))))


@pytest.fixture(scope="session")
def configure_chat(configure: Configure, chat_folder: Path, once: Once) -> Configure:
    """A configuration of a tiny atlas of conversations, with sections to change."""

    def write(folder: Path) -> None:
        folder.mkdir()
        write_lines(folder / "talks.jsonl", conversations())

    corpus = {"path": str(once("talks", write) / "talks.jsonl"), "field": "talk", "chat": True}

    def make(**sections: dict[str, Any]) -> Any:
        changed = {name: sections.get(name, {}) for name in {"atlas", "model", "corpus", *sections}}
        changed["atlas"] = {"id": "chat", **changed["atlas"]}
        changed["model"] = {"name": str(chat_folder), **changed["model"]}
        changed["corpus"] = {**corpus, **changed["corpus"]}
        return configure(**changed)

    return make


@pytest.fixture(scope="session")
def chat_site(configure_chat: Configure, pool: Executor, once: Once) -> Path:
    """A built atlas of conversations; tests read it, none writes to it."""
    return once("chat", lambda output: build(configure_chat(), output, executor=pool))
