"""Search as a reader meets it, beside what the records hold."""

from __future__ import annotations

import json
import re
import unicodedata
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from playwright.sync_api import Browser, Page, expect

from atlas_builder.corpus.characters import split_at
from atlas_builder.site.search import index, normalise
from tests.support.models import NARROW

pytestmark = pytest.mark.browser

FIND = """async ([query, filters, reach]) => {
  const found = await Atlas.search.find(query, Object.assign({layers: null}, filters), reach || 1000, () => true);
  return {...found, unit: found.units[0]?.page ?? null, expression: found.expression && found.expression.source,
    hits: found.hits.map(hit => ({...hit, where: Atlas.search.behaviour(hit.number)}))};
}"""
Place = tuple[int, int, int]


@pytest.fixture
def find(demo_site: Path, page: Page) -> Callable[..., Any]:
    """Asks the search page's own code."""
    page.goto(f"{demo_site.as_uri()}/search.html")

    def ask(query: str, reach: int = 0, **filters: Any) -> Any:
        return page.evaluate(FIND, [query, filters, reach])

    return ask


def _places(hits: list[dict[str, Any]]) -> set[Place]:
    return {(hit["where"]["layer"], hit["where"]["unit"], hit["where"]["behaviour"]) for hit in hits}


@pytest.fixture(scope="session")
def records(demo_site: Path) -> list[dict[str, Any]]:
    return [json.loads(path.read_bytes()) for path in sorted(demo_site.glob("L*/N*.json"))]


@pytest.fixture(scope="session")
def tokens(records: list[dict[str, Any]]) -> dict[str, set[Place]]:
    """The behaviours whose record lists a token."""
    found: dict[str, set[Place]] = defaultdict(set)
    for record in records:
        for behaviour in record["behaviours"]:
            for token, _ in behaviour["tokens"]:
                found[normalise.search_key(token)].add((record["layer"], record["unit"], behaviour["id"]))
    return found


