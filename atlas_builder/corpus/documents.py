"""Documents: where a corpus comes from, one function per source.

A corpus is an ordered stream of named documents. Nothing here knows tokens or
models; `atlas_builder.corpus.contexts` cuts documents into contexts.
"""

from __future__ import annotations

import hashlib
import importlib
import importlib.util
import inspect
import json
import pydoc_data.topics
import sys
import sysconfig
import tokenize
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from types import MappingProxyType, ModuleType
from typing import NamedTuple

from atlas_builder.config import CorpusSettings
from atlas_builder.corpus import folders, json_list, parquet, text_files
from atlas_builder.corpus.attributes import NoAttributeError, attributes_of, encodable, json_kind, note_fields
from atlas_builder.corpus.messages import Message, NoMessageError, Turn, messages_in
from atlas_builder.corpus.text_files import BrokenFileError
from atlas_builder.errors import ConfigurationError, CorpusError, brief

MOST_CHARACTERS = 1_000_000
"""Most characters of one document: a tokenizer takes two hundred bytes for each."""
_LONGEST_LINE = 5_000_000  # read as JSON it may take twenty times that
_MOST_BRACKETS = 1_000_000


class Document(NamedTuple):
    """One text, with a name by which a reader can look it up."""

    name: str
    text: str
    attributes: Mapping[str, str] = MappingProxyType({})
    """The fields of `corpus.attributes` that it has, as text."""
    messages: tuple[Message, ...] = ()
    """With `corpus.chat`, the conversation that it is; the text is then empty until a chat template makes it."""
    turns: tuple[Turn, ...] = ()
    """Where the contents of its messages stand in the text that a chat template made."""


class Skipped:
    """Counts what is left out or changed, so that it is said."""

    def __init__(self) -> None:
        self.lines = 0
        """Broken lines, rows and files that `corpus.on_error: skip` leaves out."""
        self.files: list[str] = []
        """Files of a folder that the source does not read."""
        self.mended = 0
        """Texts in which halves of surrogate pairs, which are no characters, became U+FFFD."""
        self.fields: set[str] = set()
        """Fields of the documents, where `corpus.attributes` asks for some."""

    def said(self, corpus: CorpusSettings) -> Iterator[str]:
        """A line for each kind of it."""
        where = brief(_where(corpus), 100)
        if self.lines:
            what = {"text": "files", "parquet": "rows", "huggingface": "rows"}.get(corpus.source, "lines")
            yield f"skipped {self.lines:,} broken {what} of {where}"
        if self.files:
            names = brief(", ".join(self.files), 80)
            yield f"left out {len(self.files):,} files of {where} that source {corpus.source} does not read: {names}"
        if self.mended:
            yield f"replaced half characters (lone surrogates) by U+FFFD in {self.mended:,} texts of {where}"


def documents(corpus: CorpusSettings, skipped: Skipped | None = None) -> Iterator[Document]:
    """Yield the documents of a configured corpus, always in the same order.

    A document of more than `MOST_CHARACTERS` comes in parts, divided at the end of a line where it has lines. With
    `corpus.chat`, a text is one message of a user. Raises `ConfigurationError` where the corpus is missing and
    `CorpusError` where it is empty or a line of it is broken.
    """
    skipped = skipped if skipped is not None else Skipped()
    empty = True
    for document in _stream(corpus, skipped):
        for part in (document,) if len(document.text) <= MOST_CHARACTERS else _parts(document):
            if any(message.content.strip() for message in part.messages) or part.text.strip():
                empty = False
                text = encodable(part.text)
                skipped.mended += text != part.text
                messages = part.messages or (Message("user", text),) if corpus.chat else ()
                yield Document(encodable(part.name), "" if messages else text, part.attributes, messages)
    if empty:
        raise CorpusError(f"corpus {brief(_where(corpus), 100)} contains no text: give it at least one document.")


def _stream(corpus: CorpusSettings, skipped: Skipped) -> Iterator[Document]:
    if corpus.source == "stdlib":
        return stdlib_documents()
    if corpus.source == "huggingface":
        return huggingface_documents(corpus, skipped)
    read = {"text": text_documents, "jsonl": jsonl_documents, "parquet": parquet_documents}[corpus.source]
    return read(_existing(corpus), corpus, skipped)


