"""The MkDocs plugin: `mkdocs build` publishes an atlas, as a site of its own or in a folder of a user's site."""

from __future__ import annotations

import posixpath
import shutil
from collections.abc import Callable, Iterator
from concurrent.futures import Executor
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal

import click
from jinja2 import Environment
from mkdocs.config import config_options
from mkdocs.config.base import Config, ValidationError
from mkdocs.config.defaults import MkDocsConfig
from mkdocs.exceptions import PluginError
from mkdocs.livereload import LiveReloadServer
from mkdocs.plugins import BasePlugin, event_priority, get_plugin_logger
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

from atlas_builder.config import Configuration
from atlas_builder.config_file import load_config
from atlas_builder.errors import AtlasError, ConfigurationError
from atlas_builder.mkdocs_plugin.preview import Preview, application, without_policy
from atlas_builder.pipeline import build
from atlas_builder.progress import Advance, Progress
from atlas_builder.shipped import shipped_folder
from atlas_builder.site.prose.mkdocs_theme import Dress
from atlas_builder.site.prose.render import check_prose, published_pages

_HAVE_A_FOLDER = "give the atlas a folder of the site (folder: atlas, under the plugin)"


class _Folder(config_options.Type[str]):
    """A folder within the site, as `a/b`."""

    def run_validation(self, value: object) -> str:
        folder = posixpath.normpath(super().run_validation(value) or ".")
        if posixpath.isabs(folder) or folder.split("/")[0] == "..":
            raise ValidationError(f"{value!r} must be a folder within the site, like atlas.")
        return "" if folder == "." else folder


class Options(Config):  # type: ignore[no-untyped-call]
    """What `mkdocs.yml` says of an atlas; paths are taken from the folder of that file."""

    configuration = config_options.File(default="atlas.yml", exists=True)
    """The atlas's own configuration, what `atlas-builder build` takes."""
    folder = _Folder(str, default="")
    """Where in the site the atlas is; when empty, it is the site, and `docs_dir` its prose."""
    work = config_options.Optional(config_options.Dir())
    """Where the atlas is built before it is copied into the site, and what a build has done is kept; `.atlas` beside
    the configuration when empty."""


class _Logged(Progress):
    """Tells MkDocs's log."""

    def __init__(self) -> None:
        super().__init__(quiet=True)
        self._log = get_plugin_logger("atlas")

    def say(self, text: str) -> None:
        self._log.info(text)

    @contextmanager
    def task(self, name: str, total: int | None, unit: str, done: int = 0) -> Iterator[Advance]:
        with self._lines(name, total, unit, done) as advance:
            yield advance


@contextmanager
def _as_mkdocs_tells() -> Iterator[None]:
    """What is the user's to mend ends the build with one sentence, as MkDocs's own errors do."""
    try:
        yield
    except AtlasError as error:
        raise PluginError(str(error)) from error


class _Linked(Files):
    """The files of a site and, as targets of links, those of the atlas in it.

    These are looked up when a link names one: MkDocs is slow with as many as an atlas has.
    """

    def __init__(self, files: Files, config: MkDocsConfig, folder: str, built: Path) -> None:
        super().__init__(files)
        self._before, self._config, self._folder, self._built = files, config, folder, built

    def get_file_from_path(self, path: str) -> File | None:
        """The file whose source is at this path; of the atlas, whose address it is."""
        found = super().get_file_from_path(path) or self._before.get_file_from_path(path)
        address = Path(posixpath.relpath(path, self._folder or "."))
        if found is None and ".." not in address.parts and (self._built / address).is_file():
            found = File(path, None, self._config.site_dir, self._config.use_directory_urls)
        return found


