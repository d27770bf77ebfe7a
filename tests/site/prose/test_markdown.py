"""Prose that can be read by keys and keeps the policy."""

from __future__ import annotations

import markdown


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
