"""A unit of an atlas: behaviours, examples, bands and numbers from its record.

Attributes have the names of the record's fields, which its schema defines; each object
holds its part of the record as `record`. A field missing from an older edition is None,
or empty.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING

from atlas_builder.corpus.characters import split_at
from atlas_builder.corpus.token_text import join_tokens, plain
from atlas_builder.errors import MissingError, SiteError
from atlas_builder.reader.band import Band
from atlas_builder.reader.directions import Direction, Reads
from atlas_builder.reader.measures import (
    Association,
    Associations,
    Histogram,
    Logits,
    Negative,
    OutputToken,
    PatternGraph,
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
from atlas_builder.records.explanations import Explanation
from atlas_builder.records.schema import Record, content_hash

if TYPE_CHECKING:
    from atlas_builder.reader.atlas import Atlas

_GLIMPSE = 24  # characters shown on either side of the key token in an example's repr


@dataclass(frozen=True, repr=False)
class Unit:
    """One unit of an atlas."""

    atlas: Atlas
    layer: int
    number: int
    record: Record = field(compare=False)
    """The published record, as plain data."""

    @property
    def id(self) -> str:
        """`demo/L3/N512`."""
        return str(self.record["id"])

    @property
    def kind(self) -> str:
        """The kind of unit, such as `mlp`, a neuron of an MLP."""
        return str(self.record["kind"])

    @property
    def token(self) -> OutputToken | None:
        """The token whose logit it is, of an output neuron; None for other kinds of units."""
        record = self.record.get("token")
        return record and OutputToken(record["id"], record["text"])

    @property
    def page(self) -> str:
        """The path of its page in the atlas, `L3/N512.html`."""
        return UnitAddress(self.layer, self.number).page

    @property
    def url(self) -> str:
        """The address of its page."""
        return self.atlas.url_of(self.page)

    @property
    def hash(self) -> str:
        """The SHA-256 stated in the record; `verify` recomputes it."""
        return str(self.record["hash"])

    def verify(self) -> None:
        """Recompute the hash of the record. Raises `SiteError` if it differs from the one stated there."""
        if content_hash(self.record) != self.record.get("hash"):
            raise SiteError(f"{self.id}: hash does not match the content, so the record was changed: fetch it again.")

    @cached_property
    def stats(self) -> Stats:
        """Statistics of its activation."""
        stats = self.record["stats"]
        histogram = Histogram(*(tuple(stats["histogram"][name]) for name in ("edges", "counts")))
        return taken(Stats, {**stats, "histogram": histogram})

    @cached_property
    def polysemanticity(self) -> Polysemanticity:
        """The measures of its positive activations."""
        return taken(Polysemanticity, self.record["polysemanticity"])

    @cached_property
    def negative(self) -> Negative | None:
        """The measures of its negative activations; None for kinds of units without them."""
        record = self.record.get("negative")
        return record and Negative(taken(Polysemanticity, record["polysemanticity"]))

    @property
    def middle_differs(self) -> bool:
        """Whether a band between the first and the last shows other tokens than the top band.

        Of an output neuron, whether one where its token comes next does.
        """
        return bool(self.record.get("middle_differs"))

    @cached_property
    def behaviours(self) -> Behaviours:
        """Its behaviours by number: `behaviours[2]` is shown at `#b2` on its page."""
        return Behaviours(self)

    @cached_property
    def bands(self) -> tuple[Band, ...]:
        """Its activation range in bands, from low to high; of an output neuron first its own, then the others."""
        return tuple(Band(self, place, band) for place, band in enumerate(self.record["bands"]))

    @cached_property
    def examples(self) -> tuple[Example, ...]:
        """All published examples: of behaviours, unclustered, and of bands."""
        return tuple(Example(self, place, example) for place, example in enumerate(self.record["examples"]))

    @property
    def explanations(self) -> tuple[Explanation, ...]:
        """What models said of the whole unit in words, with their scores; empty where none did."""
        return self.atlas.explanations_of(self.id)

    @cached_property
    def logits(self) -> Logits:
        """Direct logit effects."""
        return Logits(*(tokens_of(self.record["logits"][side]) for side in ("positive", "negative")))

    @cached_property
    def prediction(self) -> Prediction | None:
        """How well tokens predict where it fires; None if not measured."""
        record = self.record.get("prediction")
        return record and Prediction(
            record["fired"],
            *(taken(PredictionScores, record[way]) for way in ("lookup", "context", "graph") if way in record),
        )

    @cached_property
    def steering(self) -> Steering | None:
        """Changes of next-token probabilities when it is clamped to its maximum; None if not measured."""
        record = self.record.get("steering")
        return record and Steering(record["value"], tokens_of(record["more"]), tokens_of(record["less"]))

    @cached_property
    def associations(self) -> Associations | None:
        """What comes with the middle of its range more often than its top, or the reverse; None if not measured."""
        record = self.record.get("associations")
        return record and taken(
            Associations, {**record, "found": tuple(taken(Association, one) for one in record["found"])}
        )

    @cached_property
    def direction(self) -> Direction | None:
        """What it is as a direction of an MLP's input; None for other kinds of units."""
        record = self.record.get("direction")
        return record and Direction.of(record)

    @cached_property
    def reads(self) -> tuple[Reads, ...]:
        """The directions that each part of a neuron reads; empty if not measured."""
        return tuple(map(Reads.of, self.record.get("reads", ())))

    def __repr__(self) -> str:
        count = len(self.behaviours)
        return f"<Unit {self.id}: {count} behaviour{'s' * (count != 1)}>"


