"""Fields of documents kept beside their text: `corpus.attributes`."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from pydantic import ValidationError

from atlas_builder.collect.results import Collected
from atlas_builder.config import CorpusSettings
from atlas_builder.corpus import contexts
from atlas_builder.corpus.attributes import LONGEST_VALUE, check_attributes
from atlas_builder.corpus.documents import MOST_CHARACTERS, Document, Skipped, documents
from atlas_builder.errors import CorpusError
from atlas_builder.pipeline.build import build
from atlas_builder.rerun.passes import Reader
from tests.support.atlases import Configure

Write = Callable[[Path, list[dict[str, Any]]], CorpusSettings]

RECORDS: list[dict[str, Any]] = [
    {"text": "one", "genre": "prose", "year": 1999, "draft": True, "score": 0.5},
    {"text": "two", "genre": None, "year": 2001, "draft": False, "score": None},
    {"text": "three", "genre": " ", "year": None, "draft": None, "score": -2.0},
    {"text": "four", "genre": "code: \u4e2d\x00", "year": 1999, "draft": None, "score": float("nan")},
]
KEPT = [
    {"genre": "prose", "year": "1999", "draft": "true", "score": "0.5"},
    {"year": "2001", "draft": "false"},
    {"score": "-2.0"},
    {"genre": "code: \u4e2d\x00", "year": "1999"},
]


def _jsonl(folder: Path, records: list[dict[str, Any]], **settings: Any) -> CorpusSettings:
    (folder / "a.jsonl").write_text("".join(json.dumps(record) + "\n" for record in records), encoding="utf-8")
    return _corpus(folder / "a.jsonl", "jsonl", **settings)


def _json(folder: Path, records: list[dict[str, Any]], **settings: Any) -> CorpusSettings:
    (folder / "a.json").write_text(json.dumps(records), encoding="utf-8")
    return _corpus(folder / "a.json", "jsonl", **settings)


def _parquet(folder: Path, records: list[dict[str, Any]], **settings: Any) -> CorpusSettings:
    names = dict.fromkeys(name for record in records for name in record)
    columns = {name: [record.get(name) for record in records] for name in names}
    pq.write_table(pa.table(columns), folder / "a.parquet")
    return _corpus(folder / "a.parquet", "parquet", **settings)


def _corpus(path: Path, source: str, **settings: Any) -> CorpusSettings:
    return CorpusSettings.model_validate(
        {"source": source, "path": str(path), "attributes": ["genre", "year", "draft", "score"], **settings}
    )


def _kept(corpus: CorpusSettings) -> list[dict[str, str]]:
    return _kept_of(documents(corpus))


def _kept_of(found: Iterable[Document]) -> list[dict[str, str]]:
    return [dict(document.attributes) for document in found]


@pytest.mark.parametrize("write", [_jsonl, _json, _parquet])
def test_fields_are_kept_as_text_and_missing_ones_are_none(tmp_path: Path, write: Write) -> None:
    corpus = write(tmp_path, RECORDS)
    assert _kept(corpus) == KEPT
    assert [document.text for document in documents(corpus)] == ["one", "two", "three", "four"]
    assert not any(_kept(corpus.model_copy(update={"attributes": []})))


def test_a_file_of_a_folder_may_lack_a_field(tmp_path: Path) -> None:
    pq.write_table(pa.table({"text": ["one"], "genre": ["prose"]}), tmp_path / "a.parquet")
    pq.write_table(pa.table({"year": [1], "text": ["two"]}), tmp_path / "b.parquet")
    assert _kept(_corpus(tmp_path, "parquet")) == [{"genre": "prose"}, {"year": "1"}]


def test_a_line_that_is_a_text_has_no_fields(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_text('"one"\n{"text": "two", "genre": "prose"}\n', encoding="utf-8")
    assert _kept(_corpus(tmp_path / "a.jsonl", "jsonl")) == [{}, {"genre": "prose"}]


def test_hostile_values_are_kept_as_text_that_can_be_written(tmp_path: Path) -> None:
    long = "\u4e2d" * 10_000
    records: list[dict[str, Any]] = [
        {"text": "one", "genre": "\ud800x", "year": 10**300},
        {"text": "two", "genre": long},
    ]
    kept = _kept(_jsonl(tmp_path, records))
    assert kept[0] == {"genre": "\ufffdx", "year": "1" + "0" * (LONGEST_VALUE - 2) + "\u2026"}
    assert kept[1] == {"genre": "\u4e2d" * (LONGEST_VALUE - 1) + "\u2026"}
    json.dumps(kept).encode()


def test_dates_of_a_table_are_kept(tmp_path: Path) -> None:
    import datetime
    from decimal import Decimal

    records = [{"text": "one", "genre": datetime.date(2024, 2, 29), "year": Decimal("1.50")}]
    assert _kept(_parquet(tmp_path, records)) == [{"genre": "2024-02-29", "year": "1.50"}]


@pytest.mark.parametrize("write", [_jsonl, _json, _parquet])
@pytest.mark.parametrize(("value", "kind"), [(["x"], "a list"), ({"x": 1}, "a map")])
def test_a_list_or_a_map_is_named_or_its_line_left_out(tmp_path: Path, write: Any, value: Any, kind: str) -> None:
    records = [{"text": "one", "year": 1}, {"text": "two", "genre": value, "year": 2}]
    place = r"row 1" if write is _parquet else r"(line|item) 2"
    said = (
        rf"{place} has {kind} as 'genre'[^\n]*: leave it out of corpus\.attributes, or set corpus\.on_error to skip\.$"
    )
    with pytest.raises(CorpusError, match=said):
        _kept(write(tmp_path, records))
    skipped = Skipped()
    found = list(documents(write(tmp_path, records, on_error="skip"), skipped))
    assert [document.text for document in found] == ["one"]
    assert skipped.lines == 1


def test_text_that_is_not_utf_8_is_named(tmp_path: Path) -> None:
    broken = pa.array([b"caf\xe9"]).view(pa.string())
    pq.write_table(pa.table({"text": ["one"], "genre": broken}), tmp_path / "a.parquet")
    with pytest.raises(CorpusError, match=r"row 0 has bytes that are not UTF-8 as 'genre'"):
        _kept(_corpus(tmp_path / "a.parquet", "parquet"))


def test_rows_of_a_hub_data_set_keep_their_fields(monkeypatch: pytest.MonkeyPatch) -> None:
    datasets = pytest.importorskip("datasets")
    rows = [{"text": "one", "genre": "prose", "other": [1]}, {"text": "two", "genre": ["prose"]}]
    monkeypatch.setattr(datasets, "load_dataset", lambda *_, **__: iter(rows))
    corpus = CorpusSettings(source="huggingface", name="a/b", revision="abc", attributes=["genre"], on_error="skip")
    skipped = Skipped()
    assert _kept_of(documents(corpus, skipped)) == [{"genre": "prose"}]
    assert (skipped.lines, skipped.fields) == (1, {"text", "genre", "other"})
    with pytest.raises(CorpusError, match=r"row 1 has a list as 'genre'.* it out of corpus\.attributes, or set corpus"):
        list(documents(corpus.model_copy(update={"on_error": "fail"})))


def test_parts_of_a_document_keep_its_fields(tmp_path: Path) -> None:
    corpus = _jsonl(tmp_path, [{"text": "line\n" * (MOST_CHARACTERS // 4), "genre": "prose"}])
    assert _kept(corpus) == [{"genre": "prose"}] * 2


@pytest.mark.parametrize("source", ["stdlib", "text"])
def test_a_source_without_fields_has_no_attributes(source: Any) -> None:
    with pytest.raises(ValidationError, match=rf"source {source} has no fields: remove corpus\.attributes"):
        CorpusSettings(source=source, path="a.txt" if source == "text" else None, attributes=["genre"])


@pytest.mark.parametrize("fields", [["text"], ["genre", "genre"], [""]])
def test_attributes_that_cannot_be_meant_are_refused(fields: list[str]) -> None:
    with pytest.raises(ValidationError):
        _corpus(Path("a.jsonl"), "jsonl", attributes=fields)


@pytest.mark.parametrize("write", [_jsonl, _json, _parquet])
def test_a_field_that_no_document_has_is_named_with_those_that_there_are(tmp_path: Path, write: Any) -> None:
    corpus, skipped = write(tmp_path, RECORDS, attributes=["genre", "gener"]), Skipped()
    kept = [document.attributes for document in documents(corpus, skipped)]
    said = (
        r"^corpus\.attributes: no document has a value of gener \(their fields are draft, genre, score, year\): .*\.$"
    )
    with pytest.raises(CorpusError, match=said):
        check_attributes(corpus, kept, skipped.fields)
    corpus = corpus.model_copy(update={"attributes": ["genre"]})
    check_attributes(corpus, kept, skipped.fields)
    with pytest.raises(CorpusError, match=r"genre \(they have no other fields\)"):
        check_attributes(corpus, [{}], {"text"})


def test_contexts_have_the_attributes_of_their_documents(tmp_path: Path) -> None:
    named = [Document("a", "0", {"genre": "prose"}), Document("empty", "1", {"genre": "code"}), Document("b", "2")]
    tokens = [[1, 2, 3], list[int](), [4]]

    def write(documents: list[Document], folder: Path) -> contexts.Contexts:
        return contexts.write_contexts(
            documents, lambda texts: [tokens[int(text)] for text in texts], folder, context=2, bos=None
        )

    found = write(named, tmp_path / "a")
    assert [found.attributes[document] for document in found.document] == [{"genre": "prose"}] * 2 + [{}]
    without = write([document._replace(attributes={}) for document in named], tmp_path / "b")
    assert without.attributes == [{}, {}]
    assert "attributes" not in json.loads((tmp_path / "b" / "contexts.json").read_text(encoding="utf-8"))
    assert without.sha256 == found.sha256


def test_an_atlas_keeps_attributes_and_a_rerun_reads_the_same(configure: Configure, tmp_path: Path) -> None:
    records = [{"text": f"Some words of text {number}. " * 20, "genre": "ab"[number % 2]} for number in range(20)]
    corpus = _jsonl(tmp_path, records, attributes=["genre"], context=32)
    config = configure(corpus=corpus.model_dump())
    build(config, tmp_path / "site", until="collect")
    kept = Collected(tmp_path / ".site.work" / "collect").contexts.attributes
    assert kept == [{"genre": "ab"[number % 2]} for number in range(20)]
    assert Reader(config).text().attributes == kept
    with pytest.raises(CorpusError, match=r"no document has a value of nothing"):
        build(configure(corpus={**corpus.model_dump(), "attributes": ["nothing"]}), tmp_path / "other", until="collect")
