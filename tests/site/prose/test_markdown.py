"""Prose that can be read by keys and keeps the policy."""

from __future__ import annotations

import re
from pathlib import Path
from urllib.parse import unquote

import markdown
import pytest

from atlas_builder.site.hosting.checks.markup import any_links
from atlas_builder.site.prose.markdown import heading_anchor
from atlas_builder.site.prose.render import render_prose


def _html(text: str) -> str:
    return markdown.markdown(text, extensions=["tables", "fenced_code", "atlas_builder.site.prose.markdown"])


def test_a_table_scrolls_by_keys_names_its_columns_and_aligns_by_class() -> None:
    html = _html("| | two *words* |\n|---|--:|\n| a | 1 |")
    assert '<div aria-label="Table" class="scroll" role="group" tabindex="0">\n<table>' in html
    assert "<td></td>" in html
    assert '<th class="right" scope="col">two <em>words</em></th>' in html
    assert '<td class="right">1</td>' in html
    assert "style" not in html


def test_every_block_of_code_takes_the_focus() -> None:
    html = _html("```python\n'<pre>'\n```\n\n    indented")
    assert html.count('<pre tabindex="0">') == 2
    assert "'&lt;pre&gt;'" in html


@pytest.mark.parametrize(
    ("heading", "anchor"),
    [
        ("What is read", "what-is-read"), ("Café & Crème", "cafe-creme"), ("日本語の 見出し", "日本語の-見出し"),
        ("مقدمة عامة", "مقدمة-عامة"), ("हिन्दी में", "हिन्दी-में"), ("ภาษาไทย", "ภาษาไทย"), ("Layer 2 の数", "layer-2-の数"),
        ("Ελληνικά", "ελληνικά"), ("🙂 !", "section"), ("1.10", "110"), ("snake_case", "snake_case"),
    ],
)  # fmt: skip
def test_a_heading_of_any_script_has_its_anchor(heading: str, anchor: str) -> None:
    assert heading_anchor(heading, "-") == anchor


def test_headings_in_a_page_are_unique_and_links_to_them_lead_there(tmp_path: Path) -> None:
    text = "# 日本語\n\n[a](#東京) [b](#مقدمة)\n\n## 東京\n\n## 東京\n\n## مقدمة\n\n## 🙂\n\n## 🙂\n"
    (tmp_path / "docs").mkdir()
    (tmp_path / "theme").mkdir()
    (tmp_path / "docs" / "page.md").write_text(text, encoding="utf-8")
    (tmp_path / "theme" / "main.html").write_text("{{ page.content|safe }}{{ page.toc }}", encoding="utf-8")
    render_prose(tmp_path / "docs", tmp_path / "theme", tmp_path / "site", {})
    html = (tmp_path / "site" / "page.html").read_text(encoding="utf-8")
    assert re.findall(r'<h\d id="([^"]*)"', html) == ["日本語", "東京", "東京_1", "مقدمة", "section", "section_1"]
    found = any_links(html)
    assert {unquote(link).removeprefix("#") for link in found.links} <= found.anchors