class Behaviours(Collection["Behaviour"]):
    """The behaviours of a unit by published number, from 1; raises `MissingError` for any other.

    Iteration yields the behaviours in the order of their numbers.
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
    """A behaviour of a unit: a cluster of its examples."""

    unit: Unit
    id: int
    """The published number."""
    record: Record = field(compare=False)

    @property
    def page(self) -> str:
        """Its path in the atlas, `L3/N512.html#b2`."""
        return f"{self.unit.page}#b{self.id}"

    @property
    def url(self) -> str:
        """Its address."""
        return self.unit.atlas.url_of(self.page)

    @property
    def sign(self) -> int:
        """1 for positive activations, −1 for negative ones."""
        return int(self.record.get("sign", 1))

    @property
    def size(self) -> int:
        """The number of its examples, of which the record holds some."""
        return int(self.record["size"])

    @property
    def coverage(self) -> float:
        """Share of the summed peak activation of the unit's examples of its sign."""
        return float(self.record["coverage"])

    @property
    def stability(self) -> float | None:
        """Mean best Jaccard index with clusters of half of the examples."""
        return self.record.get("stability")

    @property
    def label(self) -> str:
        """A short description in words from its examples."""
        return str(self.record["label"])

    @cached_property
    def tokens(self) -> tuple[Token, ...]:
        """The tokens it responds to, with their shares of its activation."""
        return tokens_of(self.record["tokens"])

    @cached_property
    def next(self) -> tuple[Token, ...]:
        """Next tokens in the text, after the key token, with their shares of its examples."""
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
    def explanations(self) -> tuple[Explanation, ...]:
        """What models said of it in words, with their scores; empty where none did."""
        return self.unit.atlas.explanations_of(self.unit.id, self.id)

    @cached_property
    def graph(self) -> PatternGraph | None:
        """The graph of the tokens that its activation needs; None without `describe.graphs`, or without examples."""
        record = self.record.get("graph")
        return record and PatternGraph.of(record)

    @property
    def neighbours(self) -> tuple[Neighbour, ...]:
        """Similar behaviours of other units, most similar first."""
        return tuple(Neighbour(self.unit.atlas, record) for record in self.record["neighbours"])

    def __repr__(self) -> str:
        return f"<Behaviour {self.unit.id}#b{self.id}: {self.size} examples, {plain(self.label)}>"


@dataclass(frozen=True, repr=False)
class Example:
    """A key token of the corpus with the text around it; `str` gives one line with the key token in «»."""

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
        """The name of the document; None for an example of a band."""
        return self.record.get("source")

    @property
    def role(self) -> str | None:
        """The role of the message that the key token is of; None but in an atlas of conversations."""
        return self.record.get("role")

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
        """The text, token by token; an incomplete character is written as its bytes, `<0xE2>`."""
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
        """Token importance (ablation) of each token up to the key token; empty if not measured."""
        return tuple(self.record.get("importance", ()))

    @property
    def behaviour(self) -> Behaviour | None:
        """Its behaviour; None if unclustered, or an example of a band."""
        number = self.record["behaviour"]
        return None if number is None else self.unit.behaviours[number]

    @property
    def text(self) -> str:
        """The text, with the bytes of each complete character joined."""
        return join_tokens(self.tokens)

    def __str__(self) -> str:
        return "{}«{}»{}".format(*self._parts())

    def __repr__(self) -> str:
        before, key, after = self._parts()
        cut = "…" + before[-_GLIMPSE:] if len(before) > _GLIMPSE else before
        rest = after[:_GLIMPSE] + "…" if len(after) > _GLIMPSE else after
        return f"<Example {self.place} of {self.unit.id}: {cut}«{key}»{rest}>"

    def _parts(self) -> tuple[str, str, str]:
        """The text before the key token, the token, and the text after it, safe to print in a terminal.

        A token that is part of a character is shown as that character.
        """
        before, key, after = map(plain, split_at(self.tokens, self.key))
        return before, key, after
