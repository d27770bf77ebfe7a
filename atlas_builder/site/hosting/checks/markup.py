"""The links of pages, and whatever in them could run, load or lead where the site's templates do not."""

from __future__ import annotations

import base64
import hashlib
import html
import re
from dataclasses import dataclass, field
from functools import lru_cache
from urllib.parse import unquote, urlsplit

from selectolax.lexbor import LexborHTMLParser, LexborNode

_LINK = re.compile(r'<(?:a|link|script|form)\b[^>]*?\s(?:href|src|action)=(?:"([^"]*)"|([^\s>]+))')
_ID = re.compile(r'<[a-z][a-z0-9]*\b[^>]*?\sid=(?:"([^"]*)"|([^\s>]+))')
_FOREIGN = {"iframe", "frame", "object", "embed", "applet", "portal", "base", "fencedframe", "template"}
_LEADS = {"href", "src", "action", "formaction", "xlink:href", "data", "poster", "srcdoc"}
_LOADED = {"stylesheet", "icon", "preload", "modulepreload", "prefetch", "import", "manifest"}
_RUNS = re.compile(r"[\s\x00-\x20]*(?:javascript|vbscript|data)[\s\x00-\x20]*:", re.IGNORECASE)
_SAFE_SOURCES = {"'self'", "'none'", "file:", "data:", "blob:"}
_HASH = re.compile(r"'sha256-[A-Za-z0-9+/=]+'")


@dataclass
class PageLinks:
    """What a page links to, and what can be linked to in it."""

    links: list[str] = field(default_factory=list)
    anchors: set[str] = field(default_factory=set)
    objections: list[str] = field(default_factory=list)
    """What its templates do not make, half a sentence each."""


def known_links(page: str) -> PageLinks:
    """The links of a page that a template made: `<` begins an element, since text has none."""
    links, anchors = ([one or other for one, other in form.findall(page)] for form in (_LINK, _ID))
    return PageLinks([html.unescape(link) if "&" in link else link for link in links], set(anchors))


def any_links(page: str, *, own_scripts: bool = False) -> PageLinks:
    """The links of any page, and objections to it; `own_scripts` allows an inline script that its policy knows."""
    reading = _Reading(page)
    return PageLinks(reading.links, reading.anchors, [*reading.objections, *_scripts(reading, own_scripts=own_scripts)])


def _scripts(reading: _Reading, *, own_scripts: bool) -> list[str]:
    policy = reading.policies[0] if len(reading.policies) == 1 else None
    if policy is None or reading.early:
        return ["it has no Content-Security-Policy ahead of all that it loads"]
    objections = []
    sources = [part.split() for part in policy.split(";") if part.split()]
    directives = {name: values for name, *values in sources}
    if directives.get("default-src") != ["'self'"] or any(
        value not in _SAFE_SOURCES and not (name == "script-src" and _HASH.fullmatch(value))
        for name, values in directives.items()
        for value in values
    ):
        objections.append("its Content-Security-Policy allows more than the site's own files")
    known = directives.get("script-src", ())
    for script in reading.inline:
        digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
        if not own_scripts or f"'sha256-{digest}'" not in known:
            objections.append("it has a script of its own, which no template makes")
    return objections


class _Reading:
    """What is in a page, read by HTML's own rules, as a browser does."""

    def __init__(self, page: str) -> None:
        self.links: list[str] = []
        self.anchors: set[str] = set()
        self.objections: list[str] = []
        self.policies: list[str] = []
        self.early = False
        """Whether something is loaded before there is a policy."""
        self.inline: list[str] = []
        for node in LexborHTMLParser(page).css("*"):
            self._element(node, node.tag or "", node.attributes)

    def _element(self, node: LexborNode, tag: str, attributes: dict[str, str | None]) -> None:
        for name, value in attributes.items():
            if name in ("href", "src", "action") and value is not None:
                self.links.append(value)
            elif name == "id" and value:
                self.anchors.add(value)
            if name.startswith("on"):
                self.objections.append(f"it has {name} on <{tag}>, which runs a script")
            if name in _LEADS and value and _RUNS.match(value):
                self.objections.append(f"it has {name}={value[:40]!r} on <{tag}>, which runs or shows what it holds")
        if tag in _FOREIGN:
            self.objections.append(f"it has <{tag}>, which no template makes")
        values = {name: value or "" for name, value in attributes.items()}
        if tag == "meta":
            self._meta(node, values)
        elif tag == "script" or (tag == "link" and _LOADED & set(values.get("rel", "").lower().split())):
            self._loads(node, tag, values)

    def _meta(self, node: LexborNode, values: dict[str, str]) -> None:
        equivalent = values.get("http-equiv", "").lower()
        if equivalent == "content-security-policy":
            if node.parent is not None and node.parent.tag == "head":  # in the body it does not count
                self.policies.append(values.get("content", ""))
        elif equivalent:
            self.objections.append(f"it has <meta http-equiv={equivalent[:40]!r}>, which no template makes")

    def _loads(self, node: LexborNode, tag: str, values: dict[str, str]) -> None:
        address = values.get("src" if tag == "script" else "href")
        if address is None:
            if values.get("type") != "application/ld+json":
                self.inline.append(node.text() or "")
        elif _is_elsewhere(address):
            self.objections.append(f"it loads {address[:80]}, which is not the site's")
        self.early |= not self.policies


def _is_elsewhere(address: str) -> bool:
    try:
        parts = urlsplit(address)
    except ValueError:
        return True
    return bool(parts.scheme or parts.netloc) or address.lstrip().startswith(("//", "\\"))


def target_of(page: str, link: str) -> tuple[str, str] | None:
    """The file, from the site's root, and the fragment that a link leads to; None for one off the site.

    `ValueError` says what is wrong with the link. The name begins with `../` for a place above the site.
    """
    target = _resolved(page.rpartition("/")[0], link)
    return target and (page if target[0] is None else target[0], target[1])


@lru_cache(maxsize=2**16)
def _resolved(folder: str, link: str) -> tuple[str | None, str] | None:
    """`target_of` from any page of a folder; the name is None for the page itself. Pages of a layer share most."""
    try:
        parts = urlsplit(link)
    except ValueError:
        raise ValueError(f"{link} is not a valid URL") from None
    if parts.scheme or parts.netloc:
        return None
    if link.startswith("/"):
        raise ValueError(f"{link} is not relative")
    fragment = unquote(parts.fragment)
    if not parts.path:
        return None, fragment
    steps: list[str] = folder.split("/") if folder else []
    for step in unquote(parts.path).split("/"):
        if step == ".." and steps and steps[-1] != "..":
            steps.pop()
        elif step not in ("", "."):
            steps.append(step)
    return "/".join(steps), fragment
