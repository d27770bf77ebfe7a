"""Miniature atlases: real ones, small enough to build in seconds, and what builds them."""

from __future__ import annotations

import hashlib
import json
import os
import random
import shutil
from collections.abc import Callable, Iterator
from concurrent.futures import Executor, ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from filelock import FileLock

from atlas_builder.config import Configuration
from atlas_builder.config_file import validate
from atlas_builder.corpus.contexts import Contexts
from atlas_builder.pipeline.build import build
from atlas_builder.progress import Progress
from atlas_builder.records.address import UnitAddress
from atlas_builder.records.stages import Stages
from atlas_builder.workspace import work_folder

Configure = Callable[..., Configuration]
Once = Callable[[str, Callable[[Path], object]], Path]


class Listener(Progress):
    """Keeps what a build says."""

    def __init__(self) -> None:
        super().__init__(quiet=True)
        self.lines: list[str] = []

    def say(self, text: str) -> None:
        self.lines.append(text)

    def unchanged(self) -> list[str]:
        return [line.split(":")[0] for line in self.lines if line.endswith("unchanged")]


def records_of(site: Path) -> list[dict[str, Any]]:
    """All records of a built site, by layer and unit."""
    layers = json.loads((site / "atlas.json").read_bytes())["layers"]
    return [
        json.loads((site / UnitAddress(layer["layer"], unit).record).read_bytes())
        for layer in layers
        for unit in range(layer["units"])
    ]


def stages_of(work: Path) -> Stages:
    """What the stages wrote in a work folder."""
    return Stages.at(work)


