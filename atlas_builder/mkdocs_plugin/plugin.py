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
from atlas_builder.site.hosting import sums
from atlas_builder.site.prose.mkdocs_theme import AtlasTheme
from atlas_builder.site.prose.render import check_prose, published_pages

_USE_A_FOLDER = "give the atlas a folder of the site (folder: atlas, under the plugin)"


class _Folder(config_options.Type[str]):
    """A folder within the site, as `a/b`."""

    def run_validation(self, value: object) -> str:
        folder = posixpath.normpath(super().run_validation(value) or ".")
        if posixpath.isabs(folder) or folder.split("/")[0] == "..":
            raise ValidationError(f"{value!r} must be a folder within the site, like atlas.")
        return "" if folder == "." else folder


class Options(Config):  # type: ignore[no-untyped-call]
    """The plugin's options in `mkdocs.yml`; paths are relative to the folder of that file."""

    configuration = config_options.File(default="atlas.yml", exists=True)
    """The atlas's configuration, as for `atlas-builder build`."""
    folder = _Folder(str, default="")
    """Where in the site the atlas is; when empty, it is the site, and `docs_dir` its prose."""
    work = config_options.Optional(config_options.Dir())
    """Where the atlas is built before it is copied into the site, and where its stages are kept; `.atlas` beside the
    configuration when empty."""


class _Logged(Progress):
    """Progress lines in MkDocs's log."""

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
def _plugin_errors() -> Iterator[None]:
    """An `AtlasError` ends the build with its one sentence, as MkDocs's own errors do."""
    try:
        yield
    except AtlasError as error:
        raise PluginError(str(error)) from error


class _Linked(Files):
    """The files of a site and, as targets of links, those of the atlas in it.

    These are looked up when a link names one: MkDocs is slow with so many.
    """

    def __init__(self, files: Files, config: MkDocsConfig, folder: str, built: Path) -> None:
        super().__init__(files)
        self._others, self._config, self._folder, self._built = files, config, folder, built

    def get_file_from_path(self, path: str) -> File | None:
        """The file with this source path; of the atlas, with this address."""
        file = super().get_file_from_path(path) or self._others.get_file_from_path(path)
        address = Path(posixpath.relpath(path, self._folder or "."))
        if file is None and ".." not in address.parts and (self._built / address).is_file():
            file = File(path, None, self._config.site_dir, self._config.use_directory_urls)
        return file


