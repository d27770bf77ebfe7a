"""Conversations through a chat template: whose each token is, twice found, and what is refused."""

from __future__ import annotations

import functools
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import AutoTokenizer

from atlas_builder.config import CorpusSettings
from atlas_builder.corpus.context_files import ChatTokens
from atlas_builder.corpus.documents import Document, Skipped
from atlas_builder.corpus.messages import Message
from atlas_builder.errors import ConfigurationError, CorpusError
from atlas_builder.models.chat import ChatTemplate
from atlas_builder.models.language_model import LanguageModel
from atlas_builder.rerun.chat import Conversations
from atlas_builder.shipped import MODEL
from tests.support.chats import TEMPLATE

_PLAIN = "{% for m in messages %}[{{ m['role'] }}] {{ m['content'] }}\n{% endfor %}"
# As Llama 2 has it: a system prompt stands within the first message of the user.
_WITHIN = (
    "{% set system = messages[0]['content'] if messages[0]['role'] == 'system' else '' %}"
    "{% for m in messages %}{% if m['role'] == 'user' %}"
    "[INST] {{ system if loop.index0 < 2 }} {{ m['content'] | trim }} [/INST]"
    "{% elif m['role'] != 'system' %}{{ m['content'] }}{{ eos_token }}{% endif %}{% endfor %}"
)
# As reasoning models have it: what was thought is not repeated.
_THOUGHT = "{% for m in messages %}<{{ m['role'] }}>{{ m['content'].split('</think>')[-1].strip() }}{% endfor %}<end>"
TEMPLATES = {"turns": TEMPLATE, "plain": _PLAIN, "within": _WITHIN, "thought": _THOUGHT}
_CORPUS = CorpusSettings(source="stdlib", chat=True)


@functools.cache
def _tokenizer(template: str) -> Any:
    tokenizer = AutoTokenizer.from_pretrained(MODEL)
    tokenizer.chat_template = TEMPLATES.get(template, template)
    return tokenizer


def _template(template: str) -> ChatTemplate:
    bridge = SimpleNamespace(cfg=SimpleNamespace(d_vocab=1 << 20))
    tokenizer = _tokenizer(template)
    return ChatTemplate(LanguageModel(bridge, tokenizer), tokenizer.bos_token_id)


def _rendered(template: str, messages: Sequence[Message], corpus: CorpusSettings = _CORPUS) -> Document:
    stream: Iterator[Document] = iter([Document("one", "", messages=tuple(messages))])
    return next(_template(template).rendered(stream, corpus, Skipped()))


_texts = st.one_of(
    st.sampled_from(
        ["user", "a", " b\n", "[INST]", "assistant\n", "caf\u00e9 \u4e2d\u6587", "<|endoftext|>", "a</think>b", " "]
    ),
    st.text(st.characters(exclude_categories=["Cs"]), max_size=20),
)


@st.composite
def _conversations(draw: st.DrawFn) -> list[Message]:
    contents = draw(st.lists(_texts, min_size=1, max_size=5))
    system = [Message("system", draw(_texts))] if draw(st.booleans()) else []
    return [*system, *(Message(("user", "assistant")[turn % 2], text) for turn, text in enumerate(contents))]


@settings(max_examples=80, deadline=None)
@given(st.sampled_from(["turns", "plain"]), _conversations())
def test_each_message_stands_in_the_text_where_its_content_does(template: str, messages: list[Message]) -> None:
    document = _rendered(template, messages)
    form = str.strip if template == "turns" else str
    said = [Message(one.role, form(one.content)) for one in messages if one.content.strip()]
    assert [Message(turn.role, document.text[turn.first : turn.last]) for turn in document.turns] == said


