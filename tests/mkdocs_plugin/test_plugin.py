"""An atlas through `mkdocs build` and `mkdocs serve`."""

from __future__ import annotations

import logging
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator
from concurrent.futures import Executor
from functools import partial
from importlib.metadata import EntryPoint
from pathlib import Path
from typing import Any

import click
import pytest
import yaml
from mkdocs.commands.build import build
from mkdocs.config import load_config
from mkdocs.config.config_options import Plugins
from mkdocs.config.defaults import MkDocsConfig
from mkdocs.exceptions import Abort
from mkdocs.plugins import get_plugins

from atlas_builder import load_config as load_atlas
from atlas_builder.config import Configuration
from atlas_builder.mkdocs_plugin.preview import Preview, application, without_policy
from atlas_builder.pipeline.build import build as build_atlas
from atlas_builder.progress import Progress
from atlas_builder.shipped import shipped_folder
from atlas_builder.workspace import work_folder

POINT = EntryPoint("atlas", "atlas_builder.mkdocs_plugin.plugin:AtlasPlugin", "mkdocs.plugins")
installed = pytest.mark.skipif("atlas" not in get_plugins(), reason="the package is not installed with its plugin")


@pytest.fixture(autouse=True)
def known(monkeypatch: pytest.MonkeyPatch, pool: Executor) -> Iterator[None]:
    """The plugin in a checkout that is not installed; builds share the session's workers."""
    from atlas_builder.mkdocs_plugin.plugin import AtlasPlugin

    plugins = MkDocsConfig.plugins
    assert isinstance(plugins, Plugins)
    monkeypatch.setitem(plugins.installed_plugins, "atlas", POINT)
    monkeypatch.setattr(AtlasPlugin, "executor", pool)
    yield
    logging.getLogger("mkdocs").setLevel(logging.NOTSET)


Write = Callable[..., Path]


@pytest.fixture
def project(configure: Callable[..., Configuration], tiny_site: Path, tmp_path: Path) -> Write:
    """Writes a MkDocs project around the tiny atlas, whose early stages are done, and returns its `mkdocs.yml`."""

    def write(options: dict[str, Any], pages: dict[str, str], **settings: Any) -> Path:
        asked = configure().model_dump(mode="json", exclude_defaults=True)
        (tmp_path / "atlas.yml").write_text(yaml.safe_dump(asked), encoding="utf-8")
        shutil.copytree(work_folder(tiny_site), tmp_path / ".atlas" / work_folder(tiny_site).name, dirs_exist_ok=True)
        for name, text in pages.items():
            (tmp_path / "docs" / name).parent.mkdir(parents=True, exist_ok=True)
            (tmp_path / "docs" / name).write_text(text, encoding="utf-8")
        mkdocs = {"site_name": "Mine", "plugins": [{"atlas": options}], **settings}
        (tmp_path / "mkdocs.yml").write_text(yaml.safe_dump(mkdocs), encoding="utf-8")
        return tmp_path / "mkdocs.yml"

    return write


PROSE = {
    "about.md": "# <b>About</b> & this[^1]\n\n[unit](L0/N3.html#b1) ![p](p.svg)\n\n[^1]: A note.\n\n|a|\n|-|\n|b|\n",
    "more/deep.md": "# Deep\n\n[up](../about.md) [unit](../L1/N2.html){.x}\n",
    "p.svg": "<svg xmlns='http://www.w3.org/2000/svg'/>",
}
OWN = {
    "index.md": "# Mine\n\n[atlas](atlas/index.html) [unit](atlas/L0/N3.html#b1)\n",
    "guide/first.md": "# First\n\n[unit](../atlas/L1/N2.html) [map](../atlas/search/index.js)\n",
}


def _build(mkdocs: Path, **settings: Any) -> Path:
    config = load_config(str(mkdocs), **settings)
    build(config)
    return Path(config.site_dir)


