from __future__ import annotations

import html5lib
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from atlas_builder.corpus.token_text import plain
from atlas_builder.site.html import highlight, markup, token
from tests.support.atlases import HOSTILE

anything = st.text(st.characters(), max_size=30) | st.sampled_from(HOSTILE)


def _tree(fragment: str) -> html5lib.treebuilders.base.Node:
    parser = html5lib.HTMLParser(strict=True, namespaceHTMLElements=False)
    return parser.parseFragment(fragment.encode("utf-8", "replace").decode("utf-8"))


@settings(max_examples=200, deadline=None)
@given(st.lists(st.tuples(anything, st.floats(-5, 5, width=16)), min_size=1, max_size=12), st.data())
def test_any_tokens_become_text_in_harmless_elements(pairs: list[tuple[str, float]], data: st.DataObject) -> None:
    tokens, values = [text for text, _ in pairs], [value for _, value in pairs]
    key = data.draw(st.integers(0, len(tokens) - 1))
    fragment = _tree(f"<p>{highlight(tokens, values, key, max(values))}</p>")
    assert {element.tag for element in fragment.iter() if isinstance(element.tag, str)} <= {
        "DOCUMENT_FRAGMENT", "p", "i", "mark", "u",
    }  # fmt: skip
    assert len(list(fragment.iter("mark"))) == 1
    for element in fragment.iter():
        assert set(element.attrib) <= {"class", "title"}


@settings(max_examples=200, deadline=None)
@given(anything)
def test_text_reads_the_same_but_for_what_cannot_be_seen(text: str) -> None:
    shown = "".join(_tree(f"<p>{markup(text)}</p>").itertext())
    assert shown == plain(text).encode("utf-8", "replace").decode("utf-8")
    assert plain(text).isprintable() or any(ord(character) > 0x7F for character in plain(text))


@pytest.mark.parametrize(
    ("text", "shown"),
    [("\u202e", "U+202E"), ("\x00", "U+0000"), ("\n", "↵"), ("\t", "⇥"), ("\u2028", "U+2028"), ("\ud800", "U+D800")],
)
def test_what_cannot_be_seen_is_spelt_out(text: str, shown: str) -> None:
    assert plain(f"a{text}b") == f"a{shown}b"
    assert f"<u>{shown}</u>" in markup(text)


def test_a_token_alone_shows_its_spaces() -> None:
    assert token(" the") == "<u>␣</u>the"
    assert token("   ") == "<u>␣␣␣</u>"
    assert token("<b>") == "&lt;b&gt;"


def test_only_active_tokens_get_an_element_and_levels_follow_activation() -> None:
    found = highlight(["a", "b", "c", "d"], [0.01, 0.5, 1.0, -3.0], 2, 1.0)
    assert found == "a<i class=a4 title=0.5>b</i><mark class=a9>c</mark>d"
    assert highlight(["b", "c"], [0.5, 1.0], 1, 1.0, titles=False) == "<i class=a4>b</i><mark class=a9>c</mark>"


def test_without_titles_neighbours_of_one_level_share_an_element_and_the_next_token_has_its_own() -> None:
    tokens, values = list("abcdef"), [0.5, 0.5, 1.0, 0.5, 0.5, 0.9]
    shown = highlight(tokens, values, 2, 1.0, titles=False)
    assert shown == "<i class=a4>ab</i><mark class=a9>c</mark><i class=a4>de</i><i class=a8>f</i>"
    shown = highlight(tokens, values, 2, 1.0, titles=False, marks_next=True)
    assert "<mark class=a9>c</mark><b><i class=a4>d</i></b><i class=a4>e</i>" in shown
    weighed = highlight(tokens, values, 2, 1.0, [0.5, 0.5], titles=False)
    assert weighed.startswith('<i class="a4 w4">ab</i><mark')


@given(st.lists(st.integers(0, 9), min_size=1, max_size=12), st.data())
def test_titles_or_not_every_token_has_the_same_text_and_level(levels: list[int], data: st.DataObject) -> None:
    tokens, values = [f"{place}," for place in range(len(levels))], [level / 9 for level in levels]
    key = data.draw(st.integers(0, len(tokens) - 1))

    def shades(*, titles: bool) -> list[tuple[str, str]]:
        tree = _tree(f"<p>{highlight(tokens, values, key, 1.0, titles=titles)}</p>")
        runs = [(tree[0].text or "", "")]
        for part in tree[0]:
            runs += [(part.text or "", part.get("class")), (part.tail or "", "")]
        return [(token, shade) for text, shade in runs for token in text.split(",") if token]

    assert shades(titles=True) == shades(titles=False)


def test_what_is_only_important_is_tinted_by_importance_only() -> None:
    found = highlight(["a", "b", "c"], [0.01, 0.5, 1.0], 2, 1.0, [0.9, 0.4, 1.0])
    assert found == '<i class=w8>a</i><i class="a4 w4" title=0.5>b</i><mark class="a9 w9">c</mark>'


def test_bytes_side_by_side_are_their_character() -> None:
    assert highlight(["<0xE2>", "<0x98>", "<0x83>", "x"], [0, 0, 0, 1], 3, 1.0).startswith("\u2603")


def test_a_token_that_is_bytes_of_a_character_shows_the_character() -> None:
    tokens = ["a ", "<0xE6>", "<0x9D>", "<0xB1>", "<0xE4>", "<0xBA>", "<0xAC>"]
    shown = highlight(tokens, [0, 0, 3, 1, 0.9, 0.2, 0], 2, 3.0)
    assert shown == ('a <mark class=a9 title="token 2 of 3 of this character">東</mark><i class=a3 title=0.9>京</i>')
