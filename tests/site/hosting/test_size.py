"""Where a site's bytes are, and what hosts and file systems refuse."""

from __future__ import annotations

import io
import os
import tarfile
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest

from atlas_builder.progress import Progress
from atlas_builder.site.hosting import budget, size
from atlas_builder.site.hosting.check import check

QUIET = Progress(quiet=True)


def _write(folder: Path, *names: str, content: bytes = b"x") -> Path:
    for name in names:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    return folder


def _problems(folder: Path, host: str = "github-pages") -> list[str]:
    return size.size_problems(size.site_files(folder), host)


def test_every_file_is_counted_once_in_its_part(tmp_path: Path) -> None:
    parts = {
        "unit pages": ["L0/N0.html", "L11/N3071.html"],
        "records": ["L0/N0.json"],
        "layer tables": ["L0/index.html", "L0/units.js"],
        "search": ["search.html", "search/s0.js"],
        "map": ["map.html", "map/points.js"],
        "tables": ["tables/units.parquet"],
        "assets": ["assets/atlas.css"],
        "prose": ["about.html", "images/a.svg", "guide/index.html"],
        "rest": ["index.html", "404.html", "atlas.json", ".nojekyll", "schema/record.json", "images/a.csv"],
    }
    for names in parts.values():
        _write(tmp_path, *names, content=b"four")
    found = size.measure_sizes(size.site_files(tmp_path), "none")
    assert found.parts == {part: (len(names), 4 * len(names)) for part, names in parts.items()}
    assert found.bytes == 4 * sum(map(len, parts.values()))


def test_the_report_adds_up_to_what_is_on_disk(tiny_site: Path) -> None:
    sizes = check(tiny_site, QUIET).sizes
    on_disk = [path.stat().st_size for path in tiny_site.rglob("*") if path.is_file()]
    assert sizes.bytes == sum(on_disk)
    assert sum(count for count, _ in sizes.parts.values()) == len(on_disk)
    assert sizes.parts["unit pages"] == (48, sum(path.stat().st_size for path in tiny_site.glob("L*/N*.html")))
    assert sizes.parts["records"][1] == sum(path.stat().st_size for path in tiny_site.glob("L*/N*.json"))


def test_the_report_is_a_table_of_the_whole_or_of_what_the_host_allows(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(budget.SIZE_BUDGET, "github-pages", 4_000_000)
    _write(tmp_path, "L0/N0.html", content=bytes(2_000_000))
    _write(tmp_path, "L0/N0.json", content=bytes(1_000_000))
    found = size.site_files(tmp_path)
    rows = [line.split() for line in size.measure_sizes(found, "github-pages").lines]
    assert ["records", "1", "1.0", "25%"] in rows
    assert ["whole", "2", "3.0", "75%"] in rows
    assert "allows 4 MB" in size.measure_sizes(found, "github-pages").lines[-1]
    assert size.measure_sizes(found, "none").lines[-1].split() == ["whole", "2", "3.0", "100%"]


@pytest.mark.parametrize("length", [80, 98, 99, 200])
def test_the_tar_is_as_large_as_a_tar_is(tmp_path: Path, length: int) -> None:
    site = _write(tmp_path / "site", "index.html", "L0/N0.html", "a/b/c.txt", content=bytes(700))
    _write(site, "empty", content=b"")
    _write(site, "n" * length, f"{'d' * length}/x", content=bytes(512))
    with tarfile.open(tmp_path / "site.tar", "w", format=tarfile.GNU_FORMAT) as tar:
        # tarfile writes a name without the ./ and the slash that GNU tar adds; it is given them here.
        for path in [site, *sorted(site.rglob("*"))]:
            info = tar.gettarinfo(path, arcname="./" + path.relative_to(site).as_posix())
            info.name += "/" if path.is_dir() and path != site and len(info.name) != 100 else ""
            tar.addfile(info, io.BytesIO(path.read_bytes()) if path.is_file() else None)
    assert size.measure_sizes(size.site_files(site), "none").tar == (tmp_path / "site.tar").stat().st_size


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ('what"?.html', "is not allowed in file names"),
        ("a:b.html", "is not allowed in file names"),
        ("x/<i>.html", "is not allowed in file names"),
        ("back\\slash.html", "is not allowed in file names"),
        ("line\nend.html", r"'line\nend.html': '\n' is not allowed"),
        ("dot./a.html", "cannot end with a dot or a space"),
        ("space ", "cannot end with a dot or a space"),
        ("aux.html", "is a device"),
        ("x/COM1", "is a device"),
        (os.fsdecode(b"\xff.html"), "it is not UTF-8"),
    ],
)
def test_names_that_some_system_refuses_are_named(tmp_path: Path, name: str, reason: str) -> None:
    _write(tmp_path, name, "good.html")
    (problem,) = _problems(tmp_path, "none")
    assert reason in problem
    assert problem.isprintable()


def test_names_that_differ_in_case_or_form_only_are_named(tmp_path: Path) -> None:
    site = _write(tmp_path, "About.html", "about.html", "caf\u00e9.html", "cafe\u0301.html", "other.html")
    problems = _problems(site, "none")
    assert len(problems) == 2
    assert "about.html: on Windows and macOS it is the same name as About.html" in problems[0]


@pytest.mark.parametrize("name", ["_private/a.html", ".nojekyll", "a b.html", "日本.html", "console.html", "L0/0"])
def test_common_names_are_fine(tmp_path: Path, name: str) -> None:
    assert _problems(_write(tmp_path / "site", name)) == []


def test_links_and_closed_files_are_named(tmp_path: Path) -> None:
    site = _write(tmp_path / "site", "a.html", "closed.html", "shut/a.html")
    (site / "soft.html").symlink_to(site / "a.html")
    (site / "away").symlink_to(tmp_path)
    (site / "hard.html").hardlink_to(site / "a.html")
    (site / "closed.html").chmod(0o600)
    (site / "shut").chmod(0o700)
    said = dict(problem.split(": ", 1) for problem in _problems(site))
    assert set(said) == {"soft.html", "away", "hard.html", "closed.html", "shut/a.html"}
    assert "hard link to a.html" in said["hard.html"]
    assert "chmod" in said["closed.html"]
    # Elsewhere permissions and hard links are nobody's concern; a symbolic link is lost anywhere.
    assert {problem.split(": ")[0] for problem in _problems(site, "none")} == {"soft.html", "away"}
    # What a link leads to is no part of the site.
    assert sum(count for count, _ in size.measure_sizes(size.site_files(site), "none").parts.values()) == 6


def test_the_whole_and_each_file_stay_within_what_the_host_allows(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    site = tmp_path / "site"
    monkeypatch.setitem(budget.SIZE_BUDGET, "github-pages", 100)
    monkeypatch.setitem(size.FILE_LIMIT, "github-pages", 60)
    _write(site, "a.js", content=bytes(60))
    _write(site, "b.js", content=bytes(40))
    assert _problems(site) == []
    _write(site, "b.js", content=bytes(61))
    whole, file = _problems(site)
    assert "lower site.examples_per_behaviour" in whole
    assert file.startswith("b.js: ")
    assert _problems(site, "none") == []


def test_check_names_a_page_that_windows_cannot_hold(tiny_site: Path, copy_of: Callable[[Path], Path]) -> None:
    site = copy_of(tiny_site)
    (site / "what?.html").write_text("<!doctype html><title>What</title>", encoding="utf-8")
    assert Counter(problem.split(":")[0] for problem in check(site, QUIET).problems) == {"what?.html": 1}
