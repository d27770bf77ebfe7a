"""A file of a site beside what it should be."""

from __future__ import annotations

from atlas_builder.site.hosting.checks.pages import difference
from atlas_builder.site.hosting.checks.published import PublishedSite
from atlas_builder.site.render import encoded


class Comparison:
    """Compares files of a site with what they are made from."""

    def __init__(self, site: PublishedSite) -> None:
        self.site = site
        self.problems: list[str] = []

    def text(self, name: str) -> str:
        """A file's text; nothing where there is none."""
        try:
            return (self.site.folder / name).read_text(encoding="utf-8", errors="replace")
        except OSError:
            return ""

    def same(self, name: str, expected: str | bytes) -> None:
        """Compare a file with its expected content."""
        wanted = expected if isinstance(expected, bytes) else encoded(expected)
        try:
            found = (self.site.folder / name).read_bytes()
        except OSError:
            self.problems.append(f"{name} is missing")
            return
        if found != wanted:
            shown = difference(wanted.decode("utf-8", "replace"), found.decode("utf-8", "replace"))
            self.problems.append(f"{name}: {shown}")
