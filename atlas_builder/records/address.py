"""The address of a unit: its name in ids, pages, records and links."""

from __future__ import annotations

import re
from typing import NamedTuple

_ID = re.compile(r"(?:(?P<atlas>.+)/)?L(?P<layer>[0-9]{1,18})/N(?P<unit>[0-9]{1,18})")


class UnitAddress(NamedTuple):
    """A unit by layer and number, each from 0, in the order of the atlas."""

    layer: int
    unit: int

    @property
    def id(self) -> str:
        """`L3/N512`, the unit within its atlas."""
        return f"L{self.layer}/N{self.unit}"

    @property
    def page(self) -> str:
        """`L3/N512.html`, from the site's root."""
        return f"{self.id}.html"

    @property
    def record(self) -> str:
        """`L3/N512.json`, from the site's root."""
        return f"{self.id}.json"

    def anchor(self, behaviour: int) -> str:
        """`L3/N512.html#b2`: the anchor of a behaviour, counted from 1, on the unit's page."""
        return f"{self.page}#b{behaviour}"

    def within(self, atlas: str) -> str:
        """`demo/L3/N512`: the id of the unit in its record, with the atlas."""
        return f"{atlas}/{self.id}"

    @classmethod
    def parse(cls, text: str) -> tuple[str | None, UnitAddress] | None:
        """The atlas, if named, and the address in `L3/N512` or `demo/L3/N512`; None for any other text."""
        match = _ID.fullmatch(text)
        return match and (match["atlas"], cls(int(match["layer"]), int(match["unit"])))