def _files(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


def test_mkdocs_builds_the_same_site_as_the_builder(project: Write, pool: Executor, tmp_path: Path) -> None:

    site = _build(project({}, PROSE), strict=True)
    (tmp_path / "site.yml").write_text("site: {prose: docs}\n" + (tmp_path / "atlas.yml").read_text(encoding="utf-8"))
    shutil.copytree(tmp_path / ".atlas" / ".tiny.work", tmp_path / ".built.work")
    built = build_atlas(load_atlas(tmp_path / "site.yml"), tmp_path / "built", executor=pool)
    assert _files(site) == _files(built)
    assert {"about.html", "more/deep.html", "p.svg", "index.html", "sitemap.xml"} <= _files(site).keys()
    assert '<a class="x" href="../L1/N2.html">' in (site / "more/deep.html").read_text(encoding="utf-8")


def test_a_second_build_takes_over_all_stages(project: Write, caplog: pytest.LogCaptureFixture) -> None:
    mkdocs = project({"folder": "atlas"}, OWN)
    _build(mkdocs)
    first = _files(mkdocs.parent / "site/atlas")
    with caplog.at_level(logging.INFO, "mkdocs"):
        _build(mkdocs)
    said = [record.getMessage() for record in caplog.records if "atlas: " in record.getMessage()]
    assert said == [f"atlas: {stage}: unchanged" for stage in ("collect", "cluster", "describe", "link", "publish")]
    assert _files(mkdocs.parent / "site/atlas") == first


@pytest.mark.parametrize("directories", [True, False])
def test_a_site_of_ones_own_holds_an_atlas_and_links_into_it(
    project: Write, tiny_site: Path, directories: bool
) -> None:
    nav = [{"Home": "index.md"}, {"Guide": "guide/first.md"}, {"Atlas": "atlas/index.html"}]
    mkdocs = project({"folder": "atlas"}, OWN, use_directory_urls=directories, nav=nav)
    site = _build(mkdocs, strict=True)
    assert _files(site / "atlas") == _files(tiny_site)
    assert "Mine" in (site / "index.html").read_text(encoding="utf-8")
    page = site / ("guide/first/index.html" if directories else "guide/first.html")
    text = page.read_text(encoding="utf-8")
    (unit,) = re.findall(r'href="([^"]*N2\.html)"', text)
    assert (page.parent / unit).resolve() == (site / "atlas/L1/N2.html").resolve()
    (front,) = set(re.findall(r'href="([^"]*atlas/(?:index\.html)?)"', text))
    assert (page.parent / front / ("index.html" if directories else "")).resolve() == site / "atlas/index.html"


def test_a_link_to_a_unit_that_there_is_not_is_reported(project: Write, caplog: pytest.LogCaptureFixture) -> None:
    mkdocs = project({"folder": "atlas"}, {"index.md": "[gone](atlas/L0/N99.html)"})
    with caplog.at_level(logging.WARNING, "mkdocs"), pytest.raises(Abort, match="strict"):
        _build(mkdocs, strict=True)
    assert "atlas/L0/N99.html" in caplog.text


def test_a_site_can_hold_two_atlases(project: Write, tiny_site: Path) -> None:
    plugins = [{"atlas": {"folder": "a/one"}}, {"atlas": {"folder": "two"}}]
    site = _build(
        project({}, {"index.md": "[one](a/one/index.html) [two](two/L0/N1.html)"}, plugins=plugins), strict=True
    )
    assert _files(site / "a/one") == _files(site / "two") == _files(tiny_site)


@pytest.mark.parametrize(
    ("options", "pages", "settings", "sentence"),
    [
        (
            {},
            {"index.md": "# Mine"},
            {},
            "would overwrite the atlas's index.html: rename it, or give the atlas",
        ),
        ({}, PROSE, {"theme": "readthedocs"}, "theme: readthedocs has no effect"),
        ({}, PROSE, {"plugins": ["search", "atlas"]}, "plugins: search has no effect"),
        ({}, PROSE, {"exclude_docs": "about.md"}, "about.html is excluded by MkDocs, but every page links to it"),
        ({"folder": "atlas"}, {"atlas/x.md": "# X"}, {}, "atlas/x.md would be placed among the atlas's files"),
        ({"folder": "atlas", "work": "docs/work"}, OWN, {}, "name a folder outside them"),
        ({"folder": "atlas", "work": "site"}, OWN, {}, "name a folder outside them"),
    ],
)
def test_what_cannot_be_is_refused_in_one_sentence(
    project: Write,
    caplog: pytest.LogCaptureFixture,
    options: dict[str, str],
    pages: dict[str, str],
    settings: dict[str, Any],
    sentence: str,
) -> None:
    with pytest.raises(Abort):
        _build(project(options, pages, **settings))
    (error,) = [record.getMessage() for record in caplog.records if record.levelno >= logging.ERROR]
    assert sentence in error
    assert "\n" not in error


@pytest.mark.parametrize("options", [{"folder": "../up"}, {"folder": "/abs"}, {"configuration": "none.yml"}])
def test_options_are_checked(project: Write, options: dict[str, str]) -> None:
    with pytest.raises(Abort, match="configuration error"):
        load_config(str(project(options, OWN)))


def test_a_mistake_in_the_atlas_s_configuration_is_reported_as_the_builder_reports_it(
    project: Write, caplog: pytest.LogCaptureFixture
) -> None:
    mkdocs = project({"folder": "atlas"}, OWN)
    (mkdocs.parent / "atlas.yml").write_text("model: {name: demo}\ncorpus: {sauce: stdlib}\n", encoding="utf-8")
    with pytest.raises(Abort):
        _build(mkdocs)
    assert "unknown key corpus.sauce: did you mean source?" in caplog.text


@pytest.mark.parametrize(("command", "livereload"), [("serve", True), ("serve", False), ("build", True)])
def test_the_whole_site_is_written_where_pages_cannot_be_made_on_request(
    project: Write, command: str, livereload: bool
) -> None:
    config = load_config(str(project({"folder": "atlas"}, OWN)))
    with click.Context(click.Command("mkdocs")) as context:
        context.params["livereload"] = livereload
        config.plugins.on_startup(command=command, dirty=False)  # type: ignore[arg-type]
        build(config)
    written = (Path(config.site_dir) / "atlas/L0/N3.html").is_file()
    assert written == (command == "build" or not livereload)


def test_every_option_is_documented_with_its_default() -> None:
    from atlas_builder.mkdocs_plugin.plugin import Options

    guide = Path(__file__).parents[2] / "site_config" / "guide"
    text = (guide / "mkdocs.md").read_text(encoding="utf-8")
    rows = dict(re.findall(r"^\| `(\w+)` \| ([^|]+) \|", text, re.MULTILINE))
    assert rows.keys() == dict(Options._schema).keys()
    assert rows["configuration"] == f"`{Options().configuration}`"
    assert (rows["folder"], Options().folder) == ("none", "")
    assert (rows["work"], Options().work) == ("`.atlas` beside the configuration", None)


def test_the_demo_is_configured_as_a_site_of_its_own() -> None:
    config = load_config(str(shipped_folder("site_config") / "mkdocs.yml"))
    options = config.plugins["atlas"].config
    assert Path(options["configuration"]) == shipped_folder("site_config") / "demo.yml"
    assert (options["folder"], Path(config.docs_dir)) == ("", shipped_folder("site_config") / "docs")
    assert Path(options["work"]) == shipped_folder("site_config").parent / "output"


@pytest.fixture
def preview(configure: Callable[..., Configuration], tiny_site: Path, tmp_path: Path) -> Preview:
    """The tiny atlas on request, in a theme that a test may change."""
    theme = tmp_path / "theme"
    shutil.copytree(shipped_folder("themes") / "atlas", theme)
    asked = configure(site={"theme": str(theme)})
    return Preview(asked, tiny_site, Progress(quiet=True))


def test_what_is_made_on_request_is_what_was_built(preview: Preview, tiny_site: Path, tmp_path: Path) -> None:
    for address in _files(tiny_site):
        assert preview.place(address, tmp_path / "into"), address
    preview.render_prose(tmp_path / "into")
    # But for the policy, under which MkDocs's own script could not run.
    built = _files(tiny_site)
    made = {name: _open(name, content) for name, content in built.items()}
    assert {name: _open(name, content) for name, content in _files(tmp_path / "into").items()} == made
    assert b"Content-Security-Policy" in built["L0/N0.html"]
    assert b"Content-Security-Policy" not in (tmp_path / "into" / "L0/N0.html").read_bytes()


def _open(name: str, content: bytes) -> bytes:
    return without_policy(content.decode()).encode() if name.endswith(".html") else content


def test_only_files_of_the_atlas_are_made(preview: Preview, tmp_path: Path) -> None:
    (tmp_path / "secret").write_text("secret", encoding="utf-8")
    for address in (
        "L0/N24.html",
        "L0/N-1.html",
        "L7/N0.json",
        "../secret",
        "assets/../../secret",
        "assets/none.css",
        "/",
    ):
        made = preview.place(address, tmp_path / "into")
        assert made == (address == "/"), address
    assert _files(tmp_path / "into").keys() == {"index.html"}


def test_a_folder_means_its_first_page(preview: Preview, tiny_site: Path, tmp_path: Path) -> None:
    for address in ("L1", "L1/"):
        assert preview.place(address, tmp_path / "into")
    built = _open("L1/index.html", (tiny_site / "L1/index.html").read_bytes())
    assert _files(tmp_path / "into") == {"L1/index.html": built}


def test_a_theme_that_cannot_be_rendered_says_so_on_the_page(preview: Preview, tmp_path: Path) -> None:
    (preview.site.theme / "unit.html").write_text("{% if <script> %}", encoding="utf-8")
    assert preview.place("L0/N3.html", tmp_path / "into")
    page = (tmp_path / "into/L0/N3.html").read_text(encoding="utf-8")
    assert "site.theme: unit.html cannot be rendered" in page
    assert "<script>" not in page


def test_a_request_during_a_rebuild_is_answered_after_it() -> None:
    placed: set[str] = set()
    builds = [True, False, False]

    def server(environ: dict[str, Any], start_response: Any) -> list[bytes]:
        if placed and builds.pop(0):
            placed.clear()
        start_response("200 OK" if environ["PATH_INFO"] in placed else "404 Not Found", [])
        return [environ["PATH_INFO"].encode()]

    def place(address: str) -> bool:
        placed.add(f"/atlas/{address}")
        return True

    statuses: list[str] = []

    def start(status: str, headers: list[tuple[str, str]], error: object = None, /) -> Callable[[bytes], object]:
        statuses.append(status)
        return len

    answer = application(server, place, "/atlas/")
    assert list(answer({"PATH_INFO": "/atlas/L0/N3.html"}, start)) == [b"/atlas/L0/N3.html"]
    list(answer({"PATH_INFO": "/elsewhere.html"}, start))
    assert statuses == ["200 OK", "404 Not Found"]


def _get(address: str) -> str:
    with urllib.request.urlopen(address, timeout=10) as answer:
        return str(answer.read().decode("utf-8"))


def _shows(address: str, text: str) -> bool:
    return text in _get(address)


@installed
@pytest.mark.slow
@pytest.mark.parametrize("folder", ["", "atlas"])
def test_a_change_of_the_theme_shows_on_the_next_request(project: Write, tmp_path: Path, folder: str) -> None:
    mkdocs = project({"folder": folder}, OWN if folder else PROSE)
    theme = tmp_path / "theme"
    shutil.copytree(shipped_folder("themes") / "atlas", theme)
    atlas = tmp_path / "atlas.yml"
    atlas.write_text(atlas.read_text(encoding="utf-8") + "site: {theme: ./theme}\n", encoding="utf-8")
    _build(mkdocs)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [sys.executable, "-m", "mkdocs", "serve", "-f", str(mkdocs), "--dev-addr", f"127.0.0.1:{port}"]
    with (tmp_path / "log").open("w") as log:
        serving = subprocess.Popen(command, stdout=log, stderr=log, env={**os.environ, "TMPDIR": str(tmp_path)})
    root = f"http://127.0.0.1:{port}/{folder and folder + '/'}"
    try:
        _until(lambda: serving.poll() is not None or "Serving on" in (tmp_path / "log").read_text("utf-8"), 120)
        assert serving.poll() is None, (tmp_path / "log").read_text("utf-8")
        for address in ("L0/N3.html", "", "L1/", "L1/index.html", "about.html"):
            page = _get(root + address)
            assert "livereload" in page, address
            assert "A tiny atlas" in page, address
        assert '"unit":3' in _get(root + "L0/N3.json")
        assert "--" in _get(root + "assets/atlas.css")
        assert "Atlas.index(" in _get(root + "search/index.js")
        base = theme / "base.html"
        base.write_text(base.read_text(encoding="utf-8").replace("<footer", "<p>changed</p><footer"), encoding="utf-8")
        for address in ("L0/N3.html", "index.html", "L1/index.html", "about.html"):
            _until(partial(_shows, root + address, "<p>changed</p>"), 10)
        assert "publish: done" not in (tmp_path / "log").read_text(encoding="utf-8").split("Serving on")[1]
    finally:
        serving.send_signal(signal.SIGINT)
        try:
            serving.wait(20)
        finally:
            serving.kill()


def _until(happened: Callable[[], bool], seconds: float) -> None:
    end = time.monotonic() + seconds
    while not happened():
        assert time.monotonic() < end
        time.sleep(0.05)
