"""Prose pages through MkDocs, in the same theme."""

from __future__ import annotations

import logging
import shutil
import tempfile
from pathlib import Path
from typing import Any

from jinja2 import Environment

from atlas_builder.errors import ConfigurationError
from atlas_builder.site.theme import shipped


def render_prose(docs: Path, theme: Path, output: Path, extra: dict[str, Any]) -> list[str]:
    """Render the Markdown pages of a folder into a site and return the names of the pages.

    `extra` is what the theme's templates see as `config.extra`. Raises
    `ConfigurationError` where a page cannot be rendered.
    """
    import mkdocs.exceptions
    from mkdocs.commands.build import build
    from mkdocs.config import load_config
    from mkdocs.plugins import BasePlugin

    class Escape(BasePlugin):  # type: ignore[type-arg, no-untyped-call]
        """MkDocs renders themes unescaped; an atlas's title is anybody's text."""

        def on_env(self, env: Environment, **_: Any) -> Environment:
            env.autoescape = True
            return env

    logger = logging.getLogger("mkdocs")
    level = logger.level
    logger.setLevel(logging.ERROR)
    with tempfile.TemporaryDirectory() as scratch:
        try:
            config = load_config(
                config_file=str(shipped("site_config") / "mkdocs.yml"),
                docs_dir=str(docs),
                site_dir=scratch,
                theme={"name": None, "custom_dir": str(theme)},
                extra=extra,
            )
            config.theme.dirs.append(str(shipped("themes") / "atlas"))
            config.plugins["escape"] = Escape()
            build(config)
        except (mkdocs.exceptions.MkDocsException, mkdocs.exceptions.Abort) as error:
            raise ConfigurationError(f"site.prose: MkDocs cannot render {docs}: {error}") from error
        finally:
            logger.setLevel(level)
        return sorted(_take(Path(scratch), docs, output))


def _take(rendered: Path, docs: Path, output: Path) -> list[str]:
    """Copy the pages and what lies beside them, not what MkDocs adds of its own."""
    taken = []
    for source in sorted(docs.rglob("*")):
        if not source.is_file() or source.name.startswith("."):
            continue
        place = source.relative_to(docs)
        if place.suffix == ".md":
            place = place.with_suffix(".html")
            taken.append(place.as_posix())
        target = output / place
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(rendered / place, target)
    return taken
