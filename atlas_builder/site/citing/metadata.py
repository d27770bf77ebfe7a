"""Metadata of an atlas as a whole, in the files that archives and programs look for."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import orjson
import pyarrow as pa
import pyarrow.parquet as pq
import yaml

from atlas_builder.records.explanations import PUBLISHED
from atlas_builder.site.citing.cite import Citation, licence_url, person

METADATA = {"citation": "CITATION.cff", "ro_crate": "ro-crate-metadata.json", "croissant": "croissant.json"}
"""The files by kind; `atlas.json` lists them too."""

_RO_CRATE = "https://w3id.org/ro/crate/1.3"
_CROISSANT = "http://mlcommons.org/croissant/1.1"
_PAPER = {
    "@id": "https://doi.org/10.48550/arXiv.2411.08166",
    "@type": "ScholarlyArticle",
    "name": "Tackling Polysemanticity with Neuron Embeddings",
    "author": "Alex Foote",
    "datePublished": "2024",
}
# The top of a site, as far as it is described; index.html leads to pages of prose.
_PARTS = {
    "index.html": "The first page, for people.",
    "atlas.json": "Facts of the atlas as a whole: model, corpus, settings, versions, layers.",
    "L[0-9]*/": "A layer: for each of its units a page (HTML) and a record (JSON), and a table of all.",
    "modules/": "A page (HTML) for each module of directions.",
    "tables/": "All units and all behaviours as Parquet tables.",
    "schema/": "JSON Schemas of the records.",
    "search/": "The search index, in shards that pages load as scripts.",
    PUBLISHED: "What language models said of behaviours and units, a line of JSON each.",
    METADATA["citation"]: "How to cite the atlas, in the Citation File Format.",
    METADATA["croissant"]: "The tables, in the Croissant format for machine learning.",
}
_SUMS = {  # written after this, so its size is not known
    "@id": "SHA256SUMS",
    "@type": "File",
    "name": "SHA256SUMS",
    "encodingFormat": "text/plain",
    "description": "SHA-256 of every file but itself and atlas.json, which has its hash.",
}
_TYPES = {
    ".html": "text/html",
    ".json": "application/json",
    ".parquet": "application/x-parquet",  # the name by which mlcroissant knows it
    ".jsonl": "application/jsonl",
    ".cff": "application/yaml",
}


def write_metadata(folder: Path, citation: Citation) -> None:
    """Write the files of `METADATA` into a site that is otherwise complete."""
    (folder / METADATA["citation"]).write_text(citation_cff(citation), encoding="utf-8", newline="\n")
    _write_json(folder / METADATA["croissant"], croissant(folder, citation))
    _write_json(folder / METADATA["ro_crate"], ro_crate(folder, citation))


def citation_cff(citation: Citation) -> str:
    """`CITATION.cff` (Citation File Format 1.2)."""
    authors = []
    for name in citation.authors:
        entry = {"family-names": name.family, "given-names": name.given} if name.given else {"name": name.family}
        if name.orcid:
            entry["orcid"] = f"https://orcid.org/{name.orcid}"
        authors.append(entry)
    fields = {
        "cff-version": "1.2.0",
        "message": "If you use this atlas, please cite it as below.",
        "type": "dataset",
        "title": citation.title,
        "abstract": citation.description,
        "version": citation.edition,
        "authors": authors or [{"name": citation.title}],
        "license": citation.license,
        "url": citation.url,
        "doi": citation.doi,
        "date-released": citation.date,
    }
    return yaml.dump(_kept(fields), Dumper=_QuotingDumper, sort_keys=False, allow_unicode=True)


_NUMBER = re.compile(r"[-+]?(0o[0-7]+|0x[0-9a-fA-F]+|(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?)")


class _QuotingDumper(yaml.SafeDumper):
    """Quotes text that is a number in YAML 1.2 too: `1e3` and `0o17` are none in 1.1, which PyYAML writes."""


def _quoted(dumper: yaml.SafeDumper, text: str) -> yaml.ScalarNode:
    return dumper.represent_scalar("tag:yaml.org,2002:str", text, style="'" if _NUMBER.fullmatch(text) else None)


_QuotingDumper.add_representer(str, _quoted)


def ro_crate(folder: Path, citation: Citation) -> dict[str, Any]:
    """The RO-Crate of a built site; folders represent the files in them, of which there are tens of thousands."""
    parts = list(_parts(folder))
    people = [person(name) for name in citation.authors]
    licence = {
        "@id": licence_url(citation.license),
        "@type": "CreativeWork",
        "name": citation.license,
        "identifier": citation.license,
    }
    root = {
        "@id": "./",
        "@type": "Dataset",
        "name": citation.title,
        "description": citation.description,
        "version": citation.edition,
        "datePublished": citation.date,
        "license": _reference(licence),
        "author": [_reference(person) for person in people],
        "identifier": citation.doi and citation.place,
        "url": citation.url,
        "citation": _reference(_PAPER),
        "hasPart": [_reference(part) for part in parts],
    }
    descriptor = {
        "@id": METADATA["ro_crate"],
        "@type": "CreativeWork",
        "about": _reference(root),
        "conformsTo": {"@id": _RO_CRATE},
    }
    return {"@context": f"{_RO_CRATE}/context", "@graph": [descriptor, _kept(root), *people, licence, _PAPER, *parts]}


def _parts(folder: Path) -> Iterator[dict[str, Any]]:
    """The parts of a site by `_PARTS`, as RO-Crate describes them; a table is a part of its own."""
    for pattern, description in _PARTS.items():
        for path in sorted(folder.glob(pattern.rstrip("/")), key=_in_order):
            if path.is_dir():
                yield {"@id": f"{path.name}/", "@type": "Dataset", "name": path.name, "description": description}
            else:
                yield {**_file(folder, path), "description": description}
    for table in _tables(folder):
        yield {**_file(folder, table), "description": f"All {table.stem} of the atlas, a row each."}
    yield _SUMS


def _in_order(path: Path) -> tuple[int, str]:
    """Layers by their number."""
    return len(path.name), path.name


def _file(folder: Path, path: Path) -> dict[str, Any]:
    """A file, as RO-Crate describes it."""
    return {
        "@id": path.relative_to(folder).as_posix(),
        "@type": "File",
        "name": path.name,
        "encodingFormat": _TYPES[path.suffix],
        "contentSize": str(path.stat().st_size),
    }


def croissant(folder: Path, citation: Citation) -> dict[str, Any]:
    """The Croissant description of a built site: its tables, column by column."""
    tables = _tables(folder)
    return _kept(
        {
            "@context": _CONTEXT,
            "@type": "sc:Dataset",
            "conformsTo": _CROISSANT,
            "name": citation.title,
            "description": citation.description,
            "version": citation.edition,
            "datePublished": citation.date,
            "license": licence_url(citation.license),
            "creator": [person(name) for name in citation.authors],
            "identifier": citation.doi and citation.place,
            "url": citation.url,
            "citeAs": citation.bibtex,
            "distribution": [_file_object(folder, path) for path in tables],
            "recordSet": [_record_set(folder, table) for table in tables],
        }
    )


def _file_object(folder: Path, path: Path) -> dict[str, Any]:
    name = path.relative_to(folder).as_posix()
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    return {
        "@type": "cr:FileObject",
        "@id": name,
        "name": name,
        "contentUrl": name,
        "contentSize": f"{path.stat().st_size} B",
        "encodingFormat": _TYPES[path.suffix],
        "sha256": digest,
    }


def _record_set(folder: Path, table: Path) -> dict[str, Any]:
    file, name = table.relative_to(folder).as_posix(), table.stem
    return {
        "@type": "cr:RecordSet",
        "@id": name,
        "name": name,
        "description": f"All {name} of the atlas, a row each.",
        # Croissant has no lists of records: a behaviour's neighbours are left to who reads the table.
        "field": [
            _field(file, f"{name}/{column.name}", column)
            for column in pq.read_schema(table)
            if not pa.types.is_struct(_unlisted(column.type)[0])
        ],
    }


def _field(file: str, place: str, column: pa.Field) -> dict[str, Any]:
    """A column; lists are arrays of any length."""
    kind, depth = _unlisted(column.type)
    description = (column.metadata or {}).get(b"description", b"").decode()
    return _kept(
        {
            "@type": "cr:Field",
            "@id": place,
            "name": place,
            "description": description,
            "dataType": _data_type(kind),
            "isArray": depth > 0,
            "arrayShape": ",".join(["-1"] * depth),
            "source": {"fileObject": {"@id": file}, "extract": {"column": column.name}},
        }
    )


def _unlisted(kind: pa.DataType) -> tuple[pa.DataType, int]:
    """What lists hold, and how deep they are."""
    depth = 0
    while pa.types.is_list(kind):
        kind, depth = kind.value_type, depth + 1
    return kind, depth


def _data_type(kind: pa.DataType) -> str:
    if pa.types.is_boolean(kind):
        return "sc:Boolean"
    if pa.types.is_integer(kind):
        return "sc:Integer"
    return "sc:Float" if pa.types.is_floating(kind) else "sc:Text"


def _tables(folder: Path) -> list[Path]:
    return sorted((folder / "tables").glob("*.parquet"))


def _reference(entity: dict[str, Any]) -> dict[str, Any]:
    return {"@id": entity["@id"]}


def _kept(fields: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in fields.items() if value}


def _write_json(path: Path, data: dict[str, Any]) -> None:
    path.write_bytes(orjson.dumps(data, option=orjson.OPT_INDENT_2) + b"\n")


# The terms of Croissant 1.1, which demands them in every file.
_TERMS = (
    "arrayShape citeAs column containedIn equivalentProperty extract field fileObject fileProperty fileSet format "
    "includes isArray isLiveDataset jsonPath key md5 parentField path recordSet references regex repeated replace "
    "samplingRate separator source subField transform"
)
_CONTEXT: dict[str, Any] = {
    "@language": "en",
    "@vocab": "https://schema.org/",
    "cr": "http://mlcommons.org/croissant/",
    "dct": "http://purl.org/dc/terms/",
    "rai": "http://mlcommons.org/croissant/RAI/",
    "sc": "https://schema.org/",
    "conformsTo": "dct:conformsTo",
    "data": {"@id": "cr:data", "@type": "@json"},
    "dataType": {"@id": "cr:dataType", "@type": "@vocab"},
    "description": {"@container": "@language"},
    "examples": {"@id": "cr:examples", "@type": "@json"},
    "name": {"@container": "@language"},
    **{term: f"cr:{term}" for term in _TERMS.split()},
}
