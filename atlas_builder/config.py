"""The configuration of an atlas: YAML in, one validated object out.

The docstring of a field is its documentation.
"""

from __future__ import annotations

import datetime
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import Annotated, Any, Literal, NamedTuple

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from atlas_builder.shipped import MODELS


class IsPath(NamedTuple):
    """Marks a setting that may be a path: taken from the folder of its file, and published without its folders."""

    names: Collection[str] = ()
    """What is a name, even where a file is called so."""
    by_slash: bool = False
    """Whether only what has a slash is a path."""

    def means_path(self, value: str) -> bool:
        """Whether a value can be one."""
        return value not in self.names and ("/" in value or not self.by_slash)


def paths_in(section: BaseModel) -> Iterator[tuple[str, IsPath]]:
    """The settings of a section that may be paths."""
    for name, field in type(section).model_fields.items():
        yield from ((name, mark) for mark in field.metadata if isinstance(mark, IsPath))


class _Section(BaseModel):
    model_config = ConfigDict(
        extra="forbid", frozen=True, use_attribute_docstrings=True, strict=True, protected_namespaces=()
    )


class Author(_Section):
    """A person to credit."""

    name: str = Field(min_length=1)
    """Family name first, `Foote, Alex`, or as it is to be printed."""
    orcid: str | None = Field(default=None, pattern=r"^\d{4}-\d{4}-\d{4}-\d{3}[\dX]$")
    """ORCID iD, `0000-0002-1825-0097`."""


class AtlasSettings(_Section):
    """What the atlas is called and how it is cited."""

    id: str = Field(default="atlas", pattern=r"^[a-z0-9][a-z0-9._-]*$", max_length=64)
    """Short name, the first part of every unit's id (`demo/L3/N512`)."""
    title: str = Field(default="", max_length=200)
    """Title as people read it; made from the model's name when empty."""
    version: str = Field(default="1", min_length=1, max_length=40)
    """Edition, what a citation names."""
    authors: list[Author] = []
    """Who made the atlas, in the order of a citation."""
    license: str = Field(default="CC-BY-4.0", pattern=r"^[A-Za-z0-9.+() -]+$")
    """SPDX licence of the atlas's data."""
    url: str | None = Field(default=None, pattern=r"^https?://[^\s\"'<>?#{}\\]+$")
    """Address where the atlas is published; sitemap and canonical links need it."""
    doi: str | None = Field(default=None, pattern=r"^10\.\d{4,9}/[^\s{}<>\"\\]+$")
    """DOI of this edition, without `https://doi.org/`."""
    date: str | None = None
    """Date of the edition, `2026-01-31`; SOURCE_DATE_EPOCH is used when empty, else there is no date."""

    @field_validator("version", "date", mode="before")
    @classmethod
    def _as_written(cls, value: object) -> object:
        """YAML reads `1.0` and `2026-01-31` as a number and a date; people mean what they wrote."""
        if isinstance(value, datetime.date | int | float) and not isinstance(value, bool):
            return str(value)
        return value

    @field_validator("date")
    @classmethod
    def _is_a_date(cls, value: str | None) -> str | None:
        if value is not None and datetime.date.fromisoformat(value).isoformat() != value:
            raise ValueError("write the date as 2026-01-31")
        return value


class ModelSettings(_Section):
    """The language model that is read."""

    name: Annotated[str, IsPath(names=MODELS)] = Field(min_length=1)
    """`demo`, `relu-demo` or `crate-demo`, a Hugging Face name, or a folder with weights and tokenizer."""
    revision: str | None = None
    """Commit of a Hugging Face model; pins what was read."""
    dtype: Literal["float32", "bfloat16"] = "float32"
    """Precision the model runs in."""
    device: str = Field(default="cpu", pattern=r"^(cpu|cuda(:\d+)?|mps)$")
    """Where the model runs: cpu, cuda, cuda:1, mps."""