def check_corpus(corpus: CorpusSettings) -> None:
    """Raise `ConfigurationError` where the file or folder of a corpus is missing, or named as another source's."""
    if corpus.path and corpus.source not in ("stdlib", "huggingface"):
        path = _existing(corpus)
        if corpus.source == "text" and path.is_file():
            folders.check_name(path, corpus.suffixes)


def _parts(document: Document) -> Iterator[Document]:
    """A document in parts that a tokenizer can take; of the usual size, it is one."""
    for number, text in enumerate(text_files.divided(document.text, MOST_CHARACTERS), start=1):
        yield Document(_part(document.name, number), text, document.attributes)


def _part(name: str, number: int) -> str:
    return name if number == 1 else f"{name} (part {number})"


# --- the standard library ----------------------------------------------------

_NOT_PROSE = {"test", "tests", "site-packages", "__pycache__", "encodings", "pydoc_data", "lib-dynload"}
_MACHINE_SPECIFIC = ("_sysconfigdata", "sitecustomize", "usercustomize", "config-")


def stdlib_documents() -> Iterator[Document]:
    """The running interpreter's documentation topics, docstrings and source.

    Each topic is a document, as is each source file, and the docstrings of each module
    written in C (those of other modules are in their source, and no text is used
    twice). Tests and character tables are left out. The order is that of a hash of
    the name, so any leading part is a fair mixture.
    """
    entries: dict[str, Document | Path | str] = {}
    for topic, text in pydoc_data.topics.topics.items():
        entries[f"topic:{topic}"] = Document(f"topic:{topic}", text)
    root = Path(sysconfig.get_path("stdlib"))
    for path in _sources(root):
        name = path.relative_to(root).with_suffix("").as_posix().replace("/", ".")
        entries[f"source:{name}"] = path
    for name in sorted(sys.stdlib_module_names):
        if _is_compiled(name):
            entries[f"docs:{name}"] = name
    for name in sorted(entries, key=lambda name: hashlib.sha256(name.encode()).digest()):
        entry = entries[name]
        if isinstance(entry, Path):
            with tokenize.open(entry) as source:  # in the encoding that it says
                yield Document(name, source.read())
        elif isinstance(entry, str):
            yield Document(name, _docstrings(entry))
        else:
            yield entry


def _sources(root: Path) -> Iterator[Path]:
    for path in sorted(root.rglob("*.py")):
        parts = path.relative_to(root).parts
        if not _NOT_PROSE & set(parts) and not any(part.startswith(_MACHINE_SPECIFIC) for part in parts):
            yield path


def _is_compiled(name: str) -> bool:
    try:
        spec = importlib.util.find_spec(name)
    except (ImportError, ValueError):
        return False
    if spec is None or spec.origin is None:
        return False
    return spec.origin == "built-in" or spec.origin.endswith((".so", ".pyd", ".dylib"))


def _docstrings(module_name: str) -> str:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # a module that goes has docstrings all the same
        try:
            module = importlib.import_module(module_name)
        except ImportError:
            return ""
    return "\n\n".join(_describe(module, module_name, set()))


def _describe(owner: object, path: str, seen: set[int | str]) -> Iterator[str]:
    """A docstring under the name it documents, then those of the owner's members."""
    if id(owner) in seen:
        return
    seen.add(id(owner))
    # A class attribute `__doc__` can be a descriptor instead of text.
    doc = inspect.cleandoc(owner.__doc__) if isinstance(owner.__doc__, str) else ""
    if doc and doc not in seen:
        seen.add(doc)
        signature = getattr(owner, "__text_signature__", None) or ""
        yield f"{path}{signature}\n\n{doc}"
    if isinstance(owner, ModuleType | type):
        for name, member in sorted(vars(owner).items()):
            if not name.startswith("__") and callable(member) and hasattr(member, "__doc__"):
                yield from _describe(member, f"{path}.{name}", seen)


# --- files -------------------------------------------------------------------


