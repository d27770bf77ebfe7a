"""Hostile explanations, published by a build and taken by `explain --from`: each is refused in a sentence, or safe.

A line with each of its keys replaced by what does not belong there, texts of every kind, and files that are no files
of explanations. What is refused leaves the site and the lines that were there as they were; what is published is
escaped on pages, with numbers within their range, and a paragraph takes at most `_PARAGRAPH` bytes.

python -m tests.attacks.explanations [--small]
"""

from __future__ import annotations

import gzip
import json
import os
import re
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

import yaml
from transformers import GPT2Config

from atlas_builder.config_file import validate
from atlas_builder.corpus.token_text import HIDDEN
from atlas_builder.errors import ConfigurationError
from atlas_builder.explain.results import read_explanations
from atlas_builder.pipeline.build import build
from atlas_builder.progress import Progress
from atlas_builder.records.explanations import Explanation, digest_of, parse_lines
from atlas_builder.site.hosting.check import check
from tests.support.atlases import HOSTILE, digests, records_of, write_words
from tests.support.models import save_tiny
from tests.support.refusals import Refusal, Table, of_command, scratch

Line = dict[str, Any]
Content = bytes | Callable[[Path], object]

_PARAGRAPH, _ORDINARY = 650, 500
"""Bytes that an explanation adds to a page at most, and one of at most 25 words without another judge."""
_TOKENS = {"vocab_size": 2112, "bos_token_id": 0, "eos_token_id": 0}
_BESIDE = "it stays as it is"
_SAID = re.compile(r"<p class=said>(.*?</small>)", re.DOTALL)
_TAGS = re.compile(r"</?(?:small|u)>")
_SCORE = re.compile(r"(simulation|detection|fuzzing) (−?[\d.]+|nan|inf)(?: \(at random (−?[\d.]+|nan|inf)\))?")


class Try(NamedTuple):
    kind: str
    name: str
    content: Content
    source: str = "lines"
    """What `--from` is told that it is; lines are published too."""


def _nested(depth: int) -> Any:
    value: Any = []
    for _ in range(depth):
        value = [value]
    return value


WRONG: dict[str, Any] = {
    "null": None, "true": True, "false": False, "0": 0, "-1": -1, "2": 2, "-5": -5, "1.5": 1.5, "NaN": float("nan"),
    "Infinity": float("inf"), "-Infinity": float("-inf"), "beyond a float": 10**400, "beyond 64 bits": 2**63,
    "a number as text": "0.9", "one as text": "1", "nothing": "", "blanks": " \n\t\u3000", "a list": [],
    "an object": {}, "pairs": [["detection", 0.5]], "900 lists": _nested(900), "10,000 letters": "x" * 10_000,
    "10,000 signs": "<&>" * 3333, "10,000 bells": "\a" * 10_000, "half a pair": "\ud800", "a byte order mark": "\ufeff",
    **{f"hostile {number}": text for number, text in enumerate(HOSTILE)},
}  # fmt: skip


def wrong_keys(line: Line) -> Iterator[Try]:
    """A line with each of its keys, and each score, replaced or left out."""
    for key in line:
        yield Try("a key left out", key, _json({name: value for name, value in line.items() if name != key}))
        for name, value in WRONG.items():
            yield Try("a key replaced", f"{key}: {name}", _json({**line, key: value}))
    for part in ("scores", "floor"):
        for key in line[part]:
            for name, value in WRONG.items():
                yield Try("a score replaced", f"{part}.{key}: {name}", _json({**line, part: {key: value}}))
    for key, value in {
        "id": "other/L0/N0", "does": "0" * 64, "behaviour": 999, "source": "oracle", "layer": 1, "unit": 10**17,
    }.items():  # fmt: skip
        yield Try("what does not exist", f"{key}: {value}"[:40], _json({**line, key: value}))