class CorpusSettings(_Section):
    """The text the model reads."""

    source: Literal["stdlib", "text", "jsonl", "huggingface"]
    """`stdlib` is the running interpreter's own topics, docstrings and source."""
    path: Annotated[str | None, IsPath()] = None
    """File or folder, for `text` and `jsonl`."""
    name: str | None = None
    """Data set, for `huggingface`."""
    split: str = "train"
    """Split of the data set."""
    field: str = "text"
    """Where the text is in a line or row."""
    revision: str | None = None
    """Commit of the data set, for `huggingface`; pins what was read."""
    context: int = Field(default=128, ge=2, le=1_000_000)
    """Tokens the model sees at once, a beginning-of-sequence token included."""
    max_tokens: int | None = Field(default=None, ge=1, le=2**40)
    """Stop after this many tokens."""
    max_documents: int | None = Field(default=None, ge=1, le=2**40)
    """Stop after this many documents."""
    on_error: Literal["fail", "skip"] = "fail"
    """What a broken line does: end the build, or be passed over and counted."""

    @model_validator(mode="after")
    def _has_its_place(self) -> CorpusSettings:
        if self.source in ("text", "jsonl") and not self.path:
            raise ValueError(f"source {self.source} needs corpus.path")
        if self.source == "huggingface" and not (self.name and self.revision):
            raise ValueError("source huggingface needs corpus.name and corpus.revision (a commit)")
        return self


class UnitSettings(_Section):
    """Which units get a page."""

    kind: Literal["mlp", "sae", "crate"] = "mlp"
    """`mlp`: the neurons of the MLPs, plain or gated; `sae`: the latents of sparse autoencoders; `crate`: the
    coordinates of a CRATE's codes."""
    path: Annotated[str | None, IsPath()] = None
    """Folder of one SAE in SAELens's layout, or of several, one a layer."""
    release: str | None = None
    """`demo`, a repository of SAEs on the hub, `owner/name`, or a release that sae-lens knows; `id` says which."""
    id: str | None = None
    """Which SAE of the release, like `blocks.8.hook_resid_pre`; of the shipped ones, `plain` or `neuron-embedding`."""
    layers: Literal["all"] | Annotated[list[Annotated[int, Field(ge=0)]], Field(min_length=1)] = "all"
    """`all`, or a list of layers, counted from 0."""

    @model_validator(mode="after")
    def _has_its_saes(self) -> UnitSettings:
        if self.kind == "sae" and bool(self.path) == bool(self.release and self.id):
            raise ValueError("kind sae needs units.path, or units.release and units.id")
        if self.kind != "sae" and (self.path or self.release or self.id):
            raise ValueError(f"kind {self.kind} has no path, release or id: those are of kind sae")
        return self


class ExampleSettings(_Section):
    """Which contexts stand for a unit."""

    policy: Literal["threshold", "top"] = "threshold"
    """`threshold`: a uniform sample of the contexts near the maximum (Foote 2024); `top`: the highest."""
    threshold: float = Field(default=0.75, gt=0, le=1)
    """Share of the unit's maximum that a context must reach, for `threshold`."""
    per_unit: int = Field(default=100, ge=1, le=10_000)
    """Examples kept for a unit."""
    window: tuple[Annotated[int, Field(ge=0, le=500)], Annotated[int, Field(ge=0, le=500)]] = (20, 10)
    """Tokens shown before and after the key token."""
    bands: list[Annotated[float, Field(ge=0, le=1)]] = Field(default=[0, 0.5, 0.9, 0.99, 0.999, 1], min_length=2)
    """Quantiles of the positive activations between which bands lie."""
    per_band: int = Field(default=4, ge=0, le=100)
    """Tokens drawn from a band to be shown; none draws no bands."""
    seed: int = Field(default=0, ge=0, lt=2**63)
    """Seed of every sample."""

    @model_validator(mode="after")
    def _bands_rise(self) -> ExampleSettings:
        if any(low >= high for low, high in zip(self.bands, self.bands[1:], strict=False)):
            raise ValueError("bands must rise, like [0, 0.5, 0.9, 1]")
        return self


class ClusterSettings(_Section):
    """How a unit's examples are parted into behaviours."""

    method: Literal["hdbscan", "agglomerative", "components"] = "agglomerative"
    """`agglomerative` (the paper; best where the truth is known), `hdbscan`, `components` (the paper's viewer)."""
    min_size: int = Field(default=2, ge=2, le=1000)
    """Fewest examples that make a behaviour; what is in smaller clusters is noise."""
    min_samples: int = Field(default=1, ge=1)
    """How many neighbours make a place dense, for `hdbscan`."""
    epsilon: float = Field(default=0.3, ge=0, lt=2)
    """Distance under which clusters do not part, for `hdbscan`."""
    cut: float = Field(default=0.55, gt=0, lt=2)
    """Mean distance up to which clusters are joined (`agglomerative`), or beyond which no two examples are near
    (`hdbscan`)."""
    similarity: float = Field(default=0.5, gt=-1, lt=1)
    """Cosine from which two examples are joined, for `components`."""
    resamples: int = Field(default=10, ge=0, le=1000)
    """Halves of the examples that are clustered again to see how stable each behaviour is."""