@settings(max_examples=120, deadline=None)
@given(st.sampled_from(sorted(TEMPLATES)), _conversations())
def test_tokens_are_of_the_messages_that_they_have_characters_of(template: str, messages: list[Message]) -> None:
    document, tokenizer = _rendered(template, messages), _tokenizer(template)
    whole = tokenizer(document.text, add_special_tokens=False, return_offsets_mapping=True)
    ids, offsets = list(whole["input_ids"]), list(whole["offset_mapping"])
    if ids[:1] == [tokenizer.bos_token_id]:
        ids, offsets = ids[1:], offsets[1:]
    found = _template(template).encode([document])[0]
    assert found.ids == ids
    for token, (first, last), role, special in zip(ids, offsets, found.roles, found.special.tolist(), strict=True):
        of = [turn.role for turn in document.turns if turn.first < max(last, first + 1) and turn.last > first]
        assert role == (of[0] if of else "")
        assert special == (not of or token in tokenizer.all_special_ids)


@settings(max_examples=120, deadline=None)
@given(st.sampled_from(sorted(TEMPLATES)), _conversations())
def test_verify_finds_the_same_by_its_own_way(template: str, messages: list[Message]) -> None:
    if not any(one.content.strip() for one in messages):
        return  # which is no document
    tokenizer = _tokenizer(template)
    found: ChatTokens = _template(template).encode([_rendered(template, messages)])[0]
    again = Conversations(tokenizer, [tokenizer.bos_token_id]).read(messages)
    assert again is not None
    assert (again.ids, again.roles) == (found.ids, found.roles)
    assert again.special == found.special.tolist()


def test_a_template_that_writes_todays_date_writes_the_same_every_day() -> None:
    today = "\n{% if strftime_now is defined %}Today is {{ strftime_now('%d %b %Y') }}.{% endif %}"
    template = today + "{{ messages[0]['content'] }}"
    assert _rendered(template, [Message("user", "hello")]).text == "\nToday is 26 Jul 2024.hello"


def test_what_was_thought_and_not_repeated_is_in_no_turn() -> None:
    document = _rendered("thought", [Message("user", "why?"), Message("assistant", "<think>hm</think> so.")])
    assert [document.text[turn.first : turn.last] for turn in document.turns] == ["why?", "so."]


_TWICE = [Message("user", "one"), Message("user", "two")]


def test_a_document_that_the_template_does_not_take_is_named_with_what_it_says() -> None:
    said = r"does not take document one \(Conversation roles must alternate\): mend its messages, or set corpus\.on_err"
    with pytest.raises(CorpusError, match=said):
        _rendered("turns", _TWICE)


def test_such_documents_are_counted_where_they_may_be_skipped_but_not_all_of_them() -> None:
    corpus, skipped = _CORPUS.model_copy(update={"on_error": "skip"}), Skipped()
    stream = [Document("a", "", messages=tuple(_TWICE)), Document("b", "", messages=(Message("user", "one"),))]
    assert [document.name for document in _template("turns").rendered(iter(stream), corpus, skipped)] == ["b"]
    assert skipped.lines == 1
    with pytest.raises(CorpusError, match="takes none of the documents"):
        list(_template("turns").rendered(iter(stream[:1]), corpus, skipped))


def test_a_model_without_a_template_and_one_of_several_without_a_default_are_refused() -> None:
    for without in (None, {"tool_use": "x", "rag": "y"}):
        tokenizer = AutoTokenizer.from_pretrained(MODEL)
        tokenizer.chat_template = without
        with pytest.raises(ConfigurationError, match=r"has no chat template: choose a chat model, or set corpus\.chat"):
            ChatTemplate(LanguageModel(None, tokenizer), 0)


def test_a_tokenizer_that_knows_no_places_is_refused(tmp_path: Path) -> None:
    tokenizer = SimpleNamespace(get_chat_template=lambda: "x", is_fast=False, name_or_path=str(tmp_path / "slow"))
    with pytest.raises(
        ConfigurationError, match=r"slow does not say where its tokens stand in a text: put a tokenizer"
    ):
        ChatTemplate(LanguageModel(None, tokenizer), 0)
