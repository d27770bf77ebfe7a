"""A unit as its record tells of it: behaviours, examples, bands, numbers.

Attributes have the names of the record's fields, whose meaning its schema states; each
part holds its piece of the record as `record`. A field that an older edition has not is
None, or empty.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING

from atlas_builder.corpus.token_text import join_bytes, plain
from atlas_builder.errors import MissingError, SiteError
from atlas_builder.reader.measures import (
    Histogram,
    Logits,
    Negative,
    Polysemanticity,
    Prediction,
    PredictionScores,
    Stats,
    Steering,
    Token,
    taken,
    tokens_of,
)
from atlas_builder.reader.neighbour import Neighbour
from atlas_builder.records.address import UnitAddress
from atlas_builder.records.schema import Record, content_hash

if TYPE_CHECKING:
    from atlas_builder.reader.atlas import Atlas

_GLIMPSE = 24  # characters shown on either side of a key token where an example is named


@dataclass(frozen=True, repr=False)
class Unit:
    """One unit of an atlas."""

    atlas: Atlas
    layer: int
    number: int
    record: Record = field(compare=False)
    """All that is published of it, as plain data."""

    @property
    def id(self) -> str:
        """`demo/L3/N512`."""
        return str(self.record["id"])

    @property
    def kind(self) -> str:
        """What sort of unit it is: `mlp`, a neuron of an MLP."""
        return str(self.record["kind"])

    @property
    def page(self) -> str:
        """The address of its page in the atlas, `L3/N512.html`."""
        return UnitAddress(self.layer, self.number).page

    @property
    def url(self) -> str:
        """The address of its page, where it is read from."""
        return self.atlas.url_of(self.page)

    @property
    def hash(self) -> str:
        """SHA-256 of the record, as it claims; `verify` recomputes it."""
        return str(self.record["hash"])

    def verify(self) -> None:
        """Recompute the hash of the record; `SiteError` where it is another than the record claims."""
        if content_hash(self.record) != self.record.get("hash"):
            raise SiteError(f"{self.id}: its hash is not that of its content; the record was damaged or changed.")

    @cached_property
    def stats(self) -> Stats:
        """Statistics of its activation."""
        stats = self.record["stats"]
        histogram = Histogram(*(tuple(stats["histogram"][name]) for name in ("edges", "counts")))
        return taken(Stats, {**stats, "histogram": histogram})

    @cached_property
    def polysemanticity(self) -> Polysemanticity:
        """The measures of what it does above zero."""
        return taken(Polysemanticity, self.record["polysemanticity"])

    @cached_property
    def negative(self) -> Negative | None:
        """What it does below zero; None where units have no such side."""
        found = self.record.get("negative")
        return found and Negative(taken(Polysemanticity, found["polysemanticity"]))

    @property
    def middle_differs(self) -> bool:
        """Whether a band between the first and the last shows other tokens than the top."""
        return bool(self.record.get("middle_differs"))

    @cached_property
    def behaviours(self) -> Behaviours:
        """What it does, by number: `behaviours[2]` is what `#b2` on its page shows."""
        return Behaviours(self)

    @cached_property
    def bands(self) -> tuple[Band, ...]:
        """Ranges of its activation, from low to high."""
        return tuple(Band(self, place, band) for place, band in enumerate(self.record["bands"]))

    @cached_property
    def examples(self) -> tuple[Example, ...]:
        """All examples that are published: of behaviours, of none, and of bands."""
        return tuple(Example(self, place, example) for place, example in enumerate(self.record["examples"]))

    @cached_property
    def logits(self) -> Logits:
        """Direct effects on the logits."""
        return Logits(*(tokens_of(self.record["logits"][side]) for side in ("positive", "negative")))

    @cached_property
    def prediction(self) -> Prediction | None:
        """How well tokens foretell where it fires; None where that was not tried."""
        found = self.record.get("prediction")
        return found and Prediction(
            found["fired"], *(taken(PredictionScores, found[way]) for way in ("lookup", "context"))
        )

    @cached_property
    def steering(self) -> Steering | None:
        """What the model says next when it is held at its maximum; None where that was not tried."""
        found = self.record.get("steering")
        return found and Steering(found["value"], tokens_of(found["more"]), tokens_of(found["less"]))

    def __repr__(self) -> str:
        count = len(self.behaviours)
        return f"<Unit {self.id}: {count} behaviour{'s' * (count != 1)}>"


class Behaviours(Collection["Behaviour"]):
    """The behaviours of a unit, each under its published number, from 1; `MissingError` for one that is not there.

    Iteration goes through the behaviours themselves, in the order of their numbers.
    """

    __slots__ = ("_by_id", "_unit")

    def __init__(self, unit: Unit) -> None:
        self._unit = unit
        self._by_id = {record["id"]: Behaviour(unit, record["id"], record) for record in unit.record["behaviours"]}

    def __getitem__(self, id: int) -> Behaviour:
        try:
            return self._by_id[id]
        except (KeyError, TypeError):
            numbers = f"they are numbered from 1 to {len(self)}" if self._by_id else "it has none"
            raise MissingError(f"{self._unit.id} has no behaviour {id!r}: {numbers}.") from None

    def __iter__(self) -> Iterator[Behaviour]:
        return iter(self._by_id.values())

    def __reversed__(self) -> Iterator[Behaviour]:
        return reversed(self._by_id.values())

    def __contains__(self, behaviour: object) -> bool:
        return behaviour in self._by_id.values()

    def __len__(self) -> int:
        return len(self._by_id)

    def __repr__(self) -> str:
        return f"<{len(self)} behaviours of {self._unit.id}>"


@dataclass(frozen=True, repr=False)
class Behaviour:
    """One of the things that a unit does."""

    unit: Unit
    id: int
    """The number it is published under."""
    record: Record = field(compare=False)

    @property
    def page(self) -> str:
        """The address of it in the atlas, `L3/N512.html#b2`."""
        return f"{self.unit.page}#b{self.id}"

    @property
    def url(self) -> str:
        """The address of it, where it is read from."""
        return self.unit.atlas.url_of(self.page)

    @property
    def sign(self) -> int:
        """1 above zero, −1 below."""
        return int(self.record.get("sign", 1))

    @property
    def size(self) -> int:
        """Examples in it, of which the record holds some."""
        return int(self.record["size"])

    @property
    def coverage(self) -> float:
        """Share of the summed activation of the unit's examples of its sign."""
        return float(self.record["coverage"])

    @property
    def stability(self) -> float | None:
        """How well it is found again in halves of the examples."""
        return self.record.get("stability")

    @property
    def label(self) -> str:
        """A few words for it, made from its tokens."""
        return str(self.record["label"])

    @cached_property
    def tokens(self) -> tuple[Token, ...]:
        """Its tokens, with their share of its activation."""
        return tokens_of(self.record["tokens"])

    @cached_property
    def next(self) -> tuple[Token, ...]:
        """Tokens that come after the key token, with their share of its examples."""
        return tokens_of(self.record.get("next", ()))

    @property
    def central(self) -> Example:
        """The example most similar to the others."""
        return self.unit.examples[self.record["central"]]

    @property
    def examples(self) -> tuple[Example, ...]:
        """Its published examples."""
        return tuple(self.unit.examples[place] for place in self.record["examples"])

    @property
    def neighbours(self) -> tuple[Neighbour, ...]:
        """Behaviours of other units that look alike, most similar first."""
        return tuple(Neighbour(self.unit.atlas, record) for record in self.record["neighbours"])

    def __repr__(self) -> str:
        return f"<Behaviour {self.unit.id}#b{self.id}: {self.size} examples, {plain(self.label)}>"


