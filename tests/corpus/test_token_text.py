from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers
from transformers import AutoTokenizer, PreTrainedTokenizerFast

from atlas_builder.corpus.token_text import join_bytes, join_tokens, token_texts
from atlas_builder.shipped import MODEL

DEMO = AutoTokenizer.from_pretrained(MODEL)
DEMO_TEXTS = token_texts(DEMO)


@settings(max_examples=150, deadline=None)
@given(st.text(st.characters(exclude_categories=["Cs"]), max_size=60))
def test_the_tokens_of_any_text_joined_read_as_the_text(text: str) -> None:
    ids = DEMO(text, add_special_tokens=False)["input_ids"]
    assert join_tokens([DEMO_TEXTS[token] for token in ids]) == text


def test_a_part_of_a_character_reads_as_its_bytes() -> None:
    ids = DEMO("\u2603", add_special_tokens=False)["input_ids"]
    assert "".join(DEMO_TEXTS[token] for token in ids) == "<0xE2><0x98><0x83>"
    assert join_bytes("a <0xE2><0x98><0x83> b <0xE2>") == "a \u2603 b <0xE2>"


def test_a_text_that_begins_and_ends_within_a_character_keeps_those_between() -> None:
    assert join_tokens(["<0x9D>", "<0xB1>", "<0xE4>", "<0xBA>", "<0xAC>", "<0xE9>"]) == "<0x9D><0xB1>京<0xE9>"


@pytest.mark.parametrize("word", ["naïve", "東京", "two words", "<|im_start|>", "Ġhello"])
def test_an_added_token_reads_as_itself(word: str) -> None:
    tokenizer = AutoTokenizer.from_pretrained(MODEL)
    tokenizer.add_tokens([word])
    assert token_texts(tokenizer)[tokenizer.convert_tokens_to_ids(word)] == word


def test_rows_that_no_token_has_are_empty() -> None:
    assert token_texts(DEMO, len(DEMO) + 3)[-3:] == ["", "", ""]


def test_special_tokens_read_as_written() -> None:
    assert DEMO_TEXTS[DEMO.bos_token_id] == "<|endoftext|>"


@pytest.fixture(scope="module")
def sentencepiece_like() -> PreTrainedTokenizerFast:
    """Metaspace with byte fallback and a decoder that strips the first space, as Llama 2 has."""
    tokenizer = Tokenizer(models.BPE(byte_fallback=True, unk_token="<unk>"))
    tokenizer.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    tokenizer.decoder = decoders.Sequence(
        [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    )
    tokenizer.pre_tokenizer = pre_tokenizers.Split("\x00", "isolated")
    trainer = trainers.BpeTrainer(
        vocab_size=340,
        special_tokens=["<unk>", "<s>", *(f"<0x{byte:02X}>" for byte in range(256))],
        show_progress=False,
    )
    tokenizer.train_from_iterator(["a cat sat on a mat and a hat"] * 3, trainer)
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, bos_token="<s>", unk_token="<unk>")


def test_a_sentencepiece_token_keeps_its_space_and_bytes(sentencepiece_like: PreTrainedTokenizerFast) -> None:
    texts = token_texts(sentencepiece_like)
    ids = sentencepiece_like(" cat on\n mat", add_special_tokens=False)["input_ids"]
    assert "".join(texts[token] for token in ids).lstrip() == "cat on\n mat"
    assert texts[sentencepiece_like.convert_tokens_to_ids("<0x0A>")] == "\n"
    assert texts[sentencepiece_like.convert_tokens_to_ids("<0xE2>")] == "<0xE2>"
    assert any(text.startswith(" ") for text in texts)
