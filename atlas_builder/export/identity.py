"""By which names other tools may know an atlas and its units, from its facts."""

from __future__ import annotations

from typing import NamedTuple

from atlas_builder.errors import SiteError
from atlas_builder.reader.atlas import Atlas


class AtlasIdentity(NamedTuple):
    """The names of an atlas."""

    kind: str
    model: str
    url: str | None
    """The address of its own site, where it has one."""
    transcoders: tuple[str, ...]
    """Names of the release and folder that its SAEs or transcoders are from."""

    @classmethod
    def of(cls, atlas: Atlas) -> AtlasIdentity:
        """From `atlas.json`; raises `SiteError` where that is damaged."""
        try:
            facts = atlas.facts
            kind, model, url = facts["kind"], facts["model"]["name"], facts["atlas"].get("url")
            units = facts["configuration"]["units"]
            transcoders = tuple(str(units[name]) for name in ("release", "path") if units.get(name))
        except (KeyError, TypeError, AttributeError):
            kind = model = url = None
            transcoders = ()
        if not isinstance(kind, str) or not isinstance(model, str) or not isinstance(url, str | None):
            raise SiteError(f"The atlas.json of {atlas.id} is damaged: build or fetch the atlas again.")
        return cls(kind, model, url, transcoders)
