"""Prose pages through MkDocs, in the same theme."""

from __future__ import annotations

import io
import logging
import re
import shutil
import tempfile
from pathlib import Path
from typing import Any

from jinja2 import TemplateError

from atlas_builder.errors import ConfigurationError
from atlas_builder.site.citing.metadata import METADATA
from atlas_builder.site.sitemap import PART_OF_SITEMAP, SITEMAP


def render_prose(docs: Path, theme: Path, output: Path, extra: dict[str, Any]) -> list[str]:
    """Render the Markdown pages of a folder into a site and return the names of the pages.

    `extra` is what the theme's templates get as `config.extra`. Raises
    `ConfigurationError` where a page cannot be rendered.
    """
    import mkdocs.exceptions
    from mkdocs.commands.build import build
    from mkdocs.config import load_config

    from atlas_builder.site.prose.mkdocs_theme import AtlasTheme

    logger = logging.getLogger("mkdocs")
    level = logger.level
    logger.setLevel(logging.CRITICAL)
    with tempfile.TemporaryDirectory() as scratch:
        try:
            config = load_config(
                config_file=io.BytesIO(b"site_name: Neuron atlas"),
                docs_dir=str(docs.resolve()),
                site_dir=scratch,
                plugins=[],
            )
            config.plugins["atlas_theme"] = AtlasTheme(theme, extra)
            build(config)
        except (mkdocs.exceptions.MkDocsException, mkdocs.exceptions.Abort, TemplateError, ValueError) as error:
            reason = " ".join(str(error).split()) or type(error).__name__
            raise ConfigurationError(f"site.prose: MkDocs cannot render {docs} ({reason}): fix the page.") from error
        finally:
            logger.setLevel(level)
        return sorted(_copy(Path(scratch), docs, output))


def check_prose(folder: str | None) -> None:
    """Raise `ConfigurationError` for a prose folder that is none, or whose files would overwrite the atlas's own."""
    if folder is None:
        return
    docs = Path(folder)
    if not docs.is_dir():
        raise ConfigurationError(f"site.prose: {docs} is not a folder: name one with Markdown pages.")
    for source, page in published_pages(docs):
        is_reserved = page.as_posix() in _RESERVED_PAGES or PART_OF_SITEMAP.fullmatch(page.as_posix())
        if is_reserved or _RESERVED_FOLDERS.fullmatch(page.parts[0]):
            raise ConfigurationError(f"site.prose: {source} would overwrite the atlas's {page}: rename it.")


_RESERVED_PAGES = {
    "index.html", "search.html", "map.html", "interaction.html", "404.html", "atlas.json", "robots.txt",
    SITEMAP, *METADATA.values(),
}  # fmt: skip
_RESERVED_FOLDERS = re.compile(r"L\d+|assets|search|schema|map|tables")


def published_pages(docs: Path) -> list[tuple[Path, Path]]:
    """Each file of a prose folder, and where in the site MkDocs puts it.

    Hidden files and folders are left out.
    """
    files = [(path, path.relative_to(docs)) for path in sorted(docs.rglob("*")) if path.is_file()]
    return [(path, _address(place)) for path, place in files if not any(part[0] == "." for part in place.parts)]


def _address(place: Path) -> Path:
    """Where MkDocs puts a page: a folder's README is its index."""
    if place.suffix.lower() not in (".md", ".markdown", ".mdown", ".mkdn", ".mkd"):
        return place
    return place.with_name("index.html") if place.stem == "README" else place.with_suffix(".html")


def _copy(rendered: Path, docs: Path, output: Path) -> list[str]:
    """Copy the pages and the files beside them, without what MkDocs adds; return the pages."""
    pages = []
    for _, place in published_pages(docs):
        if not (rendered / place).is_file():
            continue  # a draft, or another file that MkDocs leaves out
        if place.suffix == ".html":
            pages.append(place.as_posix())
        target = output / place
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(rendered / place, target)
    return pages
