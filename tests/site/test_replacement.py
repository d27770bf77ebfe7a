"""A site is replaced in one step, or file by file where it cannot be moved; what users put into it stays."""

from __future__ import annotations

import errno
import hashlib
import os
from pathlib import Path

import pytest

from atlas_builder.site import replacement
from atlas_builder.site.hosting.sums import listed_sums
from atlas_builder.site.replacement import replace_site, restore_site
from atlas_builder.site.users_files import users_files
from atlas_builder.system import folders

OLD = {"index.html": "old", "L0/N0.html": "old", "L9/N1.html": "old", "assets/a.js": "old", "page.html": "old"}
NEW = {"index.html": "new", "L0/N0.html": "new", "L1/N0.html": "new", "assets/a.js": "new", "news.html": "new"}
USERS = {
    "CNAME": "atlas.example.org",
    ".git/config": "[core]",
    "notes/deep/today.txt": "mine",
    "L9/mine.txt": "mine",
    "first-edition/atlas.json": "{}",
    "first-edition/SHA256SUMS": f"{'0' * 64}  index.html\n",
    "first-edition/index.html": "an older one",
}


def _write(folder: Path, files: dict[str, str], sums: bool) -> None:
    for name, content in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(content)
    (folder / "atlas.json").write_text("{}")
    if sums:
        lines = [f"{hashlib.sha256(content.encode()).hexdigest()}  {name}" for name, content in files.items()]
        (folder / "SHA256SUMS").write_text("".join(f"{line}\n" for line in lines))


def _content(folder: Path) -> dict[str, str]:
    return {
        path.relative_to(folder).as_posix(): f"-> {path.readlink()}" if path.is_symlink() else path.read_text()
        for path in sorted(folder.rglob("*"))
        if path.is_symlink() or path.is_file()
    }


