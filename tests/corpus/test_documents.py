from __future__ import annotations

import bz2
import gzip
import json
import lzma
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from atlas_builder.config import CorpusSettings
from atlas_builder.corpus.documents import MOST_CHARACTERS, Skipped, check_corpus, documents
from atlas_builder.errors import ConfigurationError, CorpusError


def _unpacked(content: bytes) -> bytes:
    return content


def _zstd_compressed(content: bytes) -> bytes:
    return bytes(pa.Codec("zstd").compress(content, asbytes=True))


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


def test_a_folder_of_texts_is_read_in_the_order_of_names_and_other_files_are_said(tmp_path: Path) -> None:
    (tmp_path / "b.TXT").write_text("second", encoding="utf-8")
    (tmp_path / "a.txt").write_text("first", encoding="utf-8")
    (tmp_path / "c.md").write_text("third", encoding="utf-8")
    (tmp_path / "d.html").write_text("<p>fourth", encoding="utf-8")
    (tmp_path / ".hidden.txt").write_text("hidden", encoding="utf-8")
    skipped = Skipped()
    corpus = CorpusSettings(source="text", path=str(tmp_path))
    found = list(documents(corpus, skipped))
    assert [document[:2] for document in found] == [
        ("a.txt", "first"),
        ("b.TXT", "second"),
        ("c.md", "third"),
    ]
    (said,) = skipped.said(corpus)
    assert "left out 1 files" in said
    assert "d.html" in said


@pytest.mark.parametrize("broken", [b"first \xff byte", b"first\0", gzip.compress(b"first" * 999, mtime=0)[:-9]])
def test_a_file_that_is_no_text_is_named_or_skipped_whole_and_nothing_is_replaced(
    tmp_path: Path, broken: bytes
) -> None:
    (tmp_path / "a.txt").write_bytes(broken)
    (tmp_path / "b.txt").write_text("second", encoding="utf-8")
    corpus = CorpusSettings(source="text", path=str(tmp_path))
    with pytest.raises(CorpusError, match=r"a\.txt .*or set corpus\.on_error to skip"):
        list(documents(corpus))
    skipped = Skipped()
    kept = list(documents(corpus.model_copy(update={"on_error": "skip"}), skipped))
    assert [document.text for document in kept] == ["second"]
    assert skipped.lines == 1


