"""Documents that are conversations, from every source, and lines that are none."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from atlas_builder.config import CorpusSettings
from atlas_builder.config_file import validate
from atlas_builder.corpus import documents as module
from atlas_builder.corpus.documents import Document, Skipped, documents
from atlas_builder.corpus.messages import Message
from atlas_builder.errors import ConfigurationError, CorpusError
from tests.support.chats import write_lines

_TALK = [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Hello"}]
_SAID = (Message("user", "Hi"), Message("assistant", "Hello"))


def _read(path: Path, skipped: Skipped | None = None, **settings: Any) -> list[Document]:
    corpus = {"source": "jsonl", "path": str(path), "field": "talk", "chat": True, **settings}
    return list(documents(CorpusSettings.model_validate(corpus), skipped))


@pytest.mark.parametrize(
    "line",
    [
        {"talk": _TALK},
        {"talk": [{"from": "human", "value": "Hi"}, {"from": "gpt", "value": "Hello"}]},
        {"talk": [{**one, "from": None, "value": None} for one in _TALK], "id": 3},
        _TALK,
    ],
)
def test_messages_have_a_role_and_a_content_by_either_name(tmp_path: Path, line: Any) -> None:
    assert [one.messages for one in _read(write_lines(tmp_path / "a.jsonl", [line]))] == [_SAID]


def test_a_text_is_one_message_of_a_user_from_every_source(tmp_path: Path) -> None:
    path = write_lines(
        tmp_path / "a.jsonl", [{"talk": "Hi"}, "there", {"talk": " "}, {"talk": [{"role": "user", "content": " "}]}]
    )
    assert [one.messages for one in _read(path)] == [(Message("user", "Hi"),), (Message("user", "there"),)]
    (tmp_path / "a.txt").write_text("Hi", encoding="utf-8")
    assert [one.messages for one in _read(tmp_path / "a.txt", source="text")] == [(Message("user", "Hi"),)]
    of_python = next(documents(CorpusSettings(source="stdlib", chat=True)))
    assert [one.role for one in of_python.messages] == ["user"]


def test_a_table_may_hold_lists_of_messages(tmp_path: Path) -> None:
    pq.write_table(pa.table({"talk": [_TALK, _TALK[:1]], "year": [1, 2]}), tmp_path / "a.parquet")
    found = _read(tmp_path / "a.parquet", source="parquet", attributes=["year"])
    assert [(one.messages, one.attributes) for one in found] == [(_SAID, {"year": "1"}), (_SAID[:1], {"year": "2"})]


@pytest.mark.parametrize(
    ("talk", "said"),
    [
        ([], "has an empty list of messages"),
        (["Hi"], "has a str as message 1"),
        (
            [_TALK[0], {"content": "Hi"}],
            r"has no 'role' in message 2 \(a message is \{role, content\} or \{from, value\}",
        ),
        ([{"role": 3, "content": "Hi"}], "has a number as 'role' in message 1"),
        ([{"role": "user"}], "has no 'content' in message 1, of role user"),
        ([{"from": "human", "value": ["Hi"]}], "has a list as 'value' in message 1, of role human"),
        (None, r"has no text and no list of messages in field 'talk' \(it is null; corpus.field may be other\)"),
        (7, "has no text and no list of messages in field 'talk'"),
    ],
)
def test_a_line_that_is_no_conversation_is_one_sentence_or_skipped(tmp_path: Path, talk: Any, said: str) -> None:
    path = write_lines(tmp_path / "a.jsonl", [{"talk": _TALK}, {"talk": talk, "other": "text"}])
    with pytest.raises(CorpusError, match=f"line 2 {said}.*: fix the line, or set corpus.on_error to skip"):
        _read(path)
    skipped = Skipped()
    assert len(_read(path, skipped, on_error="skip")) == skipped.lines == 1


def test_a_conversation_too_long_for_a_tokenizer_is_refused_but_a_text_divided(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "MOST_CHARACTERS", 6)
    path = write_lines(tmp_path / "a.jsonl", [{"talk": "Hi\\nthere"}, {"talk": _TALK}])
    skipped = Skipped()
    assert len(_read(path, skipped, on_error="skip")) == 2
    with pytest.raises(CorpusError, match="has messages of more than 6 characters together"):
        _read(path)


def test_a_hub_data_set_may_hold_lists_of_messages(monkeypatch: pytest.MonkeyPatch) -> None:
    datasets = pytest.importorskip("datasets")
    rows = [{"talk": _TALK}, {"talk": []}, {"talk": "Hi"}]
    monkeypatch.setattr(datasets, "load_dataset", lambda *_, **__: iter(rows))
    corpus = {"source": "huggingface", "name": "a/b", "revision": "abc", "field": "talk", "chat": True}
    found = list(documents(CorpusSettings.model_validate({**corpus, "on_error": "skip"})))
    assert [(one.name, one.messages) for one in found] == [("a/b:0", _SAID), ("a/b:2", _SAID[:1])]
    with pytest.raises(CorpusError, match="row 1 has an empty list of messages"):
        list(documents(CorpusSettings.model_validate(corpus)))


def test_messages_without_chat_are_refused_with_the_setting_that_reads_them(tmp_path: Path) -> None:
    path = write_lines(tmp_path / "a.jsonl", [{"talk": _TALK}])
    with pytest.raises(CorpusError, match=r"it is a list, of messages where corpus\.chat is true"):
        _read(path, chat=False)


def test_without_chat_nothing_of_a_configuration_is_other_than_it_was() -> None:
    data = {"model": {"name": "demo"}, "corpus": {"source": "stdlib"}}
    assert "chat" not in validate(data).model_dump()["corpus"]
    chat = validate({**data, "corpus": {"source": "stdlib", "chat": True}})
    assert chat.model_dump()["corpus"]["chat"] is True
    assert validate(json.loads(json.dumps(chat.model_dump()))) == chat


@pytest.mark.parametrize("sections", [{"units": {"kind": "basis"}}, {"interaction": {"report": True}}])
def test_directions_are_of_plain_text(sections: dict[str, Any]) -> None:
    with pytest.raises(
        ConfigurationError, match=r"corpus\.chat: directions of what enters each MLP are found on plain text"
    ):
        validate({"model": {"name": "demo"}, "corpus": {"source": "stdlib", "chat": True}, **sections})