@pytest.fixture(params=["exchanged", "renamed", "mount", "unmovable"])
def way(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """How the system replaces folders."""
    if request.param != "exchanged":
        monkeypatch.setattr(folders, "exchange", lambda one, other: False)
    if request.param == "mount":
        monkeypatch.setattr(replacement, "mount_points", lambda site: [site])
    if request.param == "unmovable":

        def refuse(*_: object) -> None:
            raise OSError(errno.EXDEV, os.strerror(errno.EXDEV))

        monkeypatch.setattr(replacement, "replace_folder", refuse)
    return str(request.param)


@pytest.mark.parametrize("sums", [True, False])
def test_users_keep_their_files_and_nothing_of_the_old_site_is_left(tmp_path: Path, way: str, sums: bool) -> None:
    site, new, work = tmp_path / "site", tmp_path / "work" / "new", tmp_path / "work"
    _write(site, OLD, sums)
    _write(new, NEW, sums)
    users = dict(USERS) if sums else {name: text for name, text in USERS.items() if not name.startswith("L")}
    for name, content in users.items():
        (site / name).parent.mkdir(parents=True, exist_ok=True)
        (site / name).write_text(content)
    (site / "latest").symlink_to("notes/deep")
    (site / "away").symlink_to("/nowhere/at/all")
    (site / "empty").mkdir()
    expected = {**_content(new), **users, "latest": "-> notes/deep", "away": "-> /nowhere/at/all"}
    assert replace_site(new, site, work) == []
    assert _content(site) == expected
    assert (site / "empty").is_dir()
    assert [path.name for path in work.iterdir()] == []
    assert sorted(path.name for path in tmp_path.iterdir()) == ["site", "work"]


@pytest.mark.parametrize("name", ["news.html", "L1", "L1/N0.html/inner"])
def test_a_users_file_never_takes_the_place_of_the_atlas(tmp_path: Path, way: str, name: str) -> None:
    site, new = tmp_path / "site", tmp_path / "work" / "new"
    _write(site, OLD, sums=True)
    _write(new, NEW, sums=True)
    (site / name).parent.mkdir(parents=True, exist_ok=True)
    (site / name).write_text("mine")
    expected = _content(new)
    assert replace_site(new, site, tmp_path / "work") == [name]
    assert _content(site) == expected
    assert [path.read_text() for path in (tmp_path / "work").rglob("*") if path.is_file()] == ["mine"]


def test_of_a_folder_that_is_no_atlas_nothing_is_kept(tmp_path: Path, way: str) -> None:
    site, new = tmp_path / "site", tmp_path / "work" / "new"
    site.mkdir()
    (site / "thesis.txt").write_text("years of work")
    _write(new, NEW, sums=True)
    expected = _content(new)
    replace_site(new, site, tmp_path / "work")
    assert _content(site) == expected


def test_a_site_is_whole_at_every_moment_of_its_replacement(
    tmp_path: Path, way: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A crash before each change of the disk in turn, after which the same replacement goes on."""
    if way == "renamed":
        pytest.skip("there is a moment without a site, from which the next build recovers")
    for nth in range(1, 1000):
        site, new, work = (tmp_path / str(nth) / name for name in ("site", "work/new", "work"))
        _write(site, OLD, sums=True)
        (site / "CNAME").write_text("mine")
        _write(new, NEW, sums=True)
        expected = {**_content(new), "CNAME": "mine"}
        with monkeypatch.context() as patched:
            ended = _crash_at(patched, nth)
            try:
                replace_site(new, site, work)
            except _CrashError:
                assert (site / "index.html").read_text() in ("old", "new")
                assert (site / "atlas.json").is_file()
                assert (site / "CNAME").read_text() == "mine"
        restore_site(site, work)
        again = work / "again"
        _write(again, NEW, sums=True)
        assert replace_site(again, site, work) == []
        assert _content(site) == expected
        if not ended:
            break
    assert nth > (1 if way == "exchanged" else 15)


class _CrashError(BaseException):
    pass


def _crash_at(patched: pytest.MonkeyPatch, nth: int) -> list[int]:
    """Crash at a change; the list is not empty once it has come."""
    left, ended = [nth], []
    for name in ("rename", "replace", "unlink", "rmdir", "mkdir"):
        original = getattr(Path, name)

        def change(*arguments: object, original: object = original, **options: object) -> object:
            left[0] -= 1
            if left[0] == 0:
                ended.append(nth)
                raise _CrashError
            return original(*arguments, **options)  # type: ignore[operator]

        patched.setattr(Path, name, change)
    return ended


def test_a_site_that_was_put_aside_when_the_build_was_killed_is_back_at_the_next(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(folders, "exchange", lambda one, other: False)
    site, new, work = tmp_path / "site", tmp_path / "work" / "new", tmp_path / "work"
    _write(site, OLD, sums=True)
    _write(new, NEW, sums=True)
    original = Path.rename

    def rename(source: Path, target: Path) -> Path:
        if source == new:
            raise _CrashError
        return original(source, target)

    before = _content(site)
    with monkeypatch.context() as patched:
        patched.setattr(Path, "rename", rename)
        with pytest.raises(_CrashError):
            replace_site(new, site, work)
    assert not site.exists()
    restore_site(site, work)
    assert _content(site) == before


def test_names_are_exchanged_in_one_step_on_linux(tmp_path: Path) -> None:
    (tmp_path / "one").mkdir()
    (tmp_path / "two").mkdir()
    (tmp_path / "one" / "file").touch()
    if not folders.exchange(tmp_path / "one", tmp_path / "two"):
        pytest.skip("this system cannot")
    assert (tmp_path / "two" / "file").exists()
    assert not folders.exchange(tmp_path / "one", tmp_path / "three")


def test_what_cannot_be_a_file_of_a_site_is_no_line_of_its_sums(tmp_path: Path) -> None:
    one = "a" * 64
    (tmp_path / "SHA256SUMS").write_text(
        f"{one}  plain\n{one} *binary\n\\{one}  new\\nline and \\\\\n"
        f"{one}  ../out\n{one}  /etc/passwd\nrubbish\n\n{one}  ./dot\n"
    )
    assert listed_sums(tmp_path / "SHA256SUMS") == dict.fromkeys(["plain", "binary", "new\nline and \\", "dot"], one)
    assert listed_sums(tmp_path / "none") is None
    (tmp_path / "mine").touch()
    assert users_files(tmp_path) == ["mine"]
