"""Explanations in words: on pages, in tables, search and the reader, and gone when the setting is."""

from __future__ import annotations

import json
import os
import re
from concurrent.futures import Executor
from pathlib import Path
from typing import Any

import orjson
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

import atlas_builder
from atlas_builder.errors import ConfigurationError, SiteError
from atlas_builder.mkdocs_plugin.preview import open_site
from atlas_builder.pipeline.build import build
from atlas_builder.progress import Progress
from atlas_builder.records.explanations import PUBLISHED
from atlas_builder.site import in_words
from atlas_builder.site.hosting.budget import share_of_units
from atlas_builder.site.hosting.check import check
from atlas_builder.site.html import markup
from atlas_builder.site.render import sizes
from atlas_builder.site.search.index import read_index_file
from tests.support.atlases import Configure, Listener, digests, records_of
from tests.support.explained import (
    explained_units,
    line_of,
    lines_of,
    write_explanations,
)

FACTS = "atlas.json"


def _page(site: Path, record: dict[str, Any]) -> str:
    return (site / f"L{record['layer']}" / f"N{record['unit']}.html").read_text(encoding="utf-8")


def _paragraphs(page: str) -> list[str]:
    return re.findall(r"<p class=said>(.*?)(?=<p|<ol|<li|</div|<section|<h|<div|<details|<figure)", page, re.DOTALL)


def _section(page: str, behaviour: int) -> str:
    return page.partition(f"id=b{behaviour}>")[2].partition("<ol")[0]


def _published(site: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (site / PUBLISHED).read_text(encoding="utf-8").splitlines()]


def test_an_explanation_stands_under_its_behaviour_with_who_said_it_and_its_scores(explained_site: Path) -> None:
    first = explained_units(explained_site)[0]
    section = _section(_page(explained_site, first), 1)
    assert first["behaviours"][0]["id"] == 1
    said, other, computed = _paragraphs(section + "<ol")
    assert said == (
        "“the word that zebras say after a comma” <small>— Teller-1B: detection 0.80 (at random 0.52), "
        "fuzzing 0.71 (at random 0.50), simulation 0.31 (at random 0.02)</small>"
    )
    assert other.startswith("“forms of “to be”” <small>— Other-7B: ")
    assert other.endswith(", judged by Judge-70B</small>")
    assert "Scored alike, its label: detection 0.80 (0.52)" in computed
    assert "; its top tokens: detection 0.66</small>" in computed


def test_a_whole_unit_is_explained_at_the_top(explained_site: Path) -> None:
    first, second, *_ = explained_units(explained_site)
    for record, words in (
        (first, "“mostly grammar, some numbers” <small>— Teller-1B: simulation 0.40</small>"),
        (second, "“brackets and quotes” <small>— Teller-1B, from Neuronpedia</small>"),
        (second, "“by nobody” <small>— a model that is not named, from delphi</small>"),
    ):
        head = _page(explained_site, record).partition("<header class=answer>")[2].partition("</header>")[0]
        assert words in head


def test_rare_behaviours_are_explained_too(explained_site: Path) -> None:
    assert "a rarely seen ending" in _page(explained_site, explained_units(explained_site)[0])


def test_the_label_stays_the_heading(explained_site: Path, tiny_site: Path) -> None:
    for record in explained_units(tiny_site)[:4]:
        headings = [re.findall(r"<h[23]>.*?</h[23]>", _page(site, record)) for site in (tiny_site, explained_site)]
        assert headings[0] == headings[1]


def test_an_explanation_of_another_edition_is_marked(explained_site: Path) -> None:
    third = explained_units(explained_site)[2]
    assert "“flamingos in another edition” <small>— Teller-1B, of another edition: " in _page(explained_site, third)
    (line,) = [line for line in _published(explained_site) if "flamingos" in line["explanation"]]
    assert line["current"] is False


def test_what_a_model_says_never_runs(explained_site: Path) -> None:
    second = explained_units(explained_site)[1]
    for name in (f"L{second['layer']}/N{second['unit']}.html", f"L{second['layer']}/index.html"):
        page = (explained_site / name).read_text(encoding="utf-8")
        assert "<script>window.pwned" not in page
        assert "<b>Bold" not in page
        assert "\u202e" not in page
    page = _page(explained_site, second)
    assert "&lt;script&gt;window.pwned=6&lt;/script&gt; &amp; <u>U+202E</u>right" in page
    assert "<u>U+0007</u>bell? {{ 7*7 }}" in page