class AtlasPlugin(BasePlugin[Options]):  # type: ignore[no-untyped-call]
    """Builds an atlas when MkDocs builds its site.

    Stages whose inputs did not change are taken over, as in `atlas-builder build`. Under
    `mkdocs serve` pages are rendered when they are asked for.
    """

    supports_multiple_instances = True

    executor: Executor | None = None
    """What runs the shards of a build; by default, one process a core."""

    def __init__(self) -> None:
        self._progress = _Logged()
        self._on_request = False
        self._preview: Preview | None = None

    @property
    def preview(self) -> Preview:
        """The atlas that was built."""
        assert self._preview is not None  # MkDocs calls on_pre_build before all that ask for it
        return self._preview

    def on_startup(self, *, command: Literal["build", "gh-deploy", "serve"], dirty: bool) -> None:
        """See whether pages can wait until they are asked for; MkDocs then keeps the plugin between builds."""
        context = click.get_current_context(silent=True)
        # Without live reload MkDocs gives plugins no hold on its server.
        self._on_request = command == "serve" and (context is None or bool(context.params.get("livereload", True)))

    def on_pre_build(self, *, config: MkDocsConfig) -> None:
        """Build the atlas, or take over what is built; where it is the site, put the site into its theme."""
        with _as_mkdocs_tells():
            if not self.config.folder:
                self._refuse_what_has_no_effect(config)
            asked = self._asked(config)
            built = self._place(asked, config)
            if self._on_request and self._preview is not None and self._preview.asked == asked:
                self._preview.follow_prose()
            else:
                build.build(asked, built, progress=self._progress, executor=self.executor)
                self._preview = Preview(asked, built, self._progress)
            if not self.config.folder:
                self._dress.on_config(config)

    @event_priority(-100)  # after plugins that add files, or make the collection anew
    def on_files(self, files: Files, *, config: MkDocsConfig) -> Files:
        """Let links lead into the atlas."""
        with _as_mkdocs_tells():
            if self.config.folder:
                self._refuse_files_in_the_way(files)
            else:
                files = self._dress.on_files(files, config)
                self._refuse_to_leave_out(files)
        return _Linked(files, config, self.config.folder, self.preview.built)

    def on_env(self, env: Environment, *, config: MkDocsConfig, files: Files) -> Environment:
        """Escape what templates show, where they are the atlas's."""
        return env if self.config.folder else self._dress.on_env(env)

    def on_post_page(self, output: str, *, page: Page, config: MkDocsConfig) -> str:
        """Let MkDocs's own script run in the prose while it is served."""
        return without_policy(output) if self._on_request and not self.config.folder else output

    def on_post_build(self, *, config: MkDocsConfig) -> None:
        """Put the atlas into the site, or leave it to requests."""
        target, preview = Path(config.site_dir, self.config.folder), self.preview
        with _as_mkdocs_tells():
            if not self._on_request:
                self._copy(target)
            elif self.config.folder:
                preview.render_prose(target)  # what MkDocs rendered is the user's
            else:
                preview.place("404.html", target)  # MkDocs's server looks for it there

    def on_serve(
        self, server: LiveReloadServer, *, config: MkDocsConfig, builder: Callable[..., Any]
    ) -> LiveReloadServer:
        """Watch what pages are made from, and render them when they are asked for."""
        site = self.preview.site
        for place in (self.config.configuration, site.theme, shipped_folder("themes") / "atlas", site.docs):
            server.watch(str(place))
        if self._on_request:
            target = Path(config.site_dir, self.config.folder)
            root = posixpath.join(server.mount_path, self.config.folder, "")
            inner = server.get_app()
            assert inner is not None  # the server set it when it was made
            server.set_app(application(inner, lambda address: self.preview.place(address, target), root))
        return server

    @property
    def _dress(self) -> Dress:
        return Dress(self.preview.site.theme, self.preview.site.extra)

    def _asked(self, config: MkDocsConfig) -> Configuration:
        """The atlas's configuration; where the atlas is the site, `docs_dir` is its prose."""
        path, docs = Path(self.config.configuration), Path(config.docs_dir).resolve()
        found = load_config(path)
        prose = Path(found.site.prose) if found.site.prose else shipped_folder("site_config") / "docs"
        if self.config.folder or prose.resolve() == docs:
            return found
        if found.site.prose:
            raise ConfigurationError(
                f"{path}: site.prose is {prose}, but the pages of this site are in docs_dir, {docs}: name one folder, "
                f"or {_HAVE_A_FOLDER}."
            )
        try:
            check_prose(str(docs))
        except ConfigurationError as error:
            raise ConfigurationError(f"{str(error).rstrip('.')}, or {_HAVE_A_FOLDER}.") from None
        return found.model_copy(update={"site": found.site.model_copy(update={"prose": str(docs)})})

    def _place(self, asked: Configuration, config: MkDocsConfig) -> Path:
        """Where the atlas is built, which MkDocs must not empty or copy."""
        work = self.config.work or Path(self.config.configuration).parent / ".atlas"
        built = Path(work, asked.atlas.id).resolve()
        site, docs = Path(config.site_dir).resolve(), Path(config.docs_dir).resolve()
        if built.is_relative_to(site) or site.is_relative_to(built) or built.is_relative_to(docs):
            raise ConfigurationError(
                f"work: the atlas would be built in {built}, which docs_dir ({docs}) or site_dir ({site}) holds: "
                "name a folder outside them."
            )
        return built

    def _refuse_what_has_no_effect(self, config: MkDocsConfig) -> None:
        if config.theme.name not in (None, "mkdocs"):  # MkDocs's own when none is named
            raise ConfigurationError(
                f"theme: {config.theme.name} has no effect, the atlas is this site and has a theme of its own "
                f"(site.theme): take it out, or {_HAVE_A_FOLDER}."
            )
        if any(name.split("/")[-1] == "search" for name in config.plugins):
            raise ConfigurationError(
                f"plugins: search has no effect, the atlas is this site and has its own: take it out, "
                f"or {_HAVE_A_FOLDER}."
            )

    def _refuse_files_in_the_way(self, files: Files) -> None:
        for file in files:
            if file.dest_uri.startswith(f"{self.config.folder}/"):
                raise ConfigurationError(
                    f"{file.src_uri} would stand among the atlas's files: rename it, or let folder: name another."
                )

    def _refuse_to_leave_out(self, files: Files) -> None:
        """Every page of an atlas lists the prose."""
        there = {file.url for file in files.documentation_pages()}
        for page, _ in self.preview.site.prose:
            if page not in there:
                raise ConfigurationError(
                    f"{page} is left out by MkDocs, and every page links to it: take its source out of docs_dir."
                )

    def _copy(self, target: Path) -> None:
        """Copy what is built; where MkDocs rendered the prose, that stays."""
        built, preview = self.preview.built, self.preview
        prose = set() if self.config.folder else {built / place for _, place in published_pages(preview.site.docs)}

        def left_out(folder: str, names: list[str]) -> list[str]:
            return [name for name in names if Path(folder, name) in prose]

        shutil.copytree(built, target, ignore=left_out, copy_function=shutil.copyfile, dirs_exist_ok=True)