def digests(folder: Path) -> dict[str, str]:
    """The SHA-256 of every file below a folder, by its path."""
    return {
        path.relative_to(folder).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def contexts_of(lengths: list[int]) -> Contexts:
    """Contexts of these lengths, a document each, in which no token comes twice: they are numbered."""
    starts = np.concatenate([[0], np.cumsum(lengths, dtype=np.int64)])
    document, names = np.arange(len(lengths), dtype=np.int32), [str(number) for number in range(len(lengths))]
    tokens = np.arange(starts[-1], dtype=np.int32)
    return Contexts(tokens, starts, document, np.zeros_like(document), names, bos=None, sha256="")


# What a hostile corpus may hold; every browser and parser test meets all of it.
HOSTILE = [
    "<script>window.pwned = 1</script><img src=x onerror='window.pwned=2'> & &amp; &#x3c; ]]> -->",
    "</script><script>window.pwned=3</script> {{ 7*7 }} {% raw %} ${7*7} `x` \\u003cscript\\u003e",
    "\u202eright to left override\u202c \u2066isolated\u2069 zero\u200bwidth \ufeff bom \u2028 line \x00 null \x1b[31m",
    "lone bytes: caf\u00e9 \U0001f600 \u4e2d\u6587 \u0627\u0644\u0639\u0631\u0628\u064a\u0629 e\u0301 \ud800 surrogate",
    "x" * 10_000,
    "__proto__ constructor toString '); alert(1) // \"; drop table units; -- ../../../etc/passwd javascript:alert(1)",
]


@pytest.fixture(scope="session")
def pool() -> Iterator[Executor]:
    """Worker processes for the whole session, so that their start is paid once."""
    with ProcessPoolExecutor(2, get_context("spawn")) as executor:
        yield executor


@pytest.fixture(scope="session")
def once(tmp_path_factory: pytest.TempPathFactory) -> Once:
    """Makes a folder once in a run: the first worker of pytest that wants it fills it, the others wait and read."""
    own = tmp_path_factory.getbasetemp()
    shared = (own.parent if "PYTEST_XDIST_WORKER" in os.environ else own) / "shared"
    shared.mkdir(exist_ok=True)

    def make(name: str, fill: Callable[[Path], object]) -> Path:
        folder, done = shared / name, shared / f"{name}.done"
        with FileLock(shared / f"{name}.lock"):
            if not done.exists():
                fill(folder)
                done.touch()
        return folder

    return make


_SENTENCE = "the cat sat on a mat and def return import self print value list of numbers 12 345 ( ) : = ."
WORDS = _SENTENCE.split()
"""Of which the texts of tiny atlases are made."""


@pytest.fixture(scope="session")
def jsonl(once: Once) -> Path:
    """Forty short documents with words that come back."""
    return once("corpora", write_words) / "words.jsonl"


def write_words(folder: Path) -> None:
    chance = random.Random(0)
    lines = [json.dumps({"text": " ".join(chance.choices(WORDS, k=20 + number * 3))}) for number in range(40)]
    folder.mkdir()
    (folder / "words.jsonl").write_text("\n".join(lines) + "\n", encoding="utf-8")


@pytest.fixture(scope="session")
def configure(gpt2_folder: Path, jsonl: Path) -> Configure:
    """A configuration of a tiny atlas, with sections to change: `configure(clusters={"method": …})`."""

    def make(**sections: dict[str, Any]) -> Configuration:
        data: dict[str, dict[str, Any]] = {
            "atlas": {"id": "tiny", "title": "A tiny atlas", "date": "2026-01-02", "url": "https://example.org/atlas"},
            "model": {"name": str(gpt2_folder)},
            "corpus": {"source": "jsonl", "path": str(jsonl), "context": 32},
            "examples": {"policy": "threshold", "per_unit": 12, "threshold": 0.5},
        }
        for name, section in sections.items():
            data[name] = {**data.get(name, {}), **section}
        return validate(data)

    return make


@pytest.fixture(scope="session")
def tiny_site(configure: Configure, pool: Executor, once: Once) -> Path:
    """A built atlas of the tiny GPT-2, that of `configure()`; tests read it, none writes to it."""
    return once("tiny", lambda output: build(configure(), output, executor=pool))


OUTPUT_TOKENS = [" the", " and", " def", " return", " self", " of", " a", " =", " (", " .", "<", "\n"]
"""Tokens of the output neurons of `logits_site`; the last two never come in its text."""


@pytest.fixture(scope="session")
def logits_site(configure: Configure, pool: Executor, once: Once) -> Path:
    """A built atlas of output neurons of the tiny GPT-2."""
    settings = configure(
        atlas={"id": "logits"}, units={"kind": "logits", "tokens": OUTPUT_TOKENS}, describe={"importance": "none"}
    )
    return once("logits", lambda output: build(settings, output, executor=pool))


@pytest.fixture(scope="session")
def demo_site(narrow_demo: Path, pool: Executor, once: Once) -> Path:
    """Three layers of the narrowed shipped model on a small part of its corpus, without what takes longest."""
    data = {
        "atlas": {"id": "demo", "title": "Small demo", "authors": [{"name": "Doe, Jane"}]},
        "model": {"name": str(narrow_demo)},
        "corpus": {"source": "stdlib", "max_tokens": 30_000},
        "units": {"layers": [0, 1, 2]},
        "clusters": {"resamples": 4},
        "describe": {"importance": "none"},
    }
    return once("demo", lambda output: build(validate(data), output, executor=pool))


@pytest.fixture(scope="session")
def hostile_site(configure: Configure, pool: Executor, once: Once) -> Path:
    """A tiny atlas of a corpus that tries everything."""

    def make(output: Path) -> None:
        path = output.parent / "hostile.jsonl"
        path.write_text("".join(json.dumps({"text": text}) + "\n" for text in HOSTILE * 3), encoding="utf-8")
        title = "</title><script>window.pwned=4</script> {{ 7*7 }}\nof two \u202e lines"
        hostile = configure(
            atlas={"title": title, "authors": [{"name": '"><script>window.pwned=5</script>'}], "url": None},
            corpus={"path": str(path)},
        )
        build(hostile, output, executor=pool)

    return once("hostile", make)


@pytest.fixture
def built(tiny_site: Path, tmp_path: Path) -> Path:
    """A finished build of `configure()`, work folder and all, with which a test goes on."""
    shutil.copytree(work_folder(tiny_site), work_folder(tmp_path / "site"))
    return Path(shutil.copytree(tiny_site, tmp_path / "site"))


@pytest.fixture
def copy_of(tmp_path: Path) -> Callable[[Path], Path]:
    """A copy of a built site that a test may damage."""

    def copy(site: Path) -> Path:
        return Path(shutil.copytree(site, tmp_path / site.name))

    return copy
