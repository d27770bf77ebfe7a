"""What of a model does nothing, as `atlas.json` says it: for layers' pages and the first page."""

from __future__ import annotations

from typing import Any


def degeneracy_by_layer(facts: dict[str, Any]) -> list[dict[str, Any]]:
    """What `rotate.degeneracy` says of each layer, with its number as `layer`; none where it was not asked for."""
    interaction = facts.get("interaction") or {}
    return list(interaction.get("degeneracy") or ())


def layer_degeneracy(facts: dict[str, Any], layer: int) -> dict[str, Any] | None:
    """That of one layer."""
    return next((one for one in degeneracy_by_layer(facts) if one["layer"] == layer), None)


def neuron_pages(kind: str, counterpart: str | None, root: str) -> str | None:
    """What the addresses of neurons' pages begin with, for a page with this way to the site's root.

    None where neurons have no pages: in an atlas of other units that names no other atlas.
    """
    if kind == "mlp":
        return root
    if kind != "basis" or counterpart is None:
        return None
    folder = counterpart.rstrip("/") + "/"
    return folder if "//" in counterpart or counterpart.startswith("/") else root + folder
