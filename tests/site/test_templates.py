"""Pages' own Jinja writes what Jinja writes."""

from __future__ import annotations

import gc
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from jinja2 import DictLoader, Environment, StrictUndefined, TemplateSyntaxError, UndefinedError
from markupsafe import Markup

from atlas_builder.site.templates import CompiledTemplates, RecordTemplates
from tests.support.atlases import HOSTILE

TEMPLATES = {
    "base": "<p>{% block first %}{{ a }}{% endblock %}|{{ b }}|{% block last %}none{% endblock %}</p>{{ a }}{{ b }}",
    "parts": "{% macro line(x, y=()) %}<li>{{ x }}{{ y }}{% endmacro %}"
    "{% macro around() %}[{{ caller() }}]{% endmacro %}",
    "included": "({{ a }}{% for x in list %}{{ x }}{% endfor %})",
    "page": "{% extends 'base' %}{% import 'parts' as parts %}{% macro own(x) %}{{ x }}/{{ b }}{% endmacro %}"
    "{% block first %}{{ super() }}{{ own(a) }}{{ parts.line(b, list) }}{% endblock %}"
    "{% block last %}{% for x in list if x is not none %}{{ loop.index }}{{ x }}"
    "{% if x == a %}={% elif x is string %}{{ x|upper }}{% else %}{{ [x] }}{% endif %}{% else %}empty{% endfor %}"
    "{% set text %}{{ a }}<{% endset %}{{ text }}{{ a ~ b }}{{ record.key }}{{ record.items()|list }}"
    "{% call parts.around() %}{{ b }}{% endcall %}{% filter upper %}{{ a }}<b>{% endfilter %}{% include 'included' %}"
    "{% set outer = namespace(n=0) %}{% for x in list %}{% set outer.n = outer.n + 1 %}{% endfor %}{{ outer.n }}"
    "{{ self.first() }}{{ '<>' }}{{ 3 }}{{ '&'|safe }}{{ own.name }}{% endblock %}",
}


class Shown:
    """An object that says how it is written."""

    def __html__(self) -> str:
        return "<i>shown</i>"


values = (
    st.sampled_from(HOSTILE) | st.text(max_size=9) | st.integers() | st.floats() | st.none() | st.booleans()
    | st.text(max_size=9).map(Markup) | st.just(Shown()) | st.lists(st.text(max_size=3), max_size=2)
)  # fmt: skip


def _pair() -> tuple[Environment, RecordTemplates]:
    kinds: dict[str, Any] = {
        "loader": DictLoader(TEMPLATES),
        "autoescape": True,
        "undefined": StrictUndefined,
        "trim_blocks": True,
    }
    return Environment(**kinds), RecordTemplates(**kinds)


JINJA, OURS = _pair()


@settings(max_examples=300, deadline=None)
@given(values, values, st.lists(values, max_size=4), st.sampled_from(sorted(TEMPLATES)))
def test_a_page_is_what_jinja_renders(a: Any, b: Any, listed: list[Any], template: str) -> None:
    given = {"a": a, "b": b, "list": listed, "record": {"key": a, "other": b}}
    assert OURS.page(template, given) == JINJA.get_template(template).render(given)


def test_a_compact_template_breaks_lines_for_its_own_readers_only() -> None:
    lines = "<ul>\n{% for x in list %}\n<li>{{ x }}\n{% endfor %}\n</ul>\ntext\n  <b>{{ a }}</b>\n{{ a.b }}"
    compact = RecordTemplates(
        loader=DictLoader({"page": "{# compact #}\n" + lines, "plain": lines}), trim_blocks=True, lstrip_blocks=True
    )
    given = {"list": ["1", "2"], "a": Shown()}
    with pytest.raises(UndefinedError):
        RecordTemplates(loader=compact.loader, undefined=StrictUndefined).page("page", given)
    page = compact.page("page", given)
    assert page.startswith("<ul><li>1<li>2</ul>\ntext\n  <b>")
    assert compact.page("plain", given).split() == page.replace("<li>", "\n<li>").replace("</ul>", "\n</ul>").split()
    # As MkDocs renders it, nothing is taken away; and messages name the line that a writer sees.
    kept = compact.overlay(trim_blocks=False).get_template("page").render(given)
    assert kept.count("\n") > page.count("\n")
    with pytest.raises(TemplateSyntaxError) as error:
        compact.from_string("{# compact #}\n<p>\n<p>\n{% nothing %}")
    assert error.value.lineno == 4


@pytest.mark.parametrize("text", HOSTILE)
def test_hostile_text_is_escaped_wherever_it_stands(text: str) -> None:
    page = OURS.page("page", {"a": text, "b": text, "list": [text], "record": {"key": text}})
    assert text not in page or not set(text) & set("<>&\"'")


def test_what_is_not_there_is_an_error_that_names_it() -> None:
    with pytest.raises(UndefinedError, match="'b' is undefined"):
        OURS.page("base", {"a": 1})


def test_a_page_leaves_nothing_for_the_search_for_cycles() -> None:
    given = {"a": "a", "b": "b", "list": [1], "record": {"key": 1}}
    OURS.page("page", given)
    gc.collect()
    gc.disable()
    try:
        OURS.page("page", given)
        assert gc.collect() < 50  # a handful around what templates import, but no record
    finally:
        gc.enable()


def test_a_template_is_compiled_once_for_each_text_and_settings() -> None:
    texts, compiled = {"one": "{% if a %}\n\n{{ a }}{% endif %}"}, CompiledTemplates()

    def jinja(**settings: Any) -> RecordTemplates:
        return RecordTemplates(loader=DictLoader(texts), bytecode_cache=compiled, **settings)

    first, again = jinja().get_template("one"), jinja().get_template("one")
    assert again.root_render_func.__code__ is first.root_render_func.__code__
    assert jinja(trim_blocks=True).get_template("one").render(a="<") == "\n<"
    assert jinja(autoescape=True).get_template("one").render(a="<") == "\n\n&lt;"
    assert first.render(a="<") == "\n\n<"
    texts["one"] = "{{ a }}!"
    assert jinja().get_template("one").render(a="<") == "<!"
