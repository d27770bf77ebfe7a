"""The configuration of an atlas, as one validated, immutable object.

The docstring of a field is its documentation.
"""

from __future__ import annotations

import datetime
import itertools
import math
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, field_validator, model_validator

from atlas_builder.settings.corpus import CorpusSettings as CorpusSettings
from atlas_builder.settings.section import IsPath as IsPath
from atlas_builder.settings.section import Section
from atlas_builder.settings.section import paths_in as paths_in
from atlas_builder.settings.site import SiteSettings as SiteSettings
from atlas_builder.settings.text import Address, Edition, Orcid, Printed
from atlas_builder.settings.units import UnitSettings as UnitSettings
from atlas_builder.shipped import MODELS


class Author(Section):
    """A person to credit."""

    name: Printed = Field(min_length=1, max_length=300)
    """Family name first, `Foote, Alex`, or as it is to be printed."""
    orcid: Orcid | None = None
    """ORCID iD, `0000-0002-1825-0097`."""


class AtlasSettings(Section):
    """What the atlas is called and how it is cited."""

    id: str = Field(default="atlas", pattern=r"^[a-z0-9][a-z0-9._-]*$", max_length=64)
    """Short name; the first part of every unit's id, as in `demo/L3/N512`."""
    title: str = Field(default="", max_length=200)
    """Title that readers see; made from the model's name when empty."""
    version: Edition = Field(default="1", min_length=1, max_length=40)
    """Edition that a citation names."""
    authors: list[Author] = Field(default=[])
    """Authors of the atlas, in the order of a citation."""
    license: Printed = Field(default="CC-BY-4.0", pattern=r"^[A-Za-z0-9.+() -]+$", max_length=200)
    """SPDX licence of the atlas's data."""
    url: Address | None = Field(default=None, pattern=r"^https?://[^\s\"'<>?#{}\\]+$", max_length=2000)
    """Address where the atlas is published; required for the sitemap and canonical links."""
    doi: str | None = Field(default=None, pattern=r"^10\.[0-9]{4,9}/[!-~&&[^{}<>\"\\]]+$", max_length=200)
    """DOI of this edition, without `https://doi.org/`."""
    date: str | None = None
    """Date of the edition, `2026-01-31`; when empty, that of SOURCE_DATE_EPOCH, else none."""

    @field_validator("version", "date", mode="before")
    @classmethod
    def _as_written(cls, value: object) -> object:
        """YAML reads `1.0` as a number and `2026-01-31` as a date; both are kept as written."""
        if isinstance(value, float) and not math.isfinite(value):
            raise ValueError("write a number, or text in quotes")
        if isinstance(value, datetime.date | int | float) and not isinstance(value, bool):
            return str(value)
        return value

    @field_validator("date")
    @classmethod
    def _is_a_date(cls, value: str | None) -> str | None:
        if value is not None and (len(value) > 40 or datetime.date.fromisoformat(value).isoformat() != value):
            raise ValueError("write the date as 2026-01-31")
        return value


class ModelSettings(Section):
    """The language model whose units the atlas describes."""

    name: Annotated[str, IsPath(names=MODELS)] = Field(min_length=1)
    """Shipped model (`demo`, `relu-demo`, `crate-demo`), Hugging Face name, folder with weights and tokenizer, or a
    GGUF file, whose weights are dequantised (extra `gguf`)."""
    revision: str | None = None
    """Commit of a Hugging Face model, so that every build uses the same weights."""
    dtype: Literal["float32", "bfloat16", "float16"] = "float32"
    """Precision in which the model runs; with 16 bits, `verify` allows for coarser rounding."""
    device: str = Field(default="cpu", pattern=r"^(cpu|cuda(:[0-9]{1,3})?|mps)$")
    """Device on which the model runs: `cpu`, `cuda`, `cuda:1` or `mps`."""
    engine: Literal["auto", "loops", "device"] = "auto"
    """Where the pass looks at activations: `loops`, on the processor, to which all of them cross; `device`, where they
    are computed; `auto`: loops on `cpu`, else the device. The results are the same."""


class InteractionSettings(Section):
    """Directions of what enters each MLP, how they interact, and what of a layer does nothing (arXiv 2405.10927)."""

    report: bool = False
    """Whether an atlas of neurons says which directions each neuron reads and how degenerate each layer is; one of kind
    `basis` always does. It takes a forward and a backward run over `max_tokens`."""
    max_tokens: int | None = Field(default=25_600, ge=1, le=2**40)
    """Directions are found on at most this many tokens, in contexts spread evenly over the text; all when empty."""
    tolerance: float = Field(default=1e-9, gt=0, lt=1)
    """Share of the largest eigenvalue below which one counts as zero."""
    edge_tokens: int = Field(default=2048, ge=1, le=2**40)
    """Edges between directions of neighbouring layers are measured on about this many tokens, for kind `basis`."""
    edges_shown: float = Field(default=0.01, gt=0, le=1)
    """Share of the edges between two layers, the strongest, that are drawn, listed and make modules."""
    directions_drawn: int = Field(default=16, ge=1, le=200)
    """Directions of each layer, the most important, in the picture of interactions."""


