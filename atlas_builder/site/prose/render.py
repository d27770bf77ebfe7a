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
from atlas_builder.site.metadata import METADATA


def render_prose(docs: Path, theme: Path, output: Path, extra: dict[str, Any]) -> list[str]:
    """Render the Markdown pages of a folder into a site and return the names of the pages.

    `extra` is what the theme's templates see as `config.extra`. Raises
    `ConfigurationError` where a page cannot be rendered.
    """
    import mkdocs.exceptions
    from mkdocs.commands.build import build
    from mkdocs.config import load_config

    from atlas_builder.site.prose.mkdocs_theme import Dress

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
            config.plugins["dress"] = Dress(theme, extra)
            build(config)
        except (mkdocs.exceptions.MkDocsException, mkdocs.exceptions.Abort, TemplateError, ValueError) as error:
            reason = " ".join(str(error).split()) or type(error).__name__
            raise ConfigurationError(f"site.prose: MkDocs cannot render {docs} ({reason}): mend the page.") from error
        finally:
            logger.setLevel(level)
        return sorted(_take(Path(scratch), docs, output))


def check_prose(folder: str | None) -> None:
    """Refuse a prose folder that is not one, or whose files would take the place of the atlas's own."""
    if folder is None:
        return
    docs = Path(folder)
    if not docs.is_dir():
        raise ConfigurationError(f"site.prose: {docs} is not a folder: name one that holds Markdown pages.")
    for source, page in published_pages(docs):
        if page.as_posix() in _OWN_PAGES or _OWN_FOLDERS.fullmatch(page.parts[0]):
            raise ConfigurationError(f"site.prose: {source} would take the place of the atlas's {page}: rename it.")


_OWN_PAGES = {"index.html", "search.html", "map.html", "404.html", "atlas.json", "robots.txt", "sitemap.xml", *METADATA}
_OWN_FOLDERS = re.compile(r"L\d+|assets|search|schema|map|tables")


def published_pages(docs: Path) -> list[tuple[Path, Path]]:
    """Each file of a prose folder, and where in the site MkDocs puts it.

    Hidden files and what is in hidden folders stay out.
    """
    files = [(path, path.relative_to(docs)) for path in sorted(docs.rglob("*")) if path.is_file()]
    return [(path, _address(place)) for path, place in files if not any(part[0] == "." for part in place.parts)]


def _address(place: Path) -> Path:
    """Where MkDocs puts a page: a folder's README is its index."""
    if place.suffix.lower() not in (".md", ".markdown", ".mdown", ".mkdn", ".mkd"):
        return place
    return place.with_name("index.html") if place.stem == "README" else place.with_suffix(".html")


def _take(rendered: Path, docs: Path, output: Path) -> list[str]:
    """Copy the pages and what lies beside them, not what MkDocs adds of its own."""
    taken = []
    for _, place in published_pages(docs):
        if not (rendered / place).is_file():
            continue  # a draft, or what else MkDocs leaves out
        if place.suffix == ".html":
            taken.append(place.as_posix())
        target = output / place
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(rendered / place, target)
    return taken
