"""Builds as a user meets them: again, changed, interrupted, refused."""

from __future__ import annotations

import errno
import os
import shutil
import signal
import subprocess
import sys
import time
from concurrent.futures import Executor, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

from atlas_builder import workspace
from atlas_builder.config import Configuration
from atlas_builder.errors import ActivationError, ConfigurationError, CorpusError
from atlas_builder.files import write_json
from atlas_builder.pipeline import build as builder
from atlas_builder.pipeline import fingerprints
from atlas_builder.pipeline.build import build
from atlas_builder.pipeline.fingerprints import edition_date
from atlas_builder.pipeline.stages import STAGES, Stage
from atlas_builder.progress import Progress
from atlas_builder.site import replacement
from atlas_builder.workspace import work_folder
from tests.support.atlases import Configure, Listener, digests


def shipped_theme() -> Path:
    """The shipped theme."""
    from atlas_builder.site.theme import find_theme

    return find_theme("atlas")


def _build(settings: Configuration, output: Path, pool: Executor, **options: Any) -> Listener:
    listener = Listener()
    build(settings, output, progress=listener, executor=pool, **options)
    return listener


def test_two_builds_give_the_same_bytes_wherever_and_however_they_run(
    configure: Configure, tiny_site: Path, tmp_path: Path
) -> None:
    threads = torch.get_num_threads()
    torch.set_num_threads(threads + 1)
    try:
        with ThreadPoolExecutor(1) as other:
            _build(configure(), tmp_path / "somewhere" / "else", other)
    finally:
        torch.set_num_threads(threads)
    one, two = digests(tiny_site), digests(tmp_path / "somewhere" / "else")
    assert len(one) > 100
    assert one == two


def test_a_second_build_does_nothing(configure: Configure, pool: Executor, built: Path) -> None:
    before = {path: path.stat().st_mtime_ns for path in built.rglob("*")}
    assert _build(configure(), built, pool).unchanged() == list(STAGES)
    assert before == {path: path.stat().st_mtime_ns for path in built.rglob("*")}


@pytest.mark.parametrize(
    ("change", "kept"),
    [
        ({"site": {"examples_per_behaviour": 2}}, ["collect", "cluster", "describe", "link"]),
        ({"link": {"neighbours": 3}}, ["collect", "cluster", "describe"]),
        ({"clusters": {"method": "hdbscan"}}, ["collect"]),
        ({"examples": {"seed": 5}}, []),
    ],
)
def test_a_change_repeats_only_what_it_matters_to(
    configure: Configure, pool: Executor, built: Path, tmp_path: Path, change: dict[str, Any], kept: list[str]
) -> None:
    assert _build(configure(**change), built, pool).unchanged() == kept
    _build(configure(**change), tmp_path / "fresh", pool)
    assert digests(built) == digests(tmp_path / "fresh")


@pytest.mark.parametrize(
    ("change", "stage", "reason"),
    [
        ({"examples": {"seed": 5}}, "collect", "its results were made with other settings"),
        ({"clusters": {"method": "hdbscan"}}, "cluster", "its results were made with other settings"),
        (
            {"clusters": {"method": "hdbscan"}, "describe": {"importance": "none"}},
            "describe",
            "its results were made with other settings and results of cluster",
        ),
    ],
)
def test_a_stage_that_runs_again_says_what_has_changed(
    configure: Configure, pool: Executor, built: Path, change: dict[str, Any], stage: Stage, reason: str
) -> None:
    listener = _build(configure(**change), built, pool, until=stage)
    assert listener.lines[-2] == f"{stage}: runs again, since {reason}"
    assert listener.lines[-1].startswith(f"{stage}: done")


def test_a_stage_of_other_code_says_so(
    configure: Configure, pool: Executor, built: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fingerprints, "code_fingerprint", lambda stage: "other")
    lines = _build(configure(), built, pool, until="cluster").lines
    assert lines[0] == "collect: runs again, since its results were made with other code"
    assert lines[-2] == "cluster: runs again, since its results were made with other code and results of collect"