class ExampleSettings(Section):
    """Which contexts are a unit's examples, and which tokens are sampled from its activation range."""

    policy: Literal["threshold", "robust", "top"] = "robust"
    """`robust`: a uniform sample of the contexts that reach `share` of the mean of the ten highest or, where they are
    few, the `least` highest; `threshold`: of those that reach `threshold` of the maximum (Foote 2024); `top`: those of
    the highest activation."""
    threshold: float = Field(default=0.75, gt=0, le=1)
    """Share of the unit's maximum that an example's activation must reach, for policy `threshold`."""
    share: float = Field(default=0.5, gt=0, le=1)
    """Share of the unit's robust maximum, the mean of its ten highest contexts, that an example's activation must
    reach, for policy `robust`."""
    least: int = Field(default=100, ge=1, le=10_000)
    """Where fewer contexts reach `share`, the highest are the examples, at most this many and at most `per_unit`, for
    policy `robust`."""
    weakest: float = Field(default=0.2, ge=0, le=1)
    """Share of the robust maximum below which an activation is no example at all, for policy `robust`."""
    per_unit: int = Field(default=100, ge=1, le=10_000)
    """Most examples kept per unit; negative activations have as many of their own."""
    window: tuple[Annotated[int, Field(ge=0, le=500)], Annotated[int, Field(ge=0, le=500)]] = (20, 10)
    """Tokens kept before and after the key token."""
    bands: list[Annotated[float, Field(ge=0, le=1)]] = Field(default=[0, 0.5, 0.9, 0.99, 0.999, 1], min_length=2)
    """Quantiles of the positive activations at which the bands of the activation range begin and end."""
    own_bands: list[Annotated[float, Field(ge=0, le=1)]] = Field(default=[0, 0.1, 0.5, 0.9, 1], min_length=2)
    """Quantiles at which the bands of an output neuron begin and end, for kind `logits`: of its activation where its
    token comes next."""
    per_band: int = Field(default=4, ge=0, le=100)
    """Tokens sampled from each band to be shown; 0 samples none."""
    association_draws: int = Field(default=256, ge=1, le=10_000)
    """Most tokens drawn from each band to name associations and to curate from, where `describe.associations` says
    so."""
    seed: int = Field(default=0, ge=0, lt=2**63)
    """Seed of every random sample."""

    @field_validator("bands", "own_bands")
    @classmethod
    def _written_in_one_way(cls, bands: list[float]) -> list[float]:
        """0 and 1 as the defaults have them: `[0.0, 1.0]` is `[0, 1]`, in fingerprints and published bytes alike."""
        return [int(quantile) if quantile in (0, 1) else quantile for quantile in bands]

    @model_validator(mode="after")
    def _threshold_has_its_policy(self) -> ExampleSettings:
        if "threshold" in self.model_fields_set and "policy" not in self.model_fields_set:
            raise ValueError("threshold is for policy threshold, which is not the default: set examples.policy too")
        return self

    @model_validator(mode="after")
    def _bands_increase(self) -> ExampleSettings:
        for name in ("bands", "own_bands"):
            bands = getattr(self, name)
            if any(low >= high for low, high in itertools.pairwise(bands)):
                raise ValueError(f"{name} must increase, like [0, 0.5, 0.9, 1]")
        return self

    @model_validator(mode="after")
    def _robust_rule_is_consistent(self) -> ExampleSettings:
        if self.policy == "robust" and self.weakest > self.share:
            raise ValueError("weakest must be at most share")
        return self


class ClusterSettings(Section):
    """How a unit's examples are clustered into behaviours."""

    method: Literal["linkage", "agglomerative", "hdbscan", "components"] = "linkage"
    """`linkage`: noise-free linkage, average linkage whose branches are one behaviour where their means are alike, the
    noise taken out; `agglomerative`: average linkage cut at one distance (Foote 2024); `hdbscan`; `components`:
    connected components (the viewer of its author)."""
    min_size: int = Field(default=2, ge=2, le=1000)
    """Fewest examples that make a behaviour; examples in smaller clusters are unclustered."""
    min_samples: int = Field(default=1, ge=1, le=10_000)
    """Neighbours from which density is estimated, for `hdbscan`."""
    epsilon: float = Field(default=0.3, ge=0, lt=2)
    """Distance below which clusters are not divided, for `hdbscan`."""
    cut: float = Field(default=0.55, gt=0, lt=2)
    """For `agglomerative`, the largest mean distance at which clusters are joined; for `hdbscan`, the largest distance
    of two examples that can be near."""
    similarity: float = Field(default=0.5, gt=-1, lt=1)
    """Smallest cosine at which two examples are connected, for `components`."""
    resamples: int = Field(default=10, ge=0, le=1000)
    """Random halves of the examples that are clustered again to measure the stability of each behaviour."""

    @model_validator(mode="after")
    def _cut_has_its_method(self) -> ClusterSettings:
        if "cut" in self.model_fields_set and "method" not in self.model_fields_set:
            raise ValueError("cut is for method agglomerative, which is not the default: set clusters.method too")
        return self