@dataclass(frozen=True, repr=False)
class Example:
    """A token of the corpus with the text around it; as a string, one line with the key token in «»."""

    unit: Unit
    place: int
    """Its place among the unit's examples, from 0."""
    record: Record = field(compare=False)

    @property
    def document(self) -> int:
        """The number of the document, from 0."""
        return int(self.record["document"])

    @property
    def source(self) -> str | None:
        """The name of the document; None where it stands for a band."""
        return self.record.get("source")

    @property
    def position(self) -> int:
        """The place of the key token among the document's tokens, from 0."""
        return int(self.record["position"])

    @property
    def key(self) -> int:
        """The place of the key token in `tokens`."""
        return int(self.record["key"])

    @property
    def tokens(self) -> tuple[str, ...]:
        """The text, token by token; a part of a character reads as its bytes, `<0xE2>`."""
        return tuple(self.record["tokens"])

    @property
    def values(self) -> tuple[float, ...]:
        """The activation on each token."""
        return tuple(self.record["values"])

    @property
    def value(self) -> float:
        """The activation on the key token."""
        return self.values[self.key]

    @property
    def importance(self) -> tuple[float | None, ...]:
        """What each token up to the key token does for its activation; empty where that was not asked."""
        return tuple(self.record.get("importance", ()))

    @property
    def behaviour(self) -> Behaviour | None:
        """The behaviour it belongs to; None where none takes it, or where it stands for a band."""
        number = self.record["behaviour"]
        return None if number is None else self.unit.behaviours[number]

    @property
    def text(self) -> str:
        """The text as it was, bytes of one character joined where all are there."""
        return join_bytes("".join(self.tokens))

    def __str__(self) -> str:
        return "{}«{}»{}".format(*self._parts())

    def __repr__(self) -> str:
        before, key, after = self._parts()
        cut = "…" + before[-_GLIMPSE:] if len(before) > _GLIMPSE else before
        rest = after[:_GLIMPSE] + "…" if len(after) > _GLIMPSE else after
        return f"<Example {self.place} of {self.unit.id}: {cut}«{key}»{rest}>"

    def _parts(self) -> tuple[str, str, str]:
        """The text before the key token, the token and the text after it, fit for a terminal."""
        tokens, key = self.tokens, self.key
        before, here, after = (_line(part) for part in (tokens[:key], tokens[key : key + 1], tokens[key + 1 :]))
        return before, here, after


@dataclass(frozen=True, repr=False)
class Band:
    """A range of a unit's activation, and tokens drawn from it."""

    unit: Unit
    place: int
    """Its place among the unit's bands, from 0."""
    record: Record = field(compare=False)

    @property
    def quantiles(self) -> tuple[float, float]:
        """Its ends, as quantiles of the unit's positive activations."""
        low, high = self.record["quantiles"]
        return low, high

    @property
    def range(self) -> tuple[float, float]:
        """Its ends, as activations."""
        low, high = self.record["range"]
        return low, high

    @property
    def examples(self) -> tuple[Example, ...]:
        """Some tokens drawn from it."""
        return tuple(self.unit.examples[place] for place in self.record["examples"])

    @property
    def drawn(self) -> int | None:
        """How many tokens were drawn, to compare it by."""
        return self.record.get("drawn")

    @property
    def novelty(self) -> float | None:
        """The share of them that read like none drawn from the top band."""
        return self.record.get("novelty")

    @property
    def p(self) -> float | None:
        """The chance of that many, were it like the top band; None for the top band."""
        return self.record.get("p")

    def __repr__(self) -> str:
        low, high = self.range
        return f"<Band {self.place} of {self.unit.id}: {low} to {high}>"


def _line(tokens: Sequence[str]) -> str:
    """Tokens as one line of text in which nothing is invisible, so that a terminal shows it and does nothing else."""
    return plain(join_bytes("".join(tokens)))