@pytest.fixture(scope="session")
def texts(demo_site: Path, records: list[dict[str, Any]]) -> dict[Place, str]:
    """The text that search shows of each behaviour: more of its central example than a record, or less."""
    shown: list[list[str]] = []
    (found,) = index.read_index_file(demo_site / "search" / "index.js")
    for number in range(-(-found["behaviours"] // found["block"])):
        shown += index.read_index_file(demo_site / "search" / f"x{number}.js")[1]
    found = {}
    for record in sorted(records, key=lambda record: (record["layer"], record["unit"])):
        for behaviour in record["behaviours"]:
            label, before, key, after = shown[len(found)]
            example = record["examples"][behaviour["central"]]
            assert label == behaviour["label"]
            assert key == split_at(example["tokens"], example["key"]).key
            one, other = ("".join(text.split()) for text in ("".join(example["tokens"][: example["key"]]), before))
            assert one.endswith(other) or other.endswith(one) or "<0x" in str(example)
            found[record["layer"], record["unit"], behaviour["id"]] = before + key + after
    return found


def _in_a_row(text: str, query: str, last_begins: bool) -> bool:
    """Slowly: whether the words of a query follow each other in a text."""
    there, wanted = (
        [normalise.same(whole[start:end]) for start, end in normalise.pieces(whole)] for whole in (text, query)
    )
    for at in range(len(there) - len(wanted) + 1):
        *body, last = there[at : at + len(wanted)]
        if body == wanted[:-1] and (last == wanted[-1] or (last_begins and last.startswith(wanted[-1]))):
            return True
    return False


def test_every_behaviour_whose_record_lists_a_token_leads_to_it(
    find: Callable[..., Any], tokens: dict[str, set[Place]], errors: list[str]
) -> None:
    names = sorted(token for token in tokens if '"' not in token and not re.search(r"\s|^/.*/$|^\d+\.\d+$", token))
    for token in names[:: max(1, len(names) // 25)]:
        exact = [hit for hit in find(f'"{token}"')["hits"] if hit["share"]]
        assert {hit["term"] for hit in exact} == {token}
        assert tokens[token] <= _places(exact), token
        shares = [hit["share"] for hit in exact]
        assert shares == sorted(shares, reverse=True)
        # With what begins so too, an exact word counts ten times.
        begun = [hit for hit in find(token)["hits"] if hit["share"]]
        assert _places(exact) <= _places(begun)
        counted = [hit["share"] * (10 if hit["term"] == token else 1) for hit in begun]
        assert counted == sorted(counted, reverse=True)
    assert errors == []


def test_what_stands_in_a_row_in_an_example_is_found_and_nothing_else(
    find: Callable[..., Any], texts: dict[Place, str]
) -> None:
    for query in ("return self", "is not", "if not isin", "self.", "import", "= None", "==", "the", "in the fi"):
        wanted = {place for place, text in texts.items() if _in_a_row(text, query, last_begins=True)}
        found = find(query)
        several = len(query.split()) > 1
        assert wanted == _places([hit for hit in found["hits"] if hit.get("phrase" if several else "shown")]), query
        if several and wanted:
            assert _places(found["hits"][: len(wanted)]) == wanted, query

        quoted = find(f'"{query}"')
        wanted = {place for place, text in texts.items() if _in_a_row(text, query, last_begins=False)}
        assert wanted == _places([hit for hit in quoted["hits"] if hit["shown"]]), query


def test_several_words_each_answer_or_show(find: Callable[..., Any], texts: dict[Place, str]) -> None:
    each = [_places(find(f'"{word}"')["hits"]) for word in ("self", "return")]
    assert _places(find('"self" "return"')["hits"]) == each[0] & each[1] != set()
    hits = find("self return")["hits"]
    assert each[0] & each[1] <= _places(hits)
    groups = [hit.get("phrase", False) * 2 + bool(hit.get("answersAll")) * (not hit.get("phrase")) for hit in hits]
    assert groups == sorted(groups, reverse=True)


def test_the_beginning_of_a_word_finds_what_begins_so(find: Callable[..., Any], demo_site: Path) -> None:
    hits = find("impor")["hits"]
    terms = {hit["term"] for hit in hits if hit["share"]}
    assert "import" in terms
    assert all(term.startswith("impor") for term in terms)
    near = find("s", reach=1)
    assert near["more"] in index.read_index_file(demo_site / "search" / "index.js")[0]["shards"]
    assert len(near["hits"]) < len(find("s")["hits"])
    assert find("s")["more"] is None


def test_a_unit_is_reached_by_its_name(demo_site: Path, page: Page, errors: list[str]) -> None:
    for query in ("L2/N17", "2.17", "l2n17", "2/17", "L2/N17#b1", "2.17#b1", "L2 N17 b1"):
        page.goto(f"{demo_site.as_uri()}/index.html")
        page.get_by_role("searchbox").first.fill(query)
        page.keyboard.press("Enter")
        expect(page.locator("h1"), query).to_have_text("Neuron 17 of layer 2")
        assert page.url.endswith("N17.html" + ("#b1" if "b1" in query else "")), query
    assert errors == []


def test_a_unit_that_is_not_there_is_no_unit(find: Callable[..., Any]) -> None:
    for query in ("L9/N17", f"2.{NARROW}", "L2/N17#b99", "L2", "2.17.3", "L2/N99999999999"):
        assert find(query)["unit"] is None, query
    assert find(f"2.{NARROW - 1}#b1")["unit"] == f"L2/N{NARROW - 1}.html#b1"


def test_an_expression_runs_over_words_and_labels(
    find: Callable[..., Any], records: list[dict[str, Any]], demo_site: Path
) -> None:
    found = find("/^un.*ed/i")
    pattern = re.compile("^un.*ed", re.IGNORECASE)
    labelled = {
        (record["layer"], record["unit"], behaviour["id"])
        for record in records
        for behaviour in record["behaviours"]
        if pattern.search(behaviour["label"][:64])
    }
    assert labelled == _places([hit for hit in found["hits"] if hit.get("labelled")])
    terms = {hit["term"] for hit in found["hits"] if hit["share"]}
    listed = {word for word in index.read_index_file(demo_site / "search" / "words.js")[0] if pattern.search(word)}
    assert terms <= listed
    assert terms
    assert _places(find("/^un.*ed/i", layers=[1])["hits"]) == {at for at in _places(found["hits"]) if at[0] == 1}


def test_an_expression_that_cannot_run_says_why(demo_site: Path, page: Page, errors: list[str]) -> None:
    for query, said in {
        "/(/": "Not a regular expression: ",
        "/a/g": "only the flag i is known",
        "/" + "a" * 101 + "/": "may have 100 characters, not 101",
        "/(a+)+$/": "may not contain a choice or a repeat",
        "/(a|a)*b/": "may not contain a choice or a repeat",
        "/((a)*)*/": "may not contain a choice or a repeat",
        "/a*b*c*d*e/": "may have 3 repeats",
        "/a?b?c?d?e?/": "may have 3 repeats",
    }.items():
        page.goto(f"{demo_site.as_uri()}/search.html?q={quote(query)}")
        expect(page.locator("#status"), query).to_contain_text(said)
        expect(page.locator("#results li"), query).to_have_count(0)
    assert errors == []


def test_an_expression_that_can_run_does(find: Callable[..., Any]) -> None:
    for query in (r"/\/x\(/", "/[*+?]{2}/", r"/a\+\+\+\+\+b/", "/(?:ab)+/", "/(?<=a)b/", "//", "/usr/bin"):
        assert find(query).get("error") is None, query


def test_filters_part_the_results_by_what_the_records_say(
    find: Callable[..., Any], records: list[dict[str, Any]]
) -> None:
    everywhere = _places(find("self")["hits"])
    units = {(record["layer"], record["unit"]): record for record in records}

    def kept(test: Callable[[dict[str, Any]], bool]) -> set[Place]:
        return {place for place in everywhere if test(units[place[:2]])}

    assert _places(find("self", layers=[1, 3])["hits"]) == kept(lambda record: record["layer"] in (1, 3))
    assert _places(find("self", behaviours=[2, 4])["hits"]) == kept(lambda record: 2 <= len(record["behaviours"]) <= 4)
    # Effective numbers are kept to two digits.
    assert _places(find("self", effective=[2, None])["hits"]) == kept(
        lambda record: float(f"{record['polysemanticity']['effective_behaviours'] or 0:.2g}") >= 2
    )
    dense = _places(find("self", density=[None, 0.1])["hits"])
    assert kept(lambda record: record["stats"]["density"] < 0.1 / 1.06) <= dense
    assert dense <= kept(lambda record: record["stats"]["density"] < 0.1 * 1.06)
    both = find("self", layers=[1], effective=[2, None])["hits"]
    assert _places(both) == _places(find("self", layers=[1])["hits"]) & _places(
        find("self", effective=[2, None])["hits"]
    )
    listed = find("", layers=[2])["hits"]
    assert len(listed) == sum(len(record["behaviours"]) for record in records if record["layer"] == 2)


def test_a_result_shows_its_label_share_and_example_with_the_words_marked(
    demo_site: Path, page: Page, errors: list[str]
) -> None:
    page.goto(f"{demo_site.as_uri()}/search.html?q=is%20not")
    first = page.locator("#results li").first
    expect(first.locator(".label")).not_to_be_empty()
    expect(first.locator(".example mark")).to_have_count(1)
    marked = "".join(first.locator(".hit").all_inner_texts())
    assert "is" in marked
    assert "not" in marked
    expect(first.locator(".meta")).to_contain_text(re.compile(r"\d+% of it is|In its"))
    expect(page.locator("#status")).to_contain_text("“is not” in a row")
    more = page.get_by_role("button", name=re.compile("Show .* more"))
    expect(page.locator("#results li")).to_have_count(20)
    more.focus()
    page.keyboard.press("Enter")
    expect(page.locator("#results li")).to_have_count(40)
    assert page.evaluate("document.activeElement === document.querySelectorAll('#results a')[20]")
    # Every example that comes into sight is filled in.
    page.keyboard.press("End")
    expect(page.locator("#results li").last.locator(".label")).not_to_be_empty()
    assert errors == []


def test_the_address_holds_query_and_filters_and_the_way_back_leads_to_them(
    demo_site: Path, page: Page, errors: list[str]
) -> None:
    loads: list[str] = []
    page.on("load", lambda loaded: loads.append(loaded.url))
    page.goto(f"{demo_site.as_uri()}/search.html")
    expect(page.locator("#q")).to_be_focused()
    expect(page.locator("#help")).to_have_attribute("open", "")
    page.keyboard.type("class")
    page.keyboard.press("Enter")
    expect(page.locator("#status")).to_contain_text("“class”")
    page.get_by_text("Filters", exact=True).click()
    page.get_by_label("0", exact=True).check()
    page.get_by_label("2", exact=True).check()
    page.locator("[data-least=effective]").fill("1.5")
    page.locator("[data-most=density]").fill("12.5")
    expect(page.locator("#status")).to_contain_text("within the filters")
    page.wait_for_url("**/search.html?q=class&layer=0,2&effective=1.5-&density=-0.125")
    afresh = page.context.new_page()  # which asks once, with all filters
    afresh.goto(page.url)
    expect(afresh.locator("#status")).to_contain_text("within the filters")
    said = afresh.locator("#status").inner_text()
    afresh.close()
    expect(page.locator("#status")).to_have_text(said)
    assert page.title().startswith("class, Search")

    page.locator("#q").press("Enter")
    page.locator("#q").fill("impor")
    expect(page.locator("#status")).to_contain_text("“impor”")
    page.locator("#q").fill("import")
    page.keyboard.press("Enter")
    expect(page.locator("#status")).to_contain_text("“import”")
    page.go_back()
    expect(page.locator("#q")).to_have_value("class")
    expect(page.locator("#status")).to_have_text(said)
    page.go_forward()
    expect(page.locator("#q")).to_have_value("import")
    expect(page.locator("#status")).to_contain_text("“import”")
    assert len(loads) == 1
    link = page.locator("#results a").first
    link.click()
    expect(page.locator("h1")).to_contain_text("Neuron")
    page.go_back()
    expect(page.locator("#q")).to_have_value("import")
    expect(page.locator("#results li").first).to_be_visible()

    page.goto(f"{demo_site.as_uri()}/search.html?q=class&layer=0,2&effective=1.5-&density=-0.125")
    expect(page.locator("#status")).to_have_text(said)
    expect(page.locator("#filters")).to_have_attribute("open", "")
    page.get_by_role("button", name="Clear the filters").click()
    page.wait_for_url("**/search.html?q=class")
    assert errors == []


def test_keys_lead_from_the_query_through_the_results_to_a_behaviour(
    demo_site: Path, page: Page, errors: list[str]
) -> None:
    page.goto(f"{demo_site.as_uri()}/search.html?q=import")
    expect(page.locator("#results li").first).to_be_visible()
    page.keyboard.press("/")
    expect(page.locator("#q")).to_be_focused()
    for _ in range(3):
        page.keyboard.press("ArrowDown")
    page.keyboard.press("ArrowUp")
    target = page.locator("#results a").nth(1)
    expect(target).to_be_focused()
    href = target.get_attribute("href")
    page.keyboard.press("Enter")
    page.wait_for_url(f"**/{href}")
    assert errors == []


def test_nothing_found_and_odd_queries_are_said_plainly(demo_site: Path, page: Page, errors: list[str]) -> None:
    page.goto(f"{demo_site.as_uri()}/search.html?q=zzzzzzqqq")
    expect(page.locator("#status")).to_have_text("No behaviour matches “zzzzzzqqq” here.")
    for query in (
        "__proto__",
        "constructor",
        '"',
        '""',
        "/",
        "\\",
        "%",
        "<b>",
        "\u202e",
        "x" * 500,
        "( ) ( )",
        "a" * 70,
    ):
        page.goto(f"{demo_site.as_uri()}/search.html?q={quote(query)}")
        expect(page.locator("#status")).not_to_be_empty()
    assert errors == []


def test_a_file_of_the_index_that_is_missing_is_named_and_asked_for_again(
    tiny_site: Path, copy_of: Callable[[Path], Path], page: Page
) -> None:
    site = copy_of(tiny_site)
    kept = (site / "search" / "s0.js").read_bytes()
    (site / "search" / "s0.js").unlink()
    page.goto(f"{site.as_uri()}/search.html?q=cat")
    expect(page.locator("#status")).to_contain_text("search/s0.js, could not be loaded")
    (site / "search" / "s0.js").write_bytes(kept)
    page.keyboard.press("/")
    page.keyboard.press("Enter")
    expect(page.locator("#results li").first).to_be_visible()


def test_hostile_text_in_results_runs_nowhere(hostile_site: Path, page: Page, errors: list[str]) -> None:
    listed = index.read_index_file(hostile_site / "search" / "words.js")[0]
    # Examples are filled in where they are in sight: all of them.
    page.set_viewport_size({"width": 1280, "height": 4000})
    for query in [
        "<",
        "script",
        "onerror",
        "alert",
        "__proto__",
        "u",
        "x",
        "/./",
        *listed[:: max(1, len(listed) // 12)],
    ]:
        page.goto(f"{hostile_site.as_uri()}/search.html?q={quote(query)}")
        expect(page.locator("#status")).not_to_be_empty()
        expect(page.locator("#results li:not(.there)")).to_have_count(0)
        assert page.evaluate("window.pwned") is None, query
        assert (
            page.locator("#results").evaluate(
                r"list => /[\u0000-\u0008\u200b-\u200f\u202a-\u202e]/.test(list.textContent)"
            )
            is False
        )
    assert errors == []


_ASSIGNED = st.characters(exclude_categories=["Cs", "Cn", "Co"])
_TRAPS = [
    "İ",
    "ΟΔΟΣ",
    "ß",
    "\u212a",
    "e\u0301",
    "\ufeffa",
    "\x1ca\x85",
    "\u180ea",
    "ǅ",
    "ﬁ",
    "각",
    "\u1100\u1161",
    "Å",
    "_a",
]


def test_python_and_the_page_agree_on_what_is_the_same_word(browser: Browser, tiny_site: Path) -> None:
    page = browser.new_page()
    page.goto(f"{tiny_site.as_uri()}/search.html")
    script = "texts => texts.map(text => [Atlas.search.key(text), Atlas.search.pieces(text).map(piece => piece.word)])"

    def agree(texts: list[str]) -> None:
        for text, (key, found) in zip(texts, page.evaluate(script, texts), strict=True):
            if normalise.search_key(text) != "↵":  # no query is a line's end alone
                assert key == normalise.search_key(text), ascii(text)
            assert found == [normalise.same(text[start:end]) for start, end in normalise.pieces(text)], ascii(text)

    agree(_TRAPS)
    agree([chr(code) for code in range(0x3000) if unicodedata.category(chr(code)) not in ("Cn", "Cs")])

    @settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.too_slow])
    @given(st.lists(st.text(_ASSIGNED, max_size=12), min_size=20, max_size=40))
    def any_text(texts: list[str]) -> None:
        agree(texts)

    any_text()
    page.close()
