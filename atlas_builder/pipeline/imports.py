"""The import graph of this package, from which the code of a stage is derived."""

from __future__ import annotations

import ast
from collections.abc import Iterable, Iterator, Mapping
from functools import cache
from pathlib import Path
from typing import NamedTuple


class Module(NamedTuple):
    """A module, and the modules of the package that it imports anywhere in its text, except for type checkers."""

    file: Path
    imports: frozenset[str]


@cache
def import_graph(package: Path) -> dict[str, Module]:
    """Every module of the package in a folder, by dotted name."""
    files = {_dotted(file, package): file for file in sorted(package.rglob("*.py"))}
    return {name: Module(file, frozenset(_imported(file, files.keys()))) for name, file in files.items()}


def reached(graph: Mapping[str, Module], entries: Iterable[str], stop: Iterable[str] = ()) -> set[str]:
    """The modules that `entries` import, directly or not, and themselves; those to `stop` at are left out."""
    modules: set[str] = set()
    left = set(entries) - set(stop)
    while left:
        module = left.pop()
        modules.add(module)
        left |= graph[module].imports - modules - set(stop)
    return modules


def _dotted(file: Path, package: Path) -> str:
    parts = (package.name, *file.relative_to(package).with_suffix("").parts)
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def _imported(file: Path, known: Iterable[str]) -> Iterator[str]:
    """Modules named by `from a.b import c`, the form that the package uses for its own modules; c may be one."""
    known = set(known)
    for node in _run(ast.parse(file.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom) and node.module in known:
            for name in node.names:
                inner = f"{node.module}.{name.name}"
                yield inner if inner in known else node.module
        elif isinstance(node, ast.Import):
            yield from (name.name for name in node.names if name.name in known)


def _run(tree: ast.AST) -> Iterator[ast.AST]:
    """Every node but those under `if TYPE_CHECKING`."""
    for node in ast.iter_child_nodes(tree):
        if not (isinstance(node, ast.If) and isinstance(node.test, ast.Name) and node.test.id == "TYPE_CHECKING"):
            yield node
            yield from _run(node)
