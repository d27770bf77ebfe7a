"""Broken configurations, as files and as `--set`: each must be refused in short sentences, at once, in little memory.

python -m tests.attacks.configurations [--small]
"""

# ruff: noqa: E501 - values stand side by side, as many as there are of a kind
from __future__ import annotations

import gzip
import os
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from atlas_builder.config import Configuration
from atlas_builder.config_file import AS_WRITTEN
from tests.support.refusals import Refusal, Table, of_command, scratch

# A configuration that is not refused goes on to look for its corpus, and says so.
_NOWHERE = "no-such-corpus"
BASE = f"model: {{name: demo}}\ncorpus: {{source: text, path: {_NOWHERE}}}\n"


class Try(NamedTuple):
    kind: str
    name: str
    content: str | bytes = BASE
    overrides: tuple[str, ...] = ()
    place: Path | None = None
    """What is given in place of a file with the content."""


def broken_yaml() -> Iterator[Try]:
    for text in (
        "a: [", "a: {", "a: b: c", "- a\nb: c", "a: 'b", 'a: "b', 'a: "\\q"', "a: *nowhere", "\ta: b", "a: b\n c: d", "%YAML 9.9\n---\na: b",
        "%TAG ! x\na: b", "a: |9\n b", "@a: b", "`a: b", "a: &", "? ", "a: b\n---\nc: d", "a: }", "&a &b c: d", "a: >x\n b", "...", "!<", "a: !<x",
        "", " \n", "# nothing", "- a", "word", "3", "null", "[]", "{}", "~", "true", "2026-01-31",
    ):  # fmt: skip
        yield Try("YAML that is broken or no mapping", repr(text), text)


def bombs() -> Iterator[Try]:
    for width, depth in ((9, 9), (2, 60), (100, 4), (10, 300)):
        lines = ["a0: &a0 [x]"] + [
            f"a{level}: &a{level} [{', '.join([f'*a{level - 1}'] * width)}]" for level in range(1, depth)
        ]
        yield Try("aliases and merges", f"lists, {width} wide, {depth} deep", BASE + "\n".join(lines))
        lines = ["a0: &a0 {x: y}"] + [
            f"a{level}: &a{level} {{{', '.join(f'k{key}: *a{level - 1}' for key in range(width))}}}"
            for level in range(1, depth)
        ]
        yield Try("aliases and merges", f"maps, {width} wide, {depth} deep", BASE + "\n".join(lines))
        lines = ["a0: &a0 {x: y}"] + [
            f"a{level}: &a{level} {{<<: [{', '.join([f'*a{level - 1}'] * width)}]}}" for level in range(1, depth)
        ]
        yield Try("aliases and merges", f"merges, {width} wide, {depth} deep", BASE + "\n".join(lines))
    text = "&t " + "x" * 50_000
    yield Try("aliases and merges", "one text many times", f"{BASE}a: {text}\nb: [{'*t, ' * 10_000}]")
    for loop in (
        "a: &a [*a]",
        "a: &a {b: *a}",
        "a: &a {<<: *a}",
        "&a {*a : b}",
        "a: &a [[[*a]]]",
        "&a a: *a",
        "a: {<<: x}",
        "<<: [1]",
        "<<: 3",
    ):
        yield Try("aliases and merges", loop, BASE + loop)


def depths() -> Iterator[Try]:
    for depth in (17, 200, 5_000, 40_000):
        yield Try("deep nesting", f"{depth} lists", BASE + "a: " + "[" * depth + "]" * depth)
        yield Try("deep nesting", f"{depth} lists, open", BASE + "a: " + "[" * depth)
        yield Try("deep nesting", f"{depth} maps", BASE + "a: " + "{a: " * depth + "}" * depth)
        yield Try("deep nesting", f"{depth} block lists", "- " * depth + "a")
        yield Try("deep nesting", f"{depth} question marks", "? " * depth + "a")
    yield Try("deep nesting", "block maps", "\n".join(" " * level + f"k{level}:" for level in range(300)))


def keys() -> Iterator[Try]:
    for key in ("? [a]\n", "? {a: b}\n", "1", "1.5", "null", "~", "true", "yes", "2026-01-31", ".nan", "=", '""', '"\\0"', '"\\ud800"', '"\\u202e"',
                "k" * 3_000, "'" + "k " * 40_000 + "'", "&a a", "!!str a", "modle", "corpuss"):  # fmt: skip
        for text in (f"{key}: x", f"atlas: {{title: x, {key.strip('? ').strip()}: x}}"):
            yield Try("keys", repr(key[:30]), BASE + text)
    for text in ("model: {name: demo}", "atlas: {id: a, id: a}", "atlas: {id: a, 'id': b}", "atlas: {}\natlas: {}"):
        yield Try("duplicate keys", text, BASE + text)


