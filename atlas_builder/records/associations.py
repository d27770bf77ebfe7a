"""The named associations of a unit as its record has them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from atlas_builder.records.schema import Record
from atlas_builder.rounding import significant

_DOCUMENT = ("field", "value")
_NUMBERS = ("effect", "top", "middle", "below", "p")


def published_associations(measured: Mapping[str, Any], texts: Sequence[str]) -> Record:
    """What `associations.associations_of` saved of a unit, with tokens by their `texts` and rounded numbers."""
    return {
        "tested": measured["tested"],
        "draws": measured["draws"],
        "named": measured["named"],
        "found": [
            {
                **({"token": texts[one["token"]]} if "token" in one else {name: one[name] for name in _DOCUMENT}),
                **{name: None if one[name] is None else significant(one[name]) for name in _NUMBERS},
            }
            for one in measured["found"]
        ],
    }
