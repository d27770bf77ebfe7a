"""A built site as one file, and what it takes to publish it."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import stat
import subprocess
import time
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml
from click.testing import CliRunner

from atlas_builder.cli import main
from atlas_builder.corpus.token_text import plain
from atlas_builder.errors import ConfigurationError, SiteError
from atlas_builder.progress import Progress
from atlas_builder.site.hosting.archive import archive
from atlas_builder.site.hosting.check import check

QUIET = Progress(quiet=True)
WORKFLOW = Path(__file__).parents[3] / "site_config" / "github-pages.yml"

Copy = Callable[[Path], Path]


def _edit(site: Path, **fields: object) -> Path:
    """Change what the atlas says of itself."""
    path = site / "atlas.json"
    facts = json.loads(path.read_bytes())
    facts["atlas"].update(fields)
    path.write_text(json.dumps(facts), encoding="utf-8")
    return site


def test_what_is_unpacked_is_the_site_and_passes_its_check(tiny_site: Path, tmp_path: Path) -> None:
    made = archive(tiny_site, tmp_path / "a.zip")
    with zipfile.ZipFile(made.file) as opened:
        assert opened.testzip() is None
        opened.extractall(tmp_path / "unpacked")
    (top,) = (tmp_path / "unpacked").iterdir()
    assert top.name == "tiny-1"
    names = {path.relative_to(tiny_site): path.read_bytes() for path in tiny_site.rglob("*") if path.is_file()}
    assert {path.relative_to(top): path.read_bytes() for path in top.rglob("*") if path.is_file()} == names
    assert check(top, QUIET).problems == []


def test_the_same_site_gives_the_same_bytes_wherever_and_whenever(
    tiny_site: Path, copy_of: Copy, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = archive(tiny_site, tmp_path / "a.zip")
    copy = copy_of(tiny_site)
    for number, path in enumerate(sorted(copy.rglob("*"))):
        os.utime(path, (number, number))
        path.chmod(0o700)
    monkeypatch.setenv("TZ", "Pacific/Auckland")
    time.tzset()
    second = archive(copy, tmp_path / "b.zip")
    monkeypatch.undo()
    time.tzset()
    assert first.file.read_bytes() == second.file.read_bytes()
    assert first.metadata.read_bytes() == second.metadata.read_bytes()


def test_entries_are_sorted_dated_by_the_edition_readable_and_safe(tiny_site: Path, tmp_path: Path) -> None:
    with zipfile.ZipFile(archive(tiny_site, tmp_path / "a.zip").file) as opened:
        entries = opened.infolist()
    names = [entry.filename for entry in entries]
    assert names == sorted(set(names))
    assert {entry.date_time for entry in entries} == {(2026, 1, 2, 0, 0, 0)}
    assert {entry.external_attr >> 16 for entry in entries} == {stat.S_IFREG | 0o644}
    for name in names:
        assert name.startswith("tiny-1/")
        assert ".." not in name.split("/")
        assert "\\" not in name


def test_an_atlas_without_a_date_is_of_1980(demo_site: Path, copy_of: Copy, tmp_path: Path) -> None:
    site = copy_of(demo_site)
    shutil.rmtree(site / "L0")  # fewer files, the same question
    with zipfile.ZipFile(archive(site, tmp_path / "a.zip").file) as opened:
        assert {entry.date_time for entry in opened.infolist()} == {(1980, 1, 1, 0, 0, 0)}


@pytest.mark.parametrize(
    ("version", "top"),
    [
        ("2.1", "tiny-2.1"),
        ("../../etc", "tiny-etc"),
        ("1 <b>", "tiny-1-b"),
        ("/", "tiny-edition"),
        ("é..", "tiny-edition"),
    ],
)
def test_any_version_makes_a_plain_name(tiny_site: Path, copy_of: Copy, version: str, top: str) -> None:
    site = _edit(copy_of(tiny_site), version=version)
    made = archive(site)
    assert made.file == site.parent / f"{top}.zip"
    with zipfile.ZipFile(made.file) as opened:
        assert {name.split("/")[0] for name in opened.namelist()} == {top}


def test_the_checksum_is_that_of_the_file_and_names_it(tiny_site: Path, tmp_path: Path) -> None:
    made = archive(tiny_site, tmp_path / "a.zip")
    digest = hashlib.sha256(made.file.read_bytes()).hexdigest()
    assert made.sha256 == digest
    assert made.bytes == made.file.stat().st_size
    assert made.checksum.read_text(encoding="utf-8") == f"{digest}  a.zip\n"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.zenodo.json", "a.zip", "a.zip.sha256"]


def test_zenodo_gets_what_the_atlas_says_of_itself(tiny_site: Path, copy_of: Copy, tmp_path: Path) -> None:
    site = _edit(
        copy_of(tiny_site),
        authors=[{"name": "Doe, Jane", "orcid": "0000-0002-1825-0097"}, {"name": "A group"}],
        doi="10.5281/zenodo.123",
    )
    made = archive(site, tmp_path / "a.zip")
    metadata = json.loads(made.metadata.read_bytes())["metadata"]
    assert metadata["creators"] == [{"name": "Doe, Jane", "orcid": "0000-0002-1825-0097"}, {"name": "A group"}]
    assert (metadata["title"], metadata["version"], metadata["license"]) == ("A tiny atlas", "1", "cc-by-4.0")
    assert (metadata["upload_type"], metadata["access_right"], metadata["publication_date"]) == (
        "dataset",
        "open",
        "2026-01-02",
    )
    assert "48 units in 2 layers" in metadata["description"]
    assert {"identifier": "https://example.org/atlas", "relation": "isIdenticalTo"} in metadata["related_identifiers"]
    # The draft's own DOI is not given to the draft again; another one is.
    assert "doi" not in metadata
    assert made.missing == []
    other = archive(_edit(site, doi="10.1234/other"), tmp_path / "a.zip")
    assert json.loads(other.metadata.read_bytes())["metadata"]["doi"] == "10.1234/other"


def test_what_zenodo_wants_besides_is_said(tiny_site: Path, copy_of: Copy, tmp_path: Path) -> None:
    site = _edit(copy_of(tiny_site), authors=[], license="MIT OR CC0-1.0")
    made = archive(site, tmp_path / "a.zip")
    assert [want.split(":")[0] for want in made.missing] == ["creators", "a license", "a DOI"]
    assert not {"creators", "license", "doi"} & set(json.loads(made.metadata.read_bytes())["metadata"])


def test_hostile_titles_and_names_are_text(hostile_site: Path, copy_of: Copy, tmp_path: Path) -> None:
    site = copy_of(hostile_site)
    facts = json.loads((site / "atlas.json").read_bytes())
    facts["corpus"]["name"] = "<script>window.pwned=6</script>"
    (site / "atlas.json").write_text(json.dumps(facts), encoding="utf-8")
    metadata = json.loads(archive(site, tmp_path / "a.zip").metadata.read_bytes())["metadata"]
    assert metadata["title"] == plain(facts["title"]) == facts["title"].replace("\n", "↵").replace("\u202e", "U+202E")
    assert "<script" not in metadata["description"]


@pytest.mark.parametrize("content", [None, "nonsense", "[]", "{}", '{"schema": "atlas/1", "atlas": {"id": "../x"}}'])
def test_a_folder_that_is_no_atlas_is_refused(tmp_path: Path, content: str | None) -> None:
    (tmp_path / "site").mkdir()
    if content is not None:
        (tmp_path / "site" / "atlas.json").write_text(content, encoding="utf-8")
    with pytest.raises(SiteError, match=r"is not a built atlas|is not JSON|has the schema None|is damaged"):
        archive(tmp_path / "site", tmp_path / "a.zip")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["site"]


def test_a_place_that_is_none_is_refused(tiny_site: Path, copy_of: Copy, tmp_path: Path) -> None:
    site = copy_of(tiny_site)
    (tmp_path / "folder.zip").mkdir()
    for place, said in {
        site / "a.zip": "inside the site",
        tmp_path / "tiny" / "L0" / ".." / "a.zip": "inside the site",
        tmp_path / "a.tar.gz": "must end with .zip",
        tmp_path / "folder.zip": "is a folder",
        tmp_path / "none" / "a.zip": "is not found: create it",
    }.items():
        with pytest.raises(ConfigurationError, match=said):
            archive(site, place)


def test_what_another_system_could_not_unpack_is_refused(tiny_site: Path, copy_of: Copy, tmp_path: Path) -> None:
    site = copy_of(tiny_site)
    (site / "link.html").symlink_to(site / "index.html")
    with pytest.raises(SiteError, match=r"link\.html: it is a link"):
        archive(site, tmp_path / "a.zip")
    (site / "link.html").unlink()
    (site / "what?.html").write_text("", encoding="utf-8")
    (site / "aux.html").write_text("", encoding="utf-8")
    with pytest.raises(SiteError, match=r"aux.html: on Windows aux.html is a device: rename it. \(and 1 more"):
        archive(site, tmp_path / "a.zip")


def test_an_archive_that_fails_leaves_the_former_one(
    tiny_site: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    former = archive(tiny_site, tmp_path / "a.zip").file.read_bytes()

    def fail(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(shutil, "copyfileobj", fail)
    with pytest.raises(OSError, match="No space left"):
        archive(tiny_site, tmp_path / "a.zip")
    assert (tmp_path / "a.zip").read_bytes() == former
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.zenodo.json", "a.zip", "a.zip.sha256"]


def test_the_command_says_what_it_wrote(tiny_site: Path, tmp_path: Path) -> None:
    result = CliRunner().invoke(main, ["archive", str(tiny_site), "--output", str(tmp_path / "a.zip")])
    assert result.exit_code == 0
    assert f"SHA-256 {hashlib.sha256((tmp_path / 'a.zip').read_bytes()).hexdigest()}" in result.output
    assert "a.zenodo.json" in result.output
    assert "for Zenodo, add creators" in result.output
    assert CliRunner().invoke(main, ["archive", str(tmp_path)]).exit_code == 2


def _steps() -> dict[str, dict[str, object]]:
    jobs = yaml.safe_load(WORKFLOW.read_text(encoding="utf-8"))["jobs"]
    return {step["name"]: step for job in jobs.values() for step in job["steps"]}


def test_the_workflow_may_do_no_more_than_it_must() -> None:
    workflow = yaml.safe_load(WORKFLOW.read_text(encoding="utf-8"))
    assert workflow["permissions"] == {}
    assert {name: job["permissions"] for name, job in workflow["jobs"].items()} == {
        "site": {"contents": "read", "pages": "read"},
        "deploy": {"pages": "write", "id-token": "write"},
    }
    for step in _steps().values():
        # Pinned by major version, and from GitHub itself; what a user types reaches a shell as a variable only.
        if "uses" in step:
            owner, version = str(step["uses"]).split("/", 1)[0], str(step["uses"]).split("@")[1]
            assert owner == "actions"
            assert version[0] == "v"
            assert version[1:].isdigit()
        assert "${{" not in str(step.get("run", ""))


def test_commands_of_the_workflow_exist() -> None:
    lines = [line for step in _steps().values() for line in str(step.get("run", "")).splitlines()]
    found = [line.split() for line in lines if line.startswith("atlas-builder ")]
    assert [words[1] for words in found] == ["build", "check"]
    for words in found:
        options = {name for parameter in main.commands[words[1]].params for name in parameter.opts}
        assert {word for word in words if word.startswith("--")} <= options


@pytest.mark.skipif(not shutil.which("unzip") or not shutil.which("sha256sum"), reason="needs unzip and sha256sum")
@pytest.mark.parametrize("damage", [False, True])
def test_the_workflow_unpacks_what_archive_wrote_and_nothing_else(
    tiny_site: Path, tmp_path: Path, damage: bool
) -> None:
    for tag in ("v1", "v2"):
        (tmp_path / "releases" / tag).mkdir(parents=True)
        made = archive(tiny_site, tmp_path / "releases" / tag / "tiny.zip")
    if damage:
        made.file.write_bytes(made.file.read_bytes() + b"x")
    # Stands in for GitHub's own command: the latest release is v2.
    gh = tmp_path / "bin" / "gh"
    gh.parent.mkdir()
    gh.write_text(
        "#!/bin/sh\n"
        'if [ "$2" = view ]; then echo v2; else cp "$RELEASES/$3"/*.zip "$RELEASES/$3"/*.zip.sha256 "$9"; fi\n',
        encoding="utf-8",
    )
    gh.chmod(0o755)
    work = tmp_path / "work"
    work.mkdir()
    found = subprocess.run(
        ["bash", "-e", "-c", str(_steps()["Unpack the archives of releases"]["run"])],
        cwd=work,
        env={
            "PATH": f"{gh.parent}:{os.environ['PATH']}",
            "RELEASES": str(tmp_path / "releases"),
            "BUILT": "false",
            "RELEASE": "",
            "OLDER_EDITIONS": "v1",
        },
        capture_output=True,
        text=True,
    )
    assert (found.returncode != 0) == damage, found.stderr
    if damage:
        assert not (work / "site").exists()
    else:
        assert check(work / "site" / "v1", QUIET).problems == []
        assert (work / "site" / "index.html").read_bytes() == (tiny_site / "index.html").read_bytes()