class DescribeSettings(Section):
    """Which measurements describe a behaviour."""

    importance: Literal["none", "central", "shown"] = "central"
    """Examples whose token importance (ablation) is measured: `none`, the `central` one of each main behaviour, or all
    that are `shown`. It runs the model about twenty times per example."""
    prediction: bool = True
    """Whether to measure how well tokens predict firing on a held-out tenth of the contexts (token F1, context F1)."""
    graphs: bool = False
    """Whether to make a graph of the tokens that each main behaviour needs (Neuron to Graph), from the examples whose
    `importance` is measured, and to score it with `prediction` (graph F1)."""
    steering: bool = False
    """Whether to clamp each unit to its maximum on its examples and measure the change of next-token probabilities;
    not for SAEs."""
    associations: bool | None = None
    """Whether to draw more tokens from the bands of each unit (`examples.association_draws`) and name what tokens or
    `corpus.attributes` go with its middle or its top; when empty, for output neurons alone (kind `logits`)."""

    @model_validator(mode="after")
    def _graphs_have_importance(self) -> DescribeSettings:
        if self.graphs and self.importance == "none":
            raise ValueError(
                "describe.graphs: graphs are made of examples whose token importance is measured: "
                "set describe.importance to central or shown"
            )
        return self


class LinkSettings(Section):
    """Similar behaviours of other units, and the map of behaviours."""

    neighbours: int = Field(default=20, ge=0, le=100)
    """Most neighbours per behaviour."""
    threshold: Literal["auto"] | Annotated[float, Field(ge=-1, le=1)] = "auto"
    """Smallest cosine similarity of neighbours, between the MLP inputs of their central examples; `auto`: for each pair
    of layers, the cosine that one in a thousand pairs of their behaviours reaches."""
    approximate_above: int | None = Field(default=None, ge=1)
    """Number of behaviours above which neighbours are looked for approximately, by faiss (extra `faiss`), and compared
    exactly; none: all are compared. Some are missed, and pages say so."""
    map: bool = True
    """Whether to place behaviours on a map by t-SNE; it takes minutes for 100,000."""


class Configuration(Section):
    """A whole configuration; `model` and `corpus` are required."""

    atlas: AtlasSettings = AtlasSettings()
    model: ModelSettings
    corpus: CorpusSettings
    units: UnitSettings = UnitSettings()
    interaction: InteractionSettings = InteractionSettings()
    examples: ExampleSettings = ExampleSettings()
    clusters: ClusterSettings = ClusterSettings()
    describe: DescribeSettings = DescribeSettings()
    link: LinkSettings = LinkSettings()
    site: SiteSettings = SiteSettings()

    @model_validator(mode="after")
    def _report_has_its_neurons(self) -> Configuration:
        if self.interaction.report and self.units.kind not in ("mlp", "basis"):
            raise ValueError(f"interaction.report: kind {self.units.kind} has none: set units.kind to mlp or basis")
        if self.corpus.chat and self.rotates:
            raise ValueError(
                "corpus.chat: directions of what enters each MLP are found on plain text alone: set units.kind to "
                "another than basis and interaction.report to false, or corpus.chat to false"
            )
        return self

    @property
    def rotates(self) -> bool:
        """Whether directions of what enters each MLP are found, before the pass."""
        return self.units.kind == "basis" or self.interaction.report

    @property
    def names_associations(self) -> bool:
        """Whether tokens are drawn from bands to name associations; for output neurons, unless it is set otherwise."""
        chosen = self.describe.associations
        return self.units.kind == "logits" if chosen is None else chosen

    @property
    def title(self) -> str:
        """The atlas's title; made from the model's name where none is given."""
        return self.atlas.title.strip() or f"Neuron atlas of {Path(self.model.name).name}"


_FORMER = {
    "Atlas": "AtlasSettings",
    "Clusters": "ClusterSettings",
    "Corpus": "CorpusSettings",
    "Describe": "DescribeSettings",
    "Examples": "ExampleSettings",
    "Link": "LinkSettings",
    "Model": "ModelSettings",
    "Site": "SiteSettings",
    "Units": "UnitSettings",
}
"""Deprecated names of the sections, until 0.7."""


def __getattr__(name: str) -> Any:
    if name in _FORMER:
        return globals()[_FORMER[name]]
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
