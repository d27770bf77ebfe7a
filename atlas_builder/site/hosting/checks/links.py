"""Whether every link of a site leads to a file that is there, and to an anchor in it."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from atlas_builder.site.hosting.checks.markup import PageLinks, any_links, target_of


@dataclass
class SiteLinks:
    """The links of some pages of a site."""

    site: Path
    count: int = 0
    problems: list[str] = field(default_factory=list)
    anchors: dict[str, set[str]] = field(default_factory=dict)
    """Of each page, by its name."""
    fragments: dict[str, dict[str, str]] = field(default_factory=lambda: defaultdict(dict))
    """The fragments that links name, by the page that these lead to: for each a page with such a link."""
    _exists: dict[str, bool] = field(default_factory=dict)

    def add(self, page: str, found: PageLinks) -> None:
        """Follow the links of a page, given its name."""
        self.anchors[page] = found.anchors
        self.count += len(found.links)
        for link in found.links:
            try:
                target = target_of(page, link)
            except ValueError as error:
                self.problems.append(f"{page}: {error}")
                continue
            if target is None:
                continue
            name, fragment = target
            if not self._is_file(name):
                self.problems.append(f"{page}: {link} leads nowhere")
            elif fragment and name.endswith(".html"):
                self.fragments[name].setdefault(fragment, page)

    def _is_file(self, name: str) -> bool:
        if name not in self._exists:
            try:
                self._exists[name] = (self.site / name).is_file()
            except (OSError, ValueError):  # a name that is too long, or has a NUL
                self._exists[name] = False
        return self._exists[name]

    def join(self, others: Iterable[SiteLinks]) -> None:
        """Take in the links of other pages of the site."""
        for other in others:
            self.count += other.count
            self.problems += other.problems
            self.anchors.update(other.anchors)
            for name, fragments in other.fragments.items():
                self.fragments[name].update(fragments)

    def lost(self) -> Iterator[str]:
        """Links to anchors that are not there, a sentence each."""
        for name, fragments in self.fragments.items():
            if name not in self.anchors:  # a page that is not one of the site
                text = (self.site / name).read_text(encoding="utf-8", errors="replace")
                self.anchors[name] = any_links(text).anchors
            for fragment, page in fragments.items():
                if fragment not in self.anchors[name]:
                    yield f"{page}: {name}#{fragment} leads nowhere"