def sizes() -> Iterator[Try]:
    for size in (100_001, 1_000_001, 20_000_000):
        yield Try("size", f"a comment of {size}", BASE + "#" * size)
        yield Try("size", f"a title of {size}", BASE + f"atlas: {{title: {'x' * size}}}")
        yield Try("size", f"lines of {size}", BASE + "\n" * size)
        yield Try("size", f"a list of {size}", BASE + f"units: {{layers: [{'1,' * (size // 2)}]}}")
    yield Try("size", "many keys", BASE + "\n".join(f"k{number}: v" for number in range(4_000)))
    yield Try("size", "many authors", BASE + "atlas: {authors: [" + "{name: ''}, " * 1_500 + "]}")
    yield Try("size", "many layers", BASE + "units: {layers: [" + "-1, " * 4_000 + "]}")


def encodings() -> Iterator[Try]:
    for name, content in {
        "UTF-16": BASE.encode("utf-16"), "UTF-32": BASE.encode("utf-32"), "Latin-1": (BASE + "atlas: {title: \xe9}").encode("latin-1"),
        "gzip": gzip.compress(BASE.encode()), "NUL": BASE.encode() + b"a: \0", "escape": BASE.encode() + b"a: \x1b[2J", "png": b"\x89PNG\r\n\x1a\n\0",
        "surrogate in UTF-8": BASE.encode() + b"a: \xed\xa0\x80", "overlong": BASE.encode() + b"a: \xc0\x80", "BOM only": b"\xef\xbb\xbf",
        "noncharacter": BASE.encode() + "a: \uffff".encode(), "DEL": BASE.encode() + b"a: \x7f", "random": bytes(range(256)) * 40,
    }.items():  # fmt: skip
        yield Try("encodings", name, content)


def files(folder: Path) -> Iterator[Try]:
    os.mkfifo(folder / "pipe.yml")
    (folder / "folder.yml").mkdir()
    (folder / "circle.yml").symlink_to("circle.yml")
    places = (
        "pipe.yml",
        "folder.yml",
        "circle.yml",
        "none.yml",
        "x" * 300,
        "/dev/zero",
        "/dev/urandom",
        "/proc/self/mem",
        "x/" * 3_000,
    )
    for place in places:
        yield Try("what is no file", place[:20], place=folder / place)


_WRONG = {
    "a list of lists": "[[]]", "a map": "{a: {}}", "a tag": "!!binary aGk=", "a timestamp": '!!timestamp "x"', "python": "!!python/name:os.system x",
    "a set": "!!set {a}", "half a pair": '"\\ud800"', "a NUL": '"a\\0b"', "5,000 letters": "x" * 5_000, "5,000 digits": "9" * 5_000,
    "beyond 64 bits": "18446744073709551616", "below 64 bits": "-9223372036854775809", "infinity": "1.0e+999", "itself": "&a [*a]",
    "brackets": "[" * 500,
}  # fmt: skip


def values() -> Iterator[Try]:
    """Every setting with every wrong value, in a file and by `--set`."""
    for section, field in Configuration.model_fields.items():
        for name in field.annotation.model_fields:  # type: ignore[union-attr]
            for kind, value in _WRONG.items():
                if f"{section}.{name}" in AS_WRITTEN and kind in ("infinity", "beyond 64 bits", "below 64 bits"):
                    continue  # a number is text there, as it is written
                text = f"{section}: {{{name}: {value}}}\n"
                rest = "".join(line + "\n" for line in BASE.splitlines() if not line.startswith(f"{section}:"))
                yield Try("every setting", f"{section}.{name}: {kind}", rest + text)
                yield Try(
                    "every setting by --set", f"{section}.{name}: {kind}", overrides=(f"{section}.{name}={value}",)
                )


