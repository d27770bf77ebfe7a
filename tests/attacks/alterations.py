"""Single facts altered in a built site, over every kind of file and field: what `check` finds.

    python -m tests.attacks.alterations [--small] [--part=1/3] [SITE]

Each is tried twice: as it is, which the sums show, and by an attacker who computes sums and hashes anew.
Without a SITE a miniature one is built.
"""

from __future__ import annotations

import hashlib
import json
import re
import shutil
import sys
import tempfile
from collections import Counter
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import orjson
import pyarrow as pa
import pyarrow.parquet as pq

from atlas_builder.config_file import validate
from atlas_builder.pipeline.build import build
from atlas_builder.progress import Progress
from atlas_builder.records.schema import content_hash, serialise
from atlas_builder.site.hosting import sums
from atlas_builder.site.hosting.check import check
from tests.support import models

QUIET = Progress(quiet=True)


class Alteration(NamedTuple):
    """One fact altered."""

    kind: str
    name: str
    apply: Callable[[Path], None]


def rehash(site: Path, original: Path) -> None:
    """What an attacker does after altering a file: hashes and sizes, wherever they stand, are those of the new one.

    A record's hash stands on its page and in its layer's citations, those of tables in the metadata, and all
    in the sums, whose own is in `atlas.json`.
    """
    for path in site.glob("L*/N*.json"):
        before = (
            (original / path.relative_to(site)).read_bytes() if (original / path.relative_to(site)).exists() else b""
        )
        if before and path.read_bytes() != before:
            former, new = orjson.loads(before)["hash"], orjson.loads(path.read_bytes())["hash"]
            for other in (path.with_suffix(".html"), path.parent / "cite.json", path.parent / "cite.ris"):
                text = other.read_text(encoding="utf-8").replace(former, new).replace(former[:16], new[:16])
                other.write_text(text, encoding="utf-8", newline="")
    for name in ("croissant.json", "ro-crate-metadata.json"):
        if (site / name).read_bytes() != (original / name).read_bytes():
            continue  # the altered one
        content = orjson.loads((site / name).read_bytes())
        for entry in content.get("distribution", content.get("@graph", [])):
            if "contentSize" in entry and (site / entry["@id"]).is_file():
                data = (site / entry["@id"]).read_bytes()
                entry["contentSize"] = f"{len(data)} B" if "sha256" in entry else str(len(data))
                if "sha256" in entry:
                    entry["sha256"] = hashlib.sha256(data).hexdigest()
        (site / name).write_bytes(orjson.dumps(content, option=orjson.OPT_INDENT_2) + b"\n")
    sums.seal(site)


def _of_record(change: Callable[[dict[str, Any]], None], address: str) -> Callable[[Path], None]:
    def apply(site: Path) -> None:
        path = site / f"{address}.json"
        record = orjson.loads(path.read_bytes())
        before = orjson.dumps(record)
        change(record)
        assert orjson.dumps(record) != before, "nothing was altered"
        record["hash"] = content_hash(record)
        path.write_bytes(serialise(record))

    return apply


def _of_text(name: str, pattern: str, to: str | Callable[[re.Match[str]], str]) -> Callable[[Path], None]:
    def apply(site: Path) -> None:
        path = site / name
        text = path.read_text(encoding="utf-8")
        altered = re.sub(pattern, to, text, count=1, flags=re.DOTALL)
        assert altered != text, f"nothing matches {pattern}"
        path.write_text(altered, encoding="utf-8", newline="")

    return apply


def _of_json(name: str, change: Callable[[dict[str, Any]], None]) -> Callable[[Path], None]:
    def apply(site: Path) -> None:
        path = site / name
        content = orjson.loads(path.read_bytes())
        before = orjson.dumps(content)
        change(content)
        assert orjson.dumps(content) != before, "nothing was altered"
        path.write_bytes(orjson.dumps(content, option=orjson.OPT_INDENT_2) + b"\n" * (name != "atlas.json"))

    return apply


def _of_table(name: str, column: str, change: Callable[[Any], Any], row: int) -> Callable[[Path], None]:
    def apply(site: Path) -> None:
        path = site / "tables" / f"{name}.parquet"
        table = pq.read_table(path)
        values = table[column].to_pylist()
        places = range(row, len(values))
        place = next(place for place in places if change(values[place]) != values[place])
        values[place] = change(values[place])
        at = table.schema.get_field_index(column)
        pq.write_table(
            table.set_column(at, table.schema.field(at), pa.array(values, table.schema.field(at).type)), path
        )

    return apply


