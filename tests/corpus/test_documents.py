from __future__ import annotations

import bz2
import gzip
import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from atlas_builder.config import CorpusSettings
from atlas_builder.corpus.documents import MOST_CHARACTERS, Skipped, check_corpus, documents
from atlas_builder.errors import ConfigurationError, CorpusError


def _jsonl(folder: Path, *lines: str) -> CorpusSettings:
    path = folder / "c.jsonl"
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return CorpusSettings(source="jsonl", path=str(path))


def test_the_standard_library_gives_topics_docstrings_and_source_in_one_order() -> None:
    first = list(documents(CorpusSettings(source="stdlib")))
    assert [document.name for document in first] == [
        document.name for document in documents(CorpusSettings(source="stdlib"))
    ]
    by_name = {document.name: document.text for document in first}
    assert len(by_name) == len(first)
    assert "for" in by_name["topic:for"]
    assert "def dumps" in by_name["source:json.__init__"]
    assert "Return the arc cosine" in by_name["docs:math"]
    assert not any(".test." in name or "sysconfigdata" in name for name in by_name)
    kinds = [name.split(":")[0] for name in list(by_name)[:100]]
    assert set(kinds) == {"topic", "source", "docs"}, "any first part is a mixture"


def test_a_folder_of_texts_is_read_in_the_order_of_names(tmp_path: Path) -> None:
    (tmp_path / "b.txt").write_text("second", encoding="utf-8")
    (tmp_path / "a.txt").write_bytes(b"first \xff byte")
    (tmp_path / "c.md").write_text("not text", encoding="utf-8")
    found = list(documents(CorpusSettings(source="text", path=str(tmp_path))))
    assert [document.name for document in found] == ["a.txt", "b.txt"]
    assert found[0].text == "first \ufffd byte"


def test_a_broken_line_is_named_by_file_and_number(tmp_path: Path) -> None:
    corpus = _jsonl(tmp_path, '{"text": "good"}', '{"text": ')
    with pytest.raises(CorpusError, match=r"c\.jsonl, line 2 is not JSON"):
        list(documents(corpus))


@pytest.mark.parametrize("line", ['{"body": "x"}', "[1]", '{"text": 3}'])
def test_a_line_without_text_is_named(tmp_path: Path, line: str) -> None:
    with pytest.raises(CorpusError, match="line 1 has no text field 'text'"):
        list(documents(_jsonl(tmp_path, line)))


def test_broken_lines_can_be_skipped_and_are_counted(tmp_path: Path) -> None:
    corpus = _jsonl(tmp_path, "nonsense", '{"text": "good"}', "", '{"no": 1}').model_copy(update={"on_error": "skip"})
    skipped = Skipped()
    assert [document.text for document in documents(corpus, skipped)] == ["good"]
    assert skipped.lines == 2


def test_a_missing_corpus_and_an_empty_one_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match=r"corpus\.path: .* does not exist"):
        list(documents(CorpusSettings(source="text", path=str(tmp_path / "none"))))
    with pytest.raises(CorpusError, match="contains no text"):
        list(documents(CorpusSettings(source="text", path=str(tmp_path))))
    with pytest.raises(CorpusError, match="contains no text"):
        list(documents(_jsonl(tmp_path, '{"text": "  "}')))


def test_a_folder_where_a_file_is_wanted_and_a_bottomless_line_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="is a folder: source jsonl reads one file"):
        list(documents(CorpusSettings(source="jsonl", path=str(tmp_path))))
    with pytest.raises(CorpusError, match="line 1 is not JSON"):
        list(documents(_jsonl(tmp_path, "[" * 200_000)))


@pytest.mark.parametrize(
    "line",
    [
        b'{"text": "\xff\xfe"}',
        b'{"text": ' + b"[" * 100_000 + b"]" * 100_000 + b"}",
        b'{"text": "x", "more": [' + b"[]," * 1_100_000 + b"1]}",
        b'{"text": "' + b"x" * 20_000_000 + b'"}',
        b'{"text": ' + b"9" * 5000 + b"}",
        b'{"text": NaN}',
        b'{"text": null}',
        b'{"text": ["a"]}',
        b"{" + b"k" * 5000,
    ],
    ids=range(9),
)
def test_a_line_that_holds_no_text_is_named_in_one_short_sentence_or_skipped(tmp_path: Path, line: bytes) -> None:
    path = tmp_path / ("c" * 240 + ".jsonl")
    path.write_bytes(b'{"text": "good"}\n' + line + b'\n{"text": "better"}\n')
    corpus = CorpusSettings(source="jsonl", path=str(path))
    with pytest.raises(CorpusError, match="line 2 ") as caught:
        list(documents(corpus))
    assert len(str(caught.value)) <= 300
    skipped = Skipped()
    kept = list(documents(corpus.model_copy(update={"on_error": "skip"}), skipped))
    assert [document.text for document in kept] == ["good", "better"]
    assert skipped.lines == 1