def test_a_stage_of_an_earlier_version_says_so(configure: Configure, pool: Executor, built: Path) -> None:
    """One whose mark is what versions until 0.5 wrote."""
    write_json(work_folder(built) / "collect" / "stage.json", {"fingerprint": "0" * 64})
    lines = _build(configure(), built, pool, until="collect").lines
    assert lines[0] == "collect: runs again, since an earlier version made its results"


@pytest.mark.parametrize("file", ["L0/background.npy", "contexts/starts.npy"])
def test_a_stage_that_lost_a_file_runs_again_and_no_later_one(
    configure: Configure, pool: Executor, built: Path, file: str
) -> None:
    lost = work_folder(built) / "collect" / file
    before = lost.read_bytes()
    lost.unlink()
    listener = _build(configure(), built, pool)
    assert listener.lines[0] == f"collect: runs again, since its file {file} is missing"
    assert lost.read_bytes() == before
    assert listener.unchanged() == list(STAGES[1:])


@pytest.mark.parametrize("is_mount", [False, True])
def test_users_files_stay_in_a_site_that_is_built_again(
    configure: Configure, pool: Executor, built: Path, monkeypatch: pytest.MonkeyPatch, is_mount: bool
) -> None:
    if is_mount:
        for place in (workspace, replacement):
            monkeypatch.setattr(place, "mount_points", lambda folder: [folder])
    mine = {"CNAME": b"atlas.example.org\n", ".git/HEAD": b"ref: refs/heads/main\n", "notes/today.txt": b"mine"}
    for name, content in mine.items():
        (built / name).parent.mkdir(exist_ok=True)
        (built / name).write_bytes(content)
    assert _build(configure(), built, pool).unchanged() == list(STAGES)
    listener = _build(configure(atlas={"title": "Another"}), built, pool)
    assert listener.unchanged() == list(STAGES[:-1])
    assert (f"{built} is a mount point" in listener.lines[0]) == is_mount
    assert {name: (built / name).read_bytes() for name in mine} == mine
    assert "Another" in (built / "index.html").read_text(encoding="utf-8")


def test_an_output_that_cannot_be_written_to_is_refused_before_any_work(
    configure: Configure, pool: Executor, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "access", lambda place, mode: Path(place) != tmp_path)
    with pytest.raises(ConfigurationError, match="cannot be written to") as error:
        _build(configure(), tmp_path / "new" / "site", pool)
    assert str(tmp_path) in str(error.value)
    assert list(tmp_path.iterdir()) == []


def test_a_first_build_runs_nothing_again(configure: Configure, pool: Executor, tmp_path: Path) -> None:
    for fresh in (False, True):
        listener = _build(configure(), tmp_path / "site", pool, until="collect", fresh=fresh)
        assert not [line for line in listener.lines if "again" in line]


def test_a_changed_corpus_file_is_noticed(configure: Configure, pool: Executor, jsonl: Path, tmp_path: Path) -> None:
    corpus = tmp_path / "c.jsonl"
    corpus.write_bytes(jsonl.read_bytes())
    settings = configure(corpus={"path": str(corpus)})
    _build(settings, tmp_path / "site", pool, until="cluster")
    corpus.write_bytes(jsonl.read_bytes() + b'{"text": "one more cat"}\n')
    listener = _build(settings, tmp_path / "site", pool, until="cluster")
    assert listener.unchanged() == []
    assert listener.lines[0] == "collect: runs again, since its results were made with other text"


def test_a_site_that_was_damaged_is_published_again(configure: Configure, pool: Executor, built: Path) -> None:
    (built / "index.html").write_text("gone", encoding="utf-8")
    listener = _build(configure(), built, pool)
    assert listener.unchanged() == ["collect", "cluster", "describe", "link"]
    assert f"publish: runs again, since {built} was changed or removed" in listener.lines
    assert "gone" not in (built / "index.html").read_text(encoding="utf-8")


