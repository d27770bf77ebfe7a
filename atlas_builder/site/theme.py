"""Themes: where they are, in a checkout and in an installed package alike, and Jinja over them."""

from __future__ import annotations

import hashlib
from base64 import b64encode
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from atlas_builder.corpus import token_text
from atlas_builder.errors import ConfigurationError
from atlas_builder.shipped import shipped_folder
from atlas_builder.site import html
from atlas_builder.site.search.normalise import search_key


def find_theme(name: str) -> Path:
    """The folder of a theme by its name or path; `ConfigurationError` where there is none."""
    for folder in (shipped_folder("themes") / name, Path(name)):
        if (folder / "base.html").is_file():
            return folder.resolve()
    known = sorted(folder.name for folder in shipped_folder("themes").iterdir() if folder.is_dir())
    raise ConfigurationError(
        f"site.theme: there is no theme {name!r}: use one of {', '.join(known)}, or a folder that holds base.html."
    )


class _Records(Environment):
    """Jinja whose `record.stats` looks among the keys of a dict first; pages ask for little else."""

    def getattr(self, obj: Any, attribute: str) -> Any:
        if type(obj) is dict and attribute in obj:
            return obj[attribute]
        return super().getattr(obj, attribute)


def environment(theme: Path) -> Environment:
    """Jinja over a theme, and over the shipped one for what the theme does not redefine."""
    jinja = _Records(
        loader=FileSystemLoader([theme, shipped_folder("themes") / "atlas"]),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    jinja.filters.update(
        token=html.token,
        visible=html.markup,
        plain=token_text.plain,
        search_key=search_key,
        percent=html.percent,
        measure=html.measured,
        number=html.number,
        aligned=html.aligned,
        codes=html.codes,
        rows=html.rows,
        thousands=lambda value: f"{value:,}",
        sha256=sha256,
    )
    return jinja


def sha256(text: str) -> str:
    """The hash by which a Content-Security-Policy knows an inline script."""
    return b64encode(hashlib.sha256(text.encode()).digest()).decode()
