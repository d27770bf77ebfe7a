"""What `check` finds in a built site without the model, and what it leaves to its owner."""

from __future__ import annotations

import re
import shutil
import subprocess
from collections.abc import Callable, Sequence
from concurrent.futures import Executor
from pathlib import Path

import orjson
import pytest

from atlas_builder.files import digests
from atlas_builder.progress import Progress
from atlas_builder.records.schema import schema
from atlas_builder.records.validation import schema_problem
from atlas_builder.site.hosting import check as module
from atlas_builder.site.hosting import sums
from atlas_builder.site.hosting.check import check
from atlas_builder.site.hosting.checks.markup import any_links
from tests.attacks.alterations import Alteration, alterations, rehash
from tests.support.atlases import records_of

QUIET = Progress(quiet=True)
Copy = Callable[[Path], Path]


def test_sha256sum_reads_the_sums_of_every_file(tiny_site: Path) -> None:
    names = {path.relative_to(tiny_site).as_posix() for path in tiny_site.rglob("*") if path.is_file()}
    listed = sums.listed_sums(tiny_site / "SHA256SUMS")
    assert set(listed or ()) == names - {"SHA256SUMS", "atlas.json"}
    if shutil.which("sha256sum"):
        subprocess.run(["sha256sum", "--check", "--strict", "--quiet", "SHA256SUMS"], cwd=tiny_site, check=True)


def test_files_of_the_user_are_listed_and_are_no_problem(tiny_site: Path, copy_of: Copy) -> None:
    site = copy_of(tiny_site)
    for name in ("CNAME", "notes/a.txt", "notes/b.txt", ".git/HEAD", "sketch.html"):
        (site / name).parent.mkdir(exist_ok=True)
        (site / name).write_text("mine", encoding="utf-8")
    report = check(site, QUIET)
    assert report.problems == []
    assert report.lines == ["yours: .git/…, CNAME, notes/…, sketch.html"]


@pytest.mark.parametrize("name", ["L0/N5000.html", "L0/N5000.json", "assets/x.js", "search/x9.js", "L7/index.html"])
@pytest.mark.parametrize("listed", [False, True])
def test_a_file_that_nobody_accounts_for_is_a_problem_where_the_builder_writes(
    tiny_site: Path, copy_of: Copy, name: str, listed: bool
) -> None:
    site = copy_of(tiny_site)
    (site / name).parent.mkdir(exist_ok=True)
    (site / name).write_text("", encoding="utf-8")
    if listed:
        rehash(site, tiny_site)
    assert any(problem.startswith(f"{name}: nothing accounts for it") for problem in check(site, QUIET).problems)


def _some(site: Path) -> list[Alteration]:
    return list(alterations(site))


@pytest.mark.parametrize("first", range(4))
def test_an_altered_fact_is_found_by_the_sums(tiny_site: Path, copy_of: Copy, tmp_path: Path, first: int) -> None:
    for number, alteration in enumerate(_some(tiny_site)[first::16]):
        copy = Path(shutil.copytree(tiny_site, tmp_path / str(number)))
        try:
            alteration.apply(copy)
        except (AssertionError, StopIteration):
            continue  # this atlas has no such fact
        names = [path.relative_to(copy).as_posix() for path in copy.rglob("*") if path.is_file()]
        assert sums.sum_problems(copy, orjson.loads((copy / "atlas.json").read_bytes()), names)[0], alteration.name
        shutil.rmtree(copy)


@pytest.mark.parametrize("kind", ["record", "page", "units.parquet", "behaviours.parquet", "search", "foreign"])
def test_an_altered_fact_is_found_where_the_sums_are_computed_anew(tiny_site: Path, tmp_path: Path, kind: str) -> None:
    found, tried = 0, 0
    for number, alteration in enumerate([each for each in _some(tiny_site) if each.kind == kind][::7]):
        copy = Path(shutil.copytree(tiny_site, tmp_path / str(number)))
        try:
            alteration.apply(copy)
        except (AssertionError, StopIteration):
            continue
        rehash(copy, tiny_site)
        tried += 1
        found += bool(check(copy, QUIET).problems)
        shutil.rmtree(copy)
    assert tried
    assert 3 * found >= 2 * tried


