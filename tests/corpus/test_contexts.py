from __future__ import annotations

from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import AutoTokenizer

from atlas_builder.corpus import contexts
from atlas_builder.corpus.documents import Document
from atlas_builder.corpus.token_text import join_tokens, token_texts
from atlas_builder.errors import ConfigurationError
from atlas_builder.rerun import borders
from atlas_builder.shipped import MODEL

DEMO = AutoTokenizer.from_pretrained(MODEL)
DEMO_TEXTS = token_texts(DEMO)

token_lists = st.lists(st.lists(st.integers(1, 50), max_size=40), min_size=1, max_size=12)


def _write(documents: list[list[int]], folder: Path, **options: object) -> contexts.Contexts:
    named = [Document(f"d{number}", str(number)) for number in range(len(documents))]
    return contexts.write_contexts(
        named,
        lambda texts: [documents[int(text)] for text in texts],
        folder,
        **options,  # type: ignore[arg-type]
    )


@settings(max_examples=60, deadline=None)
@given(token_lists, st.integers(2, 9), st.booleans())
def test_contexts_joined_are_the_documents(documents: list[list[int]], context: int, has_bos: bool) -> None:
    with TemporaryDirectory() as folder:
        found = _write(documents, Path(folder), context=context, bos=0 if has_bos else None)
        rebuilt: dict[str, list[int]] = {}
        for number in range(len(found)):
            text = found.text_of(number)
            name = found.names[found.document[number]]
            assert 1 <= len(text) <= context - has_bos
            assert len(rebuilt.setdefault(name, [])) == found.offset[number]
            rebuilt[name] += text.tolist()
        assert rebuilt == {f"d{number}": tokens for number, tokens in enumerate(documents) if tokens}
        assert found.token_count == sum(map(len, documents))


@settings(max_examples=60, deadline=None)
@given(token_lists, st.integers(2, 9), st.integers(1, 60))
def test_batches_hold_every_context_once_and_none_is_padded(
    documents: list[list[int]], context: int, at_once: int
) -> None:
    with TemporaryDirectory() as folder:
        found = _write(documents, Path(folder), context=context, bos=0)
        met: list[int] = []
        for batch in found.batches(at_once):
            rows = found.stack(batch)
            assert (rows[:, 0] == 0).all()
            assert len(batch) == 1 or rows[:, 1:].size <= at_once
            for number, row in zip(batch, rows, strict=True):
                np.testing.assert_array_equal(row[1:], found.text_of(int(number)))
            met += batch.tolist()
        assert sorted(met) == list(range(len(found)))


def test_a_corpus_is_cut_at_its_limits(tmp_path: Path) -> None:
    documents = [[1] * 10, [2] * 10, [3] * 10]
    assert _write(documents, tmp_path / "a", context=4, bos=None, max_tokens=13).token_count == 13
    assert _write(documents, tmp_path / "b", context=4, bos=None, max_documents=2).token_count == 20
    assert contexts.read_contexts(tmp_path / "a").sha256 != contexts.read_contexts(tmp_path / "b").sha256


def test_equal_tokens_in_other_documents_are_another_corpus(tmp_path: Path) -> None:
    one = _write([[1, 2], [3]], tmp_path / "a", context=4, bos=None)
    two = _write([[1], [2, 3]], tmp_path / "b", context=4, bos=None)
    assert one.sha256 != two.sha256


@settings(max_examples=60, deadline=None)
@given(st.lists(st.text(st.sampled_from("a b東京猫é😂"), max_size=20), min_size=1, max_size=5), st.integers(5, 12))
def test_contexts_end_where_characters_do(written: list[str], context: int) -> None:
    documents = [DEMO(text, add_special_tokens=False)["input_ids"] for text in written]
    with TemporaryDirectory() as folder:
        found = _write(documents, Path(folder), context=context, bos=0, texts=DEMO_TEXTS)
        joined = [""] * len(written)
        for number in range(len(found)):
            text = join_tokens([DEMO_TEXTS[token] for token in found.text_of(number)])
            assert "<0x" not in text
            joined[int(found.names[found.document[number]][1:])] += text
        assert joined == written
        read = [*DEMO_TEXTS, *found.characters]
        if found.reads is not None:
            assert not any("<0x" in read[number] for number in found.reads)


def test_a_corpus_that_is_cut_ends_with_a_whole_character(tmp_path: Path) -> None:
    documents = [
        DEMO("東京", add_special_tokens=False)["input_ids"],
        DEMO("cat", add_special_tokens=False)["input_ids"],
    ]
    found = _write(documents, tmp_path, context=8, bos=None, texts=DEMO_TEXTS, max_tokens=5)
    assert join_tokens([DEMO_TEXTS[token] for token in found.tokens]) == "東"


FAMILY = "\U0001f468\u200d\U0001f469\u200d\U0001f467"
"""One character of five code points, 18 bytes."""


@given(st.lists(st.sampled_from(["a", "猫", "é", "e\u0301", FAMILY, "\u0928\u092e\u0938\u094d\u0924"]), max_size=9),
       st.integers(5, 9), st.integers(4, 40))  # fmt: skip
def test_a_character_longer_than_a_context_is_cut_between_code_points_alike_by_both(
    parts: list[str], context: int, most: int
) -> None:
    ids = DEMO("x" + "".join(parts), add_special_tokens=False)["input_ids"]
    with TemporaryDirectory() as folder:
        found = _write([ids, ids], Path(folder), context=context, bos=0, texts=DEMO_TEXTS, max_tokens=most)
        cut = [[DEMO_TEXTS[token] for token in found.text_of(number)] for number in range(len(found))]
    assert not any("<0x" in join_tokens(tokens) for tokens in cut)
    assert all(len(tokens) < context for tokens in cut)
    begins = borders.borders([DEMO_TEXTS[token] for token in ids])
    kept = [len(ids) if most >= len(ids) else borders.room_for(begins, 0, most)]
    kept.append(len(ids) if most >= 2 * len(ids) else borders.room_for(begins, 0, max(0, most - len(ids))))
    spans = [end - start for length in kept for start, end in borders.contexts_of(begins, length, context - 1)]
    assert [len(tokens) for tokens in cut] == spans


@pytest.mark.parametrize(("key", "context", "most"), [("context", 3, None), ("max_tokens", 32, 2)])
def test_a_context_or_corpus_too_short_for_a_letter_is_refused(
    tmp_path: Path, key: str, context: int, most: int | None
) -> None:
    with pytest.raises(ConfigurationError, match=rf"corpus\.{key}: a character .* set corpus\.{key} to at least 8"):
        _write(
            [DEMO("猫が東", add_special_tokens=False)["input_ids"]], tmp_path, context=context, bos=0,
            texts=DEMO_TEXTS, max_tokens=most,
        )  # fmt: skip


def test_a_text_in_ascii_needs_no_table_of_characters(tmp_path: Path) -> None:
    found = _write([DEMO("a cat", add_special_tokens=False)["input_ids"]], tmp_path, context=8, bos=0, texts=DEMO_TEXTS)
    assert found.begins is None
    assert found.reads is None
    assert not (tmp_path / "begins.b1").exists()