def test_a_site_that_lost_a_file_is_published_again(configure: Configure, pool: Executor, built: Path) -> None:
    (built / "L0" / "N5.html").unlink()
    _build(configure(), built, pool)
    assert (built / "L0" / "N5.html").is_file()


def test_two_builds_of_one_site_do_not_meet(configure: Configure, pool: Executor, tmp_path: Path) -> None:
    from filelock import FileLock

    (tmp_path / ".site.work").mkdir()
    with (
        FileLock(tmp_path / ".site.work" / ".lock"),
        pytest.raises(ConfigurationError, match="another build is running in"),
    ):
        _build(configure(), tmp_path / "site", pool, until="collect")
    _build(configure(), tmp_path / "site", pool, until="collect")


def test_an_output_behind_a_link_is_built_where_it_leads(
    configure: Configure, pool: Executor, tiny_site: Path, tmp_path: Path
) -> None:
    shutil.copytree(work_folder(tiny_site), tmp_path / ".real.work")
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "real")
    assert "link" in _build(configure(), tmp_path / "link", pool).unchanged()
    _build(configure(atlas={"title": "Another"}), tmp_path / "link", pool)
    assert (tmp_path / "link").is_symlink()
    assert "Another" in (tmp_path / "real" / "index.html").read_text(encoding="utf-8")


@pytest.mark.parametrize("name", ["index.md", "search.md", "L0/N1.md", "assets/atlas.js", "README.md"])
def test_prose_never_takes_the_place_of_the_atlas(
    configure: Configure, pool: Executor, tmp_path: Path, name: str
) -> None:
    page = tmp_path / "prose" / name
    page.parent.mkdir(parents=True)
    page.write_text("# Mine", encoding="utf-8")
    with pytest.raises(ConfigurationError, match="would overwrite the atlas's"):
        _build(configure(site={"prose": str(tmp_path / "prose")}), tmp_path / "site", pool)


def test_prose_of_ones_own_is_published_with_its_files(
    configure: Configure, pool: Executor, built: Path, tmp_path: Path
) -> None:
    prose = tmp_path / "prose"
    (prose / ".git").mkdir(parents=True)
    (prose / ".git" / "config").write_text("hidden", encoding="utf-8")
    (prose / "more").mkdir()
    (prose / "more" / "deep.md").write_text("# Deep & far\n\n[up](../a-page.md)", encoding="utf-8")
    (prose / "a-page.md").write_text("# <b>A</b> & B\n\n![p](picture.svg) [down](more/deep.md)", encoding="utf-8")
    (prose / "picture.svg").write_text("<svg xmlns='http://www.w3.org/2000/svg'/>", encoding="utf-8")
    _build(configure(site={"prose": str(prose)}), built, pool)
    site = built
    assert (site / "picture.svg").is_file()
    assert not (site / ".git").exists()
    assert "<title>Deep &amp; far, A tiny atlas</title>" in (site / "more" / "deep.html").read_text(encoding="utf-8")
    assert "<a href=a-page.html>A page</a>" in (site / "index.html").read_text(encoding="utf-8")
    from atlas_builder.site.hosting.check import check

    assert check(site, Progress(quiet=True)).problems == []


@pytest.mark.parametrize(
    ("old", "new", "match"),
    [
        ("{% block head %}{% endblock %}", "", r"base\.html of .* has no block 'head', which \w+\.html fills"),
        ("assets/constants.js", "assets/theme.js", r"loads assets/atlas\.js without assets/constants\.js"),
        (
            "assets/icon.svg",
            "assets/table.js",
            r"loads assets/table\.js, which is not found: it is layer-table\.js now",
        ),
    ],
)
def test_a_theme_that_lacks_what_pages_need_is_refused_before_any_work(
    configure: Configure, tmp_path: Path, pool: Executor, old: str, new: str, match: str
) -> None:
    theme = tmp_path / "theme"
    theme.mkdir()
    base = (shipped_theme() / "base.html").read_text(encoding="utf-8")
    assert old in base
    (theme / "base.html").write_text(base.replace(old, new), encoding="utf-8")
    with pytest.raises(ConfigurationError, match=match) as error:
        _build(configure(site={"theme": str(theme)}), tmp_path / "site", pool)
    assert "\n" not in str(error.value)
    assert not work_folder(tmp_path / "site").exists()