def test_a_page_grows_by_half_a_kilobyte_a_behaviour_at_most(explained_site: Path, tiny_site: Path) -> None:
    """Whatever the length of the text."""
    *_, fourth = explained_units(tiny_site)[:4]
    grown = len(_page(explained_site, fourth).encode()) - len(_page(tiny_site, fourth).encode())
    assert 0 < grown <= 500
    (line,) = [line for line in _published(explained_site) if line["explanation"].startswith("long ")]
    assert len(line["explanation"]) == 2000


@given(st.text(st.sampled_from("a <&>\u202e\x07é日😀"), max_size=400), st.integers(10, 300))
def test_a_text_is_cut_by_what_it_takes_on_a_page(text: str, longest: int) -> None:
    cut = in_words._cut(text, longest)
    assert len(markup(cut).encode()) <= longest
    if cut != text:
        assert cut.endswith("…")
        assert text.startswith(cut[:-1])
        assert len(markup(text).encode()) > longest
    else:
        assert len(markup(text).encode()) <= longest


def test_records_and_pages_without_explanations_are_the_same_bytes(explained_site: Path, tiny_site: Path) -> None:
    one, other = digests(tiny_site), digests(explained_site)
    explained = {f"L{line['layer']}/N{line['unit']}.html" for line in _published(explained_site)}
    assert {name for name in one if re.fullmatch(r"L\d+/N\d+\.\w+", name) and one[name] != other[name]} == explained


def test_the_fit_to_a_host_counts_what_pages_say(explained_site: Path, configure: Configure) -> None:
    site = open_site(configure(), explained_site)
    (first, *_) = _published(explained_site)
    place = site.units.index((first["layer"], first["unit"]))
    page = explained_site / f"L{first['layer']}" / f"N{first['unit']}.html"
    ((counted,),) = sizes(site, [site.config.site], [place]).tolist()
    assert counted == page.stat().st_size + page.with_suffix(".json").stat().st_size
    assert share_of_units(10**9, 1_000_000, 10**8) == pytest.approx(share_of_units(10**9, 1_000_000) - 0.1)


def test_the_site_is_sound_and_says_so(explained_site: Path) -> None:
    assert check(explained_site, Progress(quiet=True)).problems == []


def test_check_names_what_was_changed(explained_site: Path, copy_of: Any) -> None:
    site = copy_of(explained_site)
    lines = _published(site)
    stale = next(line for line in lines if not line["current"])
    stale["current"] = True
    (site / PUBLISHED).write_bytes(b"".join(orjson.dumps(line) + b"\n" for line in lines))
    problems = "\n".join(check(site, Progress(quiet=True)).problems)
    assert f"{PUBLISHED}: its SHA-256 is not that in SHA256SUMS" in problems
    assert f"{PUBLISHED}: the edition that an explanation of {stale['id']} is of is not what it says" in problems
    (site / PUBLISHED).write_bytes(b"{}\n")
    assert any("cannot be read" in problem for problem in check(site, Progress(quiet=True)).problems)


def test_tables_have_the_first_explanation_of_this_edition(explained_site: Path) -> None:
    first, _, third, _ = explained_units(explained_site)[:4]
    rows = {
        (row["id"], row["behaviour"]): row
        for row in pq.ParquetFile(explained_site / "tables/behaviours.parquet").read().to_pylist()
    }
    row = rows[first["id"], 1]
    assert row["explanation"] == "the word that zebras say after a comma"
    assert row["explanation_model"] == "Teller-1B"
    assert [row[f"explanation_{name}"] for name in ("detection", "fuzzing", "simulation")] == [0.8, 0.71, 0.31]
    assert rows[third["id"], 1]["explanation"] is None
    units = pq.ParquetFile(explained_site / "tables/units.parquet").read().to_pylist()
    said = {row["id"]: (row["explanation"], row["explanation_model"]) for row in units if row["explanation"]}
    assert said[first["id"]] == ("mostly grammar, some numbers", "Teller-1B")
    assert len(said) == 2