def broken_files(line: Line) -> Iterator[Try]:
    """What is no file of lines."""
    good = _json(line)
    for name, content in {
        "empty": b"", "blank lines": b"\n\r\n \n", "NUL": b"\0" * 100, "deep lists": b"[" * 100_000, "a list": b"[]",
        "deep in a key": good.rstrip(b"}\n") + b', "x": ' + b"[" * 10_000 + b"]" * 10_000 + b"}\n", "text": b"Dear all",
        "digits": b"9" * 5000, "a long number": good.replace(b'"seed": 0', b'"seed": ' + b"9" * 5000),
        "UTF-16": good.decode().encode("utf-16"), "Latin 1": b'{"id": "\xe9"}', "surrogates": b'{"id": "\xed\xa0\x80"}',
        "a byte order mark": b"\xef\xbb\xbf" + good, "CRLF": good.replace(b"\n", b"\r\n") * 2,
        "CR": good.rstrip() + b"\r", "cut": good[:-20], "cut twice": good[:-20] + b"\n" + good[:-20], "twice": good * 2,
        "a gap": good + b"\n\n" + good, "keys twice": good.replace(b"{", b'{"id": 3, ', 1),
        "random": bytes(range(256)) * 40, "{}": b"{}\n", "gzip": gzip.compress(good),
        "half of gzip": gzip.compress(good * 1000)[:40],
        "a line of zeros": b"0" * 20_000_000, "zeros compressed": gzip.compress(bytes(60_000_000), 1),
        "a list of zeros": gzip.compress(b"[" + b"0," * 10**6, 1), "lines of zeros": gzip.compress(b"0\n" * 100_000, 1),
        "an end to gzip": gzip.compress(good) + b"junk",
    }.items():  # fmt: skip
        for source in ("lines", "neuronpedia"):
            yield Try("broken files", f"{name}, as {source}", content, source)
    makes: dict[str, Callable[[Path], object]] = {
        "a folder": Path.mkdir, "a pipe": os.mkfifo, "a circle": lambda place: place.symlink_to(place.name),
        "nothing": lambda place: None, "zeros": lambda place: place.symlink_to("/dev/zero"),
    }  # fmt: skip
    for name, make in makes.items():
        for source in ("lines", "neuronpedia", "delphi"):
            yield Try("what is no file", f"{name}, as {source}", make, source)


def _batch(line: Line) -> Iterator[Try]:
    """Descriptions of Neuronpedia, and files of delphi."""
    good = {"layer": "0-mlp", "index": "0", "description": "verbs", "explanationModelName": "m"}
    for key in good:
        for name, value in WRONG.items():
            yield Try("Neuronpedia", f"{key}: {name}", _json({**good, key: value}), "neuronpedia")
    for name, value in WRONG.items():
        yield Try("delphi", f"text: {name}", _folder(name="layers.0.mlp_latent0.txt", text=value), "delphi")
        yield Try("delphi", f"model: {name}", _folder(config={"explainer_model": value}), "delphi")
        yield Try("delphi", f"configuration: {name}", _folder(config=value), "delphi")
    for name in ("_latent0.txt", "layers.0_latent.txt", "layers.0_latent-1.txt", f"layers.0_latent{'9' * 30}.txt",
                 "layers.0_latent0.txt.txt", f"layers.{'9' * 30}_latent0.txt",
                 "layers.0_latent\u0663.txt"):  # fmt: skip
        yield Try("delphi", name, _folder(name=name), "delphi")


def _folder(name: str = "layers.0.mlp_latent0.txt", text: Any = "verbs", config: Any = None) -> Content:
    def make(place: Path) -> None:
        (place / "explanations").mkdir(parents=True)
        (place / "explanations" / name).write_bytes(_json(text))
        (place / "run_config.json").write_bytes(_json(config))

    return make


def _lines_of(content: Content) -> list[Line] | None:
    """The lines of a file that a build publishes; None for one that it should refuse."""
    if callable(content):
        return None
    try:
        text = content.decode("utf-8-sig")
        number = len(parse_lines(text, "").explanations)
    except (ConfigurationError, UnicodeDecodeError):
        return None
    return [json.loads(line) for line in text.split("\n")[:number]]


def _json(value: Any) -> bytes:
    return json.dumps(value).encode() + b"\n"


