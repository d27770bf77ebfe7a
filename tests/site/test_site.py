"""What a built site holds, read as files."""

from __future__ import annotations

import json
import re
import xml.etree.ElementTree as ET
from collections.abc import Callable
from pathlib import Path

import jsonschema
import orjson
import pytest

from atlas_builder.errors import SiteError
from atlas_builder.progress import Progress
from atlas_builder.records.schema import content_hash
from atlas_builder.site.hosting import sums
from atlas_builder.site.hosting.check import check
from tests.support.atlases import records_of

SITES = ["tiny_site", "demo_site", "hostile_site"]
QUIET = Progress(quiet=True)


@pytest.fixture(params=SITES)
def site(request: pytest.FixtureRequest) -> Path:
    found: Path = request.getfixturevalue(request.param)
    return found


def test_a_built_site_passes_its_own_check(site: Path) -> None:
    report = check(site, QUIET)
    assert report.problems == []
    assert report.records == len(list(site.glob("L*/N*.html"))) > 0
    assert report.links > report.pages * 5


def test_no_script_or_style_names_an_address_off_the_site(site: Path) -> None:
    for script in (site / "assets").glob("*"):
        assert not re.search(r"https?://(?!www\.w3\.org/2000/svg)", script.read_text(encoding="utf-8"))


