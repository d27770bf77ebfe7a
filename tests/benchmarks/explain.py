"""Behaviours explained by a stand-in server: `python -m tests.benchmarks.explain [BEHAVIOURS] [AT_ONCE] [SITE]`.

The server is another process and answers without delay, so that the time is that of asking on this machine; of a real
model it is the model's. By default a tiny atlas is built first, with units enough. Prints the seconds to read model and
text, the number of questions, and how many a second.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from atlas_builder import reader
from atlas_builder.config_file import validate
from atlas_builder.explain.client import OpenAIServer
from atlas_builder.explain.run import explain
from atlas_builder.explain.targets import Targets
from atlas_builder.pipeline.build import build
from atlas_builder.progress import Progress
from tests.support.atlases import write_words
from tests.support.models import save_narrow


class _Counted(OpenAIServer):
    """Counts questions, and knows when the first was asked."""

    def __init__(self, address: str, name: str) -> None:
        super().__init__(address, name)
        self.times: list[float] = []

    def ask(self, question: str) -> str:
        self.times.append(time.perf_counter())
        return super().ask(question)


def tiny_atlas(folder: Path) -> Path:
    """An atlas of the narrowed shipped model on forty short documents."""
    write_words(folder / "corpora")
    save_narrow(folder / "model")
    data: dict[str, Any] = {
        "atlas": {"id": "stand-in"},
        "model": {"name": str(folder / "model")},
        "corpus": {"source": "jsonl", "path": str(folder / "corpora" / "words.jsonl"), "context": 32},
        "clusters": {"resamples": 0},
        "describe": {"importance": "none"},
    }
    build(validate(data), folder / "site", progress=Progress(quiet=True))
    return folder / "site"


def main(behaviours: int = 1000, at_once: int = 16, site: Path | None = None) -> None:
    """Print the times."""
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        site = site or tiny_atlas(folder)
        print(f"{len(Targets(reader.open(site)).main):,} main behaviours")
        command = [sys.executable, "-m", "tests.support.servers"]
        with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
            assert process.stdin
            assert process.stdout
            server = _Counted(process.stdout.readline().strip(), "stand-in")
            began = time.perf_counter()
            lines = explain(site, server, folder / "said.jsonl", behaviours=behaviours, at_once=at_once)
            ended = time.perf_counter()
            process.stdin.close()
    explained = sum(one.source == "explain" for one in lines)
    print(f"{explained:,} behaviours, {len(lines):,} explanations; model and text {server.times[0] - began:.1f} s")
    asked, seconds = len(server.times), ended - server.times[0]
    print(f"{asked:,} questions in {seconds:.1f} s: {asked / seconds:.0f} a second, {at_once} at once")


if __name__ == "__main__":
    given = dict(enumerate(sys.argv[1:]))
    main(int(given.get(0, 1000)), int(given.get(1, 16)), Path(given[2]) if 2 in given else None)
