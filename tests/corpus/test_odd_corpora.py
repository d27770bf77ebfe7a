from __future__ import annotations

import io
import json
import tarfile
import zipfile
from pathlib import Path
from typing import Any, Literal

import pytest

from atlas_builder.config import CorpusSettings
from atlas_builder.config_file import load_config, validate
from atlas_builder.corpus.documents import Skipped, check_corpus, documents
from atlas_builder.errors import ConfigurationError, CorpusError


def _corpus(path: Path, **settings: Any) -> CorpusSettings:
    return CorpusSettings.model_validate({"source": "text", "path": str(path), **settings})


def _texts(corpus: CorpusSettings) -> list[str]:
    check_corpus(corpus)
    return [document.text for document in documents(corpus)]


def _zip(path: Path) -> None:
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("a.txt", "first")


def _tar(path: Path, mode: Literal["w", "w:gz"]) -> None:
    with tarfile.open(path, mode) as archive:
        entry = tarfile.TarInfo("a.txt")
        entry.size = 5000
        archive.addfile(entry, io.BytesIO(b"first" * 1000))


@pytest.mark.parametrize(("name", "kind"), [("a.zip", "zip"), ("a.tar", "tar"), ("a.tar.gz", "tar"), ("a.tgz", "tar")])
@pytest.mark.parametrize("source", ["text", "jsonl"])
def test_an_archive_is_to_be_unpacked_alone_or_in_a_folder(tmp_path: Path, name: str, kind: str, source: str) -> None:
    path = tmp_path / name
    _zip(path) if kind == "zip" else _tar(path, "w" if name == "a.tar" else "w:gz")
    with pytest.raises(CorpusError, match=f"is a {kind} archive, not text: unpack it, and set corpus.path to the fold"):
        _texts(_corpus(path, source=source))
    with pytest.raises(ConfigurationError, match="unpack them into a folder"):
        _texts(_corpus(tmp_path, source=source))


def test_source_files_are_read_where_their_suffixes_are_set_and_else_named(tmp_path: Path) -> None:
    (tmp_path / "b.PY").write_text("b = 1", encoding="utf-8")
    (tmp_path / "a.rst").write_text("A title", encoding="utf-8")
    with pytest.raises(ConfigurationError, match=r"or set corpus\.suffixes to \[.*\.py.*\]"):
        _texts(_corpus(tmp_path))
    assert _texts(_corpus(tmp_path, suffixes=[".py", ".rst"])) == ["A title", "b = 1"]
    (tmp_path / "readme.md").write_text("read me", encoding="utf-8")
    skipped = Skipped()
    corpus = _corpus(tmp_path, suffixes=[".py"])
    assert [document.name for document in documents(corpus, skipped)] == ["b.PY"]
    assert skipped.files == ["a.rst", "readme.md"]


