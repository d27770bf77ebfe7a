"""Themes: where they are, in a checkout and in an installed package alike, and Jinja over them."""

from __future__ import annotations

import hashlib
import re
from base64 import b64encode
from collections.abc import Iterator
from functools import cache, lru_cache
from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined, TemplateError, nodes

from atlas_builder import rounding
from atlas_builder.corpus import token_text
from atlas_builder.errors import ConfigurationError
from atlas_builder.shipped import shipped_folder
from atlas_builder.site import html
from atlas_builder.site.search.normalise import search_key
from atlas_builder.site.templates import CompiledTemplates, RecordTemplates

_COMPILED = CompiledTemplates()
_ASSET = re.compile(r"\bassets/([\w.-]+\.(?:js|css|svg))")
_GENERATED = {"constants.js"}
"""Assets that are written at publish."""
_RENAMED = {
    "drawing.js": "map-canvas.js",
    "edition.js": "edition-notice.js",
    "hands.js": "map-input.js",
    "lookup.js": "search-index.js",
    "map.js": "map-page.js",
    "plane.js": "map-data.js",
    "query.js": "search-query.js",
    "search.js": "search-page.js",
    "table.js": "layer-table.js",
}
"""Scripts by their names until version 0.5."""


def find_theme(name: str) -> Path:
    """The folder of a theme by its name or path; `ConfigurationError` where there is none."""
    for folder in (shipped_folder("themes") / name, Path(name)):
        if (folder / "base.html").is_file():
            return folder.resolve()
    known = sorted(folder.name for folder in shipped_folder("themes").iterdir() if folder.is_dir())
    raise ConfigurationError(
        f"site.theme: there is no theme {name!r}: use one of {', '.join(known)}, or a folder that holds base.html."
    )


def environment(theme: Path) -> RecordTemplates:
    """Jinja over a theme, and over the shipped one for what the theme does not redefine."""
    jinja = RecordTemplates(
        loader=FileSystemLoader([theme, shipped_folder("themes") / "atlas"]),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        bytecode_cache=_COMPILED,
    )
    jinja.filters.update(
        token=html.token,
        visible=html.markup,
        plain=token_text.plain,
        search_key=search_key,
        percent=rounding.percent,
        measure=html.measured,
        number=rounding.number,
        aligned=rounding.aligned,
        codes=html.codes,
        rows=html.rows,
        beside=html.address_from,
        thousands=lambda value: f"{value:,}",
        sha256=sha256,
    )
    return jinja


def sha256(text: str) -> str:
    """The hash by which a Content-Security-Policy knows an inline script."""
    return b64encode(hashlib.sha256(text.encode()).digest()).decode()


_RENDER = (
    "rounding", "corpus/token_text", "records/address", "records/explanations", "records/kinds", "records/measures",
    "site/citing/cite",
    "site/degeneracy", "site/evidence", "site/figures", "site/graph", "site/graph_figures", "site/headline",
    "site/highlights", "site/html", "site/in_words", "site/layer_table", "site/map", "site/measured", "site/names",
    "site/pages", "site/strips", "site/summary", "site/templates", "site/theme", "site/unit_side",
)  # fmt: skip
"""Modules that pages of records are made by."""


@cache
def renderer() -> str:
    """SHA-256 of the shipped templates and of the code that renders pages: equal ones render a record equally."""
    package, templates = Path(__file__).parent.parent, shipped_folder("themes") / "atlas"
    code = [package / f"{name}.py" for name in _RENDER]
    digest = hashlib.sha256()
    for file in sorted(code) + sorted(templates.glob("*.html")):
        digest.update(file.name.encode() + b"\0" + hashlib.sha256(file.read_bytes()).digest())
    return digest.hexdigest()


def check_theme(name: str) -> None:
    """Refuse a theme whose templates lack a block that pages fill: what they put there would be left out in silence.

    Raises `ConfigurationError`, also where there is no such theme or a template cannot be parsed.
    """
    theme = find_theme(name)
    jinja = environment(theme)
    try:
        for template in jinja.list_templates(extensions=["html"]):
            _check_assets(theme, template, _source(jinja, template))
            tree = _parsed(_source(jinja, template))
            for parent in tree.find_all(nodes.Extends):
                if not isinstance(parent.template, nodes.Const):
                    continue
                known = {block.name for block in _blocks(jinja, parent.template.value)}
                for block in tree.body:
                    if isinstance(block, nodes.Block) and block.name not in known:
                        raise ConfigurationError(
                            f"site.theme: {parent.template.value} of {theme} has no block {block.name!r}, which "
                            f"{template} fills: add {{% block {block.name} %}}{{% endblock %}} to it."
                        )
    except TemplateError as error:
        raise ConfigurationError(f"site.theme: a template of {theme} cannot be read: {error}.") from None


def _check_assets(theme: Path, template: str, source: str) -> None:
    """Refuse a template that names a script or style sheet which is not there, or one without what that requires."""
    named = set(_ASSET.findall(source))
    for asset in sorted(named - _GENERATED):
        if not any((folder / "assets" / asset).is_file() for folder in (theme, shipped_folder("themes") / "atlas")):
            renamed = _RENAMED.get(asset)
            hint = f"it is {renamed} now" if renamed else "add it to the theme, or remove the reference"
            raise ConfigurationError(
                f"site.theme: {template} of {theme} loads assets/{asset}, which is not found: {hint}."
            )
    if "atlas.js" in named and not named >= _GENERATED:
        raise ConfigurationError(
            f"site.theme: {template} of {theme} loads assets/atlas.js without assets/constants.js, which it requires: "
            'add <script defer src="{{ root }}assets/constants.js"></script> before it.'
        )


def _blocks(jinja: Environment, template: str) -> Iterator[nodes.Block]:
    """The blocks of a template and of those that it extends."""
    tree = _parsed(_source(jinja, template))
    yield from tree.find_all(nodes.Block)
    for parent in tree.find_all(nodes.Extends):
        if isinstance(parent.template, nodes.Const):
            yield from _blocks(jinja, parent.template.value)


@lru_cache(maxsize=64)
def _parsed(source: str) -> nodes.Template:
    """The tree of a template, which depends on no setting of Jinja's but its syntax; it is read only."""
    return Environment(trim_blocks=True, lstrip_blocks=True).parse(source)


def _source(jinja: Environment, template: str) -> str:
    assert jinja.loader is not None  # `environment` gives it one
    return jinja.loader.get_source(jinja, template)[0]