def test_search_finds_a_behaviour_by_words_of_its_explanation(explained_site: Path) -> None:
    first = explained_units(explained_site)[0]
    search = explained_site / "search"
    shards = [row for path in sorted(search.glob("s*.js")) for row in read_index_file(path)[1]]
    words = {row[0]: row for row in shards}
    assert {"zebras", "flamingos", "grammar"} <= words.keys()
    assert words["zebras"][2] == "A"  # a share of 0
    texts = [text for path in sorted(search.glob("x*.js")) for text in read_index_file(path)[1]]
    (found,) = [text for text in texts if len(text) > 4 and "zebras" in text[4][0][0]]
    assert found[0] == first["behaviours"][0]["label"]
    assert ["mostly grammar, some numbers", "Teller-1B", "of the whole unit"] in found[4]


def test_a_layers_table_has_a_line_of_words(explained_site: Path, tiny_site: Path) -> None:
    first = explained_units(explained_site)[0]
    page = (explained_site / f"L{first['layer']}/index.html").read_text(encoding="utf-8")
    assert '<span class="said">“mostly grammar, some numbers” <small>— Teller-1B</small></span>' in page
    assert "said" not in (tiny_site / f"L{first['layer']}/index.html").read_text(encoding="utf-8")


def test_a_program_reads_explanations_of_units_and_behaviours(explained_site: Path, tiny_site: Path) -> None:
    first = explained_units(explained_site)[0]
    unit = atlas_builder.open(explained_site)[first["id"]]
    assert [one.explanation for one in unit.explanations] == ["mostly grammar, some numbers"]
    said = unit.behaviours[1].explanations
    assert [(one.source, one.model) for one in said] == [
        ("explain", "Teller-1B"),
        ("explain", "Other-7B"),
        ("label", ""),
        ("tokens", ""),
    ]
    assert (said[0].scores.detection, said[0].floor.detection, said[0].current) == (0.8, 0.52, True)
    assert atlas_builder.open(tiny_site)[first["id"]].behaviours[1].explanations == ()


def test_a_damaged_file_is_a_sentence_to_a_program(explained_site: Path, copy_of: Any) -> None:
    site = copy_of(explained_site)
    (site / PUBLISHED).write_text("no explanation\n", encoding="utf-8")
    with pytest.raises(SiteError, match=r"explanations\.jsonl is damaged: build the atlas again"):
        _ = atlas_builder.open(site).layers[0][0].explanations
    (site / PUBLISHED).unlink()
    with pytest.raises(SiteError, match=r"explanations\.jsonl is missing"):
        _ = atlas_builder.open(site).layers[0][0].explanations


def test_only_the_site_is_made_again_and_the_setting_removed_leaves_no_trace(
    built: Path, configure: Configure, pool: Executor, tmp_path: Path
) -> None:
    before = digests(built)
    said = write_explanations(tmp_path / "said.jsonl", lines_of(built))
    settings = configure(site={"explanations": str(said)})
    listener = Listener()
    build(settings, built, executor=pool, progress=listener)
    assert listener.unchanged() == ["collect", "cluster", "describe", "link"]
    assert json.loads((built / FACTS).read_bytes())["configuration"]["site"]["explanations"] == "said.jsonl"
    listener = Listener()
    build(settings, built, executor=pool, progress=listener)
    assert "publish" in listener.unchanged()
    write_explanations(said, lines_of(built)[:1])
    listener = Listener()
    build(settings, built, executor=pool, progress=listener)
    assert any(line.startswith("publish: runs again") and "explanations" in line for line in listener.lines)
    assert len(_published(built)) == 1
    build(configure(), built, executor=pool)
    assert digests(built) == before


def test_what_is_left_out_is_counted_and_said(
    built: Path, configure: Configure, pool: Executor, tmp_path: Path
) -> None:
    record = explained_units(built)[0]
    layer = record["layer"]
    lines = [
        line_of(record, 1, explanation="said first"),
        line_of(record, 1, explanation="said last"),
        line_of(record, 1, model="Mute", explanation="  \n\t "),
        {**line_of(record), "id": f"other/L{layer}/N{record['unit']}"},
        {**line_of(record), "id": f"tiny/L{layer}/N999999", "unit": 999_999},
        {**line_of(record), "id": f"tiny/L99/N{record['unit']}", "layer": 99},
        {**line_of(record), "behaviour": 9_999},
        line_of(record, does="f" * 64),
        line_of(record, 1, model="Long", explanation="x" * 10_000),
    ]
    said = write_explanations(tmp_path / "said.jsonl", lines)
    with said.open("a", encoding="utf-8") as file:
        file.write('{"id": "tiny/L')  # where a run was stopped
    listener = Listener()
    build(configure(site={"explanations": str(said)}), built, executor=pool, progress=listener)
    assert [line for line in listener.lines if line.startswith("site.explanations")] == [
        f"site.explanations: {said}: of its lines, 1 is of what a later line explains too, which counts",
        f"site.explanations: {said}: of its lines, 1 has more than 2,000 characters and is cut",
        f"site.explanations: {said}: of its lines, 1 has no text and is left out",
        "site.explanations: 4 of 7 are of units or behaviours that this atlas does not have, and are left out",
        "site.explanations: 1 of 3 is of another edition, and is shown as such",
    ]
    assert [line["explanation"][:9] for line in _published(built)] == ["the word ", "said last", "xxxxxxxxx"]
    assert check(built, Progress(quiet=True)).problems == []