@pytest.mark.parametrize("name", ["a.jsonl", "a.ndjson.gz", "a.json"])
def test_lines_of_json_are_not_taken_for_prose(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    path.write_text('{"text": "first"}\n', encoding="utf-8")
    with pytest.raises(
        ConfigurationError, match=r"set corpus\.source to jsonl or, to read it as it is, corpus\.suffix"
    ):
        check_corpus(_corpus(path))
    assert _texts(_corpus(path, suffixes=[".jsonl", ".ndjson", ".json"])) == ['{"text": "first"}\n']


def test_a_folder_of_links_is_read_and_no_folder_twice(tmp_path: Path) -> None:
    data, corpus = tmp_path / "data", tmp_path / "corpus"
    data.mkdir()
    corpus.mkdir()
    (data / "a.txt").write_text("first", encoding="utf-8")
    (data / "again").symlink_to(data)
    (corpus / "linked").symlink_to(data)
    (corpus / "same").symlink_to(data)
    assert _texts(_corpus(corpus)) == ["first"]


@pytest.mark.parametrize(("source", "name"), [("text", "b.txt"), ("jsonl", "b.jsonl"), ("parquet", "b.parquet")])
def test_a_link_that_leads_nowhere_is_named_or_skipped(tmp_path: Path, source: str, name: str) -> None:
    (tmp_path / name).symlink_to(tmp_path / "gone")
    with pytest.raises(CorpusError, match=r"b\.\w+ is a link to a file that is missing: .*on_error to skip"):
        _texts(_corpus(tmp_path, source=source))
    skipped = Skipped()
    with pytest.raises(CorpusError, match="contains no text"):
        list(documents(_corpus(tmp_path, source=source, on_error="skip"), skipped))
    assert skipped.lines == 1


@pytest.mark.parametrize(
    ("record", "said"),
    [
        ({"content": "x", "id": 3}, r"\(corpus\.field may be content\)"),
        ({"text": ["a"], "body": "x"}, r"\(it is a list; corpus\.field may be body\)"),
        ({"messages": [{"role": "user", "content": "x"}]}, r"\(its keys are messages\)"),
        ([{"text": "x"}], r"a file of one list is named \.json"),
    ],
)
def test_a_line_without_the_field_says_where_its_text_is(tmp_path: Path, record: object, said: str) -> None:
    (tmp_path / "a.jsonl").write_text(json.dumps(record) + "\n", encoding="utf-8")
    with pytest.raises(CorpusError, match=f"line 1 has no text field 'text' .*{said}"):
        _texts(_corpus(tmp_path / "a.jsonl", source="jsonl"))


def test_json_over_many_lines_is_said_to_be_and_lines_that_are_texts_are_read(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    path.write_text(json.dumps({"text": "first"}, indent=1), encoding="utf-8")
    with pytest.raises(CorpusError, match="line 1 is not JSON, since a document has more than one"):
        _texts(_corpus(path, source="jsonl"))
    path.write_text('"first"\n"second"\n', encoding="utf-8")
    assert _texts(_corpus(path, source="jsonl")) == ["first", "second"]


@pytest.mark.parametrize("source", ["jsonl", "parquet"])
def test_a_data_set_of_save_to_disk_says_how_to_write_it(tmp_path: Path, source: str) -> None:
    for name in ("dataset_info.json", "state.json", "data-00000-of-00001.arrow"):
        (tmp_path / name).write_text("{\n}", encoding="utf-8")
    with pytest.raises(ConfigurationError, match=r"write it with to_parquet, and set corpus\.source to parquet"):
        _texts(_corpus(tmp_path, source=source))


@pytest.mark.parametrize(
    ("corpus", "said"),
    [
        ({"source": "stdlib", "path": "texts"}, "does not read corpus.path: remove it, or set source to text or"),
        ({"source": "text", "path": "a", "name": "wikitext"}, "does not read corpus.name: .* to huggingface"),
        ({"source": "huggingface", "name": "a", "revision": "b", "path": "c"}, "does not read corpus.path"),
        ({"source": "stdlib", "suffixes": [".py"]}, "does not read corpus.suffixes"),
        ({"source": "text", "path": "a", "suffixes": ["py"]}, "corpus.suffixes"),
    ],
)
def test_a_place_of_text_that_would_not_be_read_is_refused(corpus: dict[str, object], said: str) -> None:
    with pytest.raises(ConfigurationError, match=said):
        validate({"model": {"name": "demo"}, "corpus": corpus})


def test_a_path_in_the_home_folder_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    home = tmp_path / "home"
    home.mkdir()
    (home / "a.txt").write_text("first", encoding="utf-8")
    monkeypatch.setenv("HOME", str(home))
    file = tmp_path / "a.yml"
    file.write_text("model: {name: demo}\ncorpus: {source: text, path: ~/a.txt}\n", encoding="utf-8")
    assert _texts(load_config(file).corpus) == ["first"]


def test_a_section_that_is_a_word_is_said_to_need_keys() -> None:
    with pytest.raises(ConfigurationError, match=r"model must be keys with values, such as name: … \(got 'demo'\)"):
        validate({"model": "demo", "corpus": {"source": "stdlib"}})
    with pytest.raises(ConfigurationError, match=r"atlas\.authors\.0 must be keys with values, such as name: …"):
        validate({"model": {"name": "demo"}, "corpus": {"source": "stdlib"}, "atlas": {"authors": ["Jane Doe"]}})
