"""The settings of the text that an atlas is of."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field, SerializerFunctionWrapHandler, model_serializer, model_validator

from atlas_builder.settings.section import IsPath, Section

_HUB = ("huggingface",)


class CorpusSettings(Section):
    """The text on which activations are collected."""

    source: Literal["stdlib", "text", "jsonl", "parquet", "huggingface"]
    """`stdlib`: topics, docstrings and source of the running Python interpreter; `text`: text files; `jsonl`: a
    document per line, or per item of a JSON list; `parquet`: a document per row of Parquet tables; `huggingface`: a
    data set of the Hugging Face hub."""
    path: Annotated[str | None, IsPath()] = None
    """For `text`, `jsonl` and `parquet`, a file, or a folder: its `.txt` and `.md`, its `.jsonl`, `.ndjson` and
    `.json`, or its `.parquet` and `.pq` files. The first two kinds may be packed by gzip, bzip2, xz or zstd; they are
    UTF-8 or, with a byte order mark, UTF-16."""
    suffixes: list[Annotated[str, Field(pattern=r"^\.[^/\s]+$", max_length=40)]] | None = Field(
        default=None, min_length=1, max_length=100
    )
    """Ends of the names of the files of a folder that are read, such as `[.py, .rst]`; those of the source when
    empty."""
    name: str | None = None
    """Name of the data set, for `huggingface`."""
    split: str = "train"
    """Split of the data set, for `huggingface`."""
    field: str = "text"
    """Key of the text in a line of `jsonl`, or column of the table or the data set."""
    chat: bool = False
    """Whether each document is put through the model's own chat template: a text is one message of a user, and `field`
    may hold a list of messages, each `{role, content}` or `{from, value}`. What the template itself writes, special
    tokens above all, is never an example and counts in no statistic."""
    attributes: list[Annotated[str, Field(min_length=1, max_length=200)]] = Field(default=[], max_length=100)
    """Other keys or columns, such as `[genre, year]`, kept beside the text of each document: text of which the first
    100 characters count, numbers, true or false."""
    revision: str | None = None
    """Commit of the data set, required for `huggingface`, so that every build uses the same text."""
    context: int = Field(default=128, ge=2, le=1_000_000)
    """Length of a context in tokens, a beginning-of-sequence token included."""
    max_tokens: int | None = Field(default=None, ge=1, le=2**40)
    """Use at most this many tokens; all when empty."""
    max_documents: int | None = Field(default=None, ge=1, le=2**40)
    """Use at most this many documents; all when empty."""
    on_error: Literal["fail", "skip"] = "fail"
    """At a line, row or file that holds no text, or text that is no UTF-8: `fail` ends the build, `skip` leaves it
    out and counts it."""

    @model_validator(mode="after")
    def _has_its_place(self) -> CorpusSettings:
        if self.source in ("text", "jsonl", "parquet") and not self.path:
            raise ValueError(f"source {self.source} requires corpus.path")
        if self.source == "huggingface" and not (self.name and self.revision):
            raise ValueError("source huggingface requires corpus.name and corpus.revision (a commit)")
        return self

    @model_validator(mode="after")
    def _has_nothing_of_another_source(self) -> CorpusSettings:
        of_files = ("text", "jsonl", "parquet")
        for key, sources in (("path", of_files), ("suffixes", of_files), ("name", _HUB), ("revision", _HUB)):
            if self.source not in sources and getattr(self, key) is not None:
                others = " or ".join(sources)
                raise ValueError(
                    f"source {self.source} does not read corpus.{key}: remove it, or set source to {others}"
                )
        return self

    @model_validator(mode="after")
    def _has_attributes_beside_its_text(self) -> CorpusSettings:
        if self.attributes and self.source not in ("jsonl", "parquet", "huggingface"):
            raise ValueError(
                f"source {self.source} has no fields: remove corpus.attributes, or set source to jsonl, parquet or "
                "huggingface"
            )
        if self.field in self.attributes:
            raise ValueError("attributes has corpus.field, which is the text: remove it there")
        if len(set(self.attributes)) < len(self.attributes):
            raise ValueError("attributes has a field twice: name each once")
        return self

    @model_serializer(mode="wrap")
    def _without_what_is_new(self, serialise: SerializerFunctionWrapHandler) -> dict[str, Any]:
        """Without `chat` where that is not set, so that what was built before it came is still what is asked for."""
        settings: dict[str, Any] = serialise(self)
        if not self.chat:
            settings.pop("chat", None)
        return settings