def test_every_record_is_valid_hashed_and_rounded(site: Path) -> None:
    schema = json.loads((site / "schema/neuron-record.schema.json").read_bytes())
    jsonschema.Draft202012Validator.check_schema(schema)
    validator = jsonschema.Draft202012Validator(schema)
    records = records_of(site)
    for record in records[:: max(1, len(records) // 150)]:
        validator.validate(record)
        assert record["hash"] == content_hash(record)
        for number in re.findall(r"-?\d+\.\d+(?:e-?\d+)?", orjson.dumps({**record, "examples": 0}).decode()):
            digits = number.split("e")[0].replace("-", "").replace(".", "").strip("0")
            assert len(digits) <= 4, (record["id"], number)


def test_the_site_has_all_that_hosts_and_readers_look_for(tiny_site: Path) -> None:
    for name in (
        "index.html", "404.html", "search.html", "about.html", "methods.html", "data.html", "citing.html", ".nojekyll",
        "robots.txt", "atlas.json", "CITATION.cff", "sitemap.xml", "search/index.js", "assets/atlas.css",
        "L0/index.html",
    ):  # fmt: skip
        assert (tiny_site / name).is_file(), name
    facts = json.loads((tiny_site / "atlas.json").read_bytes())
    assert facts["model"]["activation"] == "gelu_new"
    assert facts["layers"] == [{"layer": 0, "units": 24}, {"layer": 1, "units": 24}]
    assert facts["bos"].startswith("<|endoftext|>")
    assert facts["corpus"]["name"] == "words.jsonl"
    assert str(Path.home()) not in json.dumps(facts)
    assert "/tmp" not in json.dumps(facts)


def test_sitemap_canonical_links_and_robots_name_the_published_address(tiny_site: Path) -> None:
    urls = [element.text for element in ET.parse(tiny_site / "sitemap.xml").iter() if element.tag.endswith("loc")]
    assert "https://example.org/atlas/" in urls
    assert "https://example.org/atlas/L1/N3.html" in urls
    assert len(urls) == len(set(urls)) == 2 + 4 + 2 + 48
    page = (tiny_site / "L1/N3.html").read_text(encoding="utf-8")
    assert '<link rel=canonical href="https://example.org/atlas/L1/N3.html">' in page
    assert "https://example.org/atlas/sitemap.xml" in (tiny_site / "robots.txt").read_text(encoding="utf-8")


def test_without_an_address_there_is_no_sitemap(demo_site: Path) -> None:
    assert not (demo_site / "sitemap.xml").exists()
    assert "Sitemap" not in (demo_site / "robots.txt").read_text(encoding="utf-8")


def test_behaviours_have_addresses_and_neighbours_lead_to_them(demo_site: Path) -> None:
    linked = 0
    for record in records_of(demo_site)[::40]:
        page = (demo_site / f"L{record['layer']}/N{record['unit']}.html").read_text(encoding="utf-8")
        for behaviour in record["behaviours"]:
            assert f"id=b{behaviour['id']}>" in page
            for neighbour in behaviour["neighbours"]:
                _, layer, unit = neighbour["id"].split("/")
                place = unit if layer == f"L{record['layer']}" else f"../{layer}/{unit}"
                assert f"href={place}.html#b{neighbour['behaviour']}>" in page
                linked += 1
    assert linked > 10


def test_a_unit_that_never_fires_has_a_page_that_says_so(
    gpt2_folder: Path, configure: Callable[..., object], pool: object, tmp_path: Path
) -> None:
    import torch
    from transformers import AutoTokenizer, GPT2LMHeadModel

    from atlas_builder.pipeline.build import build

    silent = GPT2LMHeadModel.from_pretrained(gpt2_folder)
    with torch.no_grad():
        silent.transformer.h[0].mlp.c_fc.bias[3] = -1e4
    silent.save_pretrained(tmp_path / "silent")
    AutoTokenizer.from_pretrained(gpt2_folder).save_pretrained(tmp_path / "silent")
    site = build(configure(model={"name": str(tmp_path / "silent")}), tmp_path / "site", executor=pool)  # type: ignore[arg-type]
    record = json.loads((site / "L0/N3.json").read_bytes())
    assert record["examples"] == record["behaviours"] == record["bands"] == []
    assert record["polysemanticity"]["mean_distance"] is None
    page = (site / "L0/N3.html").read_text(encoding="utf-8")
    assert "never fires on this corpus" in page
    assert check(site, QUIET).problems == []


def test_check_finds_what_is_planted(tiny_site: Path, copy_of: Callable[[Path], Path]) -> None:
    site = copy_of(tiny_site)
    (site / "L0/N1.html").unlink()
    record = json.loads((site / "L0/N2.json").read_bytes())
    record["stats"]["max"] += 1
    (site / "L0/N2.json").write_bytes(orjson.dumps(record))
    (site / "L0/N3.json").write_bytes(b"{}")
    (site / "L0/N4.json").write_bytes(b"not json")
    page = site / "L1/N0.html"
    page.write_text(page.read_text(encoding="utf-8").replace("id=b1>", "id=c1>"), encoding="utf-8")
    problems = "\n".join(check(site, QUIET).problems)
    assert "N1.html leads nowhere" in problems
    assert "L0/N2.json: its hash is not that of its content" in problems
    assert "L0/N3.json: $ 'schema' is a required property" in problems
    assert "L0/N4.json: cannot be read" in problems
    assert "L1/N0.html#b1 leads nowhere" in problems


def test_check_holds_a_site_to_its_hosts_budget(
    tiny_site: Path, copy_of: Callable[[Path], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    from atlas_builder.site.hosting import budget

    site = copy_of(tiny_site)
    facts = json.loads((site / "atlas.json").read_bytes())
    facts["configuration"]["site"]["host"] = "github-pages"
    (site / "atlas.json").write_bytes(orjson.dumps(facts))
    sums.seal(site)
    assert not any("github-pages" in problem or " MB" in problem for problem in check(site, QUIET).problems)
    monkeypatch.setitem(budget.SIZE_BUDGET, "github-pages", 1000)
    assert "lower site.examples_per_behaviour" in check(site, QUIET).problems[0]


def test_check_names_odd_pages_and_missing_shards(tiny_site: Path, copy_of: Callable[[Path], Path]) -> None:
    site = copy_of(tiny_site)
    (site / "search" / "s0.js").unlink()
    (site / "odd.html").write_text(f'<a href="{"../" * 99}x.html">a</a><a href="http://[x">b</a>', encoding="utf-8")
    (site / "bytes.html").write_bytes(b"\xff\xfe")
    problems = "\n".join(check(site, QUIET).problems)
    for said in (
        "search/s0.js is missing",
        "x.html leads nowhere",
        "is not a valid URL",
        "bytes.html: it is not UTF-8",
    ):
        assert said in problems


@pytest.mark.parametrize("content", [None, "[]", "{}", "nonsense"])
def test_check_refuses_what_is_no_atlas(tmp_path: Path, content: str | None) -> None:
    if content is not None:
        (tmp_path / "atlas.json").write_text(content, encoding="utf-8")
    with pytest.raises(SiteError, match=r"is not a built atlas|is not JSON|has the schema None"):
        check(tmp_path, QUIET)


def test_hostile_text_is_in_the_records_as_it_was(hostile_site: Path) -> None:
    tokens = ["".join(example["tokens"]) for record in records_of(hostile_site) for example in record["examples"]]
    assert any("</script>" in text for text in tokens)
    assert any("{{ 7*7 }}" in text or "{{" in text for text in tokens)
    for page in hostile_site.rglob("*.html"):
        text = page.read_text(encoding="utf-8")
        assert "<script>window.pwned" not in text
        assert "\u202e" not in text
        assert "\x00" not in text
        assert "49" not in re.findall(r"<title>(.*?)</title>", text)[0].replace("N49", "").replace("Neuron 49", "")


def test_pages_are_small(demo_site: Path) -> None:
    files = [*demo_site.glob("L*/N*.html"), *demo_site.glob("L*/N*.json")]
    of_unit = sum(file.stat().st_size for file in files) / (len(files) / 2)
    assert of_unit <= 37_000  # five main behaviours and four rare ones
