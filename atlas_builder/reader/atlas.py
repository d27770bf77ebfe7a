"""An atlas and its layers; units are read on first access."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cached_property, lru_cache
from operator import index
from typing import TYPE_CHECKING, Any, overload

from atlas_builder.errors import ConfigurationError, MissingError, SiteError
from atlas_builder.reader.facts import check_schema, read_facts, read_object
from atlas_builder.reader.source import Source, source
from atlas_builder.reader.unit import Unit
from atlas_builder.records.address import UnitAddress
from atlas_builder.records.explanations import PUBLISHED, ByBehaviour, Explanation, by_behaviour, parse_lines
from atlas_builder.records.kinds import kind_of
from atlas_builder.records.schema import SCHEMA

if TYPE_CHECKING:
    import pyarrow as pa

_CACHED_UNITS = 128  # some megabytes


def open(place: str | os.PathLike[str]) -> Atlas:
    """Open a built atlas, in a folder or at an http address.

    Only `atlas.json` is read; records are read when they are looked at.

    Args:
        place: The folder, its address, or that of its first page.

    Returns:
        The atlas: `atlas[3]` is a layer, `atlas[3, 512]` a unit.

    Raises:
        NoAtlasError: A `SiteError`, if there is no atlas, or one that this version cannot read.

    Example:
        >>> import atlas_builder
        >>> atlas = atlas_builder.open("output/my-model")
        >>> atlas[1, 5].page
        'L1/N5.html'
    """
    return Atlas(source(place))


class Atlas:
    """A built atlas.

    `atlas[3]` is a layer, `atlas[3, 512]` a unit, and so is `atlas["demo/L3/N512"]`, by
    its id. Iteration yields all units in order and reads each in turn; `len` is their
    number. The last 128 units read are cached. Raises `MissingError`, a `KeyError`, for
    what does not exist, and `SiteError` for what cannot be read.
    """

    def __init__(self, source: Source) -> None:
        self._source = source
        self.facts: dict[str, Any] = read_facts(source)
        """`atlas.json`: model, corpus, settings, versions, layers."""
        try:
            self.id: str = self.facts["atlas"]["id"]
            """The short name, with which every unit's id begins."""
            self.title: str = self.facts["title"]
            """The title shown on pages."""
            self.edition: str = self.facts["atlas"]["version"]
            """The edition, named in citations."""
            self.layers = tuple(Layer(self, layer["layer"], layer["units"]) for layer in self.facts["layers"])
            """The layers of the atlas, in rising order."""
        except (KeyError, TypeError) as error:
            raise SiteError(f"{source.url('atlas.json')} is incomplete ({error}): build the atlas again.") from None
        self._unit = lru_cache(_CACHED_UNITS)(self._read_unit)

    @property
    def url(self) -> str:
        """The address of the first page."""
        return self.url_of("index.html")

    @cached_property
    def units(self) -> pa.Table:
        """All units as a table, from `tables/units.parquet`: one row each, in order."""
        return self._read_table("units")

    @cached_property
    def behaviours(self) -> pa.Table:
        """All behaviours as a table, from `tables/behaviours.parquet`: one row each, in order."""
        return self._read_table("behaviours")

    @cached_property
    def examples(self) -> pa.Table:
        """All examples as a table, from `tables/examples.parquet`: one row each, by unit."""
        return self._read_table("examples")

    @cached_property
    def _explanations(self) -> ByBehaviour:
        """What models said of units and behaviours: read once, and only where the atlas has any."""
        if not self.facts.get("configuration", {}).get("site", {}).get("explanations"):
            return {}
        content, url = self._source.read(PUBLISHED), self._source.url(PUBLISHED)
        if content is None:
            raise SiteError(f"{url} is missing, though atlas.json names explanations: build the atlas again.")
        try:
            return by_behaviour(parse_lines(content.decode("utf-8"), url).explanations)
        except (ConfigurationError, UnicodeDecodeError) as error:
            raise SiteError(f"{url} is damaged: build the atlas again ({error})") from None

    def explanations_of(self, unit: str, behaviour: int | None = None) -> tuple[Explanation, ...]:
        """What models said of a unit, by its id, or of one of its behaviours; read from `explanations.jsonl`."""
        return tuple(self._explanations.get((unit, behaviour), ()))

    @cached_property
    def edges(self) -> pa.Table:
        """The edges between directions as a table, from `tables/edges.parquet`: for kind basis alone."""
        if self.facts["kind"] != "basis":
            raise SiteError(f"{self.id} is of {kind_of(self.facts['kind']).noun}s: only directions have edges.")
        return self._read_table("edges")

    def __len__(self) -> int:
        return sum(map(len, self.layers))

    def __iter__(self) -> Iterator[Unit]:
        return (unit for layer in self.layers for unit in layer)

    def __contains__(self, key: object) -> bool:
        try:
            self._find(key)
        except MissingError:
            return False
        return True

    @overload
    def __getitem__(self, key: int) -> Layer: ...

    @overload
    def __getitem__(self, key: tuple[int, int] | str) -> Unit: ...

    def __getitem__(self, key: int | tuple[int, int] | str) -> Layer | Unit:
        layer, unit = self._find(key)
        return layer if unit is None else self._unit(layer.number, unit)

    def __repr__(self) -> str:
        return f"<Atlas {self.title!r}, edition {self.edition}: {len(self):,} units of {self._source}>"

    def __reduce__(self) -> tuple[type[Atlas], tuple[Source]]:
        """A copy in another process reads files itself."""
        return Atlas, (self._source,)

    def url_of(self, page: str) -> str:
        """The address of a page of the atlas."""
        return self._source.url(page)

    def _find(self, key: object) -> tuple[Layer, int | None]:
        """The layer named by a key, and the number of the unit, None for the layer itself."""
        if isinstance(key, str):
            parsed = UnitAddress.parse(key)
            if not parsed or parsed[0] not in (None, self.id):
                raise MissingError(f"{key!r} is not a unit of this atlas: use an id like {self.id}/L3/N512.")
            key = parsed[1]
        try:
            numbers = [index(part) for part in (key if isinstance(key, tuple) else (key,))]
        except TypeError:
            numbers = []
        if len(numbers) not in (1, 2):
            raise MissingError(f"{key!r} is not a key of an atlas: use atlas[layer] or atlas[layer, unit].")
        layer = next((layer for layer in self.layers if layer.number == numbers[0]), None)
        if layer is None:
            there = ", ".join(str(layer.number) for layer in self.layers)
            raise MissingError(f"{self.id} has no layer {numbers[0]}: its layers are {there}.")
        if len(numbers) == 1:
            return layer, None
        if not 0 <= numbers[1] < len(layer):
            raise MissingError(f"{self.id}/L{layer.number} has no unit {numbers[1]}: they are 0 to {len(layer) - 1}.")
        return layer, numbers[1]

    def _read_unit(self, layer: int, number: int) -> Unit:
        name = UnitAddress(layer, number).record
        content, url = self._source.read(name), self._source.url(name)
        if content is None:
            raise SiteError(f"{url} is missing, though atlas.json lists it: build the atlas again.")
        record = read_object(content, url)
        check_schema(record, SCHEMA, url)
        if (record.get("layer"), record.get("unit")) != (layer, number):
            raise SiteError(f"{url} is the record of another unit, {record.get('id')}.")
        return Unit(self, layer, number, record)

    def _read_table(self, name: str) -> pa.Table:
        import pyarrow as pa
        import pyarrow.parquet as pq

        file = f"tables/{name}.parquet"
        content = self._source.read(file)
        if content is None:
            raise SiteError(f"{self._source.url(file)} is missing: build the atlas with Atlas Builder 0.4 or later.")
        try:
            return pq.ParquetFile(pa.BufferReader(content)).read()
        except pa.ArrowException as error:
            raise SiteError(f"{self._source.url(file)} is not a Parquet file: {error}") from None


@dataclass(frozen=True, repr=False)
class Layer:
    """A layer of an atlas: `layer[512]` is a unit, `len` their number; iteration reads each unit in turn."""

    atlas: Atlas
    number: int
    _units: int = field(compare=False)

    @property
    def url(self) -> str:
        """The address of its page."""
        return self.atlas.url_of(f"L{self.number}/index.html")

    def __len__(self) -> int:
        return self._units

    def __iter__(self) -> Iterator[Unit]:
        return (self[number] for number in range(self._units))

    def __contains__(self, number: object) -> bool:
        return (self.number, number) in self.atlas

    def __getitem__(self, number: int) -> Unit:
        return self.atlas[self.number, number]

    def __repr__(self) -> str:
        return f"<Layer {self.number} of {self.atlas.id}: {self._units:,} units>"