def text_documents(path: Path, corpus: CorpusSettings, skipped: Skipped) -> Iterator[Document]:
    """A file is one document; a folder is its text files, in the order of their names."""
    for file, name in _files(path, corpus, skipped):
        with _allowed(corpus, skipped, file):
            if corpus.on_error == "skip":  # a file that breaks at its end is left out from its beginning
                for _ in text_files.text_of(file, MOST_CHARACTERS):
                    pass
            for number, text in enumerate(text_files.text_of(file, MOST_CHARACTERS), start=1):
                yield Document(_part(name, number), text)


def jsonl_documents(path: Path, corpus: CorpusSettings, skipped: Skipped) -> Iterator[Document]:
    """Each line is a JSON object, whose `corpus.field` is the text of a document, or the text itself.

    In a file named `.json`, each item of a JSON list is.
    """
    for file, name in _files(path, corpus, skipped):
        with _allowed(corpus, skipped, file):
            is_list = folders.is_json(file) and text_files.first_bytes(file).startswith(b"[")
            pieces = (json_list.list_items if is_list else text_files.lines)(file, _LONGEST_LINE)
            for number, piece in enumerate(pieces, start=1):
                if is_list or piece is None or piece.strip():
                    with _allowed(corpus, skipped, file, f", {'item' if is_list else 'line'} {number}"):
                        yield _document(f"{name}:{number}", _record_in(piece), corpus, skipped)


def parquet_documents(path: Path, corpus: CorpusSettings, skipped: Skipped) -> Iterator[Document]:
    """Each row of a Parquet table, or of those of a folder, is a document: its column `corpus.field`."""
    columns = (corpus.field, *corpus.attributes)
    for file, name in _files(path, corpus, skipped):
        with _allowed(corpus, skipped, file):
            if corpus.attributes:
                note_fields(skipped.fields, parquet.column_names(file))
            for number, row in enumerate(parquet.table_rows(file, columns)):
                with _allowed(corpus, skipped, file, f", row {number}"):
                    yield _document(f"{name}:{number}", row, corpus, skipped, others=False)


def _files(path: Path, corpus: CorpusSettings, skipped: Skipped) -> Iterator[tuple[Path, str]]:
    """The files of a corpus, each with the name of its documents."""
    if not path.is_dir():
        yield path, path.name
        return
    files, others = folders.files_in(path, corpus.source, corpus.suffixes)
    skipped.files += others
    for file in files:
        yield file, file.relative_to(path).as_posix()


@contextmanager
def _allowed(corpus: CorpusSettings, skipped: Skipped, file: Path, place: str = "") -> Iterator[None]:
    """What is broken within is counted where `corpus.on_error` says so, else it ends the build."""
    try:
        yield
    except (_BrokenLineError, BrokenFileError) as problem:
        if corpus.on_error == "fail":
            remedy = getattr(problem, "remedy", "")
            raise CorpusError(f"{brief(file, 100)}{place} {problem}{remedy}, or set corpus.on_error to skip.") from None
        skipped.lines += getattr(problem, "rows", 1)


class _BrokenLineError(Exception):
    """A line without a text; its message continues `line 3 `."""

    remedy = ": fix the line"


class _BrokenFieldError(_BrokenLineError):
    """A line with a field that is no attribute."""

    remedy = ": leave it out of corpus.attributes"


def _attributes_at(record: object, corpus: CorpusSettings, skipped: Skipped) -> Mapping[str, str]:
    """The fields of a record that `corpus.attributes` names; none where it is a text."""
    if not corpus.attributes or not isinstance(record, dict):
        return {}
    note_fields(skipped.fields, record)
    try:
        return attributes_of(record, corpus.attributes)
    except NoAttributeError as problem:
        raise _BrokenFieldError(str(problem)) from None


def _record_in(line: bytes | None) -> object:
    """What a line of JSON holds."""
    if line is None:
        raise _BrokenLineError(f"is longer than {_LONGEST_LINE // 10**6} MB")
    # Lists within lists would take a hundred times the memory of their text.
    if line.count(b"[") + line.count(b"{") > _MOST_BRACKETS:
        raise _BrokenLineError(f"has more than {_MOST_BRACKETS:,} brackets")
    try:
        record: object = json.loads(line.decode("utf-8-sig"))
    except UnicodeDecodeError:
        raise _BrokenLineError("is not UTF-8 text") from None
    except (ValueError, RecursionError) as error:
        hint = "" if line.strip() not in (b"{", b"[") else ", since a document has more than one"
        raise _BrokenLineError(f"is not JSON{hint} ({brief(error, 80)})") from None
    return record