def test_a_broken_byte_is_named_by_its_line(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_bytes(b"one line\n" * 200_000 + b"caf\xe9")
    with pytest.raises(CorpusError, match=r"is not UTF-8 text in line 200,001"):
        list(documents(CorpusSettings(source="text", path=str(tmp_path / "a.txt"))))


_MIXED = "caf\u00e9 \u4e2d\u6587 \U0001f600\nnext line\n"


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-32"])
@pytest.mark.parametrize("pack", [_unpacked, gzip.compress, bz2.compress, lzma.compress, _zstd_compressed])
@pytest.mark.parametrize("source", ["text", "jsonl"])
def test_texts_are_read_in_every_encoding_that_says_itself_and_every_packing(
    tmp_path: Path, encoding: str, pack: Callable[[bytes], bytes], source: str
) -> None:
    content = _MIXED if source == "text" else json.dumps({"text": _MIXED}, ensure_ascii=False) + "\n"
    path = tmp_path / "a.txt"
    path.write_bytes(pack((content * 9_000).encode(encoding)))
    corpus = CorpusSettings(source="text" if source == "text" else "jsonl", path=str(path))
    found = [document.text for document in documents(corpus)]
    assert found == [_MIXED * 9_000] if source == "text" else [_MIXED] * 9_000


def test_two_packed_parts_in_one_file_are_both_read(tmp_path: Path) -> None:
    packings: list[Callable[[bytes], bytes]] = [gzip.compress, bz2.compress, lzma.compress, _zstd_compressed]
    for number, pack in enumerate(packings):
        (tmp_path / f"{number}.txt.gz").write_bytes(pack(b"one ") + pack(b"two"))
    found = list(documents(CorpusSettings(source="text", path=str(tmp_path))))
    assert [document.text for document in found] == ["one two"] * 4


@pytest.mark.parametrize("cut", [10, 40])
@pytest.mark.parametrize("pack", [gzip.compress, bz2.compress, lzma.compress, _zstd_compressed])
def test_a_packed_file_that_is_cut_short_is_refused(tmp_path: Path, pack: Callable[[bytes], bytes], cut: int) -> None:
    lines = "".join(json.dumps({"text": f"number {number}"}) + "\n" for number in range(9999)).encode()
    (tmp_path / "a.jsonl.gz").write_bytes(pack(lines)[:-cut])
    corpus = CorpusSettings(source="jsonl", path=str(tmp_path))
    with pytest.raises(CorpusError, match=r"a\.jsonl\.gz is broken or cut short"):
        list(documents(corpus))
    skipped = Skipped()
    (tmp_path / "b.jsonl").write_text('{"text": "whole"}', encoding="utf-8")
    kept = [document.text for document in documents(corpus.model_copy(update={"on_error": "skip"}), skipped)]
    assert (kept[-1], skipped.lines) == ("whole", 1)
    assert kept[:-1] == [f"number {number}" for number in range(len(kept) - 1)], "what comes before is kept"


def test_a_folder_of_lines_is_read_packed_or_not(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_text('{"text": "one"}\n{"text": "two"}\n', encoding="utf-8")
    (tmp_path / "b.jsonl.gz").write_bytes(gzip.compress(b'\n{"text": "three"}', mtime=0))
    (tmp_path / "c.json").write_text('["four"]', encoding="utf-8")
    found = [document[:2] for document in documents(CorpusSettings(source="jsonl", path=str(tmp_path)))]
    assert found == [("a.jsonl:1", "one"), ("a.jsonl:2", "two"), ("b.jsonl.gz:2", "three"), ("c.json:1", "four")]


@pytest.mark.parametrize("indent", [None, 2])
def test_a_json_list_of_texts_or_objects_is_read_item_by_item(tmp_path: Path, indent: int | None) -> None:
    odd = ['a "quoted" [x], {y}', "back\\", "\\\\", "\u00e9\U0001f600", "}]", "w" * 70_000]
    path = tmp_path / "a.json"
    corpus = CorpusSettings(source="jsonl", path=str(path))
    for items in (odd, [{"n": [1, {"text": "inner"}], "text": text} for text in odd]):
        for ascii_only in (True, False):
            path.write_text("\n " + json.dumps(items, indent=indent, ensure_ascii=ascii_only) + "\n", encoding="utf-8")
            assert [document.text for document in documents(corpus)] == odd
    path.write_text('["a", 3, null, {"text": {"en": "nested"}}, "b"]', encoding="utf-8")
    with pytest.raises(CorpusError, match=r"a\.json, item 2 has no text field 'text'"):
        list(documents(corpus))
    skipped = Skipped()
    kept = [document.text for document in documents(corpus.model_copy(update={"on_error": "skip"}), skipped)]
    assert (kept, skipped.lines) == (["a", "b"], 3)


@pytest.mark.parametrize("content", ['["a", "b"', '["a"] "b"', '["a"]]', '["a"][', '["a", "b', '["a"],'])
def test_a_json_list_without_its_end_or_with_more_behind_it_is_refused(tmp_path: Path, content: str) -> None:
    (tmp_path / "a.json").write_text(content, encoding="utf-8")
    with pytest.raises(CorpusError, match=r"a\.json (ends within|has more behind) its list"):
        list(documents(CorpusSettings(source="jsonl", path=str(tmp_path / "a.json"))))


def _table(path: Path, **columns: Any) -> None:
    pq.write_table(pa.table(columns), path, row_group_size=2)


def test_parquet_tables_are_read_by_row(tmp_path: Path) -> None:
    _table(tmp_path / "b.parquet", text=["three"], n=[1])
    _table(tmp_path / "a.pq", text=pa.array(["one", None, "two", "one"]).dictionary_encode())
    corpus = CorpusSettings(source="parquet", path=str(tmp_path))
    with pytest.raises(CorpusError, match=r"a\.pq, row 1 has no text field 'text' \(it is null\)"):
        list(documents(corpus))
    skipped = Skipped()
    found = [document[:2] for document in documents(corpus.model_copy(update={"on_error": "skip"}), skipped)]
    assert found == [("a.pq:0", "one"), ("a.pq:2", "two"), ("a.pq:3", "one"), ("b.parquet:0", "three")]
    assert skipped.lines == 1
    one = CorpusSettings(source="parquet", path=str(tmp_path / "b.parquet"))
    assert [document[:2] for document in documents(one)] == [("b.parquet:0", "three")]


@pytest.mark.parametrize(
    "column",
    [
        pa.array([None, None]), pa.array([1, 2]), pa.array([1.5, None]), pa.array([["a"], ["b"]]),
        pa.array([b"a", b"\xff"]), pa.array([{"en": "a"}, None]), pa.array([True, False]),
        pa.StringArray.from_buffers(2, pa.py_buffer(np.array([0, 1, 2], "<i4")), pa.py_buffer(b"\xff\xfe")),
    ],
    ids=range(8),
)  # fmt: skip
def test_rows_without_text_are_named_or_counted_in_tables(tmp_path: Path, column: pa.Array) -> None:
    _table(tmp_path / "a.parquet", text=column)
    _table(tmp_path / "b.parquet", text=["good"])
    _table(tmp_path / "c.parquet", body=["x", "y", "z"])
    corpus = CorpusSettings(source="parquet", path=str(tmp_path))
    with pytest.raises(CorpusError, match=r"a\.parquet, row 0 has no text field 'text' \(it is"):
        list(documents(corpus))
    skipped = Skipped()
    kept = [document.text for document in documents(corpus.model_copy(update={"on_error": "skip"}), skipped)]
    assert (kept, skipped.lines) == (["good"], 5)
    with pytest.raises(CorpusError, match=r"c\.parquet has no column 'text': set corpus\.field to one of body"):
        list(documents(CorpusSettings(source="parquet", path=str(tmp_path / "c.parquet"))))


def test_a_broken_table_is_refused(tmp_path: Path) -> None:
    _table(tmp_path / "a.parquet", text=["a" * 999] * 99)
    whole = (tmp_path / "a.parquet").read_bytes()
    for broken in (b"no table", whole[:-9], whole[:50] + bytes(300) + whole[350:], b""):
        (tmp_path / "a.parquet").write_bytes(broken)
        with pytest.raises(CorpusError, match=r"a\.parquet is not a sound Parquet table"):
            list(documents(CorpusSettings(source="parquet", path=str(tmp_path / "a.parquet"))))


@pytest.mark.parametrize(
    ("name", "source", "said"),
    [
        ("a.parquet", "text", "set corpus.source to parquet"),
        ("a.jsonl.gz", "text", "set corpus.source to jsonl"),
        ("a.md", "jsonl", "set corpus.source to text"),
        ("a.html", "text", "give files of .markdown, .md, .text, .txt"),
        ("a.csv", "parquet", "give files of .parquet, .pq"),
    ],
)
def test_a_folder_of_other_files_says_what_to_set(tmp_path: Path, name: str, source: str, said: str) -> None:
    (tmp_path / name).write_text("x", encoding="utf-8")
    corpus = CorpusSettings.model_validate({"source": source, "path": str(tmp_path)})
    with pytest.raises(ConfigurationError, match=said):
        list(documents(corpus))


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


def test_a_bottomless_line_is_refused(tmp_path: Path) -> None:
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
        gzip.compress(gzip.compress(b"a text", mtime=0), mtime=0), gzip.compress(b"a text", mtime=0)[:12],
        b"PAR1 rows PAR1", b"%PDF-1.7 text", b"PK\x03\x04 archive", "text".encode("utf-16-be"),
        "text".encode("utf-16")[:-1],
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


def test_lone_surrogates_are_replaced_and_said(tmp_path: Path) -> None:
    corpus, skipped = _jsonl(tmp_path, json.dumps({"text": "a \ud800 b"})), Skipped()
    (found,) = documents(corpus, skipped)
    assert "U+FFFD in 1 texts" in next(skipped.said(corpus))
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
    with pytest.raises(CorpusError, match=r"row 0 has no text field 'text'.*set corpus\.field to one of body"):
        list(documents(corpus.model_copy(update={"field": "text"})))
    assert asked == {"name": "a/b", "split": "train", "revision": "abc", "streaming": True}


def test_rows_of_a_hub_data_set_without_text_are_skipped_and_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    datasets = pytest.importorskip("datasets")
    rows = [{"text": None}, {"text": 3}, {"text": {"en": "a"}}, {"text": ["a"]}, {}, {"text": "good"}]
    monkeypatch.setattr(datasets, "load_dataset", lambda *_, **__: iter(rows))
    corpus = CorpusSettings(source="huggingface", name="a/b", revision="abc", on_error="skip")
    skipped = Skipped()
    assert [document[:2] for document in documents(corpus, skipped)] == [("a/b:5", "good")]
    assert list(skipped.said(corpus)) == ["skipped 5 broken rows of a/b"]


def test_a_hub_that_cannot_be_reached_is_one_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    datasets = pytest.importorskip("datasets")

    def load_dataset(*_: Any, **__: Any) -> None:
        raise ConnectionError("no route\nand a long story")

    monkeypatch.setattr(datasets, "load_dataset", load_dataset)
    with pytest.raises(CorpusError, match="check the name, the split and the network") as caught:
        list(documents(CorpusSettings(source="huggingface", name="a/b", revision="abc")))
    assert "long story" not in str(caught.value)
