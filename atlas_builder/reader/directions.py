"""What a record says of a direction, and of the directions that a neuron reads, as dataclasses."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

from atlas_builder.records.schema import Record


class Reading(NamedTuple):
    """A neuron that reads a direction: one part of what it reads, `input`, `gate` or `linear`, and the share of it."""

    unit: int
    part: str
    share: float


class Edge(NamedTuple):
    """The edge to or from a direction, and its strength."""

    layer: int
    unit: int
    strength: float


@dataclass(frozen=True, slots=True)
class Direction:
    """What a direction is: numbers as Methods defines them."""

    importance: float
    share: float | None
    rank: int
    stability: float | None
    plane: tuple[tuple[int, float], ...]
    """Other directions that it is in a plane with, where it is not stable, and how strongly they correlate."""
    readers: tuple[Reading, ...]
    edges_in: tuple[Edge, ...]
    edges_out: tuple[Edge, ...]
    module: int | None

    @classmethod
    def of(cls, record: Record) -> Direction:
        """From a record's `direction`."""
        edges = record["edges"] or {"in": (), "out": ()}
        return cls(
            **{name: record[name] for name in ("importance", "share", "rank", "stability", "module")},
            plane=tuple((number, correlation) for number, correlation in record["plane"]),
            readers=tuple(Reading(**reader) for reader in record["readers"]),
            edges_in=tuple(Edge(*edge) for edge in edges["in"]),
            edges_out=tuple(Edge(*edge) for edge in edges["out"]),
        )


@dataclass(frozen=True, slots=True)
class Reads:
    """The directions that most variance of one part of a neuron's pre-activation comes through."""

    part: str
    """`input`, or the `gate` or `linear` part of a gated neuron."""
    directions: tuple[tuple[int, float], ...]
    """Numbers and shares, the largest first."""
    rest: float | None
    """The share of all others; None where the pre-activation does not vary."""

    @classmethod
    def of(cls, record: Record) -> Reads:
        """From one of a record's `reads`."""
        listed = tuple((number, share) for number, share in record["directions"])
        return cls(record["part"], listed, record["rest"])