@pytest.mark.parametrize(
    "content",
    [
        gzip.compress(b"a text", mtime=0), bz2.compress(b"a text"), b"PAR1 rows PAR1",
        b"%PDF-1.7 text", b"PK\x03\x04 archive",
        "text".encode("utf-16"), "\u4e2d\u6587".encode("utf-16-be"),
        "\u043f\u0440\u0438\u0432\u0435\u0442".encode("cp1251"),
        b"text " * 2000 + b"\0", bytes(range(256)),
    ],
)  # fmt: skip
@pytest.mark.parametrize("source", ["text", "jsonl"])
def test_a_file_that_is_not_what_it_is_named_is_refused(tmp_path: Path, content: bytes, source: str) -> None:
    path = tmp_path / "c.txt"
    path.write_bytes(content)
    with pytest.raises(CorpusError, match=r"c\.txt"):
        list(documents(CorpusSettings(source="text" if source == "text" else "jsonl", path=str(path))))


def test_pipes_and_devices_are_refused_and_folders_with_a_name_of_a_file_are_opened(tmp_path: Path) -> None:
    (tmp_path / "a.txt").mkdir()
    (tmp_path / "a.txt" / "b.txt").write_text("inner", encoding="utf-8")
    corpus = CorpusSettings(source="text", path=str(tmp_path))
    assert [document.name for document in documents(corpus)] == ["a.txt/b.txt"]
    os.mkfifo(tmp_path / "pipe.txt")
    with pytest.raises(CorpusError, match="device or a pipe"):
        list(documents(corpus))
    for place in (tmp_path / "pipe.txt", Path("/dev/zero")):
        for given in (CorpusSettings(source="text", path=str(place)), CorpusSettings(source="jsonl", path=str(place))):
            with pytest.raises(ConfigurationError, match="device or a pipe"):
                check_corpus(given)


def test_a_long_text_comes_in_parts_that_joined_are_the_text(tmp_path: Path) -> None:
    lines = "".join(f"line {number}\n" for number in range(200_000))
    for text in (lines, "word " * 500_000, "x" * 2_500_000):
        (tmp_path / "a.txt").write_text(text, encoding="utf-8")
        found = list(documents(CorpusSettings(source="text", path=str(tmp_path))))
        assert [document.name for document in found[:2]] == ["a.txt", "a.txt (part 2)"]
        assert "".join(document.text for document in found) == text
        assert all(len(document.text) <= MOST_CHARACTERS for document in found)
        in_line = list(documents(_jsonl(tmp_path, json.dumps({"text": text}))))
        assert [document.text for document in in_line] == [document.text for document in found]
    assert all(document.text.endswith(("\n", "x")) for document in found)


def test_lone_surrogates_are_replaced(tmp_path: Path) -> None:
    (found,) = documents(_jsonl(tmp_path, json.dumps({"text": "a \ud800 b"})))
    assert found.text.encode("utf-8").decode("utf-8").replace("\ufffd", "") == "a  b"


def test_a_hub_data_set_is_streamed_at_its_revision(monkeypatch: pytest.MonkeyPatch) -> None:
    datasets = pytest.importorskip("datasets")
    asked: dict[str, Any] = {}

    def load_dataset(name: str, **options: Any) -> Iterator[dict[str, str]]:
        asked.update(name=name, **options)
        return iter([{"body": "one"}, {"body": "two"}])

    monkeypatch.setattr(datasets, "load_dataset", load_dataset)
    corpus = CorpusSettings(source="huggingface", name="a/b", revision="abc", field="body")
    assert [document.text for document in documents(corpus)] == ["one", "two"]
    assert asked == {"name": "a/b", "split": "train", "revision": "abc", "streaming": True}
    with pytest.raises(CorpusError, match=r"set corpus\.field to one of body"):
        list(documents(corpus.model_copy(update={"field": "text"})))


def test_a_hub_that_cannot_be_reached_is_one_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    datasets = pytest.importorskip("datasets")

    def load_dataset(*_: Any, **__: Any) -> None:
        raise ConnectionError("no route\nand a long story")

    monkeypatch.setattr(datasets, "load_dataset", load_dataset)
    with pytest.raises(CorpusError, match="check the name, the split and the network") as caught:
        list(documents(CorpusSettings(source="huggingface", name="a/b", revision="abc")))
    assert "long story" not in str(caught.value)