class Attack:
    """An atlas, and what is tried on it."""

    def __init__(self, root: Path) -> None:
        self.site, self.given, self.output = root / "site", root / "given", root / "said.jsonl"
        self._config, self._table = root / "tried.yml", Table()
        save_tiny(GPT2Config(n_layer=2, n_head=2, n_embd=16, n_inner=24, n_positions=64, **_TOKENS), root / "model")
        write_words(root / "text")
        settings: dict[str, Any] = {
            "atlas": {"id": "tried"}, "model": {"name": str(root / "model")}, "link": {"map": False},
            "corpus": {"source": "jsonl", "path": str(root / "text" / "words.jsonl"), "context": 32},
            "examples": {"per_unit": 8}, "describe": {"importance": "none"},
        }  # fmt: skip
        self._config.write_text(yaml.safe_dump(settings), encoding="utf-8")
        with ThreadPoolExecutor(1) as pool:
            build(validate(settings), self.site, executor=pool)
        self.records = [record for record in records_of(self.site) if record["behaviours"]]
        self._before = digests(self.site)
        self._pages = {path: path.read_text(encoding="utf-8") for path in self.site.rglob("N*.html")}
        own = Explanation(self.records[-1]["id"], 0, 0, None, "0" * 64, "own", explanation=_BESIDE)
        address = self.records[-1]["layer"], self.records[-1]["unit"]
        self._own = own.line.replace('"layer": 0, "unit": 0', '"layer": {}, "unit": {}'.format(*address))

    def line(self, place: int, **changes: Any) -> Line:
        """A line that explains a behaviour, with all scores."""
        record = self.records[place % len(self.records)]
        scores = {"simulation": -0.4, "random_only": 0.1, "whole_range": 0.2, "detection": 0.8, "fuzzing": 0.7}
        return {
            "id": record["id"], "layer": record["layer"], "unit": record["unit"], "behaviour": 1,
            "does": digest_of(record, 1), "model": "m", "source": "explain", "judge": "m", "seed": 0,
            "explanation": "verbs of motion", "range_explanation": "", "scores": scores,
            "floor": {"simulation": -0.1, "detection": 0.5, "fuzzing": 0.5}, **changes,
        }  # fmt: skip

    def every_try(self) -> Iterator[Try]:
        """All that is tried."""
        for tries in (wrong_keys, broken_files, _batch):
            yield from tries(self.line(0))

    def run(self, small: bool) -> int:
        """Try all, or with `small` one in thirty of each kind, and the first."""
        met: Counter[str] = Counter()
        sound: list[Line] = []
        for tried in self.every_try():
            met[tried.kind] += 1
            if small and met[tried.kind] % 30 != 1:
                continue
            self._remove(self.given)
            if callable(tried.content):
                tried.content(self.given)
            else:
                self.given.write_bytes(tried.content)
            self._taken(tried)
            if tried.source == "lines":
                lines = _lines_of(tried.content)
                if lines is None:
                    self._published(tried)
                else:
                    sound += lines
        self._all_published([*sound, *(self.line(0, explanation=text, model=text) for text in HOSTILE)])
        return self._table.conclude()

    def _remove(self, place: Path) -> None:
        if place.is_dir() and not place.is_symlink():
            for path in sorted(place.rglob("*"), reverse=True):
                path.rmdir() if path.is_dir() else path.unlink()
            place.rmdir()
        else:
            place.unlink(missing_ok=True)

    def _taken(self, tried: Try) -> None:
        """Give one to `explain --from`; it is refused, or its lines are there, and there once."""
        self.output.write_text(self._own, encoding="utf-8")
        command = ["explain", str(self.site), "--from", f"{tried.source}:{self.given}", "--output", str(self.output)]
        ended = of_command(command)
        objection = _ended_badly(ended)
        if not objection and ended.status:
            objection = None if self.output.read_text(encoding="utf-8") == self._own else "refused, and lines are lost"
        elif not objection:
            lines = self.output.read_bytes()
            kept = read_explanations(self.output)
            again = of_command(command)
            if again.status or self.output.read_bytes() != lines:
                objection = "taken twice, it differs"
            elif kept[0].explanation != _BESIDE:
                objection = "what was there is lost"
            elif any(HIDDEN.search(one.explanation) or len(one.explanation) > 2000 for one in kept):
                objection = "a text is too long, or has what cannot be seen"
        self._table.add(f"{tried.kind}, taken", tried.name, ended, objection)

    def _published(self, tried: Try) -> None:
        """Give to a build what it should refuse."""
        ended = self._build()
        objection = ended.objection(seconds=20, megabytes=900) or (
            None if digests(self.site) == self._before else "the site changed"
        )
        self._table.add(f"{tried.kind}, published", tried.name, ended, objection)

    def _build(self) -> Refusal:
        override = f"site.explanations={self.given}"
        return of_command(["build", str(self._config), "--output", str(self.site), "--set", override], limit=400)

    def _all_published(self, sound: list[Line]) -> None:
        """Publish all lines that can be, each by another model and of another behaviour."""
        lines, first = [], self.line(0)
        for number, line in enumerate(sound):
            own = self.line(number, model=f"m{number}")
            address = {name: own[name] for name in ("id", "layer", "unit")} if line["id"] == first["id"] else {}
            does = {"does": own["does"]} if line["does"] == first["does"] else {}
            name = {"model": own["model"]} if line["model"] == "m" else {}
            lines.append({**line, **address, **does, **name})
        self._remove(self.given)
        self.given.write_bytes(b"".join(map(_json, lines)))
        ended = self._build()
        found = [] if ended.status == 0 else [f"ended with {ended.status}: {' | '.join(ended.lines[-3:])[:300]}"]
        found += check(self.site, Progress(quiet=True)).problems
        for path, before in self._pages.items():
            found += [f"{path.name}: {problem}" for problem in _problems_of_page(before, path.read_text("utf-8"))]
        for number, problem in enumerate(found or [""]):
            self._table.add("lines published together", f"{len(lines)} lines, {number}", ended, problem or None)
        self._remove(self.given)
        ended = of_command(["build", str(self._config), "--output", str(self.site)], limit=400)
        objection = None if digests(self.site) == self._before else "without the setting, the site is not as before"
        self._table.add("the setting removed", "digests", ended, objection)