_REFUSED = {
    "atlas.url": ('"http://[::1"', "http://", "https:///a", "http://a:b/", "http://a:99999/", "http://u:p@a/", "http://a/%zz", "ftp://a/", "javascript:x",
                  '"http://a/\\u202e"', '"http://a/\\u00a0"', "//a", "http://a?b", "http://a#b", "http://[a]/", "http://" + "a" * 3_000, "x", "''"),
    "site.above": ('"http://[::1"', "http://", "javascript:alert(1)", "data:x", '"a b"', "'<b>'", '"\\u202e"', "a%zz", "''"),
    "atlas.authors": ("[{name: ''}]", "[{name: ' '}]", '[{name: "\\u200b"}]', "[{name: '...'}]", "[{}]", "[x]", "[{nmae: x}]", "[[]]", "{name: x}", "[null]",
                      "[{name: 3}]", "[{name: x, orcid: 0000-0002-1825-0098}]", "[{name: x, orcid: 0000-0002-1825-009x}]", "[{name: x, orcid: 1}]",
                      "[{name: x, orcid: https://orcid.org/0000-0002-1825-0097}]", "[{name: x, orcid: \u0660000-0002-1825-0097}]", "[{name: x, orcid: ''}]"),
    "atlas.version": (".nan", ".inf", "-.inf", "''", "' '", "[1]", '"\\u202e1"', '"1\\n2"', "x" * 41),
    "atlas.date": ("2026-02-30", "20260131", "2026-1-3", "2026-01-31T00:00:00", "today", "''", "9999999999", ".nan", "2026-01-31 10:00:00 +99:99"),
    "atlas.id": ("''", "../a", "a/b", ".a", "A", "a" * 65, '"a\\n"', "\u00e9"),
    "atlas.license": ("''", "' '", "()", "<b>", "x" * 300, '"\\u202e"'),
    "atlas.doi": ("10.1/a", "https://doi.org/10.1234/a", '"10.1234/\\u202e"', "10.1234/a b", "\u0661\u0660.1234/a", "''"),
    "model.name": ("''", '"a\\nb"', "x" * 300, "null"),
    "model.device": ("gpu", "cuda:-1", "cuda:\u0661", "cuda:99999999999", "''", "CPU"),
    "model.dtype": ("float8", "''", "null"),
    "corpus.source": ("csv", "''", "null"),
    "corpus.context": ("1", "1.5", "'128'", "true", "1_000_001", "-1", "0x7fffffff", "1:30:00:00"),
    "corpus.max_tokens": ("0", "-1", "1e30", "9007199254740993000"),
    "units.layers": ("[]", "[-1]", "[4294967296]", "[1.5]", "['0']", "some", "{0: 1}", "[[0]]", "null"),
    "units.path": ("x",), "units.kind": ("sae", "transcoder", "MLP"), "examples.threshold": ("0.5",), "clusters.cut": ("0.5",),
    "examples.share": (".nan", ".inf", "0", "1.1", "-0.1", "'0.5'", "0.1"),
    "examples.bands": ("[]", "[0]", "[1, 0]", "[0, 0]", "[0, .nan]", "[0, 2]", "x"),
    "examples.window": ("[1]", "[1, 2, 3]", "[-1, 1]", "[501, 0]", "3", "[a, b]"),
    "examples.seed": ("-1", "9223372036854775808", "1.0"),
    "link.threshold": ("2", ".nan", "none"), "site.host": ("netlify",), "site.theme": ("/dev/zero", "./nowhere", "''"), "site.prose": ("/dev/zero", "nowhere"),
}  # fmt: skip


def refused_values() -> Iterator[Try]:
    for key, given in _REFUSED.items():
        section, name = key.split(".")
        rest = "".join(line + "\n" for line in BASE.splitlines() if not line.startswith(f"{section}:"))
        others = f", path: {_NOWHERE}" if section == "corpus" else ""
        if section == "corpus" and name != "source":
            others += ", source: text"
        for value in given:
            yield Try(
                "values that cannot be meant", f"{key}: {value[:40]}", f"{rest}{section}: {{{name}: {value}{others}}}\n"
            )
            yield Try("the same by --set", f"{key}={value[:40]}", overrides=(f"{key}={value}",))


def odd_overrides() -> Iterator[Try]:
    for text in ("", "=", "=3", "a", ".=1", "..=1", "a.=1", "model=demo", "model.name.deep=1", "corpus=[]", "atlas.authors.0=x", ".".join("a" * 50_000) + "=1",
                 "x" * 90_000 + "=1", "atlas.title=" + "x" * 110_000, "atlas.title=[", "a\x1b[2J=1", "\udcff=1", "atlas.title=\udcff", "atlas.title=\x00",
                 "atlas.title=\u202e\x1b", "__class__=1", "model_config=1", "atlas.model_fields=1", "corpus.context=${HOME}", "title=x"):  # fmt: skip
        yield Try("odd --set", repr(text[:30]), overrides=(text,))


def every_try(folder: Path) -> Iterator[Try]:
    for tries in (broken_yaml, bombs, depths, keys, sizes, encodings):
        yield from tries()
    yield from files(folder)
    for tries in (refused_values, odd_overrides, values):
        yield from tries()


def run(attempt: Try, folder: Path) -> Refusal:
    """Give one to `build`."""
    place = attempt.place
    if place is None:
        place = folder / "tried.yml"
        content = attempt.content
        place.write_bytes(content.encode("utf-8") if isinstance(content, str) else content)
    overrides = [part for override in attempt.overrides for part in ("--set", override)]
    return of_command(["build", str(place), "--output", str(folder / "site"), *overrides])


def main(small: bool) -> int:
    """Try all, or with `small` one in twelve of each kind, and the first."""
    table = Table()
    with scratch("configurations") as name:
        folder = Path(name)
        met: Counter[str] = Counter()
        for attempt in every_try(folder):
            met[attempt.kind] += 1
            if small and met[attempt.kind] % 12 != 1:
                continue
            refusal = run(attempt, folder)
            objection = refusal.objection()
            if not objection and any(_NOWHERE in line and "does not exist" in line for line in refusal.lines):
                objection = "was accepted"
            table.add(attempt.kind, attempt.name, refusal, objection)
    return table.conclude()


if __name__ == "__main__":
    sys.exit(main("--small" in sys.argv[1:]))
