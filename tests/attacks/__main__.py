"""All attacks, as many at a time as there are processors: `python -m tests.attacks [--small]`; prints their tables."""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

LONGEST_FIRST = (
    "kills",
    "claims",
    "alterations",
    "models",
    "scripts",
    "explanations",
    "outputs",
    "families",
    "configurations",
    "corpora",
)


def main() -> int:
    """Run all, with `--small` a few cases of each; 1 if something did not hold."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--small", action="store_true", help="a few cases of each")
    options = ["--small"] if parser.parse_args().small else []
    assert {*LONGEST_FIRST} == {file.stem for file in Path(__file__).parent.glob("[a-z]*.py")}
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        ended = list(pool.map(lambda name: _run(name, options), LONGEST_FIRST))
    return int(any(ended))


def _run(name: str, options: list[str]) -> int:
    """Status of an attack; what it says is printed when it has ended, its log only if something did not hold."""
    attack = subprocess.run(
        [sys.executable, "-m", f"tests.attacks.{name}", *options], capture_output=True, text=True, check=False
    )
    log = attack.stderr if attack.returncode else ""
    print(f"== {name}: {'something did not hold' if attack.returncode else 'held'}\n{attack.stdout}{log}", flush=True)
    return attack.returncode


if __name__ == "__main__":
    sys.exit(main())
