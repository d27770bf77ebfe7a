"""Pages, documentation, help texts and messages use the field's words."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import click
import pytest

from atlas_builder.cli import main
from atlas_builder.records.measures import MEASURES

ROOT = Path(__file__).parent.parent
PRIVATE = re.compile(
    r"\b((fore)?told|foretells?|answers?\s+to|found\s+again|in\s+none|none\s+of\s+these|then\s+comes|held\s+at)\b",
    re.IGNORECASE,
)
FORMER = {measure.former for measure in MEASURES}
"""What filters called measures until version 0.5: still understood, so the code knows them."""


def _private(text: str) -> list[str]:
    return [text[max(0, match.start() - 30) : match.end() + 30] for match in PRIVATE.finditer(text)]


def _documents() -> Iterator[Path]:
    yield from ROOT.glob("*.md")
    yield from (ROOT / "site_config").rglob("*.md")


def test_the_test_knows_a_private_word() -> None:
    assert _private("Told by its token, found again") == ["Told by its token, found again"] * 2
    assert not _private("predicted, retold, within none")


@pytest.mark.parametrize("path", sorted(_documents()), ids=lambda path: path.relative_to(ROOT).as_posix())
def test_documents_have_no_private_word(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    if path.name == "CHANGELOG.md":  # its tables and names in code say what old words became
        text = re.sub(r"^ *\|.*$|`[^`]*`", "", text, flags=re.MULTILINE)
    assert _private(text) == []


def test_messages_and_docstrings_have_no_private_word() -> None:
    for path in sorted((ROOT / "atlas_builder").rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Constant) and isinstance(node.value, str) and node.value not in FORMER:
                assert _private(node.value) == [], f"{path}, line {node.lineno}"


def test_names_of_tests_have_no_private_word() -> None:
    for path in sorted((ROOT / "tests").rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.FunctionDef | ast.ClassDef):
                assert _private(node.name.replace("_", " ")) == [], f"{path}, line {node.lineno}"


def test_help_texts_have_no_private_word() -> None:
    commands: list[click.Command] = [main]
    for command in commands:
        assert _private(command.get_help(click.Context(command))) == []
        commands += command.commands.values() if isinstance(command, click.Group) else []


def test_themes_have_no_private_word() -> None:
    for path in sorted((ROOT / "themes").rglob("*")):
        if path.suffix in (".html", ".js", ".css"):
            assert _private(path.read_text(encoding="utf-8")) == [], path


def test_a_built_atlas_has_no_private_word(tiny_site: Path) -> None:
    """The corpus of the tiny atlas has none of these words, so that all text of its files is the builder's."""
    files = [path for path in tiny_site.rglob("*") if path.suffix in (".html", ".js", ".json", ".css", ".txt", ".cff")]
    assert len(files) > 100
    for path in files:
        text = path.read_text(encoding="utf-8")
        for former in FORMER - {""}:
            text = text.replace(f'"former":"{former}"', "")
        assert _private(text) == [], path