def test_a_theme_that_a_site_names_is_not_run(tiny_site: Path, copy_of: Copy) -> None:
    site = copy_of(tiny_site)
    (site / "theme").mkdir()
    (site / "theme" / "base.html").write_text("{{ 1 / 0 }}", encoding="utf-8")
    facts = orjson.loads((site / "atlas.json").read_bytes())
    facts["configuration"]["site"]["theme"] = str(site / "theme")
    (site / "atlas.json").write_bytes(sums.facts_bytes(facts))
    sums.seal(site, sums.listed_sums(site / "SHA256SUMS"))
    report = check(site, QUIET)
    assert report.problems == []
    assert any("pages were not compared" in note for note in report.notes)


@pytest.mark.parametrize(
    "markup",
    [
        "<script>x()</script>",
        "<script src=//example.com/x.js></script>",
        "<SCRIPT SRC='https://example.com/x.js'></SCRIPT>",
        "<p OnClick=x()>",
        "<svg onload=x()></svg>",
        '<a href=" java&#x73;cript:x()">x</a>',
        "<iframe srcdoc=x></iframe>",
        "<object data=x></object>",
        "<embed src=x>",
        "<base href=/>",
        "<meta http-equiv=refresh content=0>",
        "<link rel='x stylesheet' href=https://example.com/x.css>",
        "<button formaction=javascript:x()>x</button>",
    ],
)
def test_what_runs_or_loads_elsewhere_is_objected_to(tiny_site: Path, markup: str) -> None:
    page = (tiny_site / "methods.html").read_text(encoding="utf-8")
    assert any_links(page).objections == []
    assert any_links(page.replace("</main>", f"{markup}</main>")).objections


def test_a_page_needs_its_policy_before_it_loads_anything(tiny_site: Path) -> None:
    page = (tiny_site / "index.html").read_text(encoding="utf-8")
    policy = re.search(r"<meta http-equiv=Content-Security-Policy[^>]*>", page)
    assert policy is not None
    for other in (
        page.replace(policy[0], ""),
        page.replace("default-src 'self'", "default-src *"),
        page.replace(policy[0], "").replace("</head>", f"{policy[0]}</head>"),
        page.replace("default-src 'self'", "default-src 'self'; script-src 'unsafe-inline'"),
    ):
        assert any_links(other).objections


def test_the_verdict_on_a_record_is_that_of_jsonschema(tiny_site: Path) -> None:
    from jsonschema import Draft202012Validator

    validator = Draft202012Validator(schema())
    record = max(records_of(tiny_site), key=lambda one: len(one["examples"]))

    def altered(node: object) -> None:
        children = node.items() if isinstance(node, dict) else enumerate(node[:1]) if isinstance(node, list) else ()
        for name, child in list(children):
            other: object
            for other in (None, True, -5, 1.5, 2, "x", [], {}, [["a", 1, 2]]):
                node[name] = other  # type: ignore[index]
                assert (schema_problem(record) is None) == validator.is_valid(record), (name, other)
            node[name] = child  # type: ignore[index]
            altered(child)

    altered(record["stats"])
    altered(record["behaviours"][0])
    altered(record["bands"][0])
    altered(record["examples"][0])
    altered(record["logits"])
    for name in list(record):
        without = {key: value for key, value in record.items() if key != name}
        assert (schema_problem(without) is None) == validator.is_valid(without)


def test_processes_say_what_one_says_in_the_same_order(
    tiny_site: Path, copy_of: Copy, pool: Executor, monkeypatch: pytest.MonkeyPatch
) -> None:
    site = copy_of(tiny_site)
    for number, path in enumerate(sorted(site.glob("L*/N*.*"))[::5]):
        content = path.read_bytes()
        path.write_bytes(content[: len(content) // 2] if number % 3 else content.replace(b"0.", b"1.", 1))
    sorted(site.glob("L1/N*.html"))[3].unlink()
    monkeypatch.setattr(module, "_UNITS_AT_ONCE", 7)
    alone = check(site, QUIET)
    monkeypatch.setattr(module, "_WORTH_WORKERS", 1)
    assert check(site, QUIET, pool) == alone
    assert len(alone.problems) > 10


def test_no_file_of_a_unit_is_read_twice(tiny_site: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    read: list[str] = []

    def listening(site: Path, names: Sequence[str]) -> dict[str, str]:
        read.extend(names)
        return digests(site, names)

    monkeypatch.setattr(sums, "digests", listening)
    assert check(tiny_site, QUIET).problems == []
    assert not [name for name in read if re.fullmatch(r"L\d+/N\d+\.\w+", name)]
    assert "index.html" in read


def test_an_atlas_of_hostile_text_whose_title_has_lines_and_markup_is_sound(hostile_site: Path) -> None:
    assert check(hostile_site, QUIET).problems == []
