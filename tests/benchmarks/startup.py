"""Processor time of commands before they do anything: `python -m tests.benchmarks.startup [SITE]`.

Seconds of a process of its own, the least of seven, beside that of Python and of click alone.
With a built SITE also the shortest run of commands that read it.
"""

from __future__ import annotations

import resource
import subprocess
import sys
from pathlib import Path
from tempfile import TemporaryDirectory

_TIMES = 7
_COMMANDS = ("demo", "build", "merge", "serve", "check", "archive", "compare", "verify", "curate", "explain")


def main(site: Path | None = None) -> None:
    """Print a row for each command."""
    _print("python -c pass", "-c", "pass")
    _print("import click", "-c", "import click")
    _print("atlas-builder --help", "-m", "atlas_builder", "--help")
    for name in _COMMANDS:
        _print(f"atlas-builder {name} --help", "-m", "atlas_builder", name, "--help")
    with TemporaryDirectory() as scratch:
        wrong = Path(scratch) / "wrong.yml"
        wrong.write_text("model: {name: demo}\n", encoding="utf-8")
        _print("build of a wrong configuration", "-m", "atlas_builder", "build", str(wrong))
        if site is not None:
            archive = str(Path(scratch) / "site.zip")
            _print("archive SITE", "-m", "atlas_builder", "archive", str(site), "--output", archive)
            _print("check SITE", "-m", "atlas_builder", "check", str(site))
    for module in ("collect.run", "cluster.run", "describe.run", "link.run", "site.publish"):
        _print(f"import atlas_builder.{module}", "-c", f"import atlas_builder.{module}")


def _print(name: str, *arguments: str) -> None:
    print(f"{name:36} {min(_seconds(arguments) for _ in range(_TIMES)):6.3f}", flush=True)


def _seconds(arguments: tuple[str, ...]) -> float:
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    subprocess.run([sys.executable, *arguments], capture_output=True, check=False)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


if __name__ == "__main__":
    main(*map(Path, sys.argv[1:2]))
