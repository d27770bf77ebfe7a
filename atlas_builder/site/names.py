"""What pages call the units of an atlas and their layers: by number or, of output neurons, by token."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from atlas_builder.corpus.token_text import plain
from atlas_builder.records.address import UnitAddress
from atlas_builder.records.kinds import kind_of


class UnitNames:
    """Names of units and layers, given the facts of an atlas."""

    def __init__(self, facts: Mapping[str, Any]) -> None:
        self._noun = kind_of(facts["kind"]).noun
        tokens = facts.get("output_tokens")
        self.tokens: list[str] | None = None if tokens is None else token_names(tokens)
        """Of output neurons, which are of one layer."""

    def title(self, layer: int, unit: int) -> str:
        """`Neuron 17 of layer 2`, as the heading of its page."""
        if self.tokens is None:
            return f"{self._noun.capitalize()} {unit} of layer {layer}"
        return f"{self._noun.capitalize()} {self.tokens[unit]}"

    def crumb(self, unit: int) -> str:
        """`Neuron 17`, where the layer stands before it."""
        return f"{self._noun.capitalize()} {unit}" if self.tokens is None else self.tokens[unit]

    def short(self, layer: int, unit: int) -> str:
        """`L2/N17`, as links to its page have it."""
        return UnitAddress(layer, unit).id if self.tokens is None else self.tokens[unit]

    def of_id(self, identity: str) -> str:
        """As `short`, of `demo/L2/N17`."""
        _, layer, unit = identity.rsplit("/", 2)
        return self.short(int(layer[1:]), int(unit[1:]))

    def row(self, unit: int) -> str:
        """`17`, as the table of its layer has it."""
        return str(unit) if self.tokens is None else self.tokens[unit]

    def layer(self, layer: int) -> str:
        """`Layer 2`, as a heading."""
        return f"Layer {layer}" if self.tokens is None else f"{self._noun.capitalize()}s"

    def of_layer(self, layer: int) -> str:
        """`neurons of layer 2`, within a sentence."""
        return f"{self._noun}s of layer {layer}" if self.tokens is None else f"{self._noun}s"

    def layer_in_a_figure(self, layer: int) -> str:
        """`Layer 2`, where there is little room."""
        return f"Layer {layer}" if self.tokens is None else "Output"


def token_names(tokens: Sequence[Mapping[str, Any]]) -> list[str]:
    """The names of output neurons, given the id and text of each one's token: quoted, with visible spaces."""
    return [f"“{_spelt(token['text'])}”" if token["text"] else f"token {token['id']}" for token in tokens]


def _spelt(text: str) -> str:
    """A token as one line, with its leading and trailing spaces visible."""
    core = text.strip(" ")
    if not core:
        return "␣" * len(text)
    head, tail = len(text) - len(text.lstrip(" ")), len(text) - len(text.rstrip(" "))
    return "␣" * head + plain(core) + "␣" * tail
