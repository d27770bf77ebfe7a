"""How MkDocs renders Markdown as pages of an atlas, run by the builder or by a user's `mkdocs build`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from jinja2 import Environment
from mkdocs.config.defaults import MkDocsConfig
from mkdocs.plugins import BasePlugin
from mkdocs.structure.files import Files

from atlas_builder.shipped import shipped_folder
from atlas_builder.site.prose.markdown import heading_anchor

EXTENSIONS = ("tables", "footnotes", "attr_list", "atlas_builder.site.prose.markdown")
"""Markdown extensions for prose, besides those of MkDocs."""


# MkDocs leaves a plugin without settings untyped.
class AtlasTheme(BasePlugin):  # type: ignore[type-arg, no-untyped-call]
    """Hooks that give a whole MkDocs site the theme of an atlas.

    `extra` is what the theme's templates get as `config.extra`.
    """

    def __init__(self, theme: Path, extra: dict[str, Any]) -> None:
        super().__init__()
        self._theme, self._extra = theme, extra

    def on_config(self, config: MkDocsConfig) -> MkDocsConfig:
        """Set the atlas's theme, addresses and Markdown extensions."""
        config.theme.dirs[:] = [str(self._theme.resolve()), str(shipped_folder("themes") / "atlas")]
        config.theme.static_templates.clear()  # MkDocs's 404.html and sitemap.xml: the atlas has its own
        config.nav = None  # a page's name is its heading; the head of each page lists them
        config.use_directory_urls = False  # links name files, so that the folder works from a disk
        config.markdown_extensions += [name for name in EXTENSIONS if name not in config.markdown_extensions]
        # MkDocs's own anchors drop what is not Latin, and then number what is left; a user's choice stays.
        config.mdx_configs.setdefault("toc", {}).setdefault("slugify", heading_anchor)
        config.extra.update(self._extra)
        return config

    def on_files(self, files: Files, config: MkDocsConfig) -> Files:
        """Leave out the theme's own files: its assets are published with the atlas."""
        for file in [file for file in files if file.src_dir in config.theme.dirs]:
            files.remove(file)
        return files

    def on_env(self, env: Environment, **_: Any) -> Environment:
        """Escape what templates show, which MkDocs does not; an atlas's title may hold anything."""
        env.autoescape = True
        return env