class DescribeSettings(_Section):
    """What is said of behaviours."""

    importance: Literal["none", "central", "shown"] = "central"
    """Whose tokens are masked one by one to see what they do: nobody's, each behaviour's central example's, or those of
    all examples shown. It runs the model some twenty times for each."""
    prediction: bool = True
    """Whether to try how well tokens foretell where a unit fires, on every tenth context."""
    steering: bool = False
    """Whether to hold each unit at its maximum and see what the model then says next on its examples; not for SAEs."""


class LinkSettings(_Section):
    """Similar behaviours of other units, and the map."""

    neighbours: int = Field(default=20, ge=0, le=100)
    """Most neighbours of a behaviour."""
    threshold: Literal["auto"] | Annotated[float, Field(ge=-1, le=1)] = "auto"
    """Least cosine between the MLP inputs of two behaviours' central examples; `auto` takes, for each pair of layers,
    the cosine that one in a thousand of all pairs of their behaviours reaches."""
    map: bool = True
    """Whether behaviours get their places on the map; it takes minutes for 100,000."""


class SiteSettings(_Section):
    """The pages."""

    theme: Annotated[str, IsPath(by_slash=True)] = "atlas"
    """Name of a shipped theme, or a path with a slash, `./my-theme`, to a folder of templates."""
    examples_per_behaviour: int = Field(default=6, ge=1, le=1000)
    """Most examples of a behaviour on a page and in a record; its size counts all."""
    examples_per_unit: int = Field(default=10, ge=1, le=10_000)
    """What a unit's behaviours share between them, though each shows two at least."""
    tokens_before: int = Field(default=20, ge=0, le=500)
    """Most tokens shown before the key token of an example, of the `examples.window` kept."""
    tokens_after: int = Field(default=10, ge=0, le=500)
    """Most tokens shown after it."""
    noise_shown: int = Field(default=2, ge=0, le=1000)
    """Most examples shown of those that are in no behaviour."""
    neighbours_shown: int = Field(default=3, ge=0, le=100)
    """Similar behaviours listed under a behaviour, on a page and in a record."""
    band_examples_shown: int = Field(default=4, ge=0, le=100)
    """Tokens shown of each band, of the `examples.per_band` drawn to be shown."""
    host: Literal["github-pages", "none"] = "none"
    """Fits the site to what a host demands, and checks it: `github-pages` allows 1 GB. Less is shown of each unit where
    need be."""
    above: str | None = Field(default=None, pattern=r"^[^\s\"'<>{}\\:]+$|^https?://[^\s\"'<>{}\\]+$")
    """Address of a page that this atlas stands under, absolute or from its folder, `../index.html`: every page's head
    leads there."""
    prose: Annotated[str | None, IsPath()] = None
    """Folder of Markdown pages to publish beside the atlas; the builder's own when empty."""


class Configuration(_Section):
    """A whole configuration; `model` and `corpus` are required."""

    atlas: AtlasSettings = AtlasSettings()
    model: ModelSettings
    corpus: CorpusSettings
    units: UnitSettings = UnitSettings()
    examples: ExampleSettings = ExampleSettings()
    clusters: ClusterSettings = ClusterSettings()
    describe: DescribeSettings = DescribeSettings()
    link: LinkSettings = LinkSettings()
    site: SiteSettings = SiteSettings()

    @property
    def title(self) -> str:
        """The atlas's title, made from the model's name where none is given."""
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
"""Deprecated names of settings, until 0.7."""


def __getattr__(name: str) -> Any:
    if name in _FORMER:
        return globals()[_FORMER[name]]
    if name in ("load", "validate", "with_overrides"):  # imported here, since that module stands above this one
        from importlib import import_module

        return getattr(import_module("atlas_builder.config_file"), "load_config" if name == "load" else name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