def test_a_theme_of_ones_own_changes_what_it_redefines(
    configure: Configure, pool: Executor, built: Path, tmp_path: Path
) -> None:
    theme = tmp_path / "theme"
    theme.mkdir()
    base = (shipped_theme() / "base.html").read_text(encoding="utf-8")
    (theme / "base.html").write_text(base.replace("<footer", "<p>Mine</p><footer"), encoding="utf-8")
    settings = configure(site={"theme": str(theme)})
    _build(settings, built, pool)
    for page in ("index.html", "L0/N1.html", "about.html"):
        assert "<p>Mine</p>" in (built / page).read_text(encoding="utf-8")
    (theme / "unit.html").write_text("{{ nothing.here }}", encoding="utf-8")
    with pytest.raises(ConfigurationError, match=r"site\.theme: unit\.html cannot be rendered"):
        _build(settings, built, pool)


def test_prose_that_is_not_there_is_refused_before_anything_runs(
    configure: Configure, pool: Executor, tmp_path: Path
) -> None:
    with pytest.raises(ConfigurationError, match=r"site\.prose: .* is not a folder"):
        _build(configure(site={"prose": str(tmp_path / "none")}), tmp_path / "site", pool)
    with pytest.raises(ConfigurationError, match=r"site\.theme: there is no theme"):
        _build(configure(site={"theme": "none"}), tmp_path / "site", pool)
    assert not (tmp_path / ".site.work" / "collect").exists()


def test_a_build_can_stop_after_a_stage_and_go_on(configure: Configure, pool: Executor, tmp_path: Path) -> None:
    _build(configure(), tmp_path / "site", pool, until="cluster")
    assert not (tmp_path / "site").exists()
    assert _build(configure(), tmp_path / "site", pool).unchanged() == ["collect", "cluster"]
    assert (tmp_path / "site" / "index.html").is_file()


def test_fresh_begins_anew(configure: Configure, pool: Executor, built: Path) -> None:
    assert _build(configure(), built, pool, fresh=True).unchanged() == []


def test_what_is_not_an_atlas_is_never_replaced_unasked(configure: Configure, pool: Executor, tmp_path: Path) -> None:
    output = tmp_path / "precious"
    output.mkdir()
    (output / "thesis.txt").write_text("years of work", encoding="utf-8")
    with pytest.raises(ConfigurationError, match="not an atlas: name another folder, or replace it with --fresh"):
        _build(configure(), output, pool)
    assert (output / "thesis.txt").read_text(encoding="utf-8") == "years of work"
    _build(configure(), output, pool, fresh=True)
    assert not (output / "thesis.txt").exists()


def test_the_folder_one_works_in_is_never_replaced(
    configure: Configure, pool: Executor, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "project" / "inner").mkdir(parents=True)
    monkeypatch.chdir(tmp_path / "project" / "inner")
    for output in (Path(), tmp_path / "project", Path.home()):
        with pytest.raises(ConfigurationError, match="contains the current one"):
            _build(configure(), output, pool, fresh=True)
    (tmp_path / "file").write_text("", encoding="utf-8")
    with pytest.raises(ConfigurationError, match="is a file: name a folder"):
        _build(configure(), tmp_path / "file", pool)


@pytest.mark.parametrize("stage", ["link", "publish"])
def test_a_full_disk_leaves_the_last_site_and_what_was_done(
    configure: Configure, pool: Executor, built: Path, monkeypatch: pytest.MonkeyPatch, stage: Stage
) -> None:
    before = digests(built)
    changed = configure(link={"neighbours": 2})

    def full(*_: Any) -> None:
        raise OSError(errno.ENOSPC, "No space left on device", "somewhere")

    with monkeypatch.context() as patched:
        patched.setitem(builder._RUN, stage, full)
        with pytest.raises(OSError, match="No space left"):
            _build(changed, built, pool)
    assert digests(built) == before
    assert not list(work_folder(built).glob("*.draft"))
    kept = ["collect", "cluster", "describe"] + (["link"] if stage == "publish" else [])
    assert _build(changed, built, pool).unchanged() == kept