def _document(name: str, record: object, corpus: CorpusSettings, skipped: Skipped, *, others: bool = True) -> Document:
    """The document of a record, or of a text or a list of messages in place of one; `others` names its other fields."""
    value = record.get(corpus.field) if isinstance(record, dict) else record
    if corpus.chat and isinstance(value, list):
        try:
            messages = messages_in(value, MOST_CHARACTERS)
        except NoMessageError as problem:
            raise _BrokenLineError(str(problem)) from None
        return Document(name, "", _attributes_at(record, corpus, skipped), messages)
    if not isinstance(value, str):
        raise _no_text(record if others else {corpus.field: value}, corpus)
    return Document(name, value, _attributes_at(record, corpus, skipped))


def _no_text(record: object, corpus: CorpusSettings) -> _BrokenLineError:
    """What a record has in place of a text."""
    field, said = corpus.field, "it is a list: a file of one list is named .json" if isinstance(record, list) else ""
    if isinstance(record, dict):
        value, kinds = record.get(field), (str, list) if corpus.chat else str
        texts = sorted(key for key, other in record.items() if isinstance(other, kinds) and key.strip())
        said = f"it is {json_kind(value)}" if field in record else ""
        if isinstance(value, list) and value and isinstance(value[0], dict):
            said += ", of messages where corpus.chat is true"
        keys = f"corpus.field may be {brief(', '.join(texts), 60)}" if texts else f"its keys are {_keys(record)}"
        if texts or (record and not said):
            said += f"{'; ' * bool(said)}{keys}"
    what = "no text and no list of messages in field" if corpus.chat else "no text field"
    return _BrokenLineError(f"has {what} '{brief(field, 40)}'{f' ({said})' if said else ''}")


def _keys(record: dict[str, object]) -> str:
    return brief(", ".join(record), 60)


def huggingface_documents(corpus: CorpusSettings, skipped: Skipped) -> Iterator[Document]:
    """Stream a data set of the Hugging Face hub at a pinned revision."""
    import datasets

    name, split = brief(corpus.name), brief(corpus.split, 40)
    try:
        rows = enumerate(
            datasets.load_dataset(corpus.name, split=corpus.split, revision=corpus.revision, streaming=True)
        )
        while (numbered := next(rows, None)) is not None:
            number, row = numbered
            try:
                document = _document(f"{corpus.name}:{number}", row, corpus, skipped)
            except _BrokenLineError as problem:
                if corpus.on_error == "fail":
                    fields = f": set corpus.field to one of {brief(', '.join(sorted(row)), 80)}, or"
                    remedy = f"{problem.remedy}, or set" if isinstance(problem, _BrokenFieldError) else fields
                    raise CorpusError(
                        f"data set {name!r}, row {number} {problem}{remedy} corpus.on_error to skip."
                    ) from None
                skipped.lines += 1
            else:
                yield document
    except (CorpusError, MemoryError):
        raise
    except Exception as error:  # the hub's clients raise a dozen unrelated types
        raise CorpusError(
            f"data set {name!r} (split {split!r}) cannot be loaded from Hugging Face "
            f"({type(error).__name__}: {brief(_first_line(error), 80)}): check the name, the split and the network."
        ) from error


# --- helpers -----------------------------------------------------------------


def _existing(corpus: CorpusSettings) -> Path:
    assert corpus.path is not None  # the configuration requires it for these sources
    path = Path(corpus.path)
    try:
        exists = path.exists()
    except OSError:
        exists = False
    if not exists:
        raise ConfigurationError(f"corpus.path: {brief(path, 150)} does not exist: give the path of a file or folder.")
    if not path.is_dir() and not path.is_file():
        raise ConfigurationError(
            f"corpus.path: {brief(path, 150)} is a device or a pipe: give the path of a file or folder."
        )
    return path


def _where(corpus: CorpusSettings) -> str:
    return corpus.path or corpus.name or corpus.source


def _first_line(error: BaseException) -> str:
    return (str(error).splitlines() or [""])[0]
