"""The results of a build's stages, opened for the records and pages made from them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import NamedTuple

from atlas_builder.cluster.run import Clustered
from atlas_builder.collect.results import Collected, CollectedLayer
from atlas_builder.describe.results import Described, Interactions
from atlas_builder.files import MARK, read_json
from atlas_builder.link.run import Links
from atlas_builder.records.schema import Record
from atlas_builder.rotate.results import Rotation


class StagedLayer(NamedTuple):
    """One layer in the folders of the stages; attributes are read from disk on first access."""

    collected: CollectedLayer
    clustered: Clustered
    described: Described

    @property
    def number(self) -> int:
        """The layer's number, from 0."""
        return self.collected.layer


@dataclass(frozen=True)
class Stages:
    """The folders of the stages that records are made from."""

    collect: Path
    cluster: Path
    describe: Path
    link: Path
    rotate: Path | None = None
    """Where there are directions."""

    @property
    def fingerprint(self) -> str:
        """The fingerprint of all that the folders were made from; they may hold another build later."""
        return str(read_json(self.link / MARK)["fingerprint"])

    @cached_property
    def collected(self) -> Collected:
        """The results of the pass."""
        return Collected(self.collect)

    @cached_property
    def output_tokens(self) -> list[Record] | None:
        """Id and text of the token of each output neuron, as records have them; None for other kinds of units."""
        ids, texts = self.collected.facts.get("output_tokens"), self.collected.token_texts
        return None if ids is None else [{"id": number, "text": texts[number]} for number in ids]

    @classmethod
    def at(cls, work: Path) -> Stages:
        """The stages of a work folder."""
        rotate = work / "rotate"
        collect, cluster, describe, link = (work / name for name in ("collect", "cluster", "describe", "link"))
        return cls(collect, cluster, describe, link, rotate if (rotate / MARK).exists() else None)

    @cached_property
    def rotation(self) -> Rotation | None:
        """Directions of what enters each MLP; None where none were asked for."""
        return None if self.rotate is None else Rotation(self.rotate)

    @cached_property
    def interactions(self) -> Interactions | None:
        """How directions interact; None where they are not the units."""
        return Interactions(self.describe) if self.collected.facts["kind"] == "basis" else None

    def layer(self, number: int) -> StagedLayer:
        """The results for one layer."""
        return StagedLayer(
            self.collected.layer(number), Clustered(number, self.cluster), Described(number, self.describe)
        )

    @property
    def layers(self) -> list[StagedLayer]:
        """The results for each layer, in rising order."""
        return list(self.one_by_one())

    def one_by_one(self) -> Iterator[StagedLayer]:
        """The same, each opened when the one before may be freed."""
        return map(self.layer, self.collected.facts["layers_read"])

    @cached_property
    def links(self) -> Links:
        """Links between similar behaviours."""
        return Links(self.link)

    def __reduce__(self) -> tuple[Callable[..., Stages], tuple[Path | None, ...]]:
        """Workers get the paths, not the arrays that happen to be loaded."""
        return Stages, (self.collect, self.cluster, self.describe, self.link, self.rotate)
