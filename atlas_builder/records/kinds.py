"""The kinds of units, as pages speak of them."""

from __future__ import annotations

from typing import NamedTuple


class Kind(NamedTuple):
    """A kind of unit."""

    noun: str
    """What one unit is called."""
    reads: str
    """What the input of its neuron embedding is the input of."""


KINDS = {
    "mlp": Kind("neuron", "MLP"),
    "sae": Kind("latent", "encoder"),
    "transcoder": Kind("transcoder feature", "MLP"),
    "crate": Kind("coordinate", "dictionary"),
    "basis": Kind("direction", "MLP"),
    "logits": Kind("output neuron", "unembedding"),
}
"""By the name that configurations and records have for it."""
BASES = {
    "global": "interaction basis",
    "local": "local interaction basis",
    "principal": "principal components",
    "random": "random directions",
}
"""By the value of `units.basis`: where directions are from, as a heading has it."""
DIRECTIONS_FILE = "directions.safetensors"
"""The file of a site that has the arrays of its directions."""
_OTHER = Kind("unit", "unit")


def kind_of(name: str) -> Kind:
    """A kind by its name; an atlas of another version may have one that is not known here."""
    return KINDS.get(name, _OTHER)