def _more(value: Any) -> Any:
    """Another value of its kind, near it."""
    if value is None:
        return None
    if isinstance(value, bool):
        return not value
    if isinstance(value, int):
        return value + 1
    if isinstance(value, float):
        return round(value * 0.8, 4) if value else 0.25
    if isinstance(value, str):
        return value + "x"
    if isinstance(value, list):
        return [_more(value[0]), *value[1:]] if value else value
    if isinstance(value, dict):
        first = "similarity" if "similarity" in value else next(iter(value))
        return {**value, first: _more(value[first])}
    raise TypeError(value)


def _leaves(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Paths of every field of a record, the first of each list."""
    if isinstance(value, dict):
        for name, part in value.items():
            yield from _leaves(part, (*path, name))
    elif isinstance(value, list):
        if value:
            yield from _leaves(value[0], (*path, 0))
            if isinstance(value[0], list) and len(value[0]) > 1:
                yield (*path, 0, 1)
    elif value is not None:
        yield path


def _set(path: tuple[Any, ...]) -> Callable[[dict[str, Any]], None]:
    def change(record: dict[str, Any]) -> None:
        node: Any = record
        for step in path[:-1]:
            node = node[step]
        node[path[-1]] = _more(node[path[-1]])

    return change


def alterations(site: Path) -> Iterator[Alteration]:
    """Every alteration of a site."""
    records = sorted(site.glob("L*/N*.json"), key=lambda path: path.stat().st_size)
    largest = orjson.loads(records[-1].read_bytes())
    address = f"L{largest['layer']}/N{largest['unit']}"
    for path in dict.fromkeys(_leaves(largest)):
        if path not in (("hash",), ("schema",)):
            yield Alteration("record", ".".join(map(str, path)), _of_record(_set(path), address))
    yield Alteration("record", "an example is gone", _of_record(lambda record: record["examples"].pop(), address))
    yield Alteration("record", "a behaviour is gone", _of_record(lambda record: record["behaviours"].pop(), address))
    yield Alteration("record", "two values exchanged", _of_record(_exchange, address))
    yield from _of_page(f"{address}.html")
    linked = next(page for page in sorted(site.glob("L*/N*.html")) if "<ul class=near>" in page.read_text("utf-8"))
    name = linked.relative_to(site).as_posix()
    yield Alteration("page", "link", _of_text(name, r"(<ul class=near>\n<li><a href=)[^>]+>", r"\1index.html>"))
    yield Alteration("page", "similarity", _of_text(name, r"(<ul class=near>.*?</span> [\d.]*)(\d)", _digit))
    for name in pq.ParquetFile(site / "tables" / "units.parquet").schema_arrow.names:
        values = pq.read_table(site / "tables" / "units.parquet")[name].to_pylist()
        if any(value is not None for value in values):
            yield Alteration("units.parquet", name, _of_table("units", name, _more, 1))
    for table in ("behaviours", "examples"):
        for name in pq.ParquetFile(site / "tables" / f"{table}.parquet").schema_arrow.names:
            yield Alteration(f"{table}.parquet", name, _of_table(table, name, _more, 3))
    yield from _of_overviews(site)
    yield from _of_search()
    yield from _of_metadata(site)
    yield from _of_foreign(f"{address}.html")


def _exchange(record: dict[str, Any]) -> None:
    values = record["examples"][0]["values"]
    key = record["examples"][0]["key"]
    other = next(place for place, value in enumerate(values) if value != values[key])
    values[key], values[other] = values[other], values[key]


def _digit(match: re.Match[str]) -> str:
    return match[1] + str((int(match[2]) + 1) % 10)


def _of_page(page: str) -> Iterator[Alteration]:
    for name, pattern in {
        "headline": r"(by )(\d)(?=\d* max-activating)",
        "reliability": r"(90 % interval )(\d)",
        "share in the sum": r"(</span>\d?)(\d)(?=%)",
        "size of a behaviour": r"(<p class=meta>)(\d)(?=\d* of)",
        "coverage": r"(examples, \d*)(\d)(?=% of their)",
        "stability": r"(stability 0?\.?\d*)(\d)",
        "share of a next token": r"(Next token: .*?</code> \d*)(\d)(?=%)",
        "activation of an example": r"(<b>\d*\.?\d*)(\d)(?=</b><cite>)",
        "position": r"(@\d*)(\d)(?=</cite>)",
        "histogram's text": r"(Histogram of )(\d)",
        "tokens": r"(<p class=note>)(\d)",
        "mean": r"(<dt>Mean<dd>−?\d*\.\d)(\d)",
        "MonoScore": r"(<dt>MonoScore<dd>0\.\d)(\d)",
        "effective number": r"(<dt>Effective number<dd>\d*\.?)(\d)",
        "logit effect": r"(<tr><td>.*?<td>−?0\.\d)(\d)",
        "highlighting of a token": r"(<i class=a)(\d)",
        "spread of the plane": r"(principal coordinates, \d)(\d)(?=%)",
        "threshold": r"(threshold of \d*\.?\d*)(\d)",
        "edition": r"(, edition )(\d)",
        "hash": r"(SHA-256 [0-9a-f]*?)(\d)",
        "bar": r"(<svg class=bar .*?h)(\d)",
    }.items():
        yield Alteration("page", name, _of_text(page, pattern, _digit))
    yield Alteration("page", "label", _of_text(page, r"(<h2><a href=#b1>1</a> )", r"\1not "))
    yield Alteration(
        "page", "example's text", _of_text(page, r"(<ol class=examples><li><b>.*?</cite><p[^>]*>)", r"\1no ")
    )
    yield Alteration("page", "title", _of_text(page, r"<title>", "<title>A "))


def _of_overviews(site: Path) -> Iterator[Alteration]:
    for name, page, pattern in (
        ("units", "index.html", r"(<dd>)(\d)"),
        ("behaviours", "index.html", r"(behaviours</dt><dd>)(\d)"),
        ("label of a start", "index.html", r'(<span class="c1">)()'),
        ("box's median", "index.html", r"(median )(\d)"),
        ("paper's distance", "index.html", r"(input alone</th><td>0\.\d)(\d)"),
        ("contexts", "index.html", r"(documents, \d*)(\d)(?= contexts)"),
        ("headline", "L0/index.html", r"(with \d*)(\d)(?= behaviours)"),
        ("a cell", "L0/index.html", r"(<tr><th scope=\"row\">.*?<td>\d*)(\d)(?=<td>)"),
        ("a column", "L0/units.js", r'("values":\[\d*)(\d)'),
        ("a hash", "L0/cite.json", r"(SHA-256 [0-9a-f]*?)(\d)"),
        ("a title", "L1/cite.ris", r"(TI  - Neuron )(\d)"),
        ("placed", "map.html", r"(Each of these dots is a behaviour, )(\d)"),
        ("prose's edition", "methods.html", r"(, edition )(\d)"),
        ("prose's number", "methods.html", r"(<article>.*?)(\d)(?=[^<>]*</p>)"),
        ("edition", "404.html", r"(, edition )(\d)"),
        ("layer", "search.html", r"(data-layer=\"0\"> )(\d)"),
    ):
        change: Any = _digit if name != "label of a start" else r"\1x"
        yield Alteration("overview", f"{page}: {name}", _of_text(page, pattern, change))
    for field in ("counts", "effective", "places"):
        yield Alteration(
            "map",
            field,
            _of_text(
                "map/points.js", rf'("{field}":"..)(.)', lambda match: match[1] + ("B" if match[2] != "B" else "C")
            ),
        )
    yield Alteration("map", "word", _of_text("map/points.js", r'("words":\[\[[^"]*")', r"\1x"))


def _of_search() -> Iterator[Alteration]:
    def other(match: re.Match[str]) -> str:
        return match[1] + ("B" if match[2] != "B" else "C")

    for name, file, pattern, change in (
        ("a unit's behaviours", "index.js", r'("layers":\[\[0,\d+,")(.)', other),
        ("number of behaviours", "index.js", r'("behaviours":\d*)(\d)', _digit),
        ("first of a shard", "index.js", r'("shards":\["[^"]*)', r"\1x"),
        ("label of a layer", "l0.js", r'(\[")', r"\1x"),
        ("label of a text", "x0.js", r'(\[\[")', r"\1x"),
        ("token of a text", "x0.js", r'(\[\["(?:[^"\\]|\\.)*","(?:[^"\\]|\\.)*",")', r"\1x"),
        ("text", "x0.js", r'(\[\["(?:[^"\\]|\\.)*",")', r"\1x "),
        ("who responds", "s0.js", r'(\[\["(?:[^"\\]|\\.)*",")(.)', other),
        ("where", "s0.js", r'(\[\["(?:[^"\\]|\\.)*","[^"]*","[^"]*",")(.)', other),
        ("offset", "s0.js", r'(\[\["(?:[^"\\]|\\.)*","[^"]*","[^"]*","[^"]*",")(.)', other),
        ("share", "s0.js", r'("[A-Za-z0-9_-]+",")([B-Z])(?=[A-Za-z0-9_-]*",")', other),
        ("count of a word", "words.js", r'(\],")(.)', other),
        ("effective number", "units.js", r'("effective":\[\[\d*)(\d)', _digit),
        ("density", "units.js", r'("density":\[\[)(\d)', _digit),
    ):
        yield Alteration("search", f"{file}: {name}", _of_text(f"search/{file}", pattern, change))


def _of_metadata(site: Path) -> Iterator[Alteration]:
    for name, path in {
        "title": ("title",), "edition": ("atlas", "version"), "licence": ("atlas", "license"), "date": ("date",),
        "tokens": ("corpus", "tokens"), "documents": ("corpus", "documents"), "contexts": ("corpus", "contexts"),
        "corpus's hash": ("corpus", "sha256"), "model": ("model", "name"), "width": ("model", "width"),
        "activation": ("model", "activation"), "units of a layer": ("layers", 0, "units"),
        "method": ("configuration", "clusters", "method"), "bands": ("configuration", "examples", "bands"),
        "package": ("packages", "numpy"), "loss": ("model", "loss"), "vocabulary": ("model", "vocabulary"),
    }.items():  # fmt: skip
        if orjson.loads((site / "atlas.json").read_bytes()).get(path[0]) is not None:
            node = orjson.loads((site / "atlas.json").read_bytes())
            for step in path:
                node = node[step]
            if node is not None:
                yield Alteration("atlas.json", name, _of_json("atlas.json", _set(path)))
    yield Alteration("metadata", "croissant: hash", _of_text("croissant.json", r'("sha256": "[a-f]*)(\d)', _digit))
    yield Alteration("metadata", "croissant: description", _of_text("croissant.json", r'("description": ")', r"\1Not "))
    yield Alteration(
        "metadata", "RO-Crate: size", _of_text("ro-crate-metadata.json", r'("contentSize": ")(\d)', _digit)
    )
    yield Alteration("metadata", "CITATION: title", _of_text("CITATION.cff", r"(title: )", r"\1Not "))
    yield Alteration("metadata", "robots", _of_text("robots.txt", "Allow", "Disallow"))
    yield Alteration("metadata", "sitemap", _of_text("sitemap.xml", r"(<loc>.*?N)(\d)", r"\g<1>9\2"))
    yield Alteration("schema", "a bound", _of_text("schema/neuron-record.schema.json", r'("minimum": )(\d)', _digit))
    yield Alteration("assets", "a script", _of_text("assets/atlas.js", r"\A", "window.x = 1;\n"))
    yield Alteration("assets", "a constant", _of_text("assets/constants.js", r'("offsets": )(\d)', _digit))
    yield Alteration("assets", "a style", _of_text("assets/atlas.css", r"\Z", "h1 { display: none }\n"))
    for name in (
        "L0/N1.html",
        "L0/N1.json",
        "L1/index.html",
        "search/x0.js",
        "map.html",
        "assets/theme.js",
        "robots.txt",
    ):
        yield Alteration("missing", name, partial(_remove, name))
    for name in ("L0/N5000.html", "L0/N5000.json", "assets/x.js", "search/y.js", "tables/z.parquet", "L9/index.html"):
        yield Alteration("added", name, partial(_add, name))


def _remove(name: str, site: Path) -> None:
    (site / name).unlink()


def _add(name: str, site: Path) -> None:
    path = site / name
    path.parent.mkdir(exist_ok=True)
    path.write_text("<!doctype html><title>x</title>", encoding="utf-8")


def _of_foreign(unit: str) -> Iterator[Alteration]:
    for name, markup in {
        "inline script": "<script>window.x=1</script>",
        "script from elsewhere": "<script src=https://example.com/x.js></script>",
        "handler": "<p onclick=x()>x</p>",
        "javascript: link": '<a href="javascript:x()">x</a>',
        "iframe": "<iframe src=https://example.com></iframe>",
        "style sheet": "<link rel=stylesheet href=https://example.com/x.css>",
        "base": "<base href=https://example.com/>",
        "refresh": '<meta http-equiv=refresh content="0; url=https://example.com">',
    }.items():
        for page in (unit, "methods.html"):
            yield Alteration("foreign", f"{page}: {name}", _of_text(page, r"(<main [^>]*>)", r"\1" + markup))
    for page in (unit, "methods.html", "index.html"):
        yield Alteration("foreign", f"{page}: no policy", _of_text(page, r"<meta http-equiv=Content-[^>]*>", ""))


def found_by_check(site: Path, alteration: Alteration, scratch: Path) -> tuple[bool, bool]:
    """Whether `check` finds an alteration by the sums, and with sums and hashes recomputed."""
    copy = scratch / "copy"
    shutil.rmtree(copy, ignore_errors=True)
    shutil.copytree(site, copy)
    alteration.apply(copy)
    names = [path.relative_to(copy).as_posix() for path in copy.rglob("*") if path.is_file()]
    by_sums = bool(sums.sum_problems(copy, orjson.loads((copy / "atlas.json").read_bytes()), names)[0])
    rehash(copy, site)
    return by_sums, bool(check(copy, QUIET).problems)


def _build(folder: Path) -> Path:
    """A miniature atlas of a random GPT-2."""
    models.save_tiny(models.SHAPES["gpt2"], folder / "gpt2")
    words = [*"abcdefghij", "the", "cat", "def", "return", "import", "12", "345", "(", ")", ":", "="]
    lines = [
        {"text": " ".join(words[(7 * line + 3 * place * place) % len(words)] for place in range(60))}
        for line in range(40)
    ]
    (folder / "words.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")
    data = {
        "atlas": {"id": "tiny", "title": "A tiny atlas", "date": "2026-01-02", "url": "https://example.org/atlas"},
        "model": {"name": str(folder / "gpt2")},
        "examples": {"policy": "threshold", "per_unit": 12, "threshold": 0.5},
        "corpus": {"source": "jsonl", "path": str(folder / "words.jsonl"), "context": 32},
    }
    return build(validate(data), folder / "site")


def main() -> int:
    """Try every alteration, with `--small` every eighth; print counts and what was not found."""
    arguments = [argument for argument in sys.argv[1:] if not argument.startswith("--")]
    part = next((argument[7:].split("/") for argument in sys.argv if argument.startswith("--part=")), ["1", "1"])
    first, step = (0, 8) if "--small" in sys.argv else (int(part[0]) - 1, int(part[1]))
    tried, summed, recomputed = Counter[str](), Counter[str](), Counter[str]()
    missed = []
    with tempfile.TemporaryDirectory() as name:
        scratch = Path(name)
        site = Path(arguments[0]) if arguments else _build(scratch)
        assert not check(site, QUIET).problems
        as_it_is = Alteration("none", "nothing", lambda _: None)
        assert found_by_check(site, as_it_is, scratch) == (False, False)
        for alteration in list(alterations(site))[first::step]:
            try:
                by_sums, by_content = found_by_check(site, alteration, scratch)
            except (AssertionError, StopIteration) as error:
                print(f"not tried: {alteration.kind}, {alteration.name}: {error}", file=sys.stderr)
                continue
            tried[alteration.kind] += 1
            summed[alteration.kind] += by_sums
            recomputed[alteration.kind] += by_content
            if not (by_sums and by_content):
                missed.append(f"- {alteration.kind}: {alteration.name}" + ("" if by_sums else ", by the sums too"))
                print(missed[-1], file=sys.stderr, flush=True)
    print("| kind | tried | found by the sums | found with sums recomputed |\n|---|---:|---:|---:|")
    for kind in tried:
        print(f"| {kind} | {tried[kind]} | {summed[kind]} | {recomputed[kind]} |")
    print(f"| all | {tried.total()} | {summed.total()} | {recomputed.total()} |")
    print("\nNot found with sums and hashes recomputed:\n", *missed, sep="\n")
    return int(summed.total() < tried.total() or 3 * recomputed.total() < 2 * tried.total())


if __name__ == "__main__":
    sys.exit(main())
