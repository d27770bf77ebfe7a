"""Attempts made one after the other, and those of them that failed."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable

Problems = dict[str, list[str]]


def problems_of_each(
    names: Iterable[str], attempt: Callable[[str], list[str]], say: Callable[[str, list[str], float], None]
) -> Problems:
    """The problems of each attempt that has any; `say` is called with those and the seconds of every one.

    What an attempt raises is a problem too.
    """
    failed: Problems = {}
    for name in names:
        began = time.perf_counter()
        try:
            problems = attempt(name)
        except Exception as error:  # a fault is a finding
            problems = [f"{type(error).__name__}: {error}"]
        if problems:
            failed[name] = problems
        say(name, problems, time.perf_counter() - began)
    return failed


def say_failed(tried: int, failed: Problems) -> int:
    """Print the last row of a table of attempts, and a line for each that failed; returns their number."""
    print(f"| all | {tried} | {tried - len(failed)} | {len(failed)} |\n")
    for name, problems in failed.items():
        print(f"- {name}: {len(problems)} problems, first: {problems[0]}")
    return len(failed)