class AtlasPlugin(BasePlugin[Options]):  # type: ignore[no-untyped-call]
    """Builds an atlas when MkDocs builds its site.

    Stages whose inputs did not change are skipped, as in `atlas-builder build`. Under
    `mkdocs serve` pages are rendered on request.
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
        assert self._preview is not None  # MkDocs calls on_pre_build first
        return self._preview

    def on_startup(self, *, command: Literal["build", "gh-deploy", "serve"], dirty: bool) -> None:
        """Decide whether pages are rendered on request; MkDocs then keeps the plugin between builds."""
        context = click.get_current_context(silent=True)
        # Without live reload MkDocs gives plugins no access to its server.
        self._on_request = command == "serve" and (context is None or bool(context.params.get("livereload", True)))

    def on_pre_build(self, *, config: MkDocsConfig) -> None:
        """Build the atlas where it changed; where it is the whole site, apply its theme."""
        with _plugin_errors():
            if not self.config.folder:
                self._refuse_ineffective_settings(config)
            configuration = self._configuration(config)
            built = self._built_folder(configuration, config)
            if self._on_request and self._preview is not None and self._preview.configuration == configuration:
                self._preview.follow_prose()
            else:
                build.build(configuration, built, progress=self._progress, executor=self.executor)
                self._preview = Preview(configuration, built, self._progress)
            if not self.config.folder:
                self._theme.on_config(config)

    @event_priority(-100)  # after plugins that add files or replace the collection
    def on_files(self, files: Files, *, config: MkDocsConfig) -> Files:
        """Let links lead into the atlas."""
        with _plugin_errors():
            if self.config.folder:
                self._refuse_conflicting_files(files)
            else:
                files = self._theme.on_files(files, config)
                self._refuse_excluded_prose(files)
        return _Linked(files, config, self.config.folder, self.preview.built)

    def on_env(self, env: Environment, *, config: MkDocsConfig, files: Files) -> Environment:
        """Escape what the atlas's templates show."""
        return env if self.config.folder else self._theme.on_env(env)

    def on_post_page(self, output: str, *, page: Page, config: MkDocsConfig) -> str:
        """Allow MkDocs's own script in the prose while it is served."""
        return without_policy(output) if self._on_request and not self.config.folder else output

    def on_post_build(self, *, config: MkDocsConfig) -> None:
        """Copy the atlas into the site, unless its pages are rendered on request."""
        target, preview = Path(config.site_dir, self.config.folder), self.preview
        with _plugin_errors():
            if not self._on_request:
                self._copy(target)
            elif self.config.folder:
                preview.render_prose(target)  # MkDocs rendered the user's pages
            else:
                preview.place("404.html", target)  # MkDocs's server looks for it there

    def on_serve(
        self, server: LiveReloadServer, *, config: MkDocsConfig, builder: Callable[..., Any]
    ) -> LiveReloadServer:
        """Watch what pages are made from, and render them on request."""
        site = self.preview.site
        for place in (self.config.configuration, site.theme, shipped_folder("themes") / "atlas", site.docs):
            server.watch(str(place))
        if self._on_request:
            target = Path(config.site_dir, self.config.folder)
            root = posixpath.join(server.mount_path, self.config.folder, "")
            inner = server.get_app()
            assert inner is not None  # set by its constructor
            server.set_app(application(inner, lambda address: self.preview.place(address, target), root))
        return server

    @property
    def _theme(self) -> AtlasTheme:
        return AtlasTheme(self.preview.site.theme, self.preview.site.extra)

    def _configuration(self, config: MkDocsConfig) -> Configuration:
        """The atlas's configuration; where the atlas is the site, `docs_dir` is its prose."""
        path, docs = Path(self.config.configuration), Path(config.docs_dir).resolve()
        configuration = load_config(path)
        named = configuration.site.prose
        prose = Path(named) if named else shipped_folder("site_config") / "docs"
        if self.config.folder or prose.resolve() == docs:
            return configuration
        if named:
            raise ConfigurationError(
                f"{path}: site.prose is {prose}, but the pages of this site are in docs_dir, {docs}: "
                f"set both to one folder, or {_USE_A_FOLDER}."
            )
        try:
            check_prose(str(docs))
        except ConfigurationError as error:
            raise ConfigurationError(f"{str(error).rstrip('.')}, or {_USE_A_FOLDER}.") from None
        return configuration.model_copy(update={"site": configuration.site.model_copy(update={"prose": str(docs)})})

    def _built_folder(self, configuration: Configuration, config: MkDocsConfig) -> Path:
        """Where the atlas is built: a folder that MkDocs neither empties nor copies."""
        work = self.config.work or Path(self.config.configuration).parent / ".atlas"
        built = Path(work, configuration.atlas.id).resolve()
        site, docs = Path(config.site_dir).resolve(), Path(config.docs_dir).resolve()
        if built.is_relative_to(site) or site.is_relative_to(built) or built.is_relative_to(docs):
            raise ConfigurationError(
                f"work: the atlas would be built in {built}, which overlaps docs_dir ({docs}) or site_dir ({site}): "
                "name a folder outside them."
            )
        return built

    def _refuse_ineffective_settings(self, config: MkDocsConfig) -> None:
        if config.theme.name not in (None, "mkdocs"):  # MkDocs's own when none is named
            raise ConfigurationError(
                f"theme: {config.theme.name} has no effect, since the atlas is the whole site and has its own theme "
                f"(site.theme): remove it, or {_USE_A_FOLDER}."
            )
        if any(name.split("/")[-1] == "search" for name in config.plugins):
            raise ConfigurationError(
                f"plugins: search has no effect, since the atlas is the whole site and has its own search: remove it, "
                f"or {_USE_A_FOLDER}."
            )

    def _refuse_conflicting_files(self, files: Files) -> None:
        for file in files:
            if file.dest_uri.startswith(f"{self.config.folder}/"):
                raise ConfigurationError(
                    f"{file.src_uri} would be placed among the atlas's files: rename it, or set folder to another."
                )

    def _refuse_excluded_prose(self, files: Files) -> None:
        """Every page of an atlas lists the prose."""
        addresses = {file.url for file in files.documentation_pages()}
        for page, _ in self.preview.site.prose:
            if page not in addresses:
                raise ConfigurationError(
                    f"{page} is excluded by MkDocs, but every page links to it: move its source out of docs_dir."
                )

    def _copy(self, target: Path) -> None:
        """Copy the built atlas, without prose that MkDocs has rendered."""
        built, preview = self.preview.built, self.preview
        prose = set() if self.config.folder else {built / place for _, place in published_pages(preview.site.docs)}

        def left_out(folder: str, names: list[str]) -> list[str]:
            return [name for name in names if Path(folder, name) in prose]

        shutil.copytree(built, target, ignore=left_out, copy_function=shutil.copyfile, dirs_exist_ok=True)
        if not self.config.folder:  # MkDocs rendered the prose anew
            sums.seal(target, sums.listed_sums(built / sums.SUMS))