def test_a_build_killed_amid_its_stages_goes_on_to_the_same_bytes(
    configure: Configure, tiny_site: Path, tmp_path: Path
) -> None:
    path = tmp_path / "a.yml"
    asked = configure().model_dump(mode="json", exclude_defaults=True)
    path.write_text(yaml.safe_dump(asked), encoding="utf-8")
    whole = digests(tiny_site)
    command = [sys.executable, "-m", "atlas_builder", "build", str(path), "--output", str(tmp_path / "killed")]
    # As on another machine: its own order of sets, time zone and language.
    elsewhere = {**os.environ, "PYTHONHASHSEED": "1", "TZ": "Pacific/Kiritimati", "LC_ALL": "C"}
    for done in ("collect", "link"):
        process = subprocess.Popen(
            command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True, env=elsewhere
        )
        while not (tmp_path / ".killed.work" / done).exists() and process.poll() is None:
            time.sleep(0.01)
        assert process.poll() is None
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        site = tmp_path / "killed"
        assert not site.exists() or digests(site) == whole
    subprocess.run(command, check=True, capture_output=True, env=elsewhere)
    assert digests(tmp_path / "killed") == whole


def test_a_model_that_computes_nan_is_named_by_layer_and_document(
    configure: Configure, gpt2_folder: Path, pool: Executor, tmp_path: Path
) -> None:
    from transformers import AutoTokenizer, GPT2LMHeadModel

    broken, tokenizer = GPT2LMHeadModel.from_pretrained(gpt2_folder), AutoTokenizer.from_pretrained(gpt2_folder)
    with torch.no_grad():  # finite, but its square is not
        broken.transformer.wte.weight[tokenizer.encode(" the")[-1]] = 3e38
    broken.save_pretrained(tmp_path / "broken")
    tokenizer.save_pretrained(tmp_path / "broken")
    with pytest.raises(ActivationError, match=r"layer 0 computes NaN or infinity in document words\.jsonl:\d+"):
        _build(configure(model={"name": str(tmp_path / "broken")}), tmp_path / "site", pool)
    assert not (tmp_path / "site").exists()
    # The pass up to there is kept: it goes on where it was, and says so again.
    assert not (tmp_path / ".site.work" / "collect").exists()
    with pytest.raises(ActivationError, match="layer 0"):
        _build(configure(model={"name": str(tmp_path / "broken")}), tmp_path / "site", pool)


def test_a_broken_corpus_leaves_nothing_behind(configure: Configure, pool: Executor, tmp_path: Path) -> None:
    corpus = tmp_path / "c.jsonl"
    corpus.write_text('{"text": "fine"}\nbroken\n', encoding="utf-8")
    with pytest.raises(CorpusError, match="line 2"):
        _build(configure(corpus={"path": str(corpus)}), tmp_path / "site", pool)
    assert not (tmp_path / "site").exists()
    listener = _build(configure(corpus={"path": str(corpus), "on_error": "skip"}), tmp_path / "site", pool)
    assert any("skipped 1 broken line" in line for line in listener.lines)


def test_a_date_comes_from_the_configuration_or_the_environment_never_the_clock(
    configure: Configure, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("SOURCE_DATE_EPOCH", raising=False)
    assert edition_date(configure()) == "2026-01-02"
    undated = configure(atlas={"date": None})
    assert edition_date(undated) is None
    monkeypatch.setenv("SOURCE_DATE_EPOCH", "86400")
    assert edition_date(undated) == "1970-01-02"
    monkeypatch.setenv("SOURCE_DATE_EPOCH", "today")
    with pytest.raises(ConfigurationError, match="seconds since 1970"):
        edition_date(undated)