def _ended_badly(ended: Refusal) -> str | None:
    """What is wrong with how a command ended, whether it worked or refused."""
    if ended.status:
        return ended.objection(seconds=10, megabytes=900)
    if ended.status is None:
        return "did not end"
    return next((f"not a sentence: {line[:100]!r}" for line in ended.lines if not line.isprintable()), None)


def _problems_of_page(before: str, page: str) -> Iterator[str]:
    """What is wrong with a page that explanations were added to."""
    if page.count("<script") != before.count("<script") or HIDDEN.search(page.replace("\n", "")):
        yield "something is not escaped"
    said = _SAID.findall(page)
    grown = len(page.encode()) - len(before.encode())
    if grown > _PARAGRAPH * len(said):
        yield f"{grown} bytes more for {len(said)} paragraphs"
    for paragraph in said:
        size = len(f"<p class=said>{paragraph}".encode())
        is_ordinary = "…" not in paragraph and len(paragraph.partition("<small>")[0].split()) <= 25
        if size > (_ORDINARY if is_ordinary and "judged by" not in paragraph else _PARAGRAPH):
            yield f"a paragraph of {size} bytes: {paragraph[:60]!r}"
        if "<" in _TAGS.sub("", paragraph):
            yield f"an element in {paragraph[:100]!r}"
        for name, *values in _SCORE.findall(paragraph):
            for value in filter(None, values):
                number = float(value.replace("−", "-"))
                if not (-1 if name == "simulation" else 0) <= number <= 1:
                    yield f"{name} {value}"


def main(small: bool) -> int:
    """Try all on a tiny atlas; 1 if something did not hold."""
    with scratch("explanations") as name:
        return Attack(Path(name)).run(small)


if __name__ == "__main__":
    sys.exit(main("--small" in sys.argv[1:]))