def test_another_edition_is_refused_where_the_settings_say_so(
    built: Path, configure: Configure, pool: Executor, tmp_path: Path
) -> None:
    before = digests(built)
    said = write_explanations(tmp_path / "said.jsonl", lines_of(built))
    refusing = configure(site={"explanations": str(said), "stale_explanations": "refuse"})
    with pytest.raises(
        ConfigurationError, match=r"^site\.explanations: 1 of 11 is of another edition of this atlas: ex"
    ):
        build(refusing, built, executor=pool)
    assert digests(built) == before


@pytest.mark.parametrize(
    ("damage", "said"),
    [
        ("no JSON", "line 1 is no explanation"),
        ("[1]", "it is no object"),
        ({"layer": "2"}, "layer is no whole number"),
        ({"id": "tiny/L0/N1", "unit": 5}, "its id is not that of its layer and unit"),
        ({"source": "oracle"}, "its source is unknown"),
        ({"does": 7}, "does is no SHA-256"),
        ({"model": None}, "a text is missing"),
        ({"explanation": None}, "a text is missing"),
        ({"scores": {"detection": 1.5}}, "detection is beyond its range"),
        ({"scores": {"simulation": float("nan")}}, "simulation is no number"),
        ({"floor": {"fuzzing": True}}, "fuzzing is no number"),
        ({"behaviour": 0}, "behaviour is no whole number from 1"),
        ({"scores": "good"}, "scores are no object"),
        ({"scores": [["detection", 0.5]]}, "scores are no object"),
        ({"floor": []}, "scores are no object"),
        ({"scores": {"detection": 10**400}}, "detection is beyond its range"),
        ({"scores": {"simulation": float("-inf")}}, "simulation is no number"),
        ({"behaviour": -1}, "behaviour is no whole number from 1"),
        ({"behaviour": False}, "behaviour is no whole number from 1"),
        ({"id": ["tiny"]}, "is no explanation"),
    ],
)
def test_a_damaged_file_ends_a_build_before_any_work(
    damage: str | dict[str, Any], said: str, tiny_site: Path, configure: Configure, tmp_path: Path
) -> None:
    line = line_of(records_of(tiny_site)[0])
    text = damage if isinstance(damage, str) else json.dumps({**line, **damage})
    file = tmp_path / "said.jsonl"
    file.write_text(text + "\n", encoding="utf-8")
    with pytest.raises(ConfigurationError, match=re.escape(said)) as error:
        build(configure(site={"explanations": str(file)}), tmp_path / "site")
    assert str(error.value).count("\n") == 0
    assert not list(tmp_path.glob("*site*"))


def test_a_file_that_is_not_there_or_no_text_is_one_sentence(configure: Configure, tmp_path: Path) -> None:
    file = tmp_path / "said.jsonl"
    with pytest.raises(ConfigurationError, match=r"^site\.explanations: .* is not found: give the path"):
        build(configure(site={"explanations": str(file)}), tmp_path / "site")
    file.write_bytes(b"\xff\xfe")
    with pytest.raises(ConfigurationError, match="is not UTF-8 text"):
        build(configure(site={"explanations": str(file)}), tmp_path / "site")
    with pytest.raises(ConfigurationError, match="cannot be read"):
        build(configure(site={"explanations": str(tmp_path)}), tmp_path / "site")
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(ConfigurationError, match=r"cannot be read \(it is no file\)"):
        build(configure(site={"explanations": str(tmp_path / "pipe")}), tmp_path / "site")
