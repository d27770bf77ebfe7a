"""What `check` reads in pages, beside Python's own parser, and where HTML's rules are others."""

from __future__ import annotations

from html.parser import HTMLParser

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from atlas_builder.site.hosting.checks.markup import any_links, target_of

POLICY = "<meta http-equiv=Content-Security-Policy content=\"default-src 'self'\">"


class _Slow(HTMLParser):
    """Links and ids as Python's parser sees them."""

    def __init__(self, page: str) -> None:
        super().__init__(convert_charrefs=True)
        self.links: set[str] = set()
        self.anchors: set[str] = set()
        self.feed(page)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        values = dict(reversed(attrs))
        self.links |= {value for name in ("href", "src", "action") if (value := values.get(name))}
        self.anchors |= {value for value in [values.get("id")] if value}


_TEXT = st.text(st.characters(exclude_categories=("Cs", "Cc"), exclude_characters="\r<"), max_size=8)
_VALUES = st.text(st.characters(exclude_categories=("Cs", "Cc"), exclude_characters='\r"<'), min_size=1, max_size=8)
_ESCAPES = st.sampled_from(["&amp;", "&lt;", "&quot;", "&#x41;", "&#65;", "é", "%20", "\U0001f600", "x"])
_QUOTED = st.one_of(_VALUES, st.lists(_ESCAPES, min_size=1, max_size=4).map("".join)).map(lambda value: f'"{value}"')
_BARE = st.text("abcXYZ019./#-_?", min_size=1, max_size=8).map(lambda value: f"x{value}x")
_NAMES = st.sampled_from(["href", "src", "id", "HREF", "Id", "class", "data-x", "title", "alt"])
_ATTRIBUTES = st.lists(st.tuples(_NAMES, _QUOTED | _BARE), max_size=4, unique_by=lambda pair: pair[0].lower()).map(
    lambda pairs: "".join(f" {name}={value}" for name, value in pairs)
)
_TAGS = ["a", "p", "div", "span", "b", "em", "li", "ul", "h2", "img", "section", "br", "A", "Div", "custom-tag"]
_OPENING = st.tuples(st.sampled_from(_TAGS), _ATTRIBUTES).map(lambda tag: f"<{tag[0]}{tag[1]}>")
_CLOSING = st.sampled_from(_TAGS).map(lambda tag: f"</{tag}>")
_OTHERS = st.sampled_from(["<!-- <a href=no> -->", "<script>if (1 < 2) x('<a href=no>')</script>", "&", "&&lt;", "< 3"])
_SOUP = st.lists(st.one_of(_TEXT, _OPENING, _OPENING, _CLOSING, _OTHERS), max_size=20).map("".join)


@settings(deadline=None, max_examples=300)
@given(_SOUP)
def test_links_and_ids_of_broken_pages_are_those_that_another_parser_sees(soup: str) -> None:
    page = f"<!doctype html><html><head>{POLICY}</head><body>{soup}</body></html>"
    found, slow = any_links(page), _Slow(page)
    assert {link for link in found.links if link} == slow.links
    assert found.anchors == slow.anchors


@pytest.mark.parametrize(
    ("markup", "links"),
    [
        ("<textarea><a href=x></textarea>", set()),  # text, for a browser
        ("<title><a href=x></title>", set()),
        ("<style><a href=x></style>", set()),
        ("<noframes><a href=x></noframes>", set()),
        ("<!-- <a href=x>", set()),  # a comment up to the end
        ("<!--> <a href=x> -->", {"x"}),  # an empty comment
        ("<form action=x><form action=y>", {"x"}),  # no form in a form
        ("<a href=x href=y>", {"x"}),  # the first of a name
        ("<svg><a xlink:href=x></svg>", set()),
        ("<table><a href=x><tr><td>1</table>", {"x"}),
        ("<noscript><a href=x></noscript>", {"x"}),
        ("<svg><desc><a href=x></svg>", {"x"}),
        ("<svg><script>1 < 2 && '<a href=x>'</script></svg>", {"x"}),  # markup, in a drawing
        ("<a href='x&amp;y'>", {"x&y"}),
        ("<a\nhref\n=\nx>", {"x"}),
        ("<a/href=x>", {"x"}),
        ('<a title="<a href=y>" href=x>', {"x"}),
    ],
)
def test_links_are_those_of_html(markup: str, links: set[str]) -> None:
    assert set(any_links(f"<!doctype html><head>{POLICY}</head><body>{markup}").links) == links


@pytest.mark.parametrize(
    "page",
    [
        f"<p>{POLICY}",  # a browser ends the head at the first paragraph, and heeds no policy after it
        f"<body>{POLICY}</body>",
        f"<head><!-- {POLICY} --></head>",
        f"<head><noscript>x</noscript>{POLICY}</head>",
        f"<head><script src=a.js></script>{POLICY}</head>",
        f"<head>{POLICY}{POLICY}</head>",
        f"<head>{POLICY}</head><template><a href=x></template>",
        f"<head>{POLICY}</head><svg><script href=x.js /></svg>",
        f"<head>{POLICY}</head><math><mi xlink:href=javascript:x()>",
        f"<head>{POLICY}</head><img src=x onerror\n=x()>",
        f"<head>{POLICY}</head><p/onclick=x()>",
    ],
)
def test_what_a_browser_would_not_heed_is_objected_to(page: str) -> None:
    assert any_links(f"<!doctype html><html>{page}").objections


def test_a_page_with_its_policy_is_not() -> None:
    assert any_links(f"<!doctype html><html><head>{POLICY}</head><body><a href=x>y</a>").objections == []


def test_links_of_pages_in_one_folder_lead_where_each_page_says() -> None:
    assert target_of("L0/N1.html", "#b1") == ("L0/N1.html", "b1")
    assert target_of("L0/N2.html", "#b1") == ("L0/N2.html", "b1")
    assert target_of("L0/N1.html", "N2.html") == target_of("L0/N2.html", "N2.html") == ("L0/N2.html", "")
    assert target_of("index.html", "L0/index.html") == ("L0/index.html", "")
    assert target_of("L0/N1.html", "../../x") == ("../x", "")
    assert target_of("L0/N1.html", "https://example.org") is None
    for _ in range(2):
        with pytest.raises(ValueError, match="not relative"):
            target_of("L0/N1.html", "/x")
